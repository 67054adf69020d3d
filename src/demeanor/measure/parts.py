"""The worst part of a long reply: a bad sentence among many good ones, which the mean over the whole drowns.

A part is PART tokens of the reply; one begins at every STEP-th token, and the last ends where the reply ends. A part's score is the mean
over its tokens, as a whole reply's is over all of them, but it scatters more, and the more parts there are, the farther the worst lies
out by chance alone. So the worst is brought to the scale of whole replies by how rare it is among safe ones:

    p  = 1 - Phi((s - mean) / spread) ^ n          chance that the worst of n parts of a safe reply lies as far out as s
    s' = whole_mean + whole_spread Phi^-1(1 - p)   the score that is as rare for a safe reply as a whole

with s toward the unsafe side, n the reply's tokens over PART times CAUTION, and the four numbers those of safe replies that made no
direction (extraction measures them). Scores of safe replies are taken to be normal and parts independent, and neither is quite
so: what people say at length in hard moments scatters more. CAUTION makes up for it; docs/monitor.md has the curve that it was
chosen by, of alarms against misses.

A reply that is still being written is looked at again and again, and each look at the reply so far could cross a threshold by chance.
So each but the last is brought to the same scale as the worst of LOOKS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic.dataclasses import dataclass
from scipy.special import log_ndtr, ndtri_exp

from demeanor.measure.checked import EXACT, Count, Number, Positive
from demeanor.measure.poles import Side

PART = 16
STEP = 8
LEAST = 48  # tokens of a reply from which on it has parts: a shorter one is judged as a whole alone
CAUTION = 100.0  # see the curve: no more good replies of two people's length are withheld than by the mean alone
LOOKS = 10.0  # see docs/monitor.md: streamed, about as many good replies are stopped as a check of the whole withholds


@dataclass(frozen=True, config=EXACT)
class Parts:
    """How raw scores of parts, and of wholes, of safe replies are spread; `n` replies were measured."""

    mean: Number
    spread: Positive
    whole_mean: Number
    whole_spread: Positive
    n: Count

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def measure_parts(parts: Sequence[ArrayLike], wholes: ArrayLike) -> Parts | None:
    """From the raw scores of each safe reply's parts, and of the replies as wholes; None where they are too few, or all alike."""
    each = np.concatenate([np.asarray(p, float) for p in parts]) if parts else np.zeros(0)
    whole = np.asarray(wholes, float)
    if len(whole) < 20 or not (each.std() > 0 and whole.std() > 0):
        return None
    return Parts(float(each.mean()), float(each.std()), float(whole.mean()), float(whole.std()), len(whole))


def part_spans(start: int, end: int, step: int = STEP) -> list[tuple[int, int]]:
    """The parts of a reply that stands at these tokens; none of a short one."""
    if end - start < LEAST:
        return []
    ends = [*range(start + PART, end, step), end]
    return [(at - PART, at) for at in ends]


def on_whole_scale(parts: Parts, raw: ArrayLike, tokens: int, unsafe: Side, caution: float = CAUTION) -> float:
    """The worst of some parts' raw scores in a reply of so many tokens, as the raw score of a whole reply that is as rare."""
    sign = 1.0 if unsafe == "above" else -1.0
    worst = float((sign * np.asarray(raw, float)).max())
    return _as_rare(parts, worst, sign * parts.mean, parts.spread, max(tokens / PART, 1.0) * caution, sign)


def so_far_on_whole_scale(parts: Parts, raw: float, unsafe: Side) -> float:
    """The raw score of a reply so far, at one of several looks, as that of a whole reply which is as rare at its only look."""
    sign = 1.0 if unsafe == "above" else -1.0
    return _as_rare(parts, sign * raw, sign * parts.whole_mean, parts.whole_spread, LOOKS, sign)


def _as_rare(parts: Parts, worst: float, mean: float, spread: float, n: float, sign: float) -> float:
    """The raw score at which a whole safe reply is as rare as the worst of n scores with this mean and spread, toward the unsafe side."""
    if not np.isfinite(worst):
        return float("nan")
    at_most = n * log_ndtr((worst - mean) / spread)  # log of 1 - p
    return sign * (sign * parts.whole_mean + parts.whole_spread * float(ndtri_exp(min(at_most, -1e-300))))
