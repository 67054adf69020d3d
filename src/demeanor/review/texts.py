"""Replies that are kept with their texts, for people to review: only where an operator opened a store, for a time, and erased on request.

What goes in: the conversation up to the reply, what was shown in its place, its scores, what decided, and the chance by which it was drawn.
What stays once the text was erased, or its time is over: numbers and labels without a way back to who wrote what, as the estimates rest
on them. Conversation ids are hashed with the store's secret; the audit log is a thing apart and holds no text.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from demeanor.conversation import Conversation, from_messages
from demeanor.data.duplicates import bands, words_of
from demeanor.errors import ConversationError, ReviewError
from demeanor.review.drawing import Decided, Drawing, Verdict, step_of, why_of
from demeanor.review.store import Store

DAY = 86400.0
ERASED, EXPIRED = "erased", "expired"


@dataclass(frozen=True)
class Kept:
    """A reply in the store."""

    number: int
    decision: str
    conversation_key: str
    """The hash of its conversation's id; empty once its text is gone."""
    at: float
    conversation: Conversation | None
    """None once it was erased, or its time is over; `gone` says which."""
    shown: str | None
    gone: str | None
    action: str
    scores: dict[str, float]
    verdicts: tuple[Verdict, ...]
    not_scored: str | None
    version: str


def keep(store: Store, reply: Decided, drawing: Drawing) -> int:
    """Keep a reply, draw it or not, count it, and give its number. A retry, with the same decision's id, changes nothing.

    Raises ReviewError where it cannot be written.
    """
    now = store.clock()
    by_trait: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in reply.verdicts:
        by_trait[verdict.trait].append(verdict)
    u = store.chance(reply.decision)
    with store.db.transaction():
        expire(store)
        found = store.db.one("SELECT number FROM reply WHERE decision = ?", reply.decision)
        if found is not None:
            return int(found[0])
        number = _insert(store, reply, now, drawing)
        day = datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()
        drawn = False
        for trait, verdicts in by_trait.items():
            why = why_of(verdicts, drawing.margin)
            chance = drawing.chance(why)
            for verdict in verdicts:
                store.db.run(
                    "INSERT INTO tally (version, day, rule, trait, caught, why, probability, replies) VALUES (?, ?, ?, ?, ?, ?, ?, 1) "
                    "ON CONFLICT (version, day, rule, caught, why, probability) DO UPDATE SET replies = tally.replies + 1",
                    *(reply.version, day, verdict.rule, trait, int(verdict.caught), why, chance),
                )
                otherwise = any(other.caught and other.withholds for other in reply.verdicts if other.rule != verdict.rule)
                store.db.run(
                    "INSERT INTO spread (version, day, rule, why, probability, step, otherwise, replies) VALUES (?, ?, ?, ?, ?, ?, ?, 1) "
                    "ON CONFLICT (version, rule, day, why, probability, step, otherwise) DO UPDATE SET replies = spread.replies + 1",
                    *(reply.version, day, verdict.rule, why, chance, step_of(verdict), int(otherwise)),
                )
            if u < chance:
                drawn = True
                store.db.run(
                    "INSERT INTO item (reply, trait, why, probability, place, wanted, needs) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    *(number, trait, why, chance, u / chance, drawing.reviewers, drawing.reviewers),
                )
        for verdict in {verdict.rule: verdict for verdict in reply.verdicts if verdict.caught}.values():
            store.db.run("INSERT INTO caught (rule, trait, reply) VALUES (?, ?, ?)", verdict.rule, verdict.trait, number)
        if drawn:
            for mark in marks(store, reply.conversation):
                store.db.run("INSERT INTO band (mark, reply) VALUES (?, ?)", mark, number)
    return number


def _insert(store: Store, reply: Decided, now: float, drawing: Drawing) -> int:
    messages = json.dumps(reply.conversation.to_record())
    made = store.db.one(
        "INSERT INTO reply (decision, conversation, at, expires, expires_labelled, messages, shown, action, scores, rules, not_scored, "
        "version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
        *(reply.decision, store.hashed("conversation", reply.conversation_id), now),
        *(now + drawing.days * DAY, now + max(drawing.days, drawing.labelled_days) * DAY),
        *(store.seal.close(messages), store.seal.close(reply.shown), reply.action, json.dumps(dict(reply.scores))),
        *(json.dumps([asdict(verdict) for verdict in reply.verdicts]), reply.not_scored, reply.version),
    )
    assert made is not None
    return int(made[0])


def compared(conversation: Conversation) -> str:
    """What has to be alike in near-duplicates: the reply, and the message that it answers."""
    try:
        end = conversation.last("assistant")
    except ConversationError:
        end = len(conversation.messages) - 1
    asked = next((m.content for m in reversed(conversation.messages[:end]) if m.role == "user"), "")
    return f"{asked}\n{conversation.messages[end].content}"


def marks(store: Store, conversation: Conversation) -> list[str]:
    """What a reply has in common with its near-duplicates, hashed with the store's secret."""
    return [store.hashed("band", band.hex()) for band in bands(words_of(compared(conversation)))]


def erase(store: Store, conversation_id: str, who: str = "") -> int:
    """Erase every text of a conversation, notes and corrected replies included, and give how many replies that were.

    It is recorded, without text and without the id. Copies (backups, exported sheets) are the operator's to erase.
    """
    key = store.hashed("conversation", conversation_id)
    with store.db.transaction():
        numbers = [int(n) for (n,) in store.db.rows("SELECT number FROM reply WHERE conversation = ?", key)]
        _empty(store, numbers, ERASED)
        store.record(who, "erase", replies=len(numbers))
    if numbers:
        store.db.scrub()
    return len(numbers)


def expire(store: Store) -> int:
    """Erase the texts whose time is over, and give how many those were. Every function that reads or keeps texts does this first."""
    now = store.clock()
    if store.db.one("SELECT 1 FROM reply WHERE expires <= ? AND gone IS NULL LIMIT 1", now) is None:
        return 0
    with store.db.transaction():
        numbers = [int(n) for (n,) in store.db.rows("SELECT number FROM reply WHERE expires <= ? AND gone IS NULL", now)]
        _empty(store, numbers, EXPIRED)
        store.record("", "expire", replies=len(numbers))
    return len(numbers)


def _empty(store: Store, numbers: list[int], gone: str) -> None:
    for number in numbers:
        name = f"{gone} {number}"
        store.db.run("UPDATE shadow SET decision = ? WHERE decision = (SELECT decision FROM reply WHERE number = ?)", name, number)
        store.db.run(
            "UPDATE reply SET decision = ?, conversation = '', messages = NULL, shown = NULL, not_scored = NULL, gone = ? WHERE number = ?",
            *(name, gone, number),
        )
        store.db.run("UPDATE answer SET note = NULL, better = NULL WHERE item IN (SELECT number FROM item WHERE reply = ?)", number)
        store.db.run("DELETE FROM reservation WHERE item IN (SELECT number FROM item WHERE reply = ?)", number)
        store.db.run("DELETE FROM band WHERE reply = ?", number)


COLUMNS = "number, decision, conversation, at, messages, shown, gone, action, scores, rules, not_scored, version"


def read(store: Store, number: int) -> Kept:
    """A reply by its number. Raises ReviewError where there is none."""
    expire(store)
    row = store.db.one(f"SELECT {COLUMNS} FROM reply WHERE number = ?", number)
    if row is None:
        raise ReviewError(f"the store holds no reply {number}")
    return kept(store, row)


def conversation_of(store: Store, key: str) -> list[Kept]:
    """The replies of a conversation by its key (`Kept.conversation_key`), oldest first; none once they were erased."""
    expire(store)
    return (
        [kept(store, row) for row in store.db.rows(f"SELECT {COLUMNS} FROM reply WHERE conversation = ? ORDER BY number", key)]
        if key
        else []
    )


def find(store: Store, action: str | None = None, since: float | None = None, before: int | None = None, limit: int = 50) -> list[Kept]:
    """Kept replies, newest first: of an action, since a time, before a number (for the next page)."""
    expire(store)
    wanted = [("action = ?", action), ("at >= ?", since), ("number < ?", before)]
    where = " AND ".join(clause for clause, value in wanted if value is not None) or "1 = 1"
    values = [value for _, value in wanted if value is not None]
    return [
        kept(store, row) for row in store.db.rows(f"SELECT {COLUMNS} FROM reply WHERE {where} ORDER BY number DESC LIMIT ?", *values, limit)
    ]


def kept(store: Store, row: tuple[Any, ...]) -> Kept:
    """A reply of a row of COLUMNS."""
    number, decision, key, at, messages, shown, gone, action, scores, rules, not_scored, version = row
    text = store.seal.open(messages)
    return Kept(
        int(number), decision, key, float(at), None if text is None else from_messages(json.loads(text)), store.seal.open(shown),
        gone, action, json.loads(scores), tuple(Verdict(**v) for v in json.loads(rules)), not_scored, version,
    )  # fmt: skip
