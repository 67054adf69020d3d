"""Demeanor reads how a chatbot is behaving from the activations of a language model.

The public names are below; each is imported when it is first used, so that `import demeanor` loads neither torch nor
transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demeanor import traits
    from demeanor.comparison import Comparison, compare
    from demeanor.conversation import Conversation, Message
    from demeanor.errors import DemeanorError
    from demeanor.extraction import Extraction, PersonaVectorExtractor, extract_vectors
    from demeanor.model.contexts import Steering
    from demeanor.model.generation import Sampling
    from demeanor.model.loading import load_model
    from demeanor.model.operators import Intervention
    from demeanor.model.pretrained import LoadedModel
    from demeanor.model.reader import ActivationReader
    from demeanor.monitor.safe import is_response_safe
    from demeanor.monitor.session import Monitor
    from demeanor.scoring import Calibration, ConversationScorer, NotScored, Reading, Score, Scorer, TokenScores
    from demeanor.steering import steering_hooks
    from demeanor.traits import ContrastPair, TraitDefinition
    from demeanor.vectors import PersonaVector, VectorSet

    ALL_TRAITS: list[TraitDefinition]

__version__ = "0.1.0"

_HOME = {
    "ActivationReader": "demeanor.model.reader",
    "Calibration": "demeanor.scoring",
    "Comparison": "demeanor.comparison",
    "ContrastPair": "demeanor.traits",
    "Conversation": "demeanor.conversation",
    "ConversationScorer": "demeanor.scoring",
    "DemeanorError": "demeanor.errors",
    "Extraction": "demeanor.extraction",
    "Intervention": "demeanor.model.operators",
    "LoadedModel": "demeanor.model.pretrained",
    "Message": "demeanor.conversation",
    "Monitor": "demeanor.monitor.session",
    "NotScored": "demeanor.scoring",
    "PersonaVector": "demeanor.vectors",
    "PersonaVectorExtractor": "demeanor.extraction",
    "Reading": "demeanor.scoring",
    "Sampling": "demeanor.model.generation",
    "Score": "demeanor.scoring",
    "Scorer": "demeanor.scoring",
    "Steering": "demeanor.model.contexts",
    "TokenScores": "demeanor.scoring",
    "TraitDefinition": "demeanor.traits",
    "VectorSet": "demeanor.vectors",
    "compare": "demeanor.comparison",
    "extract_vectors": "demeanor.extraction",
    "is_response_safe": "demeanor.monitor.safe",
    "load_model": "demeanor.model.loading",
    "steering_hooks": "demeanor.steering",
}

__all__ = [
    "ALL_TRAITS",
    "ActivationReader",
    "Calibration",
    "Comparison",
    "ContrastPair",
    "Conversation",
    "ConversationScorer",
    "DemeanorError",
    "Extraction",
    "Intervention",
    "LoadedModel",
    "Message",
    "Monitor",
    "NotScored",
    "PersonaVector",
    "PersonaVectorExtractor",
    "Reading",
    "Sampling",
    "Score",
    "Scorer",
    "Steering",
    "TokenScores",
    "TraitDefinition",
    "VectorSet",
    "compare",
    "extract_vectors",
    "is_response_safe",
    "load_model",
    "steering_hooks",
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
