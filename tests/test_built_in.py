"""The vector set that comes with the package: bound to what made it, found again by extraction, used where no set is named."""

from dataclasses import replace

import pytest
import torch

from demeanor import Scorer, VectorSet, load_model, traits
from demeanor.cli import console
from demeanor.extraction import kept
from demeanor.extraction.directions import METHODS, fit_layers
from demeanor.extraction.examples import read_traits
from demeanor.extraction.pipeline import READING_METHOD, made_from
from demeanor.model.identity import identify
from demeanor.model.loading import native_bfloat16
from demeanor.model.reader import ActivationReader
from demeanor.progress import unseen
from demeanor.traits.contexts import ENDINGS, condition_traits
from demeanor.traits.packs import fingerprint
from demeanor.vectors import built_in

REMAKE = "a pack, the everyday talk or the recipe changed: run `make vectors` and commit what it writes"


@pytest.fixture(scope="module")
def shipped():
    return VectorSet.load(built_in.FOLDER)


def test_it_holds_every_built_in_trait_as_its_pack_is_now(shipped):
    packs = traits.load_many(["all"])
    contexts = [of for pack in packs for of in condition_traits(pack)]
    assert list(shipped.traits) == [pack.name for pack in [*packs, *contexts]]
    assert len(contexts) == 6  # those that ask for something have no topic
    for pack in [*packs, *contexts]:
        entry = shipped[pack.name]
        assert entry.pack_hash == fingerprint(pack), REMAKE
        told = (entry.title, entry.description, entry.high_pole, entry.low_pole, entry.safe_pole, entry.reads)
        assert told == (pack.title, pack.description, pack.high_pole, pack.low_pole, pack.safe_pole, pack.reads), REMAKE


def test_it_was_made_by_the_recipe_that_is_in_force(shipped):
    assert shipped.made_from == made_from(), REMAKE


def test_a_changed_recipe_or_pack_would_be_noticed(shipped, monkeypatch):
    from demeanor.extraction import pipeline

    monkeypatch.setattr(pipeline, "READING_WIDTH", 3)
    assert made_from(width=pipeline.READING_WIDTH) != shipped.made_from
    pack = traits.load("user_risk")
    edited = replace(pack, pairs=(replace(pack.pairs[0], high=pack.pairs[0].high + " now"), *pack.pairs[1:]))
    assert fingerprint(edited) != shipped["user_risk"].pack_hash


def test_each_trait_is_proved_and_beats_its_baselines(shipped):
    for name, entry in shipped.traits.items():
        assert entry.proof.beats_baselines, (name, entry.proof.verdict)
        if name.endswith(ENDINGS):  # everyday talk is shorter than those of hard moments
            assert entry.proof.auroc.low > entry.proof.length.auroc, name
            continue
        assert 0.42 <= entry.proof.length.auroc <= 0.58
        if name != "user_risk":
            assert entry.proof.auroc.value >= 0.75, name


def test_the_card_says_that_both_dtypes_were_tried_and_neither_warns(shipped):
    assert shipped.model.dtype == "float32"
    tried = shipped.dtypes["bfloat16"]
    assert tried["replies"] >= 500
    assert tried["decisions"] <= 0.02 * tried["replies"]
    card = (built_in.FOLDER / "README.md").read_text()
    assert f"on {tried['replies']:.0f} replies" in card
    assert "bfloat16" in card
    for dtype in ("float32", "bfloat16"):
        assert shipped.check_model(replace(shipped.model, dtype=dtype)) == []
    assert "float16" in shipped.check_model(replace(shipped.model, dtype="float16"))[0]


def test_its_examples_are_two_replies_a_trait_the_high_pole_s_first(shipped):
    found = built_in.examples()
    assert {e.trait for e in found} <= set(shipped.traits)
    assert [e.high for e in found] == [True, False] * len({e.trait for e in found})
    assert all(high.prompt == low.prompt and high.trait == low.trait for high, low in zip(found[::2], found[1::2], strict=True))
    assert built_in.load().fingerprint() == shipped.fingerprint()


def test_what_is_kept_on_this_machine_is_named_and_emptied(monkeypatch, tmp_path):
    monkeypatch.setenv("DEMEANOR_CACHE", str(tmp_path))
    assert [(each.what, each.size) for each in kept.kept()] == [("models", 0), ("activations of packs", 0), ("public sets", 0)]
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "models" / "one" / "weights").write_bytes(bytes(30))
    (tmp_path / "activations.db").write_bytes(bytes(20))
    models, activations, _ = kept.kept()
    assert (models.size, models.limit, models.path) == (30, None, tmp_path / "models")
    assert (activations.size, activations.path) == (20, tmp_path / "activations.db")
    assert kept.empty() == activations
    assert [each.size for each in kept.kept()] == [30, 0, 0]


def test_no_other_place_needs_it_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert console.vector_set(None).fingerprint() == VectorSet.load(built_in.FOLDER).fingerprint()
    VectorSet.load(built_in.FOLDER).only(["user_risk"]).save(tmp_path / "vectors")
    assert list(console.vector_set(None).traits) == ["user_risk"]  # ./vectors comes first


@pytest.mark.model
def test_it_belongs_to_the_embedded_model_and_needs_no_argument():
    scorer = Scorer.load()
    assert scorer.warnings == []
    assert identify(scorer.reader.model, scorer.reader.tokenizer).fingerprint == scorer.vectors.model.fingerprint
    kind = scorer.score("User: My dad died.\nAssistant: I'm so sorry. You must miss him terribly.")
    cold = scorer.score("User: My dad died.\nAssistant: Probate takes about a year. Start with the bank.")
    assert kind["empathetic_responsiveness"].z > cold["empathetic_responsiveness"].z


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["float32", *(["bfloat16"] if native_bfloat16() else [])])
def test_extraction_finds_the_shipped_direction_again(shipped, dtype):
    trait = traits.load("user_risk")
    reading = shipped["user_risk"].reading
    reader = ActivationReader(*load_model(dtype=dtype))
    (read,) = read_traits(reader, [replace_splits(trait)], reading.layers, "mean", unseen).values()
    train = read["train"]
    x = train.at(reading.layers)
    found = fit_layers(x[train.high], x[~train.high], METHODS[READING_METHOD], read.everyday(reading.layers))
    assert float(torch.from_numpy(found).flatten() @ reading.direction.double().flatten()) > 0.999


def replace_splits(trait):
    """The trait with its training families only: nothing else makes the direction."""
    train = {family: split for family, split in trait.splits.items() if split == "train"}
    return replace(trait, pairs=tuple(p for p in trait.pairs if p.family in train), splits=train)
