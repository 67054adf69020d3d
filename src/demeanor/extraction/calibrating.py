"""How an extraction calibrates a trait: centre, spread and probability on scores that made no direction, and then the thresholds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.extraction.directions import METHODS, fit_layers, spread
from demeanor.extraction.examples import ReadExamples, ReadTrait
from demeanor.extraction.layers import out_of_fold
from demeanor.extraction.validation import score_examples
from demeanor.measure.calibration import Calibration, fit_calibration
from demeanor.measure.metrics import Array
from demeanor.measure.poles import Pole
from demeanor.measure.thresholds import ErrorKind, Threshold, fit_threshold, standard_thresholds
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.persona_vector import PersonaVector

CALIBRATION_PAIRS = 8  # under which the calibration split is left aside


def calibrate(vector: PersonaVector, read: ReadTrait) -> Calibration:
    """Fit the calibration on the calibration split together with the training examples' cross-validated scores.

    Neither has been seen by the direction that scored it. The thresholds, which carry a guarantee, rest on the
    calibration split alone; they come later, once it is known when the trait is called for.
    """
    train, held = read["train"], read["calibration"]
    supported = enough(held)
    folded = _cross_validated(vector, read)
    if folded is None and not supported:
        return _uncalibrated(score_examples(vector, train), train.high)
    parts = [(folded, train, f"{len(train)} training examples, cross-validated")] if folded is not None else []
    if supported:
        parts.append((score_examples(vector, held), held, f"{len(held)} examples of the calibration split"))
    return fit_calibration(
        np.concatenate([scores for scores, _, _ in parts]),
        np.concatenate([examples.high for _, examples, _ in parts]),
        np.concatenate([examples.pair_ids for _, examples, _ in parts]),
        " and ".join(words for _, _, words in parts),
    )


def _cross_validated(vector: PersonaVector, read: ReadTrait) -> Array | None:
    """Out-of-fold scores of the training examples on this vector's own scale; None where they are too few."""
    train, everyday, others = read["train"], read.everyday(vector.layers), read.others(vector.layers)
    if len(set(train.families.tolist())) < 3 or min(train.high.sum(), (~train.high).sum()) < 2:
        return None
    fit = METHODS[vector.metadata["method"]]
    folded = out_of_fold(train, lambda h, low: fit_layers(h, low, fit, everyday, others), list(vector.layers))
    own = score_examples(vector, train)
    high, low = own[train.high], own[~train.high]
    return np.asarray(folded * spread(high, low) + (high.mean() + low.mean()) / 2, float)


def _uncalibrated(raw: np.ndarray, high: np.ndarray) -> Calibration:
    """A centre and a nominal slope, for a trait with too few examples to calibrate; `source` says so."""
    centre = (raw[high].mean() + raw[~high].mean()) / 2
    half = abs(raw[high].mean() - raw[~high].mean()) / 2 or 1.0
    return Calibration(float(centre), float(half), "platt", ((1.0, 0.0),), int(high.sum()), int((~high).sum()),
                       f"NOT calibrated: only {len(raw)} examples, the same that made the direction")  # fmt: skip


def enough(held: ReadExamples) -> bool:
    """Whether a calibration split is large enough to set thresholds on."""
    return bool(held.high.sum() >= CALIBRATION_PAIRS and (~held.high).sum() >= CALIBRATION_PAIRS)


def fit_thresholds(entry: TraitEntry, read: ReadTrait, easing: Array | None) -> dict[str, Threshold]:
    """The thresholds that the calibration split, sound replies in hard moments and everyday talk support."""
    held, ordinary = [read["calibration"], read.hard_moments.get("calibration")], read.ordinary.get("calibration")
    z = np.concatenate([entry.calibration.z(score_examples(entry.reading, part)) for part in held if part])
    high = np.concatenate([part.high for part in held if part])
    plain = entry.calibration.z(score_examples(entry.reading, ordinary)) if ordinary else np.zeros(0)
    return Sample(z, high, plain, None if easing is None else easing[: len(z)], None if easing is None else easing[len(z) :]).thresholds(
        entry.safe_pole
    )


@dataclass(frozen=True)
class Sample:
    """What thresholds are set on: examples that made no direction, and everyday talk, with how far the user's side eases each."""

    z: Array
    high: NDArray[np.bool_]
    everyday: Array
    easing: Array | None = None
    """For a trait with a condition, of each example; None: it has none."""
    everyday_easing: Array | None = None
    groups: NDArray[Any] | None = None
    """What belongs together; by default every example stands alone."""
    weights: Array | None = None
    """For how much each example counts, where they were not drawn alike."""

    def eased(self, safe_pole: Pole) -> tuple[Array, Array]:
        """The z of examples and of everyday talk as a rule sees them."""
        if self.easing is None or self.everyday_easing is None:
            return self.z, self.everyday
        toward = 1.0 if safe_pole == "high" else -1.0
        return self.z + toward * self.easing, self.everyday + toward * self.everyday_easing

    def thresholds(self, safe_pole: Pole) -> dict[str, Threshold]:
        """Those of the rule as a whole, condition and threshold together; for a trait with a condition, beside them those without it."""
        alone = standard_thresholds(self.z, self.high, safe_pole, self.groups, self.everyday, self.weights)
        if self.easing is None:
            return alone
        z, everyday = self.eased(safe_pole)
        always = {kept.key: kept for kept in (replace(threshold, always=True) for threshold in alone.values())}
        return standard_thresholds(z, self.high, safe_pole, self.groups, everyday, self.weights) | always

    def threshold(self, safe_pole: Pole, rate: float, kind: ErrorKind) -> Threshold:
        """The rule's threshold at one error. Raises ExtractionError where the sample cannot support it."""
        z, everyday = self.eased(safe_pole)
        unsafe_is_high = safe_pole == "low"
        return fit_threshold(z, self.high == unsafe_is_high, unsafe_is_high, rate, kind, self.groups, everyday, self.weights)
