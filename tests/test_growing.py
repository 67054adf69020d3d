"""What a growing conversation costs, beyond the context too, and what many of them may keep; the numbers are those of one pass."""

import gc
import os
import random
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitor_tools import AT_RISK, CALM, FINE, HARMFUL, PLAIN, blocked, planted, policy
from test_live import CLOSE, TALK, record, scorer_of, zs

from demeanor.conversation import Conversation, Message
from demeanor.model.growing import Budget
from demeanor.model.packing import window_bounds
from demeanor.monitor.session import Monitor
from demeanor.monitor.worker import Deadline, Worker
from demeanor.scoring import ConversationScorer, Reading

SESSIONS = int(os.environ.get("DEMEANOR_SOAK_SESSIONS", "100"))
"""For the last test; 10,000 take some minutes."""


def tokens(scorer, messages):
    (encoded,) = scorer.reader.encoder.encode([Conversation(tuple(messages))])
    return len(encoded.ids)


def spoken(n):
    return [Message("assistant" if i % 2 else "user", f"{i}. {TALK[i % len(TALK)].content}") for i in range(n)]


@given(length=st.integers(1, 400), size=st.integers(2, 64), more=st.integers(0, 100))
def test_windows_read_each_token_once_and_stay_where_they_are_as_a_conversation_grows(length, size, more):
    bounds = list(window_bounds(length, size))
    assert [t for _, done, end in bounds for t in range(done, end)] == list(range(length))
    assert all(end - start <= size and (start == done == 0 or done - start >= size // 2) for start, done, end in bounds)
    assert bounds[:-1] == list(window_bounds(length + more, size))[: len(bounds) - 1]
    assert bounds[-1][:2] == list(window_bounds(length + more, size))[len(bounds) - 1][:2]


@pytest.fixture
def short(any_model, tokenizer):
    scorer = scorer_of(any_model, tokenizer)
    scorer.reader.context_length = 96
    return scorer


def test_beyond_the_context_each_look_scores_as_the_whole_does(short):
    live = ConversationScorer(short)
    for messages in (spoken(2), spoken(6), spoken(12), spoken(8), spoken(12)):  # some are taken back
        for words in (3, 8):
            said = [*messages[:-1], Message("assistant", " ".join(messages[-1].content.split()[:words]))]
            found = live.read(record(said), needed=[0, len(said) - 2])
            expected = short.score(record(said))
            np.testing.assert_allclose(zs(found.reading), zs(expected), **CLOSE)
            assert found.reading.windows == expected.windows
            first = short.score(record(said[:2]))["risk"].z
            heard = found.others[0]
            assert isinstance(heard, Reading)
            np.testing.assert_allclose(heard["risk"].z, first, **CLOSE)
            np.testing.assert_allclose(found.tokens.z["warmth"].mean(), found.reading["warmth"].z, **CLOSE)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_beyond_the_context_a_look_costs_its_own_tokens(make_model, tokenizer, pooling):
    scorer = scorer_of(make_model("llama"), tokenizer, pooling)
    scorer.reader.context_length = 128
    live = ConversationScorer(scorer)
    messages, looks = [Message("user", "I cannot sleep.")], 0
    words = [w for m in spoken(24) for w in m.content.split()]
    for end in range(8, len(words), 8):
        looks += 1
        live.read(record([*messages, Message("assistant", " ".join(words[:end]))]))
    whole = tokens(scorer, [*messages, Message("assistant", " ".join(words[:end]))])
    assert whole > 4 * 128
    assert live.tokens_run < 2 * whole + 6 * looks  # half a context again in each window, and what the template writes at the end


def test_of_a_long_history_only_the_windows_are_run_that_hold_what_is_read(make_model, tokenizer):
    scorer = scorer_of(make_model("llama"), tokenizer)
    scorer.reader.context_length = 128
    messages = spoken(80)
    live = ConversationScorer(scorer)
    found = live.read(record(messages), welcome=[1, len(messages) - 3])
    assert live.tokens_run <= 2 * 128
    assert 1 not in found.others
    np.testing.assert_allclose(zs(found.reading), zs(scorer.score(record(messages))), **CLOSE)


def kept(scorer, messages):
    """Bytes that one conversation keeps."""
    budget = Budget(1 << 40)
    live = ConversationScorer(scorer, budget)
    live.read(record(messages))
    assert budget.used == live._growing.bytes_kept > 0
    return budget.used


def test_keys_and_values_of_all_conversations_keep_within_the_budget(llama, tokenizer):
    scorer = scorer_of(llama, tokenizer)
    budget = Budget(3 * kept(scorer, TALK))
    lives = [ConversationScorer(scorer, budget) for _ in range(8)]
    for end in (2, 4, 6):
        for live in lives:
            np.testing.assert_allclose(zs(live.read(record(TALK[:end])).reading), zs(scorer.score(record(TALK[:end]))), **CLOSE)
            assert budget.used <= budget.limit
    assert sum(live._growing.bytes_kept for live in lives) == budget.used
    assert [live._growing.bytes_kept > 0 for live in lives] == [False] * 5 + [True] * 3  # the least recently read gave up


@pytest.mark.parametrize("limit", [0, -1, 100])
def test_with_no_room_at_all_everything_is_read_anew_and_right(llama, tokenizer, limit):
    scorer = scorer_of(llama, tokenizer)
    budget = Budget(limit)
    live = ConversationScorer(scorer, budget)
    for end in (2, 4):
        np.testing.assert_allclose(zs(live.read(record(TALK[:end])).reading), zs(scorer.score(record(TALK[:end]))), **CLOSE)
        assert budget.used == live._growing.bytes_kept == 0


def test_a_conversation_that_is_dropped_leaves_the_budget(llama, tokenizer):
    budget = Budget(1 << 30)
    live = ConversationScorer(scorer_of(llama, tokenizer), budget)
    live.read(record(TALK))
    assert budget.used > 0
    del live
    gc.collect()
    assert budget.used == 0


def test_threads_that_read_at_once_take_nothing_from_each_other(llama, tokenizer):
    scorer = scorer_of(llama, tokenizer)
    expected = zs(scorer.score(record(TALK)))
    budget, wrong = Budget(2 * kept(scorer, TALK)), []

    def talk(seed):
        live = ConversationScorer(scorer, budget)
        for end in random.Random(seed).choices((2, 4, 6), k=6):
            live.read(record(TALK[:end]))
        if not np.allclose(zs(live.read(record(TALK)).reading), expected, **CLOSE):
            wrong.append(seed)

    threads = [threading.Thread(target=talk, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    gc.collect()
    assert budget.used == 0


# --- under load


@pytest.fixture(scope="module")
def scorer(tokenizer):
    import conftest

    return planted(conftest._build, tokenizer)


def passes(scorer):
    """The lengths of the passes that run, in a list that grows."""
    found = []
    handle = scorer.reader.blocks[0].register_forward_pre_hook(lambda _, args: found.append(args[0].shape[1]))
    return found, handle


def test_sessions_that_said_something_and_left_cost_nothing(scorer):
    monitor = Monitor(scorer, policy())
    seen, handle = passes(scorer)
    for n in range(100):
        monitor.session(str(n)).user(AT_RISK)
    session = monitor.session("new")
    session.user(AT_RISK)
    decision = session.check(PLAIN)
    handle.remove()
    assert decision.situation == "risk_disclosed"
    assert len(seen) == 1


def test_a_conversation_that_goes_on_is_read_in_one_pass_and_only_where_a_condition_looks(scorer):
    history = []
    for n in range(100):
        history += [{"role": "user", "content": f"{n} {CALM}"}, {"role": "assistant", "content": PLAIN}]
    monitor = Monitor(scorer, policy())
    session = monitor.session("c", history)
    session.user(CALM)
    seen, handle = passes(scorer)
    assert session.check(PLAIN).action == "allow"
    handle.remove()
    assert sum(seen) < 2.5 * scorer.reader.context_length  # some thousand tokens
    assert len(session._passes.listener._readings) == 2  # last_turns


def test_what_the_deadline_cut_off_is_not_read_for_nobody(scorer):
    monitor = Monitor(scorer, policy(), deadline=0.02)
    seen, handle = passes(scorer)
    with blocked(scorer):
        for n in range(5):
            session = monitor.session(str(n))
            session.user(AT_RISK)
            assert session.check(PLAIN).not_scored
    monitor.worker.submit(lambda: None).result(60)
    handle.remove()
    assert len(seen) <= 1  # the one that had begun


def test_at_more_than_can_be_done_most_is_done_in_time():
    worker, step, done = Worker("w"), 0.004, []
    clock = threading.Event()
    futures = []
    for _ in range(120):
        deadline = Deadline(25 * step)
        futures.append((worker.submit(lambda: clock.wait(step), deadline), deadline))
        clock.wait(step / 1.5)

    for future, deadline in futures:
        try:
            future.result(60)
        except TimeoutError:
            done.append(False)
        else:
            done.append(deadline._end > 0)
    assert sum(done) > 0.4 * len(done)  # two thirds are possible


def test_a_call_that_would_come_too_late_makes_way_for_one_that_would_not():
    worker, gate, begun = Worker("w"), threading.Event(), []
    slow = Deadline(60)
    worker.submit(lambda: begun.append("first"), slow).result(60)
    held = worker.submit(lambda: gate.wait(60))
    late = Deadline(60)
    late._end -= 60
    hopeless = worker.submit(lambda: begun.append("late"), late)
    other = worker.submit(lambda: begun.append("other"), Deadline(60))
    gate.set()
    assert held.result(60)
    with pytest.raises(TimeoutError):
        hopeless.result(60)
    other.result(60)
    assert begun == ["first", "other"]


def test_a_monitor_has_made_its_first_pass_when_it_is_there(make_model, tokenizer):
    made = planted(make_model, tokenizer)
    Monitor(made, policy())
    assert "shares_up_to" in vars(made.reader)  # which takes several passes to find out
    seen, handle = passes(made)
    session = Monitor(made, policy()).session("c")
    del seen[:]
    session.check(FINE)
    handle.remove()
    assert len(seen) == 1


def test_a_monitor_is_made_although_its_first_pass_fails(scorer, monkeypatch):
    monkeypatch.setattr(type(scorer.reader.encoder), "encode", lambda *_: 1 / 0)
    monitor = Monitor(scorer, policy())
    monkeypatch.undo()
    session = monitor.session("c")
    session.user(CALM)
    assert session.check(FINE).action == "allow"


@pytest.mark.slow
def test_many_sessions_from_several_threads_within_a_small_budget_read_as_one_alone(scorer):
    """Seeded: sessions come, talk, wait and go; DEMEANOR_SOAK_SESSIONS=10000 is the long run."""
    monitor = Monitor(scorer, policy(), memory=1 << 20, deadline=600)
    failures, most = [], [0]

    def visit(seed):
        dice = random.Random(seed)
        open_sessions = []
        for n in range(seed, SESSIONS, 4):
            open_sessions.append(monitor.session(str(n)))
            for session in dice.sample(open_sessions, min(2, len(open_sessions))):
                risk = dice.random() < 0.3
                session.user(f"{dice.randrange(1000)} {AT_RISK if risk else CALM}")
                reply = f"{dice.choice((FINE, HARMFUL))} {dice.randrange(1000)}"
                if dice.random() < 0.3:
                    stream = session.stream([reply[:20], None, reply[20:]])
                    "".join(stream)
                    decision = stream.decision
                else:
                    decision = session.check(reply)
                before = [{"role": m.role, "content": m.content} for m in session.messages[:-1]]
                expected = scorer.score([*before, {"role": "assistant", "content": reply}])
                z = {t: s.z for t, s in decision.reading.scores.items()}
                if z != pytest.approx({t: s.z for t, s in expected.scores.items()}, abs=1e-3):
                    failures.append((seed, z))
            most[0] = max(most[0], monitor.budget.used)
            if dice.random() < 0.5 and len(open_sessions) > 20:
                open_sessions.pop(dice.randrange(len(open_sessions)))

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert 0 < most[0] <= 1 << 20
