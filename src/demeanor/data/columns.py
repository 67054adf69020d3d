"""Which columns of a row hold the conversation, as they were named or as they are found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from demeanor.conversation import Conversation, from_record
from demeanor.errors import ConversationError, InputFileError, nearest


@dataclass(frozen=True)
class Columns:
    """Which columns hold the conversation; all None takes `messages`, else `prompt` and `response`, else `text`."""

    prompt: str | None = None
    response: str | None = None
    messages: str | None = None

    def __post_init__(self) -> None:
        if self.messages and (self.prompt or self.response):
            raise InputFileError("name either the column of messages, or those of prompt and response")
        if self.prompt and not self.response:
            raise InputFileError("--prompt-column needs --response-column: the reply is what is scored")

    @property
    def named(self) -> list[str]:
        """The columns that were named."""
        return [c for c in (self.messages, self.prompt, self.response) if c]

    def wanted(self, present: list[str]) -> list[str]:
        """Those of these columns that the conversation is read from."""
        return [c for c in present if c in (self.named or ("messages", "prompt", "response", "text"))]

    def conversation(self, record: dict[str, Any]) -> Conversation:
        """The conversation of a row. Raises ConversationError."""
        if self.messages:
            return from_record({"messages": _unpacked(self._value(record, self.messages))})
        if self.response:
            prompt = _unpacked(self._value(record, self.prompt)) if self.prompt else None
            return from_record({"prompt": prompt, "response": self._value(record, self.response)})
        # in a table every row has every column, if only as a null
        given = {name: record[name] for name in ("messages", "prompt", "response", "text") if record.get(name) is not None}
        return from_record({name: value if name in ("response", "text") else _unpacked(value) for name, value in given.items()})

    def missing(self, present: list[str]) -> str | None:
        """What is wrong with these columns, in words; None where the conversation can be read from them."""
        for name in self.named:
            if name not in present:
                return f"no column {name!r}; {nearest(name, present)}"
        if not self.named and not {"messages", "response", "text"} & set(present):
            return (
                "neither 'messages' nor 'prompt' and 'response' nor 'text'; name the columns with --messages-column, or "
                f"--prompt-column and --response-column (its columns: {', '.join(present[:20]) or 'none'})"
            )
        return None

    @staticmethod
    def _value(record: dict[str, Any], name: str) -> Any:
        if record.get(name) is None:
            raise ConversationError(f"the row has no value in the column {name!r}")
        return record[name]


def _unpacked(value: Any) -> Any:
    """A list of messages that a CSV or text column holds as JSON, as the list."""
    if not isinstance(value, str) or value.lstrip()[:2] not in ("[{", "[]"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in found) else value
