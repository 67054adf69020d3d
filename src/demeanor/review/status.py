"""How far the queue has come: what waits, what is answered, by whom, and how far people agree."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from demeanor.measure.agreement import Agreement, agreement
from demeanor.review.queue import questions
from demeanor.review.store import Store

_NUMBER = {"high": 1.0, "low": 0.0}


@dataclass(frozen=True)
class Asked:
    """How far the items about one trait have come."""

    trait: str
    title: str
    waiting: int
    """Without a label, and with a text to be shown."""
    gone: int
    """Without a label, and their texts are erased or their time is over: they are missing at random."""
    reserved: int
    """Of those that wait, with somebody now."""
    parted: int
    """Of those that wait, with answers that differ, so that one more person is asked."""
    high: int
    low: int
    not_applicable: int
    unsure: int
    alike: int
    """Of those with a label, took it over from a near-duplicate."""
    agreement: Agreement | None
    """Of the answers high and low; None where no item has two of them."""

    @property
    def done(self) -> int:
        """Items with a label."""
        return self.high + self.low + self.not_applicable + self.unsure

    @property
    def agreement_in_words(self) -> str:
        """How far people agree: "alpha 0.71 (95 %: 0.52 to 0.88) on 40 items"."""
        found = self.agreement
        if found is None:
            return "unknown, as no item has two people's answers"
        if math.isnan(found.alpha):
            return f"all answers about {found.replies} items are the same, so nothing tells agreement from chance"
        low, high = found.interval
        poor = "; too far apart to rest on: talk over where you differ" if found.poor else ""
        return f"alpha {found.alpha:.2f} (95 %: {low:.2f} to {high:.2f}) on {found.replies} items, {found.alike} answered alike{poor}"


@dataclass(frozen=True)
class Status:
    """How far the queue has come."""

    replies: int
    """Replies that were kept, drawn or not."""
    texts: int
    """Of those, with their text still there."""
    asked: tuple[Asked, ...]
    answers: dict[str, int]
    """By reviewer, declined ones too."""

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        record = asdict(self)
        for one, asked in zip(record["asked"], self.asked, strict=True):
            found = asked.agreement
            one["agreement"] = None if found is None else {
                "alpha": None if math.isnan(found.alpha) else round(found.alpha, 4),
                "low": None if math.isnan(found.alpha) else round(found.interval.low, 4),
                "high": None if math.isnan(found.alpha) else round(found.interval.high, 4),
                "items": found.replies, "alike": found.alike,
            }  # fmt: skip
        return record


def status(store: Store) -> Status:
    """How far the queue has come."""
    now = store.clock()
    titles = {trait: question.title for trait, question in questions(store).items()}
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for trait, value, gone, parted, alike, n in store.db.rows(
        "SELECT i.trait, i.value, i.reply IN (SELECT number FROM reply WHERE gone IS NOT NULL), i.needs > i.wanted, i.alike IS NOT NULL, "
        "count(*) FROM item i GROUP BY 1, 2, 3, 4, 5"
    ):
        found = counts[trait]
        found["alike"] += n if alike else 0
        if value is not None:
            found[value] += n
        elif gone:
            found["gone"] += n
        else:
            found["waiting"] += n
            found["parted"] += n if parted else 0
    reserved: dict[str, int] = dict(
        store.db.rows(
            "SELECT i.trait, count(DISTINCT i.number) FROM reservation v JOIN item i ON i.number = v.item "
            "WHERE v.until > ? AND i.value IS NULL GROUP BY i.trait",
            now,
        )
    )
    ratings = _ratings(store)
    asked = tuple(
        Asked(
            trait=trait,
            title=titles.get(trait, trait),
            reserved=int(reserved.get(trait, 0)),
            agreement=agreement(ratings[trait]) if trait in ratings else None,
            **{name: counts[trait][name] for name in ("waiting", "gone", "parted", "high", "low", "not_applicable", "unsure", "alike")},
        )
        for trait in sorted({*titles, *counts})
    )
    replies = int((store.db.one("SELECT count(*) FROM reply") or (0,))[0])
    gone = int((store.db.one("SELECT count(*) FROM reply WHERE gone IS NOT NULL") or (0,))[0])
    answers = store.db.rows("SELECT reviewer, count(*) FROM answer GROUP BY reviewer ORDER BY reviewer")
    return Status(replies, replies - gone, asked, {name: int(n) for name, n in answers})


def _ratings(store: Store) -> dict[str, np.ndarray]:
    """By trait, each reviewer's answers about each item that two or more answered [reviewers, items]; NaN where there is none."""
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for trait, item, reviewer, value in store.db.rows(
        "SELECT i.trait, a.item, a.reviewer, a.value FROM answer a JOIN item i ON i.number = a.item WHERE a.value IN ('high', 'low') "
        "AND (SELECT count(*) FROM answer b WHERE b.item = a.item AND b.value IN ('high', 'low')) > 1 ORDER BY a.item"
    ):
        found[trait][item][reviewer] = _NUMBER[value]
    made = {}
    for trait, items in found.items():
        people = sorted({who for given in items.values() for who in given})
        made[trait] = np.array([[given.get(who, math.nan) for given in items.values()] for who in people])
    return made
