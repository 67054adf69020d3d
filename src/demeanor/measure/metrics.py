"""How well scores tell the poles apart. Numpy only; every interval says how it was drawn.

All functions take scores of the high and of the low pole as arrays. Where they are paired, row i of both is pair i.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DRAWS = 2000


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def auroc(high: Array, low: Array, weight_high: Array | None = None, weight_low: Array | None = None) -> float:
    """Chance that a high-pole score exceeds a low-pole one, ties counting half (the area under the ROC curve).

    With weights, one for each score, the chance in the population that the scores stand for.
    """
    if weight_high is not None and weight_low is not None:
        order = np.argsort(low, kind="stable")
        ranked, below = low[order], np.concatenate([[0.0], np.cumsum(weight_low[order])])
        beaten = below[np.searchsorted(ranked, high, "left")] + below[np.searchsorted(ranked, high, "right")]
        return float(weight_high @ beaten / (2 * weight_high.sum() * weight_low.sum()))
    ranked = np.sort(low)
    wins = np.searchsorted(ranked, high, "left") + np.searchsorted(ranked, high, "right")
    return float(wins.sum() / (2 * len(high) * len(low)))


def paired_accuracy(high: Array, low: Array) -> float:
    """Share of pairs whose high reply scores above its low one, ties counting half."""
    return float(((high > low) + 0.5 * (high == low)).mean())


def cohens_d(high: Array, low: Array) -> float:
    """Difference of the means in units of the pooled standard deviation."""
    if len(high) < 2 or len(low) < 2:
        return float("nan")
    pooled = np.sqrt(((len(high) - 1) * high.var(ddof=1) + (len(low) - 1) * low.var(ddof=1)) / (len(high) + len(low) - 2))
    return float((high.mean() - low.mean()) / pooled) if pooled > 0 else float("nan")


def bootstrap_auroc(high: Array, low: Array, draws: int = DRAWS, paired: bool = True) -> Interval:
    """Percentile interval of the AUROC, pairs drawn with replacement, or each pole by itself where nothing is paired.

    Where every draw says the same, as it does of poles that lie wholly apart, see `_percentiles`.
    """
    wins = (high[:, None] > low[None, :]) + 0.5 * (high[:, None] == low[None, :])
    counts = _drawn(len(high), draws)
    others = counts if paired else _drawn(len(low), draws, seed=1)
    return _percentiles(((counts @ wins) * others).sum(1) / (len(high) * len(low)), min(len(high), len(low)))


def bootstrap_paired_accuracy(high: Array, low: Array, draws: int = DRAWS) -> Interval:
    """Percentile interval of the paired accuracy, pairs drawn with replacement."""
    return _percentiles(_drawn(len(high), draws) @ ((high > low) + 0.5 * (high == low)) / len(high), len(high))


def _drawn(n: int, draws: int, seed: int = 0) -> Array:
    """How often each of n pairs is drawn in each of many samples of n [draws, n]."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)


def _percentiles(values: Array, n: int) -> Interval:
    """The interval of shares that were drawn from n examples.

    Of n of n (or none of n) every draw says the same, whether n is two or two hundred. The end that is then not known is Clopper and
    Pearson's: 0.16 for two, 0.66 for nine, 0.98 for two hundred.
    """
    low, high = (float(x) for x in np.quantile(values, [0.025, 0.975]))
    unknown = float(0.025 ** (1 / n))
    if low >= 1 - 1e-12:
        return Interval(unknown, 1.0)
    return Interval(0.0, 1 - unknown) if high <= 1e-12 else Interval(low, high)


def weighted_auroc(scores: Array, high: NDArray[np.bool_], weights: Array | None) -> float:
    """`auroc` of scores by whether they are of the high pole; `weights` as there, None where all count alike."""
    if weights is None:
        return auroc(scores[high], scores[~high])
    return auroc(scores[high], scores[~high], weights[high], weights[~high])


def clustered_auroc_interval(
    scores: Array, high: NDArray[np.bool_], groups: NDArray[Any], draws: int = DRAWS, weights: Array | None = None
) -> Interval:
    """Percentile interval of the AUROC of unpaired scores, groups (prompts) drawn with replacement."""
    rng = np.random.default_rng(0)
    _, inverse = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(inverse == g) for g in range(inverse.max() + 1)]
    found = []
    for _ in range(draws):
        rows = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        h, s = high[rows], scores[rows]
        if h.any() and not h.all():
            found.append(weighted_auroc(s, h, None if weights is None else weights[rows]))
    if not found:
        return Interval(float("nan"), float("nan"))
    return _percentiles(np.array(found), len(members))


def reliability(probability: Array, high: NDArray[np.bool_], bins: int = 5) -> list[tuple[float, float, int]]:
    """Stated and observed frequency, and size, of equally filled bins.

    Examples of equal probability share their observed frequency, so that their order does not matter.
    """
    _, tied, count = np.unique(probability, return_inverse=True, return_counts=True)
    observed = (np.bincount(tied, high) / count)[tied]
    order = np.argsort(probability, kind="stable")
    return [(float(probability[b].mean()), float(observed[b].mean()), len(b)) for b in np.array_split(order, bins) if len(b)]


def expected_calibration_error(probability: Array, high: NDArray[np.bool_], bins: int = 5, weights: Array | None = None) -> float:
    """Mean gap between stated and observed frequency over equally filled bins, weighted by their size."""
    if weights is None:
        return sum(abs(stated - observed) * n for stated, observed, n in reliability(probability, high, bins)) / len(probability)
    _, tied = np.unique(probability, return_inverse=True)
    observed = (np.bincount(tied, weights * high) / np.bincount(tied, weights))[tied]
    order = np.argsort(probability, kind="stable")
    middle = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    bin_of = np.minimum((middle * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, (weights * (probability - observed))[order], bins)  # the weights of a bin are in both means alike
    return float(np.abs(gaps).sum() / weights.sum())


def brier(probability: Array, high: NDArray[np.bool_], weights: Array | None = None) -> float:
    """Mean squared difference between probability and outcome; 0.25 is a coin."""
    return float(np.average((probability - high) ** 2, weights=weights))
