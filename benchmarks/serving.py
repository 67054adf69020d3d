"""What it costs to serve many conversations at once. Ratios, side by side in one run.

    python benchmarks/serving.py engine [--sessions 64] [--turns 4] [--runs 5] [--dtype auto]

Part "engine": so many sessions of one monitor, each in a thread of its own, all at once; each says something and has a reply checked, turn
by turn. Printed are

    tokens      tokens that ran through the model for the sessions, a second of this process's own processor time, over those that
                `score_many` reads a second of it in the same conversations, each as a whole
    readings    the processor time of `score_many` over all replies, each with what was said before it, over that of the sessions: the
                same readings; what was kept of the conversations helps the sessions, what rows begin with in common helps score_many
    passes      replies a pass; how long a check took while all others were at it, and alone
"""

import argparse
import itertools
import random
import statistics
import threading
import time
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


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["engine"])
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    given = parser.parse_args()
    scorer = Scorer(ActivationReader(*load_model(dtype=given.dtype)), VectorSet.load(built_in.FOLDER))
    engine_part(scorer, given.sessions, given.turns, given.runs)


if __name__ == "__main__":
    main()
