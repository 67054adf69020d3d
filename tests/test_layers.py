"""The layer is chosen by what it tells on families that the direction has not seen."""

import numpy as np
import pytest

from demeanor.conversation import Conversation, Message, from_text
from demeanor.errors import ExtractionError
from demeanor.extraction import layers as layers_module
from demeanor.extraction.directions import method
from demeanor.extraction.examples import ReadExamples
from demeanor.extraction.layers import choose_layers, default_candidates, out_of_fold
from demeanor.measure.metrics import auroc
from demeanor.traits.definition import Example, TraitDefinition

N_LAYERS, WIDTH, FAMILIES, PAIRS = 8, 48, 10, 6
MEAN_DIFFERENCE = method("mean_difference")


def examples(families=FAMILIES, pairs=PAIRS):
    """High and low of a pair side by side, `pairs` pairs of each family."""
    said = Conversation((Message("assistant", "..."),))
    return [Example(said, high, f"{f}-{p}", f"family-{f}") for f in range(families) for p in range(pairs) for high in (True, False)]


def noise(n, seed=0):
    """Activations [n, layers, width] whose norm doubles from layer to layer."""
    return np.random.default_rng(seed).normal(size=(n, N_LAYERS, WIDTH)) * 2.0 ** np.arange(N_LAYERS)[None, :, None]


def signs(of):
    return np.where([e.high for e in of], 1.0, -1.0)


def with_trait_at(layer, strength=1.5, **shape):
    """A trait that is plain at `layer` and half as plain beside it."""
    of = examples(**shape)
    x = noise(len(of))
    for at, share in ((layer - 1, 0.5), (layer, 1.0), (layer + 1, 0.5)):
        x[:, at, 0] += signs(of) * strength * share * 2.0**at
    return ReadExamples(of, x, tuple(range(N_LAYERS)))


def with_confound_at(layer, other):
    """At `layer` each family tells its poles apart by a direction of its own; at `other` all share a weak one."""
    of = examples()
    x = noise(len(of))
    for i, e in enumerate(of):
        family = int(e.family.split("-")[1])
        x[i, layer, 1 + family] += 8 * signs(of)[i] * 2.0**layer
        x[i, other, 0] += 0.8 * signs(of)[i] * 2.0**other
    return ReadExamples(of, x, tuple(range(N_LAYERS)))


@pytest.mark.parametrize("layer", [2, 4, 5])
@pytest.mark.parametrize("name", ["mean_difference", "lda"])
def test_the_layer_where_the_trait_was_planted_is_chosen(layer, name):
    train = with_trait_at(layer)
    choice = choose_layers(train, method(name), list(range(N_LAYERS)))
    assert choice.layers == (layer,)
    norms = np.linalg.norm(train.activations[train.high].mean(0) - train.activations[~train.high].mean(0), axis=1)
    assert norms.argmax() == N_LAYERS - 1  # where the choice by norm would have gone
    assert choice.curve[layer] > 0.9
    assert choice.curve[N_LAYERS - 1] < 0.7
    assert f"{FAMILIES} families" in choice.how


def test_a_single_layer_that_sticks_out_is_passed_over_for_a_band():
    of = examples()
    x = noise(len(of))
    for at, strength in ((1, 1.2), (2, 1.2), (3, 1.2), (6, 2.5)):
        x[:, at, 0] += signs(of) * strength * 2.0**at
    choice = choose_layers(ReadExamples(of, x, tuple(range(N_LAYERS))), MEAN_DIFFERENCE, list(range(N_LAYERS)))
    assert max(choice.curve, key=choice.curve.get) == 6
    assert choice.layers == (2,)


def test_only_candidates_are_chosen():
    choice = choose_layers(with_trait_at(4), MEAN_DIFFERENCE, [0, 1, 2, 3])
    assert choice.layers == (3,)
    assert list(choice.curve) == [0, 1, 2, 3]


@pytest.mark.parametrize(("width", "expected"), [(1, (4,)), (3, (3, 4, 5))])
def test_adjacent_layers_can_be_read_together(width, expected):
    assert choose_layers(with_trait_at(4), MEAN_DIFFERENCE, list(range(N_LAYERS)), width).layers == expected


@pytest.mark.parametrize(("candidates", "expected"), [([0, 4, 7], (4,)), ([3, 4, 6, 7], (3, 4)), ([1, 2, 4, 5, 6], (4, 5, 6))])
def test_a_gap_between_candidates_is_not_read_across(candidates, expected):
    assert choose_layers(with_trait_at(4), MEAN_DIFFERENCE, candidates, 3).layers == expected


def test_what_tells_the_poles_apart_only_within_a_family_is_not_chosen():
    train = with_confound_at(6, other=2)
    assert choose_layers(train, MEAN_DIFFERENCE, list(range(N_LAYERS))).layers == (2,)
    leaky = out_of_fold(_shuffled_families(train), lambda h, low: np.stack([MEAN_DIFFERENCE(h[:, 0], low[:, 0])]), [6])
    assert auroc(leaky[train.high], leaky[~train.high]) > 0.95  # folds that split families would have taken it


def _shuffled_families(train):
    """The same activations, families dealt at random: what folds without regard to families would see."""
    order = np.random.default_rng(0).permutation(len(train))
    of = [Example(e.conversation, e.high, e.pair_id, train.examples[j].family) for e, j in zip(train.examples, order, strict=True)]
    return ReadExamples(of, train.activations, train.layers)


def test_no_family_is_on_both_sides_of_a_fold():
    train = with_trait_at(4)
    train.activations[:, 0, 0] = [int(e.family.split("-")[1]) for e in train.examples]  # each example carries its family
    seen = []

    def fit(high, low):
        seen.append({*high[:, 0, 0], *low[:, 0, 0]})
        return np.ones((1, WIDTH))

    out_of_fold(train, fit, [0])
    assert len(seen) == layers_module.FOLDS
    held_out = [set(range(FAMILIES)) - families for families in seen]
    assert sorted(family for families in held_out for family in families) == list(range(FAMILIES))


def test_out_of_fold_scores_need_both_poles_in_every_fold():
    of = [Example(e.conversation, e.family == "family-0", e.pair_id, e.family) for e in examples()]
    with pytest.raises(ExtractionError, match="without one of the poles"):
        choose_layers(ReadExamples(of, noise(len(of)), tuple(range(N_LAYERS))), MEAN_DIFFERENCE, [0, 1])


@pytest.mark.parametrize("families", [1, 2])
def test_too_few_families_fall_back_to_a_fixed_depth_and_say_so(families):
    choice = choose_layers(with_trait_at(2, families=families), MEAN_DIFFERENCE, list(range(N_LAYERS)))
    assert choice.layers == (3,)
    assert choice.curve == {}
    assert f"{families} families are too few" in choice.how


def test_a_single_example_of_one_pole_falls_back_to_a_fixed_depth_and_says_so():
    lone = [Example(from_text("Assistant: hm"), i > 0, f"example-{i}", f"example-{i}") for i in range(4)]
    choice = choose_layers(ReadExamples(lone, noise(4), tuple(range(N_LAYERS))), MEAN_DIFFERENCE, list(range(N_LAYERS)))
    assert choice.layers == (3,)
    assert "too few examples of one pole" in choice.how


@pytest.mark.parametrize("high", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("many", [True, False])
def test_prompts_of_one_pole_beside_a_single_one_of_the_other_fall_back_to_a_fixed_depth(high, many):
    """As the tutorial's lists give them: the first of each pole are one family, and so on."""
    highs, lows = ([f"dear {i}" for i in range(n)] for n in ((high, 1) if many else (1, high)))
    trait = TraitDefinition("warmth", "How warm.", highs, lows)
    choice = choose_layers(ReadExamples(trait.examples(), noise(high + 1), tuple(range(N_LAYERS))), MEAN_DIFFERENCE, list(range(N_LAYERS)))
    assert choice.layers == (3,)
    assert "too few" in choice.how


def test_candidates_may_come_in_any_order():
    assert choose_layers(with_trait_at(2, families=2), MEAN_DIFFERENCE, [6, 0, 3, 5, 1]).layers == (3,)


def test_three_families_are_enough_to_cross_validate():
    choice = choose_layers(with_trait_at(2, strength=4.0, families=3), MEAN_DIFFERENCE, list(range(N_LAYERS)))
    assert choice.layers == (2,)
    assert "3-fold" in choice.how


def test_a_large_model_is_searched_in_its_middle_half():
    assert default_candidates(30) == list(range(7, 23))
    assert default_candidates(32) == list(range(8, 24))
