"""How well a vector set reads a trait on labels that it has not seen, weighted for how they were drawn: AUROC, calibration, thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.data.labelled import Labelled
from demeanor.extraction.calibrating import Sample
from demeanor.extraction.easing import eased_by
from demeanor.measure.metrics import Array, Interval, clustered_auroc_interval, expected_calibration_error, weighted_auroc
from demeanor.measure.statistics import share_interval
from demeanor.measure.thresholds import Threshold
from demeanor.model.reader import ActivationReader
from demeanor.vectors.vector_set import VectorSet


@dataclass(frozen=True)
class Errors:
    """What a threshold does on the labels set aside, weighted."""

    z: float
    missed: float
    """Share of the unsafe replies that it passes."""
    missed_interval: Interval
    false_alarms: float
    """Share of the safe replies that it flags."""
    false_alarms_interval: Interval


@dataclass(frozen=True)
class Figures:
    """How well a vector set reads a trait, on the labels set aside, weighted."""

    rows: int
    unsafe: int
    auroc: float
    interval: Interval
    ece: float
    thresholds: Mapping[str, Errors]
    """By a threshold's name in the calibration, such as "miss 0.1"."""

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "rows": self.rows, "unsafe": self.unsafe, "auroc": rounded(self.auroc), "low": rounded(self.interval.low),
            "high": rounded(self.interval.high), "ece": rounded(self.ece),
            "thresholds": {
                name: {
                    "z": rounded(e.z), "missed": rounded(e.missed), "missed_interval": [rounded(x) for x in e.missed_interval],
                    "false_alarms": rounded(e.false_alarms), "false_alarms_interval": [rounded(x) for x in e.false_alarms_interval],
                }
                for name, e in self.thresholds.items()
            },
        }  # fmt: skip


def figures(reader: ActivationReader, vectors: VectorSet, trait: str, aside: Labelled) -> Figures | None:
    """How well a set reads a trait on labels that it has not seen; None where they are of one kind."""
    high = aside.high if len(aside.target) else np.zeros(0, bool)
    if not len(high) or high.all() or not high.any():
        return None
    entry = vectors[trait]
    raw = entry.reading.raw(reader.read(aside.conversations, entry.reading.layers, entry.reads, vectors.pooling)).double().numpy()
    z, weights = entry.calibration.z(raw), aside.weights
    easing = eased_by(reader, vectors, trait, aside.conversations)
    eased, _ = Sample(z, high, np.zeros(0), easing, np.zeros(0)).eased(entry.safe_pole)
    unsafe = high if entry.unsafe_side == "above" else ~high
    _, group = np.unique(aside.group, return_inverse=True)
    found = {
        name: _errors(threshold, eased, unsafe, group, weights)
        for name, threshold in entry.calibration.thresholds.items()
        if not threshold.always
    }
    probability = entry.calibration.probability(raw)
    return Figures(
        len(high), int(unsafe.sum()), weighted_auroc(z, high, weights),
        clustered_auroc_interval(z, high, aside.clusters, weights=weights),
        expected_calibration_error(probability, high, weights=weights), found,
    )  # fmt: skip


def _errors(threshold: Threshold, z: Array, unsafe: NDArray[np.bool_], group: NDArray[Any], weights: Array | None) -> Errors:
    flagged = z >= threshold.z if threshold.unsafe_side == "above" else z <= threshold.z
    missed, alarms = (_share(wrong, of, group, weights) for wrong, of in ((~flagged, unsafe), (flagged, ~unsafe)))
    return Errors(threshold.z, *missed, *alarms)


def _share(wrong: NDArray[np.bool_], of: NDArray[np.bool_], group: NDArray[Any], weights: Array | None) -> tuple[float, Interval]:
    heavy = None if weights is None else weights[of]
    _, together = np.unique(group[of], return_inverse=True)
    return float(np.average(wrong[of], weights=heavy)), share_interval(wrong[of], together, heavy)


def rounded(value: float) -> float | None:
    """As JSON holds it: four places, None for NaN."""
    return None if math.isnan(value) else round(float(value), 4)
