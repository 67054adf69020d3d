"""Which layer to read: chosen by cross-validated discrimination over families of the training pairs.

Never by the norm of the mean difference, which grows with depth whether or not the trait can be told there, and never
by the held-out pairs, which are used once, for the report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from demeanor.errors import ExtractionError
from demeanor.extraction.directions import Array, Fit, fit_layers, spread
from demeanor.extraction.examples import ReadExamples
from demeanor.measure.metrics import auroc

FOLDS = 5
AS_GOOD = 0.02  # AUROC by which layers may differ and still count as equally good: one standard error with 150 pairs, about


class LayerChoice(NamedTuple):
    """The layers to read, and the cross-validated AUROC of each candidate, by which they were chosen."""

    layers: tuple[int, ...]
    curve: dict[int, float]
    how: str


def default_candidates(n_layers: int) -> list[int]:
    """The middle half of the layers: traits read worse near the ends, and the blocks above need not be run."""
    return list(range(n_layers // 4, n_layers - n_layers // 4))


def choose_layers(train: ReadExamples, fit: Fit, candidates: list[int], width: int = 1) -> LayerChoice:
    """The layer (or `width` adjacent ones) by cross-validated AUROC: of those as good as the best, the one nearest to half the depth.

    The curve is smoothed over neighbours first: a single layer that sticks out is chance. It is flat over many layers, and what
    is read in the middle of a model depends less on the words at hand than what is read near its end.
    With too few families to cross-validate, half the depth is taken, and `how` says so. Candidates with gaps between them are
    read over fewer layers than `width`: only those next to the chosen one are adjacent.
    """
    groups, candidates = len(set(train.families.tolist())), sorted(candidates)
    middle = candidates[(len(candidates) - 1) // 2]
    if groups < 3:
        return LayerChoice(_around(middle, candidates, width), {}, f"half the depth: {groups} families are too few to cross-validate")
    alone = len(set(zip(train.families.tolist(), train.high.tolist(), strict=True))) == len(train)
    if alone and any(len({*train.high[inside].tolist()}) < 2 for inside, _ in _folds(train)):
        return LayerChoice(_around(middle, candidates, width), {}, "half the depth: too few examples of one pole to cross-validate")
    curve = {}
    for layer in candidates:
        scores = out_of_fold(train, lambda h, low: fit_layers(h, low, fit), [layer])
        curve[layer] = auroc(scores[train.high], scores[~train.high])
    smooth = {layer: float(np.mean([curve[c] for c in candidates if abs(c - layer) <= 1])) for layer in candidates}
    best = max(candidates, key=lambda layer: smooth[layer])
    as_good = [c for c in candidates if smooth[c] >= smooth[best] - AS_GOOD and curve[c] >= curve[best] - AS_GOOD]
    chosen = min(as_good, key=lambda layer: (abs(layer - middle), layer))
    how = (
        f"nearest to half the depth of those as good as the best of {len(candidates)}, "
        f"by {min(FOLDS, groups)}-fold AUROC over {groups} families"
    )
    return LayerChoice(_around(chosen, candidates, width), curve, how)


def out_of_fold(train: ReadExamples, fit: Callable[[Array, Array], Array], layers: list[int]) -> Array:
    """Each example's score by directions fitted without its family, in units of the fold's own spread [examples].

    `fit` takes both poles [n, k, hidden] and gives a direction [k, hidden].
    """
    x, high = train.at(layers), train.high
    scores = np.zeros(len(train))
    for inside, outside in _folds(train):
        h, low = x[inside][high[inside]], x[inside][~high[inside]]
        if not len(h) or not len(low):
            raise ExtractionError("a fold is left without one of the poles; spread both poles over the families")
        direction = fit(h, low)
        sh, sl = np.tensordot(h, direction, 2), np.tensordot(low, direction, 2)
        scores[outside] = (np.tensordot(x[outside], direction, 2) - (sh.mean() + sl.mean()) / 2) / max(spread(sh, sl), 1e-12)
    return scores


def _folds(train: ReadExamples) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Inside and outside examples of each fold; a family is in one of them."""
    families = train.families
    return list(GroupKFold(min(FOLDS, len(set(families.tolist())))).split(families, groups=families))


def _around(layer: int, candidates: list[int], width: int) -> tuple[int, ...]:
    """The candidates next to `layer`, at most `width` with itself; a gap between candidates ends them."""
    beside = [c for c in candidates if set(range(min(c, layer), max(c, layer))) <= set(candidates)]
    near = sorted(beside, key=lambda c: (abs(c - layer), c))[:width]
    return tuple(sorted(near))
