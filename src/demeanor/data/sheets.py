"""Rows that people label, or have labelled: a sheet (CSV of any spreadsheet), or rows in any other form that conversations have.

Columns are known by their names, whatever their case and the white space around them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from demeanor.conversation import Conversation, SpanOf, from_record
from demeanor.data.columns import Columns
from demeanor.data.inputs import open_input
from demeanor.data.rows import Row, read_rows, sound
from demeanor.data.seals import unsealed
from demeanor.data.spreadsheets import is_table, place, table_rows
from demeanor.data.to_label import GOES_ON, group_in_cell
from demeanor.errors import ConversationError, DemeanorError, InputFileError
from demeanor.keys import folded, prompt_key

COLUMNS = ("label", "pair_id", "group", "messages", "prompt", "response", "text", "id", "rater", "trait", "hash", "conversation")
"""What is read of a row, here and by `from_record`; other columns are nobody's business."""
LABELLING = ("label", "rater", "trait", "hash", "conversation")
OTHERS = (".json", ".parquet")
_MORE = re.compile(r"messages (\d+)")


def rows_of(path: Path) -> list[Row]:
    """Each row of a sheet or a JSON-lines file (.gz too). Raises InputFileError at the first broken one.

    The columns that are read here are found whatever their case and the white space around their names.
    """
    return list(sound(path, every_row(path)))


def every_row(path: Path) -> Iterator[Row]:
    """The same, but a broken row is given with what is wrong with it. Raises InputFileError for a file that cannot be read at all."""
    table = is_table(path)
    for row in table_rows(path, COLUMNS) if table else _other_rows(path):
        if row.error is not None:
            yield row
            continue
        try:
            record = _named(row.record)
            yield replace(row, record=_unpacked(record) if table else record)
        except ValueError as error:
            yield replace(row, record={}, error=f"{place(row)}{error}")


def _other_rows(path: Path) -> Iterator[Row]:
    """The rows of what is no table: JSON lines, or a JSON array, Parquet or a folder."""
    if path.is_dir() or path.name.lower().removesuffix(".gz").endswith(OTHERS):
        yield from open_input(path).rows()
    else:
        yield from read_rows(path)


def _named(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its known columns under their own names. Raises ValueError where two hold different values of one."""
    made: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in record.items():
        known = name if name in COLUMNS else next((c for c in COLUMNS if folded(name) == c), name)
        if known in made and known in COLUMNS:
            if not empty(value) and not empty(made[known]) and value != made[known]:
                raise ValueError(f" has both {origin[known]!r} and {name!r}; keep one of them")
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
        conversation = _conversation(row.record)
        if reads is not None:
            conversation.last("user" if reads == "user" else "assistant")
        return conversation
    except DemeanorError as error:
        raise InputFileError(f"{path}: {place(row)}: {error}") from error


def _conversation(record: dict[str, Any]) -> Conversation:
    try:
        return from_record(record)
    except ConversationError:
        with contextlib.suppress(DemeanorError):  # then what was wrong with the plain form says more
            return Columns().conversation({name: value for name, value in record.items() if name not in LABELLING})
        raise


def group_of(record: dict[str, Any], conversation: Conversation) -> str:
    """What a row belongs together with: its pair, its group, or all that was said before the reply."""
    if given := own_group(record):
        return folded(given)
    try:
        end = conversation.last("assistant")
    except ConversationError:  # only what the user says is there to read
        end = -1
    return folded(prompt_key(conversation.messages[:end]))


def own_group(record: dict[str, Any]) -> str:
    """The pair or group that a row names itself; empty where it names none."""
    return next((str(record[key]) for key in ("pair_id", "group") if not empty(record.get(key))), "")


def is_ours(record: dict[str, Any]) -> bool:
    """Whether a row is of a sheet that `demeanor sample` wrote."""
    return {"conversation", "trait", "messages", "hash"} <= record.keys()


def _unpacked(record: dict[str, Any]) -> dict[str, Any]:
    """A row of a sheet with its messages unpacked, which stand there as JSON. Raises ValueError for a row that was changed."""
    more = sorted((int(m[1]), value) for name, value in record.items() if (m := _MORE.fullmatch(folded(name))))
    text = str(record.get("messages") or "") + "".join(value.removeprefix(GOES_ON) for _, value in more)
    ours = is_ours(record)
    if ours and (changed := unsealed({**record, "messages": text}, record["hash"])):
        raise ValueError(f": {_changed(changed)}; copy the row again from the sheet as it was handed out, or delete it")
    if not text.strip():
        return record
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f": 'messages' is not the JSON that `demeanor sample` wrote ({error}); was it cut in an editor?") from error
    group = {"group": group_in_cell(record["group"])} if ours and "group" in record else {}
    return {**record, **group, "messages": messages}


def _changed(columns: list[str]) -> str:
    names = " and ".join(repr(name) for name in columns)
    if columns == ["conversation"]:
        return "'conversation' does not belong to the row's 'messages'; was it edited, or one column sorted alone"
    return f"{names} {'was' if len(columns) == 1 else 'were'} changed after the sheet was handed out"
