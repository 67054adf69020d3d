"""One choice of a streamed answer under watch: its words go to a session's stream, which says how much of them may be shown.

The words are put together into one reply (reasoning within <think> tags), and every frame is given a place in it: up to where its words
go. A frame may be sent once so much of the reply may be shown. What holds more than words waits for the decision: HELD.

Nothing is fed before the first word of the reply itself, as reasoning cannot be judged before that and may yet be all there is: beside a
call of a tool, or in a reply that was cut off. It is then judged as the reply. A choice that only calls tools says nothing to the user
and is not judged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from demeanor.gateway.words import CLOSE, OPEN, Words
from demeanor.monitor.decision import Decision
from demeanor.monitor.stream import BREAK
from demeanor.spelling import is_blank

HELD = math.inf
"""The place of a frame that waits for the decision."""
NEVER = -1.0
"""That of a frame with words that come after the end."""


class Watched(Protocol):
    """What judges a reply while it is written: a session's ReplyStream, or what stands in for one."""

    id: str
    text: str
    shown: str
    decision: Decision | None

    @property
    def stopped(self) -> object | None: ...  # noqa: D102
    def begin(self) -> None: ...  # noqa: D102
    def feed(self, chunk: str) -> str: ...  # noqa: D102
    def finish(self) -> str: ...  # noqa: D102
    def fail(self, error: Exception) -> None: ...  # noqa: D102
    def abandon(self) -> None: ...  # noqa: D102


class Choice:
    """What was said so far, how much of it may be shown, and what was decided.

    `watch` begins the reply's stream; `hold` says that nothing is shown before the decision; `enforce` False shows everything at once.
    """

    def __init__(self, watch: Callable[[], tuple[Watched, bool]], enforce: bool) -> None:
        self._watch, self._enforce = watch, enforce
        self.stream: Watched | None = None
        self.text = ""
        """The reply as it was put together so far."""
        self.tools = self.over = self.replaced = False
        self._pieces: list[tuple[str, int, int]] = []  # the field of words, and where they begin and end in the text
        self._fed, self._reasoning, self._hold = 0, False, False
        self._spoken = ""  # the words of the reply itself, until it is begun

    @property
    def decision(self) -> Decision | None:
        """The decision, once there is one; a choice that only calls tools has none."""
        return self.stream.decision if self.stream is not None else None

    @property
    def withheld(self) -> bool:
        """Whether nothing more of the upstream's is shown."""
        return self.over and self.decision is not None and not self.decision.shown

    def passes(self, place: float) -> bool | None:
        """Whether a frame at this place is sent; None: not yet."""
        if not self._enforce:
            return True
        if place == NEVER:
            return False
        if self.withheld:
            return not self.replaced and place <= self.own
        if self.over:
            return True
        return True if place <= self._may_show else None

    @property
    def _may_show(self) -> int:
        return 0 if self._hold or self.stream is None else len(self.stream.shown)

    @property
    def own(self) -> int:
        """How much of the upstream's text is shown of a choice that is withheld, before the reviewed reply."""
        assert self.stream is not None
        assert self.decision is not None
        if self._hold:  # it may count as shown; it was not sent
            return 0
        before = self.stream.shown.removesuffix(self.decision.text)
        return len(before.removesuffix(BREAK)) if before else 0

    def take(self, words: Words) -> float:
        """Take in the words of a frame; gives the frame's place."""
        if self.over:  # decided: what comes now was not judged
            return NEVER if words.said or words.held else 0
        self.tools |= words.tools
        for kind, text in words.said:
            self._put(kind, text)
        if self.stream is not None or not is_blank(self._spoken):
            self._feed()
        return HELD if words.held else len(self.text)

    def finish(self) -> None:
        """The upstream says that the choice is at its end."""
        if self.over:
            return
        if self.stream is None and is_blank(self._spoken):
            reasoning = "".join(self.text[start:end] for kind, start, end in self._pieces if kind == "reasoning")
            if self.tools and is_blank(reasoning):
                self.over = True
                return
            self.text, self._pieces, self._reasoning = reasoning, [("reasoning", 0, len(reasoning))], False
        self._close_reasoning()
        self._feed()
        if not self.over:
            self._begin().finish()
            self.over = True

    def fail(self, error: Exception) -> None:
        """The upstream failed in the middle of the choice."""
        if self.over:
            return
        self._feed()
        if not self.over:
            self._begin().fail(error)
            self._begin().finish()
            self.over = True

    def abandon(self) -> None:
        """Nobody reads on."""
        if self.stream is not None:
            self.stream.abandon()
        self.over = True

    def instead(self, sent: int) -> list[tuple[str, str]]:
        """What is still to be shown of a choice that is withheld, after so much of its text was sent: by field, the reviewed reply last."""
        assert self.stream is not None
        self.replaced = True
        own = self.own
        pieces = [
            (kind, self.text[max(start, sent) : min(end, own)]) for kind, start, end in self._pieces if max(start, sent) < min(end, own)
        ]
        assert self.decision is not None
        return [*pieces, ("content", self.decision.text if self._hold else self.stream.shown[own:])]

    def _put(self, kind: str, text: str) -> None:
        if kind == "reasoning" and not self._reasoning:
            self.text += OPEN
            self._reasoning = True
        elif kind == "content":
            self._close_reasoning()
            self._spoken += text if self.stream is None else ""
        self._pieces.append((kind, len(self.text), len(self.text) + len(text)))
        self.text += text

    def _close_reasoning(self) -> None:
        if self._reasoning:
            self.text += CLOSE
            self._reasoning = False

    def _begin(self) -> Watched:
        if self.stream is None:
            self.stream, self._hold = self._watch()
            self.stream.begin()
        return self.stream

    def _feed(self) -> None:
        stream = self._begin()
        stream.feed(self.text[self._fed :])
        self._fed = len(self.text)
        if stream.stopped is not None:
            stream.finish()
            self.over = True
