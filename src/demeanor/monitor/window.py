"""Readings of the newest tokens of a reply that is being written: the mean z over a window, or the last token's.

With mean pooling a reply's z is the mean of its tokens' z, so that a window is read like a reply of its own length. It
is shorter than most, and so its reading scatters more than those that thresholds were calibrated on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from demeanor.scoring.reading import Reading, Score, TokenScores
from demeanor.scoring.scorer import Scorer


def read_window(scorer: Scorer, tokens: TokenScores, size: int) -> Reading | None:
    """The reading of the newest `size` tokens of a reply; None where it has fewer."""
    return _reading(scorer, tokens.z, size) if len(tokens.tokens) >= size else None


class RunningWindow:
    """The same from the running means that come with each token of a reply that the model writes."""

    def __init__(self, scorer: Scorer, size: int) -> None:
        self.scorer, self.size = scorer, size
        self._sums: list[dict[str, float]] = [{}]

    def add(self, means: Mapping[str, float]) -> None:
        """Take in each trait's mean z over all tokens so far; empty where the first one is not read yet."""
        if means:
            count = len(self._sums)
            self._sums.append({trait: mean * count for trait, mean in means.items()})

    def reading(self) -> Reading | None:
        """The reading of the newest `size` tokens; None where there are fewer."""
        if len(self._sums) <= self.size:
            return None
        newest = self._sums[-self.size - 1 :]
        z = {t: np.diff([sums.get(t, 0.0) for sums in newest]) for t in newest[-1]}
        return _reading(self.scorer, z, self.size)


def _reading(scorer: Scorer, z: Mapping[str, ArrayLike], size: int) -> Reading:
    newest = 1 if scorer.vectors.pooling == "last" else size
    scores = {}
    for trait, values in z.items():
        calibration = scorer.calibrations[trait]
        mean = float(np.asarray(values, float)[-newest:].mean())
        raw = calibration.centre + mean * calibration.spread
        scores[trait] = Score(raw, raw - calibration.centre, mean, float(calibration.probability(raw)))
    layers = {trait: scorer.vectors.traits[trait].reading.layers for trait in scores}
    return Reading(scores, layers, scorer.vectors.model.name)
