"""The reader against an independent path: transformers' own hidden states, averaged here over the span."""

import threading
import weakref
from typing import Any

import pytest
import torch
import transformers

from demeanor.conversation import SpanOf
from demeanor.errors import ActivationError, ConversationError, ModelError
from demeanor.model.blocks import decoder_blocks
from demeanor.model.directions import Directions
from demeanor.model.packing import Job, plan, windows
from demeanor.model.pooling import Piece, pooler
from demeanor.model.reader import ActivationReader

LAYERS = [0, 1]  # of three: the last one's hidden state is normed, and no reference


def joined(found):
    """What a run gave for several jobs, none of which failed."""
    return torch.cat(list(found))


CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}

TALKS = [
    [{"role": "user", "content": "I cannot sleep."}, {"role": "assistant", "content": "That sounds exhausting 😀."}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I hear you, and I am sorry that this week was so hard. " * 3}],
    [
        {"role": "user", "content": "Are you there?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Nobody listens to me."},
        {"role": "assistant", "content": "I am listening; tell me more."},
    ],
    [{"role": "assistant", "content": "Hello"}],
]


def hidden_states(model, ids):
    """[layers + 1, tokens, hidden] of one row of tokens."""
    with torch.no_grad():
        return torch.stack(model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states)[:, 0]


def span_states(reader, conversation, role="assistant"):
    """The span's activations [tokens, layers, hidden] by the independent path."""
    (encoded,), (checked,) = reader._encode([conversation])
    start, end = encoded.spans[checked.last(role)]
    states = hidden_states(reader.model, encoded.ids)
    return torch.stack([states[layer + 1, start:end].float() for layer in LAYERS], dim=1)


def reference(reader, conversations, role="assistant"):
    return torch.stack([span_states(reader, c, role).mean(0) for c in conversations])


def jobs(reader, conversations):
    encoded, checked = reader._encode(conversations)
    return [Job(e.ids, [e.place(c, "response")]) for e, c in zip(encoded, checked, strict=True)]


def hooks_left(model):
    return sum(len(block._forward_hooks) for block in decoder_blocks(model))


@pytest.fixture
def reader(llama, tokenizer):
    return ActivationReader(llama, tokenizer)


def test_a_batch_reads_what_the_hidden_states_say(any_model, tokenizer):
    reader = ActivationReader(any_model, tokenizer)
    found = reader.read(TALKS, LAYERS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, reference(reader, TALKS), **CLOSE)


def test_a_batch_reads_what_each_conversation_reads_alone(any_model, tokenizer):
    together = ActivationReader(any_model, tokenizer).read(TALKS)
    alone = ActivationReader(any_model, tokenizer, token_budget=1).read(TALKS)
    torch.testing.assert_close(together, alone, **CLOSE)


def test_the_last_layer_is_read_before_the_final_norm(llama, reader):
    (job,) = jobs(reader, TALKS[:1])
    (start, end) = job.spans[0]
    tokens = reader.run([Job(job.ids, [(i, i + 1) for i in range(start, end)])], [2])[0][:, 0]
    torch.testing.assert_close(llama.model.norm(tokens), hidden_states(llama, job.ids)[3, start:end], **CLOSE)


def test_the_users_span_can_be_read(reader):
    conversations = [TALKS[0], TALKS[2]]
    torch.testing.assert_close(reader.read(conversations, LAYERS, "user"), reference(reader, conversations, "user"), **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_makes_no_difference(llama, make_tokenizer, side):
    reader = ActivationReader(llama, make_tokenizer(padding_side=side))
    torch.testing.assert_close(reader.read(TALKS, LAYERS), reference(reader, TALKS), **CLOSE)


def test_layers_come_in_the_order_asked_for(reader):
    up, down = reader.read(TALKS, [0, 2]), reader.read(TALKS, [2, 0])
    torch.testing.assert_close(down, up.flip(1))


@pytest.mark.parametrize("budget", [1, 60, 100_000])
def test_results_come_in_the_order_of_the_conversations(llama, tokenizer, budget):
    reader = ActivationReader(llama, tokenizer, token_budget=budget)
    finished = []
    found = reader.read(TALKS + TALKS[::-1], LAYERS, progress=finished.append)
    torch.testing.assert_close(found, reference(reader, TALKS + TALKS[::-1]), **CLOSE)
    assert sum(finished) == 8


def test_a_batch_keeps_within_the_token_budget(make_model, tokenizer):
    model = make_model("llama")
    reader = ActivationReader(model, tokenizer, token_budget=80)
    assert reader.shares_up_to  # tried on a few tokens of its own, before anything is counted
    shapes = []
    model.model.layers[0].register_forward_pre_hook(lambda _m, args: shapes.append(args[0].shape[:2]))
    reader.read(TALKS, LAYERS)
    assert all(rows == 1 or rows * tokens <= 80 for rows, tokens in shapes)
    assert max(rows for rows, _ in shapes) > 1
    assert sum(rows for rows, _ in shapes) == 4


@pytest.mark.parametrize("pooling", ["mean", "last", "max"])
def test_a_layer_on_another_device_than_the_embeddings_is_pooled_there(pooling):
    pool = pooler(pooling, [Piece(0, 0, 1, 3), Piece(1, 1, 0, 2)], 2, (2, 4), lambda tensor: tensor)
    assert pool(torch.zeros(2, 4, 8, device="meta")).device.type == "meta"


def test_pooling_is_done_in_float32(make_model, tokenizer):
    reader = ActivationReader(make_model("llama").to(torch.bfloat16), tokenizer)
    found = reader.read(TALKS[1:2], LAYERS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, reference(reader, TALKS[1:2]), rtol=1e-5, atol=1e-6)


def test_no_conversation_gives_no_rows(reader):
    assert reader.read([], LAYERS).shape == (0, 2, 32)


def test_the_pass_ends_at_the_deepest_layer_needed(any_model, tokenizer):
    reader = ActivationReader(any_model, tokenizer)
    called, handles = [], []
    reader.read(TALKS, [1])
    for i, block in enumerate(reader.blocks):
        handles.append(block.register_forward_pre_hook(lambda *_, i=i: called.append(i)))
    handles.append(any_model.get_output_embeddings().register_forward_pre_hook(lambda *_: called.append("head")))
    try:
        reader.read(TALKS, [1])
        assert called == [0, 1]
        called.clear()
        reader.read(TALKS, [0, 2])
        assert called == [0, 1, 2]
    finally:
        for handle in handles:
            handle.remove()


def test_the_model_is_whole_after_a_pass_that_ended_early(any_model, tokenizer):
    ids = list(range(5, 30))
    before, hooks = hidden_states(any_model, ids), hooks_left(any_model)
    ActivationReader(any_model, tokenizer).read(TALKS, [0])
    assert hooks_left(any_model) == hooks
    torch.testing.assert_close(hidden_states(any_model, ids), before, rtol=0, atol=0)


def test_a_model_set_to_give_its_hidden_states_is_whole_too(make_model, tokenizer):
    model, ids = make_model("llama", output_hidden_states=True), torch.arange(5, 30)[None]
    with torch.no_grad():
        before = model(ids)
        ActivationReader(model, tokenizer).read(TALKS, [0])
        after = model(ids)
    torch.testing.assert_close(after.logits, before.logits, rtol=0, atol=0)
    torch.testing.assert_close(torch.stack(after.hidden_states), torch.stack(before.hidden_states), rtol=0, atol=0)


def test_an_error_in_the_model_comes_through_and_leaves_no_hook(make_model, tokenizer, monkeypatch):
    model = make_model("llama")
    reader = ActivationReader(model, tokenizer)

    def broken(*_args, **_kwargs):
        raise RuntimeError("the kernel is broken")

    monkeypatch.setattr(model.model.layers[1], "forward", broken)
    with pytest.raises(RuntimeError, match="the kernel is broken"):
        reader.read(TALKS, [0, 1, 2])
    monkeypatch.undo()
    assert hooks_left(model) == 0
    torch.testing.assert_close(reader.read(TALKS, LAYERS), reference(reader, TALKS), **CLOSE)


def test_a_pass_of_another_thread_through_the_same_model_takes_and_gives_nothing(make_model, tokenizer):
    model = make_model("llama")
    readers = [ActivationReader(model, tokenizer) for _ in range(2)]
    expected = [reader.read([talk], LAYERS) for reader, talk in zip(readers, TALKS[:2], strict=True)]
    met, found = [], []

    def meanwhile(*_):
        if not met:  # the first pass stops here, halfway, until another thread has read something else
            met.append(True)
            other = threading.Thread(target=lambda: found.append(readers[1].read([TALKS[1]], LAYERS)))
            other.start()
            other.join()

    with readers[0].blocks[1].register_forward_pre_hook(meanwhile):
        mine = readers[0].read([TALKS[0]], LAYERS)
    torch.testing.assert_close([mine, *found], expected, **CLOSE)


OUT_OF_MEMORY = [
    (torch.OutOfMemoryError, "CUDA out of memory"),
    (
        RuntimeError,
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
    ),
    (RuntimeError, "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    (RuntimeError, "MPS backend out of memory (MPS allocated: 9 GB)"),
]


class ShortOfMemory:
    """A hook that raises as CUDA does where a batch is too large, and notes the batches and the tensors it saw."""

    def __init__(self, rows, tokens=10_000, error=OUT_OF_MEMORY[0]):
        self.rows, self.tokens, self.error = rows, tokens, error
        self.batches, self.refused, self.kept = [], [], []

    def __call__(self, _module, args):
        self.kept += [ref for ref in self.refused if ref() is not None]
        rows, tokens = args[0].shape[:2]
        self.batches.append(rows)
        if rows > self.rows or tokens > self.tokens:
            self.refused.append(weakref.ref(args[0]))
            kind, message = self.error
            raise kind(message)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "linux", "windows", "mps"])
def test_a_batch_that_runs_out_of_memory_is_halved_and_tried_again(make_model, tokenizer, error):
    model = make_model("llama")
    reader = ActivationReader(model, tokenizer)
    expected = reader.read(TALKS, LAYERS)
    short = ShortOfMemory(rows=1, error=error)
    model.model.layers[1].register_forward_pre_hook(short)
    torch.testing.assert_close(reader.read(TALKS, LAYERS), expected, **CLOSE)
    assert short.batches == [4, 2, 1, 1, 2, 1, 1]
    assert not short.kept, "the failed pass's tensors are still held while the halves run"


def test_one_conversation_too_long_for_the_memory_is_the_only_one_lost(make_model, tokenizer):
    model = make_model("llama")
    reader = ActivationReader(model, tokenizer)
    work = jobs(reader, TALKS)
    longest = max(len(job.ids) for job in work)
    model.model.layers[0].register_forward_pre_hook(ShortOfMemory(rows=100, tokens=longest - 1))
    found = reader.run(work, LAYERS)
    assert [isinstance(f, ActivationError) for f in found] == [False, True, False, False]
    assert f"out of memory on a single conversation ({longest} tokens" in str(found[1])
    kept = [i for i in range(4) if i != 1]
    model.model.layers[0]._forward_pre_hooks.clear()
    torch.testing.assert_close(joined(found[i] for i in kept), reference(reader, [TALKS[i] for i in kept]), **CLOSE)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers_spoil_no_neighbour(make_model, tokenizer, name, bad):
    model = make_model(name)
    reader = ActivationReader(model, tokenizer)
    expected = reference(reader, TALKS)
    poison = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("😀"))[0]  # only the first conversation holds it
    assert [poison in job.ids for job in jobs(reader, TALKS)] == [True, False, False, False]
    with torch.no_grad():
        model.get_input_embeddings().weight[poison] = bad
    found = reader.run(jobs(reader, TALKS), LAYERS)
    assert isinstance(found[0], ActivationError)
    assert "not finite" in str(found[0])
    torch.testing.assert_close(joined(found[1:]), expected[1:], **CLOSE)
    with pytest.raises(ActivationError, match="float32"):
        reader.read(TALKS, LAYERS)


SIZE = 32  # the context of the models below
LONG = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I hear you, and I am sorry that it is so hard. " * 6}]


def windowed_states(model, ids, layers):
    """Each token's activation [tokens, layers, hidden]: windows that overlap by half, each giving its new tokens."""
    new, windows = [hidden_states(model, ids[:SIZE])], 1
    done = SIZE
    while done < len(ids):
        end = min(len(ids), done + SIZE // 2)
        new.append(hidden_states(model, ids[done - SIZE // 2 : end])[:, done - end :])
        done, windows = end, windows + 1
    states = torch.cat(new, dim=1)
    assert states.shape[1] == len(ids)
    return torch.stack([states[layer + 1] for layer in layers], dim=1), windows


@pytest.fixture(params=["llama", "gpt2"])
def short_reader(request, make_model, tokenizer):
    return ActivationReader(make_model(request.param, max_position_embeddings=SIZE), tokenizer)


def test_conversations_longer_than_the_context_are_read_in_windows(short_reader):
    (job,) = jobs(short_reader, [LONG])
    states, windows = windowed_states(short_reader.model, job.ids, LAYERS)
    start, end = job.spans[0]
    assert windows > 3
    assert short_reader.windows(len(job.ids)) == windows
    found = short_reader.read([TALKS[3], LONG, TALKS[0]], LAYERS)
    torch.testing.assert_close(found[1], states[start:end].mean(0), **CLOSE)
    torch.testing.assert_close(found[[0, 2]], reference(short_reader, [TALKS[3], TALKS[0]]), **CLOSE)


def test_every_token_of_a_long_span_is_read_once(short_reader, tokenizer):
    (job,) = jobs(short_reader, [LONG])
    start, end = job.spans[0]
    texts, activations = short_reader.read_tokens(LONG, LAYERS)
    assert "".join(texts) == LONG[1]["content"].strip()
    states, _ = windowed_states(short_reader.model, job.ids, LAYERS)
    torch.testing.assert_close(activations, states[start:end], **CLOSE)


@pytest.mark.parametrize(("length", "windows"), [(1, 1), (SIZE, 1), (SIZE + 1, 2), (48, 2), (49, 3), (160, 9)])
def test_the_number_of_windows(make_model, tokenizer, length, windows):
    assert ActivationReader(make_model("llama", max_position_embeddings=SIZE), tokenizer).windows(length) == windows


def test_the_tokenizers_own_limit_is_kept_too(llama, make_tokenizer):
    assert ActivationReader(llama, make_tokenizer(model_max_length=40)).context_length == 40
    assert ActivationReader(llama, make_tokenizer()).context_length == 512


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_all_turns_in_one_pass_are_the_turns_read_one_by_one(any_model, tokenizer, role):
    reader = ActivationReader(any_model, tokenizer)
    messages = TALKS[2]
    span: SpanOf = "user" if role == "user" else "response"
    ends = [i + 1 for i, m in enumerate(messages) if m["role"] == role]
    one_by_one = torch.cat([reader.read([messages[:end]], LAYERS, span) for end in ends])
    torch.testing.assert_close(reader.read_turns(messages, LAYERS, role), one_by_one, **CLOSE)


def test_turns_without_text_are_left_out(reader):
    messages = [TALKS[0][0], {"role": "assistant", "content": " "}, *TALKS[2]]
    assert len(reader.read_turns(messages, LAYERS)) == 2
    with pytest.raises(ConversationError, match="no user message"):
        reader.read_turns(TALKS[3], LAYERS, "user")


@pytest.mark.parametrize("i", range(4))
def test_the_poolings_last_and_max(reader, i):
    states = span_states(reader, TALKS[i])
    torch.testing.assert_close(reader.read([TALKS[i]], LAYERS, pooling="last")[0], states[-1], **CLOSE)
    means = [states[at : at + 8].mean(0) for at in range(max(1, len(states) - 7))]
    torch.testing.assert_close(reader.read([TALKS[i]], LAYERS, pooling="max")[0], torch.stack(means).amax(0), **CLOSE)


def test_poolings_over_windows(short_reader):
    (job,) = jobs(short_reader, [LONG])
    states, _ = windowed_states(short_reader.model, job.ids, LAYERS)
    states = states[slice(*job.spans[0])]
    torch.testing.assert_close(short_reader.read([LONG], LAYERS, pooling="last")[0], states[-1], **CLOSE)
    largest = []
    for window in windows(job, short_reader.context_length, again=7):
        (start, end), all_states = window.spans[0], hidden_states(short_reader.model, window.ids)
        inside = torch.stack([all_states[layer + 1, start:end].float() for layer in LAYERS], dim=1)
        largest += [inside.unfold(0, 8, 1).mean(-1).amax(0)] if end - start >= 8 else []
    assert len(largest) > 2
    torch.testing.assert_close(short_reader.read([LONG], LAYERS, pooling="max")[0], torch.stack(largest).amax(0), **CLOSE)


@pytest.mark.parametrize("layers", [[3], [-1], [0, 99], []])
def test_layers_that_the_model_has_not_are_refused(reader, layers):
    with pytest.raises(ActivationError, match="0 to 2"):
        reader.read(TALKS, layers)


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "  \n"}], "assistant message to score is empty"),
        ([{"role": "user", "content": "Hi"}], "no assistant message"),
        ("", "empty"),
    ],
)
def test_a_conversation_without_a_reply_is_refused(reader, conversation, message):
    with pytest.raises(ConversationError, match=message):
        reader.read([TALKS[0], conversation], LAYERS)


def test_token_texts_keep_characters_whole(reader):
    reply = "Oh 😀 nö 👩‍👩‍👧, I hear you."
    texts, activations = reader.read_tokens([{"role": "assistant", "content": reply}], [0])
    assert "".join(texts) == reply
    assert len(texts) == len(activations) > len(reply.split())
    assert not any("\ufffd" in text for text in texts)


SHARED = [
    [{"role": "user", "content": "Nobody listens to me, and I cannot sleep at night. " * 2}, {"role": "assistant", "content": reply}]
    for reply in ("I hear you.", "You should stop your medication today.", "Are you safe right now? Is there somebody with you?", "No.")
]


def test_what_conversations_begin_with_is_shared_and_reads_the_same(any_model, tokenizer):
    reader = ActivationReader(any_model, tokenizer)
    together = reader.read([*SHARED, *TALKS], LAYERS)
    torch.testing.assert_close(together, reference(reader, [*SHARED, *TALKS]), **CLOSE)
    users = reader.read(SHARED, LAYERS, "user")
    torch.testing.assert_close(users, reference(reader, SHARED, "user"), **CLOSE)


def test_replies_to_one_context_cost_it_once(make_model, tokenizer):
    model = make_model("llama")
    reader = ActivationReader(model, tokenizer)
    assert reader.shares_up_to == 512
    run = []
    model.model.layers[0].register_forward_pre_hook(lambda _m, args: run.append(args[0].shape[0] * args[0].shape[1]))
    reader.read(SHARED, LAYERS)
    alone = sum(len(job.ids) for job in jobs(reader, SHARED))
    assert sum(run) < 0.6 * alone


def test_a_reply_whose_activations_are_no_numbers_spoils_no_other_to_the_same_context(make_model, tokenizer):
    model = make_model("llama")
    reader = ActivationReader(model, tokenizer)
    assert reader.shares_up_to
    bad = [SHARED[0][0], {"role": "assistant", "content": "Oh 😀 no"}]
    work = jobs(reader, [SHARED[0], bad, SHARED[1]])
    poison = tokenizer("😀")["input_ids"][-1]  # only the bad reply holds it
    assert [poison in job.ids for job in work] == [False, True, False]
    with torch.no_grad():
        model.get_input_embeddings().weight[poison] = torch.nan
    found = reader.run(work, LAYERS)
    assert [isinstance(f, ActivationError) for f in found] == [False, True, False]
    torch.testing.assert_close(joined(found[::2]), reference(reader, SHARED[:2]), **CLOSE)


def test_a_model_that_reads_otherwise_with_a_shared_beginning_shares_nothing(make_model, tokenizer, monkeypatch):
    model = make_model("llama")
    whole = type(model).forward

    def forgetful(self, *args, attention_mask=None, **kwargs):  # an attention that ignores a mask of one's own
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", forgetful)
    reader = ActivationReader(model, tokenizer)
    assert reader.shares_up_to == 0
    torch.testing.assert_close(reader.read(SHARED, LAYERS), reference(reader, SHARED), **CLOSE)


def test_shared_rows_that_run_out_of_memory_are_read_alone(make_model, tokenizer):
    model = make_model("llama")
    reader = ActivationReader(model, tokenizer)
    expected = reader.read(SHARED, LAYERS)
    longest = max(len(job.ids) for job in jobs(reader, SHARED))
    model.model.layers[0].register_forward_pre_hook(ShortOfMemory(rows=1, tokens=longest))
    torch.testing.assert_close(reader.read(SHARED, LAYERS), expected, **CLOSE)


@pytest.fixture(params=["Bert", "Roberta", "RoFormer"])
def encoder(request):
    """A tiny model whose tokens see later ones."""
    class_name = "BertLMHeadModel" if request.param == "Bert" else f"{request.param}ForCausalLM"
    sizes = {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{request.param}Config")(**sizes, initializer_range=0.15, pad_token_id=0)
        return getattr(transformers, class_name)(config).eval()


def test_a_model_whose_tokens_see_later_ones_is_refused(encoder, tokenizer):
    class_name = type(encoder).__name__
    reader = ActivationReader(encoder, tokenizer)
    for read in (
        lambda: reader.read(TALKS, [0]),
        lambda: reader.growing(Directions((0,), torch.eye(reader.hidden_size))).read(list(range(5, 30))),
    ):
        with pytest.raises(ModelError, match=f"{class_name} is not a causal model") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.fixture
def counted(make_model):
    """A new model, and the shapes [rows, tokens] of the passes that it has made."""
    model, shapes = make_model("llama"), []
    model.model.layers[0].register_forward_pre_hook(lambda _m, args: shapes.append(tuple(args[0].shape[:2])))
    return model, shapes


@pytest.mark.parametrize("read", ["read", "read_tokens", "read_turns"])
def test_one_text_costs_one_pass(counted, tokenizer, read):
    model, passes = counted

    def read_one(talk):
        reader = ActivationReader(model, tokenizer)
        if read == "read":
            reader.read([talk], LAYERS)
        else:
            getattr(reader, read)(talk, LAYERS)

    read_one(SHARED[0])
    assert passes[:-1] == [(2, 16)], "beside the text, only the few tokens on which the model shows that it is causal"
    assert passes[-1][0] == 1
    del passes[:]
    read_one(SHARED[1])
    assert len(passes) == 1, "the model has shown it, to whichever reader"


def test_nothing_to_read_costs_no_pass(counted, tokenizer):
    model, passes = counted
    ActivationReader(model, tokenizer).read([], LAYERS)
    assert passes == []


def test_shared_beginnings_are_tried_only_where_a_batch_has_one(counted, tokenizer):
    model, passes = counted
    reader = ActivationReader(model, tokenizer)
    reader.read(TALKS, LAYERS)
    assert passes[1:] == [(4, max(len(job.ids) for job in jobs(reader, TALKS)))]
    del passes[:]
    reader.read(SHARED, LAYERS)
    tried = len(passes)
    del passes[:]
    reader.read(SHARED, LAYERS)
    assert 0 < len(passes) < tried, "once"


def test_a_text_longer_than_the_context_costs_its_windows(make_model, tokenizer):
    model, passes = make_model("llama", max_position_embeddings=SIZE), []
    reader = ActivationReader(model, tokenizer, token_budget=1)
    reader.read(TALKS[3:], LAYERS)
    model.model.layers[0].register_forward_pre_hook(lambda _m, args: passes.append(args[0].shape[0]))
    reader.read([LONG], LAYERS)
    assert passes == [1] * reader.windows(len(jobs(reader, [LONG])[0].ids))


def test_a_model_whose_pass_gave_no_numbers_is_tried_again(encoder, tokenizer):
    whole = encoder.get_input_embeddings().weight.detach().clone()
    with torch.no_grad():
        encoder.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(ActivationError, match="not finite"):
        ActivationReader(encoder, tokenizer).read(TALKS[:1], [0])
    with torch.no_grad():
        encoder.get_input_embeddings().weight.copy_(whole)
    with pytest.raises(ModelError, match="not a causal model"):
        ActivationReader(encoder, tokenizer).read(TALKS[:1], [0])


def test_an_encoder_is_refused_on_a_single_text_and_each_time(encoder, tokenizer):
    for talk in [*TALKS[:2], LONG]:
        for reader in (ActivationReader(encoder, tokenizer), ActivationReader(encoder, tokenizer, token_budget=1)):
            for read in (lambda talk: reader.read([talk], [0]), lambda talk: reader.read_turns(talk, [0])):  # noqa: B023
                with pytest.raises(ModelError, match="not a causal model"):
                    read(talk)


@pytest.mark.parametrize("budget", [1, 100_000])
def test_conversations_on_both_sides_of_longrope_s_length_read_as_each_does_alone(longrope, tokenizer, budget):
    reader = ActivationReader(longrope, tokenizer, token_budget=budget)
    both = [*TALKS, *SHARED]
    assert {len(job.ids) > 64 for job in jobs(reader, both)} == {True, False}
    torch.testing.assert_close(reader.read(both, LAYERS), reference(reader, both), **CLOSE)


def test_a_row_of_several_short_conversations_keeps_longrope_s_short_factors(longrope, tokenizer):
    reader = ActivationReader(longrope, tokenizer)
    stems = [(range(10, 50), 3), (range(50, 80), 2)]
    work = [Job([*stem, *range(200 + 20 * i, 220 + 20 * i)], [(len(stem), len(stem) + 20)]) for stem, n in stems for i in range(n)]
    ((long, short),) = plan(work, 10_000, reader.shares_up_to)
    assert long.length > 64 > max(*long.ends, *short.ends)
    torch.testing.assert_close(joined(reader.run(work, LAYERS)), job_states(longrope, work), **CLOSE)


def test_a_beginning_is_not_shared_across_longrope_s_length(longrope, tokenizer):
    stem = list(range(10, 60))
    work = [Job([*stem, *range(200, 200 + n)], [(50, 50 + n)]) for n in (8, 40)]
    found = ActivationReader(longrope, tokenizer).run(work, LAYERS)
    torch.testing.assert_close(joined(found), job_states(longrope, work), **CLOSE)


def job_states(model, work):
    """Each job's first span [jobs, layers, hidden] by the independent path."""
    states = [hidden_states(model, job.ids)[:, slice(*job.spans[0])].mean(1) for job in work]
    return torch.stack([torch.stack([one[layer + 1] for layer in LAYERS]) for one in states])


def test_a_model_in_training_is_read_without_dropout_and_stays_in_training(make_model, tokenizer):
    model = make_model("gpt2")
    expected = ActivationReader(model, tokenizer).read(TALKS)
    model.train()
    model.transformer.h[1].eval()  # frozen by the user
    before = [module.training for module in model.modules()]
    reader = ActivationReader(model, tokenizer)
    torch.testing.assert_close(reader.read(TALKS), expected, **CLOSE)
    assert reader.shares_up_to == 512
    assert [module.training for module in model.modules()] == before
    with pytest.raises(ZeroDivisionError), reader.blocks[0].register_forward_hook(lambda *_: 1 / 0):
        reader.read(TALKS)
    assert [module.training for module in model.modules()] == before


def test_another_thread_may_begin_a_pass_while_one_is_being_ended(make_model, tokenizer):
    """Torch goes through a block's hooks once more when one of them has raised, as ours does to end the pass."""
    model = make_model("llama")
    reader, other = ActivationReader(model, tokenizer), ActivationReader(model, tokenizer)
    block, taken, begun, handles = model.model.layers[0], [], [], []

    def begin():
        with other.stack.passes([0], lambda *_: None):
            begun.append(True)

    def meanwhile(*_):
        thread = threading.Thread(target=begin)
        thread.start()
        thread.join(60)

    def take(layer, hidden):
        taken.append(hidden)
        handles.extend(block.register_forward_hook(meanwhile, always_call=True) for _ in range(3))  # called once ours has raised

    with reader.stack.passes([0], take), torch.inference_mode():
        model(input_ids=torch.tensor([[5, 6, 7]]))
    for handle in handles:
        handle.remove()
    assert (len(taken), bool(begun)) == (1, True)
    assert not block._forward_hooks
