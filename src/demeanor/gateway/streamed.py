"""A streamed chat completion under watch: frames come in as bytes, and those that may be shown go out as the bytes that they were.

    frame may be shown whole        its own bytes go out, in the order in which frames came
    only a part of it may be        it waits
    its choice is withheld          what of its words may be shown, the reviewed reply, and an end with "stop" take the place of the rest
    a comment                       goes out at once, so that the connection is kept open
    no JSON, or an error            every choice that is not at its end broke off: the reviewed reply takes the place of its rest

Nothing here waits or knows HTTP: `take` is called with what came, `end` when no more comes; both give what is to be sent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from demeanor.errors import DemeanorError
from demeanor.gateway.choice import HELD, NEVER, Choice, Watched
from demeanor.gateway.frames import DONE, Cutter, Frame, TooLargeError, parse, to_frame
from demeanor.gateway.telling import told
from demeanor.gateway.words import words_of_choice
from demeanor.monitor.decision import Decision

NAMES = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
"""What the gateway's own frames share with the upstream's."""
MOST_HELD = 64 << 20  # bytes of frames that wait


class _Waiting(NamedTuple):
    """A frame of the upstream's, or the place of one of ours, in the order in which they go out."""

    frame: Frame | None
    data: Any
    places: dict[int, float]
    since: float


class UpstreamError(DemeanorError):
    """The upstream broke off, or sent what cannot be read."""


class StreamedAnswer:
    """Made for one request.

    Args:
        watch: Begins the stream of the choice of this number; gives it, and whether nothing of it is shown before the decision.
        choices: How many choices were asked for.
        enforce: False in a trial run: everything is shown at once.
    """

    def __init__(self, watch: Callable[[int], tuple[Watched, bool]], choices: int, enforce: bool) -> None:
        self._watch, self._asked, self._enforce = watch, choices, enforce
        self._cutter = Cutter()
        self._waiting: deque[_Waiting] = deque()
        self._held = 0
        self._head: dict[str, Any] = {"id": "chatcmpl-demeanor", "object": "chat.completion.chunk", "created": 0, "model": "unknown"}
        self._sent: dict[int, int] = {}
        self._told: set[int] = set()
        self._done: Frame | None = None
        self.choices: dict[int, Choice] = {}
        self.broken: str | None = None
        """What was wrong with the upstream's answer."""
        self.held: list[float] = []
        """Seconds that each frame with words waited here before it, or what took its place, went out."""
        self._came = time.perf_counter()

    @property
    def over(self) -> bool:
        """Whether the upstream need not be heard any more: every choice is withheld, or the stream broke."""
        ended = len(self.choices) >= self._asked and all(choice.withheld for choice in self.choices.values())
        return ended or self.broken is not None or self._done is not None

    @property
    def spoken(self) -> bool:
        """Whether any words went out, the upstream's or reviewed ones."""
        return any(self._sent.values()) or any(choice.replaced for choice in self.choices.values())

    @property
    def decisions(self) -> dict[int, Decision]:
        """Of each choice that was judged."""
        return {i: c.decision for i, c in sorted(self.choices.items()) if c.decision is not None}

    def take(self, piece: bytes) -> bytes:
        """Bytes of the upstream's came; gives what is to be sent now."""
        if self.over:
            return b""
        self._came = time.perf_counter()
        out = b""
        try:
            for frame in self._cutter.take(piece):
                out += self._frame(frame)
                if self.over:
                    break
        except TooLargeError as error:
            self._break(str(error))
        return out + self._release()

    def end(self, error: str | None = None) -> bytes:
        """No more comes; `error` says what ended it, where that was a failure. Gives the rest of the answer."""
        out = b""
        rest = self._cutter.rest()  # without the blank line that ends a frame, so that the next one would be a part of it
        if not self.over and rest is not None and rest.data is not None:
            out += self._frame(rest._replace(raw=rest.raw + b"\n\n"))
        if self.broken is None:
            self._close(error)
            self.broken = error
        out += self._release()
        return out + self._ending()

    def abandon(self) -> None:
        """Nobody reads on: every choice is decided on what was written of it."""
        for choice in self.choices.values():
            choice.abandon()

    def _frame(self, frame: Frame) -> bytes:
        """Take in a frame; gives what goes out ahead of those that wait."""
        if frame.data is None:
            return frame.raw
        if frame.data.strip() == "[DONE]":
            self._done = frame
            return b""
        try:
            data = parse(frame.data)
            places = self._read(data)
        except ValueError as error:
            self._break(f"the upstream sent a frame that cannot be read ({_kind(error)})", frame)
            return b""
        if places is None:
            self._break("the upstream sent an error in the middle of its answer", frame)
            return b""
        self._waiting.append(_Waiting(frame, data, places, self._came))
        self._held += len(frame.raw)
        if self._held > MOST_HELD:
            self._break("the upstream's answer is too long to be held back")
        return b""

    def _read(self, data: Any) -> dict[int, float] | None:
        """The place of a frame in each choice that it speaks of; None: it is an error. Raises ValueError."""
        if not isinstance(data, Mapping):
            raise ValueError("not an object")
        if data.get("error"):
            return None
        self._head |= {name: data[name] for name in NAMES if data.get(name) is not None}
        choices = data.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
            raise ValueError("choices that are no list of objects")
        places: dict[int, float] = {}
        for choice in choices:
            index = choice.get("index", 0)
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < max(self._asked, 1) or index in places:
                raise ValueError("a choice that was not asked for")
            words = words_of_choice(choice)
            places[index] = self._choice(index).take(words)
            if choice.get("finish_reason"):
                self._choice(index).finish()
                places[index] = HELD if places[index] != NEVER else NEVER
        return places

    def _choice(self, index: int) -> Choice:
        if index not in self.choices:
            self.choices[index] = Choice(lambda: self._watch(index), self._enforce)
        return self.choices[index]

    def _break(self, problem: str, frame: Frame | None = None) -> None:
        self.broken = problem
        self._close(problem)
        if frame is not None and not self._enforce:
            self._waiting.append(_Waiting(frame, None, {}, self._came))

    def _close(self, error: str | None) -> None:
        """Decide on every choice that is not over, and leave a place in the order for what takes its place."""
        for index in range(self._asked) if not self.choices else sorted(self.choices):
            choice = self._choice(index)
            if choice.over:
                continue
            if error is None and self._done is not None:
                choice.finish()
            else:
                choice.fail(UpstreamError(error or "the upstream ended in the middle of the reply"))
            self._waiting.append(_Waiting(None, None, {index: HELD}, self._came))

    def _release(self) -> bytes:
        out = b""
        while self._waiting:
            frame, data, places, since = self._waiting[0]
            passing = {index: self.choices[index].passes(place) for index, place in places.items()}
            if None in passing.values():
                break
            self._waiting.popleft()
            for index, passes in passing.items():
                if passes is False:
                    out += self._instead(index)
            if frame is None:
                out += b"".join(self._tell(index) for index in places)
                continue
            self._held -= len(frame.raw)
            if any(place > 0 for place in places.values()):
                self.held.append(time.perf_counter() - since)
            if all(passing.values()):
                ending = [c.get("index", 0) for c in (data or {}).get("choices") or [] if c.get("finish_reason")]
                out += b"".join(self._tell(index) for index in ending) + frame.raw
                for index, place in places.items():
                    self._sent[index] = max(self._sent.get(index, 0), int(min(place, len(self.choices[index].text))))
            elif any(passing.values()):
                kept = [choice for choice in data["choices"] if passing[choice.get("index", 0)]]
                out += to_frame(data | {"choices": kept})
        return out

    def _instead(self, index: int) -> bytes:
        """What takes the place of the rest of a choice that is withheld; once."""
        choice = self.choices[index]
        if not choice.withheld or choice.replaced:
            return b""
        out = b""
        for field, text in choice.instead(self._sent.get(index, 0)):
            name = "content" if field == "content" else "reasoning_content"
            out += self._own(index, {"role": "assistant", name: text} if index not in self._sent else {name: text})
            self._sent.setdefault(index, 0)
        self._told.add(index)
        return out + self._own(index, {}, "stop", told(choice.decision))

    def _tell(self, index: int) -> bytes:
        """What was decided about a choice, before the frame that ends it; once."""
        if index in self._told:
            return b""
        self._told.add(index)
        return self._own(index, {}, None, told(self.choices[index].decision))

    def _own(self, index: int, delta: Mapping[str, str], finish: str | None = None, about: Mapping[str, Any] | None = None) -> bytes:
        frame = self._head | {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}
        return to_frame(frame if about is None else frame | {"demeanor": about})

    def _ending(self) -> bytes:
        """[DONE], as the upstream sent it, or where the gateway ended the answer."""
        if self._done is not None:
            return self._done.raw
        return DONE if self.broken is not None or any(choice.withheld for choice in self.choices.values()) else b""


def _kind(error: ValueError) -> str:
    return "no JSON" if type(error).__name__ == "JSONDecodeError" else str(error)
