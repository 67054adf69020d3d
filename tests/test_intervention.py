"""Interventions against their formulas, by hooks that know nothing of them; and that they are never silently off."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, StaticCache

from demeanor.conversation import Message
from demeanor.errors import SteeringError
from demeanor.model.blocks import decoder_blocks
from demeanor.model.contexts import Steering
from demeanor.model.generation import Sampling, write_replies
from demeanor.model.operators import Intervention, SteeringCondition
from demeanor.model.reader import ActivationReader

WIDTH, LAYER = 32, 1
PROMPTS = ["I cannot sleep.", "Nobody listens to me, and I am sorry that this week has been so hard.", "Hi"]


def unit(seed=0, width=WIDTH):
    made = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return made / made.norm()


V, W = unit(0), unit(1)
ADD = Intervention("add", LAYER, V, 3.0)


def prompts():
    return [[Message("user", text)] for text in PROMPTS]


def outputs(model, layer=LAYER, rows=2, tokens=5, mask=None, labels=None, **options):
    """The output of a block [rows, tokens, hidden] as whoever stands behind it sees it."""
    seen = []

    def look(_module, _args, output):
        seen.append((output[0] if isinstance(output, tuple) else output).detach().clone())

    handle = decoder_blocks(model)[layer].register_forward_hook(look)
    ids = (torch.arange(rows * tokens).reshape(rows, tokens) * 7) % 300 + 5
    try:
        with torch.no_grad():
            model(input_ids=ids, attention_mask=mask, labels=labels, **options)
    finally:
        handle.remove()
    return seen[-1]


def hooks_left(model):
    blocks = decoder_blocks(model)
    hooks = [h for m in (model, model.get_decoder(), *blocks) for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return sum(h.__module__ == Steering.__module__ for h in hooks)  # transformers keeps some of its own


def steered(model, *interventions, rows=2, **options):
    """As outputs, steered. Beside the rows that are given back the batch holds one that is not steered, and stays as it was."""
    with Steering(model, rows=[interventions] * rows + [[]]):
        after = outputs(model, rows=rows + 1, **_beside(options))
    plain = outputs(model, rows=rows + 1, **_beside(options))[-1]
    # an expert runs on the tokens of all rows at once, and how many these are may change the rounding
    mixture = hasattr(model.config, "num_local_experts")
    assert torch.allclose(after[-1], plain, rtol=0, atol=1e-5) if mixture else torch.equal(after[-1], plain)
    return after[:-1]


def _beside(options):
    """Masks and labels with a row more."""
    return options | {name: torch.cat([options[name], options[name][-1:]]) for name in ("mask", "labels") if name in options}


def test_adding_moves_every_token_by_a_v_and_later_blocks_feel_it(any_model):
    before = outputs(any_model)
    torch.testing.assert_close(steered(any_model, ADD), before + 3.0 * V)
    later = outputs(any_model, layer=2)
    assert not torch.allclose(steered(any_model, ADD, layer=2), later)
    assert torch.equal(outputs(any_model), before)


def test_ablating_leaves_nothing_along_v_and_all_else(any_model):
    before = outputs(any_model)
    after = steered(any_model, Intervention("ablate", LAYER, V))
    torch.testing.assert_close(after @ V, torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(after, before - (before @ V)[..., None] * V)


def test_capping_by_the_formula_and_on_the_named_side(llama):
    before = outputs(llama, rows=3)[:2]  # the batch of `steered`: what is untouched is equal bit for bit
    along = before @ V
    tau = float(along.median())
    low, high = (steered(llama, Intervention(kind, LAYER, V, tau)) for kind in ("floor", "ceiling"))
    torch.testing.assert_close(low, before - V * (along - tau).clamp(max=0)[..., None])
    torch.testing.assert_close(low @ V, along.clamp(min=tau))
    torch.testing.assert_close(high @ V, along.clamp(max=tau))
    above = along > tau
    assert torch.equal(low[above], before[above])  # what was on the right side is untouched
    assert torch.equal(high[~above], before[~above])


def test_several_act_in_the_order_given(llama):
    before = outputs(llama)
    add_then_ablate = steered(llama, ADD, Intervention("ablate", LAYER, V))
    ablate_then_add = steered(llama, Intervention("ablate", LAYER, V), ADD)
    torch.testing.assert_close(add_then_ablate @ V, torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(ablate_then_add @ V, torch.full((2, 5), 3.0))
    torch.testing.assert_close(steered(llama, ADD, Intervention("add", LAYER, W, -2.0)), before + 3 * V - 2 * W)


def test_the_same_object_acts_as_often_as_it_is_given(llama):
    before = outputs(llama, rows=3)

    def along(everywhere=(), rows=None):
        with Steering(llama, everywhere, rows):
            after = outputs(llama, rows=3)
        assert torch.equal(after[2], before[2]) == (not everywhere)
        return [round(float(step), 3) for step in ((after - before) @ V)[:, 0]]

    assert along(rows=[[ADD, ADD], [ADD], []]) == [6, 3, 0]
    assert along([ADD, ADD]) == [6, 6, 6]
    assert along([ADD], [[ADD], [], []]) == [6, 3, 3]
    assert along([ADD], [[], [ADD, ADD], []]) == [3, 9, 3]


def test_two_rows_may_hold_the_same_objects_in_another_order(llama):
    ablate, before = Intervention("ablate", LAYER, V), outputs(llama, rows=3)
    with Steering(llama, rows=[[ADD, ablate], [ablate, ADD], []]):
        after = outputs(llama, rows=3)
    torch.testing.assert_close(after[0] @ V, torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(after[1] @ V, torch.full((5,), 3.0))
    assert torch.equal(after[2], before[2])


def test_several_layers(llama):
    everywhere = [Intervention("add", layer, V, 1.0) for layer in range(3)]
    first = outputs(llama, layer=0)
    torch.testing.assert_close(steered(llama, *everywhere, layer=0), first + V)
    before = outputs(llama, layer=2)
    assert not torch.allclose(steered(llama, *everywhere, layer=2), before + V)


def test_transformers_own_hidden_states_show_the_steered_stream(llama):
    outputs(llama, output_hidden_states=True)  # its own hooks are registered now
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with torch.no_grad():
        before = llama(input_ids=ids, output_hidden_states=True).hidden_states[LAYER + 1]
        with Steering(llama, rows=[[ADD], []]):
            after = llama(input_ids=ids, output_hidden_states=True).hidden_states[LAYER + 1]
    torch.testing.assert_close(after[0], before[0] + 3.0 * V)
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("kind", ["add", "ablate", "floor", "ceiling"])
def test_rows_carry_their_own_and_the_unsteered_row_is_untouched(any_model, kind):
    before = outputs(any_model, rows=3)
    one, other = Intervention(kind, LAYER, V, 2.0), Intervention(kind, LAYER, W, -2.0)
    with Steering(any_model, rows=[[one], [], [other]]):
        after = outputs(any_model, rows=3)
        deeper = outputs(any_model, rows=3, layer=2)
    assert torch.equal(after[1], before[1])
    assert torch.equal(deeper[1], outputs(any_model, rows=3, layer=2)[1])
    torch.testing.assert_close(after[:1], steered(any_model, one, rows=3)[:1])
    torch.testing.assert_close(after[2:], steered(any_model, other, rows=3)[2:])


@pytest.mark.parametrize("kind", ["add", "ablate", "floor", "ceiling"])
def test_pads_are_never_steered(any_model, kind):
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    before = outputs(any_model, rows=3, mask=torch.cat([mask, mask[-1:]]))[:2]
    after = steered(any_model, Intervention(kind, LAYER, V, 9.0 if kind == "floor" else -9.0), mask=mask)
    assert torch.equal(after[mask == 0], before[mask == 0])
    assert not torch.isclose(after, before).all(-1)[mask == 1].any()


@pytest.mark.parametrize("where", ["both", "response"])
def test_a_mask_that_reaches_beyond_the_tokens_of_a_pass_is_read_where_they_stand(llama, where):
    """A static cache's mask names all its places, those of the prompt first."""
    mask = torch.zeros(3, 16, dtype=torch.long)
    mask[:, :6], mask[0, :2] = 1, 0

    def run(rows=None):
        cache, seen = StaticCache(config=llama.config, max_cache_len=16), []
        for first, last in ((0, 6), (6, 7)):
            mask[:, first:last] = mask[:, first:last] if first == 0 else 1
            context = Steering(llama, rows=rows) if rows else nullcontext()
            ids = torch.arange(first, last).repeat(3, 1) + 5
            with torch.no_grad(), context:
                seen.append(llama(ids, attention_mask=mask, past_key_values=cache, output_hidden_states=True).hidden_states[LAYER + 1])
        mask[:, 6:] = 0
        return torch.cat(seen, 1)

    plain, after = run(), run([[replace(ADD, where=where)], [replace(ADD, where=where)], []])
    moved = ((after - plain)[:2] @ V > 1.5).int().tolist()
    prompt = [[0, 0, 0, 0, 0, 1]] * 2 if where == "response" else [[0, 0, 1, 1, 1, 1], [1] * 6]
    assert moved == [[*row, 1] for row in prompt]
    assert torch.equal(after[2], plain[2])


def test_a_mask_that_fits_no_tokens_is_refused(llama):
    with pytest.raises(SteeringError, match="mask of 3 tokens does not fit 5"), Steering(llama, [ADD]):
        outputs(llama, mask=torch.ones(2, 3, dtype=torch.long))


def moved_tokens(model, where, **options):
    change = steered(model, replace(ADD, where=where), **options) - outputs(model, **options)
    return (change @ V > 1.5).int().tolist()


def test_prompt_and_response_by_the_labels_in_training(llama):
    labels = torch.tensor([[-100, -100, 8, 9, 10], [-100, 8, 9, -100, -100]])
    assert moved_tokens(llama, "response", labels=labels) == [[0, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert moved_tokens(llama, "prompt", labels=labels) == [[1, 0, 0, 0, 1], [0, 0, 1, 1, 1]]


def generated(model, where, tokens=4):
    """Which tokens each pass of a generation moved along V: for each pass, [rows, tokens]. A third row stays as without."""
    huge = Intervention("add", LAYER, V, 1e4, where)
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10], [7, 8, 9, 10]])
    with Steering(model, rows=[[huge], [huge], []]):
        seen = passes(model, ids, tokens)
    exact = model.config.model_type != "mixtral"  # experts take rows together, so that other rows' tokens reach the rounding
    for after, before in zip(seen, passes(model, ids, tokens), strict=True):
        torch.testing.assert_close(after[2], before[2], atol=0 if exact else None, rtol=0 if exact else None)
    return [((s[:2] @ V) > 5e3).int().tolist() for s in seen]


def passes(model, ids, tokens):
    """The output of the steered block in each pass of a generation [rows, tokens, hidden]."""
    seen = []
    handle = decoder_blocks(model)[LAYER].register_forward_hook(lambda m, a, out: seen.append(out if torch.is_tensor(out) else out[0]))
    try:
        model.generate(input_ids=ids, attention_mask=(ids != 0).long(), max_new_tokens=tokens, do_sample=False, eos_token_id=None)
    finally:
        handle.remove()
    return seen


def test_prompt_and_response_by_the_cache_in_generation(any_model):
    if any_model.config.model_type == "gemma3":
        pytest.skip("the multimodal one wants images' token types")
    assert generated(any_model, "response") == [[[0, 0, 0, 1], [0, 0, 0, 1]], *[[[1], [1]]] * 3]
    assert generated(any_model, "prompt") == [[[0, 0, 1, 0], [1, 1, 1, 0]], *[[[0], [0]]] * 3]
    assert generated(any_model, "both") == [[[0, 0, 1, 1], [1, 1, 1, 1]], *[[[1], [1]]] * 3]


def test_where_prompt_and_response_cannot_be_told_apart_it_says_so(llama):
    with pytest.raises(SteeringError, match="cannot tell the prompt from the response"):
        steered(llama, replace(ADD, where="response"))
    assert hooks_left(llama) == 0


def test_replies_of_unsteered_rows_are_those_without_steering(llama, tokenizer):
    reader = ActivationReader(llama, tokenizer)
    sampling = Sampling(max_new_tokens=12, seed=3)
    plain = {p[0].content: r for p, r in zip(prompts(), write_replies(reader, prompts(), sampling), strict=True)}
    shortest_first = sorted(prompts(), key=lambda p: len(reader.encoder.prompt_ids(p)))  # the order of the batch
    with Steering(llama, rows=[[], [replace(ADD, amount=40.0)], []]):
        mixed = {p[0].content: r for p, r in zip(shortest_first, write_replies(reader, shortest_first, sampling), strict=True)}
    changed = [text for text in PROMPTS if mixed[text] != plain[text]]
    assert changed == [shortest_first[1][0].content]


def test_nested_contexts_all_act_and_each_may_be_used_again(llama):
    before = outputs(llama, rows=3)
    outer = Steering(llama, rows=[[ADD], [ADD], []])
    inner = Steering(llama, rows=[[Intervention("add", LAYER, W, -2.0)], [], []])
    wanted = [before[0] + 3 * V - 2 * W, before[1] + 3 * V]
    for _ in range(2):
        with outer:
            with inner:
                both = outputs(llama, rows=3)
            alone = outputs(llama, rows=3)
        torch.testing.assert_close(both[:2], torch.stack(wanted))
        torch.testing.assert_close(alone[:2], before[:2] + 3 * V)
        assert torch.equal(both[2], before[2])
        assert torch.equal(alone[2], before[2])
    assert torch.equal(outputs(llama, rows=3), before)
    ablate = Intervention("ablate", LAYER, V)
    with Steering(llama, rows=[[ADD], [ADD], []]), Steering(llama, rows=[[ablate], [ablate], []]):  # the innermost acts first
        both = outputs(llama, rows=3)
    torch.testing.assert_close(both[:2] @ V, torch.full((2, 5), 3.0))
    assert torch.equal(both[2], before[2])


def test_an_open_context_cannot_be_opened_again(llama):
    before, once = outputs(llama), Steering(llama, rows=[[ADD], []])
    with once:
        with pytest.raises(SteeringError, match="open already"), once:
            pass
        after = outputs(llama)
    torch.testing.assert_close(after[0], before[0] + 3 * V)  # it still acts
    assert torch.equal(after[1], before[1])
    assert hooks_left(llama) == 0


def test_hooks_that_were_removed_are_noticed(llama):
    def remove_them():
        for key, hook in list(llama.model.layers[LAYER]._forward_hooks.items()):
            if hook.__module__ == Steering.__module__:
                del llama.model.layers[LAYER]._forward_hooks[key]

    def run():
        with Steering(llama, [ADD]):
            outputs(llama)
            remove_them()
            with pytest.raises(SteeringError, match=r"steering was off at layers \[1\]"):
                outputs(llama)

    with pytest.raises(SteeringError, match=r"steering was off at layers \[1\]"):  # again on leaving, had it been swallowed
        run()
    assert hooks_left(llama) == 0


def test_another_model_that_is_run_instead_is_noticed(llama, make_model):
    other = make_model("llama")
    with pytest.raises(SteeringError, match="no forward pass of this model ran"), Steering(llama, [ADD]):
        outputs(other)
    with pytest.raises(SteeringError, match="not part of this model"):
        Steering(llama, [ADD], blocks=decoder_blocks(other))


def test_hooks_are_gone_after_an_error_which_is_passed_on(llama):
    with pytest.raises(ZeroDivisionError), Steering(llama, [ADD]):
        raise ZeroDivisionError
    handle = llama.model.layers[2].register_forward_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="a block fails"), Steering(llama, [ADD]):
            outputs(llama)
    finally:
        handle.remove()
    assert hooks_left(llama) == 0


def fail(*_):
    raise RuntimeError("a block fails")


def test_a_reader_inside_the_context_reads_the_steered_model(llama, tokenizer):
    reader = ActivationReader(llama, tokenizer)
    talks = [[{"role": "user", "content": said}, {"role": "assistant", "content": "I hear you."}] for said in ("Hi there, you", "Hi")]
    before = reader.read(talks)  # in one batch, the longest first
    with Steering(llama, rows=[[ADD], []]):
        shallow = reader.read(talks, [0])  # its passes end before the steered layer: that is no failure
        after = reader.read(talks)
    assert torch.equal(shallow[:, 0], before[:, 0])
    torch.testing.assert_close(after[0, LAYER], before[0, LAYER] + 3.0 * V, atol=1e-4, rtol=1e-4)
    assert torch.equal(after[1], before[1])


def test_the_decoder_may_be_called_without_its_head(llama):
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with torch.no_grad(), Steering(llama, rows=[[Intervention("add", 2, V, 50.0)], []]) as context:
        after = llama.model(input_ids=ids).last_hidden_state
    assert context.passes == 1
    with torch.no_grad():
        before = llama.model(input_ids=ids).last_hidden_state
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_a_batch_of_another_size_than_the_rows_is_refused(llama):
    with pytest.raises(SteeringError, match="for 3 rows, and a batch of 2"), Steering(llama, rows=[[ADD], [], []]):
        outputs(llama)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Intervention("add", 1, torch.full((WIDTH,), torch.nan)), "NaN or infinity"),
        (lambda: Intervention("add", 1, V, float("inf")), "NaN or infinity"),
        (lambda: Intervention("add", 1, V * 2), "has length 1, not 2"),
        (lambda: Intervention("add", 1, torch.eye(4)), r"is \[hidden\], not \(4, 4\)"),
        (
            lambda: replace(ADD, where="prompt", condition=SteeringCondition((0,), W[None], 0.0, "below")),
            "never steers the prompt; steer the response",
        ),
    ],
)
def test_a_broken_vector_is_one_clear_line(make, message):
    with pytest.raises(SteeringError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_vector_of_another_model_is_one_clear_line(llama):
    with pytest.raises(SteeringError, match="is 16 wide and the model 32"):
        Steering(llama, [Intervention("add", 1, unit(0, 16))])
    with pytest.raises(SteeringError, match="layer 7 is not within 0 to 2"):
        Steering(llama, [replace(ADD, layer=7)])


def on_condition(llama, wrong, centre, window=2):
    """Which of a generation's tokens were moved along V, under a condition read along W at the layer below, and that reading.

    A second row of the batch has no such steering and stays as without.
    """
    condition = SteeringCondition((0,), W[None], centre, wrong, window)
    scores = []
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 8]])
    handle = decoder_blocks(llama)[0].register_forward_hook(lambda m, a, out: scores.append(float(out[0, -1] @ W)))
    try:
        with Steering(llama, rows=[[Intervention("add", LAYER, V, 1e4, "response", condition)], []]):
            seen = passes(llama, ids, 10)
    finally:
        handle.remove()
    for after, before in zip(seen, passes(llama, ids, 10), strict=True):
        assert torch.equal(after[1], before[1])
    return [bool(out[0, -1] @ V > 5e3) for out in seen], scores


@pytest.mark.parametrize("wrong", ["below", "above"])
def test_steering_on_a_condition_acts_while_the_rolling_score_is_on_the_wrong_side(llama, wrong):
    _, scores = on_condition(llama, wrong, 1e9 if wrong == "above" else -1e9)  # never wrong: its own scores
    ordered = sorted(set(scores[1:]))
    centre = sum(ordered[len(ordered) // 2 - 1 : len(ordered) // 2 + 1]) / 2
    seen, scores = on_condition(llama, wrong, centre)
    for i, was_on in enumerate(seen):
        before = scores[1:i]  # of the reply's tokens before the one that pass i runs
        rolling = sum(before[-2:]) / len(before[-2:]) - centre if before else None
        assert was_on == (rolling is not None and (rolling < 0 if wrong == "below" else rolling > 0)), i
    assert seen[:2] == [False, False]  # the prompt, and the token before which there is no score
    assert True in seen


def test_a_condition_outside_of_generation_is_refused(llama):
    condition = SteeringCondition((0,), W[None], 0.0, "below")
    with pytest.raises(SteeringError, match="token by token"):
        steered(llama, replace(ADD, condition=condition))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 3}, "generate without beams"),
        ({"prefill_chunk_size": 4}, "token by token"),
        ({"assistant_model": "llama"}, "token by token"),
    ],
)
def test_a_condition_is_refused_where_rows_or_tokens_are_no_reply_s_own(llama, make_model, options, message):
    """Beams move replies between rows, chunks of a prompt look like replies, and candidates come several at a time."""
    options = options | {name: make_model(kind) for name, kind in options.items() if name == "assistant_model"}
    ids = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
    cache, condition = DynamicCache(config=llama.config), SteeringCondition((0,), W[None], 0.0, "below")
    kept = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, "past_key_values": cache}
    with pytest.raises(SteeringError, match=message), Steering(llama, [replace(ADD, condition=condition)]):
        llama.generate(ids, attention_mask=torch.ones_like(ids), **kept, **options)
    assert getattr(cache.reorder_cache, "__func__", None) is DynamicCache.reorder_cache  # the cache is the user's again


def test_a_condition_is_refused_behind_a_kept_cache(llama):
    ids = torch.tensor([[5, 6, 7, 8]])
    cache, condition = DynamicCache(config=llama.config), SteeringCondition((0,), W[None], 0.0, "below")
    kept = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, "past_key_values": cache}

    def answer(ids):
        return llama.generate(ids, attention_mask=torch.ones_like(ids), **kept)

    with pytest.raises(SteeringError, match="token by token"), Steering(llama, [replace(ADD, condition=condition)]):
        answer(torch.cat([answer(ids), ids], 1))


@pytest.fixture
def older():
    """A thread that runs before anything is steered: `older(call)` gives the call's result.

    What is to be equal to the bit is compared within one kind of thread, for each has its own number of OpenMP's.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield lambda call: pool.submit(call).result(60)


def newer(call):
    """The call's result, from a thread that is started for it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(60)


@pytest.mark.parametrize("begins", ["before", "halfway"])
def test_what_an_older_thread_reads_beside_a_steered_pass_is_left_alone(llama, tokenizer, older, begins):
    reader = ActivationReader(llama, tokenizer)
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I hear you, and I am sorry."}]
    plain, alone, met, found = outputs(llama, rows=3), older(lambda: reader.read([talk])), [], []

    def meanwhile(*_):
        if not met:
            met.append(True)
            found.append(older(lambda: reader.read([talk])))

    with Steering(llama, rows=[[ADD], [replace(ADD, amount=-1.0)], []]) as context:
        if begins == "before":
            meanwhile()
        with decoder_blocks(llama)[LAYER].register_forward_pre_hook(meanwhile):
            after = outputs(llama, rows=3)
        assert context.passes == 1
    assert torch.equal(found[0], alone)
    torch.testing.assert_close(after[:2], plain[:2] + torch.stack([3 * V, -V])[:, None])
    assert torch.equal(after[2], plain[2])


def test_a_pass_that_another_thread_had_begun_before_is_left_alone(llama):
    inside, go = threading.Event(), threading.Event()

    def wait(*_):
        handle.remove()
        inside.set()
        assert go.wait(60)

    plain, alone = outputs(llama, rows=3), newer(lambda: outputs(llama, rows=3))
    handle = decoder_blocks(llama)[0].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(outputs, llama, rows=3)
        assert inside.wait(60)
        with Steering(llama, rows=[[ADD], [ADD], []]):
            after = outputs(llama, rows=3)
            go.set()
            assert torch.equal(reading.result(60), alone)
    torch.testing.assert_close(after[:2], plain[:2] + 3 * V)
    assert torch.equal(after[2], plain[2])


def test_a_thread_that_is_started_for_it_writes_steered_and_so_does_the_next(llama, older):
    """As a streamer's, which another one reads beside."""
    plain, alone, met, read = newer(lambda: outputs(llama, rows=3)), older(lambda: outputs(llama)), [], []

    def meanwhile(*_):
        if not met:
            met.append(True)
            read.append(older(lambda: outputs(llama)))

    with Steering(llama, rows=[[ADD], [ADD], []]) as context, decoder_blocks(llama)[LAYER].register_forward_pre_hook(meanwhile):
        for passes in (1, 2):
            after = newer(lambda: outputs(llama, rows=3))
            torch.testing.assert_close(after[:2], plain[:2] + 3 * V)
            assert torch.equal(after[2], plain[2])
            assert context.passes == passes
    assert torch.equal(read[0], alone)


def test_steering_that_only_an_older_thread_could_have_used_says_so(llama, older):
    with pytest.raises(SteeringError, match="only threads that ran before steering was on"), Steering(llama, [ADD]):
        older(lambda: outputs(llama))


def test_what_backward_computes_again_in_another_thread_is_steered_too(make_model):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])

    def gradient(labels, again, rows):
        model = make_model("llama").train()
        block = decoder_blocks(model)[LAYER]
        if again:  # with its hooks, as older transformers do
            whole = type(block).__call__
            block.__class__ = type(
                "Again", (type(block),), {"__call__": lambda s, *a, **k: checkpoint(whole, s, *a, use_reentrant=False, **k)}
            )
        with Steering(model, rows=rows) as context:
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
            newer(loss.backward)
            assert context.passes == 1
        return model.model.layers[0].mlp.down_proj.weight.grad.clone()

    rows = [[Intervention("ablate", LAYER, V)], []]
    torch.testing.assert_close(gradient(ids, True, rows), gradient(ids, False, rows))
    of_the_unsteered_row = ids.clone()
    of_the_unsteered_row[0] = -100
    assert torch.equal(gradient(of_the_unsteered_row, True, rows), gradient(of_the_unsteered_row, False, [[], []]))


def test_gradients_flow_through(make_model):
    model = make_model("llama").train()
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])

    def gradient(labels, steering=(ADD,)):
        model.zero_grad()
        with Steering(model, rows=[steering, []]):
            model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        return model.model.layers[0].mlp.down_proj.weight.grad.clone()

    plain = gradient(ids)
    model.activation_checkpointing_enable()
    torch.testing.assert_close(gradient(ids), plain)
    assert plain.abs().sum() > 0
    of_the_unsteered_row = ids.clone()
    of_the_unsteered_row[0] = -100
    assert torch.equal(gradient(of_the_unsteered_row), gradient(of_the_unsteered_row, ()))
