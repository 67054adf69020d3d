"""From raw scores to centred scores, z and probabilities, fitted on examples that did not make the direction.

    centred     = raw - centre           centre: the midpoint of the two poles' mean raw scores
    z           = centred / spread       spread: the raw scores' standard deviation within a pole, both poles pooled
    probability = P(high pole | raw)     by Platt scaling or isotonic regression, for poles equally frequent as in the sample

Platt, J. (1999), "Probabilistic outputs for support vector machines"; Zadrozny & Elkan (2002) for the isotonic way.
Knows no model and no tensor; scikit-learn is imported where something is fitted, for it takes long to import.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from demeanor.errors import ExtractionError
from demeanor.measure.checked import EXACT, Count, Number, Positive
from demeanor.measure.metrics import Array
from demeanor.measure.parts import Parts
from demeanor.measure.poles import Side
from demeanor.measure.thresholds import Threshold

Method = Literal["platt", "isotonic"]


class Score(NamedTuple):
    """One trait's score of one response. Higher is more of the trait, on every scale."""

    raw: float
    """The activation along the direction, in units of the model's activations."""
    centred: float
    """Raw minus the midpoint of the two poles; above 0 is nearer to the high pole."""
    z: float
    """Centred, in units of the spread within a pole."""
    probability: float
    """Calibrated chance of the high pole, strictly between 0 and 1."""

    def __repr__(self) -> str:
        return f"Score(z {self.z:+.2f}, probability {chance_in_words(self.probability)}, centred {self.centred:+.2f}, raw {self.raw:+.2f})"


def chance_in_words(probability: float) -> str:
    """Two places, without calling anything certain."""
    if probability < 0.005:
        return "<0.01"
    return ">0.99" if probability > 0.995 else f"{probability:.2f}"


_Point = tuple[Number, Number]


@dataclass(frozen=True, config=EXACT)
class Calibration:
    """How one trait's raw scores are read."""

    centre: Number
    """Raw score of the midpoint between the two poles' means."""
    spread: Positive
    """Standard deviation of raw scores within a pole; a z is in units of it."""
    method: Method
    points: Annotated[tuple[_Point, ...], Field(min_length=1)]
    """Platt: one point (slope, intercept) on z. Isotonic: the corners (z, probability), joined by straight lines."""
    n_high: Count
    """How many examples of the high pole it was fitted on."""
    n_low: Count
    source: str
    """Which examples these are, in words."""
    thresholds: dict[str, Threshold] = field(default_factory=dict)
    """Cuts at stated errors, by their `key`."""
    parts: Parts | None = None
    """How parts of safe replies score, for the worst part of a long one; None where that was not measured for this direction."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.method == "platt":
            if len(self.points) != 1:
                raise ValueError(f"'platt' has one point, slope and intercept, not {len(self.points)}")
            if self.points[0][0] < 0:
                raise ValueError(f"the probability falls with the score (slope {self.points[0][0]:g})")
            return self
        if not all(0 <= probability <= 1 for _, probability in self.points):
            raise ValueError("a probability of its points lies outside 0 to 1")
        pairs = zip(self.points, self.points[1:], strict=False)
        if any(before[0] > after[0] or before[1] > after[1] for before, after in pairs):
            raise ValueError("its points do not rise")
        return self

    @model_validator(mode="after")
    def _named_for_what_they_keep(self) -> Self:
        for name, threshold in self.thresholds.items():
            if name != threshold.key:
                raise ValueError(f"the threshold {name!r} is one for {threshold.key}")
        return self

    @property
    def measured(self) -> bool:
        """Whether it was fitted on any reply at all; that of an imported vector was not."""
        return self.n_high + self.n_low > 0

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

    def score(self, raw: float) -> Score:
        """A raw score on every scale."""
        return Score(raw, raw - self.centre, float(self.z(raw)), float(self.probability(raw)))

    def eased(self, score: Score, by: float, unsafe: Side) -> Score:
        """A score moved toward the safe side by so many z."""
        return score if by == 0 else self.score(score.raw + (-by if unsafe == "above" else by) * self.spread)

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
            "thresholds": {key: threshold.to_record() for key, threshold in self.thresholds.items()},
        }
        return record if self.parts is None else record | {"parts": self.parts.to_record()}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Calibration:
        """From what `to_record` gave. Raises pydantic's ValidationError where a field is not what it has to be."""
        return _ADAPTER.validate_python(record)


_ADAPTER = TypeAdapter(Calibration)


def fit_calibration(raw: Array, high: NDArray[np.bool_], groups: NDArray[Any], source: str, weights: Array | None = None) -> Calibration:
    """Fit centre, spread and probability.

    Args:
        raw: Raw scores [n].
        high: Whether each is of the high pole [n].
        groups: What belongs together (pairs, prompts) [n]; cross-validation never splits a group.
        source: Which examples these are, in words.
        weights: For how much each counts, with a mean of 1 [n]; by default all alike.

    Raises:
        ExtractionError: fewer than two examples of a pole, or all scores equal.
    """
    raw, high = np.asarray(raw, float), np.asarray(high, bool)
    if high.sum() < 2 or (~high).sum() < 2:
        raise ExtractionError("calibration needs at least two examples of each pole; add some")
    (up, wide, heavy), (down, narrow, light) = (_moments(raw, pole, weights) for pole in (high, ~high))
    centre = (up + down) / 2
    spread = float(np.sqrt((wide * heavy + narrow * light) / (heavy + light)))
    if not spread > 0:
        raise ExtractionError("the calibration examples all have the same score; are they different texts?")
    z = (raw - centre) / spread
    method = _better_method(z, high, groups, weights)
    source += "" if weights is None else ", weighted for how they were drawn"
    return Calibration(float(centre), spread, method, _fit(method, z, high, weights), int(high.sum()), int((~high).sum()), source)


def _moments(raw: Array, of: NDArray[np.bool_], weights: Array | None) -> tuple[float, float, float]:
    """Mean, variance and weight of some scores."""
    if weights is None:
        return raw[of].mean(), raw[of].var(), of.sum()
    mean = np.average(raw[of], weights=weights[of])
    return mean, np.average((raw[of] - mean) ** 2, weights=weights[of]), weights[of].sum()


def _better_method(z: Array, high: NDArray[np.bool_], groups: NDArray[Any], weights: Array | None) -> Method:
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
            of_train, of_test = (None, 1.0) if weights is None else (weights[train], weights[test])
            p = _apply(method, _fit(method, z[train], high[train], of_train), z[test])
            loss -= (of_test * np.log(np.where(high[test], p, 1 - p))).sum()
        losses[method] = loss
    return "isotonic" if losses["isotonic"] < losses["platt"] else "platt"


def _fit(method: Method, z: Array, high: NDArray[np.bool_], weights: Array | None) -> tuple[tuple[float, float], ...]:
    if method == "platt":
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=10.0).fit(z[:, None], high, sample_weight=weights)
        if model.coef_[0, 0] <= 0:  # the scores lean the wrong way here: they support no probability but the base rate
            up, down = (high.sum(), (~high).sum()) if weights is None else (weights[high].sum(), weights[~high].sum())
            return ((0.0, float(np.log(up / down))),)
        return ((float(model.coef_[0, 0]), float(model.intercept_[0])),)
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(out_of_bounds="clip").fit(z, high.astype(float), sample_weight=weights)
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
