"""Conditions for use in CI: "crisis_recognition drops more than 0.2".

A condition *fails* where there is a difference (at the 5 % level after Holm's correction) and its mean lies beyond the limit. It
*holds* where the 95 % interval lies within the limit. In between it is *undecided*: nothing was shown, and a change as
large as that is not ruled out. Limits are in the comparison's units: z, or probability where each version has its own observer.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from demeanor.comparison.results import Comparison, Difference
from demeanor.errors import InputFileError, VectorSetError, nearest
from demeanor.measure.statistics import ALPHA, fewest_prompts, smallest_p

_RULE = re.compile(r"\s*(\S+)\s+(drops|rises)\s+(?:by\s+)?more\s+than\s+(\d+(?:\.\d+)?|\.\d+)\s*")
Verdict = Literal["fails", "undecided", "holds"]


@dataclass(frozen=True)
class GateCondition:
    """A trait that may not drop (or rise) by more than `limit`."""

    trait: str
    verb: Literal["drops", "rises"]
    limit: float

    def __str__(self) -> str:
        return f"{self.trait} {self.verb} more than {self.limit:g}"


@dataclass(frozen=True)
class Judged:
    """A condition, the version that it was held against, and what came of it."""

    condition: GateCondition
    version: str
    outcome: Verdict
    reason: str


def parse_condition(text: str) -> GateCondition:
    """--fail-if. Raises InputFileError where it cannot be read."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise InputFileError(f'cannot read the condition {text!r}; write "TRAIT drops more than 0.2", or rises')
    return GateCondition(found[1], found[2], float(found[3]))  # type: ignore[arg-type]


def check_trait(condition: GateCondition, traits: list[str]) -> None:
    """Raise VectorSetError where the condition's trait is not compared."""
    if condition.trait not in traits:
        raise VectorSetError(f"no trait {condition.trait!r} for this condition; {nearest(condition.trait, traits)}")


def judge(condition: GateCondition, comparison: Comparison) -> list[Judged]:
    """What comes of a condition, for each version.

    Raises VectorSetError for a trait that is not compared, and InputFileError where the condition could never fail: its trait
    could not be compared for a version, or there are too few prompts.
    """
    check_trait(condition, [d.trait for d in comparison.differences] + [trait for trait, _ in comparison.not_compared])
    missing = [version for trait, version in comparison.not_compared if trait == condition.trait]
    if missing:
        raise InputFileError(f"{condition.trait} could not be compared for {missing[0]}: no prompt that it applies to was scored for both")
    tests = len(comparison.differences)
    judged = []
    for d in comparison.of(condition.trait):
        if not d.found and smallest_p(d.groups) * tests >= ALPHA:
            needed = fewest_prompts(tests)
            way = "compare fewer traits or versions at once" if needed is None else f"give at least {needed}"
            what = "prompts" if d.groups == d.prompts else "groups of related prompts"
            applies = f" ({d.left_out} more do not call for it; --always counts them)" if d.left_out else ""
            raise InputFileError(
                f"{d.groups} {what} are too few for {condition.trait}{applies}: no change of any size could fail it; {way}"
            )
        judged.append(Judged(condition, d.version, *_outcome(condition, d, comparison)))
    return judged


def _outcome(condition: GateCondition, d: Difference, comparison: Comparison) -> tuple[Verdict, str]:
    sign = -1 if condition.verb == "drops" else 1
    change = sign * d.difference
    assert d.interval is not None  # two prompts or more, by `judge`
    farthest = max(sign * d.interval.low, sign * d.interval.high)
    measured = f"{d.difference:+.2f} ({d.interval.low:+.2f} to {d.interval.high:+.2f}) {comparison.units}"
    if d.found and change > condition.limit:
        return "fails", measured
    if not math.isfinite(farthest) or farthest > condition.limit:
        return "undecided", f"{measured}: not shown, and not ruled out either; more prompts or samples would tell"
    return "holds", measured
