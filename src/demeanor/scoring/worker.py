"""One thread that runs calls in the order given, so that whoever waits for one may stop waiting.

A forward pass cannot be interrupted: a caller that has waited long enough goes on without it. What it gives later is
discarded, and a call that nobody waits for any more when its turn comes is not begun. Only one pass runs at a time,
as two would share the same cores.

Where more is asked for than can be done, a call whose deadline comes sooner than the slowest of the last calls took is given up
while another waits. Otherwise each would begin when it is nearly too late for it, end too late, and nothing would be done in time.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from demeanor.errors import DemeanorError

T = TypeVar("T")
REMEMBERED = 16  # calls whose time tells how long the next may take


class Worker:
    """The thread begins with the first call, in each process anew, and ends with this object. It keeps no process from ending."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._pid = 0  # of the process that the thread is in: a fork leaves it behind
        self._lock = threading.Lock()

    def submit(self, call: Callable[[], T], deadline: Deadline | None = None) -> Future[T]:
        """Put a call behind those that wait; its result or its exception comes with the future.

        One that can hardly be done by its deadline ends in a TimeoutError where another waits.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._pid != os.getpid():
                self._begin()
            self._jobs.put((future, call, deadline))
        return future

    def _begin(self) -> None:
        self._jobs = queue.SimpleQueue()
        weakref.finalize(self, self._jobs.put, None).atexit = False
        threading.Thread(target=_work, args=(self._jobs,), name=self.name, daemon=True).start()
        self._pid = os.getpid()


class Deadline:
    """So many seconds from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def wait(self, future: Future[T], drop: bool = True) -> T:
        """The future's result. Raises TimeoutError at the deadline; a call that has not begun is then dropped, where `drop` says so."""
        try:
            return future.result(self.left)
        except TimeoutError:
            if future.done():  # it ended in a TimeoutError of its own, or just now
                return future.result()
            if drop:
                future.cancel()
            raise


def reason(error: Exception) -> str:
    """Why a call failed, in one line."""
    text = " ".join(str(error).split()) or "no reason given"
    return text if isinstance(error, DemeanorError) else f"{type(error).__name__}: {text}"[:300]


_Job = tuple[Future[Any], Callable[[], Any], Deadline | None]


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    took: deque[float] = deque(maxlen=REMEMBERED)
    while (job := jobs.get()) is not None:
        future, call, deadline = job
        if future.set_running_or_notify_cancel():
            begun = time.monotonic()
            try:
                if deadline is not None and not jobs.empty() and deadline.left < min(max(took, default=0.0), deadline.seconds / 2):
                    raise TimeoutError
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
            except BaseException as error:  # not one that is to end this thread, nor the one that waits
                future.set_exception(RuntimeError(repr(error)))
            else:
                if deadline is not None:
                    took.append(time.monotonic() - begun)
        del job, future, call  # what they hold is not to live until the next one comes
