"""A reply of the loaded model's own under watch: written on the worker's thread, shown by whoever iterates.

The looks are taken between two tokens, by the thread that writes, from the pass that writes; so they cost no pass of their
own and stop the reply at once. The model has the deadline for each next token, not for the whole.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import CancelledError, Future

from demeanor.errors import ModelError
from demeanor.monitor.decision import Decision
from demeanor.monitor.looks import Look
from demeanor.monitor.stream import ReplyStream
from demeanor.monitor.worker import Deadline, Worker
from demeanor.scoring.live import OnToken, Written


class WrittenStream(ReplyStream):
    """See ReplyStream; it has no chunks to be fed, it writes them."""

    def __init__(
        self,
        write: Callable[[OnToken], Written],
        worker: Worker,
        patience: float,
        seen: Callable[[Mapping[str, float]], None],
        look: Callable[[str], Look],
        decide: Callable[[ReplyStream], Decision],
        ended: Callable[[ReplyStream], None],
        hold_back: int,
        enforce: bool = True,
        begun: Callable[[ReplyStream], None] = lambda _: None,
    ) -> None:
        """Made by a session.

        Args:
            write: Writes the reply; gets what is to be called after each token.
            worker: Where it writes.
            patience: Seconds for each token.
            seen: Told of the traits' mean z after each token.
            look: As for ReplyStream, as are the others.
            decide: Likewise.
            ended: Likewise.
            hold_back: Likewise.
            enforce: Likewise.
            begun: Likewise.
        """
        super().__init__(look, decide, ended, hold_back, enforce=enforce, begun=begun)
        self._write, self._worker, self._patience, self._seen = write, worker, patience, seen
        self._gone = threading.Event()
        self._silent = False
        self._news: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._future: Future[Written] | None = None

    def written(self) -> Written:
        """What was written, once it is. Raises what kept it from being written, or ModelError where the model went silent."""
        if self._future is None:
            raise ModelError("nothing was written: the reply was stopped before it began")
        try:
            return Deadline(0.0 if self._silent else self._patience).wait(self._future)
        except (TimeoutError, CancelledError):
            raise ModelError(f"the model wrote nothing for {self._patience:g} s") from None

    def _pieces(self) -> Generator[str, None, None]:
        self._future = self._worker.submit(lambda: self._write(self._after_token))
        self._future.add_done_callback(lambda _: self._news.put(None))
        try:
            while (piece := self._news.get(timeout=self._patience)) is not None:
                yield piece
        except queue.Empty:
            self._silent = True
        finally:
            self._gone.set()

    def _after_token(self, text: str, means: Mapping[str, float]) -> bool:
        if self._gone.is_set():
            return True
        self._seen(means)
        self.z = means or self.z
        so_far = text.lstrip().rstrip("\ufffd")  # half of a character that the next token completes
        self._news.put(self.feed(so_far[len(self.text) :]))
        return self.stopped is not None
