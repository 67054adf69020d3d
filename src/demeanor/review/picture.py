"""A threshold by hand: for each one that could be set, what the rule would miss and what it would be wrong about, by the labels.

Every reply's score was counted in steps when it was kept, drawn or not (`drawing.STEP`), so how many replies lie on either side of a
threshold is known and not estimated. Among the labelled ones, those on one side with one kind and chance of being drawn make up a stratum:
within it every reply had the same chance. `measure.rates` then gives each rate with its interval.

Each interval holds for its own threshold. Whoever tries many and takes the one that looks best has looked for luck as well: the labels that
come in after it was set are what tell.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from demeanor.conversation import Conversation
from demeanor.errors import ReviewError, nearest
from demeanor.measure.poles import Side
from demeanor.measure.rates import ANY, RARE, Rate, Stratum, rate
from demeanor.review.drawing import ALWAYS, NEVER, STEP, Verdict, step_of
from demeanor.review.estimates import TOUCHED, Period, said_of
from demeanor.review.queue import questions
from demeanor.review.store import Store
from demeanor.review.texts import COLUMNS, expire, kept

POINTS = 41
LOOKED = 1000  # items without an answer, the newest, that are looked through for those near a threshold
Kind = tuple[str, float]
"""Why replies were drawn, and with what chance."""


@dataclass(frozen=True)
class Counted:
    """A rule's replies and labels, by step of the score."""

    replies: Counter[tuple[Kind, int, bool]]
    """By kind, step, and whether another rule withholds them."""
    labels: Counter[tuple[Kind, int, str]]
    """By kind, step, and "safe", "unsafe" or "undecided"."""


@dataclass(frozen=True)
class Candidate:
    """A threshold, and what it would come to."""

    step: int
    z: float
    missed: Rate
    """Of all replies, those that the rule would leave alone and people call unsafe."""
    false_alarms: Rate
    """Of all replies, those that it would catch and people call safe."""
    caught: int
    """Replies of the period that it would catch."""
    withheld: int
    """Replies of the period that the policy as a whole would withhold."""


@dataclass(frozen=True)
class Picture:
    """Misses against false alarms of one rule."""

    rule: str
    trait: str
    version: str
    side: Side
    """Replies at a threshold or beyond it on this side are caught."""
    withholds: bool
    threshold: float | None
    """The one that decided, in z; None where the store does not know it."""
    days: int
    replies: int
    candidates: tuple[Candidate, ...]
    """From the one that catches most to the one that catches least."""

    def nearest(self, z: float) -> Candidate:
        """The candidate whose threshold lies nearest."""
        return min(self.candidates, key=lambda one: abs(one.z - z))

    def a_day(self, replies: int) -> float:
        """So many replies of the period, as a number a day."""
        return replies / self.days

    def to_record(self) -> dict[str, Any]:
        """As plain data, shares per 1,000 replies."""
        from demeanor.review.estimates import as_record

        return {
            "rule": self.rule, "trait": self.trait, "version": self.version, "unsafe": self.side, "threshold": self.threshold,
            "days": self.days, "replies": self.replies,
            "candidates": [
                {
                    "z": round(one.z, 4), "missed": as_record(one.missed), "false_alarms": as_record(one.false_alarms),
                    "caught_a_day": round(self.a_day(one.caught), 3), "withheld_a_day": round(self.a_day(one.withheld), 3),
                }
                for one in self.candidates
            ],
        }  # fmt: skip


@dataclass(frozen=True)
class Near:
    """A reply close to a threshold."""

    reply: int
    conversation: Conversation | None
    z: float
    label: str | None
    """What people came to; None where nobody was asked, or is still to be."""


def picture(
    store: Store, rule: str, version: str | None = None, since: str | None = None, until: str | None = None, points: int = POINTS
) -> Picture:
    """Misses against false alarms of a rule, over the thresholds that could be set.

    Args:
        store: The review store.
        rule: Its name in the policy.
        version: As `estimates.versions_seen` names it; by default the last one. Scores of two vector sets are never mixed.
        since: The first day that counts (UTC), as 2026-11-29; by default from the beginning.
        until: The last one.
        points: About how many thresholds are tried.

    Raises:
        ReviewError: nothing was kept yet; an unknown rule or version; no reply that the rule judged.
    """
    period = Period.of(store, version, since, until)
    verdict = _known(store, rule, period)
    counted = _counted(store, rule, verdict.trait, period)
    steps = sorted({step for _, step, _ in counted.replies if NEVER < step < ALWAYS})
    if not steps:
        raise ReviewError(f"rule {rule} judged no reply of {period.version} in this period, so no threshold can be tried")
    up = 1 if verdict.side == "above" else -1
    made = candidates(counted, tried(counted, points), up, verdict.withholds)
    days = store.db.one(
        "SELECT count(DISTINCT day) FROM spread WHERE version = ? AND rule = ? AND day >= ? AND day <= ?",
        *(period.version, rule, *period.days),
    )
    at = None if verdict.z is None or verdict.beyond is None else verdict.z - up * verdict.beyond
    total = sum(counted.replies.values())
    return Picture(rule, verdict.trait, period.version, verdict.side, verdict.withholds, at, int((days or (1,))[0]), total, made)


def at(store: Store, rule: str, z: float, version: str | None = None, since: str | None = None, until: str | None = None) -> Candidate:
    """What one threshold would come to, to the nearest step that scores are counted in. Raises ReviewError as `picture` does."""
    period = Period.of(store, version, since, until)
    verdict = _known(store, rule, period)
    up = 1 if verdict.side == "above" else -1
    return candidates(_counted(store, rule, verdict.trait, period), [round(up * z / STEP)], up, verdict.withholds)[0]


def tried(counted: Counted, points: int = POINTS) -> list[int]:
    """The steps at which thresholds are tried: those where labels lie, and others so that the replies are spread evenly between them."""
    replies: Counter[int] = Counter()
    for (_, step, _), n in counted.replies.items():
        if NEVER < step < ALWAYS:
            replies[step] += n
    steps = sorted(replies)
    edges = range(steps[0], steps[-1] + 2)
    if len(edges) <= points:
        return list(edges)
    labelled = [step for (_, step, said), _ in sorted(counted.labels.items(), key=lambda one: one[0][1]) if NEVER < step < ALWAYS]
    near = sorted({edge for step in labelled for edge in (step, step + 1)})
    chosen = {steps[0], steps[-1] + 1, *_evenly(near, points // 2)}
    return sorted({*chosen, *_evenly(list(edges), max(2, points - len(chosen)))})


def _evenly(values: Sequence[int], n: int) -> list[int]:
    if len(values) <= n:
        return list(values)
    return [values[round(i * (len(values) - 1) / (n - 1))] for i in range(n)] if n > 1 else [values[len(values) // 2]]


def candidates(counted: Counted, steps: Sequence[int], up: int, withholding: bool) -> tuple[Candidate, ...]:
    """What thresholds at these steps would come to: a pure function of the counts.

    Args:
        counted: The rule's replies and labels.
        steps: Where the thresholds lie, toward the unsafe side.
        up: 1 where the unsafe side is above, else -1.
        withholding: Whether the rule withholds what it catches.
    """
    total = sum(counted.replies.values())
    kinds = sorted({kind for kind, *_ in counted.replies})
    found = []
    for at in steps:
        below: Counter[Kind] = Counter()
        above: Counter[Kind] = Counter()
        withheld = 0
        for (kind, step, otherwise), n in counted.replies.items():
            caught = step >= at
            (above if caught else below)[kind] += n
            withheld += n if otherwise or (caught and withholding) else 0
        said: Counter[tuple[Kind, bool, str]] = Counter()
        for (kind, step, label), n in counted.labels.items():
            said[kind, step >= at, label] += n
        missed = [Stratum(below[k], said[k, False, "safe"], said[k, False, "unsafe"], said[k, False, "undecided"], RARE) for k in kinds]
        alarms = [Stratum(above[k], said[k, True, "unsafe"], said[k, True, "safe"], said[k, True, "undecided"], ANY) for k in kinds]
        found.append(Candidate(at, up * at * STEP, rate(missed, total), rate(alarms, total), above.total(), withheld))
    return tuple(found)


def around(
    store: Store, rule: str, z: float, n: int = 3, version: str | None = None, since: str | None = None, until: str | None = None
) -> tuple[list[Near], list[Near]]:
    """The replies of the queue nearest to a threshold, of all answered ones and the newest others: on its safe side, and on its unsafe one.

    Raises ReviewError as `picture` does.
    """
    period = Period.of(store, version, since, until)
    verdict = _known(store, rule, period)
    expire(store)
    up = 1 if verdict.side == "above" else -1
    items = _items(store, rule, verdict.trait, period, LOOKED)
    found = [(up * (seen.z - z), number, seen.z, value) for number, value, seen, *_ in items if seen.z is not None]
    safe = sorted((one for one in found if one[0] < 0), reverse=True)[:n]
    unsafe = sorted(one for one in found if one[0] >= 0)[:n]
    return [_near(store, one) for one in safe], [_near(store, one) for one in unsafe]


def _near(store: Store, one: tuple[float, int, float, str | None]) -> Near:
    _, number, z, value = one
    row = store.db.one(f"SELECT {COLUMNS} FROM reply WHERE number = ?", number)
    assert row is not None
    return Near(number, kept(store, row).conversation, z, value)


def _known(store: Store, rule: str, period: Period) -> Verdict:
    """A verdict of the rule in the period, the newest with a score where there is one."""
    named = "SELECT DISTINCT rule FROM spread WHERE version = ? AND day >= ? AND day <= ?"
    names = {name for (name,) in store.db.rows(named, period.version, *period.days)}
    if rule not in names:
        raise ReviewError(f"no rule {rule} decided in {period.version} in this period; {nearest(rule, names)}")
    last: Verdict | None = None
    for (rules,) in store.db.rows("SELECT rules FROM reply WHERE version = ? ORDER BY number DESC LIMIT 2000", period.version):
        last = next((Verdict(**one) for one in json.loads(rules) if one["rule"] == rule), last)
        if last is not None and last.z is not None:
            break
    assert last is not None
    return last


def _counted(store: Store, rule: str, trait: str, period: Period) -> Counted:
    replies: Counter[tuple[Kind, int, bool]] = Counter()
    for why, chance, step, otherwise, n in store.db.rows(
        "SELECT why, probability, step, otherwise, sum(replies) FROM spread WHERE version = ? AND rule = ? AND day >= ? AND day <= ? "
        "GROUP BY why, probability, step, otherwise",
        *(period.version, rule, *period.days),
    ):
        replies[(why, float(chance)), int(step), bool(otherwise)] += int(n)
    question = questions(store).get(trait)
    labels: Counter[tuple[Kind, int, str]] = Counter()
    for _, value, verdict, why, chance, answered in _items(store, rule, trait, period):
        if answered:
            labels[(why, chance), step_of(verdict), said_of(value, None if question is None else question.safe_pole)] += 1
    return Counted(replies, labels)


_NEWEST = "SELECT * FROM (SELECT number FROM item WHERE trait = ? ORDER BY number DESC LIMIT ?) AS newest"


def _items(
    store: Store, rule: str, trait: str, period: Period, newest: int | None = None
) -> Iterator[tuple[int, str | None, Verdict, str, float, bool]]:
    """Each answered item of the period about the rule's trait, and the `newest` whether answered or not: its reply, label, the rule's
    verdict, why and by what chance it was drawn, and whether anybody answered it for good.
    """
    for number, value, rules, at, why, chance, answered in store.db.rows(
        "SELECT r.number, i.value, r.rules, r.at, i.why, i.probability, (i.value IS NOT NULL OR i.needs > i.wanted OR EXISTS "
        "(SELECT 1 FROM answer a WHERE a.item = i.number AND a.value = 'decline')) FROM item i JOIN reply r ON r.number = i.reply "
        f"WHERE i.number IN ({TOUCHED if newest is None else f'{TOUCHED} UNION {_NEWEST}'}) AND r.version = ? AND i.trait = ? "
        "ORDER BY r.number",
        *(() if newest is None else (trait, newest)),
        *(period.version, trait),
    ):
        if not period.holds(float(at)):
            continue
        for one in json.loads(rules):
            if one["rule"] == rule:
                yield int(number), value, Verdict(**one), why, float(chance), bool(answered)


def in_words(found: Candidate, shown: Picture) -> str:
    """A candidate for people, in a sentence."""
    from demeanor.review.estimates import in_words as of

    beyond = "or higher" if shown.side == "above" else "or lower"
    return (
        f"z {found.z:+.2f} {beyond}: {of(found.missed, 'missed')}; {of(found.false_alarms, 'false alarms')}; catches "
        f"{_number(shown.a_day(found.caught))} replies a day, and the policy withholds {_number(shown.a_day(found.withheld))}"
    )


def _number(a_day: float) -> str:
    return f"{a_day:.0f}" if a_day >= 10 or math.isclose(a_day, round(a_day)) else f"{a_day:.1f}"
