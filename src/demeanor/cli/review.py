"""`demeanor review`: the queue of replies for people, what their labels say, and what is in force. `demeanor erase`."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demeanor.cli import console
from demeanor.errors import InputFileError

if TYPE_CHECKING:
    from demeanor.review.queue import Item
    from demeanor.review.store import Store

app = typer.Typer(
    help="Have people look at replies, see what the rules really miss, and put better vectors and policies in force.",
    no_args_is_help=True,
)
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="DEMEANOR_REVIEW_STORE", help="The review store: a file, or a URL that begins with postgresql://", metavar="STORE"
    ),
]
STORE = "review.db"
Reviewer = Annotated[str | None, typer.Option("--reviewer", "-r", help="Who reviews. Default: the name of the account on this machine.")]
Trait = Annotated[str | None, typer.Option("--trait", "-t", help="Only items of this trait.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Version = Annotated[str | None, typer.Option("--version", help="Policy and vectors that decided, as `estimate` names them.")]
Since = Annotated[str | None, typer.Option("--since", help="The first day that counts (UTC), e.g. 2026-11-29.")]
Until = Annotated[str | None, typer.Option("--until", help="The last day that counts (UTC).")]
Who = Annotated[str | None, typer.Option("--who", help="Who does it; kept with it. Default: the name of the account on this machine.")]


@contextmanager
def opened(where: str, begin: bool = False) -> Iterator[Store]:
    """A store that is there; with `begin`, one that is begun where it is not."""
    from demeanor.review.database import URLS
    from demeanor.review.store import open_store

    if not begin and not where.startswith(URLS) and "://" not in where and not Path(where).exists():
        begins = f"demeanor review fill conversations.jsonl --store {where}"
        raise InputFileError(f"there is no review store {where}; name it with --store, or begin one: {begins}")
    with open_store(where) as store:
        yield store


def me(name: str | None) -> str:
    """The reviewer, or whoever changes something."""
    return (name or getpass.getuser()).strip().lower()


def as_json(record: Any) -> None:
    """Plain data on standard output."""
    typer.echo(json.dumps(record, indent=2, ensure_ascii=False))


@app.command("next")
def next_(store: StoreOption = STORE, reviewer: Reviewer = None, trait: Trait = None, json_: AsJson = False) -> None:
    """Show the next reply to look at, and reserve it for a quarter of an hour.

    It is the same one again until it is answered. The model's score is not shown before the answer, as it would sway you. Exits with 1
    where nothing is left.

    Example: demeanor review next --reviewer anna
    """
    from demeanor.review.queue import next_item

    with opened(store) as found:
        item = next_item(found, me(reviewer), trait)
    if item is None:
        console.note(f"nothing is left for {me(reviewer)}")
        raise typer.Exit(1)
    if json_:
        as_json(_record(item))
        return
    from demeanor.data.to_label import shown

    out, question = console.out, item.question
    out.print(shown(item.conversation, question.reads), markup=False, soft_wrap=True)
    out.print(f"\n[bold]{question.title}[/]")
    out.print(f"  high: {question.high_pole}\n  low:  {question.low_pole}", markup=False, soft_wrap=True)
    out.print(
        f"\ndemeanor review label {item.number} high|low|not_applicable|unsure|decline --store {store} --reviewer {me(reviewer)}",
        markup=False,
        soft_wrap=True,
    )


def _record(item: Item) -> dict[str, Any]:
    question = item.question
    return {
        "item": item.number, "reply": item.reply, "messages": item.conversation.to_record(), "trait": question.trait,
        "title": question.title, "high": question.high_pole, "low": question.low_pole, "until": item.until,
    }  # fmt: skip


@app.command("label")
def label(
    item: Annotated[int, typer.Argument(help="The item's number, as `demeanor review next` shows it.")],
    value: Annotated[str, typer.Argument(help="high, low, not_applicable, unsure, or decline (somebody else is asked then).")],
    store: StoreOption = STORE,
    reviewer: Reviewer = None,
    note: Annotated[str, typer.Option("--note", help="A note for people.")] = "",
    better: Annotated[str, typer.Option("--better", help="A better reply.")] = "",
) -> None:
    """Answer an item, and see what the model said of it. Once the score was shown the answer stands.

    Example: demeanor review label 17 low --reviewer anna --note "passes over the plan"
    """
    from demeanor.review.queue import answer, shown

    with opened(store) as found:
        answer(found, item, me(reviewer), value, note, better)
        seen = shown(found, item, me(reviewer))
    score = "the reply was not scored" if seen.score is None else f"the model's score was z {seen.score:+.2f}"
    rules = [verdict.rule for verdict in seen.verdicts if verdict.caught]
    caught = f"caught by {', '.join(rules)}" if rules else "caught by no rule"
    console.out.print(
        f"item {item}: {value}. In the queue as {seen.why}; {score}, {caught}; the action was {seen.action}", markup=False, soft_wrap=True
    )


@app.command("status")
def status(store: StoreOption = STORE, json_: AsJson = False) -> None:
    """Show what waits, what is answered, by whom, how far people agree, and what is in force."""
    from demeanor.review.status import status as of
    from demeanor.review.versions import in_force

    with opened(store) as found:
        made, version = of(found), in_force(found)
    if json_:
        as_json(made.to_record() | {"in_force": version and version.to_record()})
        return
    out = console.out
    out.print(f"{made.replies} replies kept, {made.texts} with their text")
    for one in (asked for asked in made.asked if asked.waiting + asked.done + asked.gone):
        waits = f"{one.waiting} wait ({one.reserved} with somebody now, {one.parted} for one more answer)"
        labels = f"{one.high} high, {one.low} low, {one.not_applicable} not applicable, {one.unsure} unsure"
        out.print(f"{one.trait}: {waits}, {one.done} labelled ({labels}), {one.gone} gone without", markup=False, soft_wrap=True)
        out.print(f"  agreement: {one.agreement_in_words}", markup=False, soft_wrap=True)
    out.print("answers: " + (", ".join(f"{who} {n}" for who, n in made.answers.items()) or "none yet"), markup=False)
    out.print("in force: " + ("nothing was promoted yet" if version is None else version.name), markup=False, soft_wrap=True)


@app.command("export")
def export(
    output: Annotated[Path, typer.Argument(help="The sheet: a .csv that is not there yet.")],
    store: StoreOption = STORE,
    reviewer: Reviewer = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many items at most.")] = 50,
    trait: Trait = None,
    days: Annotated[float, typer.Option("--days", min=0.01, help="After so many days others may get the items.")] = 14.0,
) -> None:
    """Hand out items on a sheet, for those who prefer one; `import` takes it back.

    Example: demeanor review export for-anna.csv --reviewer anna -n 50
    """
    from demeanor.review.sheets import export_sheet
    from demeanor.review.texts import DAY

    with opened(store) as found:
        made = export_sheet(found, me(reviewer), output, n, trait, days * DAY)
    console.out.print(
        f"{made} items in {output}; the guide is beside it. Erasing a conversation does not reach this file", markup=False, soft_wrap=True
    )


@app.command("import")
def import_(
    sheet: Annotated[Path, typer.Argument(help="The sheet, filled in.")],
    store: StoreOption = STORE,
    reviewer: Annotated[str | None, typer.Option("--reviewer", "-r", help="Who labelled it, where 'rater' is empty.")] = None,
) -> None:
    """Take the labels of a sheet back; all of them, or none where a row cannot be read.

    Example: demeanor review import for-anna.csv
    """
    from demeanor.review.sheets import import_sheet

    with opened(store) as found:
        made = import_sheet(found, sheet, reviewer and me(reviewer))
    console.out.print(f"{made.labels} labels taken; {made.unlabelled} rows had none")


@app.command("estimate")
def estimate(store: StoreOption = STORE, version: Version = None, since: Since = None, until: Until = None, json_: AsJson = False) -> None:
    """Estimate what each rule really misses and where it is wrong, per 1,000 replies, from the labels.

    Each label is weighted for how its reply was chosen. The 95 % interval holds however often you look. Where nothing was found it says
    how much there may be at most.
    """
    from demeanor.review.estimates import estimate as of
    from demeanor.review.estimates import in_words

    with opened(store) as found:
        made = of(found, version, since, until)
    if json_:
        as_json({"version": made.version, "replies": made.replies, "rules": [rule.to_record() for rule in made.rules]})
        return
    console.out.print(f"{made.replies} replies decided by {made.version}", markup=False, soft_wrap=True)
    for rule in made.rules:
        console.out.print(f"{rule.rule} ({rule.trait}): caught {rule.caught}", markup=False, soft_wrap=True)
        for what, rate in (("missed", rule.missed), ("false alarms", rule.false_alarms)):
            console.out.print(f"  {in_words(rate, what)}", markup=False, soft_wrap=True)


@app.command("backup")
def backup(
    output: Annotated[Path, typer.Argument(help="A file that is not there yet.")], store: StoreOption = STORE, who: Who = None
) -> None:
    """Write a copy of the store to a new file; sealed texts stay sealed in it.

    Of PostgreSQL it is what pg_dump gives, for pg_restore. Texts that are erased later stay in the copy: erase it in its time.
    """
    with opened(store) as found:
        found.backup(output, me(who))
    console.out.print(f"backup in {output}", markup=False)


@app.command("key")
def key() -> None:
    """Print a new key for DEMEANOR_REVIEW_KEY, by which a store seals its texts. A store that is begun without one stays without."""
    from demeanor.review.sealing import new_key

    typer.echo(new_key())


def erase(
    conversation: Annotated[str, typer.Argument(help="The conversation's id, as the gateway or the session was given it.")],
    store: StoreOption = STORE,
    audit: Annotated[
        Path | None, typer.Option("--audit", help="Note in this audit log, too, that something was erased (without id or text).")
    ] = None,
    who: Who = None,
) -> None:
    """Erase every text of a conversation from the review store: messages, notes, corrected replies.

    Labels and scores stay, without a way back to the text. It is recorded, without text and without the id. Backups and exported sheets
    are yours to erase. Exits with 1 where the store holds no text of such a conversation.

    Example: demeanor erase conversation-4711 --store review.db
    """
    from demeanor.review.texts import erase as erased

    with opened(store) as found:
        n = erased(found, conversation, me(who))
    console.out.print(f"{n} replies erased")
    if audit is not None:
        from demeanor.audit.log import AuditLog

        with AuditLog(audit) as log:
            log.note("erase", replies=n)
    if n == 0:
        raise typer.Exit(1)
