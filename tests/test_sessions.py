"""Sessions between requests that carry the whole conversation: what goes on, what begins anew, what counts once."""

import asyncio

import pytest

from demeanor.conversation import Message
from demeanor.gateway.conversations import Identity
from demeanor.monitor.sessions import Sessions
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, PLAIN, planted_monitor


@pytest.fixture(scope="module")
def monitor():
    return planted_monitor()


def said(*texts):
    return [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)]


def test_a_request_that_goes_on_gets_the_same_session(monitor):
    sessions = Sessions(monitor)
    first = sessions.take("c", said(CALM))
    first.check(FINE)
    sessions.keep(first)
    again = sessions.take("c", said(CALM, FINE, "More."))
    assert again is first
    assert again.messages == said(CALM, FINE, "More.")


def test_a_retry_takes_the_place_of_the_reply_before(monitor):
    sessions = Sessions(monitor)
    session = sessions.take("c", said(AT_RISK))
    text = session.check(PLAIN).text
    sessions.keep(session)
    session = sessions.take("c", said(AT_RISK))
    assert session.messages == said(AT_RISK)
    assert session.check(PLAIN + " Really.").text == text  # the reviewed text that it was shown, not the next one
    assert session.messages == said(AT_RISK, text)


def test_an_edited_conversation_begins_anew(monitor):
    sessions = Sessions(monitor)
    session = sessions.take("c", said(CALM))
    session.check(FINE)
    sessions.keep(session)
    other = sessions.take("c", said(AT_RISK, FINE, "More."))
    assert other is not session
    assert other.check(PLAIN).action == "substitute"


def test_what_was_shown_is_told_from_what_the_client_sends_back(monitor):
    sessions = Sessions(monitor)
    session = sessions.take("c", said(CALM))
    shown = session.check(HARMFUL).text
    sessions.keep(session)
    assert sessions.take("c", said(CALM, shown + " \n", "More.")) is session
    sessions.keep(session)
    assert sessions.take("c", said(CALM, HARMFUL, "More.", "x", "y")) is not session


def test_reasoning_that_is_not_sent_back_is_the_same_conversation(monitor):
    sessions = Sessions(monitor)
    session = sessions.take("c", said(CALM))
    session.check(f"<think>They are calm.</think>{FINE}")
    sessions.keep(session)
    assert sessions.take("c", said(CALM, FINE, "More.")) is session


def test_so_many_are_kept_for_so_long(monitor):
    now = [0.0]
    sessions = Sessions(monitor, max=2, ttl=10.0, clock=lambda: now[0])
    made = {name: sessions.take(name, said(CALM)) for name in "abc"}
    for session in made.values():
        sessions.keep(session)
    assert len(sessions) == 2
    assert sessions.take("a", said(CALM)) is not made["a"]
    made["b"].check(FINE)
    assert sessions.take("b", said(CALM, FINE, "More.")) is made["b"]
    sessions.keep(made["b"])
    now[0] = 11.0
    assert sessions.take("b", said(CALM, FINE, "More.")) is not made["b"]


def test_a_session_in_use_is_nobody_else_s(monitor):
    sessions = Sessions(monitor)
    session = sessions.take("c", said(CALM))
    sessions.keep(session)
    session.check(FINE)
    assert sessions.take("c", said(CALM)) is session
    assert sessions.take("c", said(CALM)) is not session


def test_acheck_leaves_the_event_loop_free_and_a_cancelled_one_whole(monitor):
    async def run():
        session = monitor.session("c", "User: " + CALM)
        decision = await session.acheck(FINE)
        task = asyncio.ensure_future(monitor.session("d", "User: " + CALM).acheck(FINE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return decision

    decision = asyncio.run(run())
    assert decision.action == "allow"
    assert len(decision.id) == 24


def test_a_conversation_s_name():
    identity = Identity("metadata.talk", b"k")
    request = {"messages": [{"role": "user", "content": "hello"}], "metadata": {"talk": "t1"}}
    assert identity.name(request, "h1", "ann") == "ann:h1"
    assert identity.name(request, None, "ann") == "ann:t1"
    plain = {"messages": request["messages"]}
    hashed = identity.name(plain, None, "ann")
    assert "hello" not in hashed
    assert hashed == identity.name({"messages": [*plain["messages"], {"role": "assistant", "content": "x"}]}, None, "ann")
    assert hashed != identity.name(plain, None, "bob")
    assert hashed != identity.name(plain | {"user": "u"}, None, "ann")
    assert hashed != Identity(None, b"q").name(plain, None, "ann")
    for bad in ("", "x" * 300, "a\nb"):
        with pytest.raises(ValueError, match="id"):
            identity.name(plain, bad, "ann")
