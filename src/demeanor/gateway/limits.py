"""What a request may cost before anybody has looked at it: bytes, headers, messages, streams and time.

`Limited` stands around the application. It reads the whole body before the application sees a byte of it, so that a body that is too large,
that comes too slowly or that breaks off never reaches it, whether its length was named or it comes in chunks. `messages_refused`
and `read_json` look into a body; `Slots` counts what is open at once. A refusal is one line that says which limit and how large it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import anyio

from demeanor.gateway.frames import once
from demeanor.gateway.refusals import App, Message, Receive, Refusal, Scope, Send

MOST_HEADERS = 100


@dataclass(frozen=True)
class RequestLimits:
    """How much one request, and how many at once, may ask for."""

    body_bytes: int = 20 * 2**20
    """Of a request's body; images in messages count."""
    header_bytes: int = 32 * 2**10
    """Of all headers and the address together."""
    messages: int = 2000
    """Messages of a conversation."""
    message_characters: int = 200_000
    """Characters of a message's text."""
    body_seconds: float = 30.0
    """Until a request's body has come."""
    answer_seconds: float = 600.0
    """Until its answer begins; what comes then has time-outs of its own."""


class Limited:
    """An ASGI application within its limits."""

    def __init__(self, app: App, limits: RequestLimits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "websocket":  # none is served here, and nothing of them would be limited
            await receive()
            await send({"type": "websocket.close", "code": 1003})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._headers_refused(scope)
        if refusal is None:
            body = await self._body(scope, receive)
            if body is None:  # the client has gone
                return
            refusal = body if isinstance(body, Refusal) else await self._answered(scope, _Body(body, receive), send)
        if refusal is not None:
            # what is left of the body is not read, so that the connection cannot go on
            await replace(refusal, headers=(*refusal.headers, ("connection", "close")))(scope, receive, send)

    def _headers_refused(self, scope: Scope) -> Refusal | None:
        limits, headers = self.limits, scope["headers"]
        size = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"") + sum(len(n) + len(v) for n, v in headers)
        if size > limits.header_bytes or len(headers) > MOST_HEADERS:
            asked = f"the headers and the address hold {size} bytes in {len(headers)} headers"
            return Refusal(431, f"{asked}; at most {limits.header_bytes} bytes and {MOST_HEADERS} headers are read", "headers_too_large")
        lengths = {value.strip() for name, value in headers if name == b"content-length"}
        if len(lengths) > 1 or not all(value.isdigit() and len(value) < 20 for value in lengths):
            return Refusal(400, "the header content-length is no number; leave it to your HTTP library", "bad_content_length")
        return self._too_large(int(lengths.pop())) if lengths else None

    def _too_large(self, size: int) -> Refusal | None:
        if size <= self.limits.body_bytes:
            return None
        return Refusal(413, f"the body is larger than {self.limits.body_bytes} bytes; send less at once", "body_too_large")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Refusal | None:
        """The whole body, or why it is refused; None where the client has gone."""
        parts: list[bytes] = []
        size = 0
        with anyio.move_on_after(self.limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                part = message.get("body", b"")
                size += len(part)
                if refusal := self._too_large(size):
                    return refusal
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
        return Refusal(408, f"the body did not come within {self.limits.body_seconds:g} s; send it again", "body_timeout")

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> Refusal | None:
        """Have the application answer; a refusal where it did not begin to in time."""
        begun = False
        with anyio.CancelScope(deadline=anyio.current_time() + self.limits.answer_seconds) as watch:

            async def sending(message: Message) -> None:
                nonlocal begun
                if not begun:
                    begun, watch.deadline = True, float("inf")
                await send(message)

            await self.app(scope, receive, sending)
        if begun or not watch.cancelled_caught:
            return None
        return Refusal(504, f"there was no answer within {self.limits.answer_seconds:g} s; try again", "answer_timeout")


class _Body:
    """A body that has been read, as ASGI gives it, and then what comes after it: that the client goes."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class Slots:
    """How many of something may be open at once, in one event loop."""

    def __init__(self, most: int, what: str) -> None:
        self.most, self.what, self.open = most, what, 0

    def take(self) -> Slot | Refusal:
        """A place, to be given back; or 429 where all are taken."""
        if self.open >= self.most:
            message = f"{self.open} {self.what} are open, as many as there may be; try again in a second"
            return Refusal(429, message, f"too_many_{self.what}", headers=(("retry-after", "1"),))
        self.open += 1
        return Slot(self)


class Slot:
    """One place of Slots; it is given back once, however often that is asked for."""

    def __init__(self, slots: Slots) -> None:
        self._slots: Slots | None = slots

    def give_back(self) -> None:
        """Free the place."""
        if self._slots is not None:
            self._slots.open -= 1
            self._slots = None

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.give_back()


def read_json(body: bytes) -> dict[str, Any] | Refusal:
    """The object that a body holds, or why there is none: no JSON, no object, too deep, a key twice, numbers that JSON does not know."""
    try:
        found = json.loads(body, object_pairs_hook=once, parse_constant=_no_number)
    except RecursionError:
        return Refusal(400, "the body is nested too deeply to be read", "bad_json")
    except ValueError:
        return Refusal(400, "the body is no JSON, or holds a key twice; send one object, in UTF-8", "bad_json")
    if not isinstance(found, dict):
        return Refusal(400, f"the body is a JSON {type(found).__name__}; send an object", "bad_json")
    return found


def messages_refused(body: Mapping[str, Any], limits: RequestLimits) -> Refusal | None:
    """A refusal where a request's `messages` are more, or longer, than the limits. What they are otherwise is for others to say."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return None
    if len(messages) > limits.messages:
        said = f"{len(messages)} messages are more than {limits.messages}; send the latest, or raise limits.messages"
        return Refusal(400, said, "too_many_messages", "messages")
    for i, message in enumerate(messages):
        length = _length(message.get("content")) if isinstance(message, Mapping) else 0
        if length > limits.message_characters:
            said = f"message {i + 1} has {length} characters; more than {limits.message_characters}; shorten it"
            return Refusal(400, said, "message_too_long", f"messages[{i}].content")
    return None


def _length(content: Any) -> int:
    """Characters of a message's text, whole or in parts; what is no text is limited by the body's size."""
    if isinstance(content, str):
        return len(content)
    parts = content if isinstance(content, list) else ()
    texts = (part.get("text") if isinstance(part, Mapping) else part for part in parts)
    return sum(len(text) for text in texts if isinstance(text, str))


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")
