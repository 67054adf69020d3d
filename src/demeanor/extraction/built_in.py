"""Extracting the built-in traits: what the set that comes with the package holds for the embedded model, for any other."""

from __future__ import annotations

from demeanor.extraction.activations import kept_activations
from demeanor.extraction.pipeline import Extraction, extract_vectors
from demeanor.model.reader import ActivationReader
from demeanor.progress import Stage, unseen
from demeanor.traits.packs import load_many


def extract_built_in(reader: ActivationReader, stage: Stage = unseen) -> Extraction:
    """All the built-in traits on a reader's model; what was read before of their packs is taken from the cache folder."""
    return extract_vectors(reader, load_many(["all"]), stage=stage, kept=kept_activations())
