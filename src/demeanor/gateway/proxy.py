"""`POST /v1/chat/completions` with an upstream: passed on, and the answer judged, whole or while it is streamed.

The upstream's own refusals (429, 500, ...) come back as they are. An answer of 200 that cannot be read is none: it is refused where it is
whole, and in a stream the reviewed reply takes its place, for by then there is no status to say it with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from demeanor.gateway.config import GatewayConfig
from demeanor.gateway.conversations import HEADER, Identity, asked
from demeanor.gateway.desk import Desk
from demeanor.gateway.endpoint import Answer, Incoming, RefusedError, where
from demeanor.gateway.hooks import Hooks
from demeanor.gateway.limits import Slots, messages_refused
from demeanor.gateway.refusals import App, Receive, Refusal, Scope, Send
from demeanor.gateway.streamed import StreamedAnswer
from demeanor.gateway.telling import headers as telling
from demeanor.gateway.upstream import Upstream, passed_back, read_whole
from demeanor.gateway.whole import judge_whole
from demeanor.monitor.async_stream import in_thread
from demeanor.monitor.decision import Decision
from demeanor.monitor.session import Monitor
from demeanor.monitor.sessions import Sessions

STREAM = "text/event-stream"
log = logging.getLogger("demeanor.gateway")
TAIL = 0.5  # seconds for the upstream to close its answer after [DONE], so that its connection can be used again
NO_REPLIES = frozenset((("GET", "/models"), ("POST", "/embeddings"), ("POST", "/audio/transcriptions"), ("POST", "/audio/translations")))
"""Endpoints whose answers hold no reply of a chatbot; they pass. So does GET /models/NAME."""


_NAME = re.compile(r"[\w.:@/-]+", re.ASCII)


@dataclass
class Proxy:
    """Answers in front of one upstream."""

    config: GatewayConfig
    monitor: Monitor
    sessions: Sessions
    identity: Identity
    upstream: Upstream
    hooks: Hooks
    slots: Slots

    async def chat(self, incoming: Incoming) -> App:
        """Answer a request for a chat completion."""
        request = incoming.json()
        choices = check_request(request, self.config)
        name = self.identity.name(request, incoming.header(HEADER), incoming.who)
        desk = Desk(self.monitor, self.sessions, asked(request, name))
        return _Chat(self, incoming, desk, choices)

    async def passed(self, incoming: Incoming) -> App:
        """Pass a request on that no reply comes back for, or refuse it."""
        path = incoming.path.removeprefix("/v1")
        if not _carries_no_reply(incoming.method, path):
            return not_served(incoming)
        async with self.upstream.ask(incoming.method, path, incoming.query, self._headers(incoming), incoming.body) as response:
            if isinstance(response, Refusal):
                return response
            body = await read_whole(response, self.config.limits.answer_bytes)
            return body if isinstance(body, Refusal) else Answer(response.status_code, body, passed_back(response))

    def _headers(self, incoming: Incoming) -> Any:
        return self.hooks.without_keys(incoming.headers)


def _carries_no_reply(method: str, path: str) -> bool:
    """Whether an endpoint is listed. A model's name may hold slashes, but nothing by which its path would lead elsewhere."""
    if (method, path) in NO_REPLIES:
        return True
    name = path.removeprefix("/models/")
    parts = name.split("/")
    return method == "GET" and name != path and bool(_NAME.fullmatch(name)) and not {"", ".", ".."} & set(parts)


def not_served(incoming: Incoming) -> Refusal:
    """An endpoint that would carry replies past the monitor, or is not known."""
    return Refusal(
        404,
        f"{incoming.method} {incoming.path[:100]} is not served here: only what is judged passes; use /v1/chat/completions",
        "endpoint_not_served",
    )


def check_request(request: Mapping[str, Any], config: GatewayConfig) -> int:
    """How many choices a request asks for. Raises RefusedError where a field is wrong that the gateway has to understand."""
    count, stream = request.get("n"), request.get("stream")
    count = 1 if count is None else count
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= config.limits.choices:
        raise RefusedError(Refusal(400, f"'n' is a whole number from 1 to {config.limits.choices}", "invalid_value", "n"))
    if (refusal := messages_refused(request, config.request_limits)) is not None:
        raise RefusedError(refusal)
    if not isinstance(stream, bool | None):
        raise RefusedError(Refusal(400, "'stream' is true or false", "invalid_value", "stream"))
    return count


@dataclass
class _Chat:
    """The answer to one request; it is there once the upstream's is."""

    proxy: Proxy
    incoming: Incoming
    desk: Desk
    choices: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming, proxy = self.incoming, self.proxy
        slot = proxy.slots.take()
        if isinstance(slot, Refusal):
            await slot(scope, receive, send)
            return
        began = time.perf_counter()
        path = incoming.path.removeprefix("/v1")
        try:
            async with proxy.upstream.ask("POST", path, incoming.query, proxy._headers(incoming), incoming.body) as response:
                incoming.served.upstream_seconds = time.perf_counter() - began
                if isinstance(response, Refusal):
                    await self._refuse(response)(scope, receive, send)
                elif response.status_code == 200 and response.headers.get("content-type", "").lower().startswith(STREAM):
                    await self._streamed(response, send)
                else:
                    await (await self._whole(response))(scope, receive, send)
        finally:
            slot.give_back()
            self.desk.close()

    def _refuse(self, refusal: Refusal) -> Refusal:
        self.incoming.served.problem = refusal.code
        return refusal

    async def _whole(self, response: httpx2.Response) -> App:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.proxy.config.timeouts.total):
                body = await read_whole(response, self.proxy.config.limits.answer_bytes)
        except TimeoutError:
            body = Refusal(504, "the upstream did not end its answer in time", "upstream_timeout")
        came = time.perf_counter()
        self.incoming.served.upstream_seconds += came - began
        if isinstance(body, Refusal):
            return self._refuse(body)
        if response.status_code >= 300:
            self.incoming.served.problem = f"upstream_{response.status_code}"
            return Answer(response.status_code, body, passed_back(response))
        try:
            judged = await in_thread(judge_whole, body, self.desk.judge)
        except ValueError as error:
            return self._refuse(Refusal(502, f"the upstream's answer is no chat completion ({error})"[:300], "upstream_unreadable"))
        await self._decided(judged.decisions)
        self.incoming.served.held.append(time.perf_counter() - came)
        about = tuple((name.encode(), value.encode()) for name, value in telling(list(judged.decisions.values())).items())
        return Answer(response.status_code, judged.body, (*passed_back(response), *about))

    async def _streamed(self, response: httpx2.Response, send: Send) -> None:
        answer = StreamedAnswer(self.desk.watch, self.choices, self.proxy.monitor.enforce)
        served, hooks = self.incoming.served, self.proxy.hooks
        served.streamed, served.held, ended = True, answer.held, False

        async def put(data: bytes, more: bool) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})
            if served.to_first_words is None and answer.spoken:
                served.to_first_words = time.perf_counter() - served.began

        hooks.streaming(1)
        headers = [*passed_back(response), (b"x-demeanor-decision", self.desk.id.encode())]
        pieces = _pieces(response, self.proxy.config.timeouts.total)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            error = None
            while not answer.over:
                try:
                    piece = await anext(pieces, None)
                except (TimeoutError, httpx2.TimeoutException):
                    error = "the upstream did not go on in time"
                    break
                except httpx2.HTTPError as problem:
                    error = f"the upstream broke off ({type(problem).__name__})"
                    break
                if piece is None:
                    break
                try:
                    out = await in_thread(answer.take, piece)
                except Exception as fault:  # ours: the user is owed an answer all the same
                    log.error("a stream failed: %s", where(fault))
                    error = "the gateway failed"
                    break
                if out:
                    await put(out, True)
            rest = await in_thread(answer.end, error)
            ended = True
            served.problem = answer.broken
            await self._decided(answer.decisions)
            await put(rest, False)
            await _drained(pieces)
        finally:
            hooks.streaming(-1)
            await pieces.aclose()
            if not ended:
                await in_thread(answer.abandon)
                await self._decided(answer.decisions)

    async def _decided(self, decisions: Mapping[int, Decision]) -> None:
        for index, decision in decisions.items():
            self.incoming.served.decisions.append(decision)
            await in_thread(self.proxy.hooks.decided, decision, self.desk.judged(index))


async def _pieces(response: httpx2.Response, seconds: float) -> AsyncGenerator[bytes, None]:
    """The answer's bytes as they come. Raises TimeoutError where they are not at their end within so many seconds."""
    until = asyncio.get_running_loop().time() + seconds
    pieces = aiter(response.aiter_bytes())
    while True:
        async with asyncio.timeout_at(until):
            piece = await anext(pieces, None)
        if piece is None:
            return
        yield piece


async def _drained(pieces: AsyncGenerator[bytes, None]) -> None:
    """Let the upstream close its answer after [DONE], so that its connection can be used again; not for long."""
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(TAIL):
            async for _ in pieces:
                pass
