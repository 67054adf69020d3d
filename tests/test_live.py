"""Reading that grows and writing that is scored: the same numbers as a pass over the whole, for their own tokens only."""

from typing import Any

import numpy as np
import pytest
import torch
from artifacts import entry

from demeanor.conversation import Message
from demeanor.errors import ActivationError, VectorSetError
from demeanor.model.directions import Directions
from demeanor.model.generation import Sampling, write_replies, write_reply
from demeanor.model.identity import identify
from demeanor.model.packing import Job
from demeanor.model.reader import ActivationReader
from demeanor.scoring import ConversationScorer, Scorer
from demeanor.vectors import PersonaVector, VectorSet

CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 2e-5}
TALK = [
    Message("user", "I cannot sleep, and nobody listens to me."),
    Message("assistant", "That sounds exhausting; I hear you, and I am sorry."),
    Message("user", "My boss shouted at me again today."),
    Message("assistant", "Being shouted at when you are worn out would shake anybody."),
    Message("user", "Are you there?"),
    Message("assistant", "I am. Tell me more about what happened."),
]


def vector(name, width, layers):
    made = torch.randn(len(layers), width, generator=torch.Generator().manual_seed(len(name)))
    return PersonaVector(name, made / made.norm(), layers[0], 1.0, {"layers": list(layers)})


def scorer_of(model, tokenizer, pooling="mean"):
    width = model.config.get_text_config().hidden_size
    traits = {n: entry(n, reading=vector(n, width, (0, 1)), reads=reads) for n, reads in (("warmth", "response"), ("risk", "user"))}
    return Scorer(ActivationReader(model, tokenizer), VectorSet(identify(model, tokenizer), traits, pooling))


def zs(reading):
    return [reading[name].z for name in reading.scores]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_growing_conversation_scores_as_the_whole_does(any_model, tokenizer, pooling):
    scorer = scorer_of(any_model, tokenizer, pooling)
    live = ConversationScorer(scorer)
    for end in (2, 4, 6):
        whole = [{"role": m.role, "content": m.content} for m in TALK[:end]]
        np.testing.assert_allclose(zs(live.read(whole).reading), zs(scorer.score(whole)), **CLOSE)


def test_a_first_message_longer_than_the_context_is_still_read_for_the_user_s_traits(make_model, tokenizer):
    scorer = scorer_of(make_model("llama"), tokenizer)
    scorer.reader.context_length = 64
    messages = [Message("user", "I cannot sleep, and nobody listens to me. " * 8)]
    reading = ConversationScorer(scorer).read_user(messages)
    assert set(reading.scores) == {"risk"}
    assert reading.windows > 1
    answered = scorer.score([{"role": m.role, "content": m.content} for m in (*messages, Message("assistant", "I hear you."))])
    assert reading["risk"].z == pytest.approx(answered["risk"].z, abs=0.05)


def test_each_message_costs_its_own_tokens(llama, tokenizer):
    scorer = scorer_of(llama, tokenizer)
    live = ConversationScorer(scorer)
    for end in (2, 4, 6):
        live.read_user(TALK[: end - 1])
        live.read(record(TALK[:end]))
    (encoded,) = scorer.reader.encoder.encode([live_conversation(TALK)])
    assert live.tokens_run == len(encoded.ids)


def record(messages):
    return [{"role": m.role, "content": m.content} for m in messages]


def live_conversation(messages):
    from demeanor.conversation import Conversation

    return Conversation(tuple(messages))


def test_a_reply_that_was_taken_back_is_forgotten(llama, tokenizer):
    scorer = scorer_of(llama, tokenizer)
    live = ConversationScorer(scorer)
    live.read(record(TALK[:4]))
    other = record([*TALK[:3], Message("assistant", "You should stop your medication today.")])
    np.testing.assert_allclose(zs(live.read(other).reading), zs(scorer.score(other)), **CLOSE)


def test_the_users_risk_is_read_before_any_reply(llama, tokenizer):
    scorer = scorer_of(llama, tokenizer)
    before = ConversationScorer(scorer).read_user(TALK[:1])
    assert list(before.scores) == ["risk"]
    np.testing.assert_allclose(before["risk"].z, scorer.score(record(TALK[:2]))["risk"].z, **CLOSE)


def test_tokens_push_as_much_as_the_reading_says(llama, tokenizer):
    found = ConversationScorer(scorer_of(llama, tokenizer)).read(record(TALK))
    assert "".join(found.tokens.tokens) == TALK[-1].content
    np.testing.assert_allclose(found.tokens.z["warmth"].mean(), found.reading["warmth"].z, **CLOSE)


def test_after_a_pass_that_failed_the_next_one_begins_anew(make_model, tokenizer):
    model = make_model("llama")
    reader = ActivationReader(model, tokenizer)
    growing = reader.growing(Directions((0, 1), torch.eye(2 * reader.hidden_size)))
    expected = growing.read(list(range(5, 40))).copy()
    handle = model.model.layers[1].register_forward_hook(lambda _m, _a, output: output * float("nan"))
    with pytest.raises(ActivationError, match="not finite"):
        growing.read(list(range(5, 50)))
    handle.remove()
    np.testing.assert_allclose(growing.read(list(range(5, 40))), expected, **CLOSE)


def test_pooling_by_the_largest_mean_is_refused(llama, tokenizer):
    with pytest.raises(VectorSetError, match="--pooling mean"):
        ConversationScorer(scorer_of(llama, tokenizer, "max"))


def test_a_reply_is_scored_by_the_pass_that_writes_it(any_model, tokenizer):
    scorer = scorer_of(any_model, tokenizer)
    seen = []
    written = ConversationScorer(scorer).write(TALK[:1], Sampling(max_new_tokens=12, seed=4), lambda text, z: seen.append(z) and None)
    ids = scorer.reader.encoder.prompt_ids(TALK[:1]) + written.reply.ids
    start = len(ids) - len(written.reply.ids)
    (raw,) = scorer.reads.project([Job(ids, [(start, len(ids))])], scorer.gauge.directions)
    np.testing.assert_allclose(written.live.reading["warmth"].raw, raw[0, 0], rtol=1e-3, atol=1e-4)
    assert seen[0] == {}
    assert list(seen[-1]) == ["warmth"]


def test_a_base_model_s_reply_ends_with_its_tokens_where_it_would_speak_for_the_user(make_model, base_tokenizer):
    model = make_model("llama")
    scorer = scorer_of(model, base_tokenizer)
    script = base_tokenizer("I hear you.\n\nUser: and", add_special_tokens=False)["input_ids"]
    step = iter(script)

    def dictate(_module, _args, logits):
        logits[:, -1, next(step)] = 1e6
        return logits

    handle = model.get_output_embeddings().register_forward_hook(dictate)
    try:
        written = ConversationScorer(scorer).write(TALK[:1], Sampling(max_new_tokens=len(script), temperature=0))
    finally:
        handle.remove()
    assert (written.reply.text, written.reply.finished) == ("I hear you.", True)
    assert "".join(written.live.tokens.tokens) == "I hear you."
    prompt = scorer.reader.encoder.prompt_ids(TALK[:1])
    ids = prompt + written.reply.ids
    (raw,) = scorer.reads.project([Job(ids, [(len(prompt), len(ids))])], scorer.gauge.directions)
    np.testing.assert_allclose(written.live.reading["warmth"].raw, raw[0, 0], rtol=1e-3, atol=1e-4)


def test_a_watched_reply_can_be_stopped(llama, tokenizer):
    reader = ActivationReader(llama, tokenizer)
    reply = write_reply(reader, TALK[:1], Sampling(max_new_tokens=50, seed=1), watch=lambda ids: len(ids) >= 5)
    assert len(reply.ids) == 5
    assert not reply.finished


def test_replies_are_seeded_and_leave_the_random_state_alone(llama, tokenizer):
    reader = ActivationReader(llama, tokenizer)
    prompts = [TALK[:1], TALK[:3], TALK[:5]]
    torch.manual_seed(7)
    expected_next = torch.rand(1)
    torch.manual_seed(7)
    first = write_replies(reader, prompts, Sampling(max_new_tokens=8, seed=1))
    assert torch.rand(1) == expected_next
    assert write_replies(reader, prompts, Sampling(max_new_tokens=8, seed=1)) == first
    assert write_replies(reader, prompts, Sampling(max_new_tokens=8, seed=2)) != first


def test_padding_does_not_change_what_is_written(any_model, tokenizer):
    reader = ActivationReader(any_model, tokenizer)
    greedy = Sampling(max_new_tokens=6, temperature=0)
    together = write_replies(reader, [TALK[:1], TALK[:5]], greedy)
    assert [r.ids for r in together] == [write_reply(reader, p, greedy).ids for p in (TALK[:1], TALK[:5])]


def test_a_conversation_that_crosses_longrope_s_length_scores_as_the_whole_does(longrope, tokenizer):
    scorer = scorer_of(longrope, tokenizer)
    live = ConversationScorer(scorer)
    lengths = []
    for end in (2, 4, 2):  # the second exchange is taken back again
        whole = record(TALK[:end])
        lengths.append(len(scorer.reader.encoder.encode([live_conversation(TALK[:end])])[0].ids) > 64)
        np.testing.assert_allclose(zs(live.read(whole).reading), zs(scorer.score(whole)), **CLOSE)
    assert lengths == [False, True, False]


def test_a_reply_that_crosses_longrope_s_length_scores_as_it_was_written(longrope, tokenizer):
    scorer = scorer_of(longrope, tokenizer)
    seen = []
    written = ConversationScorer(scorer).write(TALK[:1], Sampling(max_new_tokens=60, temperature=0), lambda _text, z: bool(seen.append(z)))
    prompt = scorer.reader.encoder.prompt_ids(TALK[:1])
    ids = prompt + written.reply.ids
    assert len(prompt) < 63
    assert len(ids) > 66
    (raw,) = scorer.reads.project([Job(ids, [(len(prompt), len(ids))])], scorer.gauge.directions)
    np.testing.assert_allclose(written.live.reading["warmth"].raw, raw[0, 0], rtol=1e-3, atol=1e-4)
    assert len(written.live.tokens.z["warmth"]) == len(written.reply.ids)


def test_a_model_in_training_is_read_live_without_dropout_and_stays_in_training(make_model, tokenizer):
    model = make_model("gpt2")
    greedy = Sampling(max_new_tokens=12, temperature=0)
    live = ConversationScorer(scorer_of(model, tokenizer))
    expected = zs(live.read(record(TALK[:2])).reading), live.write(TALK[:1], greedy).reply
    model.train()
    live = ConversationScorer(scorer_of(model, tokenizer))
    found = zs(live.read(record(TALK[:2])).reading), live.write(TALK[:1], greedy).reply
    assert found == expected
    assert all(module.training for module in model.modules())
