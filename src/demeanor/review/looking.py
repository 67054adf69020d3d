"""Looking through what a store keeps: replies by what was done about them, and how much of what there was lately.

Numbers come from indices and from the tallies that are kept with each reply, so that a store with many replies is looked through as
quickly as a small one. Texts may be sealed, so that no database can search them: they are read newest first, for as long as there is
patience, and what was not reached is said. (action || '' keeps SQLite from grouping by the index of actions, which is to read all.)
"""

from __future__ import annotations

import datetime
import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from demeanor.measure.poles import Side
from demeanor.review.database import Row
from demeanor.review.drawing import ALWAYS, NEVER, STEP
from demeanor.review.store import Store
from demeanor.review.texts import COLUMNS, Kept, expire, kept

PAGE = 50
PATIENCE = 0.1  # seconds that a search through texts takes before it says how far it came
_BLOCK = 200


@dataclass(frozen=True)
class Wanted:
    """Which replies are looked for; what is None or empty does not matter."""

    text: str = ""
    """Of a message, small and capital letters alike."""
    action: str | None = None
    rule: str | None = None
    """One that caught it."""
    trait: str | None = None
    """One that a rule caught it for."""
    since: float | None = None
    until: float | None = None
    reviewed: bool | None = None
    """Whether somebody has answered a question about it."""
    before: int | None = None
    """Only replies with a smaller number: the next page."""
    unasked: str | None = None
    """Without those that this reviewer has still to answer a question about: what was decided about them would sway the answer."""


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    replies: list[Kept]
    """The newest first."""
    before: int | None
    """Where to go on; None where there is no more."""
    searched: float | None = None
    """The time of the last reply that was read, where patience ended before the search did."""


def search(store: Store, wanted: Wanted, limit: int = PAGE, patience: float = PATIENCE) -> Found:
    """Replies that are looked for, newest first."""
    expire(store)
    text, until = wanted.text.casefold().strip(), time.monotonic() + patience
    replies: list[Kept] = []
    before = wanted.before
    while True:
        rows = _rows(store, wanted, before, _BLOCK if text else limit + 1)
        for row in rows:
            if text and row[6] is not None:  # its text is gone
                continue
            reply = kept(store, row)
            if text and not _says(reply, text):
                continue
            if len(replies) == limit:
                return Found(replies, replies[-1].number)
            replies.append(reply)
        if not text or len(rows) < _BLOCK:
            return Found(replies, None)
        before = int(rows[-1][0])
        if time.monotonic() > until:
            return Found(replies, before, float(rows[-1][3]))


def _says(reply: Kept, text: str) -> bool:
    return reply.conversation is not None and any(text in m.content.casefold() for m in reply.conversation.messages)


def _rows(store: Store, wanted: Wanted, before: int | None, limit: int) -> list[Row]:
    clauses: list[tuple[str, tuple[object, ...]]] = []
    if wanted.action:
        clauses.append(("r.action = ?", (wanted.action,)))
    if wanted.rule:
        clauses.append(("r.number IN (SELECT reply FROM caught WHERE rule = ?)", (wanted.rule,)))
    if wanted.trait:
        clauses.append(("r.number IN (SELECT reply FROM caught WHERE trait = ?)", (wanted.trait,)))
    if wanted.since is not None:
        clauses.append(("r.number >= ?", (_first(store, wanted.since),)))
    if wanted.until is not None:
        clauses.append(("r.number < ?", (_first(store, wanted.until),)))
    if before is not None:
        clauses.append(("r.number < ?", (before,)))
    if wanted.reviewed is not None:
        answered = "EXISTS (SELECT 1 FROM item i JOIN answer a ON a.item = i.number WHERE i.reply = r.number AND a.value <> 'decline')"
        clauses.append((answered if wanted.reviewed else f"NOT {answered}", ()))
    if wanted.unasked is not None:
        clauses.append((f"NOT EXISTS ({_OPEN} AND i.reply = r.number)", (wanted.unasked,)))
    where = " AND ".join(clause for clause, _ in clauses) or "1 = 1"
    columns = ", ".join(f"r.{name}" for name in COLUMNS.split(", "))
    return store.db.rows(
        f"SELECT {columns} FROM reply r WHERE {where} ORDER BY r.number DESC LIMIT ?",
        *(value for _, values in clauses for value in values),
        limit,
    )


_OPEN = (
    "SELECT i.reply FROM item i WHERE i.value IS NULL AND NOT EXISTS (SELECT 1 FROM answer a WHERE a.item = i.number AND a.reviewer = ?)"
)


def _first(store: Store, at: float) -> int:
    """The number of the first reply from a time on; numbers grow with time."""
    row = store.db.one("SELECT number FROM reply WHERE at >= ? ORDER BY at, number LIMIT 1", at)
    if row is None:
        row = store.db.one("SELECT coalesce(max(number), 0) + 1 FROM reply")
    assert row is not None
    return int(row[0])


def unanswered(store: Store, reviewer: str, replies: Sequence[int], trait: str | None = None) -> set[int]:
    """Of these replies, those about which a question (about a trait, or any) is open that the reviewer has not answered."""
    if not replies:
        return set()
    marks = ", ".join("?" * len(replies))
    about = ("", ()) if trait is None else (" AND i.trait = ?", (trait,))
    return {int(n) for (n,) in store.db.rows(f"{_OPEN} AND i.reply IN ({marks}){about[0]}", reviewer, *replies, *about[1])}


@dataclass(frozen=True)
class Answered:
    """One answer about a reply."""

    trait: str
    reviewer: str
    value: str
    note: str
    better: str
    at: float


def answers(store: Store, reply: int) -> list[Answered]:
    """What people answered about a reply, in their order."""
    return [
        Answered(trait, reviewer, value, store.seal.open(note) or "", store.seal.open(better) or "", float(at))
        for trait, reviewer, value, note, better, at in store.db.rows(
            "SELECT i.trait, a.reviewer, a.value, a.note, a.better, a.at FROM answer a JOIN item i ON i.number = a.item "
            "WHERE i.reply = ? ORDER BY a.number",
            reply,
        )
    ]


def rules(store: Store) -> dict[str, str]:
    """Every rule that judged a reply, with its trait."""
    return dict(store.db.rows("SELECT rule, max(trait) FROM tally GROUP BY rule ORDER BY rule"))


def minutes(store: Store, since: float) -> dict[str, Counter[int]]:
    """By action, how many replies there were in each minute (the whole minutes since 1970)."""
    found: dict[str, Counter[int]] = defaultdict(Counter)
    # half a minute less and rounded is the whole minute in both databases; a full half they would round differently
    rows = store.db.rows("SELECT action || '', round((at - 29.9999) / 60), count(*) FROM reply WHERE at >= ? GROUP BY 1, 2", since)
    for action, minute, n in rows:
        found[action][int(minute)] += int(n)
    return dict(found)


def unscored(store: Store, since: float) -> list[tuple[str, int]]:
    """Why replies could not be scored since a time, the most frequent reason first."""
    return [
        (why, int(n))
        for why, n in store.db.rows(
            "SELECT not_scored, count(*) FROM reply WHERE not_scored IS NOT NULL AND at >= ? GROUP BY not_scored ORDER BY 2 DESC, 1", since
        )
    ]


def spread(store: Store, version: str, first: str, last: str) -> dict[str, Counter[float]]:
    """By rule, how a version's scores lay from one day to another, toward the unsafe side: the middle of each step, and how many."""
    found: dict[str, Counter[float]] = defaultdict(Counter)
    for rule, step, n in store.db.rows(
        "SELECT rule, step, sum(replies) FROM spread WHERE day >= ? AND day <= ? AND version = ? GROUP BY rule, step", first, last, version
    ):
        if NEVER < int(step) < ALWAYS:
            found[rule][(int(step) + 0.5) * STEP] += int(n)
    return dict(found)


@dataclass(frozen=True)
class Limit:
    """Where a rule's threshold lay when it last judged a reply."""

    rule: str
    trait: str
    side: Side
    z: float
    withholds: bool


def limits(store: Store, version: str, newest: int = 200) -> dict[str, Limit]:
    """The thresholds of a version's rules, from its last replies; rules that judged none of them are left out."""
    found: dict[str, Limit] = {}
    for (text,) in store.db.rows("SELECT rules FROM reply WHERE version = ? ORDER BY number DESC LIMIT ?", version, newest):
        for v in json.loads(text):
            if v["rule"] not in found and v["beyond"] is not None and v["z"] is not None:
                z = v["z"] - v["beyond"] if v["side"] == "above" else v["z"] + v["beyond"]
                found[v["rule"]] = Limit(v["rule"], v["trait"], v["side"], z, v["withholds"])
    return found


def day(store: Store, ago: int = 0) -> str:
    """The day that it was so many days ago (UTC), as tallies name it."""
    return datetime.datetime.fromtimestamp(store.clock() - 86400 * ago, datetime.UTC).date().isoformat()


def actions(store: Store, since: float) -> dict[str, int]:
    """How many replies there were of each action since a time."""
    return {action: int(n) for action, n in store.db.rows("SELECT action || '', count(*) FROM reply WHERE at >= ? GROUP BY 1", since)}
