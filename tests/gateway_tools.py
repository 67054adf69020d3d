"""A scripted upstream and a gateway in front of it, both within the test's own event loop; frames as an upstream sends them."""

import asyncio
import json
import threading
from contextlib import contextmanager

import httpx2
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from demeanor.gateway.application import build
from demeanor.gateway.config import load_config

ID = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
DONE = b"data: [DONE]\n\n"


class Clock:
    """A clock that is set by hand."""

    def __init__(self, at):
        self.at = at

    def __call__(self):
        return self.at


def frame(delta=None, finish=None, index=0, **more):
    """A frame as OpenAI writes it: spaces after colons, so that whoever writes it anew is found out."""
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return f"data: {json.dumps(ID | {'choices': [choice]} | more)}\n\n".encode()


def spoken(text, size=5, **more):
    """A reply as a stream of frames of so many characters."""
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return [
        frame({"role": "assistant", "content": ""}, **more),
        *(frame({"content": piece}, **more) for piece in pieces),
        frame({}, "stop", **more),
    ]


def completion(text, **message):
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "logprobs": None, "finish_reason": "stop"}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": {"total_tokens": 3}}
    )


def chunks(body):
    """The JSON of each frame of a stream's body."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ") and line != b"data: [DONE]"]
    return [json.loads(line) for line in lines]


def text_in(body, index=0):
    """What a client shows of a choice of a stream."""
    deltas = [c["delta"] for chunk in chunks(body) for c in chunk["choices"] or [] if c["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)


def told_in(body):
    """What the client is told of decisions, in a stream."""
    return [chunk["demeanor"] for chunk in chunks(body) if "demeanor" in chunk]


class Script:
    """An upstream that answers as the test says. `answers` is used up one by one, the last one again and again."""

    def __init__(self, *answers):
        self.answers, self.requests, self.cancelled = list(answers), [], 0
        routes = [Route("/{path:path}", self.answer, methods=["GET", "POST"])]
        self.app = Starlette(routes=routes)

    async def answer(self, request):
        self.requests.append((request.method, request.url.path, dict(request.headers), await request.body()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, list):
            return StreamingResponse(self.stream(answer), media_type="text/event-stream")
        status, body, headers = answer if isinstance(answer, tuple) else (200, answer, {})
        return Response(body, status, {"content-type": "application/json", **headers})

    async def stream(self, pieces):
        try:
            for piece in pieces:
                if isinstance(piece, Exception):
                    raise piece
                if callable(piece):
                    await piece()
                else:
                    yield piece
                await asyncio.sleep(0)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise


def gateway(monitor, upstream, hooks=None, **config):
    """The gateway's app in front of a scripted upstream."""
    chosen = load_config(None, **{"upstream": "http://upstream/v1"} | config)
    return build(chosen, monitor, hooks, httpx2.ASGITransport(upstream.app))


def client(app):
    """A client of an app."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost/v1", timeout=60)


def ask(app, said="I cannot sleep.", headers=None, path="/chat/completions", **more):
    """One request, and its answer."""
    messages = said if isinstance(said, list) else [{"role": "user", "content": said}]

    async def call():
        async with client(app) as http:
            return await http.post(path, json={"model": "m", "messages": messages, **more}, headers=headers)

    return asyncio.run(call())


@contextmanager
def served(app):
    """A real server on loopback, in a thread; gives its base URL."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", access_log=False, lifespan="on"))
    started = threading.Event()
    startup = server.startup

    async def signal(*args, **kwargs):
        await startup(*args, **kwargs)
        started.set()

    server.startup = signal
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
