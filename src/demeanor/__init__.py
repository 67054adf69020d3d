"""Demeanor reads how a chatbot is behaving from the activations of a language model.

The public names are below; each is imported when it is first used, so that `import demeanor` loads neither torch nor
transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demeanor import traits
    from demeanor.conversation import Conversation, Message
    from demeanor.errors import DemeanorError
    from demeanor.extraction import Extraction, PersonaVectorExtractor, extract_vectors
    from demeanor.model.loading import LoadedModel, load_model
    from demeanor.model.reader import ActivationReader
    from demeanor.scoring import Calibration, NotScored, Reading, Score, Scorer, TokenScores
    from demeanor.traits import ContrastPair, TraitDefinition
    from demeanor.vectors import PersonaVector, VectorSet

    ALL_TRAITS: list[TraitDefinition]

__version__ = "0.1.0"

_HOME = {
    "ActivationReader": "demeanor.model.reader",
    "Calibration": "demeanor.scoring",
    "ContrastPair": "demeanor.traits",
    "Conversation": "demeanor.conversation",
    "DemeanorError": "demeanor.errors",
    "Extraction": "demeanor.extraction",
    "LoadedModel": "demeanor.model.loading",
    "Message": "demeanor.conversation",
    "NotScored": "demeanor.scoring",
    "PersonaVector": "demeanor.vectors",
    "PersonaVectorExtractor": "demeanor.extraction",
    "Reading": "demeanor.scoring",
    "Score": "demeanor.scoring",
    "Scorer": "demeanor.scoring",
    "TokenScores": "demeanor.scoring",
    "TraitDefinition": "demeanor.traits",
    "VectorSet": "demeanor.vectors",
    "extract_vectors": "demeanor.extraction",
    "load_model": "demeanor.model.loading",
}

__all__ = [
    "ALL_TRAITS",
    "ActivationReader",
    "Calibration",
    "ContrastPair",
    "Conversation",
    "DemeanorError",
    "Extraction",
    "LoadedModel",
    "Message",
    "NotScored",
    "PersonaVector",
    "PersonaVectorExtractor",
    "Reading",
    "Score",
    "Scorer",
    "TokenScores",
    "TraitDefinition",
    "VectorSet",
    "extract_vectors",
    "load_model",
    "traits",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name == "traits":
        return import_module("demeanor.traits")
    if name == "ALL_TRAITS":  # the tutorial's list: its four traits, built in
        packs = import_module("demeanor.traits.packs")
        value = globals()["ALL_TRAITS"] = packs.load_many(packs.TUTORIAL_TRAITS)
        return value
    raise AttributeError(f"module 'demeanor' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
