"""`demeanor compare`: two or more versions of a chatbot on the same prompts, each against the first.

The options and the tables that they come to are one thing here: a third of the file is the options' help.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, OtherModel, Template
from demeanor.cli.inputs import PROMPTS_IN, STANDARD_INPUT, ColumnOptions, place_of, refuse_twice, takes_columns
from demeanor.errors import InputFileError

if TYPE_CHECKING:
    from rich.table import Table

    from demeanor.comparison import Comparison, Judged, UnsafeShare
    from demeanor.comparison.experiment import Result, Version
    from demeanor.data.columns import Columns
    from demeanor.model.chat import ChatEncoder


@takes_columns
def compare(
    versions: Annotated[
        list[str],
        typer.Argument(help="Two or more: replies (a file or folder as `score` takes rows, - for standard input, or a hub data set with "
                            "its split, owner/name:train), or models by name."),
    ],
    system: Annotated[
        list[str] | None,
        typer.Option("--system", help="A system prompt for one version, by its place from 1: '2=Be brief.' or '2=@prompt.txt'; repeat it."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", help=f"What models answer. {PROMPTS_IN} Related ones have one 'group'. Default: the sixty that come with "
                                       "Demeanor."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Replies of a model to each prompt.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Equal seeds give equal replies and equal statistics.")] = 0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Length of a reply.")] = 160,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token each time.")] = 0.7,
    vectors: Annotated[
        list[Path] | None,
        typer.Option("--vectors", help="Folder of the vector set whose model reads all replies. Or one for each version, in order: each "
                                       "is then read by its own model, and only calibrated probabilities are compared."),
    ] = None,
    match: Annotated[
        Literal["auto", "id", "prompt"],
        typer.Option("--match", help="What makes replies a pair. auto: the id where all rows have one, else the prompt."),
    ] = "auto",
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", help="For CI: 'crisis_recognition drops more than 0.2' (or rises) exits with 1 where that was found. In "
                                       "units of z (a trait's usual spread); in probability where each version has its own model."),
    ] = None,
    always: Annotated[
        bool, typer.Option("--always", help="Count every trait on every prompt, also where nothing in the user's messages calls for it, as "
                                            "crisis recognition and empathy are only asked for where the user may be at risk.")
    ] = False,
    size: Annotated[
        float | None, typer.Option("--size", help="The difference for which the prompts needed are worked out. Default: 0.2 in z.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write the report to this HTML file.")] = None,
    save_replies: Annotated[Path | None, typer.Option("--save-replies", help="Folder for what the models wrote, to compare again.")] = None,
    *,
    columns: ColumnOptions,
    allow_other_model: OtherModel = False,
    template: Template = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:  # fmt: skip
    """Compare versions of a chatbot on the same prompts, each with the first, trait by trait.

    change: new minus first, in units of z (a trait's usual spread within a pole), each prompt counting once, with a
    bootstrap interval over prompts. p: paired permutation test, Holm's correction over all tests. Prompts with a common
    'group' (paraphrases of one) are drawn and flipped together; without one they are taken to be unrelated. One observer reads all
    replies, without the versions' system prompts. Replies that cannot be scored are counted, never taken for fine.

    Exits with 1 where a --fail-if condition was found to be met, with 3 where a reply could not be scored.

    Example: demeanor compare before.jsonl after.jsonl --fail-if "crisis_recognition drops more than 0.2"
    """
    from demeanor.comparison import experiment
    from demeanor.comparison.gate import parse_condition
    from demeanor.data.rows import refuse_unwritable

    conditions = [parse_condition(text) for text in fail_if or ()]
    refuse_twice([given for given in (*versions, prompts) if given == STANDARD_INPUT])
    chosen = parse_versions([str(place_of(given)) for given in versions], system or [])
    read_as = columns()
    answered = None if prompts is None else place_of(prompts)
    asked = experiment.Experiment(
        chosen, vectors or [], answered, samples, max_tokens, temperature, seed, match, conditions, size, save_replies, always, read_as,
    )  # fmt: skip
    console.check_places({f"version {i}": Path(v.source) for i, v in enumerate(chosen, 1) if v.is_file}, {"--report": report})
    if report is not None:
        refuse_unwritable(report)
    made = experiment.run(
        asked,
        experiment.Loading(
            lambda folder: console.load_scorer(folder, None, device, dtype, allow_other_model),
            lambda model: console.load_reader(model, None, device, dtype, None, template, True),
            lambda model: _look(model, template),
        ),
        experiment.Shown(_stage, lambda path, replies: console.note(f"{replies} replies in {path}")),
    )
    if report is not None:
        from demeanor.reports.comparison import write_report

        write_report(made.comparison, report, made.judged)
    if as_json:
        typer.echo(json.dumps(made.to_record(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        _print(made.comparison, made.judged)
    _say_how_read(chosen, read_as)
    for t in made.comparison.tallies:
        if t.cautions:
            console.note(
                f"{t.version}: {t.cautions} of {t.replies} replies in another language than the vectors' (the first: {t.first_caution})"
            )
    if report is not None:
        console.note(f"report in {report}")
    if made.not_judged is not None:  # what was measured is shown first
        raise made.not_judged
    _exit(made)


def _say_how_read(versions: Sequence[Version], columns: Columns) -> None:
    from demeanor.data.inputs import open_input

    for version in versions:
        if version.is_file:
            for line in open_input(version.source, columns).look().summary:
                console.note(f"{version.name}: {line}")


def _look(model: str, template: str | None) -> ChatEncoder | None:
    """Look at a model that is to answer, without its weights."""
    if model == console.EMBEDDED:
        console.offer_embedded()
    from demeanor.model.talking import encoder_of

    return encoder_of(model, template)


@contextmanager
def _stage(name: str, steps: int) -> Iterator[Callable[[int], None]]:
    with console.stages() as stage:
        yield stage(name, steps)


def parse_versions(sources: list[str], systems: list[str]) -> list[Version]:
    """The versions with distinct names and their system prompts. Raises InputFileError."""
    from demeanor.comparison.experiment import told_apart, version

    prompts: dict[int, str] = {}
    for text in systems:
        place, given, prompt = text.partition("=")
        if not given or not place.strip().isdigit() or not 1 <= int(place) <= len(sources):
            raise InputFileError(f"cannot read --system {text!r}; write a version's place from 1 to {len(sources)}: --system '2=Be brief.'")
        if int(place) - 1 in prompts:
            raise InputFileError(f"--system is given twice for version {int(place)}; give it once")
        prompts[int(place) - 1] = _text_of(prompt)
    for i in prompts:
        if version(sources[i]).is_file:
            raise InputFileError(f"version {i + 1} is a file of replies that are written already; --system is for models")
    return told_apart([version(source, prompts.get(i)) for i, source in enumerate(sources)])


def _text_of(prompt: str) -> str:
    if prompt.startswith("@"):
        from demeanor.data.prompts import read_system

        prompt = read_system(Path(prompt[1:]))
    if not prompt.strip():
        raise InputFileError("a system prompt is empty; give it some text, or leave --system out")
    return prompt.strip()


def _exit(made: Result) -> None:
    for t in made.comparison.tallies:
        if t.not_scored:
            console.problem(f"{t.version}: {t.not_scored} of {t.replies} replies could not be scored, the first: {t.first_error}")
    for j in made.failed:
        console.problem(f"{j.version}: {j.condition}: {j.reason}")
    if made.failed:
        raise typer.Exit(1)
    if made.comparison.not_scored:
        raise typer.Exit(3)


def _print(made: Comparison, judged: Sequence[Judged]) -> None:
    from rich.markup import escape

    out, first = console.out, made.versions[0]
    for version in made.versions[1:]:
        out.print(f"[bold]{escape(version)}[/] against [bold]{escape(first)}[/]", soft_wrap=True)
        out.print(_differences(made, version))
        if not any(d.found for d in made.differences if d.version == version):
            out.print("no difference found on any trait")
        out.print()
        out.print(_details(made, version))
        _lengths(made, version)
        _most_changed(made, version)
        out.print()
    unit = "z (a trait's usual spread within a pole)" if made.units == "z" else "probability of the high pole"
    out.print(f"change: new minus first, in {unit}; p after Holm over {len(made.differences)} tests", style="dim", soft_wrap=True)
    open_ones = any(not d.found and d.needed is not None for d in made.differences)
    needed = f"; needed: prompts that would show {made.size:g} with 80 % power, where no difference was found" if open_ones else ""
    out.print(f"unsafe: share of replies beyond the threshold{needed}", style="dim", soft_wrap=True)
    out.print(f"assumed: {made.assumption}", style="dim", markup=False, soft_wrap=True)
    if made.units == "probability":
        out.print(
            "each version was read by its own model: raw scores and z have no common scale, so only calibrated probabilities are compared",
            style="yellow", soft_wrap=True,
        )  # fmt: skip
    for sentence in made.applies:
        out.print(f"{sentence}; --always counts them all", style="yellow", markup=False, soft_wrap=True)
    for trait, version in made.not_compared:
        out.print(f"{trait}: not compared for {version}: no prompt that it applies to was scored for both", markup=False, soft_wrap=True)
    for t in made.tallies:
        if t.unpaired:
            where = "any other version" if t.version == first else first
            out.print(
                f"{t.version}: {t.unpaired} prompts have no scored reply in {where}; they are in no pair", markup=False, soft_wrap=True
            )
        if t.not_scored:
            out.print(f"{t.version}: {t.not_scored} of {t.replies} replies not scored", markup=False, soft_wrap=True)
    colours = {"fails": "bold red", "undecided": "yellow", "holds": "green"}
    for j in judged:
        out.print(f"[{colours[j.outcome]}]{j.outcome}[/]: {escape(str(j.condition))} ({escape(j.version)}): {j.reason}", soft_wrap=True)


def _columns(*columns: tuple[str, Literal["left", "right"]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=name != "")
    return table


def _differences(made: Comparison, version: str) -> Table:
    from rich.text import Text

    table = _columns(("trait", "left"), ("change", "right"), ("95 % interval", "right"), ("p", "right"), ("", "left"))
    for d in made.differences:
        if d.version == version:
            colour = "" if not d.found else "green" if d.toward_safe else "bold red"
            interval = "one prompt" if d.interval is None else f"{d.interval.low:+.2f} to {d.interval.high:+.2f}"
            table.add_row(d.trait, f"{d.difference:+.2f}", interval, _p(d.p_holm), Text(d.verdict, colour))
    for trait, where in made.not_compared:
        if where == version:
            table.add_row(trait, "", "", "", Text("not compared", "yellow"))
    return table


def _p(p: float) -> str:
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def _details(made: Comparison, version: str) -> Table:
    table = _columns(
        ("trait", "left"),
        ("effect", "right"),
        ("unsafe first", "right"),
        ("unsafe now", "right"),
        ("prompts", "right"),
        ("needed", "right"),
    )
    for d in made.differences:
        if d.version == version:
            effect = "" if d.effect is None else f"{d.effect:+.2f}"
            needed = "" if d.needed is None or d.found else str(d.needed)  # a difference that was found needs no more prompts
            table.add_row(d.trait, effect, _share(d.unsafe_before), _share(d.unsafe_after), str(d.prompts), needed)
    return table


def _share(share: UnsafeShare | None) -> str:
    return "" if share is None else f"{share.share:.0%} ({100 * share.interval.low:.0f}-{100 * share.interval.high:.0f})"


def _lengths(made: Comparison, version: str) -> None:
    length = next(n for n in made.lengths if n.version == version)
    within = "" if length.interval is None else f", {length.interval.low:.2f} to {length.interval.high:.2f}"
    line = f"{length.before:.0f} words a reply first, {length.after:.0f} now (ratio {length.ratio:.2f}{within})"
    if not length.differs:
        console.out.print(f"length: no difference found, {line}", style="dim", soft_wrap=True)
        return
    console.out.print(f"[yellow]length differs:[/] {line}; a score can move with length alone", soft_wrap=True)
    for d in made.differences:
        if d.version == version and d.found and d.equal_length is not None:
            value, interval = d.equal_length
            console.out.print(f"  {d.trait} at equal length: {value:+.2f} ({interval.low:+.2f} to {interval.high:+.2f})", soft_wrap=True)


def _most_changed(made: Comparison, version: str) -> None:
    """For each trait that differs, the prompt that changed most, with both replies side by side."""
    from rich.markup import escape
    from rich.table import Table

    for d in made.differences:
        if d.version != version or not d.found or not d.changed:
            continue
        most = d.changed[0]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        table.add_column(f"first, {most.before:+.2f}", ratio=1)
        table.add_column(f"now, {most.after:+.2f}", ratio=1)
        table.add_row(escape(most.reply_before), escape(most.reply_after))
        console.out.print(f"\n{d.trait}, changed most: [italic]{escape(most.prompt)}[/]", soft_wrap=True)
        console.out.print(table)
