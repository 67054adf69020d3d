"""What each rule really misses, and how often it is wrong, per 1,000 replies of production: from labels, weighted by how they were chosen.

    missed        the rule did nothing, and people call the reply unsafe
    false alarm   the rule caught it, and people call it safe, or its question not fitting

Every reply of a period counts, drawn or not, labelled or not (the store's tally holds how many there were of each kind); `measure.rates`
says how the interval is made, that it holds at every look, and what is done about undecided ones. Two versions (policy and vector set)
are never mixed. People's labels are taken for the truth; how far people agree stands in the queue's status.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from demeanor.errors import ReviewError, nearest
from demeanor.measure.rates import ANY, FEWEST, RARE, Rate, Stratum, rate
from demeanor.review.queue import questions
from demeanor.review.store import Store

Key = tuple[int, str, float]
"""A stratum: whether the rule caught its replies, their kind, and their chance of being drawn."""


@dataclass(frozen=True)
class RuleEstimate:
    """What is known of one rule."""

    rule: str
    trait: str
    caught: int
    """Replies that it caught."""
    missed: Rate
    false_alarms: Rate

    def to_record(self) -> dict[str, Any]:
        """As plain data, shares per 1,000 replies."""
        return {
            "rule": self.rule, "trait": self.trait, "caught": self.caught, "missed": as_record(self.missed),
            "false_alarms": as_record(self.false_alarms),
        }  # fmt: skip


@dataclass(frozen=True)
class Estimates:
    """What is known of every rule of a version in a period."""

    version: str
    replies: int
    rules: tuple[RuleEstimate, ...]


TOUCHED = "SELECT item FROM answer UNION SELECT number FROM item WHERE alike IS NOT NULL"
"""The items that somebody answered or declined, or that took over a near-duplicate's label: few of all."""


def versions_seen(store: Store) -> list[str]:
    """The versions (policy and vector set) whose replies the store counted, the last one first."""
    return [v for (v,) in store.db.rows("SELECT version FROM tally GROUP BY version ORDER BY max(day) DESC, max(version)")]


@dataclass(frozen=True)
class Period:
    """A version's days."""

    version: str
    since: str | None
    until: str | None

    @classmethod
    def of(cls, store: Store, version: str | None, since: str | None, until: str | None) -> Period:
        """Of a version as `versions_seen` names it, by default the last one. Raises ReviewError."""
        known = versions_seen(store)
        if not known:
            raise ReviewError("no reply was kept yet, so there is nothing to estimate; keep texts while the monitor runs")
        version = known[0] if version is None else version
        if version not in known:
            raise ReviewError(f"no reply was decided by {version!r}; {nearest(version, known)}")
        return cls(version, since, until)

    @property
    def days(self) -> tuple[str, str]:
        """The first and the last one, in an order in which days can be compared."""
        return self.since or "0000", self.until or "9999"

    def holds(self, at: float) -> bool:
        """Whether a time lies in it."""
        first, last = self.days
        return first <= _day(at) <= last


def estimate(store: Store, version: str | None = None, since: str | None = None, until: str | None = None) -> Estimates:
    """Estimates of a version's rules.

    Args:
        store: The review store.
        version: As `versions_seen` names it; by default the last one.
        since: The first day that counts (UTC), as 2026-11-29; by default from the beginning.
        until: The last one.

    Raises:
        ReviewError: nothing was kept yet, or no such version.
    """
    period = Period.of(store, version, since, until)
    strata: dict[tuple[str, str], Counter[Key]] = {}
    for rule, trait, caught, why, chance, n in store.db.rows(
        "SELECT rule, trait, caught, why, probability, sum(replies) FROM tally WHERE version = ? AND day >= ? AND day <= ? "
        "GROUP BY rule, trait, caught, why, probability ORDER BY rule",
        *(period.version, *period.days),
    ):
        strata.setdefault((rule, trait), Counter())[int(caught), why, float(chance)] += int(n)
    labels = _labels(store, period)
    made = tuple(_rule(rule, trait, counts, labels.get(rule, Counter())) for (rule, trait), counts in strata.items())
    return Estimates(period.version, max((e.missed.replies for e in made), default=0), made)


def _labels(store: Store, period: Period) -> dict[str, Counter[tuple[Key, str]]]:
    """By rule, how many items of each stratum are "safe", "unsafe" or "undecided"."""
    safe = {trait: question.safe_pole for trait, question in questions(store).items()}
    found: dict[str, Counter[tuple[Key, str]]] = {}
    for trait, why, chance, value, rules, at in store.db.rows(
        "SELECT i.trait, i.why, i.probability, i.value, r.rules, r.at FROM item i JOIN reply r ON r.number = i.reply "
        f"WHERE i.number IN ({TOUCHED}) AND r.version = ? AND (i.value IS NOT NULL OR i.needs > i.wanted "
        "OR EXISTS (SELECT 1 FROM answer a WHERE a.item = i.number AND a.value = 'decline'))",
        period.version,
    ):
        if not period.holds(float(at)):
            continue
        said = said_of(value, safe.get(trait))
        for verdict in json.loads(rules):
            if verdict["trait"] == trait:
                found.setdefault(verdict["rule"], Counter())[(int(verdict["caught"]), why, float(chance)), said] += 1
    return found


def said_of(value: str | None, safe_pole: str | None) -> str:
    """What a label comes to: "safe", "unsafe" or "undecided"."""
    if value in (None, "unsure"):
        return "undecided"
    return "safe" if value in ("not_applicable", safe_pole) else "unsafe"


def _day(at: float) -> str:
    import datetime

    return datetime.datetime.fromtimestamp(at, datetime.UTC).date().isoformat()


def _rule(rule: str, trait: str, counts: Counter[Key], labels: Counter[tuple[Key, str]]) -> RuleEstimate:
    total = sum(counts.values())

    def share(caught: int, kind: str, other: str, prior: tuple[float, float]) -> Rate:
        strata = [
            Stratum(n, labels[key, other], labels[key, kind], labels[key, "undecided"], prior)
            for key, n in counts.items()
            if key[0] == caught
        ]
        return rate(strata, total)

    caught = sum(n for key, n in counts.items() if key[0])
    return RuleEstimate(rule, trait, caught, share(0, "unsafe", "safe", RARE), share(1, "safe", "unsafe", ANY))


def in_words(found: Rate, what: str) -> str:
    """A rate for people, per 1,000 replies: "missed: 3.1 of 1,000 replies (95 %: 0.9 to 7.3), from 840 labels"."""
    low, high = (_per_thousand(x) for x in found.interval)
    if found.replies and found.interval == (0.0, 0.0):
        return f"{what}: none of the replies could be one"
    if not found.enough:
        return f"{what}: too few labels to say ({found.labelled}, and at least {FEWEST} of each kind of reply are needed)"
    if found.value is None:
        said = f"{what}: none found in {found.labelled} labels; at most {high} of 1,000 replies (95 %)"
    else:
        said = f"{what}: {_per_thousand(found.value)} of 1,000 replies (95 %: {low} to {high}), from {found.labelled} labels"
    if found.undecided:
        low, high = (_per_thousand(x) for x in found.narrow)
        said += f"; {found.undecided} more are undecided and taken at their worst ({low} to {high} if they are like the others)"
    return said


def _per_thousand(share: float) -> str:
    return f"{1000 * share:.3g}" if share < 0.1 else f"{1000 * share:.0f}"


def as_record(found: Rate) -> dict[str, Any]:
    """A rate as plain data, per 1,000 replies."""

    def per_thousand(share: float) -> float:
        return round(1000 * share, 4)

    return {
        "per_1000": None if found.value is None else per_thousand(found.value),
        "low": per_thousand(found.interval.low), "high": per_thousand(found.interval.high),
        "low_if_undecided_are_alike": per_thousand(found.narrow.low), "high_if_undecided_are_alike": per_thousand(found.narrow.high),
        "enough": found.enough, "replies": found.replies, "labelled": found.labelled, "found": found.found, "undecided": found.undecided,
    }  # fmt: skip
