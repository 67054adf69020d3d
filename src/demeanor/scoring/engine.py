"""One engine for many conversations: what they want read waits here, and is read in shared passes.

While a pass runs, what else is asked for waits; the next pass takes as much of it as runs well together (see model/together), the
earliest deadline first. Where nothing else waits, nothing is waited for. What was read is kept by its tokens, so that a conversation
costs what is new in it, whoever asks.

What cannot be done is not begun, and its caller hears of it:

    too many wait, or more than can be done by the deadline    OverloadedError, at once
    the deadline comes, or can hardly be kept while others wait    TimeoutError

Conversations are tokenised, and readings made, in the callers' own threads; only passes run here, one at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demeanor.errors import OverloadedError
from demeanor.model.directions import Directions
from demeanor.scoring.reads import Array, Reads, side_by_side
from demeanor.scoring.worker import REMEMBERED, Deadline, Worker

MOST = 256  # windows of conversations that may wait
LOOKED_AT = 64  # of those that wait, for one pass
OVERLOADED = "too much is asked of the model at once"
FOREVER = float("inf")


@dataclass(eq=False)
class _Asked:
    """A window of tokens that somebody waits for."""

    ids: list[int]
    anew: int | None
    deadline: Deadline | None
    future: Future[Array] = field(default_factory=Future)
    tokens: int = 0
    """How many had to run."""
    begun: float = 0.0
    """When its pass began."""

    @property
    def left(self) -> float:
        """Seconds until its deadline."""
        return FOREVER if self.deadline is None else self.deadline.left


class Engine:
    """Reads for all conversations on one model. The thread in which passes run begins with the first one, in each process anew.

    Args:
        reader: The model.
        directions: What is read of each token.
        memory: Bytes that may be kept of what was read.
        most: How many may wait.
    """

    def __init__(self, reader: Reads, directions: Directions, memory: int | None = None, most: int = MOST) -> None:
        self.most = most
        self._side_by_side = side_by_side(reader, directions, memory)
        self._worker = Worker("demeanor-engine")
        self._lock = threading.Lock()
        self._waiting: list[_Asked] = []
        self._pid = os.getpid()
        self._took: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)  # seconds of the last passes, and how many each read
        self.passes = 0
        """How many passes have run."""
        self.passed: Callable[[int], None] = lambda tokens: None
        """Is told of each pass how many tokens it ran."""

    @property
    def used(self) -> int:
        """Bytes that are kept of what was read."""
        return self._side_by_side.used

    @property
    def waiting(self) -> int:
        """How many windows wait for a pass."""
        return len(self._waiting)

    def conversation(self) -> Shared:
        """One conversation's reading."""
        return Shared(self)

    def bounds(self, length: int) -> Sequence[tuple[int, int, int]]:
        """The windows that so many tokens are read in: where each begins, from where on it reads, where it ends."""
        return self._side_by_side.bounds(length)

    def ask(self, windows: Sequence[tuple[list[int], int | None]], deadline: Deadline | None = None) -> list[_Asked]:
        """Have windows read, each with the number of its first token that is to be read anew. Raises OverloadedError."""
        asked = [_Asked(ids, anew, deadline) for ids, anew in windows]
        with self._lock:
            if self._pid != os.getpid():  # a fork leaves behind who waited
                self._pid, self._waiting = os.getpid(), []
            self._refuse(len(asked), deadline)
            self._waiting += asked
        for _ in asked:
            self._worker.submit(self._next)
        return asked

    def _refuse(self, more: int, deadline: Deadline | None) -> None:
        waiting = len(self._waiting)
        if waiting and waiting + more > self.most:
            raise OverloadedError(f"{OVERLOADED}: {waiting} wait already; ask again in a moment, or run a second model beside this one")
        took = list(self._took)
        if deadline is None or len(took) < REMEMBERED:
            return
        soonest = waiting / max(read / seconds for seconds, read in took)
        if soonest > deadline.left:
            raise OverloadedError(
                f"{OVERLOADED}: {waiting} wait already, which takes {soonest:.1f} s at the least, and the deadline is in "
                f"{deadline.left:.1f} s; ask again in a moment"
            )

    def _next(self) -> None:
        """Run one pass over what waits, where anything does."""
        # a process may end as soon as its callers are answered; by then no tensor may be left here that would be given back meanwhile
        for asked, result in self._read():
            if isinstance(result, Exception):
                asked.future.set_exception(result)
            else:
                asked.future.set_result(result)

    def _read(self) -> list[tuple[_Asked, Array | Exception]]:
        """Run the pass; gives whom to answer, and what."""
        rows, asked = self._chosen()
        if not rows:
            return []
        begun = time.monotonic()
        for one in asked:
            one.begun = begun
        found: Sequence[Array | Exception]
        try:
            found = self._side_by_side.read(rows)
        except BaseException as error:  # not one that is to end this thread, nor those that wait
            found = [error if isinstance(error, Exception) else RuntimeError(repr(error))] * len(rows)
        self.passes += 1
        self._took.append((max(time.monotonic() - begun, 1e-6), len(rows)))
        with suppress(Exception):  # whoever counts takes no reading away
            self.passed(sum(row.new for row in rows))
        return list(zip(asked, found, strict=True))

    def _chosen(self) -> tuple[list[Any], list[_Asked]]:
        """What the next pass reads; what is known already, or comes too late, is answered here."""
        with self._lock:
            waiting = sorted(self._waiting, key=lambda asked: asked.left)
        gone: set[_Asked] = set()
        rows: list[Any] = []
        ready: list[_Asked] = []
        for asked in waiting[:LOOKED_AT]:
            row = self._row(asked, others=len(waiting) - len(gone) > 1)
            if row is None:
                gone.add(asked)
            else:
                rows.append(row)
                ready.append(asked)
        chosen = [i for i in (self._side_by_side.choose(rows) if rows else ()) if ready[i].future.set_running_or_notify_cancel()]
        gone |= {ready[i] for i in chosen}
        with self._lock:
            self._waiting = [asked for asked in self._waiting if asked not in gone]
        for i in chosen:
            ready[i].tokens = rows[i].new
        return [rows[i] for i in chosen], [ready[i] for i in chosen]

    def _row(self, asked: _Asked, others: bool) -> Any | None:
        """What has to run for one; None where nothing does, as it is known, late, given up or cannot be read."""
        if asked.future.cancelled():
            return None
        result: Array | Exception
        try:
            if self._too_late(asked, others):
                raise TimeoutError
            row = self._side_by_side.row(asked.ids, asked.anew)
            if row.new:
                return row
            result = row.known
        except Exception as error:
            result = error
        if asked.future.set_running_or_notify_cancel():
            asked.begun = time.monotonic()
            if isinstance(result, Exception):
                asked.future.set_exception(result)
            else:
                asked.future.set_result(result)
        return None

    def _too_late(self, asked: _Asked, others: bool) -> bool:
        """Whether its deadline has come, or comes sooner than the slowest of the last passes took, while others wait."""
        if asked.deadline is None:
            return False
        slowest = max((seconds for seconds, _ in self._took), default=0.0)
        return asked.left <= 0 or (others and asked.left < min(slowest, asked.deadline.seconds / 2))


class Shared:
    """One conversation's reading in shared passes (see reads.Growing). Not for several threads at once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.deadline: Deadline | None = None
        """Until when what is read next is waited for."""
        self.tokens_run = 0
        """How many of its tokens have passed through the model."""
        self.waited = 0.0
        """Seconds that the last reading waited for its pass to begin."""
        self._anew: int | None = None

    @property
    def bytes_kept(self) -> int:
        """Nothing of its own."""
        return 0

    def first_read(self, length: int, since: int) -> int:
        """The first token whose raw scores cost nothing more where those from `since` on are read."""
        return next((done for _, done, end in self.engine.bounds(length) if end > since), 0)

    def keep(self, n: int) -> None:
        """The next call runs the tokens from the n-th on anew."""
        self._anew = n if self._anew is None else min(n, self._anew)

    def read(self, ids: Sequence[int], since: int = 0) -> Array:
        """Raw scores of the tokens from `since` on [tokens, traits].

        Raises:
            ActivationError: they are not finite.
            OverloadedError: there is no room for it, or no time.
            TimeoutError: the deadline came first.
        """
        bounds = [b for b in self.engine.bounds(len(ids)) if b[2] > since]
        anew, self._anew = self._anew, None
        windows = [(list(ids[start:end]), None if anew is None else max(0, anew - start)) for start, _, end in bounds]
        begun = time.monotonic()
        asked = self.engine.ask(windows, self.deadline)
        try:
            values = [self._wait(one) for one in asked]
        except BaseException:
            for one in asked:
                one.future.cancel()
            raise
        self.waited = max(one.begun for one in asked) - begun
        self.tokens_run += sum(one.tokens for one in asked)
        parts = [found[max(done, since) - start :] for found, (start, done, _) in zip(values, bounds, strict=True)]
        return np.concatenate(parts).astype(np.float64)

    def _wait(self, asked: _Asked) -> Array:
        return asked.future.result() if self.deadline is None else self.deadline.wait(asked.future)


def overloaded(not_scored: str | None) -> bool:
    """Whether that is why something was not scored: more was asked of the model than it can do in time."""
    return not_scored is not None and not_scored.startswith(OVERLOADED)
