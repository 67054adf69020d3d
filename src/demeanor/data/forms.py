"""The forms in which a record holds a conversation, told apart by their shape: a record (a dict) to a conversation and the form's name.

Every form gives turns, (who, what); the rest is common to all:

    who     a name of a role (`said.ALIASES`), or what was said with --role; any other is an error
    what    text, or a list of parts of which the text is read, or nothing that is text: a tool call, an image, a null

A turn without text is context that no model of text can read. It is left out of what is rendered, so it changes nothing about the turns
of text, and it is counted. What hangs on it is not scored: a last reply that holds no text, and a reply to a message that holds none.
What a tool says (`tool`, `function`) is left out too; nobody said it to the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demeanor.conversation import Conversation, Message
from demeanor.data.fields import LISTS, PROMPTS, REPLIES, Turns, plain
from demeanor.data.said import OWN_NAMES, role_of, text_of
from demeanor.data.shapes import SHAPES, TWO, two_of
from demeanor.errors import ConversationError, nearest
from demeanor.turns import Role

_OTHERS = (
    "text", "system", "mapping", "currentnode", "request", "choices", "candidates", "result", "body", "params", "outputtext", "chat",
    "observations", "traceid", "sessionid", "projectid", "starttime", "htmlpath", "contents",
)  # fmt: skip
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Found:
    """A record's conversation, and how it was read."""

    conversation: Conversation
    form: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names of speakers that were taken for a role, such as human for user."""
    textless: int = 0
    """Turns without text, which were left out."""
    unread: Mapping[int, str] = field(default_factory=dict)
    """Replies, by their place in the conversation, that answer what nobody can read, with the cause."""
    unanswered: str | None = None
    """Why there is no last reply to score, where it holds no text."""

    def to_score(self) -> Conversation:
        """The conversation, where its last reply can be scored. Raises ConversationError where it hangs on a turn without text."""
        if self.unanswered is not None:
            raise ConversationError(self.unanswered)
        last = max((i for i, m in enumerate(self.conversation.messages) if m.role == "assistant"), default=-1)
        if last in self.unread:
            raise ConversationError(self.unread[last])
        return self.conversation


def find(record: Mapping[str, Any], read: str | None = None, roles: Mapping[str, str] | None = None) -> Found:
    """The conversation of a record, by its shape.

    Args:
        record: The record.
        read: Of two replies in a row, which: "chosen", "rejected", "a" or "b".
        roles: What names of speakers stand for, beside `said.ALIASES`.

    Raises:
        ConversationError: no form fits, or the record breaks the one that does.
    """
    for name, turns_of in SHAPES:
        turns = turns_of(record, read)
        if isinstance(turns, Conversation):
            return Found(turns, name)
        if turns is not None:
            return found(turns, name, roles)
    raise ConversationError(nothing_in(record))


def is_known(record: Mapping[str, Any]) -> bool:
    """Whether a record has a form that is read."""
    try:
        return any(turns_of(record, "chosen") is not None for _, turns_of in SHAPES)
    except ConversationError:
        return True


def known_columns(names: Iterable[str]) -> list[str]:
    """Those of these columns that a conversation may be read from."""
    known = {*PROMPTS, *REPLIES, *_OTHERS, *(plain(n) for n in LISTS), *(plain(n) for pair in TWO for n in pair)}
    return [name for name in names if plain(name) in known]


def may_hold(names: Sequence[str]) -> bool:
    """Whether columns of these names may hold replies."""
    known = {plain(name) for name in names}
    replies = {*REPLIES, *(plain(n) for n in LISTS), "text", "mapping", "request", "choices", "candidates", "result", "outputtext"}
    return bool(known & replies) or two_of(names) is not None


def nothing_in(record: Mapping[str, Any]) -> str:
    """Why no conversation was found, with what there is."""
    names = [" ".join(str(name).split()) for name in record]
    shown = ", ".join(names[:20]) or "none"
    return (
        "the record has neither 'messages', nor 'prompt' and 'response', nor 'text', nor another form that is known; name the columns with "
        f"--messages-column, or --prompt-column and --response-column (its columns: {shown}){hint(names)}"
    )


def hint(names: Sequence[str]) -> str:
    """The end of a message, where a column is nearly named as one that is read."""
    for name in (name for name in names if not known_columns([name])):
        near = nearest(name, (*LISTS[:3], "prompt", "response", "question", "answer", "completion"))
        if near.startswith("did you mean"):
            return f"; {name!r}: {near}"
    return ""


# turns to a conversation


def found(turns: Turns, form: str, roles: Mapping[str, str] | None = None) -> Found:
    """Turns as a conversation: names of speakers to roles, parts to text, without what is no text. Raises ConversationError."""
    messages: list[Message] = []
    aliases: dict[str, str] = {}
    unread: dict[int, str] = {}
    textless, blind, unanswered = 0, False, None
    heard = False
    for number, (who, what) in enumerate(turns, 1):
        role = role_of(who, number, roles)
        if str(who) not in OWN_NAMES and str(who) != role:
            aliases[str(who)] = role
        if role == "tool":
            continue
        text = text_of(what, number)
        if text is None:
            textless += 1
            if role == "user":
                blind = not heard
            elif role == "assistant":
                unanswered = "the last reply holds no text (a tool call, an image, or nothing), so there is nothing to score"
            continue
        if role == "user":
            heard, blind = True, False
        elif role == "assistant":
            if blind:
                unread[len(messages)] = "the reply answers a message that holds no text (an image or a file), so it is not scored"
            heard, blind, unanswered = False, False, None
        messages.append(Message(_ROLES[role], text))
    if not messages:
        raise ConversationError("the conversation has no messages with text; give at least the reply to score")
    return Found(Conversation(tuple(messages)), form, aliases, textless, unread, unanswered)
