"""Rows of JSON lines, in and out, plain or gzipped. Reading never stops at a bad line; it says what is wrong with it."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from demeanor.data.files import is_gzipped, reading
from demeanor.errors import DemeanorError, InputFileError, OutputError


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file: its number from 1, and either its object or what is wrong with it."""

    number: int
    record: dict[str, Any]
    error: str | None = None
    one: str = "line"
    """What it is: a line, or where a file has no lines that count, a row or a conversation."""

    @property
    def where(self) -> str:
        """Its place, in words."""
        return f"{self.one} {self.number}"

    @property
    def name(self) -> str:
        """What it is called: its `id`, else its number."""
        given = self.record.get("id")
        return str(self.number if given is None else given)


def refuse_pipe(path: Path) -> None:
    """Raise InputFileError for what gives its bytes only once, where a file is to be read twice."""
    with contextlib.suppress(OSError):  # what is not there, or cannot be looked at, is named when it is read
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputFileError(f"{path} is a pipe or a device, and the input is read twice; write it to a file first")


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a JSON-lines file (.gz too), one at a time; blank lines are passed over.

    Raises InputFileError where the file is missing, unreadable, or not text.
    """
    number = 0
    try:
        with reading(path):
            if path.is_dir():
                raise InputFileError(f"{path} is a folder; name a .jsonl file")
            with gzip.open(path, "rt", encoding="utf-8-sig") if is_gzipped(path) else path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield parse_line(number, line)
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path}: not UTF-8 text after line {number}; give a .jsonl file saved as UTF-8") from error


def sound(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows of a file in which none may be broken: raises InputFileError at the first that is."""
    for row in rows:
        if row.error is not None:
            raise InputFileError(f"{path}: {row.error}")
        yield row


def line_rows(lines: Iterator[str], one: str = "line") -> Iterator[Row]:
    """The rows of lines of JSON, whatever is wrong with some of them; `lines` counts itself (`csv_rows.Lines`)."""
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            number = lines.number  # type: ignore[attr-defined]
            yield Row(number, {}, f"{one} {number} is not UTF-8 text: {error.reason}; save the file as UTF-8", one)
            continue
        if line.strip():
            yield parse_line(lines.number, line, one)  # type: ignore[attr-defined]


def parsed(text: str) -> Any:
    """JSON as it is read here.

    NaN and infinity, which JSON does not have and exports write all the same, are null; a number that is too large for a float,
    or too long to be read, is its text. So no row is lost for a field that nobody reads.
    """
    return json.loads(text, parse_float=_float, parse_int=_int, parse_constant=lambda _: None)


def parse_line(number: int, line: str, one: str = "line") -> Row:
    """One line as its object, or with what is wrong with it."""
    where = f"{one} {number}"
    try:
        record = parsed(line)
    except json.JSONDecodeError as error:
        return Row(number, {}, f"{where} is not JSON: {error.msg} at column {error.colno}", one)
    except (ValueError, RecursionError) as error:  # a thousand nested brackets
        return Row(number, {}, f"{where} cannot be read: {error}", one)
    if not isinstance(record, dict):
        return Row(number, {}, f"{where} is not a JSON object", one)
    return Row(number, record, one=one)


def _float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _int(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # of thousands of digits
        return text


def refuse_unwritable(path: Path) -> None:
    """Raise OutputError where no file could be written at `path`, before the work that would fill it."""
    folder = path.resolve().parent
    standing = next(place for place in (folder, *folder.parents) if place.exists())
    if not standing.is_dir():
        raise OutputError(f"cannot write {path}: {standing} is a file, but a folder is needed there; name another place")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: no permission to write to {standing}; name another place")


@contextmanager
def writing(path: Path) -> Iterator[IO[str]]:
    """A text file (.gz too) that takes its name only once it is whole; on an error nothing is left of it.

    A link goes on pointing where it does, and a device or a pipe is written to as it is. Raises OutputError where that cannot be done.
    """
    if not path.name:
        raise OutputError(f"{path} is not a file name; give one")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file")
    if path.exists() and not path.is_file():
        with _as_it_is(path) as file:
            yield file
        return
    path = path.resolve()
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(part, "wt", encoding="utf-8") if is_gzipped(path) else part.open("w", encoding="utf-8") as file:
            yield file
        part.replace(path)
    except OSError as error:
        if isinstance(error, DemeanorError):  # of what was to be written, not of this file
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing of it was kept") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextmanager
def _as_it_is(path: Path) -> Iterator[IO[str]]:
    try:
        with path.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        if isinstance(error, DemeanorError):
            raise
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def to_line(record: dict[str, Any]) -> str:
    """One record as a line."""
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        line.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold only in its escaped form
        return json.dumps(record, allow_nan=False) + "\n"
    return line
