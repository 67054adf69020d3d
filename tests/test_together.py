"""Several conversations in one pass, and what is kept of them: the numbers are those of one read alone."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demeanor.errors import ActivationError
from demeanor.model.directions import Directions
from demeanor.model.kept import NODE, Kept
from demeanor.model.packing import Job
from demeanor.model.reader import ActivationReader
from demeanor.model.together import Together

CLOSE: dict[str, Any] = {"rtol": 1e-3, "atol": 2e-4}


def reader_of(model, tokenizer):
    return ActivationReader(model, tokenizer)


def directions_of(reader):
    made = torch.randn(3, 2 * reader.hidden_size, generator=torch.Generator().manual_seed(7))
    return Directions((0, 2), made / made.norm(dim=1, keepdim=True))


def text(length, seed):
    dice = random.Random(seed)
    return [dice.randrange(5, 400) for _ in range(length)]


def together_of(reader, directions, limit=None):
    """What reads side by side; without a type, so that results may be compared as they come."""
    made: Any = Together(reader, directions, limit)
    return made


def alone(reader, directions, ids):
    """Raw scores of a sequence by the reader's own batches, nothing beside it."""
    (found,) = reader.project([Job(list(ids), [(i, i + 1) for i in range(len(ids))])], directions)
    return found


def read(together, sequences):
    """Read sequences one pass after another, as many in each as fit; gives the raw scores, and how many passes it took."""
    found, waiting, passes = {}, list(enumerate(sequences)), 0
    while waiting:
        rows, numbers = [], []
        for number, ids in waiting:
            row = together.row(ids)
            if row.new:
                rows.append(row)
                numbers.append(number)
            else:
                found[number] = row.known
        if rows:
            chosen = together.choose(rows)
            assert chosen[0] == 0
            passes += 1
            found.update(zip([numbers[i] for i in chosen], together.read([rows[i] for i in chosen]), strict=True))
        waiting = [(number, ids) for number, ids in waiting if number not in found]
    return [found[number] for number in range(len(sequences))], passes


def grown(lengths, more, seed=0):
    """Beginnings of these lengths, and each with something new behind it."""
    first = [text(n, seed + n) for n in lengths]
    return first, [ids + text(n, 1000 + seed + i) for i, (ids, n) in enumerate(zip(first, more, strict=True))]


def test_rows_that_go_on_from_unequal_beginnings_read_as_each_alone(any_model, tokenizer):
    reader = reader_of(any_model, tokenizer)
    directions = directions_of(reader)
    together = together_of(reader, directions)
    first, later = grown((5, 40, 23, 61, 0), (11, 3, 17, 1, 9))
    for sequences in ([ids for ids in first if ids], later, later):
        values, _ = read(together, sequences)
        for ids, found in zip(sequences, values, strict=True):
            np.testing.assert_allclose(found, alone(reader, directions, ids), **CLOSE)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_beyond_a_sliding_window_rows_still_read_as_each_alone(make_model, tokenizer, name):
    reader = reader_of(make_model(name, sliding_window=70), tokenizer)
    directions = directions_of(reader)
    assert reader.shares_up_to == 70
    together = together_of(reader, directions)
    first, later = grown((60, 30, 69, 90, 120), (5, 8, 20, 40, 12))
    for sequences in (first, later):
        values, _ = read(together, sequences)
        for ids, found in zip(sequences, values, strict=True):
            np.testing.assert_allclose(found, alone(reader, directions, ids), **CLOSE)


def test_a_pass_holds_no_texts_on_both_sides_of_longrope_s_length(longrope, tokenizer):
    reader = reader_of(longrope, tokenizer)
    directions = directions_of(reader)
    together = together_of(reader, directions)
    first, later = grown((50, 30, 70, 40), (30, 10, 5, 20))  # the first crosses it
    for sequences in (first, later, first):
        values, _ = read(together, sequences)
        for ids, found in zip(sequences, values, strict=True):
            np.testing.assert_allclose(found, alone(reader, directions, ids), **CLOSE)


def test_padding_does_not_take_a_short_row_beyond_longrope_s_length(longrope, tokenizer):
    reader = reader_of(longrope, tokenizer)
    directions = directions_of(reader)
    together = together_of(reader, directions)
    first, later = grown((60, 20), (2, 40))
    read(together, first)
    rows = [together.row(ids) for ids in later]
    for ids, found in zip(later, together.read(rows), strict=True):  # 60 kept and 40 columns
        np.testing.assert_allclose(found, alone(reader, directions, ids), **CLOSE)


def test_where_beginnings_cannot_be_shared_every_row_runs_whole_and_side_by_side(make_model, tokenizer):
    reader = reader_of(make_model("lfm2"), tokenizer)
    directions = directions_of(reader)
    assert not reader.shares_up_to
    together = together_of(reader, directions)
    first, later = grown((30, 20, 25), (5, 5, 5))
    read(together, first)
    assert [together.row(ids).new for ids in later] == list(map(len, later))
    values, passes = read(together, later)
    assert passes == 1
    assert together.row(later[0]).new == 0  # what was read whole is known
    for ids, found in zip(later, values, strict=True):
        np.testing.assert_allclose(found, alone(reader, directions, ids), **CLOSE)


@pytest.fixture(scope="module")
def reader(tokenizer):
    import conftest

    return reader_of(conftest._built("llama"), tokenizer)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_mixture_of_rows_reads_as_each_alone_whatever_is_kept(data, reader):
    directions = directions_of(reader)
    limit = data.draw(st.sampled_from([None, 0, 20_000, 100_000]))
    together = together_of(reader, directions, limit)
    base = text(120, 3)
    for _ in range(data.draw(st.integers(1, 3))):
        cuts = data.draw(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=6))
        sequences = [base[:at] + text(new, seed) for at, new, seed in cuts]
        values, _ = read(together, sequences)
        for ids, found in zip(sequences, values, strict=True):
            np.testing.assert_allclose(found, alone(reader, directions, ids), **CLOSE)
        if limit is not None:
            assert together.used <= limit


def test_what_begins_alike_is_run_once_although_it_is_asked_for_at_the_same_time(llama, tokenizer):
    reader = reader_of(llama, tokenizer)
    together = together_of(reader, directions_of(reader), 1 << 30)
    system = text(150, 1)
    sequences = [system + text(20, 10 + i) for i in range(8)]
    seen = []
    assert reader.shares_up_to  # which takes passes to find out
    handle = reader.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0] * args[0].shape[1]))
    _, passes = read(together, sequences)
    handle.remove()
    assert passes == 2
    assert seen == [170, 7 * 20]


def test_a_row_that_cannot_be_read_spoils_no_other(make_model, tokenizer):
    reader = reader_of(make_model("llama"), tokenizer)
    directions = directions_of(reader)
    together = together_of(reader, directions)
    with torch.no_grad():
        reader.model.get_input_embeddings().weight[499] = float("nan")
    first, later = grown((20, 30, 10), (4, 8, 6))
    read(together, first)
    later[1][-1] = 499
    rows = [together.row(ids) for ids in later]
    values = together.read(rows)
    assert isinstance(values[1], ActivationError)
    for i in (0, 2):
        np.testing.assert_allclose(values[i], alone(reader, directions, later[i]), **CLOSE)
    later[1][-1] = 300
    (mended,) = together.read([together.row(later[1])])
    np.testing.assert_allclose(mended, alone(reader, directions, later[1]), **CLOSE)  # nothing broken was kept


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate 2 GiB", "anything else"])
def test_a_pass_that_fails_is_tried_again_in_halves(make_model, tokenizer, message):
    reader = reader_of(make_model("llama"), tokenizer)
    directions = directions_of(reader)
    together = together_of(reader, directions)
    sequences = [text(10 + i, i) for i in range(5)]
    rows = [together.row(ids) for ids in sequences]

    def fails(_, args):
        if args[0].shape[0] > 1 or args[0].shape[1] == 12:
            raise RuntimeError(message)

    handle = reader.blocks[0].register_forward_pre_hook(fails)
    values = together.read(rows)
    handle.remove()
    assert [isinstance(v, RuntimeError) for v in values] == [False, False, True, False, False]
    for i in (0, 1, 3, 4):
        np.testing.assert_allclose(values[i], alone(reader, directions, sequences[i]), **CLOSE)


def test_a_model_in_half_precision_reads_in_company_nearly_as_alone(make_model, tokenizer):
    reader = reader_of(make_model("llama").to(torch.bfloat16), tokenizer)
    directions = directions_of(reader)
    together = together_of(reader, directions)
    first, later = grown((5, 40, 23), (11, 3, 17))
    for sequences in (first, later):
        values, _ = read(together, sequences)
        for ids, found in zip(sequences, values, strict=True):
            expected = alone(reader, directions, ids)
            assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


# --- the tree alone


def block(ids):
    """Keys and values that say which tokens they are of."""
    return [torch.tensor(ids, dtype=torch.float32).view(1, 1, -1, 1).expand(2, 3, -1, 4).clone()]


def scores(ids):
    return np.array([[t, -t] for t in ids], np.float32)


def consistent(tree, ids, found):
    """What was found belongs to the sequence's own tokens."""
    for at, row in enumerate(np.concatenate(found.values) if found.values else []):
        assert list(row) == [ids[at], -ids[at]]
    kept = [int(t) for blocks in found.blocks for t in blocks[0][0, 0, :, 0]]
    assert kept == ids[: found.tokens]
    assert found.scored >= found.tokens
    assert tree.used == sum(node.nbytes for node in tree._nodes)


@given(
    sequences=st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=90), st.booleans(), st.booleans()), max_size=30),
    limit=st.sampled_from([None, 0, 3 * NODE, 12 * NODE]),
)
def test_what_is_found_is_what_was_read_of_those_very_tokens(sequences, limit):
    tree = Kept(limit)
    for ids, long, with_blocks in sequences:
        found = tree.find(ids, long=long)
        consistent(tree, ids, found)
        start = found.tokens
        tree.add(ids, start, scores(ids[start:]), block(ids[start:]) if with_blocks else None, long)
        again = tree.find(ids, long=long)
        consistent(tree, ids, again)
        if limit is None:
            assert again.scored == len(ids)
            assert not with_blocks or again.tokens == len(ids)
        else:
            assert tree.used <= limit
    for ids, long, _ in sequences:
        consistent(tree, ids, tree.find(ids, long=long))
    last = sequences[-1:]
    tree.only([(ids, long) for ids, long, _ in last])
    for ids, long, _ in last:
        consistent(tree, ids, tree.find(ids, long=long))
        if limit is None:
            assert sum(len(node.ids) for node in tree._nodes) == len(ids)
    tree.clear()
    assert (tree.used, len(tree)) == (0, 0)


def test_a_conversation_s_end_is_given_up_before_its_beginning():
    tree = Kept()
    system = list(range(100, 200))
    first, second = system + [1] * 80, system + [2] * 80
    for ids in (first, second):
        start = tree.find(ids).tokens
        tree.add(ids, start, scores(ids[start:]), block(ids[start:]))
    tree.limit = tree.used - 1
    tree.trim()
    assert tree.find(second).tokens == 180
    assert tree.find(first).tokens == 100


def test_tokens_that_are_to_be_read_anew_are_not_found():
    tree = Kept()
    ids = list(range(20))
    tree.add(ids, 0, scores(ids), block(ids))
    assert tree.find(ids, anew=7).tokens == tree.find(ids, anew=7).scored == 7


def test_a_stretch_that_was_cut_off_holds_no_memory_of_the_whole():
    tree = Kept()
    ids = list(range(1000))
    tree.add(ids, 0, scores(ids), block(ids))
    tree.add([*ids[:10], 7], 10, scores([7]), block([7]))
    tree.limit = tree.used - 1
    tree.trim()  # what was used longest ago: the 990 that nobody goes on with
    assert {t.untyped_storage().nbytes() for node in tree._nodes for t in node.blocks or []} <= {
        t.nbytes for n in tree._nodes for t in n.blocks
    }
    assert tree.used < 4 * NODE + 11 * 200


def test_a_deep_conversation_is_dropped_without_recursion():
    tree = Kept()
    ids = []
    for turn in range(1100):
        ids = [*ids, turn]
        branch = [*ids, 5000 + turn, *range(20)]  # what is longer than a scrap stays beside it
        for sequence in (ids, branch):
            start = tree.find(sequence).tokens
            tree.add(sequence, start, scores(sequence[start:]), block(sequence[start:]))
    assert len(tree) > 1100
    tree.only([([1, 2, 3], False)])
    assert len(tree) == 0
    assert tree.used == 0
