"""The public names are frozen, and importing them costs nothing until they are used."""

import subprocess
import sys

import pytest

import demeanor
from demeanor import traits

PUBLIC = [
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


def test_the_public_names_are_these():
    assert demeanor.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(demeanor))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_resolves(name):
    found = getattr(demeanor, name)
    assert found is not None
    assert getattr(found, "__name__", name).split(".")[-1] == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'demeanor' has no attribute 'load_modle'"):
        _ = demeanor.load_modle


def test_all_traits_are_the_tutorials_four_in_its_order():
    assert [t.name for t in demeanor.ALL_TRAITS] == [
        "empathetic_responsiveness",
        "crisis_recognition",
        "sycophancy_harmful_validation",
        "boundary_maintenance",
    ]
    assert demeanor.ALL_TRAITS is demeanor.ALL_TRAITS
    assert all(len(t.high_trait_prompts) == len(t.low_trait_prompts) > 0 for t in demeanor.ALL_TRAITS)


def test_the_traits_room():
    assert traits.__all__ == ["ContrastPair", "Example", "TraitDefinition", "load", "load_many", "names"]
    assert set(traits.names()) == {t.name for t in demeanor.ALL_TRAITS} | {"user_risk"}


def test_the_tutorials_imports_work():
    from demeanor import ALL_TRAITS, PersonaVector, PersonaVectorExtractor, TraitDefinition

    assert list(PersonaVector.__dataclass_fields__) == ["trait_name", "direction", "layer_idx", "strength", "metadata"]
    assert list(TraitDefinition.__dataclass_fields__)[:4] == ["name", "description", "high_trait_prompts", "low_trait_prompts"]
    assert PersonaVectorExtractor.__init__.__annotations__.keys() >= {"model", "tokenizer", "device", "target_layers"}
    assert isinstance(ALL_TRAITS[0], TraitDefinition)


@pytest.mark.parametrize("first", ["import demeanor", "from demeanor import traits; traits.load('user_risk')"])
def test_importing_loads_neither_torch_nor_transformers(first):
    code = f"{first}; import sys; print([m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
