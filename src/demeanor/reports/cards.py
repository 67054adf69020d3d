"""Something that a person should read, as a card: what happened in a sentence, the text and the words that pushed, and more of it folded.

What is common to the cards of replies that the monitor decided about and of rows that a screening flagged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demeanor.conversation import Message
from demeanor.data.to_label import ToLabel, cells_of
from demeanor.measure.calibration import Score, chance_in_words
from demeanor.measure.cuts import Cut
from demeanor.reports.marking import Passage, passage
from demeanor.reports.page import signed

SPEAKERS = {"system": "Instructions to the chatbot", "user": "User", "assistant": "Chatbot"}
NOTHING = passage("")


@dataclass(frozen=True)
class Said:
    """One message of the conversation."""

    speaker: str
    role: str
    text: Passage
    here: bool
    """Whether it is the reply that the card is about."""


@dataclass(frozen=True)
class Number:
    """A trait's score, and the limit that it was held against."""

    trait: str
    score: str
    limit: str
    chance: str = ""


@dataclass(frozen=True)
class Card:
    """One reply, ready to be shown."""

    anchor: str
    kind: str
    """What colour its edge has: the severity, or how it was judged."""
    sentences: tuple[str, ...]
    done: str
    """What was done about it, in a word or two."""
    where: tuple[str, str, str]
    """What it is a part of, its name, and its place there: "conversation", "a17", ", reply 2 of 5"."""
    keys: Mapping[str, str]
    """What it is filtered by: of each filter the values that it has, a space between them."""
    place: int
    """Its place in the order of the file."""
    user: Passage
    reply: Passage
    severity: str = ""
    by: str = ""
    """The trait whose pushes are marked; empty where nothing is."""
    words: tuple[str, ...] = ()
    instead: str = ""
    trial: bool = False
    """Whether the reply was shown all the same, as nothing is replaced in a finished conversation."""
    said: tuple[Said, ...] = ()
    numbers: tuple[Number, ...] = ()
    reasons: tuple[str, ...] = ()


def said_of(messages: Sequence[Message], here: int) -> tuple[Said, ...]:
    """A whole conversation, with the message that the card is about marked."""
    return tuple(Said(SPEAKERS[m.role], m.role, passage(m.content), i == here) for i, m in enumerate(messages))


def number_of(title: str, cut: Cut, score: Score, easing: float = 0.0) -> Number:
    """A score beside a limit."""
    eased = f", eased by {easing:.2f}" if easing else ""
    chance = score.probability if cut.unsafe_side == "above" else 1 - score.probability
    return Number(title, signed(score.z) + eased, limit_of(cut), chance_in_words(chance))


def limit_of(cut: Cut) -> str:
    """Where the unsafe side begins, in words."""
    if cut.scale == "probability":
        return f"a chance of {cut.value:.0%} or more"
    return f"{signed(cut.value)} or {'higher' if cut.unsafe_side == 'above' else 'lower'}"


def choices(cards: Sequence[Card], key: str, names: Mapping[str, str], in_order: bool = False) -> list[tuple[str, str]]:
    """What cards may be kept by: each value of a key, and what it is called, with how many cards have it."""
    found = Counter(value for card in cards for value in card.keys.get(key, "").split())
    values = sorted(found) if in_order else [value for value, _ in found.most_common()]
    return [(value, f"{names.get(value, value)} ({found[value]})") for value in values]


def sheet_of(rows: Sequence[tuple[str, ToLabel]], name: str) -> dict[str, Any]:
    """Rows of a sheet to label as the page holds them: of each row its card, its trait and its cells."""
    columns, cells = cells_of(reply for _, reply in rows)
    made = [(anchor, reply.question.trait if reply.question else "", c) for (anchor, reply), c in zip(rows, cells, strict=True)]
    return {"columns": columns, "rows": made, "name": name}
