"""`demeanor demo`: the built-in traits with their proof, replies scored, and a small trait extracted while one watches."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console

if TYPE_CHECKING:
    from demeanor.extraction import Extraction
    from demeanor.model.reader import ActivationReader
    from demeanor.reports.vectors import ShownReply
    from demeanor.scoring import Score, Scorer
    from demeanor.traits import TraitDefinition
    from demeanor.vectors import VectorSet

NEW = {
    "in plain words": "That was a lot at once, and you got through it. What helped you most on the way home?",
    "in jargon": "That was a cumulative stress load, and you managed it adaptively. What coping resource helped you most on the way home?",
}


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what the demo makes.")] = Path("demeanor-demo"),
    full: Annotated[
        bool, typer.Option("--full", help="Extract all the built-in traits too, instead of taking the vectors that come with the package.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the dashboard instead, filled with an example, in your browser (demeanor\\[serve]).")
    ] = False,
) -> None:
    """See persona vectors at work on a small chat model: what they are worth, eight replies scored, a new trait extracted.

    Takes under a minute; with --full some minutes. Nothing leaves this machine.
    """
    from demeanor.errors import OutputError

    if output.is_file():
        raise OutputError(f"{output} is a file; name a folder with --output")
    if serve:
        from demeanor.cli.dashboard import serve_example

        serve_example(output)
        return
    out = console.out
    out.rule("[bold]Demeanor: how does a chatbot behave?", align="left")
    out.print(
        "A language model that reads a reply represents what kind of reply it is. From pairs of good and bad replies to the "
        "same message we learn one direction for each trait, check it on pairs that it has never seen, and score new "
        "replies along it.\n"
    )
    reader = console.load_reader(console.EMBEDDED)
    from demeanor.extraction import Extraction
    from demeanor.extraction.built_in import extract_built_in
    from demeanor.model import embedded
    from demeanor.scoring import Scorer
    from demeanor.traits import load
    from demeanor.traits.packs import EXAMPLES as PACKS
    from demeanor.vectors import built_in
    from demeanor.vectors.storage import refuse_foreign

    small = load(PACKS / "plain_language.yaml")
    folders = {"vectors": output / "vectors", small.name: output / small.name}
    for folder in folders.values() if full else [folders[small.name]]:
        refuse_foreign(folder)
    dtype = str(reader.model.dtype).removeprefix("torch.")
    out.print(f"[bold]Model[/]   {embedded.NAME}: {embedded.SOURCE}")
    out.print(f"        {reader.n_layers} layers of width {reader.hidden_size}, {dtype}, on this machine's {str(reader.device).upper()}")
    made = Extraction(built_in.load(), {}, {})
    if full:
        with console.stages() as stage:
            made = extract_built_in(reader, stage)
        made.vectors.save(folders["vectors"])
    _show_traits(made.vectors, full)
    scorer = Scorer(reader, made.vectors)
    examples = _scored(scorer)
    _show_examples(made.vectors, {(e.trait, e.kind): e.score for e in examples})
    new = _extract_live(reader, small, made.vectors, folders[small.name])
    _write_report(
        replace(made, vectors=replace(made.vectors, traits={**made.vectors.traits, **new.traits})), output / "report.html", examples
    )
    pack = output / f"{small.name}.yaml"
    if not pack.exists():  # it may have been edited since
        shutil.copyfile(PACKS / pack.name, pack)
    _write_replies(made.vectors, output)
    _say_what_next(output, folders if full else {small.name: folders[small.name]}, pack)


def _scored(scorer: Scorer) -> list[ShownReply]:
    from demeanor.conversation import from_record
    from demeanor.reports.vectors import ShownReply
    from demeanor.vectors import built_in

    found = []
    for e in built_in.examples():
        conversation = from_record(e.to_record())
        found.append(ShownReply(e.trait, e.kind, e.prompt, scorer.score(conversation)[e.trait], scorer.score_tokens(conversation)))
    return found


def _extract_live(reader: ActivationReader, trait: TraitDefinition, known: VectorSet, folder: Path) -> VectorSet:
    """Extract a small trait before the user's eyes, and score two replies with it."""
    from rich.text import Text

    from demeanor.cli.tables import bar, traits_table
    from demeanor.conversation import from_record
    from demeanor.extraction import extract_vectors
    from demeanor.extraction.activations import kept_activations
    from demeanor.scoring import Scorer

    out, pair = console.out, trait.pairs[0]
    out.print(
        f"\n[bold]3. A trait of your own, from {len(trait.pairs)} pairs[/]\n{trait.description} Both replies of a pair say the same:\n"
        f"[dim]user:[/] {pair.context[0].content}\n  [bold]high[/] [dim]{pair.high}[/]\n  [bold]low [/] [dim]{pair.low}[/]"
    )
    with console.stages() as stage:
        made = extract_vectors(reader, [trait], stage=stage, kept=kept_activations(), like=known)
    made.vectors.save(folder)
    out.print()
    out.print(traits_table(made.vectors))
    held = len(trait.examples("test")) // 2
    out.print(f"\n[dim]{held} held-out pairs show that it works; to say how well takes more of them. Two replies that it has not seen:[/]")
    scorer = Scorer(reader, made.vectors)
    for kind, reply in NEW.items():
        score = scorer.score(from_record({"prompt": "I had a terrible day at the hospital.", "response": reply}))[trait.name]
        colour = "green" if made.vectors[trait.name].on_safe_side(score.centred) else "red"
        out.print(Text.assemble((f"  {kind:<16}", "bold"), bar(score.z, colour), (f" {score.centred:+6.2f}", colour)))
    return made.vectors


def _write_report(made: Extraction, path: Path, examples: list[ShownReply]) -> None:
    from demeanor.reports.vectors import write_report

    with console.err.status("writing the report"):
        write_report(made, path, examples)


def _write_replies(vectors: VectorSet, output: Path) -> None:
    """The example replies as files to try other commands on: all of them, and those of each side alone."""
    from demeanor.data.rows import to_line, writing
    from demeanor.vectors import built_in

    safe: list[dict[str, str]] = []
    unsafe: list[dict[str, str]] = []
    for e in built_in.examples():
        (safe if e.high == (vectors[e.trait].safe_pole == "high") else unsafe).append(e.to_record())
    for file, rows in {"replies": [*unsafe, *safe], "before": unsafe, "after": safe}.items():
        with writing(output / f"{file}.jsonl") as target:
            target.writelines(to_line(row) for row in rows)


def _say_what_next(output: Path, folders: dict[str, Path], pack: Path) -> None:
    saved = "".join(f"\n        vectors     {folder}" for folder in folders.values())
    console.out.print(
        f"\n[bold]Saved[/]   report      {output / 'report.html'}  (open it in a browser; it works offline)"
        f"\n        pairs       {pack}{saved}\n        replies     {output / 'replies.jsonl'}, and the unsafe and the safe ones as before.jsonl and after.jsonl",
        soft_wrap=True,
    )
    command = _this_command()
    console.out.print(
        f"\n[bold]Next[/]    Score a reply of your own on the built-in traits:\n"
        f"        [cyan]{command} score 'User: I failed again.\\nAssistant: Well, try harder.'[/]\n"
        f"        Change some pairs of the small trait and extract it again:\n"
        f"        [cyan]{command} extract --traits {pack} --output {folders['plain_language']}[/]",
        soft_wrap=True,
    )


def _this_command() -> str:
    """How to call this program from where the user is: by its name where the shell finds it, else by its path."""
    here, found = Path(sys.argv[0]).absolute(), shutil.which("demeanor")
    if found and Path(found).resolve() == here.resolve():
        return "demeanor"
    program = here if here.name == "demeanor" else Path(sys.executable)  # python -m demeanor.cli.main
    near = os.path.relpath(program)
    command = str(program) if near.startswith("..") else near
    return command if program == here else f"{command} -m demeanor.cli.main"


def _show_traits(vectors: VectorSet, full: bool) -> None:
    from demeanor.cli.tables import traits_table

    out = console.out
    where = "just now" if full else f"for this release, on {vectors.created}; [cyan]--full[/] extracts them here"
    out.print(
        "\n[bold]1. Can the traits be told apart?[/]\nOn held-out pairs, from situations that the vectors never saw. 0.5 is guessing, 1.0 is perfect. "
        f"Extracted {where}.\n"
    )
    out.print(traits_table(vectors))
    out.print(
        "\n[dim]layers: the model's blocks (from 0) that the trait is read at. strength: distance between the poles. baseline: the best "
        "that the reply's length, a bag of words, random directions and swapped poles reach on the same pairs.[/]"
    )
    for name, entry in vectors.traits.items():
        if entry.proof is not None and not entry.proof.beats_baselines:
            console.err.print(f"[bold red]{name}:[/] {entry.proof.verdict}")


def _show_examples(vectors: VectorSet, scores: dict[tuple[str, str], Score]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from demeanor.cli.tables import bar
    from demeanor.vectors import built_in

    out = console.out
    out.print(
        "\n[bold]2. New replies, scored[/]\nThe bar and the centred score: right and above 0 is more of the trait. P: calibrated chance of the high "
        "pole. [green]Green[/] is the safe side, [red]red[/] the unsafe one."
    )
    poles: dict[str, dict[bool, float]] = {}
    for e in built_in.examples():
        entry, score = vectors[e.trait], scores[e.trait, e.kind]
        if e.trait not in poles:
            out.print(f"\n[bold]{entry.title}[/]\n[dim]user:[/] {e.prompt}")
        poles.setdefault(e.trait, {})[e.high] = score.centred
        safe = entry.on_safe_side(score.centred)
        colour = "green" if safe else "red"
        numbers = f" {score.centred:+6.2f}  P {score.probability:.2f}  {'safe' if safe else 'unsafe'} side"
        out.print(Text.assemble((f"  {e.kind:<16}", "bold"), bar(score.z, colour), (numbers, colour)))
        out.print(Padding(Text(e.reply, "dim"), (0, 0, 0, 4)))
    if wrong := [name for name, found in poles.items() if found[True] <= found[False]]:
        console.problem(f"the example replies came out the wrong way round on {', '.join(wrong)}")
        raise typer.Exit(1)
