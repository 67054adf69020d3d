"""The sessions of a server's conversations between two requests, each of which carries the whole conversation so far.

What a request says was said is what counts. A session is used again where the request goes on from what it was shown; where
the request says otherwise (an edited message, another branch, a server that was started anew) a new session is made from the request's own
messages. Turns and drift are then counted from these, so that nothing depends on what was remembered.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from demeanor.conversation import Conversation, Message
from demeanor.monitor.session import Monitor, Session


class _Kept(NamedTuple):
    session: Session
    until: float


class Sessions:
    """Sessions by their conversation's id, the least recently used forgotten first. Safe for several threads.

    A session is taken out while it is in use, so that two requests of one conversation at the same time never share one.
    """

    def __init__(self, monitor: Monitor, max: int = 10_000, ttl: float = 3600.0, clock: Callable[[], float] = time.monotonic) -> None:  # noqa: A002
        """None at first.

        Args:
            monitor: Makes the sessions.
            max: How many are kept.
            ttl: For how many seconds one is kept that is not used.
            clock: Seconds that only grow.
        """
        self.monitor, self.max, self.ttl, self._clock = monitor, max, ttl, clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, conversation_id: str, messages: Sequence[Message], country: str | None = None) -> Session:
        """A session that has heard just these messages, and waits for the reply to them. Give it back with `keep`.

        The same messages once more are a retry: the reply that was judged for them is taken back, and the next takes its place.
        """
        with self._lock:
            kept = self._kept.pop(conversation_id, None)
        if kept is not None and kept.until > self._clock() and _goes_on(kept.session, messages):
            return kept.session
        return self.monitor.session(conversation_id, Conversation(tuple(messages)), country)

    def keep(self, session: Session) -> None:
        """Remember a session for the next request of its conversation."""
        now = self._clock()
        with self._lock:
            self._kept[session.conversation_id] = _Kept(session, now + self.ttl)
            self._kept.move_to_end(session.conversation_id)
            while self._kept and (len(self._kept) > self.max or next(iter(self._kept.values())).until <= now):
                self._kept.popitem(last=False)


def _goes_on(session: Session, messages: Sequence[Message]) -> bool:
    """Bring a session to where the messages are; False where they do not go on from what it was shown."""
    heard = session.messages
    if len(messages) == len(heard) - 1 and _same(heard, messages):
        return session.take_back()
    if len(messages) < len(heard) or not _same(heard, messages):
        return False
    for message in messages[len(heard) :]:
        session.add(message)
    return True


def _same(heard: Sequence[Message], messages: Sequence[Message]) -> bool:
    """Whether both say the same as far as both go: reasoning, which clients do not send back, and white space at the ends apart."""
    return all(a.role == b.role and (a.content == b.content or _said(a) == _said(b)) for a, b in zip(heard, messages, strict=False))


def _said(message: Message) -> str:
    return message.read.said.strip()
