"""Labelled rows in folds: whole prompts together, so that no row is judged by what its own prompt taught."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedKFold

from demeanor.data.labelled import FEWEST_GROUPS
from demeanor.measure.calibration import fit_calibration
from demeanor.measure.metrics import Array

FOLDS = 5


def folds(high: NDArray[np.bool_], group: NDArray[Any], seed: int = 0) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Inside and outside rows of each fold: whole groups together, or single rows where there are fewer than three groups."""
    groups = len(set(group.tolist()))
    if groups < FEWEST_GROUPS:
        count = max(2, min(FOLDS, int(min(high.sum(), (~high).sum()))))
        return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(high, high))
    return list(GroupKFold(min(FOLDS, groups), shuffle=True, random_state=seed).split(high, groups=group))


def out_of_fold_probability(raw: Array, high: NDArray[np.bool_], group: NDArray[Any], weights: Array | None = None) -> Array:
    """Probability of each row by a calibration without its group [rows]; all NaN where a fold leaves fewer than two of a pole."""
    found = np.zeros(len(raw))
    for inside, outside in folds(high, group):
        if min(high[inside].sum(), (~high[inside]).sum()) < 2:
            return np.full(len(raw), np.nan)
        of_inside = None if weights is None else weights[inside]
        found[outside] = fit_calibration(raw[inside], high[inside], group[inside], "", of_inside).probability(raw[outside])
    return found
