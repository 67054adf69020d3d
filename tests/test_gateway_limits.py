"""Limits hold before the application sees a byte, and say in one line which they are."""

import functools
import json

import anyio
import pytest

from demeanor.gateway.limits import Limited, RequestLimits, Slots, messages_refused, read_json
from demeanor.gateway.refusals import Refusal

SMALL = RequestLimits(body_bytes=10, header_bytes=200, messages=3, message_characters=5)
GONE = {"type": "http.disconnect"}


def chunks(*parts, more=False):
    """A body in parts, as a server gives it; `more`: its end never comes."""
    last = len(parts) - 1
    return [{"type": "http.request", "body": part, "more_body": more or i < last} for i, part in enumerate(parts)]


class Echo:
    """An application that answers with what it was sent."""

    def __init__(self):
        self.called = 0

    async def __call__(self, scope, receive, send):
        self.called += 1
        message = await receive()
        assert not message["more_body"]
        self.after = (await receive())["type"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})


def ask(app, messages, headers=(), limits=SMALL, **scope):
    """What comes back for a request: status, headers and body. Where the messages end nothing comes any more."""
    waiting, sent = list(messages), []

    async def receive():
        if not waiting:
            await anyio.sleep_forever()
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    whole = {"type": "http", "headers": list(headers), "raw_path": b"/v1/check", "query_string": b""} | scope
    anyio.run(functools.partial(Limited(app, limits), whole, receive, send))
    if not sent:
        return None
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(m.get("body", b"") for m in sent[1:])


def code(answer):
    status, headers, body = answer
    error = json.loads(body)["error"]
    assert headers[b"connection"] == b"close"
    assert "\n" not in error["message"]
    return status, error["code"]


@pytest.mark.parametrize("parts", [(b"0123456789",), (b"01234", b"", b"56789"), (b"",), (b"0",) * 10])
def test_a_body_within_the_limit_comes_whole_and_at_once(parts):
    app = Echo()
    assert ask(app, [*chunks(*parts), GONE])[::2] == (200, b"".join(parts))
    assert app.after == "http.disconnect"


@pytest.mark.parametrize(("messages", "headers"), [
    (chunks(b"0123456789a"), ()),
    (chunks(b"01234", b"56789", b"a", more=True), ()),  # chunked, and it would never end
    ([], [(b"content-length", b"11")]),  # refused before anything is read
    (chunks(b"0123456789a"), [(b"content-length", b"3")]),  # a length that is not so
])  # fmt: skip
def test_a_larger_one_never_reaches_the_application(messages, headers):
    app = Echo()
    assert code(ask(app, messages, headers)) == (413, "body_too_large")
    assert app.called == 0


@pytest.mark.parametrize("values", [(b"ten",), (b"-1",), (b"1e3",), (b"",), (b"1", b"2"), (b"9" * 50,), (b"1_0",)])
def test_a_length_that_is_none_is_refused(values):
    assert code(ask(Echo(), chunks(b""), [(b"content-length", value) for value in values])) == (400, "bad_content_length")


def test_a_body_that_does_not_come_is_given_up():
    app = Echo()
    slow = RequestLimits(body_seconds=0.01)
    assert code(ask(app, chunks(b"0", more=True), limits=slow)) == (408, "body_timeout")
    assert app.called == 0


def test_a_client_that_leaves_within_its_body_is_answered_nothing():
    app = Echo()
    assert ask(app, [*chunks(b"0", more=True), GONE]) is None
    assert app.called == 0


@pytest.mark.parametrize(("headers", "scope"), [
    ([(b"x-a", b"a" * 200)], {}),
    ([(b"a", b"")] * 101, {}),
    ([], {"query_string": b"a" * 200}),
    ([], {"raw_path": b"/" * 201}),
])  # fmt: skip
def test_headers_have_a_limit(headers, scope):
    app = Echo()
    assert code(ask(app, chunks(b""), headers, **scope)) == (431, "headers_too_large")
    assert app.called == 0


def test_an_answer_that_does_not_begin_is_given_up_and_its_work_is_cancelled():
    cancelled = []

    async def app(scope, receive, send):
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled.append(True)
            raise

    assert code(ask(app, chunks(b""), limits=RequestLimits(answer_seconds=0.01))) == (504, "answer_timeout")
    assert cancelled == [True]


def test_an_answer_that_has_begun_has_its_own_time():
    async def app(scope, receive, send):
        await receive()
        deadlines.append(anyio.current_effective_deadline())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        deadlines.append(anyio.current_effective_deadline())
        await send({"type": "http.response.body", "body": b"long"})

    deadlines = []
    assert ask(app, chunks(b""), limits=RequestLimits(answer_seconds=60))[::2] == (200, b"long")
    assert deadlines[0] < deadlines[1] == float("inf")


def test_the_applications_own_errors_pass():
    async def app(scope, receive, send):
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        ask(app, chunks(b""))


def test_a_websocket_is_closed_and_the_lifespan_passes():
    app, sent = Echo(), []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    anyio.run(Limited(app, SMALL), {"type": "websocket", "headers": []}, receive, send)
    assert [m["type"] for m in sent] == ["websocket.close"]
    assert app.called == 0
    passed = []

    async def lifespan(scope, receive, send):
        passed.append(scope["type"])

    anyio.run(Limited(lifespan, SMALL), {"type": "lifespan"}, receive, send)
    assert passed == ["lifespan"]


def test_slots_are_given_back_once():
    slots = Slots(2, "streams")
    first, second = slots.take(), slots.take()
    refused = slots.take()
    assert (refused.status, refused.code, refused.headers) == (429, "too_many_streams", (("retry-after", "1"),))
    first.give_back()
    first.give_back()
    assert slots.open == 1
    with slots.take():
        assert slots.open == 2
    with second:
        pass
    assert slots.open == 0
    with pytest.raises(KeyError), slots.take():
        raise KeyError
    assert slots.open == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"text"', b"null", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 100_000,
                                  b'{"a":' * 100_000, b"\xff\xfe{", b'{"a": ' + b"1" * 5000 + b"}", b'{"a": 1} {"b": 2}'])  # fmt: skip
def test_what_is_no_json_object_is_refused(body):
    refused = read_json(body)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.code) == (400, "bad_json")


def test_a_json_object_is_read():
    assert read_json('{"messages": [], "é": 1.5}'.encode()) == {"messages": [], "é": 1.5}


@pytest.mark.parametrize(("messages", "expected"), [
    ([{"content": "hello"}] * 3, None),
    ([{"content": "hello"}] * 4, ("too_many_messages", "messages")),
    ([{"content": "hi"}, {"content": "hello!"}], ("message_too_long", "messages[1].content")),
    ([{"content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo!"}]}], ("message_too_long", "messages[0].content")),
    ([{"content": ["hel", "lo!"]}], ("message_too_long", "messages[0].content")),
    ([{"content": [{"type": "image_url", "image_url": {"url": "data:" + "a" * 99}}]}], None),
    ([None, 3, {"content": None}], None),
    ("text", None),
])  # fmt: skip
def test_messages_have_a_limit(messages, expected):
    found = messages_refused({"messages": messages}, SMALL)
    assert (found and (found.code, found.param)) == expected
    assert found is None or "hel" not in found.message
