"""What is unsafe: thresholds as people write them, and cuts as numbers.

A cut is a number on a scale with an unsafe side; a score on it, or beyond it, is unsafe. It is the one form in which "unsafe beyond
here" is said: policies, screenings, comparisons and validation all compare scores by `Cut`, and the boundary itself means the same
in each. A threshold is written in one of three ways,

    z: 1.5                              the score itself, in units of the calibration's spread
    probability: 0.8                    calibrated chance of the unsafe side
    calibrated: {miss_rate: 0.05}       the calibration's own threshold at that error; false_alarm_rate and ordinary_rate likewise

and `find_cut` makes it a number.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, model_validator

from demeanor.errors import CutError
from demeanor.measure.calibration import Calibration, Score
from demeanor.measure.checked import Number, Rate
from demeanor.measure.metrics import Array
from demeanor.measure.poles import Pole, Side, unsafe_side
from demeanor.measure.thresholds import ALWAYS, ErrorKind, Threshold, threshold_key

Action = Literal["allow", "flag", "substitute", "escalate"]
ACTIONS: tuple[Action, ...] = ("allow", "flag", "substitute", "escalate")
"""From the mildest to the strongest. `escalate` substitutes the reply and calls a person in."""
ROUNDING = 1e-12


def withholds(action: Action) -> bool:
    """Whether the reply is not shown but replaced."""
    return ACTIONS.index(action) >= ACTIONS.index("substitute")


class Strict(BaseModel):
    """What people write: no unknown field, no white space around words, no NaN."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True, allow_inf_nan=False)


def renamed(value: Any, older: str, newer: str) -> Any:
    """What was written with an older name for a field, under the newer one, with a warning. Raises ValueError where both are there."""
    if not isinstance(value, dict) or older not in value:
        return value
    if newer in value:
        raise ValueError(f"{older!r} is the older name of {newer!r}; give only {newer!r}")
    warnings.warn(f"{older!r} is the older name of {newer!r}; rename it in your policy", FutureWarning, stacklevel=2)
    return {(newer if name == older else name): given for name, given in value.items()}


class AtRate(NamedTuple):
    """One threshold that a calibration may hold: the kind of error that it keeps, and its share."""

    kind: ErrorKind
    rate: float

    @property
    def key(self) -> str:
        """Its name in a calibration: "miss 0.05"."""
        return threshold_key(self.kind, self.rate)


class CalibratedRate(Strict):
    """Thresholds that a calibration holds, named by the error that they keep; of two the stricter one counts.

    A miss rate alone, or a share of false alarms: on safe replies where the trait is called for, on ordinary talk, or on both.
    """

    miss_rate: Rate | None = None
    false_alarm_rate: Rate | None = None
    ordinary_rate: Rate | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> CalibratedRate:
        if (self.miss_rate is None) == (self.false_alarm_rate is None and self.ordinary_rate is None):
            raise ValueError("give either 'miss_rate', or 'false_alarm_rate', 'ordinary_rate' or both of these")
        return self

    @classmethod
    def of(cls, *thresholds: Threshold) -> CalibratedRate:
        """The rates that thresholds keep."""
        return cls(**{f"{threshold.kind}_rate": threshold.rate for threshold in thresholds})

    @property
    def each(self) -> tuple[AtRate, ...]:
        """The thresholds that it names, one by one."""
        rates: list[tuple[ErrorKind, float | None]] = [
            ("miss", self.miss_rate),
            ("false_alarm", self.false_alarm_rate),
            ("ordinary", self.ordinary_rate),
        ]
        return tuple(AtRate(kind, rate) for kind, rate in rates if rate is not None)


class ThresholdSpec(Strict):
    """Where the unsafe side begins, in exactly one of three ways."""

    z: Number | None = None
    probability: Rate | None = None
    calibrated: CalibratedRate | None = None

    @model_validator(mode="after")
    def _one(self) -> ThresholdSpec:
        if sum(v is not None for v in (self.z, self.probability, self.calibrated)) != 1:
            raise ValueError("give exactly one of 'z', 'probability' and 'calibrated'")
        return self


@dataclass(frozen=True)
class Cut:
    """A threshold as a number: beyond it on `unsafe_side`, or on it, is unsafe."""

    scale: Literal["z", "probability"]
    value: float
    """On the scale of z, or the chance of the unsafe side."""
    unsafe_side: Side
    source: str
    """Where the number comes from, in words."""
    halves: str = ""
    """Of a calibration's threshold both error rates, in words: the one that it keeps, and what that costs."""

    @classmethod
    def of(cls, threshold: Threshold) -> Cut:
        """A calibration's own threshold."""
        return cls("z", threshold.z, threshold.unsafe_side, f"calibrated {threshold.purpose}", threshold.halves)

    def beyond(self, z: ArrayLike, probability: ArrayLike) -> Array:
        """How far scores lie on the unsafe side, on the cut's scale: unsafe from 0 on, NaN where a score is no number.

        On a limit of probability counts what 1 - p has rounded away from it.
        """
        up = 1.0 if self.unsafe_side == "above" else -1.0
        if self.scale == "z":
            far = up * (np.asarray(z, float) - self.value)
        else:
            chance = np.asarray(probability, float)
            far = (chance if up > 0 else 1 - chance) - self.value + ROUNDING
        return np.where(np.isfinite(far), far, np.nan)

    def crossed(self, score: Score) -> bool | None:
        """Whether a score is unsafe; None where it is no finite number and nothing can be said."""
        if not all(math.isfinite(number) for number in score):
            return None
        return bool(self.beyond(score.z, score.probability) >= 0)

    def value_of(self, score: Score) -> float:
        """A score on this cut's scale."""
        if self.scale == "z":
            return score.z
        return score.probability if self.unsafe_side == "above" else 1 - score.probability

    @property
    def words(self) -> str:
        """Where it lies, in words."""
        if self.scale == "z":
            source = f"calibrated for {self.halves}" if self.halves else self.source
            return f"score {_number(self.value, 2)} or {'higher' if self.unsafe_side == 'above' else 'lower'} ({source})"
        return f"unsafe with a probability of {self.value:.0%} or more ({self.source})"

    def beside(self, z: float) -> str:
        """A z as it stands beside the limit, with as many decimals as it takes to tell them apart."""
        return _number(z, _decimals(z, self.value))

    def from_on(self, z: float) -> str:
        """From where on scores are beyond it, as said beside such a score: "from -0.2 up"."""
        return f"from {_number(self.value, _decimals(z, self.value))} {'up' if self.unsafe_side == 'above' else 'down'}"

    def describe(self, trait: str, score: Score) -> str:
        """Where a score of a trait stands to this cut, in words."""
        if self.scale == "z":
            return f"{trait} score {self.beside(score.z)}, unsafe {self.from_on(score.z)} ({self.source})"
        return f"{trait} unsafe with a probability of {self.value_of(score):.0%}; the limit is {self.value:.0%} ({self.source})"


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text if float(text) else text.removeprefix("-")


def _decimals(a: float, b: float) -> int:
    return next((n for n in (1, 2, 3) if a == b or f"{a:.{n}f}" != f"{b:.{n}f}"), 4)


def find_cut(
    spec: ThresholdSpec,
    trait: str,
    calibration: Calibration,
    safe_pole: Pole,
    side: Side | None = None,
    source: str = "set in the policy",
    always: bool = False,
) -> Cut:
    """A threshold as a number.

    Args:
        spec: As somebody wrote it.
        trait: Whose; for the messages.
        calibration: The trait's.
        safe_pole: The trait's.
        side: The unsafe side, where it was given; else the one away from the safe pole.
        source: Where the threshold was written, in words.
        always: Whether it is for a rule that judges every reply, whatever the trait's condition: the calibration's threshold is then
            the one that was set without that, where there are two.

    Raises:
        CutError: the calibration does not support it; the message says what it has, and the way out.
    """
    unsafe = side or unsafe_side(safe_pole)
    if not calibration.measured:
        raise CutError(
            f"{trait} is not calibrated, so it has no usable threshold; calibrate it on labelled replies first: "
            f"demeanor calibrate --trait {trait} --input FILE"
        )
    if spec.z is not None:
        return Cut("z", spec.z, unsafe, source)
    if spec.probability is not None:
        return _probability_cut(Cut("probability", spec.probability, unsafe, source), trait, calibration)
    assert spec.calibrated is not None
    found = [_calibrated_cut(wanted, trait, calibration, unsafe, always) for wanted in spec.calibrated.each]
    return (min if unsafe == "below" else max)(found, key=lambda cut: cut.value)


def _calibrated_cut(wanted: AtRate, trait: str, calibration: Calibration, unsafe: Side, always: bool) -> Cut:
    """A calibration's threshold. Raises CutError."""
    key = wanted.key
    found = (calibration.thresholds.get(key + ALWAYS) if always else None) or calibration.thresholds.get(key)
    if found is None:
        there = ", ".join(sorted(name for name in calibration.thresholds if not name.endswith(ALWAYS))) or "none"
        option = f"--{wanted.kind.replace('_', '-')}-rate {wanted.rate:g}"
        raise CutError(
            f"the calibration of {trait} has no threshold '{key}' (there: {there}); {_offer(wanted, calibration)}make it from "
            f"labelled replies: demeanor calibrate --trait {trait} --input FILE {option}"
        )
    if found.unsafe_side != unsafe:
        raise CutError(
            f"'unsafe' is {unsafe}, but the calibration's threshold '{key}' of {trait} is for {found.unsafe_side}; "
            f"leave 'unsafe' out, or give the threshold as 'z'"
        )
    return Cut.of(found)


INSTEAD: dict[ErrorKind, tuple[ErrorKind, ...]] = {
    "miss": ("false_alarm", "ordinary"),
    "false_alarm": ("miss", "ordinary"),
    "ordinary": ("false_alarm", "miss"),
}
"""Which kinds of threshold may take the place of one that is not there, the nearest kind first."""


def supported(wanted: AtRate, calibration: Calibration, withheld: bool = True) -> Threshold | None:
    """The calibration's threshold at a rate or, where it holds none, the nearest that it does; None where it holds none at all.

    The nearest is of the same kind of error. Where that kind is not there, it is of the other kind: for what withholds a reply the one
    that flags least, for what only marks it the one that flags most.
    """
    found = calibration.thresholds.get(wanted.key)
    same = [t for t in calibration.thresholds.values() if t.kind == wanted.kind and not t.always]
    others = ([t for t in calibration.thresholds.values() if t.kind == kind and not t.always] for kind in INSTEAD[wanted.kind])
    other = next((thresholds for thresholds in others if thresholds), [])
    if found is not None or same:
        return found or min(same, key=lambda t: (round(abs(math.log(t.rate / wanted.rate)), 6), t.rate))
    least = {t.rate if t.kind != "miss" else -t.rate: t for t in other}  # from the one that flags least on
    return least[min(least) if withheld else max(least)] if least else None


def _offer(wanted: AtRate, calibration: Calibration) -> str:
    near = supported(wanted, calibration)
    if near is None:
        return ""
    return f"the nearest is '{near.key}' ({near.halves}); `demeanor policy fit --output policy.yaml` writes a policy that fits; or "


def _probability_cut(cut: Cut, trait: str, calibration: Calibration) -> Cut:
    """A cut on the probability; refused where the calibration never gets there, as such a rule would be silently dead."""
    high = calibration.probability(calibration.centre + calibration.spread * np.linspace(-8, 8, 161))
    if not (cut.beyond(np.zeros_like(high), high) >= 0).any():
        most = float(np.max(high) if cut.unsafe_side == "above" else 1 - np.min(high))
        raise CutError(
            f"the calibration of {trait} never gives a chance above {most:.0%}, so {cut.value:.0%} would never be reached; "
            f"lower it, or calibrate the trait on labelled replies (demeanor calibrate)"
        )
    return cut
