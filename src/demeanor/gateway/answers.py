"""`POST /v1/chat/completions` without an upstream: the loaded model answers, under watch, whole or streamed.

What the model cannot do (tools, audio, penalties) is refused in one line; nothing that is asked for is left out in silence.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from demeanor.errors import DemeanorError, ModelError
from demeanor.gateway.config import GatewayConfig
from demeanor.gateway.conversations import HEADER, Identity, asked
from demeanor.gateway.desk import Desk
from demeanor.gateway.endpoint import Answer, Incoming, RefusedError
from demeanor.gateway.frames import DONE, dumped, to_frame
from demeanor.gateway.hooks import Hooks
from demeanor.gateway.limits import Slots
from demeanor.gateway.proxy import check_request
from demeanor.gateway.refusals import App, Receive, Refusal, Scope, Send
from demeanor.gateway.sampling import sampling_of
from demeanor.gateway.telling import headers as telling
from demeanor.gateway.telling import told
from demeanor.model.generation import Sampling, WrittenReply
from demeanor.monitor.async_stream import in_thread
from demeanor.monitor.session import Monitor
from demeanor.monitor.sessions import Sessions
from demeanor.monitor.writing import WrittenStream


@dataclass
class Answers:
    """Answers of the monitor's own model."""

    config: GatewayConfig
    monitor: Monitor
    sessions: Sessions
    identity: Identity
    hooks: Hooks
    slots: Slots

    async def chat(self, incoming: Incoming) -> App:
        """Answer a request for a chat completion."""
        request = incoming.json()
        choices = check_request(request, self.config)
        desk = Desk(self.monitor, self.sessions, asked(request, self.identity.name(request, incoming.header(HEADER), incoming.who)))
        if self.monitor.scorer is None:
            raise RefusedError(Refusal(503, f"there is no model to answer with: {self.monitor.problem}", "no_model"))
        if desk.asked.unread is not None:
            raise RefusedError(Refusal(400, "the loaded model reads text only; the last message holds none", "not_text", "messages"))
        reader = self.monitor.scorer.reader
        try:
            prompt = await in_thread(reader.encoder.prompt_ids, desk.asked.messages)
        except DemeanorError as error:
            raise RefusedError(Refusal(400, str(error), "invalid_messages", "messages")) from None
        sampling = sampling_of(request, reader.context_length - len(prompt))
        return _Written(self, incoming, desk, choices, sampling, len(prompt), bool(request.get("stream")), _usage_asked(request))

    async def models(self, incoming: Incoming) -> App:
        """The one model that answers."""
        return Answer(200, dumped({"object": "list", "data": [{"id": self.name, "object": "model", "created": 0, "owned_by": "demeanor"}]}))

    @property
    def name(self) -> str:
        """The model's name."""
        return self.monitor.scorer.vectors.model.name if self.monitor.scorer is not None else "none"


@dataclass
class _Written:
    """The answer to one request. Its choices are written one after the other."""

    answers: Answers
    incoming: Incoming
    desk: Desk
    choices: int
    sampling: Sampling
    prompt: int
    streamed: bool
    usage: bool

    def __post_init__(self) -> None:
        self.head: dict[str, Any] = {"id": f"chatcmpl-{self.desk.id}", "created": int(time.time()), "model": self.answers.name}
        self.gone = threading.Event()
        self.drawn = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        slot = self.answers.slots.take()
        if isinstance(slot, Refusal):
            await slot(scope, receive, send)
            return
        try:
            await (self._stream(send) if self.streamed else self._whole(scope, receive, send))
        finally:
            slot.give_back()
            self.gone.set()
            self.desk.close()

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        choices = []
        for index in range(self.choices):
            stream, finish = await self._write(index, lambda _: None)
            decision = stream.decision
            assert decision is not None
            text = decision.text if not decision.shown else stream.shown
            choice: dict[str, Any] = {"index": index, "message": {"role": "assistant", "content": text, "refusal": None}}
            reply = _reply_of(stream)
            likely = reply.logprobs if reply is not None and decision.shown else None
            choices.append(choice | {"logprobs": likely and {"content": [_token(*one) for one in likely]}, "finish_reason": finish})
        answer = self.head | {"object": "chat.completion", "choices": choices, "usage": self._usage()}
        about = tuple((name.encode(), value.encode()) for name, value in telling(self.incoming.served.decisions).items())
        await Answer(200, dumped(answer), ((b"content-type", b"application/json"), *about))(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        if self.sampling.top_logprobs is not None:
            raise RefusedError(Refusal(400, "logprobs come with whole answers only; leave out 'stream'", "unsupported_value", "logprobs"))
        served, hooks = self.incoming.served, self.answers.hooks
        served.streamed = True
        headers = [(b"content-type", b"text/event-stream"), (b"x-demeanor-decision", self.desk.id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def put(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        hooks.streaming(1)
        try:
            for index in range(self.choices):
                await self._stream_choice(index, put)
        finally:
            hooks.streaming(-1)
        if self.usage:
            await put(to_frame(self.head | {"object": "chat.completion.chunk", "choices": [], "usage": self._usage()}))
        await put(DONE, more=False)

    async def _stream_choice(self, index: int, put: Callable[[bytes], Awaitable[None]]) -> None:
        await put(self._frame(index, {"role": "assistant", "content": ""}))
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        writing = asyncio.ensure_future(self._write(index, lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece)))
        writing.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                await put(self._frame(index, {"content": piece}))
                served = self.incoming.served
                served.to_first_words = served.to_first_words or time.perf_counter() - served.began
        finally:
            writing.cancel()
            await asyncio.wait([writing])
        stream, finish = writing.result()
        await put(self._frame(index, {}, finish, demeanor=told(stream.decision)))

    async def _write(self, index: int, show: Callable[[str], object]) -> tuple[WrittenStream, str]:
        """Write a choice, showing what may be shown; gives its stream, and why it ended."""
        work = asyncio.ensure_future(in_thread(self._write_here, index, show))
        try:
            stream = await asyncio.shield(work)
        except asyncio.CancelledError:  # the model is stopped at its next token, and the reply is then decided on
            self.gone.set()
            await asyncio.wait([work])
            raise
        assert stream.decision is not None
        self.incoming.served.decisions.append(stream.decision)
        await in_thread(self.answers.hooks.decided, stream.decision, self.desk.judged(index))
        reply = _reply_of(stream)
        self.drawn += len(reply.ids) if reply is not None else 0
        return stream, "stop" if reply is None or reply.finished or not stream.decision.shown else "length"

    def _write_here(self, index: int, show: Callable[[str], object]) -> WrittenStream:
        stream, hold = self.desk.write(index, self.sampling)
        pieces, kept = iter(stream), []
        try:
            for piece in pieces:
                kept.append(piece) if hold else show(piece)
                if self.gone.is_set():
                    break
        finally:
            pieces.close()  # type: ignore[attr-defined]
        if hold and stream.decision is not None:
            show("".join(kept) if stream.decision.shown else stream.decision.text)
        return stream

    def _frame(self, index: int, delta: Mapping[str, str], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return to_frame(self.head | {"object": "chat.completion.chunk", "choices": [choice]} | more)

    def _usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.prompt, "completion_tokens": self.drawn, "total_tokens": self.prompt + self.drawn}


def _usage_asked(request: Mapping[str, Any]) -> bool:
    options = request.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


def _reply_of(stream: WrittenStream) -> WrittenReply | None:
    """What the model wrote; None where it failed."""
    try:
        return stream.written().reply
    except (ModelError, DemeanorError):
        return None


def _token(token: Any, top: Any) -> dict[str, Any]:
    def one(likely: Any) -> dict[str, Any]:
        return {"token": likely.text, "logprob": likely.logprob, "bytes": list(likely.text.encode("utf-8", "replace"))}

    return one(token) | {"top_logprobs": [one(other) for other in top]}
