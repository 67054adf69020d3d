"""Transcripts: every reply of finished conversations judged in order, as a live session would have, and their counts.

Nothing is withheld: each reply is read after what really was said before it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demeanor.conversation import Conversation, Message
from demeanor.errors import ConversationError
from demeanor.measure.cuts import ACTIONS
from demeanor.measure.drift import Baseline
from demeanor.monitor.decision import Decision
from demeanor.monitor.session import Monitor
from demeanor.scoring.reading import TokenScores


@dataclass(frozen=True)
class Turn:
    """One reply of a transcript, and the decision about it."""

    message: int
    """Which message of the conversation it is, from 0."""
    user: str
    """What the user had said last; empty where they had said nothing."""
    reply: str
    decision: Decision
    tokens: TokenScores | None
    """How its tokens pushed; None where nothing was found or nothing could be read."""


@dataclass(frozen=True)
class Transcript:
    """A conversation and its judged replies."""

    name: str
    turns: tuple[Turn, ...]
    messages: tuple[Message, ...] = ()
    """All that was said."""
    date: str = ""
    """The day on which it took place, as 2026-01-31; empty where that is not known."""

    def to_record(self) -> dict[str, Any]:
        """As plain data: the strongest action, and every decision with the number of its message."""
        actions = [t.decision.action for t in self.turns]
        return {
            "action": max(actions, key=ACTIONS.index),
            "decisions": [{"message": t.message, **t.decision.to_record()} for t in self.turns],
        }


def judge_transcript(
    monitor: Monitor,
    name: str,
    conversation: Conversation,
    conversation_id: str | None = None,
    unread: Mapping[int, str] | None = None,
    date: str = "",
) -> Transcript:
    """Judge every reply. The monitor must not enforce. Raises ConversationError where there is no reply.

    The audit log holds the hash of `conversation_id`, where that is given, else of the name. `unread` are replies, by their place among the
    messages, that cannot be scored, with the cause: they answer what nobody can read.
    """
    if not any(m.role == "assistant" for m in conversation.messages):
        raise ConversationError("no assistant message in the conversation; add one with role 'assistant' to judge it")
    session = monitor.session(name if conversation_id is None else conversation_id)
    turns: list[Turn] = []
    said = ""
    for i, message in enumerate(conversation.messages):
        if message.role != "assistant":
            said = message.content if message.role == "user" else said
            session.add(message)
            continue
        decision = session.check(message.content, (unread or {}).get(i))
        shows = decision.action != "allow" and session.reading is not None
        turns.append(Turn(i, said, message.content, decision, session.reading.tokens if shows and session.reading else None))
    return Transcript(name, tuple(turns), tuple(conversation.messages), date)


def fit_baselines(ordinary: Sequence[Transcript]) -> dict[str, Baseline]:
    """How each trait of the replies scores in these conversations. Raises ExtractionError where they are too few."""
    readings = [[t.decision.reading for t in transcript.turns] for transcript in ordinary]
    traits = dict.fromkeys(trait for turns in readings for reading in turns if reading for trait in reading.scores)
    return {
        trait: Baseline.fit([[r.scores[trait].z if r and trait in r.scores else math.nan for r in turns] for turns in readings])
        for trait in traits
    }


@dataclass
class Counts:
    """What was decided about many replies."""

    conversations: int = 0
    replies: int = 0
    not_scored: int = 0
    unrecorded: int = 0
    unread: int = 0
    """Rows that could not be read, of which no reply was judged; whoever reads them counts them."""
    actions: Counter[str] = field(default_factory=Counter)
    severities: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    cautions: int = 0
    """Replies in another language than the vectors'."""
    alarms: Counter[str] = field(default_factory=Counter)
    """Conversations with a drift alarm, by trait."""

    def add(self, transcript: Transcript) -> None:
        """Count a transcript."""
        self.conversations += 1
        alarmed: set[str] = set()
        for decision in (t.decision for t in transcript.turns):
            self.replies += 1
            self.not_scored += decision.not_scored is not None
            self.unrecorded += decision.unrecorded is not None
            self.cautions += bool(decision.reading is not None and decision.reading.caution)
            self.actions[decision.action] += 1
            self.severities[decision.severity or "none"] += 1
            self.rules.update(decision.rules)
            alarmed |= {trait for trait, state in (decision.drift or {}).items() if state.alarm}
        self.alarms.update(alarmed)

    def to_record(self) -> Mapping[str, Any]:
        """As plain data."""
        return {
            "conversations": self.conversations,
            "replies": self.replies,
            "not_scored": self.not_scored,
            "unrecorded": self.unrecorded,
            "cautions": self.cautions,
            "unread": self.unread,
            **{name: dict(getattr(self, name)) for name in ("actions", "severities", "rules", "alarms")},
        }
