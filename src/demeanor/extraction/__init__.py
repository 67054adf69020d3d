"""Extraction: trait + model -> persona vector. Directions, choice of the layer, calibration, validation."""

from demeanor.extraction.extractor import PersonaVectorExtractor
from demeanor.extraction.pipeline import Extraction, extract_vectors

__all__ = ["Extraction", "PersonaVectorExtractor", "extract_vectors"]
