"""What it costs to serve many conversations at once. Ratios, side by side in one run.

    python benchmarks/serving.py engine [--sessions 64] [--turns 4] [--runs 5] [--dtype auto]
    python benchmarks/serving.py http [--sessions 64] [--words 60] [--pace 0.1]

Part "engine": so many sessions of one monitor, each in a thread of its own, all at once; each says something and has a reply checked, turn
by turn. Printed are

    tokens      tokens that ran through the model for the sessions, a second of this process's own processor time, over those that
                `score_many` reads a second of it in the same conversations, each as a whole
    readings    the processor time of `score_many` over all replies, each with what was said before it, over that of the sessions: the
                same readings; what was kept of the conversations helps the sessions, what rows begin with in common helps score_many
    passes      replies a pass; how long a check took while all others were at it, and alone

Part "http": a scripted upstream, `demeanor serve` in front of it and the clients, each a process of its own on loopback; so many streams
at once, of so many words, one every `pace` seconds. Each of the upstream's frames says when it was sent, so that what the gateway adds to
each is known; the same streams straight from the upstream stand beside it. Printed are the first word, all chunks, each process's own
processor time, the tokens that the gateway read a second of its own beside `score_many`'s, and what was not scored.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from demeanor import Monitor, Scorer, VectorSet, load_model
from demeanor.conversation import as_conversation
from demeanor.model.reader import ActivationReader
from demeanor.vectors import built_in

OPENINGS = ("I can't sleep and", "Since last week", "My sister says that", "To be honest,", "At work", "When I woke up today,", "Lately")
MIDDLES = (
    "everything has felt heavier than it used to be", "my boss keeps shouting at the whole team", "nobody calls me back any more",
    "I have started to run again in the park", "we argued about money and the flat", "I keep forgetting what I came into the room for",
    "the doctor changed the dose of my tablets", "my daughter has moved to another town",
)  # fmt: skip
ANSWERS = (
    "That sounds exhausting, and it makes sense that it weighs on you.", "What happened just before it?", "I am glad that you told me.",
    "It may help to write down when it is at its worst.", "Who could be with you this evening?", "Some people find a short walk calming.",
    "You have been carrying a great deal.", "We can go through it step by step, at your own speed.", "How did you sleep after that?",
)  # fmt: skip


class Turn(NamedTuple):
    """What a user says, and the reply that is checked."""

    user: str
    reply: str


def said(dice):
    """A user's message of one to three sentences."""
    return " ".join(f"{dice.choice(OPENINGS)} {dice.choice(MIDDLES)}, {dice.randrange(10_000)} times." for _ in range(dice.randint(1, 3)))


def answered(dice):
    """A reply of three to twelve sentences."""
    return " ".join(dice.choice(ANSWERS) for _ in range(dice.randint(3, 12)))


def talks(sessions, turns, seed):
    """Conversations, none like another; the same for the same seed."""
    dice = random.Random(seed)
    return [[Turn(said(dice), answered(dice)) for _ in range(turns)] for _ in range(sessions)]


def as_rows(talk):
    """Each reply of a talk with all that was said before it, as score_many takes it."""
    messages, rows = [], []
    for turn in talk:
        messages = [*messages, {"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.reply}]
        rows.append(messages)
    return rows


class Measured(NamedTuple):
    """What serving cost."""

    processor: float
    tokens: int
    latencies: list[float]
    passes: int


def served(monitor, conversations, at_once=True):
    """Have all replies checked, each conversation in its own thread, or one after another."""
    engine, latencies, tokens, lost = monitor.engine, [], [], []

    def hold(number, talk):
        session = monitor.session(str(number))
        for turn in talk:
            session.user(turn.user)
            begun = time.perf_counter()
            decision = session.check(turn.reply)
            latencies.append(time.perf_counter() - begun)
            if decision.not_scored:
                lost.append(decision.not_scored)
        tokens.append(session._passes.shared.tokens_run)

    passes, started = engine.passes, time.process_time()
    if at_once:
        threads = [threading.Thread(target=hold, args=job) for job in enumerate(conversations)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        for job in enumerate(conversations):
            hold(*job)
    processor = time.process_time() - started
    assert not lost, lost[:3]
    return Measured(processor, sum(tokens), latencies, engine.passes - passes)


def scored(scorer, rows):
    """Processor time of score_many over these rows."""
    started = time.process_time()
    assert sum(1 for _ in scorer.score_many(rows)) == len(rows)
    return time.process_time() - started


def percentile(values, share):
    """The value that so many of these lie under."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def engine_part(scorer, sessions, turns, runs):
    """So many sessions at once against score_many, and a session alone."""
    monitor = Monitor(scorer, enforce=False, deadline=600)
    served(monitor, talks(8, 1, 999))
    rates, ratios, readings, at_once, alone, replies = [], [], [], [], [], []
    for run in range(runs):
        conversations = talks(sessions, turns, run)
        found = served(monitor, conversations)
        rows = [as_rows(talk) for talk in conversations]
        whole = [as_conversation(talk[-1]) for talk in rows]
        tokens = sum(len(encoded.ids) for encoded in scorer.reads.encode(whole))
        rates.append(found.tokens / found.processor)
        ratios.append(rates[-1] / (tokens / scored(scorer, whole)))
        readings.append(scored(scorer, list(itertools.chain.from_iterable(rows))) / found.processor)
        at_once += found.latencies
        replies.append(sessions * turns / found.passes)
        alone += served(monitor, talks(2, turns, -1 - run), at_once=False).latencies
    middle = statistics.median
    print(f"{sessions} sessions at once, {turns} turns each, {runs} runs; medians, range in brackets")
    print(f"tokens run a second of processor time           {middle(rates):7.0f} ({min(rates):.0f} to {max(rates):.0f})")
    print(f"  as a share of score_many's                     {middle(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"processor time of score_many over the sessions'  {middle(readings):6.2f} ({min(readings):.2f} to {max(readings):.2f})")
    print(f"replies a pass                                   {middle(replies):6.1f}")
    for name, values in (("all at once", at_once), ("alone", alone)):
        shown = ", ".join(f"{1000 * percentile(values, share):.0f}" for share in (0.5, 0.95, 0.99))
        print(f"a check, {name}: {shown} ms (median, 95th, 99th percentile)")


class Streamed(NamedTuple):
    """One stream as a client saw it: seconds from the upstream's sending of each word to its coming, and from the request to the first."""

    late: list[float]
    first: float
    replaced: bool


async def upstream_app(scope, receive, send, words=60, pace=0.1):
    """Answers every request with a stream of words, each of which says when it was sent."""
    if scope["type"] != "http":
        return
    request = json.loads((await receive())["body"])
    dice = random.Random(request["seed"])
    text = " ".join(dice.choice(ANSWERS) for _ in range(words)).split()[:words]

    async def put(delta, finish=None):
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "sent": time.monotonic(),
                 "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}  # fmt: skip
        await send({"type": "http.response.body", "body": f"data: {json.dumps(chunk)}\n\n".encode(), "more_body": True})

    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await asyncio.sleep(dice.random() * pace)
    for word in text:
        await put({"content": word + " "})
        await asyncio.sleep(pace)
    await put({}, "stop")
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def one_stream(http, url, seed):
    """Ask once, and read to the end."""
    began, first, late, replaced = time.monotonic(), None, [], False
    said_here = said(random.Random(seed))
    body = {"model": "m", "stream": True, "seed": seed, "messages": [{"role": "user", "content": said_here}]}
    async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk, now = json.loads(line[6:]), time.monotonic()
            if any(choice["delta"].get("content") for choice in chunk["choices"]):
                first = first or now - began
                if "sent" in chunk:
                    late.append(now - chunk["sent"])
                else:
                    replaced = True
    return Streamed(late, first, replaced)


async def streams_at_once(url, count, seed):
    """So many at once."""
    import httpx2

    async with httpx2.AsyncClient(timeout=300, limits=httpx2.Limits(max_connections=count)) as http:
        return await asyncio.gather(*(one_stream(http, url, seed * 10_000 + i) for i in range(count)))


def processor(pid):
    """Seconds of processor time of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def process(arguments, ready):
    """A process, once it says that it is ready; gives it and the port that it names."""
    running = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = next(line for line in running.stdout if ready in line)
        yield running, int(re.search(r":(\d+)", line)[1])
    finally:
        running.terminate()
        running.wait(60)
        running.stdout.close()


def run_upstream(words, pace):
    """Serve the scripted upstream on any free port, and say which."""
    import functools

    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(f"ready :{self.servers[0].sockets[0].getsockname()[1]}", flush=True)

    app = functools.partial(upstream_app, words=words, pace=pace)
    Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", interface="asgi3")).run()


def shown_as(values):
    """Median, 95th and 99th percentile in milliseconds."""
    return ", ".join(f"{1000 * percentile(values, share):6.0f}" for share in (0.5, 0.95, 0.99))


def scraped(url):
    """What the gateway counted."""
    from demeanor.gateway.watching import look

    return look(url)


def http_part(scorer, given):
    """The gateway between clients and a scripted upstream, over loopback."""
    own = ["-m", "demeanor.cli.main", "serve", "--port", "0", "--audit"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        upstream, port = stack.enter_context(
            process([__file__, "upstream", "--words", str(given.words), "--pace", str(given.pace)], "ready")
        )
        base = f"http://127.0.0.1:{port}"
        arguments = [*own, f"{folder}/audit.db", "--upstream", f"{base}/v1", "--dtype", given.dtype, "--policy", "review-only"]
        gateway, at = stack.enter_context(process(arguments, "serving"))
        url = f"http://127.0.0.1:{at}"
        asyncio.run(streams_at_once(url, 4, 999))
        for number, count in enumerate((1, given.sessions // 4, given.sessions // 2, given.sessions, 4 * given.sessions)):
            straight = asyncio.run(streams_at_once(base, count, number))
            before, was = scraped(url), {name: processor(p) for name, p in (("gateway", gateway.pid), ("upstream", upstream.pid))}
            mine, began = time.process_time(), time.monotonic()
            through = asyncio.run(streams_at_once(url, count, number))
            took, client = time.monotonic() - began, time.process_time() - mine
            spent = {"gateway": processor(gateway.pid) - was["gateway"], "upstream": processor(upstream.pid) - was["upstream"]}
            after = scraped(url)
            tokens = after.total("demeanor_tokens_read_total") - before.total("demeanor_tokens_read_total")
            passes = after.total("demeanor_batches_total") - before.total("demeanor_batches_total")
            lost = after.total("demeanor_not_scored_total") - before.total("demeanor_not_scored_total")
            print(f"{count} streams at once, {given.words} words each, one in {given.pace:g} s; {took:.1f} s")
            print(f"  first word, straight          {shown_as([s.first for s in straight])} ms (median, 95th, 99th percentile)")
            print(f"  first word, gateway           {shown_as([s.first for s in through])}")
            print(f"  each chunk late, straight     {shown_as([t for s in straight for t in s.late])}")
            print(f"  each chunk late, gateway      {shown_as([t for s in through for t in s.late])}")
            print(f"  processor: gateway {spent['gateway']:.1f} s, upstream {spent['upstream']:.1f} s, clients {client:.1f} s")
            print(
                f"  read {tokens:.0f} tokens, {tokens / spent['gateway']:.0f} a second of it, in {passes:.0f} passes; not scored {lost:.0f}"
            )
    rows = [as_conversation(as_rows(talk)[-1]) for talk in talks(given.sessions, 1, 5)]
    tokens = sum(len(encoded.ids) for encoded in scorer.reads.encode(rows))
    print(f"score_many: {tokens / scored(scorer, rows):.0f} tokens a second of processor time")
    times = []
    for row in rows[:20]:
        began = time.perf_counter()
        scorer.score(row)
        times.append(time.perf_counter() - began)
    print(f"one forward pass over such a conversation: {shown_as(times)} ms")


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["engine", "http", "upstream"])
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--pace", type=float, default=0.1)
    given = parser.parse_args()
    if given.part == "upstream":
        run_upstream(given.words, given.pace)
        return
    scorer = Scorer(ActivationReader(*load_model(dtype=given.dtype)), VectorSet.load(built_in.FOLDER))
    if given.part == "http":
        http_part(scorer, given)
    else:
        engine_part(scorer, given.sessions, given.turns, given.runs)


if __name__ == "__main__":
    main()
