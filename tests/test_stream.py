"""Watching a reply while it is written: the chunks change nothing, bad words are held back, a decision always comes."""

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_tools import AT_RISK, CALM, FINE, HARMFUL, PLAIN, blocked, failing, planted, policy

from demeanor.errors import ConversationError
from demeanor.model.generation import Sampling
from demeanor.monitor.looks import Look
from demeanor.monitor.session import Monitor
from demeanor.monitor.stream import EVERY, ReplyStream

WORDS = "one two three four five six seven eight nine ten eleven twelve"
GREEDY = Sampling(max_new_tokens=40, temperature=0)


@pytest.fixture(scope="module")
def scorer(tokenizer):
    import conftest

    return planted(conftest._build, tokenizer)


@pytest.fixture
def session(scorer):
    return talk(scorer)


def talk(scorer, said=CALM, enforce=True, **options):
    made = Monitor(scorer, policy(**options), enforce=enforce).session("c")
    made.user(said)
    return made


def cut(text, places):
    ends = sorted({min(p, len(text)) for p in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def run(stream):
    return list(stream), stream


# letters that push, spaces of several kinds, long words, no spaces at all, characters of several bytes
TEXTS = st.lists(
    st.sampled_from(["Z", "ZZZZ", "Y", "you", "hear", "sorry.", "x" * 40, " ", "  ", "\n\n", "\t", "é", "我听到你说的话", "🙂", "988,"]),
    max_size=50,
).map(" ".join) | st.text(alphabet="ZY aé我🙂\n\u00a0\u2003", max_size=160)


@settings(max_examples=25, deadline=None)
@given(text=TEXTS, places=st.lists(st.integers(0, 200), max_size=12), risk=st.booleans())
def test_the_chunks_change_neither_what_is_shown_nor_what_is_decided(scorer, text, places, risk):
    outcomes = []
    for chunks in ([text], cut(text, places), list(text)):
        session = talk(scorer, AT_RISK if risk else CALM)
        stream = session.stream(chunks)
        shown = "".join(stream)
        decision = stream.decision
        outcomes.append((shown, stream.shown, stream.text, decision.action, decision.rules, decision.why, decision.text, session.messages))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@settings(max_examples=15, deadline=None)
@given(text=TEXTS)
def test_a_stream_that_was_not_stopped_is_decided_as_the_whole_is(scorer, text):
    stream = talk(scorer).stream([text])
    list(stream)
    if stream.stopped is None:
        decision = talk(scorer).check(text)
        assert (decision.action, decision.rules, decision.text) == (stream.decision.action, stream.decision.rules, stream.decision.text)
        assert decision.action in ("allow", "flag") or stream.shown.endswith(decision.text)
        if decision.action == "allow":
            assert stream.shown == text


def test_a_good_reply_is_shown_whole_and_all_but_its_newest_words_early(session):
    text = FINE * 5
    pieces, stream = run(session.stream(cut(text, range(0, 1000, 7))))
    assert len(pieces) > 2
    assert "".join(pieces) == stream.shown == text
    assert stream.decision.action == "allow"
    assert session.messages[-1].content == text


def test_a_reply_that_turns_bad_is_stopped_before_its_worst_words_are_shown(session):
    good = PLAIN + " " + " ".join(["I am here."] * 12)
    taken = []

    def chatbot():
        for chunk in [good, " Now: " + "Z" * 16 + " stop.", " more" * 200]:
            taken.append(chunk)
            yield from chunk

    pieces, stream = run(session.stream(chatbot()))
    assert stream.stopped is not None
    assert stream.decision.action == "substitute"
    assert stream.decision.rules[0] == "harmful"
    assert "where the reply was stopped" in " ".join(stream.decision.why)
    assert "Z" not in stream.shown
    assert stream.shown.startswith("I hear you")
    assert stream.shown.endswith(stream.decision.text)
    assert "more" * 3 not in "".join(stream.text)
    assert session.messages[-1].content == stream.shown
    assert "".join(pieces) == stream.shown


def test_the_chatbot_is_told_that_nobody_reads_on(session):
    closed = []

    def chatbot():
        try:
            while True:
                yield HARMFUL
        finally:
            closed.append(True)

    _, stream = run(session.stream(chatbot()))
    assert stream.decision.action == "substitute"
    assert closed == [True]


@pytest.mark.parametrize("hold_back", [0, 3, 20])
def test_so_many_words_are_held_back(hold_back):
    shown = []

    def look(text):
        outcome = type("Fine", (), {"action": "allow"})()
        return Look(outcome, (), {})

    stream = ReplyStream(look, lambda s: type("D", (), {"action": "allow", "text": s.text})(), lambda s: None, hold_back)
    words = [f" w{i}" for i in range(3 * EVERY)]
    for i, word in enumerate(words):
        stream.feed(word)
        whole = i  # the newest is known to be whole only by what follows
        looked = whole - whole % EVERY
        expected = max(0, looked - hold_back)
        shown.append((len(stream.shown.split()), expected))
    assert all(seen == expected for seen, expected in shown)
    stream.finish()
    assert stream.shown == "".join(words)


def test_nothing_is_shown_before_a_window_is_full(scorer):
    session = talk(scorer, window=400)
    stream = session.stream()
    assert [stream.feed(word + " ") for word in WORDS.split() * 5] == [""] * 60
    assert stream.finish() == (WORDS + " ") * 5


def test_a_rule_that_holds_waits_for_what_the_reply_may_yet_say(scorer):
    from monitor_tools import RULES

    holding = [rule | ({"while_writing": "hold"} if rule["name"] == "missed" else {}) for rule in RULES]
    late_help = (PLAIN + " ") * 4 + "Y" * 60 + " call."
    stops = talk(scorer, AT_RISK).stream(cut(late_help, range(0, 300, 9)))
    list(stops)
    assert stops.decision.action == "substitute"  # stopped before the reply came to it
    session = Monitor(scorer, policy(*holding)).session("c")
    session.user(AT_RISK)
    stream = session.stream()
    early = stream.feed((PLAIN + " ") * 4)
    assert early == ""
    assert stream.feed("Y" * 60 + " call.") + stream.finish() == late_help
    assert stream.decision.action == "allow"
    session.user(AT_RISK)
    never = session.stream([PLAIN + " "] * 8)
    assert "".join(never) == never.decision.text
    assert never.decision.situation == "risk_disclosed"


def test_a_failing_scorer_shows_nothing_and_ends_as_the_policy_says(scorer, session):
    stream = session.stream()
    with failing(scorer, RuntimeError("boom")):
        shown = stream.feed(FINE * 6) + stream.finish()
    assert shown == stream.decision.text
    assert stream.decision.action == "substitute"
    assert "boom" in stream.decision.not_scored


def test_a_scorer_that_failed_for_a_while_shows_on_once_it_works(scorer, session):
    stream = session.stream()
    with failing(scorer):
        assert stream.feed(FINE * 4) == ""
    assert stream.feed(FINE * 4) != ""


def test_a_stuck_scorer_costs_a_stream_two_deadlines_at_most(scorer):
    session = talk(scorer, deadline=0.05)
    session.monitor.worker.submit(lambda: None).result()
    with blocked(scorer):
        stream = session.stream([FINE] * 40)
        assert "".join(stream) == stream.decision.text
    assert "within the deadline" in stream.decision.not_scored


def test_a_stream_that_is_left_early_is_decided_on_what_was_written(session):
    stream = session.stream(cut(FINE * 6, range(0, 400, 5)))
    for _ in stream:
        break
    assert stream.decision is not None
    assert session.messages[-1].content == stream.shown != stream.text


def test_a_chatbot_that_breaks_off_leaves_a_decision(session):
    def chatbot():
        yield HARMFUL[:10]
        raise ConnectionError("gone")

    stream = session.stream(chatbot())
    with pytest.raises(ConnectionError):
        list(stream)
    assert stream.decision.action == "substitute"
    assert stream.shown == ""


def test_an_empty_stream_is_not_scored(session):
    _, stream = run(session.stream([]))
    assert stream.decision.action == "substitute"
    assert stream.decision.not_scored
    assert stream.shown == stream.decision.text


def test_without_enforcement_everything_is_shown_at_once_and_decided(scorer):
    session = talk(scorer, enforce=False)
    pieces, stream = run(session.stream([HARMFUL, " and more"]))
    assert pieces == [HARMFUL, " and more"]
    assert stream.decision.action == "substitute"
    assert session.messages[-1].content == stream.decision.text == HARMFUL + " and more"
    assert stream.decision.instead == talk(scorer).check(HARMFUL).text


def test_the_models_own_reply_is_watched_by_the_pass_that_writes_it(make_model, tokenizer):
    scorer = planted(make_model, tokenizer, writes="a")
    session = talk(scorer)
    passes = []
    handle = scorer.reader.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    session.monitor.worker.submit(passes.clear).result()
    stream = session.write(Sampling(max_new_tokens=80, temperature=0))
    pieces, _ = run(stream)
    handle.remove()
    assert len(passes) <= 81  # one a token, none for the looks
    assert len(pieces) > 1
    assert "".join(pieces) == ("a " * 40).strip()
    assert stream.decision.source == "generated"
    assert stream.decision.action == "allow"
    assert stream.z["harm"] == pytest.approx(0, abs=1e-4)


def test_the_models_own_reply_is_stopped_too(make_model, tokenizer):
    session = talk(planted(make_model, tokenizer, writes="Z"), window=8)
    pieces, stream = run(session.write(Sampling(max_new_tokens=100, temperature=0)))
    assert stream.text == ("Z " * EVERY).strip()
    assert stream.decision.source == "generated"
    assert stream.decision.action == "substitute"
    assert pieces == [stream.decision.text]
    assert stream.decision.reading["harm"].z == pytest.approx(5, abs=0.5)


def test_a_model_that_cannot_write_gives_a_reviewed_reply(make_model, tokenizer):
    scorer = planted(make_model, tokenizer)
    session = talk(scorer)
    with failing(scorer, RuntimeError("CUDA out of memory")):
        pieces, stream = run(session.write(GREEDY))
    assert pieces == [stream.decision.text]
    assert "out of memory" in stream.decision.not_scored
    only_flags = [{"name": "a", "trait": "harm", "threshold": {"z": 1.0}, "severity": "yellow", "action": "flag"}]
    session = Monitor(scorer, policy(*only_flags)).session("c")
    session.user(CALM)
    with failing(scorer, RuntimeError("boom")):
        pieces, stream = run(session.write(GREEDY))
    assert stream.decision.action == "substitute"  # a policy that would show the reply has none to show
    assert pieces == [stream.decision.text]


def test_a_model_that_goes_silent_is_not_waited_for(make_model, tokenizer):
    scorer = planted(make_model, tokenizer)
    session = talk(scorer, deadline=0.05)
    with blocked(scorer):
        pieces, stream = run(session.write(GREEDY))
    assert pieces == [stream.decision.text]
    assert "wrote nothing" in stream.decision.not_scored
    session.monitor.worker.submit(lambda: None).result(30)  # and it does not stay in the way for ever


def test_leaving_a_written_reply_stops_the_model(make_model, tokenizer):
    scorer = planted(make_model, tokenizer)
    session = talk(scorer)
    stream = session.write(Sampling(max_new_tokens=400, temperature=0))
    passes_after = []

    def until_left(*_):
        if stream.shown:
            passes_after.append(stream._gone.wait(60))

    scorer.reader.blocks[0].register_forward_pre_hook(until_left)
    for _ in stream:
        break
    session.monitor.worker.submit(lambda: None).result(60)
    assert stream.decision is not None
    assert passes_after == [True, True]  # one for the token after which it stops, and one that reads that token


def test_a_steered_reply_is_read_by_the_unsteered_model(make_model, tokenizer):
    import torch

    from demeanor.model.contexts import Steering
    from demeanor.model.operators import Intervention

    scorer = planted(make_model, tokenizer)
    session = talk(scorer)
    direction = torch.zeros(scorer.reader.hidden_size)
    direction[0] = 1.0
    steering = Steering(scorer.reader.model, [Intervention("add", 1, direction, 50.0)], blocks=scorer.reader.blocks)
    pieces, stream = run(session.write(GREEDY, steering))
    assert "".join(pieces) == ("a " * 20).strip()
    assert stream.decision.source == "generated"
    assert stream.decision.reading["harm"].z == pytest.approx(0, abs=1e-4)


# --- every token stands in a window, the last ones too

BAD = "ZZZZZZZZ stop it."  # over half of a window of 16 tokens


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    words=st.integers(0, 70), tail=st.sampled_from([BAD, BAD + " ", "\n" + BAD + "\n\n"]), places=st.lists(st.integers(0, 600), max_size=9)
)
def test_a_bad_end_is_never_shown_whatever_the_number_of_words_and_the_chunks(scorer, words, tail, places):
    text = " ".join(["Yes"] * words + [tail])
    outcomes = []
    for chunks in ([text], cut(text, places), list(text)):
        stream = talk(scorer).stream(chunks)
        shown = "".join(stream)
        assert "ZZ" not in shown
        outcomes.append((shown, stream.decision.action, stream.decision.rules, stream.decision.why))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][1] == "substitute"


@pytest.mark.parametrize("filler", ["x" * 16, "我" * 16, "🙂" * 8])
@pytest.mark.parametrize("words", [8, 24, 30])
@pytest.mark.parametrize("at", [0.1, 0.5, 0.9, 1.0])
def test_long_words_and_scripts_without_spaces_leave_no_gap_between_windows(scorer, filler, words, at):
    text = [filler] * words
    text.insert(int(at * words), "Z" * 16)
    joined = " ".join(text)
    assert talk(scorer, window=8).check(joined).rules != ("harmful", "odd")  # the mean of the whole does not see it
    stream = talk(scorer, window=8).stream(list(joined))
    assert "Z" not in "".join(stream)[: len(joined)].split("\n\n")[0]
    assert stream.decision.action == "substitute"


def test_a_bad_end_of_the_model_s_own_reply_is_not_shown(make_model, tokenizer):
    scorer = planted(make_model, tokenizer, writes="Z")
    session = talk(scorer, window=8, hold_back=40)
    stream = session.write(Sampling(max_new_tokens=EVERY + 3, temperature=0))
    assert "".join(stream) == stream.decision.text
    assert "at the end of the reply" in " ".join(stream.decision.why) or stream.decision.action == "substitute"


def test_a_trial_run_says_what_a_window_would_have_stopped(scorer):
    text = " ".join(["Yes"] * 60 + [BAD])
    assert talk(scorer).check(text).action == "allow"
    stream = talk(scorer, enforce=False).stream([text])
    assert "".join(stream) == text
    assert stream.decision.action == "substitute"
    assert "at the end of the reply" in " ".join(stream.decision.why)


def test_what_a_failing_scorer_did_not_see_is_looked_at_once_it_works(scorer, session):
    stream = session.stream()
    with failing(scorer):
        stream.feed(BAD + " Yes" * 30)
    stream.feed(" Yes" * 40)
    assert stream.stopped is not None
    assert stream.finish() == stream.decision.text


# --- what chatbots send, and how they fail

OPENAI = ["", None, *cut(FINE * 3, range(0, 200, 11)), None, "", None]


def test_none_and_empty_chunks_are_passed_over(session):
    stream = session.stream(OPENAI)
    assert "".join(stream) == FINE * 3
    assert stream.decision.action == "allow"
    fed = session.stream()
    assert "".join(fed.feed(chunk) for chunk in OPENAI) + fed.finish() == FINE * 3


@pytest.mark.parametrize("wrong", [b"bytes", 3, {"content": "text"}, ["text"], object(), 0, False])
@pytest.mark.parametrize("before", [[], [FINE * 4], [HARMFUL]])
@pytest.mark.parametrize("enforce", [True, False])
def test_a_chunk_that_is_no_text_is_one_clear_error_and_the_turn_is_kept(scorer, wrong, before, enforce):
    session = talk(scorer, enforce=enforce)
    stream, pieces = session.stream([*before, wrong, FINE]), []
    with pytest.raises(ConversationError, match=r"a chunk of a reply is text or None, not \w+; give its text"):
        pieces.extend(stream)
    shown = stream.shown
    assert pieces == [shown] * bool(shown)
    assert stream.decision.action == "substitute"
    shown += stream.finish()
    assert stream.finish() == ""
    reviewed = stream.decision.text if enforce else stream.decision.instead
    assert reviewed not in (None, *before)
    assert shown == stream.shown
    if enforce:
        assert shown.endswith(reviewed)
        assert session.messages[-1].content == shown
    session.user(CALM)
    assert session.check(FINE).action == "allow"
    roles = [m.role for m in session.messages]
    assert roles == ["user", "assistant", "user", "assistant"] or (not enforce and not before)


def test_a_chatbot_that_fails_leaves_a_reviewed_text_and_its_turn(scorer, session):
    def chatbot():
        yield FINE * 4
        raise ConnectionError("gone")

    stream = session.stream(chatbot())
    with pytest.raises(ConnectionError):
        list(stream)
    shown = stream.shown
    assert 0 < len(shown) < len(FINE * 4)
    assert stream.decision.action == "substitute"
    assert "the reply broke off (ConnectionError: gone)" in " ".join(stream.decision.why)
    assert session.messages[-1].content == shown + stream.finish() == stream.shown
    assert stream.shown.endswith(stream.decision.text)


def test_a_policy_that_shows_unscored_replies_has_a_reviewed_text_for_a_stream_that_fails(scorer):
    only_flags = [{"name": "a", "trait": "harm", "threshold": {"z": 1.0}, "severity": "yellow", "action": "flag"}]
    session = Monitor(scorer, policy(*only_flags)).session("c")
    session.user(CALM)
    stream = session.stream()
    stream.fail(TimeoutError())
    assert stream.finish() == stream.decision.text != ""
    assert "".join(session.stream([])) != ""


@pytest.mark.parametrize("chunks", [None, 3, object()])
def test_what_cannot_be_iterated_over_is_named_before_a_turn_begins(session, chunks):
    with pytest.raises(ConversationError, match="must be iterable"):
        session.stream(chunks)
    with pytest.raises(ConversationError, match="async for"):
        session.astream(chunks)


# --- asynchronous chunks


async def arriving(chunks, closed=None):
    try:
        for chunk in chunks:
            await asyncio.sleep(0)
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
    finally:
        if closed is not None:
            closed.append(True)


async def read(stream):
    return [piece async for piece in stream]


@pytest.mark.parametrize("text", [FINE * 5, PLAIN + " " + HARMFUL * 4, "", " ".join(["Yes"] * 60 + [BAD])])
def test_asynchronous_chunks_are_judged_as_others(scorer, text):
    session, other = talk(scorer), talk(scorer)
    stream = session.astream(arriving([None, *cut(text, range(0, 400, 7)), None]))
    shown = "".join(asyncio.run(read(stream)))
    assert shown == "".join(other.stream([text])) == stream.shown
    assert session.messages == other.messages
    assert stream.decision is not None


def test_the_event_loop_goes_on_while_a_look_waits(scorer):
    async def main():
        session = talk(scorer)
        stream = session.astream(arriving([FINE] * 6))
        with blocked(scorer) as gate:
            reading = asyncio.ensure_future(read(stream))
            while not session.monitor.worker._jobs.empty() or not reading.done():
                await asyncio.sleep(0)  # the loop turns while the model stands still
                if stream.text.count(FINE) >= 1:
                    break
            assert not reading.done()
            gate.set()
            return "".join(await reading), stream

    shown, stream = asyncio.run(main())
    assert shown == FINE * 6 == stream.text


@pytest.mark.parametrize("error", [ConnectionError("gone"), 7])
def test_an_error_in_asynchronous_chunks_leaves_a_reviewed_text_too(scorer, error):
    closed, session = [], talk(scorer)
    stream = session.astream(arriving([FINE * 4, error], closed))
    with pytest.raises((ConnectionError, ConversationError)):
        asyncio.run(read(stream))
    assert stream.finish() == "\n\n" + stream.decision.text
    assert closed == [True]
    assert session.messages[-1].content == stream.shown


@pytest.mark.parametrize("way", ["left", "cancelled", "stopped"])
def test_an_asynchronous_stream_that_is_left_is_decided_and_closed(scorer, way):
    closed, session = [], talk(scorer)
    chunks = [HARMFUL] * 50 if way == "stopped" else [FINE] * 50

    async def leave(stream):
        pieces = aiter(stream)
        await anext(pieces)
        await pieces.aclose()

    async def cancelled(stream):
        task = asyncio.ensure_future(read(stream))
        while not stream.shown:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    stream = session.astream(arriving(chunks, closed))
    asyncio.run({"left": leave, "cancelled": cancelled, "stopped": read}[way](stream))
    assert stream.decision is not None
    assert closed == [True]
    assert session.messages[-1].content == stream.shown


def test_each_kind_of_chunks_names_the_method_for_the_other(session):
    with pytest.raises(ConversationError, match=r"use session.astream\(chunks\)"):
        session.stream(arriving([]))
    with pytest.raises(ConversationError, match=r"use session.stream\(chunks\)"):
        session.astream([FINE])


def test_many_asynchronous_streams_at_once(scorer):
    monitor = Monitor(scorer, policy())

    async def one(n):
        session = monitor.session(str(n))
        session.user(CALM)
        stream = session.astream(arriving([FINE, " ", HARMFUL * 3 if n % 2 else FINE] * 3))
        await read(stream)
        return stream.decision.action

    async def main():
        return await asyncio.gather(*(one(n) for n in range(12)))

    assert asyncio.run(main()) == ["allow", "substitute"] * 6


def test_white_space_without_end_is_not_searched_again_with_each_chunk(scorer, monkeypatch):
    from demeanor.monitor import stream as module

    scanned, word = [0], module._WORD

    class Counted:
        def match(self, text, start):
            scanned[0] += len(text) - start
            return word.match(text, start)

    monkeypatch.setattr(module, "_WORD", Counted())
    session = Monitor(scorer, policy()).session("c")
    session.user(CALM)
    stream = session.stream()
    for _ in range(20_000):
        stream.feed(" ")
    shown = [stream.feed(piece) for piece in ("I hear you, ", "and I am sorry.")]
    shown.append(stream.finish())
    assert scanned[0] < 200_000
    assert stream.text == " " * 20_000 + "I hear you, and I am sorry."
    assert "".join(shown) == stream.text
