"""Which conversation a request belongs to, and what was said in it before the reply that it asks for.

    x-demeanor-conversation        the client says it
    the configured field           of the request's body, such as `metadata.conversation_id`
    else                           a keyed hash of who asks and of the first messages, up to the user's first

The hash's key is drawn for each process, so that no id leads back to what was said. Two conversations that begin with the same words
share an id then; that mixes up nothing but their name in the audit log, for what was said is taken from each request.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from demeanor.conversation import Conversation, Message
from demeanor.data.fields import Turn
from demeanor.data.forms import found
from demeanor.errors import ConversationError
from demeanor.gateway.desk import Asked

HEADER = "x-demeanor-conversation"
LONGEST = 256  # characters of an id
_WHO = ("user", "safety_identifier", "prompt_cache_key")


class Identity:
    """Names conversations."""

    def __init__(self, field: str | None = None, key: bytes | None = None) -> None:
        """`field` is where a request's body names its conversation: fields within each other, joined by dots."""
        self.field = field
        self._key = key or secrets.token_bytes(32)

    def name(self, request: Mapping[str, Any], header: str | None, who: str) -> str:
        """The id of a request's conversation; `who` is whose key it came with. Raises ConversationError."""
        given = header if header is not None else self._in_field(request)
        if given is not None:
            if not given.strip() or len(given) > LONGEST or not given.isprintable():
                raise ConversationError(f"a conversation's id is 1 to {LONGEST} printable characters; shorten it, or leave it out")
            return f"{who}:{given.strip()}"
        first = []
        for message in request.get("messages") or []:
            first.append(message)
            if isinstance(message, Mapping) and message.get("role") == "user":
                break
        said = repr([who, [request.get(name) for name in _WHO], first])
        return "hash:" + hmac.new(self._key, said.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    def _in_field(self, request: Mapping[str, Any]) -> str | None:
        value: Any = request
        for name in self.field.split(".") if self.field else ():
            value = value.get(name) if isinstance(value, Mapping) else None
        return str(value) if self.field and isinstance(value, str | int) else None


def asked(request: Mapping[str, Any], name: str) -> Asked:
    """What a request for a chat completion asks. Raises ConversationError where its messages cannot be read."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ConversationError("'messages' is missing or empty; give the conversation as a list of messages")
    said, unread = before_reply(messages)
    return Asked(name, said, unread)


def before_reply(messages: Sequence[Any]) -> tuple[tuple[Message, ...], str | None]:
    """What was said in words, and why no reply to it can be scored, where it ends with what holds none. Raises ConversationError."""
    turns = []
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ConversationError(f"message {number} is not an object with 'role' and 'content'")
        turns.append(Turn(message["role"], message.get("content")))
    read = found([*turns, Turn("assistant", "?")], "messages")
    *said, _ = read.conversation.messages
    return tuple(said), read.unread.get(len(said))


def conversation_of(messages: Sequence[Any]) -> tuple[Conversation, str, str | None]:
    """A whole conversation: what was said before its last reply, that reply, and why it cannot be scored. Raises ConversationError."""
    if not messages or not isinstance(messages[-1], Mapping) or messages[-1].get("role") != "assistant":
        raise ConversationError("the last message is not the assistant's; end the conversation with the reply to be judged")
    said, unread = before_reply(messages[:-1])
    read = found([Turn("assistant", messages[-1].get("content"))], "messages")
    return Conversation(said), read.conversation.messages[-1].content, unread
