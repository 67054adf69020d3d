"""Any file of text as lines that are rows: JSON lines or CSV in UTF-8.

What is that already is read from its file, however long it is. A JSON array or object, UTF-16, Windows-1252, and rows that are one
utterance each are put into this form in memory; then they are read in the same way.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from demeanor.data import forms
from demeanor.data.columns import Columns
from demeanor.data.csv_rows import CountedLines, csv_header, csv_rows
from demeanor.data.encodings import from_utf16, from_windows, whole
from demeanor.data.fields import is_turn
from demeanor.data.files import open_bytes, reading
from demeanor.data.parquet_source import ParquetSource
from demeanor.data.rows import Row, line_rows, parsed, to_line
from demeanor.data.utterances import together, utterances_in
from demeanor.errors import InputFileError

HEAD = 1 << 16  # bytes that show what a file is
SEPARATORS = ",;\t|"
FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV UTF-8",
    b"%PDF": "a PDF; give the conversations as .jsonl or .csv",
    b"\x1f\x8b": "gzipped, and not named so; name it .jsonl.gz or .csv.gz",
    b"PAR1": "Parquet; name it .parquet",
    b"SQLi": "a database of SQLite; export the table as CSV",
}
UNDER = (
    "data",
    "rows",
    "conversations",
    "chats",
    "items",
    "results",
    "examples",
    "records",
    "traces",
    "observations",
    "instances",
    "train",
)
"""Where an object holds its rows."""


@dataclass(frozen=True)
class AsLines:
    """How a file's rows are read."""

    is_csv: bool
    separator: str = ","
    content: bytes | None = None
    """The lines; None where the file itself holds them."""
    one: str = "line"
    """What a row is called and counted as."""
    told: str | None = None
    """What a person should know of how it was read."""

    def open(self, path: Path) -> IO[bytes]:
        """The lines."""
        return open_bytes(path) if self.content is None else io.BytesIO(self.content)


def as_lines(path: Path, kind: str, columns: Columns) -> AsLines:
    """How a file is read; `kind` is "csv", "jsonl" or "parquet", as its name says, or "" where its content is to say it.

    Raises InputFileError.
    """
    if kind == "parquet":  # of utterances
        rows = ParquetSource([path], path.parent, columns).rows()
        return _grouped(path, AsLines(False, content="".join(_line(row.record) for row in rows).encode(), one="row"), columns)
    with reading(path), open_bytes(path) as file:
        head = file.read(HEAD)
    _refuse_foreign(path, head)
    content, encoding = from_utf16(path, head)
    start = _decoded(head if content is None else content[:HEAD])
    looks = _looks(start)
    if kind and looks and looks != kind and start.strip():
        raise InputFileError(f"{path} looks like {_shown(start, looks)}; name it {'.csv' if looks == 'csv' else '.jsonl'}")
    if not (kind or looks) and start.strip():
        raise InputFileError(f"{path}: cannot tell what it holds; name it .jsonl, .json, .csv or .parquet")
    made = _csv(path, start, content, encoding) if (kind or looks) == "csv" else _json(path, start, content, encoding)
    return _grouped(path, made, columns)


def opens_as_csv(path: Path) -> bool:
    """Whether a file begins as CSV, whatever its name. Raises InputFileError for what is no text."""
    with reading(path), open_bytes(path) as file:
        head = file.read(HEAD)
    content, _ = from_utf16(path, head)
    return _looks(_decoded(head if content is None else content[:HEAD])) == "csv"


def refuse_foreign_file(path: Path) -> None:
    """Raise InputFileError for a file that begins as none that is read does, and say what it is."""
    with reading(path), path.open("rb") as file:
        _refuse_foreign(path, file.read(16))


def _refuse_foreign(path: Path, head: bytes) -> None:
    for mark, what in FOREIGN.items():
        if head.startswith(mark):
            raise InputFileError(f"{path} is {what}")


def first_rows(path: Path, lines: AsLines) -> Iterator[Row]:
    """The rows of a file from its beginning."""
    with reading(path), lines.open(path) as file:
        at = CountedLines(file)
        yield from csv_rows(at, csv_header(path, at, lines.separator), lines.separator) if lines.is_csv else line_rows(at, lines.one)


def _decoded(head: bytes) -> str:
    return head.decode("utf-8-sig", "replace")


def _looks(start: str) -> str:
    """The kind, jsonl or csv, as the first line shows; empty where it shows nothing."""
    first = next((line for line in start.splitlines() if line.strip()), "")
    if first.lstrip()[:1] in ("{", "["):
        return "jsonl"
    names = _cells(first, _separator(start))
    if len(names) > 1 and (forms.may_hold(names) or len(set(names)) == len(names)) and all(len(n) < 60 for n in names):
        return "csv"
    return "csv" if names and forms.may_hold(names) and len(start.splitlines()) > 1 else ""


def _shown(start: str, looks: str) -> str:
    if looks == "jsonl":
        return "JSON"
    first = next(line for line in start.splitlines() if line.strip())
    return f"CSV (columns {', '.join(_cells(first, _separator(start))[:12])})"


def _separator(start: str) -> str:
    """What separates the fields of the first line, by count outside of quotes; a comma where nothing does."""
    first = next((line for line in start.splitlines() if line.strip()), "")
    if first.casefold().startswith("sep=") and len(first.strip()) == 5:  # as Excel writes for itself
        return first.strip()[-1]
    counts = {mark: len(_cells(first, mark)) for mark in SEPARATORS}
    return max(SEPARATORS, key=lambda mark: (counts[mark], -SEPARATORS.index(mark)))


def _cells(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return []


def _csv(path: Path, start: str, content: bytes | None, encoding: str | None) -> AsLines:
    separator = _separator(start)
    if content is None and (windows := from_windows(path)) is not None:
        content, encoding = windows, "Windows-1252"
    if start.casefold().startswith("sep="):  # as Excel writes for itself
        content = content if content is not None else whole(path)
        content = content.split(b"\n", 1)[1] if b"\n" in content else b""
    return AsLines(True, separator, content, told=encoding and f"read as {encoding}")


def _json(path: Path, start: str, content: bytes | None, encoding: str | None) -> AsLines:
    told = encoding and f"read as {encoding}"
    plain = AsLines(False, content=content, told=told)
    lines = [line for line in start.splitlines() if line.strip()]
    if not lines:
        return plain
    try:
        first = parsed(lines[0])
    except (ValueError, RecursionError):
        first = None if len(lines) > 1 or len(start) >= HEAD // 2 else 0
    if isinstance(first, dict) and (len(lines) > 1 or _rows_under(first) is None):
        return plain
    if first == 0 or (isinstance(first, list) and len(lines) > 1):
        return plain
    try:
        text = (content if content is not None else whole(path)).decode("utf-8-sig")
        value = parsed(text)
    except (ValueError, RecursionError):  # rows of which the first is broken
        if lines[0].strip()[:1] == "[" or lines[0].strip() == "{":
            raise InputFileError(f"{path}: {_broken(content if content is not None else whole(path))}") from None
        return plain
    rows = _rows_in(value)
    if not rows:
        raise InputFileError(f"{path} has no rows; give one JSON object a line, or a list of them")
    return AsLines(False, content="".join(map(_line, rows)).encode(), one="row", told=told)


def _broken(content: bytes) -> str:
    try:
        json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 text at byte {error.start + 1}; save it as UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}; give one JSON object a line, or one list of them"
    except (ValueError, RecursionError) as error:
        return f"it cannot be read: {error}"
    return "it cannot be read"


def _line(row: Any) -> str:
    try:
        return to_line(row) if isinstance(row, dict) else json.dumps(row) + "\n"
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"a row of it cannot be read: {error}") from error


def _rows_in(value: Any) -> list[Any]:
    """The rows of a JSON document: its list, the list that it holds, or itself."""
    if isinstance(value, dict):
        under = _rows_under(value)
        return under if under is not None else [value]
    if not isinstance(value, list):
        return [value]
    if value and all(isinstance(v, dict) and is_turn(v) and not forms.is_known(v) for v in value) and not _in_columns(value):
        return [{"messages": value}]
    return [{"messages": v} if isinstance(v, list) else v for v in value]


def _in_columns(value: list[Any]) -> bool:
    """Whether the utterances say which conversation each belongs to."""
    try:
        return isinstance(value[0], dict) and utterances_in(list(value[0]), Columns()) is not None
    except InputFileError:
        return False


def _rows_under(value: dict[str, Any]) -> list[Any] | None:
    """The rows that an object holds; None where it is a row itself."""
    if forms.is_known(value):
        return None
    lists = {name: v for name, v in value.items() if isinstance(v, list) and v and all(isinstance(i, dict | list) for i in v)}
    lists = {name: v for name, v in lists.items() if any(forms.is_known(i) if isinstance(i, dict) else i for i in v) or _in_columns(v)}
    name = next((n for n in UNDER if n in lists), next(iter(lists), None))
    if name is not None:
        return lists[name]
    inner = list(value.values())
    return inner if inner and all(isinstance(v, dict) and forms.is_known(v) for v in inner) else None


def _grouped(path: Path, lines: AsLines, columns: Columns) -> AsLines:
    """The same lines, or the conversations of which they are the utterances."""
    rows = first_rows(path, lines)
    try:
        first = next((row for row in rows if row.error is None), None)
        if first is None:
            return lines
        found = utterances_in(list(first.record), columns)
    finally:
        rows.close()  # type: ignore[attr-defined]
    if found is None:
        return lines
    try:
        made = together(first_rows(path, lines), found)
    except InputFileError as error:
        raise InputFileError(f"{path}: {error}") from error
    return AsLines(False, content="".join(map(to_line, made)).encode(), one="conversation", told=lines.told)
