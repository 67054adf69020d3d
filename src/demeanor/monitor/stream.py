r"""Watching a reply while it is written: what may be shown so far, and when it is stopped.

A reply is looked at after every EVERY-th word, a word being `\s*\S{1,16}` and known to be whole by the character after it;
longer ones, and scripts without spaces, count as several. So the looks depend on the text alone: however it is cut into
chunks, the same is shown and the same is decided. At each look the rules are tried on a window of the newest tokens (see looks):

    a red rule that withholds fired     the reply is stopped there; the reviewed reply follows what was shown
    anything else that withholds        nothing more is shown for now: a rule that holds, a score that is missing
    else                                all but the newest `hold_back` words are shown

Nothing is shown before there is a whole window. At the end the last window and the whole are decided, and the rest is shown or
replaced. A reply that breaks off (the chatbot fails, a chunk is no text) is not shown any further; the reviewed reply takes the
place of its rest, and `finish` gives that.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, Mapping

from demeanor.errors import ConversationError
from demeanor.measure.cuts import withholds
from demeanor.monitor.decision import Decision, new_id
from demeanor.monitor.looks import Look
from demeanor.monitor.worker import reason

EVERY = 8
_WORD = re.compile(r"\s*\S{1,16}")
BREAK = "\n\n"  # between what was shown of a reply and the reviewed one that takes its place


class ReplyStream:
    """A reply under watch. Iterate over it for what is to be shown, piece by piece; then `decision` is there.

    Where chunks come by callbacks: `feed` each, show what it gives, end with `finish` and show what that gives. A stream
    that is left early, as the reader is gone, is decided on what was written until then. Where the chatbot fails, the error goes
    on to whoever iterates; then show what `finish` gives. With callbacks, tell `fail` first.
    """

    def __init__(
        self,
        look: Callable[[str], Look],
        decide: Callable[[ReplyStream], Decision],
        ended: Callable[[ReplyStream], None],
        hold_back: int,
        chunks: Iterable[str | None] | AsyncIterable[str | None] = (),
        enforce: bool = True,
        begun: Callable[[ReplyStream], None] = lambda _: None,
    ) -> None:
        """Made by a session.

        Args:
            look: Looks at the reply so far. A TimeoutError ends the looks; what is not shown yet then waits for the end.
            decide: Decides on the whole.
            ended: Told once all is shown that will be.
            hold_back: How many of the newest words are not shown yet.
            chunks: The reply's text as it comes.
            enforce: False: everything is shown at once, and only the decision at the end is made.
            begun: Told when the reply begins.
        """
        self._look, self._decide, self._ended, self._begins = look, decide, ended, begun
        self._hold_back, self._chunks, self._enforce = hold_back, chunks, enforce
        self.id = new_id()
        """The id that its decision will have."""
        self.text = ""
        """The reply as written so far; where it was stopped, up to there."""
        self.shown = ""
        """All that has been shown, a reviewed reply at its end included."""
        self.z: Mapping[str, float] = {}
        """z of each trait over the reply at the last look."""
        self.stopped: Look | None = None
        """What stopped the reply, where something did."""
        self.failure: str | None = None
        """Why the reply broke off, where it did."""
        self.decision: Decision | None = None
        self.owed = ""
        """What takes the place of the rest of a reply that broke off, until `finish` has given it."""
        self._begun = False
        self._ends: list[int] = []
        self._may_show = 0
        self._blank = True
        self._blind = False

    def __iter__(self) -> Iterator[str]:
        self.begin()
        pieces = self._pieces()
        try:
            for piece in pieces:
                if piece:
                    yield piece
            if piece := self.finish():
                yield piece
        except Exception as error:
            self.fail(error)
            raise
        finally:
            pieces.close()
            self.abandon()

    def begin(self) -> None:
        """The reply begins; what comes by itself with the first chunk."""
        if not self._begun:
            self._begun = True
            self._begins(self)

    def _pieces(self) -> Generator[str, None, None]:
        """What is to be shown as the reply comes in, until it ends or is stopped."""
        assert isinstance(self._chunks, Iterable)
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

    def feed(self, chunk: str | None) -> str:
        """Take in a piece of the reply; gives what is to be shown now. Once the reply is stopped, nothing is taken in.

        None and empty pieces, as chatbots send them with a role or at the end, are passed over.

        Raises:
            ConversationError: the piece is something else than text; the reply has then broken off.
        """
        if self.stopped is not None or self.decision is not None:
            return ""
        self.begin()
        if chunk is None or chunk == "":
            return ""
        if not isinstance(chunk, str):
            error = ConversationError(
                f"a chunk of a reply is text or None, not {type(chunk).__name__}; give its text, such as chunk.choices[0].delta.content"
            )
            self.fail(error)
            raise error
        self.text += chunk
        if not self._enforce:
            return self._show(chunk)
        if self._blank and chunk.isspace():  # there can be no word yet, however long this goes on
            return ""
        while (word := _WORD.match(self.text, self._ends[-1] if self._ends else 0)) and word.end() < len(self.text):
            self._ends.append(word.end())
            if len(self._ends) % EVERY == 0 and not self._blind:
                self._look_at(word.end())
                if self.stopped is not None:
                    self.text = self.text[: word.end()]
                    break
        rest = self.text[self._ends[-1] if self._ends else 0 :]
        self._blank = not rest or rest.isspace()
        return self._show(self.text[len(self.shown) : self._may_show])

    def finish(self) -> str:
        """The reply is at its end: decides on the whole, and gives what is still to be shown."""
        if self.decision is not None:
            owed, self.owed = self.owed, ""
            return self._show(owed)
        self.decision = self._decide(self)
        rest = self.text[len(self.shown) :]
        if self._enforce and withholds(self.decision.action):
            rest = self._instead()
        self._show(rest)
        self._ended(self)
        return rest

    def fail(self, error: Exception) -> None:
        """The chatbot failed in the middle of the reply: `finish` then gives the reviewed reply that takes the place of the rest."""
        if self.decision is None:
            self.failure = reason(error)
            self.decision = self._decide(self)
            if self._enforce and withholds(self.decision.action):
                self.owed = self._instead()
            self._ended(self)

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

    def _instead(self) -> str:
        assert self.decision is not None
        return (BREAK if self.shown else "") + self.decision.text

    def _show(self, piece: str) -> str:
        self.shown += piece
        return piece
