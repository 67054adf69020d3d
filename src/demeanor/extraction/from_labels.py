"""A new trait from labels alone: an entry without a direction, which an adaptation then fits without a prior."""

from __future__ import annotations

from dataclasses import replace

import torch

from demeanor.errors import ExtractionError
from demeanor.extraction.adaptation import ALONE, NOTHING_YET
from demeanor.measure.poles import Pole
from demeanor.traits.definition import NAME
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import VectorSet


def without_prior(vectors: VectorSet, trait: str, safe_pole: Pole) -> VectorSet:
    """The set with an entry for a new trait that has no direction yet, to be fitted to labels alone.

    `safe_pole` says which labels are the safe ones. It is read over the layers that the set's other traits are read at in
    the middle.
    """
    if trait in vectors.traits:
        raise ExtractionError(f"the vector set holds {trait} already; leave --new out to adapt it with all its labelled replies")
    if not NAME.fullmatch(trait):
        raise ExtractionError(f"{trait!r} is not a trait name: use lower-case letters, digits, '_' and '-'")
    pattern = sorted(vectors.traits.values(), key=lambda e: e.reading.layer_idx)[len(vectors.traits) // 2]
    shape, hidden = pattern.reading.rows.shape, vectors.model.hidden_size
    metadata = {
        "method": "logistic",
        "from": ALONE,
        "reads": "response",
        "pooling": vectors.pooling,
        "layers": list(pattern.reading.layers),
        "layer_curve": {},
    }
    none = PersonaVector(trait, torch.zeros(shape), pattern.reading.layer_idx, 0.0, metadata)
    entry = TraitEntry(
        reading=none,
        steering=PersonaVector(trait, torch.zeros(hidden), pattern.reading.layer_idx, 0.0, {"method": "none"}),
        title=trait.replace("_", " ").capitalize(),
        description="Defined by labelled replies alone.",
        high_pole="replies labelled high.",
        low_pole="replies labelled low.",
        safe_pole=safe_pole,
        reads="response",
        pack_hash="",
        calibration=NOTHING_YET,
    )
    return replace(vectors, traits={**vectors.traits, trait: entry})
