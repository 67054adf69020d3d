"""The tutorial's extractor: the layer by some pairs, the direction by all, and nothing read deeper than it must be."""

import numpy as np
import pytest
import torch

from demeanor import PersonaVectorExtractor
from demeanor.extraction import extractor as module
from demeanor.extraction.examples import read_trait
from demeanor.extraction.extractor import fit_vector
from demeanor.model.reader import ActivationReader
from demeanor.traits import ContrastPair, TraitDefinition


def trait_of(pairs):
    words = ["sleep", "work", "family", "money", "food", "music"]
    made = tuple(
        ContrastPair(f"p-{i}", (), f"I hear you on {w}, number {i}.", f"Stop it with {w}, number {i}.", w)
        for i, w in ((i, words[i % 6]) for i in range(pairs))
    )
    return TraitDefinition("warmth", "How warm.", pairs=made, splits=dict.fromkeys(words, "train"))


@pytest.fixture
def extractor(llama, tokenizer):
    return PersonaVectorExtractor(llama, tokenizer, target_layers=[0, 1, 2])


def test_the_direction_comes_from_all_pairs_at_the_layer_that_some_chose(extractor, monkeypatch):
    monkeypatch.setattr(module, "LAYER_PAIRS", 12)
    trait = trait_of(40)
    found = extractor.extract_persona_vector(trait, progress=lambda done: None)
    whole = fit_vector(read_trait(extractor.reader, trait, [found.layer_idx], splits=("train",)), "mean_difference", [found.layer_idx])
    assert torch.allclose(found.direction, whole.direction, atol=1e-5)
    assert found.strength == pytest.approx(whole.strength, rel=1e-4)
    assert (found.metadata["n_high"], found.metadata["n_low"]) == (40, 40)
    assert set(found.metadata["layer_curve"]) == {"0", "1", "2"}


def test_the_rest_is_read_up_to_the_chosen_layer_only(extractor, monkeypatch):
    monkeypatch.setattr(module, "LAYER_PAIRS", 12)
    read, calls = ActivationReader.read, []

    def noted(self, conversations, layers=None, *rest, **named):
        calls.append((len(conversations), list(layers)))
        return read(self, conversations, layers, *rest, **named)

    monkeypatch.setattr(ActivationReader, "read", noted)
    done = []
    found = extractor.extract_persona_vector(trait_of(40), progress=done.append)
    assert calls == [(24, [0, 1, 2]), (56, [found.layer_idx])]
    assert sum(done) == 80


@pytest.mark.parametrize(("pairs", "layers"), [(20, [0, 1, 2]), (40, [1])])
def test_few_pairs_or_one_layer_are_read_at_once(llama, tokenizer, monkeypatch, pairs, layers):
    monkeypatch.setattr(module, "LAYER_PAIRS", 12)
    trait, extractor = trait_of(pairs), PersonaVectorExtractor(llama, tokenizer, target_layers=layers)
    found = extractor.extract_persona_vector(trait, progress=lambda done: None)
    whole = fit_vector(read_trait(extractor.reader, trait, layers, splits=("train",)), "mean_difference", layers)
    assert found.layer_idx == whole.layer_idx
    assert torch.equal(found.direction, whole.direction)


def test_the_pairs_that_choose_come_from_all_over_the_pack_with_both_poles():
    examples = trait_of(200).examples("train")
    some = module._some_pairs(examples)
    chosen = [e for e, wanted in zip(examples, some, strict=True) if wanted]
    assert len({e.pair_id for e in chosen}) == module.LAYER_PAIRS
    assert sum(e.high for e in chosen) == module.LAYER_PAIRS
    assert {e.family for e in chosen} == {e.family for e in examples}
    assert np.flatnonzero(some).max() > 380


def test_without_progress_of_ones_own_a_bar_is_drawn(extractor, capsys):
    extractor.extract_persona_vector(trait_of(8))
    assert "warmth" in capsys.readouterr().err
    extractor.extract_persona_vector(trait_of(8), progress=lambda done: None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("dtype", "native", "read_in"),
    [
        (torch.bfloat16, False, torch.float32),
        (torch.bfloat16, True, torch.bfloat16),
        (torch.float16, True, torch.float32),
        (torch.float32, False, torch.float32),
    ],
)
def test_half_precision_is_widened_where_the_processor_imitates_it(make_model, tokenizer, monkeypatch, dtype, native, read_in):
    from demeanor.model import loading

    monkeypatch.setattr(loading, "native_bfloat16", lambda: native)
    model = make_model("llama").to(dtype)
    assert PersonaVectorExtractor(model, tokenizer).model is model
    assert {p.dtype for p in model.parameters()} == {read_in}
    monkeypatch.setattr(loading, "SMALL", 10)
    large = make_model("llama").to(torch.bfloat16)
    assert PersonaVectorExtractor(large, tokenizer).model.dtype == torch.bfloat16
