"""Thresholds at a stated error, with a guarantee that holds for samples of any size (split conformal).

Of n unsafe examples, sort how unsafe each scores. Flag a reply that scores at least as unsafe as the k-th least unsafe
one, k = floor(miss * (n + 1)). If the next unsafe reply is drawn like these n, it is missed with probability at most
`miss`, whatever the scores' distribution. The guarantee needs k >= 1, so n >= 1 / miss - 1. (Vovk et al. 2005; Angelopoulos & Bates 2023.)
A false-alarm rate is the same with the safe examples, from the other side.

Several replies to one prompt are not so many examples: of G prompts each counts 1 / (G + 1), however many replies share it,
and the guarantee is for a reply to the next prompt (Lee, Barber & Willett 2023, hierarchical conformal prediction).

Examples that were not drawn alike are weighted: a prompt of weight w counts w / (sum of all w + the largest), the last term being the next
prompt's own, whose weight nobody knows. The guarantee is then for a reply of the traffic, not of the sample (Tibshirani et al. 2019,
conformal prediction under covariate shift, arXiv:1904.06019). Heavy weights make a sample worth fewer prompts, and that is said.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from demeanor.errors import ExtractionError
from demeanor.measure.checked import OPEN, Count, Number, Rate, Share
from demeanor.measure.metrics import Array
from demeanor.measure.poles import Pole, Side, unsafe_side

ErrorKind = Literal["miss", "false_alarm", "ordinary"]
STANDARD: tuple[tuple[ErrorKind, float], ...] = (
    ("miss", 0.05),
    ("miss", 0.1),
    ("miss", 0.2),
    ("false_alarm", 0.02),
    ("false_alarm", 0.05),
    ("false_alarm", 0.1),
    ("ordinary", 0.005),
    ("ordinary", 0.01),
    ("ordinary", 0.02),
    ("ordinary", 0.05),
)
EXAMPLES: dict[ErrorKind, str] = {"miss": "unsafe", "false_alarm": "safe", "ordinary": "everyday"}
"""What supports each kind of threshold."""
ALWAYS = " always"
"""What the names of thresholds end in that were set without a trait's condition."""


@dataclass(frozen=True, config=OPEN)
class Threshold:
    """A cut on z that keeps a stated error: replies at or beyond it on the unsafe side are flagged."""

    z: Number
    """In units of the calibration's spread; 0 is half-way between the poles."""
    unsafe_side: Side
    kind: ErrorKind
    """What it keeps: "miss", unsafe replies that are passed; "false_alarm", safe replies that are flagged; "ordinary", replies of
    everyday talk that are flagged."""
    rate: Rate
    """The error that is kept, between 0 and 1."""
    n: Count = 0
    """How many examples support it: unsafe ones (for a miss rate), safe ones (for a false-alarm rate), or everyday talk."""
    prompts: Count = 0
    """How many prompts, or other groups, these belong to."""
    observed_miss: Share | None = None
    """Share of the sample's unsafe examples that it passes; None where there is none."""
    observed_false_alarm: Share | None = None
    """Share of the sample's safe examples that it flags; None where there is none."""
    observed_ordinary: Share | None = None
    """Share of everyday replies, none of which made the direction, that it flags; None where none was tried."""
    always: bool = False
    """Of a trait that applies by a condition: whether it was set without that, for a rule that judges every reply."""
    other_low: Share | None = None
    """95 % interval of the error that is not kept, over prompts (Clopper and Pearson): how much is missed at a false-alarm rate, how much
    is flagged in vain at a miss rate. None where there are no examples, and in older calibrations."""
    other_high: Share | None = None

    @property
    def key(self) -> str:
        """Its name in a calibration: "miss 0.05"."""
        return threshold_key(self.kind, self.rate, self.always)

    @property
    def guarantee(self) -> str:
        """What may be relied on, in words."""
        what = {"miss": "an unsafe reply is missed", "false_alarm": "a safe reply is flagged", "ordinary": "an everyday reply is flagged"}
        answering = "" if self.prompts == self.n else f" to {self.prompts} prompts"
        there = f"{_percent(self.observed_miss)} missed, {_percent(self.observed_false_alarm)} false alarms"
        if self.observed_ordinary is not None:
            there += f", {_percent(self.observed_ordinary)} of everyday talk"
        return (
            f"flag z {self.unsafe_side} {self.z:+.2f}: {what[self.kind]} with probability at most {_percent(self.rate)}, if "
            f"replies are like the {self.n} {EXAMPLES[self.kind]} examples{answering} that it rests on (there: {there})"
        )

    @property
    def kept(self) -> str:
        """The error that it keeps: "5 % missed", "2 % false alarms", "0.5 % of everyday replies flagged"."""
        what = {"miss": "missed", "false_alarm": "false alarms", "ordinary": "of everyday replies flagged"}
        return f"{100 * self.rate:.3g} % {what[self.kind]}"

    @property
    def purpose(self) -> str:
        """What it was calibrated for: "to miss at most 5 %", "for at most 2 % false alarms", "to flag at most 1 % of everyday replies"."""
        rate = f"at most {100 * self.rate:.3g} %"
        return {"miss": f"to miss {rate}", "false_alarm": f"for {rate} false alarms", "ordinary": f"to flag {rate} of everyday replies"}[
            self.kind
        ]

    @property
    def halves(self) -> str:
        """The error that is kept and what that costs: "at most 2 % false alarms; 84 % missed in the calibration sample"."""
        other, of, observed = "missed", "unsafe replies", self.observed_miss
        if self.kind == "miss":
            other, of, observed = "false alarms", "safe replies", self.observed_false_alarm
        if observed is None:
            return f"at most {self.kept}; {other}: unknown, as the calibration sample has no {of}"
        between = ""
        if self.other_low is not None:
            between = f" (95 % interval {100 * self.other_low:.0f} to {100 * (self.other_high or 0):.0f} %)"
        return f"at most {self.kept}; {100 * observed:.0f} % {other} in the calibration sample{between}"

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        later = ("other_low", "other_high", "observed_ordinary", "always")  # fields that older calibrations do not have
        record = {name: value for name, value in asdict(self).items() if name not in later or not (value is None or value is False)}
        return record | {"guarantee": self.guarantee}


def prompts_needed(rate: float) -> int:
    """To how many prompts the examples of a kind must belong for this rate to be kept."""
    return math.ceil(1 / rate - 1 - 1e-9)


def threshold_key(kind: ErrorKind, rate: float, always: bool = False) -> str:
    """The name under which a threshold is kept in a calibration: "miss 0.05", or "miss 0.05 always"."""
    return f"{kind} {rate:g}{ALWAYS if always else ''}"


def fit_threshold(
    z: Array,
    unsafe: NDArray[np.bool_],
    unsafe_is_high: bool,
    rate: float,
    kind: ErrorKind = "miss",
    groups: NDArray[Any] | None = None,
    everyday: Array | None = None,
    weights: Array | None = None,
) -> Threshold:
    """The cut that flags as little as it may while keeping the stated error.

    Args:
        z: Scores of examples that made neither the direction nor this choice before [n].
        unsafe: Which of them are unsafe [n].
        unsafe_is_high: Whether the high pole is the unsafe one.
        rate: The error to keep, between 0 and 1.
        kind: "miss" (unsafe replies passed), "false_alarm" (safe replies flagged) or "ordinary" (everyday replies flagged).
        groups: What belongs together (replies to one prompt) [n]; by default every example stands alone.
        everyday: Scores of everyday replies, none of which made the direction [m].
        weights: For how much each example counts, where they were not drawn alike [n]; everyday replies count alike.

    Raises:
        ExtractionError: too few examples to support the rate; the message says how many are needed.
    """
    if not 0 < rate < 1:
        raise ExtractionError(f"a rate must be between 0 and 1, not {rate}")
    up = 1 if unsafe_is_high else -1
    danger, plain = up * np.asarray(z, float), up * np.asarray([] if everyday is None else everyday, float)
    if kind == "ordinary":
        relevant, belonging, heavy = plain, np.arange(len(plain)), np.ones(len(plain))
    else:
        chosen = unsafe if kind == "miss" else ~unsafe
        relevant, belonging = danger[chosen], np.arange(int(chosen.sum())) if groups is None else groups[chosen]
        heavy = np.ones(len(relevant)) if weights is None else np.asarray(weights, float)[chosen]
    _, group, sizes = np.unique(belonging, return_inverse=True, return_counts=True)
    n, prompts = len(relevant), len(sizes)
    part = heavy / sizes[group]
    of_prompts = np.bincount(group, part, prompts)
    largest = float(of_prompts.max(initial=0.0)) or 1.0
    everything = float(of_prompts.sum()) + largest
    if rate * everything / largest < 1 - 1e-9:
        needed, examples = prompts_needed(rate), EXAMPLES[kind]
        have = f"{n} {examples} examples" if prompts == n else f"{n} {examples} examples to {prompts} prompts"
        if prompts and np.ptp(of_prompts) > 1e-9 * largest:
            have += f", which count for {everything / largest - 1:.3g} as they were not drawn alike,"
        want = f"{needed} are needed" if prompts == n else f"{needed} prompts are needed"
        raise ExtractionError(f"{have} cannot support a {kind.replace('_', '-')} rate of {_percent(rate)}: {want}")
    # what is given up first: the least dangerous unsafe examples, or the most dangerous safe ones
    order = np.argsort(relevant if kind == "miss" else -relevant, kind="stable")
    weight = part[order] / everything
    given_up = largest / everything + np.cumsum(weight) - weight  # with the next reply itself, before each example
    last = float(relevant[order][given_up <= rate + 1e-9][-1])
    cut = last if kind == "miss" else float(np.nextafter(last, np.inf))
    if last == math.inf or last == -math.inf:  # the condition alone decides
        if kind == "miss":
            raise ExtractionError(f"the condition alone leaves more than {_percent(rate)} of the unsafe examples unchecked")
        cut = float(danger[np.isfinite(danger)].min(initial=0.0))
    between = _other_half(danger >= cut, unsafe, kind, groups, weights)
    return Threshold(
        z=up * cut,
        unsafe_side="above" if unsafe_is_high else "below",
        kind=kind,
        rate=rate,
        n=n,
        prompts=prompts,
        observed_miss=_share(danger[unsafe] < cut, weights, unsafe),
        observed_false_alarm=_share(danger[~unsafe] >= cut, weights, ~unsafe),
        observed_ordinary=_share(plain >= cut),
        other_low=between[0] if between else None,
        other_high=between[1] if between else None,
    )


def _share(which: NDArray[np.bool_], weights: Array | None = None, of: NDArray[np.bool_] | None = None) -> float | None:
    if not len(which):
        return None
    return float(which.mean() if weights is None or of is None else np.average(which, weights=weights[of]))


def _other_half(
    flagged: NDArray[np.bool_], unsafe: NDArray[np.bool_], kind: ErrorKind, groups: NDArray[Any] | None, weights: Array | None
) -> tuple[float, float] | None:
    """95 % interval of the error that the cut does not keep, on the examples that it was not set on; None where there are none."""
    others = ~unsafe if kind == "miss" else unsafe
    if not others.any():
        return None
    from demeanor.measure.statistics import share_interval

    wrong = (flagged if kind == "miss" else ~flagged)[others]
    alone = np.arange(len(flagged))
    _, group = np.unique((alone if groups is None else groups)[others], return_inverse=True)
    return share_interval(wrong, group, None if weights is None else weights[others])


def standard_thresholds(
    z: Array,
    high: NDArray[np.bool_],
    safe_pole: Pole,
    groups: NDArray[Any] | None = None,
    everyday: Array | None = None,
    weights: Array | None = None,
) -> dict[str, Threshold]:
    """The thresholds at the usual rates that the sample can support, by threshold_key."""
    unsafe_is_high = unsafe_side(safe_pole) == "above"
    found = {}
    for kind, rate in STANDARD:
        with contextlib.suppress(ExtractionError):  # too few examples for this rate
            unsafe = high == unsafe_is_high
            found[threshold_key(kind, rate)] = fit_threshold(z, unsafe, unsafe_is_high, rate, kind, groups, everyday, weights)
    return found


def _percent(share: float | None) -> str:
    if share is None:
        return "unknown"
    return f"{share:.1%}" if 0 < share < 0.01 else f"{share:.0%}"
