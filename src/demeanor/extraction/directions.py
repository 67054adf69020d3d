"""From the activations of both poles to a direction: pure functions of arrays, `(high, low) -> unit vector`.

high [n, hidden], low [m, hidden], float32 or float64; the result [hidden] points from low to high and has length 1.

    mean_difference           mean(high) - mean(low)                              Chen et al. 2025, the tutorial's
    whitened_mean_difference  the same, each dimension divided by its variance within a pole
    lda                       (shrunk within-pole covariance)^-1 (mean difference)  Fisher; Ledoit & Wolf 2004
    logistic                  weights of an L2-regularised logistic regression
    pca                       first principal direction of the paired differences   Zou et al. 2023; needs n == m

A few dimensions of a transformer carry activations a hundred times larger than the rest. All but the first and the
last therefore work on dimensions scaled by their spread within a pole, and scale back. The hidden size exceeds
the number of examples by far, so matrices are inverted in the examples' space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.linear_model import LogisticRegression

from demeanor.errors import ExtractionError, nearest

Array: TypeAlias = NDArray[Any]
Fit: TypeAlias = Callable[[Array, Array], Array]


def mean_difference(high: Array, low: Array) -> Array:
    """mean(high) - mean(low), at unit length."""
    return _unit(high.mean(0) - low.mean(0))


def whitened_mean_difference(high: Array, low: Array) -> Array:
    """The mean difference with each dimension divided by its variance within a pole."""
    _, scale = _within(high, low)
    return _unit((high.mean(0) - low.mean(0)) / scale**2)


def lda(high: Array, low: Array) -> Array:
    """Linear discriminant with the within-pole covariance shrunk toward a multiple of the identity (Ledoit-Wolf)."""
    residuals, scale = _within(high, low)
    z = residuals / scale
    n, width = z.shape
    shrinkage = float(np.clip(ledoit_wolf_shrinkage(z, assume_centered=True), 0.05, 0.999))
    ridge = shrinkage * float((z**2).sum()) / (n * width)
    difference = (high.mean(0) - low.mean(0)) / scale
    # (ridge I + (1-s)/n Z'Z)^-1 d  by the matrix inversion lemma, in n x n
    inner = np.eye(n) * ridge * n / (1 - shrinkage) + z @ z.T
    solved = difference - z.T @ np.linalg.solve(inner, z @ difference)
    return _unit(solved / scale)


def logistic(high: Array, low: Array, strength: float = 100.0) -> Array:
    """Logistic regression on scaled dimensions; `strength` is the L2 penalty (1 / C)."""
    _, scale = _within(high, low)
    x = np.concatenate([high, low]) / scale
    x = (x - x.mean(0)).astype(float)
    # the penalty knows no rotation, so fit where the examples lie, in their own number of dimensions
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > values[-1] * 1e-10
    basis = vectors[:, kept] / np.sqrt(values[kept])
    coordinates = vectors[:, kept] * np.sqrt(values[kept])
    model = LogisticRegression(C=1 / strength, max_iter=500).fit(coordinates, np.arange(len(x)) < len(high))
    return _unit(x.T @ (basis @ model.coef_[0]) / scale)


def pca(high: Array, low: Array) -> Array:
    """First principal direction of the differences high[i] - low[i], signed like their mean."""
    if len(high) != len(low):
        raise ExtractionError("pca needs pairs: as many high as low examples, in the same order")
    differences = high - low
    _, _, directions = np.linalg.svd(differences, full_matrices=False)
    first = directions[0]
    return _unit(np.sign(first @ differences.mean(0)) * first)


METHODS: dict[str, Fit] = {
    "mean_difference": mean_difference,
    "whitened_mean_difference": whitened_mean_difference,
    "lda": lda,
    "logistic": logistic,
    "pca": pca,
}


def method(name: str) -> Fit:
    """The function of this name; raises ExtractionError with the nearest ones."""
    if name not in METHODS:
        raise ExtractionError(f"unknown method {name!r}; {nearest(name, METHODS)}")
    return METHODS[name]


def fit_layers(high: Array, low: Array, fit: Fit) -> Array:
    """One direction read over several layers: [n, k, hidden] to [k, hidden], of unit length as a whole.

    Each layer's own direction is divided by the spread of its scores within a pole, so that all layers weigh alike
    although the residual stream grows with depth.
    """
    rows = []
    for k in range(high.shape[1]):
        direction = fit(high[:, k], low[:, k])
        rows.append(direction / max(spread(high[:, k] @ direction, low[:, k] @ direction), 1e-12))
    return _unit(np.stack(rows))


def spread(high: Array, low: Array) -> float:
    """Standard deviation of scores within a pole, both poles pooled."""
    return float(np.sqrt((high.var() * len(high) + low.var() * len(low)) / (len(high) + len(low))))


def _within(high: Array, low: Array) -> tuple[Array, Array]:
    """Residuals from each pole's mean, and each dimension's spread of them (never zero)."""
    residuals = np.concatenate([high - high.mean(0), low - low.mean(0)])
    scale = residuals.std(0)
    floor = max(float(np.median(scale)) * 1e-3, 1e-9)
    return residuals, np.maximum(scale, floor)


def _unit(vector: Array) -> Array:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise ExtractionError("the poles have the same activations, so there is no direction between them; are the examples different?")
    return vector / length
