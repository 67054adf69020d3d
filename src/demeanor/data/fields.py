"""Fields of a record that may hold turns, by their usual names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from demeanor.data.said import is_role
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


def rounds(value: Any) -> Turns | None:
    """The turns of a list of rounds, in each of which what was said stands under the speaker's name; None for anything else."""
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        return None
    rounds = [[Turn(name, said) for name, said in item.items() if is_role(name) and isinstance(said, str)] for item in value]
    return [turn for turns in rounds for turn in turns] if all(rounds) else None


def system_in(record: Mapping[str, Any]) -> Turns:
    """The system prompt beside what was said, where there is one."""
    return [Turn("system", record["system"])] if isinstance(record.get("system"), str) and record["system"] else []


def history_in(record: Mapping[str, Any]) -> Turns:
    """What was asked and answered before, in pairs."""
    pairs = [pair for pair in items_in(record, "history") if isinstance(pair, list | tuple) and len(pair) == 2]
    return [turn for asked, answered in pairs for turn in (Turn("user", asked), Turn("assistant", answered))]


def branch(nodes: Mapping[str, Any], leaf: object, parent: str) -> list[Mapping[str, Any]]:
    """The nodes of a tree of messages from its root to a leaf: the one that was shown, else the last that was written."""
    parents = {node.get(parent) for node in nodes.values() if isinstance(node, Mapping)}
    at = leaf if leaf in nodes else next((name for name in reversed(list(nodes)) if name not in parents), None)
    path: list[Mapping[str, Any]] = []
    while isinstance(at, str) and isinstance(nodes.get(at), Mapping) and len(path) <= len(nodes):
        path.append(nodes[at])
        at = nodes[at].get(parent)
    if len(path) > len(nodes):
        raise ConversationError("the tree of messages contains a loop")
    return path[::-1]


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
