"""Many mixed requests while everything around them fails: nothing that is to be withheld is ever sent, and no user is left with nothing.

DEMEANOR_SOAK_REQUESTS=10000 python -m pytest tests/test_gateway_soak.py        (make soak; by default a hundredth)
"""

import asyncio
import collections
import json
import os
import random
import sys
from contextlib import ExitStack, contextmanager

from gateway_tools import DONE, Script, chunks, client, completion, frame, served, spoken
from monitor_tools import blocked, failing

from demeanor.audit.verification import verify
from demeanor.gateway.application import build
from demeanor.gateway.config import load_config
from demeanor.testing import AT_RISK, CALM, DOUBTFUL, FINE, HARMFUL, PLAIN, planted_monitor, planted_policy

REQUESTS = int(os.environ.get("DEMEANOR_SOAK_REQUESTS", "100"))
AT_ONCE = 20
UNSAFE = "Z" * 12
"""What no client may see."""
LONG = FINE + " word" * 60
REPLIES = (FINE, LONG, PLAIN, DOUBTFUL, HARMFUL, HARMFUL * 9, LONG + " " + HARMFUL * 8 + " and more" * 20)
BREAKS = ("broken off", "raising", "stalling", "malformed", "error", "finished twice", "no [DONE]", "damaged")
TROUBLES = ("nothing", "scorer raises", "scorer gives NaN", "disk full", "scorer hangs")
TOOL = [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": json.dumps({"said": HARMFUL})}}]


def whole(dice, text):
    """A whole answer, or a failure in its place."""
    body = completion(text, **({"reasoning_content": HARMFUL * 3} if UNSAFE in text and dice.random() < 0.3 else {}))
    kind = dice.choice(["sound"] * 6 + ["429", "500", "cut", "no JSON", "no choices"])
    if kind in ("429", "500"):
        return kind, (int(kind), '{"error": {"message": "no"}}', {"retry-after": "1"})
    return kind, {"cut": body[: dice.randrange(1, len(body))], "no JSON": "<html>", "no choices": '{"choices": []}'}.get(kind, body)


def streamed(dice, text):
    """A streamed answer, whole or failing somewhere, cut at any bytes."""
    frames = [*spoken(text, dice.randint(1, 9)), DONE]
    middle = dice.randrange(1, len(frames) - 1)
    kind = dice.choice(
        ["sound"] * 6 + ["broken off", "raising", "stalling", "malformed", "error", "finished twice", "no [DONE]", "damaged"]
    )
    if UNSAFE in text and dice.random() < 0.3:
        frames.insert(dice.randrange(1, len(frames) - 2), frame({"tool_calls": TOOL}))
    if kind in ("broken off", "raising", "stalling"):
        frames = frames[:middle]
    elif kind == "malformed":
        frames.insert(middle, b"data: {\n\n")
    elif kind == "error":
        frames.insert(middle, b'data: {"error": {"message": "no"}}\n\n')
    elif kind == "finished twice":
        frames[-1:-1] = [frame({"content": HARMFUL}), frame({}, "stop")]
    elif kind == "no [DONE]":
        frames.pop()
    body = bytearray(b"".join(frames))
    if kind == "damaged":
        body[dice.randrange(len(body))] = dice.randrange(256)
    ends = sorted({dice.randrange(1, len(body)) for _ in range(dice.randint(1, 30))} | {len(body)})
    pieces = [bytes(body[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    if kind == "raising":
        return kind, [*pieces, RuntimeError("gone")]
    return kind, [*pieces, *([asyncio.Event().wait] if kind == "stalling" else [])]


@contextmanager
def trouble(kind, monitor):
    """What is wrong with the gateway itself meanwhile."""
    with ExitStack() as stack:
        if kind == "scorer raises":
            stack.enter_context(failing(monitor.scorer, RuntimeError("broken")))
        elif kind == "scorer gives NaN":
            stack.enter_context(failing(monitor.scorer))
        elif kind == "scorer hangs":
            stack.enter_context(blocked(monitor.scorer))
        elif kind == "disk full":
            append, monitor.audit.append = monitor.audit.append, _full
            stack.callback(setattr, monitor.audit, "append", append)
        yield


def _full(*_):
    raise OSError(28, "No space left on device")


def shown_in(body):
    """What a client shows that puts up with fields that a damaged byte has renamed."""
    choices = [choice for chunk in chunks(body) for choice in chunk.get("choices") or []]
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)


class Scripted(Script):
    """An upstream that answers each request with what its own header names."""

    def __init__(self):
        super().__init__()
        self.by_name = {}

    async def answer(self, request):
        return await Script(self.by_name.pop(request.headers["x-script"])).answer(request)


async def talk(http, upstream, number, fault, answer, text, said, stream, leaves):
    """One request, checked; gives what came of it."""
    upstream.by_name[str(number)] = answer
    said = f"{number} {said}"  # none was read before: what was, is known although the scorer fails
    body = {"messages": [{"role": "user", "content": said}], "stream": stream}
    call = http.post("/chat/completions", json=body, headers={"x-script": str(number)})
    try:
        got = await asyncio.wait_for(call, leaves or 60)
    except TimeoutError:
        assert leaves
        return "client left"
    case = (number, fault, text[:40], got.status_code, got.content[-300:])
    assert UNSAFE.encode() not in got.content, case
    if got.status_code != 200:
        # 504: a busy machine may keep this upstream from beginning within its half second
        assert got.status_code == 504 or fault in ("429", "500", "cut", "no JSON", "no choices", "raising", "stalling"), case
        return f"{got.status_code}"
    shown = shown_in(got.content) if stream else got.json()["choices"][0]["message"]["content"]
    assert shown.strip(), case
    return "shown" if shown == text else "replaced"


def test_nothing_unsafe_is_shown_whatever_fails(tmp_path, capsys):
    dice, upstream, outcomes = random.Random(18), Scripted(), collections.Counter()
    strict = planted_policy().model_copy(update={"deadline_seconds": 2.0, "audit_failure": "substitute"})
    monitor = planted_monitor(strict, audit=tmp_path / "audit.db")

    async def batch(http, first):
        jobs = []
        for number in range(first, first + AT_ONCE):
            text, stream = dice.choice(REPLIES), dice.random() < 0.6
            fault, answer = (streamed if stream else whole)(dice, text)
            leaves = dice.random() / 20 if dice.random() < 0.03 else None
            jobs.append(talk(http, upstream, number, fault, answer, text, dice.choice([CALM, AT_RISK]), stream, leaves))
        return await asyncio.gather(*jobs)

    async def run(url):
        app = build(load_config(upstream=url, request_log=False, timeouts={"total": 0.5, "read": 0.5}), monitor)
        async with app.router.lifespan_context(app), client(app) as http:
            for first in range(0, REQUESTS, AT_ONCE):
                number = first // AT_ONCE
                kind = TROUBLES[number] if number < len(TROUBLES) else dice.choice(("nothing",) * 12 + TROUBLES)
                with trouble(kind, monitor):
                    for outcome in await batch(http, first):
                        outcomes[kind, outcome] += 1

    with served(upstream.app) as url:
        asyncio.run(run(url))
    assert verify(tmp_path / "audit.db").whole
    assert sum(outcomes.values()) == REQUESTS
    assert outcomes["nothing", "shown"] > 0
    assert not [key for key in outcomes if key[0] != "nothing" and key[1] == "shown"]
    with capsys.disabled():
        if REQUESTS > 1000:
            sys.stdout.write("".join(f"\n{kind:16} {outcome:12} {count:6}" for (kind, outcome), count in sorted(outcomes.items())))
