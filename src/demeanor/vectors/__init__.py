"""The artifact: PersonaVector, VectorSet, how they are stored and exported."""

from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.exports import export_control_vector, load_tutorial, save_tutorial
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import VectorSet

__all__ = ["PersonaVector", "TraitEntry", "VectorSet", "export_control_vector", "load_tutorial", "save_tutorial"]
