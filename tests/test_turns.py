"""Turns of the user's, what is filed when, and conversations that go on: the risk lasts until a reply was let through."""

import json

import numpy as np
import pytest
from monitor_tools import AT_RISK, CALM, FINE, HARMFUL, PLAIN, RULES, blocked, failing, planted, policy
from pydantic import ValidationError

from demeanor.audit.counts import report
from demeanor.audit.log import AuditLog
from demeanor.conversation import Conversation, Message
from demeanor.measure.drift import Baseline, DriftMonitor
from demeanor.monitor.policy import Policy
from demeanor.monitor.session import Monitor
from demeanor.monitor.transcripts import Counts, judge_transcript
from demeanor.turns import Role

SORRY = ["sorry", "forget it", "that", "never mind me", "it is late"]


@pytest.fixture(scope="module")
def scorer(tokenizer):
    import conftest

    return planted(conftest._build, tokenizer)


def talk(scorer, *said, **options):
    made = Monitor(scorer, policy(), **options).session("c")
    for text in said:
        made.user(text)
    return made


def turns(*texts):
    """User and assistant by turns; a tuple is several messages of the user's."""
    found = []
    for i, said in enumerate(texts):
        role: Role = "user" if i % 2 == 0 else "assistant"
        found += [Message(role, text) for text in (said if isinstance(said, tuple) else (said,))]
    return tuple(found)


# --- a risk that is followed by other messages


@pytest.mark.parametrize("after", range(len(SORRY) + 1))
@pytest.mark.parametrize("before", [0, 3])
def test_a_disclosure_among_several_messages_is_not_lost(scorer, before, after):
    said = [CALM] * before + [AT_RISK] + SORRY[:after]
    assert talk(scorer, *said).check(PLAIN).rules == ("missed",)
    stream = talk(scorer, *said).stream([PLAIN])
    assert "".join(stream) == stream.decision.text != PLAIN
    monitor = Monitor(scorer, policy(), enforce=False)
    (turn,) = judge_transcript(monitor, "t", Conversation(turns(tuple(said), PLAIN))).turns
    assert turn.decision.rules == ("missed",)


def test_a_risk_does_not_expire_while_every_reply_is_withheld(scorer):
    session = talk(scorer, AT_RISK)
    for _ in range(6):
        assert session.check(PLAIN).situation == "risk_disclosed"
        session.user(CALM)
    assert session.check(FINE).action == "allow"
    session.user(CALM)
    assert session.check(PLAIN).rules == ("missed",)  # two turns, in this policy
    session.user(CALM)
    assert session.check(FINE).action == "allow"
    session.user(CALM)
    assert session.check(PLAIN).action == "allow"


def test_a_trial_run_decides_as_if_its_replies_had_been_withheld(scorer):
    monitor = Monitor(scorer, policy(), enforce=False)
    made = judge_transcript(monitor, "t", Conversation(turns(AT_RISK, PLAIN, CALM, PLAIN, CALM, PLAIN, CALM, PLAIN)))
    assert [t.decision.rules for t in made.turns] == [("missed",)] * 4


def test_a_risk_does_not_expire_while_no_reply_is_scored(scorer):
    unread = [{**rule, "not_scored": "flag"} for rule in RULES]  # shown unread
    session = Monitor(scorer, policy(*unread)).session("c")
    session.user(AT_RISK)
    for _ in range(4):
        with failing(scorer):
            decision = session.check(PLAIN)
        assert (decision.action, decision.text) == ("flag", PLAIN)
        session.user(CALM)
    assert session.check(PLAIN).rules == ("missed",)


def test_replies_that_were_let_through_let_it_expire(scorer):
    history = [{"role": m.role, "content": m.content} for m in turns(AT_RISK, FINE, (CALM, CALM, CALM), FINE, CALM)]
    assert Monitor(scorer, policy()).session("c", history).check(PLAIN).action == "allow"
    assert Monitor(scorer, policy()).session("c", history[2:]).check(PLAIN).action == "allow"
    assert Monitor(scorer, policy()).session("c", [*history[:2], *history[-1:]]).check(PLAIN).rules == ("missed",)


@pytest.mark.parametrize("began", ["", "I hear you, and\n\n"])
def test_a_reviewed_reply_in_the_history_lets_nothing_through(scorer, began):
    monitor = Monitor(scorer, policy(), country="GB")
    history = [{"role": "user", "content": AT_RISK}]
    for n in range(4):
        reviewed = monitor.replies.reply("risk_disclosed", "GB", n).text
        history += [{"role": "assistant", "content": began + reviewed}, {"role": "user", "content": CALM}]
    assert monitor.session("c", history).check(PLAIN).rules == ("missed",)


def test_older_policies_are_read_and_counted_in_turns():
    def limit(**given):
        rules = [{**RULES[1], "when": {"trait": "risk", "threshold": {"z": 1.0}, **given}}]
        return Policy.model_validate({"version": "t", "rules": rules}).rules[0].when[0].last_turns

    with pytest.warns(FutureWarning, match="'last_messages' is the older name of 'last_turns'; rename it in your policy"):
        older = limit(last_messages=5)
    assert (limit(), older, limit(last_turns=5)) == (3, 5, 5)
    with pytest.raises(ValidationError, match="older name of 'last_turns'"):
        limit(last_messages=2, last_turns=2)
    with pytest.raises(ValidationError, match="less than or equal to 100"):
        limit(last_turns=101)


# --- a reply with no words of the user's before it


GREETING = "Hello, I am glad that you are here."


@pytest.mark.parametrize("before", [(), (Message("system", "Be kind."),), (Message("user", ""),), (Message("user", " \n"),)])
def test_a_reply_with_no_words_of_the_user_s_before_it_is_not_scored_counted_and_shown(scorer, tmp_path, before):
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        session = Monitor(scorer, policy(), audit=log).session("c", [{"role": m.role, "content": m.content} for m in before])
        decision = session.check(GREETING)
        assert (decision.action, decision.text, decision.severity) == ("flag", GREETING, "yellow")
        assert decision.results[1].state == "not scored"
        assert "the user wrote no words before this reply" in decision.not_scored
        session.user(CALM)
        assert session.check(PLAIN).action == "allow"
    (month,) = report(path)["months"].values()
    assert (month["not_scored"], month["decisions"]) == (1, 2)
    counts = Counts()
    counts.add(judge_transcript(Monitor(scorer, policy(), enforce=False), "t", Conversation((*before, Message("assistant", GREETING)))))
    assert (counts.not_scored, counts.actions["flag"]) == (1, 1)


def test_what_is_wrong_whoever_hears_it_is_judged_without_a_user(scorer):
    session = Monitor(scorer, policy()).session("c")
    assert session.check(HARMFUL).situation == "harmful_plan"
    assert session.check(FINE).not_scored is None  # passes the conditional rule, whatever the user would have said


def test_a_greeting_is_shown_while_it_streams(scorer):
    stream = Monitor(scorer, policy()).session("c").stream([GREETING + " "] * 8)
    assert "".join(stream) == (GREETING + " ") * 8
    assert stream.decision.action == "flag"


def test_a_policy_that_lets_unscored_replies_pass_lets_a_greeting_pass(scorer):
    quiet = {**RULES[1], "not_scored": "allow"}
    decision = Monitor(scorer, policy(quiet)).session("c").check(GREETING)
    assert decision.action == "allow"
    assert decision.not_scored


# --- what is filed when


def test_what_the_user_says_while_a_reply_streams_is_filed_after_it(scorer):
    session = talk(scorer, CALM)
    stream = session.stream([FINE, " And you?", FINE])
    for n, _ in enumerate(stream):
        if n == 0:
            session.user(AT_RISK)
            session.user("are you there")
    assert stream.decision.action == "allow"  # it answers what was said before it
    assert [m.content for m in session.messages] == [CALM, stream.text, AT_RISK, "are you there"]
    assert session.check(PLAIN).rules == ("missed",)


@pytest.mark.parametrize("end", ["finish", "abandon", "check", "fail"])
def test_however_a_stream_ends_what_was_said_meanwhile_is_filed(scorer, end):
    session = talk(scorer, CALM)
    stream = session.stream()
    stream.feed(FINE * 4)
    session.user(AT_RISK)
    assert AT_RISK not in [m.content for m in session.messages]
    if end == "check":
        session.check(FINE)
    elif end == "fail":
        stream.fail(ConnectionError("gone"))
    else:
        getattr(stream, end)()
    assert [m.role for m in session.messages][:3] == ["user", "assistant", "user"]
    assert session.messages[2].content == AT_RISK


def test_a_stream_that_nobody_began_holds_nothing_up(scorer):
    session = talk(scorer, CALM)
    session.stream([FINE])
    session.user(AT_RISK)
    assert [m.content for m in session.messages] == [CALM, AT_RISK]


@pytest.mark.parametrize("reply", [FINE, PLAIN, HARMFUL])
@pytest.mark.parametrize("way", ["check", "stream", "mixed"])
def test_a_retry_stands_once_in_the_history(scorer, reply, way):
    session = talk(scorer, CALM)
    decisions = []
    for n in range(3):
        if way == "check" or (way == "mixed" and n == 1):
            decisions.append(session.check(reply))
        else:
            stream = session.stream([reply[:9], reply[9:]])
            "".join(stream)
            decisions.append(stream.decision)
    assert [m.role for m in session.messages] == ["user", "assistant"]
    assert session.messages[1].content == decisions[-1].text
    assert len({d.action for d in decisions}) == 1
    z = [d.reading["care"].z for d in decisions]
    assert z == pytest.approx([z[0]] * 3, abs=1e-5)
    session.check("Are you still there?")
    assert [m.role for m in session.messages] == ["user", "assistant", "assistant"]  # another reply is another message


def test_a_retry_neither_ends_a_turn_twice_nor_counts_twice_in_the_charts(scorer):
    monitor = Monitor(scorer, policy(), baseline={"harm": baseline()})
    session = monitor.session("c")
    session.user(AT_RISK)
    states = [session.check(FINE).drift["harm"] for _ in range(4)]
    assert states == [states[0]] * 4
    session.user(CALM)
    decision = session.check(PLAIN)
    assert decision.rules == ("missed",)
    assert decision.drift["harm"].turn == 2


def test_a_reply_that_was_not_scored_can_be_tried_again(scorer):
    session = talk(scorer, AT_RISK)
    with failing(scorer):
        assert session.check(FINE).not_scored
    assert session.check(FINE).action == "allow"
    assert [m.content for m in session.messages] == [AT_RISK, FINE]


def test_an_empty_reply_to_somebody_at_risk_is_answered_by_the_reply_for_that(scorer):
    assert talk(scorer, AT_RISK).check(" ").situation == "risk_disclosed"
    stream = talk(scorer, AT_RISK).stream([None, ""])
    assert "".join(stream) == stream.decision.text
    assert stream.decision.situation == "risk_disclosed"


# --- drift in a conversation that goes on


def baseline():
    noise = np.random.default_rng(0).normal(0, 0.2, (60, 12))
    return Baseline.fit(noise.tolist())


def replies(n):
    return [("Z " if i % 3 == 2 else "") + f"{PLAIN} {i}" for i in range(n)]


@pytest.mark.parametrize("cut", [0, 1, 5, 9])
def test_a_restart_leaves_the_charts_where_they_were(scorer, cut):
    monitor = Monitor(scorer, policy(), baseline={"harm": baseline(), "care": baseline()})
    whole = monitor.session("c")
    for reply in replies(10):
        whole.user(CALM)
        last = whole.check(reply).drift
    goes_on = monitor.session("c", [{"role": m.role, "content": m.content} for m in whole.messages[: 2 * cut]])
    for reply in replies(10)[cut:]:
        goes_on.user(CALM)
        again = goes_on.check(reply).drift
    for trait, state in last.items():
        assert (again[trait].turn, again[trait].level, again[trait].expected) == (10, state.level, state.expected)
        assert again[trait].ewma == pytest.approx(state.ewma, abs=1e-4)


def test_the_earlier_replies_count_once_the_model_works_again(scorer):
    monitor = Monitor(scorer, policy(), baseline={"harm": baseline()})
    session = monitor.session("c", [{"role": m.role, "content": m.content} for m in turns(CALM, PLAIN, CALM, "Z " + PLAIN, CALM)])
    with failing(scorer):
        unscored = session.check(PLAIN).drift["harm"]
    assert (unscored.turn, unscored.scored, unscored.ewma) == (3, False, 0.0)
    session.user(CALM)
    state = session.check(PLAIN).drift["harm"]
    expected = DriftMonitor(baseline())
    said = {"role": "user", "content": CALM}
    z = [scorer.score([said, {"role": "assistant", "content": reply}])["harm"].z for reply in (PLAIN, "Z " + PLAIN)]
    for value in (*z, None, z[0]):
        last = expected.update(value)
    assert state.turn == 4
    assert state.ewma == pytest.approx(last.ewma, abs=1e-4)


def test_a_reviewed_reply_of_the_history_is_a_turn_without_a_score(scorer):
    monitor = Monitor(scorer, policy(), baseline={"harm": baseline()})
    reviewed = monitor.replies.reply("boundary").text
    session = monitor.session("c", [{"role": m.role, "content": m.content} for m in turns(CALM, reviewed, CALM)])
    state = session.check("Z " + PLAIN).drift["harm"]
    expected = DriftMonitor(baseline())
    expected.update(None)
    assert state.turn == 2
    assert state.ewma == pytest.approx(expected.update(session.reading.reading["harm"].z).ewma, abs=1e-6)


def test_what_the_model_itself_writes_goes_on_from_the_history_too(scorer):
    from demeanor.model.generation import Sampling

    monitor = Monitor(scorer, policy(), baseline={"harm": baseline()})
    session = monitor.session("c", [{"role": m.role, "content": m.content} for m in turns(AT_RISK, "Z " + PLAIN, CALM)])
    stream = session.write(Sampling(max_new_tokens=12, temperature=0))
    "".join(stream)
    assert stream.decision.rules == ("missed",)
    assert (stream.decision.drift["harm"].turn, stream.decision.drift["harm"].ewma > 0.05) == (2, True)


def test_a_decision_with_an_unread_user_is_plain_data(scorer):
    session = talk(scorer, AT_RISK, deadline=0.05)
    with blocked(scorer):
        decision = session.check(PLAIN)
    assert json.loads(json.dumps(decision.to_record()))["not_scored"] == "no score within the deadline of 0.05 s"
