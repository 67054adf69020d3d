"""Rows that are one utterance each, put together as conversations.

The rows of a conversation may stand anywhere in the file; they are taken in their order, or by a column that numbers them. A conversation
comes where its first row stood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demeanor.data.columns import Columns
from demeanor.data.fields import LISTS, REPLIES, plain
from demeanor.data.rows import Row
from demeanor.errors import InputFileError, nearest

IDS = (
    "conversationid", "convid", "dialogueid", "dialogid", "sessionid", "threadid", "chatid", "conversation", "dialogue", "dialog",
    "transcriptid", "callid",
)  # fmt: skip
WHO = ("role", "speaker", "author", "sender", "from", "participant", "speakeridx", "interlocutor")
SAID = ("content", "text", "utterance", "message", "value", "body", "utterancetext", "messagetext")
ORDER = ("turn", "turnid", "turnindex", "turnnumber", "utteranceidx", "utteranceid", "messageindex", "index", "position", "seq", "sequence")

_OF_ALL = re.compile(r"label(:.+|\(.+\))?|rater|group|pairid")
"""Columns that say something of a conversation as a whole, wherever in its rows it stands."""


@dataclass(frozen=True)
class Utterances:
    """The columns of rows that are one utterance each."""

    conversation: str
    role: str
    content: str
    order: str | None = None


def utterances_in(names: Sequence[str], columns: Columns) -> Utterances | None:
    """The columns of utterances, as they were named or are usually named; None where the rows are whole conversations.

    Raises InputFileError where some were named and others are not there.
    """
    present = {plain(name): name for name in reversed(names)}
    asked = {"--conversation-column": columns.conversation_id, "--role-column": columns.role, "--content-column": columns.content}
    for option, name in asked.items():
        if name is not None and name not in names:
            raise InputFileError(f"no column {name!r}, as {option} says; {nearest(name, names)}")
    if columns.named or columns.path:
        return None
    found = {
        option: name or next((present[known] for known in usual if known in present), None)
        for (option, name), usual in zip(asked.items(), (IDS, WHO, SAID), strict=True)
    }
    if not all(found.values()):
        if any(asked.values()) or (found["--role-column"] and found["--content-column"] and not _whole(names)):
            option = next(option for option, name in found.items() if name is None)
            what = {"--conversation-column": "which conversation it belongs to", "--role-column": "who speaks"}.get(option, "what is said")
            raise InputFileError(
                f"each row is one utterance, and no column says {what}; name it with {option} (columns: {', '.join(names)})"
            )
        return None
    if not any(asked.values()) and _whole([n for n in names if n not in found.values()]):
        return None
    order = next((present[known] for known in ORDER if known in present and present[known] not in found.values()), None)
    conversation, role, content = (str(name) for name in found.values())
    return Utterances(conversation, role, content, order)


def _whole(names: Iterable[str]) -> bool:
    """Whether columns hold whole conversations: then the others only say something about them."""
    replies = {*REPLIES, *map(plain, LISTS), "chosen", "mapping", "request", "choices"}
    return bool({plain(name) for name in names} & replies)


def together(rows: Iterable[Row], columns: Utterances) -> list[dict[str, Any]]:
    """The conversations as records with `conversation_id` and `messages`, and with what the rows say of them as a whole.

    Raises InputFileError for a row that cannot be read.
    """
    said: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.error is not None:
            raise InputFileError(f"{row.error}; leaving it out would change the conversation")
        name = row.record.get(columns.conversation)
        if name is None or name == "":
            raise InputFileError(f"{row.where} has no {columns.conversation!r}, so it is unclear which conversation it belongs to")
        said.setdefault(str(name), []).append(row.record)
    return [
        {"conversation_id": name, **_of_all(rows), "messages": [_message(row, columns) for row in _in_order(rows, columns)]}
        for name, rows in said.items()
    ]


def _of_all(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What stands in some of the rows and counts for all; a list where they say several things."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row if isinstance(name, str) and _OF_ALL.fullmatch(plain(name))):
        values = [row[name] for row in rows if row.get(name) is not None and str(row[name]).strip()]
        different = [value for i, value in enumerate(values) if value not in values[:i]]
        found[name] = different if len(different) > 1 else different[0] if different else None
    return found


def _message(record: Mapping[str, Any], columns: Utterances) -> dict[str, Any]:
    return {"role": record.get(columns.role), "content": record.get(columns.content)}


def _in_order(rows: list[Mapping[str, Any]], columns: Utterances) -> list[Mapping[str, Any]]:
    order = columns.order
    if order is None:
        return rows
    try:
        return sorted(rows, key=lambda record: float(str(record[order])))
    except (KeyError, ValueError):  # not numbers: as they stand
        return rows
