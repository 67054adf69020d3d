"""A trait's vector on labelled replies that it has not learnt from: how well its scores tell them apart, beside their length alone.

Both are AUROCs, with intervals over prompts. The length of a message is its number of words; it counts whichever way it leans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from demeanor.data.labelled import Labelled
from demeanor.errors import ExtractionError
from demeanor.extraction.recalibration import fresh
from demeanor.measure.metrics import Interval, auroc, clustered_auroc_interval
from demeanor.model.reader import ActivationReader
from demeanor.progress import Progress
from demeanor.turns import Role
from demeanor.vectors.vector_set import VectorSet

CHANCE = 0.5


@dataclass(frozen=True)
class OnLabels:
    """What was measured."""

    rows: int
    prompts: int
    left_out: int
    """Labelled replies that the vector has learnt from."""
    auroc: float
    interval: Interval
    length: float
    length_interval: Interval

    @property
    def holds(self) -> bool:
        """Whether it tells the replies apart, and better than their length does."""
        return self.interval.low > CHANCE and self.auroc > self.length

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "rows": self.rows,
            "prompts": self.prompts,
            "left_out": self.left_out,
            "auroc": _rounded(self.auroc, self.interval),
            "length": _rounded(self.length, self.length_interval),
            "holds": self.holds,
        }


def on_labels(reader: ActivationReader, vectors: VectorSet, trait: str, labelled: Labelled, progress: Progress | None = None) -> OnLabels:
    """Read labelled replies and measure. Raises ExtractionError for labels of one kind, and where none is fresh."""
    entry, given = vectors[trait], len(labelled.target)
    labelled = fresh(entry, labelled)
    high = labelled.high
    if high.all() or not high.any():
        raise ExtractionError("all labels are the same; both kinds of reply are needed")
    raw = entry.reading.raw(reader.read(labelled.conversations, entry.reading.layers, entry.reads, vectors.pooling, progress))
    scores = raw.double().numpy()
    role: Role = "user" if entry.reads == "user" else "assistant"
    words = np.array([len(c.messages[c.last(role)].content.split()) for c in labelled.conversations], np.float64)
    if auroc(words[high], words[~high]) < CHANCE:
        words = -words
    return OnLabels(
        len(high),
        labelled.prompts,
        given - len(high),
        auroc(scores[high], scores[~high]),
        clustered_auroc_interval(scores, high, labelled.clusters),
        auroc(words[high], words[~high]),
        clustered_auroc_interval(words, high, labelled.clusters),
    )


def _rounded(value: float, interval: Interval) -> dict[str, float]:
    return {"value": round(value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}
