"""`demeanor audit`: whether an audit log is whole, and its counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from demeanor.cli import console
from demeanor.errors import AuditError

app = typer.Typer(help="Check that an audit log is intact, and count what it records.", no_args_is_help=True)
File = Annotated[Path, typer.Argument(help="The log: SQLite, or JSON lines if its name ends in .jsonl.")]


@app.command("verify")
def verify(
    files: Annotated[list[Path], typer.Argument(help="The logs, such as one for each process: SQLite, or JSON lines (.jsonl).")],
    head: Annotated[
        str | None,
        typer.Option("--head", help="The head (last hash) that an earlier check printed: exits with 1 if the log no longer contains it."),
    ] = None,
    at_least: Annotated[int, typer.Option("--at-least", min=0, help="Exits with 1 if a log has fewer records than this.")] = 0,
) -> None:
    """Check that no record was changed, removed, added or moved; exits with 1 if one was.

    A log alone cannot show that its end was cut off or that it was rewritten from the start. So keep the head (the last hash) that
    this prints somewhere else, and give it later as --head, with that log alone; a log that has grown since still contains it.

    Example: demeanor audit verify audit.db --head 9f2c...
    """
    if head is not None and len(files) > 1:
        raise AuditError(f"--head is the head of one log, and {len(files)} are given; verify that log alone")
    sound = [_verified(file, head, at_least, f"{file}: " if len(files) > 1 else "") for file in files]
    if not all(sound):
        raise typer.Exit(1)


def _verified(file: Path, head: str | None, at_least: int, name: str) -> bool:
    """Whether one log is whole; says so."""
    from demeanor.audit.verification import verify as check

    found = check(file, head)
    if not found.whole:
        console.problem(f"{file}: {found.problem}; the {found.records} records before it are intact")
        return False
    console.out.print(f"{name}intact: {found.records} records, head {found.head}", soft_wrap=True, markup=False)
    if found.torn:
        console.note(f"{name}the last record was cut off while it was being written; it is left out, and the next one will replace it")
    if head is not None and found.noted_at is not None:
        console.out.print(
            f"the log contains the head given, at record {found.noted_at}; {found.records - found.noted_at} records were added since"
        )
    missing = []
    if head is not None and found.noted_at is None:
        missing.append("the log does not contain the head given: records have been removed, or the log was rewritten")
    if found.records < at_least:
        missing.append(f"it has {found.records} records, fewer than the {at_least} expected")
    for message in missing:
        console.problem(f"{file}: {message}")
    return not missing


@app.command("report")
def report(file: File, as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False) -> None:
    """Count decisions by month, severity, action and rule, and referrals to crisis services by year; no identifiers.

    Exits with 1 if the log was tampered with or damaged: only the records before the first bad one are then counted.

    Example: demeanor audit report audit.db --json
    """
    from demeanor.audit.counts import report as count

    counts = count(file)
    if as_json:
        typer.echo(json.dumps(counts, indent=1))
    else:
        _print(counts)
        if counts["interrupted"]:
            n = counts["interrupted"]
            console.note(f"{n} replies began to be shown and were not decided on: they were interrupted, or are being written now")
    if counts["chain"] != "whole":
        console.problem(f"{file}: {counts['chain']}; only the {counts['records']} records before it are counted")
        raise typer.Exit(1)


def _print(counts: dict[str, Any]) -> None:
    columns = ("month", "decisions", "yellow", "red", "flag", "substitute", "escalate", "referrals", "not scored")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="left" if column == "month" else "right")
    rules: dict[str, int] = {}
    for month, of in counts["months"].items():
        shown = [of["severity"].get(k, 0) for k in ("yellow", "red")] + [of["action"].get(k, 0) for k in ("flag", "substitute", "escalate")]
        table.add_row(month, *(str(n) for n in (of["decisions"], *shown, sum(of["referrals"].values()), of["not_scored"])))
        if of["only_tried"]:
            console.note(
                f"{month}: {of['only_tried']} replies that the policy would have replaced were shown in a trial run; they count as flagged"
            )
        for rule, n in of["rules"].items():
            rules[rule] = rules.get(rule, 0) + n
    console.out.print(table)
    for rule, n in sorted(rules.items(), key=lambda item: -item[1]):
        console.out.print(f"rule {rule}: {n}", soft_wrap=True, markup=False)
    for year, of in counts["years"].items():
        console.out.print(f"[bold]{year}[/]: {of['decisions']} decisions, {of['referrals']} referrals to crisis services")
