"""The artifact: PersonaVector, VectorSet, how they are stored and exported."""

from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import TraitEntry, VectorSet

__all__ = ["PersonaVector", "TraitEntry", "VectorSet"]
