"""Sheets of replies for a person to label: the CSV that is handed out, and what comes back, as .jsonl or .csv (.gz too).

Columns are known by their names, whatever their case and the white space around them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demeanor.conversation import Conversation, SpanOf, before_reply, from_record
from demeanor.data.csv_rows import CountedLines, csv_header, csv_rows
from demeanor.data.files import open_bytes, reading
from demeanor.data.rows import Row, read_rows, sound, writing
from demeanor.errors import ConversationError, DemeanorError, InputFileError
from demeanor.keys import folded, prompt_key

COLUMNS = ("label", "pair_id", "group", "messages", "prompt", "response", "text", "id")
"""What is read of a row, here and by `from_record`; other columns are nobody's business."""
HANDED_OUT = ("id", "label", "prompt", "response", "group", "messages")


def rows_of(path: Path) -> list[Row]:
    """Each row of a .jsonl or .csv file (.gz too). Raises InputFileError at the first broken one.

    The columns that are read here are found whatever their case and the white space around their names.
    """
    found = list(sound(path, _csv(path) if _is_csv(path) else read_rows(path)))
    named = [Row(row.number, _named(path, row.number, row.record)) for row in found]
    return [Row(row.number, _with_messages(path, row.number, row.record)) for row in named]


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith((".csv", ".csv.gz"))


def _named(path: Path, number: int, record: dict[str, Any]) -> dict[str, Any]:
    """The record with its known columns under their own names. Raises InputFileError where two hold different values of one."""
    made: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in record.items():
        known = name if name in COLUMNS else next((c for c in COLUMNS if folded(name) == c), name)
        if known in made and known in COLUMNS:
            if not empty(value) and not empty(made[known]) and value != made[known]:
                raise InputFileError(f"{path}: line {number} has both {origin[known]!r} and {name!r}; keep one of them")
            if empty(value):
                continue
        made[known], origin[known] = value, name
    return made


def empty(value: object) -> bool:
    """Whether a field holds nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


def conversation_of(path: Path, row: Row, reads: SpanOf | None = None) -> Conversation:
    """The conversation of a row, with something to read where `reads` says; an error names the file and line."""
    try:
        conversation = from_record(row.record)
        if reads is not None:
            conversation.last("user" if reads == "user" else "assistant")
        return conversation
    except DemeanorError as error:
        raise InputFileError(f"{path}: line {row.number}: {error}") from error


def group_of(record: dict[str, Any], conversation: Conversation) -> str:
    """What a row belongs together with: its pair, its group, or all that was said before the reply."""
    for key in ("pair_id", "group"):
        if not empty(record.get(key)):
            return folded(str(record[key]))
    try:
        end = conversation.last("assistant")
    except ConversationError:  # only what the user says is there to read
        end = -1
    return folded(prompt_key(conversation.messages[:end]))


def _csv(path: Path) -> Iterator[Row]:
    with reading(path), open_bytes(path) as file:
        lines = CountedLines(file)
        for row in csv_rows(lines, csv_header(path, lines)):
            yield Row(row.number, {name: value for name, value in row.record.items() if name}, row.error)


def _with_messages(path: Path, number: int, record: dict[str, Any]) -> dict[str, Any]:
    """The record with its messages unpacked, which a sheet holds as JSON."""
    text = record.get("messages")
    if not isinstance(text, str) or not text or not _is_csv(path):
        return record
    try:
        return {**record, "messages": json.loads(text)}
    except (ValueError, RecursionError) as error:
        raise InputFileError(
            f"{path}: line {number}: 'messages' is not the JSON that `demeanor sample` wrote ({error}); was it cut in an editor?"
        ) from error


@dataclass(frozen=True)
class ToLabel:
    """A reply that a person is to label, and what it belongs together with."""

    name: str
    conversation: Conversation
    group: str


def write_sheet(path: Path, replies: Iterable[ToLabel]) -> None:
    """A CSV sheet of replies, with 'label' left empty; `read_labelled` reads it back. Raises OutputError."""
    with writing(path) as file:
        writer = csv.DictWriter(file, HANDED_OUT)
        writer.writeheader()
        for reply in replies:
            messages = reply.conversation.to_record()
            before = before_reply(messages)
            row = {
                "id": reply.name,
                "label": "",
                "prompt": "\n".join(f"{m['role']}: {m['content']}" for m in before),
                "response": messages[len(before)]["content"] if len(before) < len(messages) else "",
                "group": reply.group,
                "messages": json.dumps(messages, ensure_ascii=False),
            }
            writer.writerow({column: _cell(value) for column, value in row.items()})


def _cell(value: str) -> str:
    """As a spreadsheet may show it: text that it would take for a formula begins with a quote; half a surrogate pair is replaced."""
    text = value.encode(errors="replace").decode()
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
