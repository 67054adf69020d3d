"""From raw scores to centred scores, z and probabilities, fitted on examples that did not make the direction.

    centred     = raw - centre           centre: the midpoint of the two poles' mean raw scores
    z           = centred / spread       spread: the raw scores' standard deviation within a pole, both poles pooled
    probability = P(high pole | raw)     by Platt scaling or isotonic regression, for poles equally frequent as in the sample

Platt, J. (1999), "Probabilistic outputs for support vector machines"; Zadrozny & Elkan (2002) for the isotonic way.
Knows no model and no tensor; scikit-learn is imported where something is fitted, for it takes long to import.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from demeanor.errors import ExtractionError
from demeanor.scoring.parts import Parts

Array = NDArray[np.float64]
Method = Literal["platt", "isotonic"]


@dataclass(frozen=True)
class Calibration:
    """How one trait's raw scores are read. `source` says in words which examples it was fitted on."""

    centre: float
    spread: float
    method: Method
    points: tuple[tuple[float, float], ...]
    """Platt: one point (slope, intercept) on z. Isotonic: the corners (z, probability), joined by straight lines."""
    n_high: int
    n_low: int
    source: str
    thresholds: dict[str, Any] = field(default_factory=dict)
    parts: Parts | None = None
    """How parts of safe replies score, for the worst part of a long one; None where that was not measured for this direction."""

    @property
    def flat(self) -> bool:
        """Whether every score gets the same probability, as the examples' scores did not rise with their labels."""
        return self.method == "platt" and self.points[0][0] == 0

    def z(self, raw: Array | float) -> Array:
        """Centred scores in units of the spread."""
        return (np.asarray(raw, float) - self.centre) / self.spread

    def probability(self, raw: Array | float) -> Array:
        """Calibrated chance of the high pole, strictly between 0 and 1."""
        return _apply(self.method, self.points, self.z(raw))

    def __repr__(self) -> str:
        kept = f", thresholds: {', '.join(self.thresholds)}" if self.thresholds else ""
        on = f"on {self.n_high} high and {self.n_low} low ({self.source})"
        return f"Calibration(centre {self.centre:.3g}, spread {self.spread:.3g}, {self.method} {on}{kept})"

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        record: dict[str, Any] = {
            "centre": self.centre,
            "spread": self.spread,
            "method": self.method,
            "points": [list(p) for p in self.points],
            "n_high": self.n_high,
            "n_low": self.n_low,
            "source": self.source,
            "thresholds": self.thresholds,
        }
        return record if self.parts is None else record | {"parts": self.parts.to_record()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Calibration:
        """From what `to_record` gave."""
        points = tuple((float(a), float(b)) for a, b in record["points"])
        parts = Parts(**record["parts"]) if record.get("parts") else None
        return cls(**{**record, "points": points, "parts": parts})


def fit_calibration(raw: Array, high: NDArray[np.bool_], groups: NDArray[Any], source: str) -> Calibration:
    """Fit centre, spread and probability.

    Args:
        raw: Raw scores [n].
        high: Whether each is of the high pole [n].
        groups: What belongs together (pairs, prompts) [n]; cross-validation never splits a group.
        source: Which examples these are, in words.

    Raises:
        ExtractionError: fewer than two examples of a pole, or all scores equal.
    """
    raw, high = np.asarray(raw, float), np.asarray(high, bool)
    if high.sum() < 2 or (~high).sum() < 2:
        raise ExtractionError("calibration needs at least two examples of each pole; add some")
    centre = (raw[high].mean() + raw[~high].mean()) / 2
    spread = float(np.sqrt((raw[high].var() * high.sum() + raw[~high].var() * (~high).sum()) / len(raw)))
    if not spread > 0:
        raise ExtractionError("the calibration examples all have the same score; are they different texts?")
    z = (raw - centre) / spread
    method = _better_method(z, high, groups)
    return Calibration(float(centre), spread, method, _fit(method, z, high), int(high.sum()), int((~high).sum()), source)


def _better_method(z: Array, high: NDArray[np.bool_], groups: NDArray[Any]) -> Method:
    """The method with the lower cross-validated log loss; Platt where there is too little to tell."""
    folds = min(5, len(set(groups.tolist())))
    if len(z) < 40 or folds < 3:
        return "platt"
    from sklearn.model_selection import GroupKFold

    losses: dict[Method, float] = {}
    methods: tuple[Method, ...] = ("platt", "isotonic")
    for method in methods:
        loss = 0.0
        for train, test in GroupKFold(folds).split(z, groups=groups):
            if len(set(high[train].tolist())) < 2:
                return "platt"
            p = _apply(method, _fit(method, z[train], high[train]), z[test])
            loss -= np.log(np.where(high[test], p, 1 - p)).sum()
        losses[method] = loss
    return "isotonic" if losses["isotonic"] < losses["platt"] else "platt"


def _fit(method: Method, z: Array, high: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    if method == "platt":
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=10.0).fit(z[:, None], high)
        if model.coef_[0, 0] <= 0:  # the scores lean the wrong way here: they support no probability but the base rate
            return ((0.0, float(np.log(high.sum() / (~high).sum()))),)
        return ((float(model.coef_[0, 0]), float(model.intercept_[0])),)
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(out_of_bounds="clip").fit(z, high.astype(float))
    n = len(z)
    # a step of pure examples is no certainty: keep half an example of doubt
    levels = np.clip(model.y_thresholds_, 0.5 / n, 1 - 0.5 / n)
    return tuple((float(x), float(y)) for x, y in zip(model.X_thresholds_, levels, strict=True))


def _apply(method: Method, points: tuple[tuple[float, float], ...], z: Array) -> Array:
    if method == "platt":
        slope, intercept = points[0]
        return np.clip(1 / (1 + np.exp(-np.clip(slope * z + intercept, -30, 30))), 1e-6, 1 - 1e-6)
    x, y = np.array(points).T
    return np.asarray(np.interp(z, x, y), float)
