"""One endpoint as an ASGI app: who asks, within which limits, who is still listening; then the handler's answer.

Who asks is known before a byte of the body is read.

A client that leaves ends the work for it: the handler is cancelled, and with it the call of the upstream.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from demeanor.errors import ConversationError
from demeanor.gateway.hooks import Headers, Hooks, Served
from demeanor.gateway.keys import Scope as KeyScope
from demeanor.gateway.limits import Limited, RequestLimits, read_json
from demeanor.gateway.refusals import CODE, App, Receive, Refusal, Scope, Send


@dataclass
class Incoming:
    """A request that was let in."""

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes
    who: str
    served: Served

    def header(self, name: str) -> str | None:
        """A header's value; None where it is absent."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> dict[str, Any]:
        """The body. Raises RefusedError where it is no JSON object."""
        found = read_json(self.body)
        if isinstance(found, Refusal):
            raise RefusedError(found)
        return found


class RefusedError(Exception):
    """Carries a refusal out of a handler."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


log = logging.getLogger("demeanor.gateway")
Handler = Callable[[Incoming], Awaitable[App]]


@dataclass
class Endpoint:
    """Answers one path: `handler` gives the answer to a request that was let in."""

    name: str
    scope: KeyScope | None
    """What a key must be for; None where none is needed."""
    handler: Handler
    hooks: Hooks
    limits: RequestLimits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        headers: Headers = list(scope["headers"])
        who = self.hooks.authorise(headers, self.scope) if self.scope is not None else "anybody"
        served = Served(self.name, who if isinstance(who, str) else "nobody")
        began = time.perf_counter()

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                served.status = message["status"]
            elif message.get("body") and served.to_first_shown is None:
                served.to_first_shown = time.perf_counter() - began
            await send(message)

        try:
            if isinstance(who, Refusal):
                await who(scope, receive, counted)
                return

            async def read(scope: Scope, receive: Receive, send: Send) -> None:
                nonlocal began
                began = served.began = time.perf_counter()
                body = (await receive())["body"]
                path = scope["path"].removeprefix(scope.get("root_path", ""))  # where the app is mounted
                incoming = Incoming(scope["method"], path, scope.get("query_string", b""), headers, body, who, served)
                served.gone = not await attended(receive, self._answer(incoming, scope, receive, send))

            await Limited(read, self.limits)(scope, receive, counted)
        finally:
            served.refusal = scope.get(CODE)
            served.gone |= not served.status
            served.seconds = time.perf_counter() - began
            self.hooks.served(served)

    async def _answer(self, incoming: Incoming, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self.handler(incoming)
            await answer(scope, receive, send)
            return
        except RefusedError as refused:
            refusal = refused.refusal
        except ConversationError as error:
            refusal = Refusal(400, str(error), "invalid_conversation", "messages")
        except Exception as error:  # whatever it is, its message may hold what somebody said
            incoming.served.problem = type(error).__name__
            log.error("%s failed: %s", self.name, where(error))
            refusal = Refusal(500, "the gateway failed; its log says where", "internal_error")
        if not incoming.served.status:
            await refusal(scope, receive, send)


async def attended(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Do work for a client as long as it listens; False where it left before the end."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stayed = task.done()
        for one in (task, gone):
            if not one.done():
                one.cancel()
        await asyncio.wait({task, gone})
    if not task.cancelled():
        task.result()
    return stayed


def where(error: Exception) -> str:
    """An error's kind and place, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else type(error).__name__


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [*self.headers, (b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
