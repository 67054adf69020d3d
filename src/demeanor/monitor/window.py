"""Readings of windows of a reply's tokens: the mean z over a window, or its last token's.

With mean pooling a reply's z is the mean of its tokens' z, so that a window is read like a reply of its own length. It
is shorter than most, and so its reading scatters more than those that thresholds were calibrated on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from demeanor.scoring.gauge import Gauge
from demeanor.scoring.reading import Reading


def read_windows(gauge: Gauge, z: Mapping[str, ArrayLike], tokens: int, size: int, since: int = 0) -> list[Reading]:
    """The newest window of `size` tokens, and before it as many as hold all tokens from number `since` on, oldest first.

    `z` is that of each trait for each of the `tokens` tokens of a reply. None where there are fewer than `size`.
    """
    if tokens < size:
        return []
    ends = [tokens]
    while ends[-1] - size > since:
        ends.append(max(ends[-1] - size, size))
    return [_reading(gauge, {trait: np.asarray(values, float)[end - size : end] for trait, values in z.items()}) for end in reversed(ends)]


class RunningTokens:
    """Each token's z from the running means that come with each token of a reply that the model writes."""

    def __init__(self) -> None:
        self._sums: list[Mapping[str, float]] = [{}]

    def add(self, means: Mapping[str, float]) -> None:
        """Take in each trait's mean z over all tokens so far; empty where the first one is not read yet."""
        if means:
            count = len(self._sums)
            self._sums.append({trait: mean * count for trait, mean in means.items()})

    def __len__(self) -> int:
        """How many tokens were read."""
        return len(self._sums) - 1

    @property
    def z(self) -> dict[str, ArrayLike]:
        """The z of each trait, for each token."""
        return {trait: np.diff([sums.get(trait, 0.0) for sums in self._sums]) for trait in self._sums[-1]}


def _reading(gauge: Gauge, z: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]) -> Reading:
    scores = {}
    for trait, values in z.items():
        calibration = gauge.calibrations[trait]
        mean = float(values[-1] if gauge.vectors.pooling == "last" else values.mean())
        scores[trait] = gauge.score(trait, calibration.centre + mean * calibration.spread)
    layers = {trait: gauge.vectors[trait].reading.layers for trait in scores}
    return Reading(scores, layers, gauge.vectors.model.name)
