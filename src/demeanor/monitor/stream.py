r"""Watching a reply while it is written: what may be shown so far, and when it is stopped.

A reply is looked at after every EVERY-th word, a word being `\s*\S{1,16}` and known to be whole by the character after it;
longer ones, and scripts without spaces, count as several. So the looks hang on the text alone: however it is cut into
chunks, the same is shown and the same is decided. At each look the rules are tried on a window of the newest tokens:

    a red rule that withholds fired     the reply is stopped there; the reviewed reply follows what was shown
    anything else that withholds        nothing more is shown for now: a rule that holds, a score that is missing
    else                                all but the newest `hold_back` words are shown

Nothing is shown before there is a whole window. At the end the whole is decided, and the rest is shown or replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import NamedTuple

from demeanor.monitor.decision import Decision, Outcome
from demeanor.monitor.policy import withholds

EVERY = 8
_WORD = re.compile(r"\s*\S{1,16}")
BREAK = "\n\n"  # between what was shown of a reply and the reviewed one that takes its place


class Look(NamedTuple):
    """What one look found."""

    outcome: Outcome | None
    """What the policy says of the newest window; None where that is not to be had yet, or not at all."""
    stops: tuple[str, ...]
    """The rules by which the reply is to stop here."""
    z: Mapping[str, float]
    """z of each trait over the reply so far, for whoever watches."""


class ReplyStream:
    """A reply under watch. Iterate over it for what is to be shown, piece by piece; then `decision` is there.

    Where chunks come by callbacks: `feed` each, show what it gives, end with `finish` and show what that gives. A stream
    that is left early (the reader is gone, the chatbot failed) is decided on what was written until then.
    """

    def __init__(
        self,
        look: Callable[[str], Look],
        decide: Callable[[ReplyStream], Decision],
        ended: Callable[[ReplyStream], None],
        hold_back: int,
        chunks: Iterable[str] = (),
        enforce: bool = True,
    ) -> None:
        """Made by a session.

        Args:
            look: Looks at the reply so far. A TimeoutError ends the looks; what is not shown yet then waits for the end.
            decide: Decides on the whole.
            ended: Told once all is shown that will be.
            hold_back: How many of the newest words are not shown yet.
            chunks: The reply's text as it comes.
            enforce: False: everything is shown at once, and only the decision on the whole is made.
        """
        self._look, self._decide, self._ended = look, decide, ended
        self._hold_back, self._chunks, self._enforce = hold_back, chunks, enforce
        self.text = ""
        """The reply as written so far; where it was stopped, up to there."""
        self.shown = ""
        """All that has been shown, a reviewed reply at its end included."""
        self.z: Mapping[str, float] = {}
        """z of each trait over the reply at the last look."""
        self.stopped: Look | None = None
        """What stopped the reply, where something did."""
        self.decision: Decision | None = None
        self._ends: list[int] = []
        self._may_show = 0
        self._blind = False

    def __iter__(self) -> Iterator[str]:
        pieces = self._pieces()
        try:
            for piece in pieces:
                if piece:
                    yield piece
            if piece := self.finish():
                yield piece
        finally:
            pieces.close()
            self.abandon()

    def _pieces(self) -> Generator[str, None, None]:
        """What is to be shown as the reply comes in, until it ends or is stopped."""
        chunks = iter(self._chunks)
        try:
            for chunk in chunks:
                yield self.feed(chunk)
                if self.stopped is not None:
                    break
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:  # a generator is told that nobody reads on
                close()

    def feed(self, chunk: str) -> str:
        """Take in a piece of the reply; gives what is to be shown now. Once the reply is stopped, nothing is taken in."""
        if self.stopped is not None or self.decision is not None:
            return ""
        self.text += chunk
        if not self._enforce:
            return self._show(chunk)
        while (word := _WORD.match(self.text, self._ends[-1] if self._ends else 0)) and word.end() < len(self.text):
            self._ends.append(word.end())
            if len(self._ends) % EVERY == 0 and not self._blind:
                self._look_at(word.end())
                if self.stopped is not None:
                    self.text = self.text[: word.end()]
                    break
        return self._show(self.text[len(self.shown) : self._may_show])

    def finish(self) -> str:
        """The reply is at its end: decides on the whole, and gives what is still to be shown."""
        if self.decision is not None:
            return ""
        self.decision = self._decide(self)
        rest = self.text[len(self.shown) :]
        if self._enforce and withholds(self.decision.action):
            rest = (BREAK if self.shown else "") + self.decision.text
        self._show(rest)
        self._ended(self)
        return rest

    def abandon(self) -> None:
        """Nobody reads on, or nobody writes on: decides on what was written, and shows no more of it."""
        if self.decision is None:
            self.decision = self._decide(self)
            self._ended(self)

    def _look_at(self, end: int) -> None:
        try:
            found = self._look(self.text[:end])
        except TimeoutError:
            self._blind = True
            return
        self.z = found.z or self.z
        if found.stops:
            self.stopped = found
        elif found.outcome is not None and not withholds(found.outcome.action) and len(self._ends) > self._hold_back:
            self._may_show = self._ends[-1 - self._hold_back]

    def _show(self, piece: str) -> str:
        self.shown += piece
        return piece
