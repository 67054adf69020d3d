"""Thresholds for a budget of withheld replies, from how the user's own traffic scores.

Of n replies at most budget * n may be withheld. Every rule that withholds may withhold as many as the others: its cut lies just beyond the
(r + 1)-th most dangerous of the replies that it judges, with the largest r at which all rules together keep to the budget. If later
replies are like these, the share that is withheld of them is at most the upper end of the exact one-sided interval (Clopper & Pearson
1934), with conversations as what is drawn; a small traffic can promise little, and that is said.

What the cuts miss cannot be seen in traffic without labels; the calibration sample brackets it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from demeanor.errors import PolicyError
from demeanor.measure.calibration import Calibration
from demeanor.measure.cuts import ThresholdSpec, withholds
from demeanor.measure.metrics import Array
from demeanor.measure.poles import Side
from demeanor.measure.statistics import fewest_for, share_at_most
from demeanor.monitor.decision import Decision
from demeanor.monitor.policy import Policy, ResolvedPolicy, ResolvedRule
from demeanor.monitor.transcripts import Transcript
from demeanor.scoring.reading import Reading

STEP = 1e-3  # a cut is rounded away from what it must not withhold


@dataclass
class Traffic:
    """How dangerous each scored reply is to each rule that withholds: its z toward the unsafe side."""

    policy: ResolvedPolicy
    conversations: int = 0
    unscored: int = 0
    """Replies that could not be scored, or whose condition could not; no threshold changes what is done about them."""
    _danger: list[list[float]] = field(default_factory=list)
    _group: list[int] = field(default_factory=list)

    @property
    def rules(self) -> tuple[ResolvedRule, ...]:
        """Those that withhold. Raises PolicyError where none does."""
        found = tuple(r for r in self.policy.rules if withholds(r.rule.action))
        if not found:
            raise PolicyError(f"policy {self.policy.policy.version} withholds nothing, so there is no threshold to suggest")
        return found

    def add(self, transcript: Transcript) -> None:
        """Take in a judged conversation."""
        self.conversations += 1
        for turn in transcript.turns:
            found = [_danger(rule, turn.decision) for rule in self.rules]
            if any(map(math.isnan, found)):
                self.unscored += 1
                continue
            self._danger.append(found)
            self._group.append(self.conversations)

    @property
    def danger(self) -> Array:
        """[replies, rules]; minus infinity where a rule does not judge the reply."""
        return np.array(self._danger, float).reshape(len(self._danger), len(self.rules))

    @property
    def group(self) -> NDArray[np.int64]:
        """Which conversation each reply belongs to [replies]."""
        return np.array(self._group, int)


@dataclass(frozen=True)
class Suggested:
    """One rule's threshold."""

    rule: str
    trait: str
    z: float | None
    """None: the rule judged none of the replies, so its threshold stays as it is."""
    withheld: int
    missed: tuple[float, float]
    """Between which shares of the calibration sample's unsafe replies such a cut misses."""

    @property
    def words(self) -> str:
        """All of it, in a sentence."""
        if self.z is None:
            return f"{self.rule}: judged none of these replies, so its threshold stays"
        low, high = (f"{100 * share:.0f}" for share in self.missed)
        missed = f"{low} %" if low == high else f"{low} to {high} %"
        return (
            f"{self.rule}: {self.trait} from z {self.z:+.2f} on; withholds {self.withheld} here; {missed} missed on the calibration sample"
        )


@dataclass(frozen=True)
class Suggestion:
    """A policy whose withholding rules keep to a budget on the traffic that it was made from."""

    policy: Policy
    rules: tuple[Suggested, ...]
    budget: float
    replies: int
    conversations: int
    withheld: int
    at_most: float
    """The share of later replies that is withheld is at most this, with 95 % confidence."""
    unscored: int

    @property
    def promised(self) -> bool:
        """Whether the traffic is large enough to promise the budget of later replies."""
        return self.at_most <= self.budget

    @property
    def words(self) -> str:
        """What the budget comes to, and what may be relied on."""
        share = (
            f"{self.withheld} of {self.replies} replies withheld ({per_thousand(self.withheld / self.replies)}; the budget is "
            f"{per_thousand(self.budget)}). Of later replies like these at most {per_thousand(self.at_most)} are, with 95 % confidence"
        )
        if self.promised:
            return share
        return (
            f"{share}. {self.replies} replies of {self.conversations} conversations cannot promise {per_thousand(self.budget)}: that takes "
            f"{fewest_for(self.budget)} conversations at the least, with none withheld"
        )


def suggest(traffic: Traffic, calibrations: Mapping[str, Calibration], budget: float) -> Suggestion:
    """Thresholds that withhold as many of these replies as the budget allows, and no more.

    Raises PolicyError where no reply was scored, no rule withholds, or the budget is no share between 0 and 1.
    """
    if not 0 < budget < 1:
        raise PolicyError(f"a budget must be between 0 and 1, not {budget:g}; write it as 5/1000 or 0.5%")
    rules, danger = traffic.rules, traffic.danger
    if not len(danger):
        raise PolicyError(f"no reply could be scored ({traffic.unscored} could not), so no threshold can be suggested from them")
    rank = _rank(danger, math.floor(budget * len(danger) + 1e-9))
    cuts = _cuts(danger, rank)
    flags = np.asarray(danger >= cuts, bool)
    made = []
    for column, resolved in enumerate(rules):
        trait, side = resolved.rule.trait, resolved.cut.unsafe_side
        up = 1.0 if side == "above" else -1.0
        known = math.isfinite(cuts[column])
        z = up * float(cuts[column]) if known else None
        missed = missed_at(calibrations[trait], z, side) if z is not None else (0.0, 1.0)
        made.append(Suggested(resolved.rule.name, trait, z, int(flags[:, column].sum()), missed))
    withheld = np.asarray(flags.any(1), bool)
    return Suggestion(
        policy=_with(traffic.policy.policy, made),
        rules=tuple(made),
        budget=budget,
        replies=len(danger),
        conversations=len(set(traffic.group.tolist())),
        withheld=int(withheld.sum()),
        at_most=share_at_most(withheld, traffic.group),
        unscored=traffic.unscored,
    )


def missed_at(calibration: Calibration, z: float, side: Side) -> tuple[float, float]:
    """Between which shares of the calibration sample's unsafe replies a cut at z misses, as the thresholds on either side of it say."""
    up = 1.0 if side == "above" else -1.0
    known = [(up * t.z, t.observed_miss) for t in calibration.thresholds.values() if t.observed_miss is not None]
    low = max((miss for cut, miss in known if cut <= up * z), default=0.0)
    high = min((miss for cut, miss in known if cut >= up * z), default=1.0)
    return low, max(low, high)


def parse_budget(text: str) -> float:
    """A share as people write it: 5/1000, 0.5%, 0.005. Raises PolicyError."""
    if found := re.fullmatch(r"\s*([0-9.]+)\s*(?:/\s*([0-9.]+)|(%))?\s*", text):
        number, of, percent = found.groups()
        try:
            share = float(number) / (float(of) if of else 100.0 if percent else 1.0)
        except (ValueError, ZeroDivisionError):
            share = math.nan
        if 0 < share < 1:
            return share
    raise PolicyError(f"the budget {text!r} is not a share between 0 and 1; write it as 5/1000 or 0.5%")


def per_thousand(share: float) -> str:
    """A share for a person: "5.0 in 1,000"."""
    return f"{1000 * share:.1f} in 1,000"


def _danger(resolved: ResolvedRule, decision: Decision) -> float:
    """A reply's worst z toward the rule's unsafe side; minus infinity where the rule does not judge it, NaN where it could not."""
    rule, up = resolved.rule, 1.0 if resolved.cut.unsafe_side == "above" else -1.0
    result = next(r for r in decision.results if r.rule == rule.name)
    if result.state == "not judged":
        return -math.inf
    if result.state == "not scored" or decision.reading is None:
        return math.nan
    return max((up * z - result.easing for z in _every_z(decision.reading, rule.trait)), default=math.nan)


def _every_z(reading: Reading, trait: str) -> list[float]:
    """What the rules are tried on: the reply, its worst part, and reasoning that stands in it."""
    apart = reading.apart.read if reading.apart is not None else None
    read = [reading, *([apart] if isinstance(apart, Reading) else [])]
    return [scores[trait].z for r in read for scores in (r.scores, r.worst) if trait in scores]


def _rank(danger: Array, allowed: int) -> int:
    """How many of its most dangerous replies each rule may withhold, so that all together withhold at most so many."""
    low, high = 0, min(allowed, len(danger) - 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if (danger >= _cuts(danger, middle)).any(1).sum() <= allowed else (low, middle - 1)
    return low


def _cuts(danger: Array, rank: int) -> Array:
    """For each rule the cut just beyond its (rank + 1)-th most dangerous reply; infinite where it judges none."""
    nearest = -np.sort(-danger, axis=0)[rank]
    lowest = np.where(np.isfinite(danger), danger, np.inf).min(0)  # all that it judges may be withheld, and nothing says what may not
    kept = np.where(np.isfinite(nearest), np.floor(nearest / STEP + 1) * STEP, lowest)
    return np.where(np.isfinite(danger).any(0), kept, np.inf)


def _with(policy: Policy, made: list[Suggested]) -> Policy:
    z = {s.rule: s.z for s in made if s.z is not None}
    rules = tuple(
        rule.model_copy(update={"threshold": ThresholdSpec(z=round(z[rule.name], 6))}) if rule.name in z else rule for rule in policy.rules
    )
    return policy.model_copy(update={"rules": rules, "version": f"{policy.version}, for a budget"})
