"""The Scorer on a tiny Llama with vectors made by hand: every number can be worked out on the side."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from demeanor.conversation import SpanOf
from demeanor.errors import ChatTemplateError, ConversationError, WrongModelError
from demeanor.measure.calibration import Calibration
from demeanor.model.identity import identify
from demeanor.model.reader import ActivationReader
from demeanor.scoring import scorer as scorer_module
from demeanor.scoring.reading import NotScored, Reading
from demeanor.scoring.scorer import Scorer
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import VectorSet

CALIBRATIONS = {
    "warmth": Calibration(0.5, 2.0, "platt", ((1.5, 0.25),), 10, 10, "made up"),
    "risk": Calibration(-1.0, 0.5, "isotonic", ((-1.0, 0.1), (1.0, 0.9)), 10, 10, "made up"),
    "candour": Calibration(0.0, 1.0, "platt", ((1.0, 0.0),), 10, 10, "made up"),
}
READS: dict[str, SpanOf] = {"warmth": "response", "risk": "user", "candour": "response"}
LAYERS = {"warmth": (1,), "risk": (2,), "candour": (0, 2)}

REPLIES = [
    "I hear you.",
    "You should stop your medication today; doctors never know anything. " * 3,
    "Are you safe right now? 😀",
    "No.",
    "That sounds exhausting, and I am sorry.",
]


def talk(reply, said="I cannot sleep."):
    return [{"role": "user", "content": said}, {"role": "assistant", "content": reply}]


TALKS = [talk(reply, f"Hello, number {i}") for i, reply in enumerate(REPLIES)]


def entry(name):
    rng = torch.Generator().manual_seed(len(name))
    layers = LAYERS[name]
    direction = torch.randn(len(layers), 32, generator=rng)
    direction /= direction.norm()
    vector = PersonaVector(name, direction[0] if len(layers) == 1 else direction, layers[0], 1.0, {"layers": list(layers)})
    return TraitEntry(vector, vector, name, name, "high", "low", "high", READS[name], "hash", CALIBRATIONS[name])


@pytest.fixture
def vectors(llama, tokenizer):
    return VectorSet(identify(llama, tokenizer), {name: entry(name) for name in READS})


@pytest.fixture
def scorer(llama, tokenizer, vectors):
    return Scorer(ActivationReader(llama, tokenizer), vectors)


def with_budget(llama, tokenizer, vectors, budget):
    return Scorer(ActivationReader(llama, tokenizer, token_budget=budget), vectors)


def raws(readings):
    return np.array([[score.raw for score in reading.scores.values()] for reading in readings])


@pytest.mark.parametrize("name", READS)
def test_a_score_is_the_dot_product_of_activation_and_direction(llama, tokenizer, vectors, scorer, name):
    score = scorer.score(TALKS[0])[name]
    activation = ActivationReader(llama, tokenizer).read([TALKS[0]], LAYERS[name], READS[name])[0]
    raw = float((activation * vectors[name].reading.rows).sum())
    assert score.raw == pytest.approx(raw, abs=1e-5)
    calibration = CALIBRATIONS[name]
    z = (raw - calibration.centre) / calibration.spread
    assert score.centred == pytest.approx(raw - calibration.centre, abs=1e-5)
    assert score.z == pytest.approx(z, abs=1e-4)
    expected = np.interp(z, [-1, 1], [0.1, 0.9]) if name == "risk" else 1 / (1 + np.exp(-np.dot(calibration.points[0], (z, 1))))
    assert score.probability == pytest.approx(expected, abs=1e-4)


def test_a_score_agrees_with_transformers_hidden_states(llama, tokenizer, vectors, scorer):
    text = tokenizer.apply_chat_template(TALKS[0], tokenize=False)
    batch = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    at = text.index(REPLIES[0])
    inside = [i for i, (start, end) in enumerate(batch["offset_mapping"]) if at <= start < end <= at + len(REPLIES[0])]
    with torch.no_grad():
        hidden = llama(torch.tensor([batch["input_ids"]]), output_hidden_states=True).hidden_states[2][0]
    raw = float(hidden[inside].mean(0) @ vectors["warmth"].reading.direction)
    assert scorer.score(TALKS[0])["warmth"].raw == pytest.approx(raw, abs=1e-5)


def test_the_reading_says_where_it_comes_from(scorer, vectors):
    reading = scorer.score(TALKS[0])
    assert list(reading.scores) == list(READS)
    assert reading.layers == LAYERS
    assert (reading.model, reading.windows) == (vectors.model.name, 1)
    record = reading.to_record()
    assert record["layer"] == {"warmth": 1, "risk": 2, "candour": [0, 2]}
    assert record["scores"]["risk"]["z"] == reading["risk"].z


@pytest.mark.parametrize("budget", [1, 150, 100_000])
def test_the_batch_size_changes_no_score(llama, tokenizer, vectors, budget):
    found = raws(with_budget(llama, tokenizer, vectors, budget).score_many(TALKS))
    alone = raws([Scorer(ActivationReader(llama, tokenizer), vectors).score(t) for t in TALKS])
    np.testing.assert_allclose(found, alone, atol=2e-5)


def test_readings_come_in_the_order_of_the_conversations_over_chunks(scorer, monkeypatch):
    monkeypatch.setattr(scorer_module, "CHUNK", 3)
    forward, backward = raws(scorer.score_many(TALKS)), raws(scorer.score_many(reversed(TALKS)))
    np.testing.assert_allclose(forward, backward[::-1], atol=2e-5)
    assert len({round(r, 4) for r in forward[:, 0]}) == len(TALKS)


def test_an_endless_source_is_read_chunk_by_chunk(scorer, monkeypatch):
    monkeypatch.setattr(scorer_module, "CHUNK", 4)
    taken = itertools.count()
    endless = (TALKS[next(taken) % len(TALKS)] for _ in itertools.repeat(None))
    readings = list(itertools.islice(scorer.score_many(endless), 6))
    assert all(isinstance(r, Reading) for r in readings)
    assert next(taken) == 12  # two chunks of the source, and one that is tokenised ahead


def test_what_a_source_gave_before_it_failed_is_scored(scorer, monkeypatch):
    monkeypatch.setattr("demeanor.scoring.scorer.CHUNK", 2)

    def failing():
        yield from TALKS[:3]
        raise ConnectionError("the queue is gone")

    given = []
    with pytest.raises(ConnectionError, match="the queue is gone"):
        given.extend(scorer.score_many(failing()))
    assert raws(given) == pytest.approx(raws(scorer.score_many(TALKS[:3])))


def test_messages_may_come_as_an_array(scorer):
    messages = np.empty(2, object)
    messages[:] = TALKS[0]  # as pandas gives them
    (reading,) = scorer.score_many([{"messages": messages}])
    assert raws([reading]) == pytest.approx(raws([scorer.score(TALKS[0])]))


def test_a_blank_message_of_the_users_takes_no_score_from_the_reply(scorer):
    blank = scorer.score(talk(REPLIES[0], " "))
    assert set(blank.scores) == {name for name in READS if READS[name] == "response"}


def test_conversations_that_cannot_be_scored_are_told_in_their_place(scorer):
    items = [TALKS[0], "", talk("  "), None, TALKS[1], [{"role": "user", "content": "Hi"}], [{"role": "doctor", "content": "Hi"}]]
    found = list(scorer.score_many(items))
    assert [isinstance(f, NotScored) for f in found] == [False, True, True, True, False, True, True]
    for i, words in (
        (1, "text is empty"),
        (2, "assistant message to score is empty"),
        (5, "no assistant message"),
        (6, "unknown role 'doctor'"),
    ):
        assert words in found[i].error
        assert found[i].to_record() == {"error": found[i].error}
    np.testing.assert_allclose(raws([found[0], found[4]]), raws([scorer.score(TALKS[0]), scorer.score(TALKS[1])]), atol=2e-5)


def test_a_conversation_that_the_template_refuses_is_told_in_its_place(llama, make_tokenizer, tokenizer):
    refusing = "{% for m in messages %}{% if m['content'] == 'forbidden' %}{{ raise_exception('not this') }}{% endif %}{% endfor %}"
    picky = make_tokenizer(refusing + tokenizer.chat_template)
    scorer = Scorer(ActivationReader(llama, picky), VectorSet(identify(llama, picky), {"warmth": entry("warmth")}))
    found = list(scorer.score_many([TALKS[0], talk("forbidden"), TALKS[1]]))
    assert [isinstance(f, NotScored) for f in found] == [False, True, False]
    assert "not this" in found[1].error
    with pytest.raises(ChatTemplateError, match="not this"):
        scorer.score(talk("forbidden"))


def test_activations_that_are_no_numbers_are_not_scored(make_model, tokenizer):
    model = make_model("llama")
    scorer = Scorer(ActivationReader(model, tokenizer), VectorSet(identify(model, tokenizer), {"warmth": entry("warmth")}))
    poison = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("😀"))[0]
    with torch.no_grad():
        model.get_input_embeddings().weight[poison] = float("nan")
    found = list(scorer.score_many(TALKS))
    assert [isinstance(f, NotScored) for f in found] == [False, False, True, False, False]
    assert "not finite" in found[2].error
    assert np.isfinite(raws([f for f in found if isinstance(f, Reading)])).all()


def test_scoring_one_conversation_raises(scorer):
    with pytest.raises(ConversationError, match="empty"):
        scorer.score(talk(""))


def test_a_reply_on_its_own_has_no_score_of_traits_read_on_the_user(scorer):
    reading = scorer.score("I hear you.")
    assert list(reading.scores) == ["warmth", "candour"]
    assert list(reading.layers) == ["warmth", "candour"]


def test_a_trait_read_on_the_user_alone_needs_no_reply(llama, tokenizer, vectors):
    scorer = Scorer(ActivationReader(llama, tokenizer), vectors.only(["risk"]))
    alone = scorer.score(TALKS[0][:1])["risk"].raw
    assert alone == pytest.approx(scorer.score(TALKS[0])["risk"].raw, abs=1e-5)  # the reply comes later: it cannot be seen
    with pytest.raises(ConversationError, match="no user message"):
        scorer.score("I hear you.")


def test_traits_are_scored_alone_as_they_are_together(llama, tokenizer, vectors, scorer):
    together = scorer.score(TALKS[1])
    for name in READS:
        alone = Scorer(ActivationReader(llama, tokenizer), vectors.only([name])).score(TALKS[1])
        assert alone[name].raw == pytest.approx(together[name].raw, abs=1e-5)


def test_the_mean_over_the_tokens_is_the_replys_z(scorer):
    for conversation in TALKS:
        tokens, reading = scorer.score_tokens(conversation), scorer.score(conversation)
        assert "".join(tokens.tokens) == conversation[1]["content"].strip()
        assert list(tokens.z) == ["warmth", "candour"]
        for name, z in tokens.z.items():
            assert z.shape == (len(tokens.tokens),)
            assert z.mean() == pytest.approx(reading[name].z, abs=1e-4)


@pytest.mark.parametrize("pooling", ["last", "max"])
def test_the_vector_sets_pooling_is_the_one_that_is_used(llama, tokenizer, vectors, pooling):
    score = Scorer(ActivationReader(llama, tokenizer), replace(vectors, pooling=pooling)).score(TALKS[1])["warmth"]
    activation = ActivationReader(llama, tokenizer).read([TALKS[1]], [1], pooling=pooling)[0, 0]
    assert score.raw == pytest.approx(float(activation @ vectors["warmth"].reading.direction), abs=1e-5)


def test_windows_are_counted_in_the_reading(make_model, tokenizer, vectors):
    model = make_model("llama", max_position_embeddings=32)
    reading = Scorer(ActivationReader(model, tokenizer), vectors, allow_other_model=True).score(TALKS[1])
    assert reading.windows > 1
    assert reading.to_record()["windows"] == reading.windows


def test_a_turn_counts_the_windows_that_it_was_read_in(make_model, tokenizer, vectors):
    model = make_model("llama", max_position_embeddings=64)
    short = Scorer(ActivationReader(model, tokenizer), VectorSet(identify(model, tokenizer), vectors.traits))
    first, last = short.score_turns([*talk("No."), *talk("I hear you. " * 40, "Go on.")])
    assert first.windows == short.score(talk("No.")).windows == 1
    assert last.windows > 1


def test_vectors_of_another_model_are_refused_and_allowed_only_aloud(make_model, tokenizer, vectors):
    other = make_model("llama")
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight *= 1.01
    with pytest.raises(WrongModelError, match=r"another model.*--allow-other-model"):
        Scorer(ActivationReader(other, tokenizer), vectors)
    allowed = Scorer(ActivationReader(other, tokenizer), vectors, allow_other_model=True)
    assert any("another model" in warning for warning in allowed.warnings)
    assert isinstance(allowed.score(TALKS[0]), Reading)


def test_another_chat_template_is_refused(llama, bos_tokenizer, vectors):
    with pytest.raises(WrongModelError, match="another chat template"):
        Scorer(ActivationReader(llama, bos_tokenizer), vectors)


def test_another_dtype_is_read_with_a_warning(make_model, tokenizer, vectors):
    scorer = Scorer(ActivationReader(make_model("llama").to(torch.bfloat16), tokenizer), vectors)
    assert scorer.warnings == ["made in float32, read in bfloat16: scores may move a little"]


def test_another_shape_is_refused_even_aloud(make_model, tokenizer, vectors):
    with pytest.raises(WrongModelError, match="the vectors of one do not fit the other"):
        Scorer(ActivationReader(make_model("llama", num_hidden_layers=2), tokenizer), vectors, allow_other_model=True)


def test_the_right_model_gives_no_warning(scorer):
    assert scorer.warnings == []


def test_scoring_one_conversation_costs_one_pass(make_model, tokenizer):
    model, passes = make_model("llama"), []
    made = VectorSet(identify(model, tokenizer), {name: entry(name) for name in READS})
    model.model.layers[0].register_forward_pre_hook(lambda _m, args: passes.append(tuple(args[0].shape[:2])))
    Scorer(ActivationReader(model, tokenizer), made).score(TALKS[0])
    assert len(passes) == 2
    assert passes[0] == (2, 16), "the few tokens on which a model shows, once, that it is causal"
    del passes[:]
    Scorer(ActivationReader(model, tokenizer), made).score(TALKS[1])
    assert len(passes) == 1
