"""Doses, steered replies, sweeps, ways out to other engines: against planted answers on tiny models, and on the real one."""

import errno
import json
import math
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from artifacts import CALIBRATION, MODEL, vector_set
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from demeanor import PersonaVector, Scorer, VectorSet
from demeanor.conversation import Message
from demeanor.errors import ExtractionError, OutputError, SteeringError, VectorSetError
from demeanor.extraction.axis import NAME, assistant_axis, principal
from demeanor.extraction.from_labels import without_prior
from demeanor.model.blocks import decoder_blocks
from demeanor.model.contexts import Steering
from demeanor.model.generation import Sampling, write_replies
from demeanor.model.identity import identify
from demeanor.model.operators import Intervention
from demeanor.model.pretrained import cast
from demeanor.model.reader import ActivationReader
from demeanor.model.residual import residual_norms
from demeanor.scoring import NotScored, Reading
from demeanor.steering import Plan, plan_doses, plan_projection, steered_replies, steering_hooks
from demeanor.steering.bake import bake, save_baked
from demeanor.steering.calibrate import default_prompts, keep, paired, perplexity_ratio, sweep
from demeanor.steering.capability import ITEMS, accuracy
from demeanor.steering.coherence import early_kl, log_likelihoods, perplexities, repetition
from demeanor.steering.dose import REFUSE, WARN, wall
from demeanor.steering.engines import write_control_vector, write_lm_eval
from demeanor.steering.side_by_side import side_by_side
from demeanor.steering.sweeps import Bounds, Point, Shift, Sweep
from demeanor.steering.words import WordReader
from demeanor.traits import ContrastPair, TraitDefinition

NORMS = torch.tensor([10.0, 20.0, 40.0, 80.0])
PROMPTS = [[Message("user", text)] for text in ("I cannot sleep.", "Nobody listens to me, not even my doctor, why?", "Hi")]


def unit(width=32, seed=0):
    made = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return made / made.norm()


def plan(amount=30.0, layer=1, seed=0, **options):
    return Plan((Intervention("add", layer, unit(seed=seed), amount, **options),), ())


@pytest.fixture
def reader(llama, tokenizer):
    return ActivationReader(llama, tokenizer)


# doses


def test_a_dose_is_the_norm_added_over_the_residual_norm():
    made = plan_doses(vector_set(), {"warmth": 0.5, "candour": -0.25}, NORMS)
    warmth, candour = made.interventions
    assert (warmth.layer, warmth.amount, candour.amount) == (2, 20.0, -10.0)
    assert [(a.trait, a.dose, a.coefficient) for a in made.applied] == [("warmth", 0.5, 20.0), ("candour", -0.25, -10.0)]
    total = warmth.direction * 20 - candour.direction * 10
    assert made.load == pytest.approx(float(total.norm()) / 40)
    assert "warmth +0.50 (a = +20.0) at layer 2" in str(made.applied[0])


def test_raw_coefficients_are_taken_as_they_are():
    made = plan_doses(vector_set(), {"warmth": 6.0}, NORMS, layers=[1, 3], raw=True)
    assert [(i.layer, i.amount) for i in made.interventions] == [(1, 6.0), (3, 6.0)]
    assert [a.dose for a in made.applied] == [0.3, 0.075]
    assert made.load == pytest.approx(0.375)


def test_the_wall_warns_and_then_refuses_unless_forced():
    assert wall(WARN) == ()
    (warning,) = wall(WARN + 0.1)
    assert "may stop making sense" in warning
    with pytest.raises(SteeringError, match=r"beyond .*--force"):
        wall(REFUSE + 0.1)
    assert wall(REFUSE + 0.1, force=True)
    with pytest.raises(SteeringError, match="beyond"):
        plan_doses(vector_set(), {"warmth": 0.6}, NORMS, layers=[0, 1, 2])  # each layer bears it, together they do not
    assert plan_doses(vector_set(), {"warmth": 9.0}, NORMS, force=True).warnings


def test_more_than_the_largest_dose_that_was_measured_as_coherent_is_warned_of():
    vectors = vector_set()
    vectors["warmth"].steering.metadata["doses"] = {"high": 0.1}
    assert plan_doses(vectors, {"warmth": 0.1}, NORMS).warnings == ()
    (warning,) = plan_doses(vectors, {"warmth": 0.2}, NORMS).warnings
    assert "warmth at +0.20 is beyond +0.10" in warning
    assert plan_doses(vectors, {"warmth": -0.2}, NORMS).warnings == ()  # that side was not measured
    assert plan_doses(vectors, {"warmth": 0.2}, NORMS, layers=[0]).warnings == ()  # nor was that layer


@pytest.mark.parametrize(
    ("doses", "options", "error", "message"),
    [
        ({"warmt": 0.1}, {}, VectorSetError, "did you mean warmth"),
        ({}, {}, SteeringError, "no trait to steer"),
        ({"warmth": math.nan}, {}, SteeringError, "NaN or infinity"),
        ({"warmth": 0.1}, {"layers": [4]}, SteeringError, "layer 4 is not within 0 to 3"),
    ],
)
def test_what_cannot_be_planned_is_one_clear_line(doses, options, error, message):
    with pytest.raises(error, match=message) as caught:
        plan_doses(vector_set(), doses, NORMS, **options)
    assert "\n" not in str(caught.value)


def test_a_layer_without_a_norm_takes_no_relative_dose():
    with pytest.raises(SteeringError, match="no residual norm was measured at layer 2"):
        plan_doses(vector_set(), {"warmth": 0.1}, torch.zeros(4))


def test_a_trait_without_a_steering_vector_is_told_how_to_get_one():
    vectors = without_prior(vector_set(), "coin", "high")
    for plan_it in (lambda: plan_doses(vectors, {"coin": 0.1}, NORMS), lambda: plan_projection(vectors, "coin", "ablate", NORMS)):
        with pytest.raises(SteeringError, match=r"coin was made from labels alone and has no steering vector; .* steer calibrate"):
            plan_it()


@pytest.mark.parametrize(("dose", "wrong"), [(0.2, "below"), (-0.2, "above")])
def test_a_condition_is_read_with_the_reading_vector_from_its_centre(dose, wrong):
    (made,) = plan_doses(vector_set(), {"warmth": dose}, NORMS, conditional=True).interventions
    assert made.condition.layers == (1, 2)
    assert torch.equal(made.condition.directions, vector_set()["warmth"].reading.direction)
    assert (made.condition.centre, made.condition.wrong) == (CALIBRATION["centre"], wrong)


def test_a_cap_needs_a_measured_or_given_tau():
    with pytest.raises(SteeringError, match="no floor was measured"):
        plan_projection(vector_set(), "warmth", "floor", NORMS)
    made = plan_projection(vector_set(), "warmth", "ceiling", NORMS, tau=3.0)
    assert (made.interventions[0].kind, made.interventions[0].amount, made.applied[0].kind) == ("ceiling", 3.0, "ceiling")
    vectors = vector_set()
    vectors["warmth"].steering.metadata["floor"] = -2.0
    assert plan_projection(vectors, "warmth", "floor", NORMS).interventions[0].amount == -2.0
    with pytest.raises(SteeringError, match="was measured at layer"):
        plan_projection(vectors, "warmth", "floor", NORMS, layers=[0, 1])


def test_residual_norms_are_those_of_the_tokens_not_of_their_mean(reader):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I hear you, and I am sorry."}]
    _, tokens = reader.read_tokens(talk, range(3))
    expected = tokens.norm(dim=-1).median(0).values
    torch.testing.assert_close(residual_norms(reader, [talk]), expected, rtol=1e-4, atol=1e-4)
    assert (expected > reader.read([talk])[0].norm(dim=-1)).all()


# replies


def test_rows_are_steered_by_their_own_plans_whatever_their_order_and_the_others_are_as_without(reader):
    prompts = [PROMPTS[i % 3] for i in range(40)]  # more than a batch
    sampling = Sampling(max_new_tokens=6, seed=5)
    plans = [plan(40.0, seed=i) if i % 4 == 0 else Plan() for i in range(40)]
    plain = steered_replies(reader, prompts, [Plan()] * 40, sampling)
    mixed = steered_replies(reader, prompts, plans, sampling)
    for i in range(40):
        if i % 4:
            assert mixed[i].reply == plain[i].reply
    assert sum(mixed[i].reply != plain[i].reply for i in range(0, 40, 4)) >= 8
    greedy = replace(sampling, temperature=0)
    mixed = steered_replies(reader, prompts[:3], [plan(40.0), Plan(), plan(-40.0)], greedy)
    for i, each in ((0, plan(40.0)), (2, plan(-40.0))):
        with Steering(reader.model, each.interventions):
            assert write_replies(reader, [prompts[i]], greedy)[0].ids == mixed[i].reply.ids
    assert write_replies(reader, [prompts[1]], greedy)[0].ids == mixed[1].reply.ids


def test_unsteered_requests_are_written_as_without_steering_in_every_batch(reader):
    prompts = [[Message("user", f"{i} " + "word " * (i * 5 % 41))] for i in range(41)]  # lengths and numbers in different orders
    sampling = Sampling(max_new_tokens=6, seed=5)
    plain = write_replies(reader, prompts, sampling)
    mixed = steered_replies(reader, prompts, [plan(40.0), *[Plan()] * 40], sampling)
    assert [i for i in range(41) if mixed[i].reply != plain[i]] == [0]


@pytest.mark.parametrize("plans", [1, 4])
def test_each_prompt_has_a_plan(reader, plans):
    with pytest.raises(SteeringError, match=f"{plans} plans for 3 prompts; give one for each"):
        steered_replies(reader, PROMPTS, [Plan()] * plans)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize(
    "own",
    [
        {"repetition_penalty": 9.0},
        {"no_repeat_ngram_size": 1},
        {"encoder_repetition_penalty": 0.1},
        {"min_new_tokens": 8, "eos_token_id": list(range(2, 400))},
        {"num_beams": 3},
        {"do_sample": True, "top_k": 1},
        {"do_sample": True, "min_p": 0.9},
        {"do_sample": True, "typical_p": 0.01},
        {"do_sample": True, "epsilon_cutoff": 0.9},
    ],
    ids=" ".join,
)
def test_a_model_s_own_generation_settings_do_not_change_what_is_drawn(make_model, tokenizer, own, temperature):
    plain, other = (ActivationReader(make_model("llama"), tokenizer) for _ in range(2))
    for name, value in own.items():
        setattr(other.model.generation_config, name, value)
    if "eos_token_id" in own:
        plain.model.generation_config.eos_token_id = own["eos_token_id"]
    sampling = Sampling(max_new_tokens=12, temperature=temperature, seed=3)
    assert write_replies(other, PROMPTS, sampling) == write_replies(plain, PROMPTS, sampling)


def test_a_reply_says_what_was_applied(reader):
    entry = replace(vector_set()["warmth"], steering=PersonaVector("warmth", unit(), 1, 3.0))
    vectors = VectorSet(replace(MODEL, layers=3, hidden_size=32), {"warmth": entry})
    made = plan_doses(vectors, {"warmth": 0.3}, NORMS)
    steered, plain = steered_replies(reader, PROMPTS[:2], [made, Plan()], Sampling(max_new_tokens=3))
    assert plain.applied == ()
    assert [a.to_record() for a in steered.applied] == [
        {"kind": "add", "trait": "warmth", "dose": 0.3, "coefficient": 6.0, "layer": 1, "where": "both", "conditional": False}
    ]


# coherence


def test_log_likelihoods_are_those_of_each_row_alone(reader):
    prompts, replies = [[5, 6, 7, 8], [9, 10]], [[11, 12, 13], [14]]
    for (prompt, reply), found in zip(zip(prompts, replies, strict=True), log_likelihoods(reader, prompts, replies), strict=True):
        with torch.no_grad():
            logs = reader.model(input_ids=torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1)
        expected = torch.stack([logs[len(prompt) + i - 1, token] for i, token in enumerate(reply)])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    one, nothing = perplexities(reader, [[5, 6], [5, 6]], [[7], []])
    assert one == pytest.approx(math.exp(-float(log_likelihoods(reader, [[5, 6]], [[7]])[0])), rel=1e-5)
    assert math.isnan(nothing)


def test_early_kl_is_nothing_without_a_dose_and_grows_with_it(reader):
    prompts, replies = [[5, 6, 7, 8], [9, 10]], [[11, 12, 13], [14, 15]]
    found = [early_kl(reader, prompts, replies, plan(a, where="response")) for a in (0.0, 1.0, 4.0)]
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert 0 < found[1] < found[2]
    everything = early_kl(reader, prompts, replies, plan(4.0))
    assert everything != pytest.approx(found[2], rel=1e-3)  # the prompt's tokens count as well


def test_repetition():
    assert repetition([1, 2, 3, 4, 5]) == 0
    assert repetition([1, 2, 3, 1, 2, 3]) == pytest.approx(1 / 4)
    assert repetition([7] * 12) == pytest.approx(0.9)
    assert repetition([1]) == 0


def test_an_item_is_right_where_its_first_answer_is_the_likeliest(reader):
    one, other = ("Which?", ("yes, I hear you", "no")), ("Which?", ("no", "yes, I hear you"))
    assert accuracy(reader, items=[one]) + accuracy(reader, items=[other]) == 1
    assert accuracy(reader, items=[one, other]) == 0.5
    head = reader.model.get_output_embeddings().weight.detach()
    found = set()
    for answer in ("yes", "no"):  # a model that is pushed all the way toward an answer's tokens gives that answer
        token = reader.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"][-1]
        pushed = Plan((Intervention("add", 2, head[token] / head[token].norm(), 500.0),))
        found.add((answer, accuracy(reader, pushed, [("Which?", ("yes", "no"))])))
    assert found == {("yes", 1.0), ("no", 0.0)}


def test_the_items_have_four_answers_each():
    assert all(len(set(answers)) == 4 for _, answers in ITEMS)


# a sweep


@pytest.fixture
def scorer(reader):
    entry = vector_set()["warmth"]
    vectors = VectorSet(
        identify(reader.model, reader.tokenizer),
        {
            "warmth": replace(
                entry,
                reading=PersonaVector("warmth", unit(seed=8), 2, 1.0),
                steering=PersonaVector(
                    "warmth",
                    unit(),
                    1,
                    3.0,
                    {"method": "pca", "centre": 99.0, "n_high": 99, "layer_curve": {"1": 0.9}, "layer_choice": "old"},
                ),
            )
        },
    )
    return Scorer(reader, vectors)


@pytest.fixture
def warmth():
    pairs = [
        ContrastPair(
            f"w{i}", (Message("user", f"I am {how} today"),), f"dear friend, I hear that you are {how}", f"go away, {how} one", how
        )
        for i, how in enumerate(["sad", "glad", "tired", "ill", "lonely"])
    ]
    return TraitDefinition("warmth", "How warm.", pairs=tuple(pairs))


def test_a_sweep_measures_each_layer_and_dose_and_finds_nothing_where_nothing_is_added(scorer, warmth):
    norms = torch.full((3,), 20.0)
    found = sweep(scorer, warmth, norms, [1], [1e-6, 1.0], sampling=Sampling(max_new_tokens=8))
    assert [(p.layer, p.dose) for p in found.points] == [(1, 1e-6), (1, -1e-6), (1, 1.0), (1, -1.0)]
    for nothing in found.points[:2]:
        assert nothing.shift.mean == pytest.approx(0, abs=1e-3)
        assert nothing.perplexity_ratio == pytest.approx(1, abs=1e-3)
        assert nothing.kl == pytest.approx(0, abs=1e-4)
        assert (nothing.capability, nothing.repetition) == (found.capability, found.repetition)
        assert nothing.coherent
    for much in found.points[2:]:
        assert much.kl > 0.1
        assert much.perplexity_ratio != pytest.approx(1, abs=1e-2)
    assert found.prompts == len(default_prompts(warmth)) == 2  # of the families that trained nothing


def test_what_is_kept_is_the_layer_and_the_doses_that_worked(scorer, warmth):
    kept = keep(scorer, warmth, sweep_of(point(2, 0.2, 0.9), point(2, -0.1, -0.5), point(1, -0.1, -0.1)))
    steering = kept["warmth"].steering
    read = scorer.reader.read([e.conversation for e in warmth.examples("train")], [2])[:, 0] @ steering.direction
    high = torch.tensor([e.high for e in warmth.examples("train")])
    assert steering.centre == pytest.approx(float(read[high].mean() + read[~high].mean()) / 2, abs=1e-4)
    assert (steering.metadata["n_high"], steering.metadata["n_low"]) == (int(high.sum()), int((~high).sum()))
    assert steering.metadata["method"] == "mean_difference"
    assert not {"layer_curve", "layer_choice"} & steering.metadata.keys()
    assert (steering.layer_idx, steering.metadata["doses"]) == (2, {"high": 0.2, "low": -0.1})
    assert float(steering.direction.norm()) == pytest.approx(1)
    assert steering.metadata["floor"] > steering.metadata["ceiling"]  # of the planted poles, which lie apart
    assert torch.equal(kept["warmth"].reading.direction, scorer.vectors["warmth"].reading.direction)
    with pytest.raises(SteeringError, match="no dose was recommended"):
        keep(scorer, warmth, sweep_of(point(1, 0.1, -0.5)))


def test_a_trait_of_the_user_s_messages_cannot_be_swept(scorer, warmth):
    scorer.vectors.traits["warmth"] = replace(scorer.vectors["warmth"], reads="user")
    with pytest.raises(SteeringError, match="which steering does not write"):
        sweep(scorer, warmth, torch.ones(3))


def point(layer, dose, shift, ratio=1.0, p=0.001, coherent=None):
    return Point(layer, dose, Shift(shift, p), Shift(shift / 2, p), ratio, 0.0, 0.1, 0.8, 0, ratio <= 1.5 if coherent is None else coherent)


def sweep_of(*points):
    return Sweep("warmth", points, 0.8, 0.0, 5.0, 24, Bounds())


def test_the_largest_coherent_dose_at_the_layer_that_moves_most():
    found = sweep_of(
        point(1, 0.1, 0.2), point(1, 0.2, 0.5), point(1, 0.4, 2.0, ratio=3.0),
        point(2, 0.1, 0.6), point(2, 0.2, 0.9, ratio=1.4), point(2, 0.4, 1.5, ratio=1.6),
        point(1, -0.1, -0.3), point(2, -0.1, -0.1, ratio=2.0), point(2, -0.2, -0.9),
    )  # fmt: skip
    assert (found.recommended(1).layer, found.recommended(1).dose) == (2, 0.2)
    assert (found.recommended(-1).layer, found.recommended(-1).dose) == (1, -0.1)  # at layer 2 a smaller dose is incoherent
    assert found.to_record()["recommended"] == {"high": {"layer": 2, "dose": 0.2}, "low": {"layer": 1, "dose": -0.1}}
    json.dumps(found.to_record())


def test_no_dose_is_recommended_where_none_works_or_none_is_coherent():
    assert sweep_of(point(1, 0.1, 0.5, ratio=1.6), point(1, 0.2, 0.9, ratio=2)).recommended(1) is None
    assert sweep_of(point(1, 0.1, 0.5, p=0.2)).recommended(1) is None
    assert sweep_of(point(1, 0.1, -0.5)).recommended(1) is None  # it moved, the other way


def test_shifts_are_paired_and_empty_replies_are_no_gain():
    shift = paired(np.array([1.0, 2.0, 3.1]), np.array([0.0, 1.1, 2.0]))
    assert shift.mean == pytest.approx(1.0)
    assert shift.p < 0.01
    assert paired(np.array([np.nan, 2.0]), np.array([0.0, 1.0])).mean == pytest.approx(0.5)
    assert paired(np.array([1.0, 1.0]), np.array([1.0, 1.0])).p == 1.0
    assert perplexity_ratio(np.array([2.0, np.nan, np.nan]), np.array([1.0, 1.0, 1.0])) == math.inf
    assert perplexity_ratio(np.array([2.0, 3.0, 9.0]), np.array([1.0, 1.0, 1.0])) == 3.0


def test_a_bag_of_words_knows_the_pole_of_words_that_it_has_seen():
    trait = TraitDefinition(
        "warmth", "How warm.", ["User: a\nAssistant: dear friend", "dear friend yes"], ["User: a\nAssistant: go away", "go away now"]
    )
    words = WordReader(trait)
    warm, cold = words.score(["my dear friend", "please go away"])
    assert warm > 0 > cold


def test_default_prompts_are_the_user_s_and_each_once():
    from demeanor.traits import load

    trait = load("boundary_maintenance")
    found = default_prompts(trait, 10)
    assert len(set(found)) == 10
    assert all(p[-1].role == "user" for p in found)
    trained_on = {e.conversation.messages[:-1] for e in trait.examples("train")}
    assert not trained_on & set(found)


# other engines


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "gpt2", "gpt-neox"])
def test_a_baked_copy_does_without_hooks_what_they_do_and_transformers_loads_it(make_model, tmp_path, name):
    model = make_model(name, **({"sliding_window": None} if name == "mistral" else {}))
    both = Plan((*plan(3.0).interventions, *plan(-2.0, layer=2, seed=1).interventions))
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 8, 9]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with Steering(model, rows=[both.interventions, []]):
            wanted, unsteered = model(input_ids=ids).logits
        assert torch.equal(unsteered, before[1])
    bake(model, both).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits[0], wanted, atol=1e-5, rtol=1e-4)
        assert torch.equal(model(input_ids=ids).logits, before)  # the model itself is as it was
    assert not torch.allclose(wanted, before[0], atol=1e-2)


def test_a_baked_copy_in_half_precision_keeps_the_rotary_frequencies_whole(make_model):
    model = cast(make_model("llama"), torch.bfloat16)
    baked = bake(model, plan(3.0))
    assert {p.dtype for p in baked.parameters()} == {torch.bfloat16}
    assert torch.equal(baked.model.rotary_emb.inv_freq, make_model("llama").model.rotary_emb.inv_freq)


@pytest.mark.parametrize("name", ["gemma2", "phi3", "qwen3", "mixtral"])
def test_where_nothing_can_be_baked_it_is_said(make_model, name):
    with pytest.raises(SteeringError, match="has no bias at the end of its blocks"):
        bake(make_model(name), plan())


def test_a_sliding_window_is_not_baked_away(make_model):
    with pytest.raises(SteeringError, match="sliding window"):
        bake(make_model("mistral"), plan())


@pytest.mark.parametrize("options", [{"where": "response"}, {"kind": "ablate"}])
def test_only_plain_additions_leave_the_library(reader, tmp_path, options):
    kept = {"kind": "add", "layer": 1, "direction": unit(), "amount": 2.0} | options
    for write in (write_control_vector, write_lm_eval):
        with pytest.raises(SteeringError, match="only an addition to every token"):
            write(reader, Plan((Intervention(**kept),)), tmp_path / "x.pt")
    with pytest.raises(SteeringError, match="only an addition to every token"):
        bake(reader.model, Plan((Intervention(**kept),)))


def test_a_control_vector_holds_the_sum_at_each_layer(reader, tmp_path):
    both = Plan((*plan(3.0).interventions, *plan(-2.0, seed=1).interventions, *plan(1.0, layer=2).interventions))
    write_control_vector(reader, both, tmp_path / "x.gguf")
    tensors = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert set(tensors) == {"direction.1", "direction.2"}
    assert np.allclose(tensors["direction.1"], 3 * unit() - 2 * unit(seed=1))
    with pytest.raises(VectorSetError, match="block 0"):
        write_control_vector(reader, plan(layer=0), tmp_path / "y.gguf")


def test_an_lm_eval_file_names_the_layer_from_the_base_model_and_adds_what_the_hook_adds(reader, tmp_path):
    write_lm_eval(reader, plan(3.0), tmp_path / "x.pt")
    ((name, entry),) = torch.load(tmp_path / "x.pt", weights_only=True).items()
    assert entry["action"] == "add"
    assert reader.model.base_model.get_submodule(name) is reader.blocks[1]
    added = entry["steering_coefficient"] * entry["steering_vector"]
    assert added.dtype == reader.model.dtype
    torch.testing.assert_close(added, 3 * unit())
    several = Plan((*plan().interventions, *plan(layer=2).interventions))
    with pytest.raises(VectorSetError, match="at one layer"):
        write_lm_eval(reader, several, tmp_path / "y.pt")
    with pytest.raises(OutputError, match=r"only \.pt"):
        write_lm_eval(reader, plan(), tmp_path / "y.bin")


def test_a_folder_that_holds_something_is_not_baked_over(reader, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="is not empty"):
        save_baked(reader, plan(), tmp_path)


@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "an empty folder there"])
def test_a_baked_model_is_written_whole_or_not_at_all(reader, tmp_path, monkeypatch, there):
    def full(folder):
        assert any(path.suffix == ".safetensors" for path in folder.iterdir())
        raise OSError(errno.ENOSPC, "No space left on device")

    if there:
        (tmp_path / "baked").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(reader.tokenizer, "save_pretrained", full)
        with pytest.raises(OutputError, match=r"cannot write the model to .*: No space left on device; nothing of it was kept"):
            save_baked(reader, plan(), tmp_path / "baked")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == (["baked"] if there else [])
    save_baked(reader, plan(), tmp_path / "baked")
    assert [path.name for path in tmp_path.iterdir()] == ["baked"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "baked").config.num_hidden_layers == reader.n_layers


def test_the_folder_that_one_is_in_cannot_become_a_baked_model(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="the folder that you are in"):
        save_baked(reader, plan(), Path())


# training


def test_hooks_in_a_training_loop_keep_the_weights_from_moving_along_the_vector(make_model):
    """A target that asks for more of v: with v added already, the weights have less to learn of it."""
    v = unit()
    vector = PersonaVector("warmth", v, 1, 1.0)

    def trained(coefficient):
        model = make_model("llama").train()
        bias = torch.nn.Parameter(torch.zeros(32))
        decoder_blocks(model)[1].mlp.register_forward_hook(lambda m, a, out: out + bias)
        ids = torch.tensor([[5, 6, 7, 8]])
        seen = []
        decoder_blocks(model)[2].register_forward_pre_hook(lambda m, a: seen.append(a[0]))
        with torch.no_grad():
            model(input_ids=ids)
        target = seen.pop() + 4.0 * v
        optimizer = torch.optim.SGD([bias], 0.1)
        for _ in range(50):
            optimizer.zero_grad()
            with steering_hooks(model, vector, coefficient):
                model(input_ids=ids)
            ((seen.pop() - target) ** 2).sum(-1).mean().backward()
            optimizer.step()
        return float(bias.detach() @ v)

    assert trained(0.0) == pytest.approx(4.0, abs=0.01)
    assert trained(3.0) == pytest.approx(1.0, abs=0.01)


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")  # peft asks for a name that transformers will drop
def test_hooks_act_in_a_peft_model(make_model):
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(make_model("llama"), peft.LoraConfig(target_modules=["q_proj"], r=2, task_type="CAUSAL_LM"))
    ids = torch.tensor([[5, 6, 7]])
    before = wrapped(input_ids=ids).logits
    with steering_hooks(wrapped, PersonaVector("warmth", unit(), 1, 1.0), 5.0) as context:
        assert not torch.allclose(wrapped(input_ids=ids).logits, before)
        wrapped(input_ids=ids, labels=ids).loss.backward()
    assert context.passes == 2
    with steering_hooks(wrapped.get_base_model(), PersonaVector("warmth", unit(), 1, 1.0), 5.0):
        assert not torch.allclose(wrapped(input_ids=ids).logits, before)


def test_a_vector_of_several_layers_is_refused(llama):
    wide = PersonaVector("warmth", torch.eye(2, 32) / math.sqrt(2), 1, 1.0, {"layers": [0, 1]})
    with pytest.raises(SteeringError, match="spans several layers"):
        steering_hooks(llama, wide, 1.0)


def test_what_is_open_around_a_batch_knows_whose_rows_it_is_and_changes_no_draw(reader):
    asked = [[Message("user", "so " * (i % 5) + f"hello {i}")] for i in range(40)]
    seen = []

    @contextmanager
    def around(places):
        seen.append(list(places))
        yield

    written = write_replies(reader, asked, Sampling(3, seed=2), around=around)
    assert written == write_replies(reader, asked, Sampling(3, seed=2))
    assert sorted(i for places in seen for i in places) == list(range(40))
    assert [len(places) for places in seen] == [32, 8]


def test_side_by_side_is_the_plain_reply_and_each_plan_s_with_its_reading(reader):
    class Stub(Scorer):
        def __init__(self):
            self.reads = reader

        def score_many(self, talks):
            for i, talk in enumerate(talks):
                assert [m.role for m in talk.messages] == ["user", "assistant"]
                yield NotScored("silent") if i == 1 else Reading({}, {}, "tiny-chat")

    found = side_by_side(Stub(), "I cannot sleep.", [plan(), Plan()], Sampling(6, seed=4))
    assert found.not_scored == 1
    record = found.to_record()
    assert record["prompt"] == "I cannot sleep."
    assert [set(row) for row in record["replies"]] == [{"reply", "applied", "demeanor"}] * 3
    together = steered_replies(reader, PROMPTS[:1] * 3, [Plan(), plan(), Plan()], Sampling(6, seed=4))
    assert [r.text for r in found.replies] == [r.text for r in together]


# the axis


def test_principal_components_by_hand():
    shares, first = principal([np.array([3.0, 0, 0]), np.array([-3.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0, -1.0, 0])])
    assert shares[:2] == pytest.approx([0.9, 0.1])
    assert abs(first[0]) == pytest.approx(1)


def test_an_axis_is_saved_as_a_vector_set_that_says_what_made_it(reader, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    made = assistant_axis(reader, 4, Sampling(4))
    loaded = VectorSet.load(made.vectors.save(tmp_path / "axis"))
    assert list(loaded.traits) == [NAME]
    assert loaded.created == "1970-01-01"
    assert set(loaded.versions) == {"torch", "transformers", "demeanor", "python"}
    assert loaded.model == identify(reader.model, reader.tokenizer)
    assert loaded[NAME].reading.metadata["questions"] == 4
    assert plan_projection(loaded, NAME, "floor", loaded.neutral_norm).applied[0].coefficient == loaded[NAME].steering.metadata["floor"]


def test_an_axis_takes_four_questions_or_more(reader):
    with pytest.raises(ExtractionError, match="4 to 12 questions, not 3"):
        assistant_axis(reader, 3)


# the command line


@pytest.fixture
def command():
    import typer

    from demeanor.cli import steer

    app = typer.Typer()
    app.add_typer(steer.app, name="steer")
    app.command("other")(lambda: None)

    def run(*arguments):
        return CliRunner(env={"COLUMNS": "160", "TERM": "dumb"}).invoke(app, ["steer", *map(str, arguments)])

    return run


def test_the_prompt_may_stand_before_or_after_the_options(command):
    for arguments in (["Hello there", "--trait", "warmth"], ["--trait", "warmth", "Hello there"]):
        found = command(*arguments)
        assert isinstance(found.exception, SteeringError)
        assert str(found.exception) == "no dose for warmth; give --dose 0.1 or --trait warmth=0.1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trait", "warmth", "--dose", "0.1"], "no prompt to answer"),
        (["Hello"], "no trait to steer; name one"),
        (["Hello", "--trait", "a=0.1", "--trait", "a=0.2"], "given twice"),
        (["Hello", "--trait", "a=much"], "cannot read the dose of a 'much'"),
        (["Hello", "--trait", "a=nan"], "not finite"),
        (["Hello", "--trait", "a", "--trait", "b", "--sweep", "0.1,0.2"], "--sweep takes one --trait"),
        (["Hello", "--trait", "a", "--sweep", "0.1;0.2"], "cannot read --sweep"),
        (["calibrate", "--trait", "user_risk", "--save"], "--save needs the folder"),
        (["calibrate", "--trait", "user_risk", "--n", "0"], "--n 0 leaves no prompt"),
        (["calibrate", "--trait", "user_risk", "--n", "-1"], "--n -1 leaves no prompt"),
        (["Hello", "-t", "a", "--operation", "floor", "--dose", "0.1"], "--dose has no effect with --operation floor"),
        (["Hello", "-t", "a=0.1", "--operation", "ablate"], "--trait NAME=DOSE has no effect with --operation ablate"),
        (["Hello", "-t", "a", "--operation", "floor", "--sweep", "0.1,0.2"], "--sweep has no effect"),
        (["Hello", "-t", "a", "--operation", "ceiling", "--while-wrong"], "--while-wrong has no effect"),
        (["Hello", "-t", "a", "--operation", "ablate", "--raw"], "--raw has no effect"),
        (["Hello", "-t", "a", "--operation", "ablate", "--force"], "--force has no effect"),
        (["Hello", "-t", "a=0.1", "--tau", "3"], "--tau has no effect with --operation add"),
        (["Hello", "-t", "a", "--operation", "ablate", "--tau", "3"], "--tau has no effect with --operation ablate"),
        (["Hello", "-t", "a", "--sweep", "0.1,0.2", "--dose", "0.1"], "so --dose cannot be used with it"),
        (["Hello", "-t", "a=0.1", "--sweep", "0.1,0.2"], "so --trait NAME=DOSE cannot be used with it"),
        (["--vectors", "v", "calibrate", "-t", "user_risk"], "calibrate is a command and must come before its options"),
        (["axis", "--questions", "2", "--output", "nowhere", "--model", "no such model"], "unknown model"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(command, arguments, message):
    found = command(*arguments)
    assert message in str(found.exception)
    assert "\n" not in str(found.exception)


def test_what_is_written_for_elsewhere_warns_of_a_large_dose_too(command, reader, monkeypatch, tmp_path, capsys):
    from demeanor.cli import console

    monkeypatch.setattr(console, "load_scorer", lambda *_: SimpleNamespace(reader=reader, vectors=vector_set()))
    found = command("export", "--trait", f"warmth={WARN + 0.1}", "--to", "llama.cpp", "--output", tmp_path / "warm.gguf")
    assert found.exception is None
    assert "may stop making sense" in " ".join((found.stderr + capsys.readouterr().err).split())
    assert (tmp_path / "warm.gguf").exists()


def test_the_axis_of_a_model_is_saved_and_told(command, reader, monkeypatch, tmp_path, capsys):
    from demeanor.cli import console

    monkeypatch.setattr(console, "load_reader", lambda *_: reader)
    found = command("axis", "--questions", "4", "--max-tokens", "3", "--output", tmp_path / "axis")
    assert found.exception is None
    assert list(VectorSet.load(tmp_path / "axis").traits) == [NAME]
    assert "telling the default assistant from its roles on new questions" in found.stdout + capsys.readouterr().out


def test_help_shows_the_options_and_the_commands(command):
    shown = command("--help").output
    for word in ("--trait", "--dose", "--sweep", "calibrate", "export", "bake", "axis"):
        assert word in shown


def test_the_report_holds_the_recommendation_and_stays_one_file(tmp_path):
    from demeanor.reports.steering import write_report

    found = sweep_of(point(1, 0.1, 0.2), point(1, -0.1, 0.1), point(2, 0.1, 0.6), point(2, -0.1, 0.0, ratio=math.inf))
    write_report([found], tmp_path / "steering.html")
    page = (tmp_path / "steering.html").read_text()
    assert "dose +0.10 at layer 2" in page
    assert "none of these doses" in page
    assert "src=" not in page.replace("data:", "").split("<body")[1].split("<script")[0]


# the real model


@pytest.fixture
def real(embedded_scorer):
    return embedded_scorer.reader


@pytest.fixture
def empathy(embedded_scorer):
    """The mean difference of the empathy pack's poles, at the layer that it was taken at."""
    return embedded_scorer.vectors["empathetic_responsiveness"].steering.direction


@pytest.mark.model
def test_steering_the_real_model_changes_steered_rows_only(real, empathy):
    prompts = [[Message("user", text)] for text in ("I failed my exam.", "My cat is ill.", "I feel alone tonight.", "I lost my job.")]
    sampling = Sampling(max_new_tokens=24, seed=1)
    warm = Plan((Intervention("add", 14, empathy, 25.0),))
    plain = steered_replies(real, prompts, [Plan()] * 4, sampling)
    mixed = steered_replies(real, prompts, [warm, Plan(), warm, Plan()], sampling)
    assert [m.reply == p.reply for m, p in zip(mixed, plain, strict=True)] == [False, True, False, True]


@pytest.mark.model
def test_the_real_model_baked_is_the_hook_to_rounding(real, empathy, tmp_path):
    warm = Plan((Intervention("add", 14, empathy, 25.0),))
    save_baked(real, warm, tmp_path / "baked")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "baked", dtype=real.model.dtype).eval()
    ids = torch.tensor([real.encoder.prompt_ids([Message("user", "I feel alone tonight.")])] * 2)
    with torch.no_grad():
        plain = real.model(input_ids=ids).logits.float()
        with Steering(real.model, rows=[warm.interventions, []]):
            wanted, unsteered = real.model(input_ids=ids).logits.float()
        found = loaded(input_ids=ids).logits.float()
    assert torch.equal(unsteered, plain[1])
    plain, found = plain[0], found[0]
    assert (found - wanted).norm() < 0.1 * (wanted - plain).norm()
    assert json.loads((tmp_path / "baked" / "demeanor_steering.json").read_text())["made_from"]


@pytest.mark.model
def test_the_items_are_within_the_real_model_s_reach_and_a_huge_dose_costs_some(real, empathy):
    few = ITEMS[:12]
    able = accuracy(real, items=few)
    assert able >= 0.6  # a quarter is guessing
    assert accuracy(real, Plan((Intervention("add", 14, empathy, 1000.0),)), few) < able
