"""One conversation as it was shown: what is filed when, and what is taken back.

What the user says while a reply streams is filed after that reply. The same reply judged once more, with nothing said since, takes
the place of what was shown for it before. A reply that was scored and shown ends a turn of the user's (see listener).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from demeanor.conversation import Message
from demeanor.monitor.listener import Listener


class _Answered(NamedTuple):
    reply: str
    place: int
    ended_turn: bool


class History:
    """The messages, in order. `reviewed` tells the reviewed replies, which let nothing through that was withheld."""

    def __init__(self, messages: tuple[Message, ...], listener: Listener, reviewed: Callable[[str], bool]) -> None:
        self.messages: list[Message] = []
        self.listener, self._reviewed = listener, reviewed
        self._answered: _Answered | None = None
        self._lock = threading.Lock()
        self._streaming = False
        self._waiting: list[Message] = []
        for message in messages:
            self.add(message)

    def own_replies(self) -> dict[int, int]:
        """Where the chatbot's own replies stand, and the how manyeth reply each is, from 0; reviewed ones in their place are counted."""
        replies = [i for i, m in enumerate(self.messages) if m.role == "assistant" and m.content.strip()]
        return {i: n for n, i in enumerate(replies) if not self._reviewed(self.messages[i].content)}

    @property
    def replies(self) -> int:
        """How many replies there are."""
        return sum(m.role == "assistant" and bool(m.content.strip()) for m in self.messages)

    def add(self, message: Message) -> None:
        """File a message that is not to be judged."""
        if message.role == "user":
            self.listener.hear(len(self.messages), message)
        elif message.role == "assistant" and message.content.strip() and not self._reviewed(message.content):
            self.listener.answered()
        self.messages.append(message)

    def hear(self, message: Message) -> None:
        """File what the user says, after the reply that streams, where one does."""
        with self._lock:
            if self._streaming:
                self._waiting.append(message)
            else:
                self.add(message)

    def begin(self) -> None:
        """A reply begins to stream."""
        with self._lock:
            self._streaming = True

    def file(self, reply: str, shown: str, let_through: bool) -> None:
        """A reply is over: file what was shown for it, and then what the user said meanwhile."""
        with self._lock:
            self._answered = _Answered(reply, len(self.messages), let_through and self.listener.answered())
            self.messages.append(Message("assistant", shown))
            self._go_on()

    def end(self) -> None:
        """A reply of which nothing was shown is over."""
        with self._lock:
            self._go_on()

    def before(self, reply: str) -> tuple[Message, ...]:
        """What a reply answers: all that was said, without the last reply where this is (the beginning of) the same once more."""
        last = self._last()
        return tuple(self.messages[:-1] if last is not None and last.reply.startswith(reply) else self.messages)

    def take_back(self, reply: str | None) -> bool:
        """Where the last reply is judged once more, it is as if it had not been judged. Gives whether that is so. None: whatever it was."""
        last = self._last()
        if last is None or reply not in (None, last.reply):
            return False
        self.messages.pop()
        self._answered = None
        if last.ended_turn:
            self.listener.unanswered()
        return True

    def _last(self) -> _Answered | None:
        """The reply that was judged last, where nothing was said since."""
        return self._answered if self._answered is not None and len(self.messages) == self._answered.place + 1 else None

    def _go_on(self) -> None:
        self._streaming = False
        for message in self._waiting:
            self.add(message)
        self._waiting = []
