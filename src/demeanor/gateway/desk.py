"""The judge of one request: sessions for its choices, made from the conversation that it carries.

The first choice goes on in the conversation's own session; each further one gets a session of its own from the same messages, for the
replies are alternatives to each other. All of it is done in threads: nothing here may be called from an event loop.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from demeanor.audit.records import OpenedRecord
from demeanor.conversation import Conversation, Message
from demeanor.gateway.choice import Watched
from demeanor.gateway.hooks import Judged
from demeanor.measure.cuts import withholds
from demeanor.model.generation import Sampling
from demeanor.monitor.decision import Decision, new_id
from demeanor.monitor.session import Monitor, Session
from demeanor.monitor.sessions import Sessions
from demeanor.monitor.stream import ReplyStream
from demeanor.monitor.writing import WrittenStream


class Asked(NamedTuple):
    """What a request asks the chatbot."""

    conversation_id: str
    messages: tuple[Message, ...]
    unread: str | None
    """Why no reply to it can be scored, where that is so: it answers an image."""


class Desk:
    """Where the replies to one request are judged."""

    def __init__(self, monitor: Monitor, sessions: Sessions, asked: Asked) -> None:
        self.monitor, self.asked = monitor, asked
        self.id = new_id()
        """The id of the decision on the first choice of a stream; those of others follow from it."""
        self._sessions = sessions
        self._of: dict[int, Session] = {}
        self._replies: dict[int, str | Watched | WrittenStream] = {}

    def session(self, index: int) -> Session:
        """The session of a choice."""
        if index not in self._of:
            name, messages = self.asked.conversation_id, self.asked.messages
            self._of[index] = self._sessions.take(name, messages) if not self._of else self.monitor.session(name, Conversation(messages))
        return self._of[index]

    def judge(self, index: int, reply: str) -> Decision:
        """Decide on the whole reply of a choice."""
        self._replies[index] = reply
        return self.session(index).check(reply, self.asked.unread)

    def judged(self, index: int) -> Judged:
        """What was decided about, for the hooks."""
        reply = self._replies.get(index, "")
        said = reply if isinstance(reply, str) else reply.text
        return Judged(self.asked.conversation_id, Conversation((*self.asked.messages, Message("assistant", said))))

    def watch(self, index: int) -> tuple[Watched, bool]:
        """Watch the reply of a choice while it is written; says, too, whether nothing of it is shown before the decision.

        The audit log tells that it begins before any of it is shown. Where it cannot, and the policy withholds what is not recorded,
        all of it waits for the decision.
        """
        session = self.session(index)
        if self.asked.unread is not None:
            self._replies[index] = unscored = Unscored(session, self.asked.unread)
            return unscored, True
        self._replies[index] = stream = session.stream()
        return stream, self._open(stream, index)

    def write(self, index: int, sampling: Sampling) -> tuple[WrittenStream, bool]:
        """Have the loaded model write a choice; says, too, whether nothing of it is shown before the decision. See `watch`."""
        self._replies[index] = stream = self.session(index).write(replace(sampling, seed=sampling.seed + index))
        return stream, self._open(stream, index)

    def _open(self, stream: ReplyStream, index: int) -> bool:
        stream.id = self.id if index == 0 else f"{self.id}-{index}"
        failed = self.monitor.recorder.write(OpenedRecord(self.asked.conversation_id, stream.id), self.monitor.deadline)
        return failed is not None and withholds(self.monitor.policy.policy.audit_failure)

    def close(self) -> None:
        """The answer was given: the conversation's session is there for the next request."""
        if self._of:
            self._sessions.keep(next(iter(self._of.values())))


class Unscored:
    """A reply that cannot be scored, and is decided on when it is whole."""

    def __init__(self, session: Session, why: str) -> None:
        self._session, self._why = session, why
        self.id, self.text, self.shown = new_id(), "", ""
        self.stopped: object | None = None
        self.decision: Decision | None = None

    def begin(self) -> None:
        """Nothing is to be done."""

    def feed(self, chunk: str) -> str:
        """Take in a piece; nothing of it is shown yet."""
        self.text += chunk
        return ""

    def finish(self) -> str:
        """Decide."""
        if self.decision is None:
            self.decision = self._session.check(self.text, self._why)
            self.shown = self.decision.text
        return self.shown

    def fail(self, error: Exception) -> None:
        """It broke off: what is there is decided on, and is not scored either."""
        self._why = f"{self._why}; the reply broke off ({error})"
        self.finish()

    def abandon(self) -> None:
        """Nobody reads on."""
        self.finish()
