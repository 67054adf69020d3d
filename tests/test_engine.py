"""One engine for many conversations: shared passes, deadlines, too much work, memory; whoever asks gets the numbers of `Scorer`."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitor_tools import AT_RISK, CALM, FINE, HARMFUL, PLAIN, blocked, planted, policy
from test_live import CLOSE, TALK, record, scorer_of, zs
from test_seam import RULE, Letters, trait

from demeanor import Monitor, Scorer
from demeanor.errors import ActivationError, OverloadedError
from demeanor.monitor.policy import Policy
from demeanor.scoring import ConversationScorer
from demeanor.scoring.engine import Engine, overloaded
from demeanor.scoring.worker import REMEMBERED, Deadline

THINK = "<think>The user is tired.</think>"


@pytest.fixture(scope="module")
def scorer(tokenizer):
    import conftest

    return planted(conftest._build, tokenizer)


def engine_of(scorer, **options):
    return Engine(scorer.reads, scorer.gauge.directions, **options)


def passes(scorer):
    """The shapes [rows, tokens] of the passes that run, in a list that grows."""
    assert scorer.reader.shares_up_to
    found = []
    handle = scorer.reader.blocks[0].register_forward_pre_hook(lambda _, args: found.append(tuple(args[0].shape[:2])))
    return found, handle


def until(condition):
    """Wait for what other threads do."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end


def all_at_once(calls):
    """What each call gives or raises, all run in threads of their own."""
    found: list[Any] = [None] * len(calls)

    def run(i, call):
        try:
            found[i] = call()
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=run, args=job) for job in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_conversations_in_shared_passes_score_as_each_alone(any_model, tokenizer):
    scorer = scorer_of(any_model, tokenizer)
    engine = engine_of(scorer)
    lives = [ConversationScorer(scorer, shared=engine.conversation()) for _ in range(6)]
    said = [[*TALK[:2], *TALK[2 : 2 * n]] for n in (1, 2, 3)]
    for turn in (0, 1, 2, 1):
        texts = [record(said[(turn + n) % 3]) for n in range(len(lives))]
        found = all_at_once([lambda live=live, text=text: live.read(text) for live, text in zip(lives, texts, strict=True)])
        for reading, text in zip(found, texts, strict=True):
            np.testing.assert_allclose(zs(reading.reading), zs(scorer.score(text)), **CLOSE)


def test_what_waits_while_a_pass_runs_is_read_in_the_next_one(scorer):
    monitor = Monitor(scorer, policy())
    seen, handle = passes(scorer)
    with blocked(scorer) as gate:
        sessions = [monitor.session(str(n)) for n in range(7)]
        first = threading.Thread(target=sessions[0].check, args=(FINE,))
        first.start()
        until(lambda: seen)
        others = [threading.Thread(target=session.check, args=(f"{FINE} {n}",)) for n, session in enumerate(sessions[1:])]
        for thread in others:
            thread.start()
        until(lambda: monitor.engine.waiting == 6)
        gate.set()
        for thread in (first, *others):
            thread.join(60)
    handle.remove()
    assert [rows for rows, _ in seen] == [1, 6]


def test_a_new_session_with_the_same_beginning_costs_what_is_new(scorer):
    monitor = Monitor(scorer, policy())
    history = []
    for n in range(6):
        history += [{"role": "user", "content": f"{n} {CALM}"}, {"role": "assistant", "content": FINE}]
    monitor.session("a", history).check(PLAIN)
    before = len(scorer.encoded(conversation(history)).ids)
    session = monitor.session("another", [*history, {"role": "assistant", "content": PLAIN}])
    session.user(AT_RISK)
    seen, handle = passes(scorer)
    decision = session.check(PLAIN)
    handle.remove()
    assert decision.situation == "risk_disclosed"
    assert len(seen) == 1
    assert seen[0][1] < 80 < before
    whole = [
        *history,
        {"role": "assistant", "content": PLAIN},
        {"role": "user", "content": AT_RISK},
        {"role": "assistant", "content": PLAIN},
    ]
    assert decision.reading["risk"].z == pytest.approx(scorer.score(whole)["risk"].z, abs=1e-4)


def conversation(messages):
    from demeanor.conversation import as_conversation

    return as_conversation(messages)


def test_a_user_s_message_that_another_session_has_read_is_known_without_a_pass(scorer):
    monitor = Monitor(scorer, policy())
    for n in range(2):
        session = monitor.session(str(n))
        session.user(AT_RISK)
        seen, handle = passes(scorer)
        assert session.check(PLAIN).situation == "risk_disclosed"
        handle.remove()
        assert len(seen) == 1 - n  # the second finds all of it


def test_the_same_reply_judged_once_more_is_read_once_more(scorer):
    session = Monitor(scorer, policy()).session("c")
    session.user(CALM)
    session.check(FINE)
    seen, handle = passes(scorer)
    session.check(FINE)
    handle.remove()
    assert len(seen) == 1


def test_streams_looks_share_passes(scorer):
    monitor = Monitor(scorer, policy())
    words = " ".join(["I hear you and"] * 16)

    async def chunks():
        for word in words.split():
            yield word + " "
            await asyncio.sleep(0)

    async def one(n):
        session = monitor.session(str(n))
        session.user(f"{n} {CALM}")
        stream = session.astream(chunks())
        return "".join([piece async for piece in stream]), stream.decision.action

    async def main():
        return await asyncio.gather(*(one(n) for n in range(12)))

    before = monitor.engine.passes
    assert set(asyncio.run(main())) == {(words + " ", "allow")}
    assert monitor.engine.passes - before < 12 * 8  # 8 looks and an end each


def test_writing_a_reply_holds_up_no_reading(make_model, tokenizer):
    scorer = planted(make_model, tokenizer)
    monitor = Monitor(scorer, policy())
    gate, writing = threading.Event(), threading.Event()

    def stop(*_):
        if threading.current_thread().name == "demeanor-writer":
            writing.set()
            gate.wait(60)

    handle = scorer.reader.blocks[0].register_forward_pre_hook(stop)
    session = monitor.session("written")
    session.user(CALM)
    stream = session.write()
    shown = threading.Thread(target=list, args=(stream,))
    shown.start()
    assert writing.wait(60)
    assert monitor.session("checked").check(FINE).action == "allow"
    gate.set()
    shown.join(60)
    handle.remove()
    assert stream.decision is not None


def test_reasoning_in_a_reply_is_read_by_the_engine_too(scorer):
    alone = ConversationScorer(scorer).read([{"role": "assistant", "content": f"{THINK}{FINE}"}]).reading
    engine = engine_of(scorer)
    shared = ConversationScorer(scorer, shared=engine.conversation()).read([{"role": "assistant", "content": f"{THINK}{FINE}"}]).reading
    assert engine.passes == 2
    assert shared.apart.read.caution == alone.apart.read.caution
    assert zs(shared.apart.read) == pytest.approx(zs(alone.apart.read), abs=1e-4)


# --- too much work


def test_more_than_may_wait_is_refused_at_once_and_said_so(scorer):
    engine = engine_of(scorer, most=4)
    seen, handle = passes(scorer)
    with blocked(scorer) as gate:
        asked = engine.ask([([9, 9, 9], None)])
        until(lambda: seen)
        for n in range(4):
            asked += engine.ask([([10, 11, 12 + n], None)])
        with pytest.raises(OverloadedError) as refused:
            engine.ask([([5, 6, 7], None)])
        assert overloaded(str(refused.value))
        gate.set()
        for one in asked:
            assert one.future.result(60).shape == (3, 3)
    handle.remove()
    (after,) = engine.ask([([5, 6, 7], None)])
    assert after.future.result(60).shape == (3, 3)


def test_a_session_refused_for_too_much_work_is_not_scored_and_the_policy_decides(scorer):
    monitor = Monitor(scorer, policy())
    monitor.engine.most = 1
    seen, handle = passes(scorer)
    with blocked(scorer) as gate:
        waits = [threading.Thread(target=monitor.session(name).check, args=(f"{FINE} {name}",)) for name in "ab"]
        waits[0].start()
        until(lambda: seen)
        waits[1].start()
        until(lambda: monitor.engine.waiting == 1)
        decision = monitor.session("c").check(FINE + " c")
        gate.set()
        for thread in waits:
            thread.join(60)
    handle.remove()
    assert decision.action == "substitute"
    assert overloaded(decision.not_scored)
    assert "ask again in a moment" in decision.not_scored
    assert monitor.session("c").check(FINE + " c").action == "allow"


def test_what_could_not_be_done_by_its_deadline_even_at_the_best_speed_is_refused_at_once(scorer):
    engine = engine_of(scorer)
    engine._took.extend([(10.0, 1)] * REMEMBERED)  # ten seconds a reply
    with blocked(scorer) as gate:
        first = engine.ask([([5, 6, 7], None)], Deadline(60))
        second = engine.ask([([5, 6, 8], None)], Deadline(60))
        with pytest.raises(OverloadedError, match="which takes"):
            engine.ask([([5, 6, 9], None)], Deadline(5))
        gate.set()
        for asked in (*first, *second):
            asked.future.result(60)


def test_where_nothing_waits_even_a_slow_model_is_asked(scorer):
    engine = engine_of(scorer)
    engine._took.extend([(100.0, 1)] * REMEMBERED)
    (asked,) = engine.ask([([5, 6, 7], None)], Deadline(30))
    assert asked.future.result(30).shape == (3, 3)


def test_the_earliest_deadline_is_read_first(scorer):
    engine = engine_of(scorer)
    order = []
    seen, handle = passes(scorer)
    with blocked(scorer) as gate:
        held = engine.ask([([9, 9, 9], None)])
        until(lambda: seen)
        late = engine.ask([(list(range(10, 400)), None)], Deadline(60))
        soon = engine.ask([(list(range(20, 380)), None)], Deadline(40))
        never = engine.ask([(list(range(30, 410)), None)])
        engine._side_by_side.reader.token_budget, budget = 400, engine._side_by_side.reader.token_budget
        for name, (asked,) in (("held", held), ("late", late), ("soon", soon), ("never", never)):
            asked.future.add_done_callback(lambda _, name=name: order.append(name))
        gate.set()
        for (asked,) in (held, late, soon, never):
            asked.future.result(60)
        engine._side_by_side.reader.token_budget = budget
    handle.remove()
    assert order == ["held", "soon", "late", "never"]


def test_a_row_that_fails_leaves_those_beside_it_alone(make_model, tokenizer):
    scorer = scorer_of(make_model("llama"), tokenizer)
    engine = engine_of(scorer)
    weight = scorer.reader.model.get_input_embeddings().weight
    weight.data[501] = float("nan")
    with blocked(scorer) as gate:
        held = engine.ask([([9, 9, 9], None)])
        good, bad, other = engine.ask([([5, 6, 7], None), ([5, 501, 7], None), ([7, 8], None)])
        gate.set()
        assert held[0].future.result(60).shape == good.future.result(60).shape == (3, 2)
        assert other.future.result(60).shape == (2, 2)
        with pytest.raises(ActivationError, match="not finite"):
            bad.future.result(60)


# --- readers without shared passes


def test_a_reader_that_keeps_nothing_gets_what_waits_in_one_call():
    from artifacts import vector_set

    reader = Letters()
    scorer = Scorer(reader, vector_set(trait("harm"), trait("risk", reads="user")))
    monitor = Monitor(scorer, Policy.model_validate({"version": "t", "rules": [RULE]}))
    calls, gate, project = [], threading.Event(), reader.project

    def counted(jobs, directions, progress=None):
        calls.append(len(jobs))
        gate.wait(60)
        return project(jobs, directions, progress)

    reader.project = counted
    replies = ["I see you", *["h h do it"] * 4]
    sessions = [monitor.session(str(n)) for n in range(5)]
    threads = [threading.Thread(target=s.check, args=(r,)) for s, r in zip(sessions, replies, strict=True)]
    threads[0].start()
    until(lambda: calls)
    for thread in threads[1:]:
        thread.start()
    until(lambda: monitor.engine.waiting == 4)
    gate.set()
    for thread in threads:
        thread.join(60)
    assert calls == [1, 4]
    assert [s.messages[-1].content == r for s, r in zip(sessions, replies, strict=True)] == [True] + [False] * 4


# --- memory, processes


def test_memory_is_flat_whatever_number_of_conversations_came_and_went(scorer):
    monitor = Monitor(scorer, policy(), memory=200_000)
    sizes, kept = [], vars(monitor.engine._side_by_side)["kept"]
    for n in range(300):
        session = monitor.session(str(n))
        session.user(f"{n} {CALM}")
        assert session.check(f"{FINE} {n}").action == "allow"
        sizes.append((monitor.engine.used, len(kept)))
    assert max(used for used, _ in sizes) <= 200_000
    assert max(nodes for _, nodes in sizes[150:]) <= max(nodes for _, nodes in sizes[:150]) + 2
    assert monitor.engine.waiting == 0


def test_with_no_memory_at_all_everything_is_read_anew_and_right(scorer):
    monitor = Monitor(scorer, policy(), memory=0)
    session = monitor.session("c")
    for reply, action in ((FINE, "allow"), (HARMFUL, "substitute"), (FINE + " Again.", "allow")):
        session.user(CALM)
        assert session.check(reply).action == action
    assert monitor.engine.used == 0


LEAVES = """
import sys
sys.path.insert(0, {tests!r})
import conftest
from monitor_tools import CALM, FINE, planted, policy
from demeanor.monitor.session import Monitor

monitor = Monitor(planted(conftest._build, conftest.tiny_tokenizer()), policy())
session = monitor.session("c")
session.user(CALM)
print(session.check(FINE * 20).action)
"""


@pytest.mark.slow
def test_a_process_that_ends_right_after_a_check_ends_well():
    code = LEAVES.format(tests=str(Path(__file__).parent))
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert (done.stdout.strip(), done.returncode) == ("allow", 0), done.stderr
