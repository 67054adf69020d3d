"""`demeanor monitor`: transcripts judged reply by reply, as the monitor would have decided live."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, OtherModel, OwnModel, Template, Vectors
from demeanor.cli.inputs import ColumnOptions, Given, InputOption, look, one_of, open_rows, rows_to, takes_columns
from demeanor.cli.policy import PolicyOption, say_opening
from demeanor.errors import DemeanorError, InputFileError

if TYPE_CHECKING:
    from demeanor.cli.terminal import TextConsole
    from demeanor.data.inputs import Input
    from demeanor.monitor.session import Monitor
    from demeanor.monitor.transcripts import Counts, Transcript

PATIENCE = 600.0  # seconds for a reply: nobody waits for a transcript


@takes_columns
def monitor(
    source: Given = None,
    input_file: InputOption = None,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The same rows with the decisions under 'demeanor'. Default: standard output."),
    ] = None,
    policy: PolicyOption = None,
    country: Annotated[str, typer.Option("--country", help="Whose crisis resources are named: US, GB, ..., or none.")] = "US",
    audit: Annotated[Path | None, typer.Option("--audit", help="Append to this audit log: SQLite, or JSON lines (.jsonl).")] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write an HTML page: timelines, flagged replies, counts.")] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="How ordinary conversations score; drift is watched by it.")] = None,
    save_baseline: Annotated[
        Path | None, typer.Option("--save-baseline", help="Take these conversations for ordinary ones and keep how they score.")
    ] = None,
    print_policy: Annotated[
        bool, typer.Option("--print-policy", help="Print the built-in policy, with comments; with --policy review-only that one.")
    ] = False,
    vectors: Vectors = None,
    model: OwnModel = None,
    allow_other_model: OtherModel = False,
    template: Template = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    reasoning_hidden: Annotated[
        bool, typer.Option("--reasoning-hidden", help="Users never see reasoning in replies (<think>...</think>): leave it unread.")
    ] = False,
    *,
    columns: ColumnOptions,
) -> None:
    """Judge every reply of finished conversations, and say what the policy would have done about it.

    Nothing is replaced in them: each reply is judged after what was really said. Exits with 3 where a reply could not be scored.

    Example: demeanor monitor conversations.jsonl --output decisions.jsonl --report report.html
    """
    from demeanor.audit.stores import is_log
    from demeanor.monitor.policy import GUARDED, load_policy, policy_text
    from demeanor.monitor.replies import load_replies

    if print_policy:
        typer.echo(policy_text(policy or GUARDED), nl=False)
        return
    spec = one_of(source, input_file)
    if spec is None:
        raise InputFileError("conversations are needed: name a file of them, or see the default policy with --print-policy")
    written = {"--output": output_file, "--report": report, "--save-baseline": save_baseline}
    console.check_places({"--input": Path(spec)}, {"--audit": audit, **written})
    for option, path in written.items():
        if path is not None and is_log(path):
            raise InputFileError(f"{path} is an audit log, which {option} would write over; name another file with {option}")
    chosen = load_policy(policy)
    load_replies().check_country(country)
    rows = open_rows(spec, columns(), output_file)
    total, where = look(rows).rows, "standard output" if output_file is None else str(output_file)
    scorer = console.load_scorer(vectors, model, device, dtype, allow_other_model, template)
    scorer.reasoning_hidden = reasoning_hidden
    from demeanor.monitor.session import Monitor

    with Monitor(scorer, chosen, country, audit, enforce=False, deadline=PATIENCE) as watch:
        if baseline is not None:
            from demeanor.monitor.baselines import load_baselines

            watch.watch_drift(load_baselines(baseline, watch.vectors))
        say_opening(watch)
        console.note(watch.drift_note)
        counts, kept = _judge(watch, rows, output_file, total, keep=report is not None or save_baseline is not None)
    _print(counts, watch, console.err if output_file is None else console.out)
    if counts.cautions:
        from demeanor.language import counted

        console.note(counted(counts.cautions, counts.replies, scorer.vectors.languages))
    if counts.unread:
        console.problem(f"{counts.unread} of {total} rows could not be read; each holds its 'error' in {where}")
    if counts.not_scored:
        console.problem(f"{counts.not_scored} of {counts.replies} replies were NOT scored; nobody knows whether they are fine")
    if counts.unrecorded:
        console.problem(f"{counts.unrecorded} decisions are not in the audit log {audit}; each says why under 'unrecorded'")
    if report is not None:
        from demeanor.reports.monitor import write_report

        write_report(kept, counts, watch, report)
        console.note(f"report in {report}")
    if save_baseline is not None:  # last, as it is refused where the conversations are too few
        _save_baseline(watch, kept, save_baseline)
    if counts.unread or counts.not_scored or counts.unrecorded:
        raise typer.Exit(3)


def _judge(watch: Monitor, given: Input, target: Path | None, total: int, keep: bool) -> tuple[Counts, list[Transcript]]:
    """Judge every row, in order; a bad row keeps its place with its error. Gives transcripts where asked to."""
    from demeanor.data.rows import to_line
    from demeanor.monitor.transcripts import Counts

    counts, done = Counts(), 0
    kept: list[Transcript] = []
    with console.stages() as stage, rows_to(target) as file:
        step = stage("judging", total)
        for record, found in _rows(watch, given):
            if isinstance(found, str):
                counts.unread += 1
                if counts.unread == 1:
                    console.note(f"first row not read: {found}")
                file.write(to_line({**record, "demeanor": {"error": found}}))
            else:
                counts.add(found)
                kept += [found] * keep
                file.write(to_line({**record, "demeanor": found.to_record()}))
            done += 1
            step(1)
        console.check_count(given.spec, total, done)
    return counts, kept


def _rows(watch: Monitor, source: Input) -> Iterator[tuple[dict[str, Any], Transcript | str]]:
    """Each row with its transcript, or what is wrong with it."""
    from demeanor.data.dates import date_of
    from demeanor.monitor.transcripts import judge_transcript

    run = secrets.token_hex(8)  # in the audit log, row 1 of another run is another conversation
    for row, found in source.read():
        if isinstance(found, str):
            yield row.record, found
            continue
        given = [str(row.record[key]) for key in ("conversation_id", "id") if row.record.get(key) is not None]
        name, audited = (given[0], given[0]) if given else (str(row.number), f"run {run}, row {row.number}")
        if found.unanswered is not None and not any(m.role == "assistant" for m in found.conversation.messages):
            yield row.record, f"{row.where}: {found.unanswered}"
            continue
        try:
            yield row.record, judge_transcript(watch, name, found.conversation, audited, found.unread, date_of(row.record))
        except DemeanorError as error:
            yield row.record, f"{row.where}: {error}"


def _save_baseline(watch: Monitor, kept: list[Transcript], path: Path) -> None:
    from demeanor.monitor.baselines import save_baselines
    from demeanor.monitor.transcripts import fit_baselines

    made = fit_baselines(kept)
    save_baselines(path, made, watch.vectors)
    console.note(f"baseline of {len(made)} traits from {len(kept)} conversations in {path}")


def _print(counts: Counts, watch: Monitor, out: TextConsole) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "replies", "share"):
        table.add_column(column, justify="left" if not column else "right")
    for name, style in (("allow", ""), ("flag", "yellow"), ("substitute", "red"), ("escalate", "bold red")):
        n = counts.actions[name]
        table.add_row(name, str(n), f"{n / counts.replies:.1%}" if counts.replies else "", style=style if n else "dim")
    table.add_row("NOT scored", str(counts.not_scored), "", style="bold red" if counts.not_scored else "dim")
    unread = f"; {counts.unread} rows could NOT be read" if counts.unread else ""
    out.print(f"{counts.replies} replies of {counts.conversations} conversations{unread}")
    out.print(table)
    cuts = {r.rule.name: r.cut for r in watch.policy.rules}
    for rule, n in counts.rules.most_common():
        halves = f" ({cuts[rule].halves})" if rule in cuts and cuts[rule].halves else ""
        out.print(f"rule {rule}: {n}{halves}", markup=False, soft_wrap=True)
    for trait, n in counts.alarms.most_common():
        out.print(f"drift of {trait}: {n} conversations with an alarm", markup=False, soft_wrap=True)
