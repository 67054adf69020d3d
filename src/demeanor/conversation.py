"""Messages and conversations, and the text formats they are read from.

A conversation is a tuple of messages; its *response* is the last assistant message. Nothing here knows models or
tokens. Three formats are read: a record with `messages`, a record with `prompt` and `response`, and plain text, which
may hold written-out turns ("User: ...", and the formats of training data: see turns.py). A message holds none: what it says
is what somebody said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from demeanor.errors import ConversationError, nearest
from demeanor.reasoning import Parted, parted
from demeanor.spelling import as_seen, is_blank
from demeanor.turns import Role, format_in, split

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
SpanOf = Literal["response", "user"]
"""Whose message is read: the response, or the user's last one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: who speaks and what is said."""

    role: Role
    content: str

    @property
    def read(self) -> Parted:
        """What is read of it: spelt as the eye sees it, and, of the assistant's, with the reasoning set apart."""
        seen = as_seen(self.content).text
        return parted(seen) if self.role == "assistant" else Parted(seen, "")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation in order. Content is kept as given; white space around it is not read by the model."""

    messages: tuple[Message, ...]

    def last(self, role: Role) -> int:
        """Index of the last message of `role`.

        Raises ConversationError where there is none, or nothing to be seen in it, or only reasoning, or reasoning without an end.
        """
        for i in range(len(self.messages) - 1, -1, -1):
            if self.messages[i].role == role:
                read = self.messages[i].read
                if read.unclosed is not None:
                    raise ConversationError(
                        f"the reasoning that begins with {read.unclosed} has no end, so nobody knows what was said; close it"
                    )
                if is_blank(read.said):
                    beside = " beside its reasoning" if read.reasoning else ""
                    raise ConversationError(f"the {role} message to score is empty{beside}; give it some text")
                return i
        raise ConversationError(f"no {role} message in the conversation; add one with role '{role}' to score it")

    @property
    def response(self) -> str:
        """Text of the last assistant message."""
        return self.messages[self.last("assistant")].content

    def to_record(self) -> list[dict[str, str]]:
        """The messages as plain dictionaries."""
        return [{"role": m.role, "content": m.content} for m in self.messages]


ConversationLike: TypeAlias = Conversation | str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""What the library takes where a conversation is wanted: one, a text, a record, or a list of messages."""


def before_reply(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """What was said before the last reply, of messages as plain dictionaries; all of them where there is no reply."""
    end = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=len(messages))
    return list(messages[:end])


def as_conversation(value: ConversationLike) -> Conversation:
    """`value` as a Conversation; raises ConversationError with the cause."""
    if isinstance(value, Conversation):
        return value
    if isinstance(value, str):
        return from_text(value)
    if isinstance(value, Mapping):
        return from_record(value)
    if isinstance(value, Sequence):
        return from_messages(value)
    raise ConversationError(f"cannot read a conversation from {type(value).__name__}; give text, a record or messages")


def from_messages(messages: Sequence[Any]) -> Conversation:
    """A list of {"role", "content"} mappings (or Messages), checked."""
    if not messages:
        raise ConversationError("the conversation has no messages; give at least the reply to score")
    found = []
    for i, message in enumerate(messages):
        if isinstance(message, Message):
            found.append(message)
            continue
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise ConversationError(f"message {i + 1} is not an object with 'role' and 'content'")
        role, content = message["role"], message["content"]
        if role not in ROLES:
            raise ConversationError(f"message {i + 1} has the unknown role {role!r}; {nearest(str(role), ROLES)}")
        if not isinstance(content, str):
            raise ConversationError(f"message {i + 1} has content of type {type(content).__name__}; only text is read")
        found.append(Message(role, content))
    return Conversation(tuple(found))


def from_record(record: Mapping[str, Any]) -> Conversation:
    """A record with `messages`, or `prompt` and `response`, or `text`."""
    if _given(record, "messages"):
        messages = _list(record["messages"])
        if messages is None:
            raise ConversationError("'messages' is not a list")
        return from_messages(messages)
    if _given(record, "response") or ("response" in record and not _given(record, "text")):
        prompt = _prompt(record["prompt"]) if _given(record, "prompt") else []
        return from_messages([*prompt, {"role": "assistant", "content": record["response"]}])
    if "text" in record:
        if not isinstance(record["text"], str):
            raise ConversationError("'text' is not a string")
        return _answer(record["prompt"], record["text"]) if _given(record, "prompt") else from_text(record["text"])
    raise ConversationError("the record has neither 'messages', nor 'prompt' and 'response', nor 'text'")


def _prompt(said: Any) -> list[Any]:
    prompt = [{"role": "user", "content": said}] if isinstance(said, str) else _list(said)
    if prompt is None:
        raise ConversationError("'prompt' is neither text nor a list of messages")
    return prompt


def _answer(said: Any, text: str) -> Conversation:
    """`text` as the reply to `prompt`. Raises ConversationError where it holds the prompt or turns of its own."""
    prompt = _prompt(said)
    if isinstance(said, str) and text.strip().startswith(said.strip()):
        raise ConversationError("'text' begins with the 'prompt' beside it; give the reply alone, as 'response'")
    if written := format_in(as_seen(text).text):
        raise ConversationError(
            f"'text' holds turns of its own ({written}) beside a 'prompt'; give the reply alone, as 'response', or 'messages'"
        )
    return from_messages([*prompt, {"role": "assistant", "content": text}])


def _given(record: Mapping[str, Any], name: str) -> bool:
    """Whether a field holds something: an export may leave a column empty where others are used."""
    value = record.get(name)
    return value is not None and not (isinstance(value, str) and value == "")


def _list(value: Any) -> list[Any] | None:
    """A list or an array (as pandas gives one) as a list; None for anything else."""
    return None if isinstance(value, str | Mapping) or not isinstance(value, Iterable) else list(value)


def from_text(text: str) -> Conversation:
    r"""Text as the tutorial writes it: "User: ...\nAssistant: ...", over several lines and turns.

    Other formats of turns are read too: see turns.py. Text without any is one assistant message: a reply on its own.
    """
    if is_blank(text):
        raise ConversationError("the text is empty; give a reply, or 'User: ...' and 'Assistant: ...' lines")
    found, seen = split(text), as_seen(text).text
    if seen != text and (plain := split(seen)) and len(plain) > len(found or ()):
        found = plain  # a mark was in disguise
    if not found:
        return Conversation((Message("assistant", text.strip()),))
    return Conversation(tuple(Message(role, said) for role, said in found))


def reply_of(conversation: Conversation) -> str:
    """The last message of the assistant's; empty where there is none."""
    return next((m.content for m in reversed(conversation.messages) if m.role == "assistant"), "")


def user_turns(conversation: Conversation) -> list[list[int]]:
    """Places of the user's messages before the last reply, by turn: all that is said between two replies. Blank ones do not count."""
    turns: list[list[int]] = [[]]
    last = max((i for i, m in enumerate(conversation.messages) if m.role == "assistant"), default=len(conversation.messages))
    for place, message in enumerate(conversation.messages[:last]):
        if message.role == "assistant":
            turns.append([])
        elif message.role == "user" and not is_blank(message.content):
            turns[-1].append(place)
    return [turn for turn in turns if turn]


def reasoning_alone(conversation: Conversation) -> Conversation | None:
    """The conversation with the reasoning of its last reply in that reply's place; None where there is no reply, or none in it."""
    at = max((i for i, m in enumerate(conversation.messages) if m.role == "assistant"), default=None)
    if at is None or not (reasoning := conversation.messages[at].read.reasoning):
        return None
    return Conversation((*conversation.messages[:at], Message("assistant", reasoning)))
