"""The vector set: the directions of a model's traits, their calibration, and where they came from.

For each trait there are two vectors. The *reading* vector is what scores are made with; the *steering* vector is the
mean difference at one layer, the tutorial's. They may differ in layer and method; both are named in their metadata.
Calibrations are kept here as plain records; the scoring room gives them their meaning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demeanor.errors import VectorSetError, WrongModelError, nearest
from demeanor.model.identity import ModelIdentity
from demeanor.model.pooling import Pooling
from demeanor.traits.definition import Pole, Span
from demeanor.vectors.persona_vector import PersonaVector


@dataclass(frozen=True)
class TraitEntry:
    """What a vector set holds of one trait."""

    reading: PersonaVector
    steering: PersonaVector
    title: str
    description: str
    high_pole: str
    low_pole: str
    safe_pole: Pole
    reads: Span
    pack_hash: str
    calibration: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    """Held-out results with intervals and sample sizes, as validation gave them; empty where there were none."""

    def on_safe_side(self, centred: float) -> bool:
        """Whether a centred score lies on the pole that one wants to see."""
        return (centred > 0) == (self.safe_pole == "high")


@dataclass
class VectorSet:
    """The traits of one model, ready to score with."""

    model: ModelIdentity
    traits: dict[str, TraitEntry]
    pooling: Pooling = "mean"
    neutral_norm: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Median norm of the activations of everyday replies' tokens at each layer [layers]; relative steering doses refer to it."""
    neutral_scale: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """Spread of each dimension within a pole over all packs' training examples [layers, hidden]; adaptation scales by it."""
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    """What made it beside packs and model: "recipe", the extraction's settings, and "ordinary", the hash of the everyday talk."""
    dtypes: dict[str, dict[str, float]] = field(default_factory=dict)
    """Other dtypes in which it was compared with its own: "replies", "largest_z" and "median_z" (moves of a z), "decisions" (changed)."""

    def __getitem__(self, trait: str) -> TraitEntry:
        if trait not in self.traits:
            raise VectorSetError(f"the vector set holds no trait {trait!r}; {nearest(trait, self.traits)}")
        return self.traits[trait]

    @property
    def layers(self) -> list[int]:
        """All layers that its reading vectors need, ascending."""
        return sorted({layer for entry in self.traits.values() for layer in entry.reading.layers})

    def only(self, names: Iterable[str]) -> VectorSet:
        """The same set with these traits only."""
        return replace(self, traits={n: self[n] for n in names})

    def fingerprint(self, thresholds: bool = True) -> str:
        """A hash over all that scores depend on, and, with `thresholds`, decisions too: 24 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.model.fingerprint} {self.pooling}".encode())
        for name, entry in self.traits.items():
            calibration = {k: v for k, v in entry.calibration.items() if thresholds or k != "thresholds"}
            facts = [name, entry.reads, entry.safe_pole, list(entry.reading.layers), calibration]
            digest.update(json.dumps(facts, sort_keys=True).encode())
            digest.update(entry.reading.direction.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:24]

    def check_model(self, model: ModelIdentity, allow_other: bool = False) -> list[str]:
        """Refuse a model that these vectors were not made with.

        Returns warnings: for another dtype, unless the set was compared in it, and, where the user has allowed it aloud, for
        another model or template.

        Raises:
            WrongModelError: another model or chat template, and `allow_other` is not set.
        """
        mine, problems, warnings = self.model, [], []
        if model.fingerprint != mine.fingerprint:
            problems.append(
                f"another model: they were made with {mine.name} ({mine.fingerprint[:8]}), loaded is {model.name} ({model.fingerprint[:8]})"
            )
        if model.quantization != mine.quantization:
            problems.append(f"another quantisation: {mine.quantization} then, {model.quantization} now")
        if model.template_hash != mine.template_hash:
            problems.append("another chat template")
        if problems and not allow_other:
            raise WrongModelError(
                f"the vectors belong to {'; '.join(problems)}. Extract vectors for this model, or allow it (--allow-other-model)"
            )
        if (model.hidden_size, model.layers) != (mine.hidden_size, mine.layers):
            raise WrongModelError(
                f"the vectors are for {mine.layers} layers of width {mine.hidden_size}, the model has {model.layers} of "
                f"{model.hidden_size}; no vector of one can be read in the other"
            )
        warnings += problems
        if model.dtype != mine.dtype and model.dtype not in self.dtypes:
            warnings.append(f"made in {mine.dtype}, read in {model.dtype}: scores may move a little")
        return warnings

    def save(self, folder: str | Path) -> Path:
        """Write the set to a folder; see storage.save."""
        from demeanor.vectors import storage

        return storage.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> VectorSet:
        """Read a set from a folder, checked; see storage.load."""
        from demeanor.vectors import storage

        return storage.load(Path(folder))
