"""Traits: what is measured. `load("crisis_recognition")`, `load("my_trait.yaml")`, `names()`."""

from demeanor.traits.definition import ContrastPair, Example, TraitDefinition
from demeanor.traits.packs import load, load_many, names

__all__ = ["ContrastPair", "Example", "TraitDefinition", "load", "load_many", "names"]
