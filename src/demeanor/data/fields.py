"""Fields of a record that may hold turns, by their usual names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from demeanor.errors import ConversationError

PROMPTS = (
    "prompt", "question", "query", "input", "instruction", "user", "human", "usermessage", "userinput", "userprompt", "userquery",
    "questiontext", "context", "patient", "client",
)  # fmt: skip
REPLIES = (
    "response", "answer", "output", "completion", "reply", "assistant", "assistantmessage", "assistantresponse", "bot", "botresponse",
    "answertext", "modeloutput", "modelresponse", "generatedtext", "generation", "responsetext", "therapist", "counselor", "gpt",
)  # fmt: skip
"""Usual names of what was asked and answered, in lower case, without spaces, hyphens and underscores; the first that is there is read."""
LISTS = (
    "messages", "conversations", "conversation", "dialog", "dialogue", "turns", "transcript", "chat", "chat_messages", "history",
    "utterances", "items",
)  # fmt: skip
"""Where a list of turns may stand."""
_WHO = ("role", "from", "speaker", "author", "sender", "name")
_WHAT = ("content", "value", "text", "message", "utterance", "body", "parts", "said")


class Turn(NamedTuple):
    """Who speaks, and what: text, parts, or nothing that is text."""

    who: object
    what: object


Turns: TypeAlias = list[Turn]


def plain(name: object) -> str:
    """A column's name in lower case, without spaces, hyphens and underscores."""
    return "".join(c for c in str(name).casefold() if c not in " _-")


def given(record: Mapping[str, Any], name: str) -> Any:
    """A field's value, JSON text of a list or an object as what it stands for; None where it is absent or empty."""
    value = record.get(name)
    if isinstance(value, str):
        return unpacked(value) if value else None
    return value


def unpacked(value: Any) -> Any:
    """A list or an object that a column of text holds as JSON, as what it stands for."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        inner = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return inner if isinstance(inner, list | dict) else value


def is_turn(value: Any) -> bool:
    """Whether it says who speaks and what, as one turn of a list does."""
    return isinstance(value, Mapping) and any(k in value for k in _WHO) and any(k in value for k in (*_WHAT, "tool_calls", "function_call"))


def listed(value: Any) -> Turns | None:
    """A list of turns; None for anything else."""
    items = value if isinstance(value, list | tuple) else None
    if not items or not all(isinstance(item, Mapping) for item in items) or not is_turn(items[0]):
        return None
    turns = []
    for number, item in enumerate(items, 1):
        if not is_turn(item):
            raise ConversationError(f"message {number} is not an object with 'role' and 'content'")
        turns.append(turn(item))
    return turns


def turn(item: Mapping[str, Any]) -> Turn:
    """One turn of a list."""
    who = next((item[k] for k in _WHO if item.get(k) is not None), None)
    what = next((item[k] for k in _WHAT if item.get(k) is not None), None)
    return Turn(who, None if isinstance(what, Mapping) and not what else what)


def items_in(record: Mapping[str, Any], name: str) -> list[Any]:
    """The list in a field; empty where there is none."""
    value = given(record, name)
    return value if isinstance(value, list) else []


def first_of(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The record's own name of the first of these columns that holds something."""
    present = {plain(name): name for name in record if record[name] is not None and record[name] != ""}
    return next((present[name] for name in names if name in present), None)
