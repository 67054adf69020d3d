"""The queue: one question about one reply at a time, to one person at a time.

An item is reserved for whoever gets it, until they answer or the reservation runs out; then somebody else gets it. What comes next goes
by a random place (see drawing), so that whatever part people get through is a random part. A near-duplicate of an item with a label is
not shown: it takes over that label, but only when its own turn comes, for otherwise what is common in the traffic would be
answered sooner than what is rare. The model's scores are not part of an item: they sway people, and are given after the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from demeanor.conversation import Conversation, from_messages
from demeanor.data.duplicates import Words, alike, words_of
from demeanor.data.to_label import Question
from demeanor.errors import ReviewError, nearest
from demeanor.review import texts
from demeanor.review.drawing import Verdict
from demeanor.review.settling import DECLINE, VALUES, settle
from demeanor.review.store import Store
from demeanor.vectors.vector_set import VectorSet

PATIENCE = 900.0  # seconds that an item stays reserved
ANSWERS = (*VALUES, DECLINE)
_PAGE = 50


@dataclass(frozen=True)
class Item:
    """A question about a reply, as a reviewer gets it."""

    number: int
    reply: int
    conversation_key: str
    """By which the whole conversation is found (`texts.conversation_of`)."""
    conversation: Conversation
    question: Question
    until: float
    """When the reservation runs out."""


@dataclass(frozen=True)
class Shown:
    """What is shown of an item once it was answered."""

    why: str
    action: str
    score: float | None
    """The trait's z."""
    verdicts: tuple[Verdict, ...]
    """Of the rules on the trait."""


def questions_of(vectors: VectorSet) -> list[Question]:
    """What is asked about each trait of a set."""
    return [entry.question(trait) for trait, entry in vectors.traits.items()]


def ask(store: Store, questions: list[Question]) -> None:
    """Tell the store what is asked about each trait; it has to be told before an item of the trait is handed out."""
    with store.db.transaction():
        for q in questions:
            store.db.run(
                "INSERT INTO question (trait, title, high, low, safe) VALUES (?, ?, ?, ?, ?) ON CONFLICT (trait) DO UPDATE SET "
                "title = excluded.title, high = excluded.high, low = excluded.low, safe = excluded.safe",
                *(q.trait, q.title, q.high_pole, q.low_pole, q.safe_pole),
            )


def questions(store: Store) -> dict[str, Question]:
    """What is asked, by trait."""
    rows = store.db.rows("SELECT trait, title, high, low, safe FROM question ORDER BY trait")
    return {row[0]: Question(*row) for row in rows}


def next_item(store: Store, reviewer: str, trait: str | None = None, patience: float = PATIENCE) -> Item | None:
    """The next item for a reviewer, reserved for them; the one that they hold already where they do. None: nothing is left for them.

    Args:
        store: The review store.
        reviewer: Who asks; an item that they answered or declined does not come back to them.
        trait: Only items of this trait.
        patience: Seconds until the reservation runs out.

    Raises:
        ReviewError: the store cannot be read, or does not know what is asked about the item's trait.
    """
    with store.db.transaction():
        texts.expire(store)
        number = _held(store, reviewer, trait)
        if number is None:
            number = next(_open(store, reviewer, trait), None)
            if number is None:
                return None
        return _reserved(store, number, reviewer, patience, sheet=False)


def reserve(store: Store, reviewer: str, n: int, trait: str | None = None, patience: float = PATIENCE) -> list[Item]:
    """Up to `n` items for a reviewer who takes them away on a sheet, reserved as long. The same errors as `next_item`."""
    with store.db.transaction():
        texts.expire(store)
        found = []
        for number in _open(store, reviewer, trait):
            found.append(_reserved(store, number, reviewer, patience, sheet=True))
            if len(found) == n:
                break
        return found


def answer(store: Store, number: int, reviewer: str, value: str, note: str = "", better: str = "") -> None:
    """Take a reviewer's answer about an item; it is on disk when this returns.

    It may be changed until the model's score was shown to them. One that comes after its reservation ran out counts as well.

    Raises:
        ReviewError: an unknown value or item, or another answer than the one after which the score was shown.
    """
    if value not in ANSWERS:
        raise ReviewError(f"unknown answer {value!r}; {nearest(value, ANSWERS)}")
    with store.db.transaction():
        item = store.db.one("SELECT i.wanted, r.gone, r.number FROM item i JOIN reply r ON r.number = i.reply WHERE i.number = ?", number)
        if item is None:
            raise ReviewError(f"the store holds no item {number}")
        wanted, gone, reply = int(item[0]), item[1], int(item[2])
        before = store.db.one("SELECT value, seen FROM answer WHERE item = ? AND reviewer = ?", number, reviewer)
        if before is not None and before[1] and before[0] != value:
            raise ReviewError(f"item {number} was answered {before[0]!r}, and the score was shown since; that answer stands")
        said = [store.seal.close(text) if text and gone is None else None for text in (note, better)]
        store.db.run(
            "INSERT INTO answer (item, reviewer, value, note, better, at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (item, reviewer) DO UPDATE "
            "SET value = excluded.value, note = excluded.note, better = excluded.better, at = excluded.at",
            *(number, reviewer, value, *said, store.clock()),
        )
        store.db.run("DELETE FROM reservation WHERE item = ? AND reviewer = ?", number, reviewer)
        values = [str(v) for (v,) in store.db.rows("SELECT value FROM answer WHERE item = ? ORDER BY number", number)]
        store.db.run("UPDATE item SET value = ?, needs = ?, alike = NULL WHERE number = ?", *settle(values, wanted), number)
        store.db.run("UPDATE reply SET expires = expires_labelled WHERE number = ?", reply)


def shown(store: Store, number: int, reviewer: str) -> Shown:
    """The model's score of an item, and what was done about the reply, for a reviewer who has answered. Raises ReviewError before that."""
    with store.db.transaction():
        if store.db.run("UPDATE answer SET seen = 1 WHERE item = ? AND reviewer = ?", number, reviewer) == 0:
            raise ReviewError(f"{reviewer} has not answered item {number}; the score is shown after the answer")
        row = store.db.one("SELECT trait, why, reply FROM item WHERE number = ?", number)
        assert row is not None
        trait, why, reply = row
        kept = texts.read(store, int(reply))
    return Shown(why, kept.action, kept.scores.get(trait), tuple(v for v in kept.verdicts if v.trait == trait))


def release(store: Store, reviewer: str) -> int:
    """Give back what is reserved for a reviewer, and say how many items that were."""
    return store.db.run("DELETE FROM reservation WHERE reviewer = ?", reviewer)


def _held(store: Store, reviewer: str, trait: str | None) -> int | None:
    row = store.db.one(
        "SELECT i.number FROM reservation v JOIN item i ON i.number = v.item WHERE v.reviewer = ? AND v.until > ? AND v.sheet = 0 "
        "AND i.value IS NULL" + (" AND i.trait = ?" if trait else ""),
        *(reviewer, store.clock(), *([trait] if trait else [])),
    )
    return None if row is None else int(row[0])


def _open(store: Store, reviewer: str, trait: str | None) -> Iterator[int]:
    """Items that a reviewer may get, in their turn; near-duplicates of labelled ones are settled on the way."""
    place, number = -1.0, 0
    while True:
        page = store.db.rows(
            "SELECT i.place, i.number FROM item i JOIN reply r ON r.number = i.reply WHERE i.value IS NULL AND r.gone IS NULL "
            "AND (i.place > ? OR (i.place = ? AND i.number > ?)) "
            + ("AND i.trait = ? " if trait else "")
            + "AND NOT EXISTS (SELECT 1 FROM answer a WHERE a.item = i.number AND a.reviewer = ?) "
            "AND NOT EXISTS (SELECT 1 FROM reservation v WHERE v.item = i.number AND v.reviewer = ? AND v.until > ?) "
            "AND (SELECT count(*) FROM answer a WHERE a.item = i.number AND a.value <> 'decline') "
            "+ (SELECT count(*) FROM reservation v WHERE v.item = i.number AND v.until > ?) < i.needs "
            f"ORDER BY i.place, i.number LIMIT {_PAGE}",
            *(place, place, number, *([trait] if trait else []), reviewer, reviewer, store.clock(), store.clock()),
        )
        for at, candidate in page:
            place, number = float(at), int(candidate)
            twin = _twin(store, number)
            if twin is None:
                yield number
            elif twin[1] is not None:  # else the twin is being answered, and this one waits for it
                store.db.run("UPDATE item SET value = ?, alike = ? WHERE number = ?", twin[1], twin[0], number)
        if len(page) < _PAGE:
            return


def _twin(store: Store, number: int) -> tuple[int, str | None] | None:
    """An item about a near-duplicate that was answered by people or is being so, with its label; None where there is none."""
    candidates = store.db.rows(
        "SELECT DISTINCT o.number, o.value, r.messages, s.messages FROM item i JOIN reply s ON s.number = i.reply "
        "JOIN band b ON b.reply = i.reply JOIN band c ON c.mark = b.mark AND c.reply <> b.reply "
        "JOIN item o ON o.reply = c.reply AND o.trait = i.trait AND o.alike IS NULL JOIN reply r ON r.number = o.reply "
        "WHERE i.number = ? AND NOT EXISTS (SELECT 1 FROM answer a WHERE a.item = i.number) AND (o.value IS NOT NULL OR EXISTS "
        "(SELECT 1 FROM answer a WHERE a.item = o.number AND a.value <> 'decline') OR EXISTS "
        "(SELECT 1 FROM reservation v WHERE v.item = o.number AND v.until > ?)) ORDER BY o.number",
        *(number, store.clock()),
    )
    waiting = None
    for other, value, theirs, own in candidates:
        if alike(_words(store, own), _words(store, theirs)):
            if value is not None:
                return int(other), str(value)
            waiting = int(other), None
    return waiting


def _words(store: Store, messages: str) -> Words:
    return words_of(texts.compared(from_messages(json.loads(store.seal.open(messages) or "[]"))))


def _reserved(store: Store, number: int, reviewer: str, patience: float, sheet: bool) -> Item:
    until = store.clock() + patience
    store.db.run(
        "INSERT INTO reservation (item, reviewer, until, sheet) VALUES (?, ?, ?, ?) ON CONFLICT (item, reviewer) DO UPDATE "
        "SET until = excluded.until, sheet = excluded.sheet",
        *(number, reviewer, until, int(sheet)),
    )
    row = store.db.one("SELECT reply, trait FROM item WHERE number = ?", number)
    assert row is not None
    kept = texts.read(store, int(row[0]))
    question = questions(store).get(row[1])
    if question is None:
        raise ReviewError(f"the store does not know what is asked about {row[1]}; tell it the vector set's questions first (queue.ask)")
    assert kept.conversation is not None
    return Item(number, kept.number, kept.conversation_key, kept.conversation, question, until)
