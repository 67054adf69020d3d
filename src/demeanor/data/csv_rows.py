"""Rows of a CSV file, read strictly from any line on: a row that is none is named, and never taken for another."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from demeanor.data.rows import Row
from demeanor.errors import InputFileError

_LONGEST = 1 << 30  # characters of a field


class CountedLines:
    """A file's lines from a byte on, decoded; `at` and `number` say how far it has come. An undecodable line raises."""

    def __init__(self, file: IO[bytes], at: int = 0, number: int = 0) -> None:
        self.file = file
        self.go_to(at, number)

    def go_to(self, at: int, number: int) -> None:
        """Go on from this byte, before which there are `number` lines."""
        self.at, self.number = at, number
        self.file.seek(at)

    def __iter__(self) -> CountedLines:
        return self

    def __next__(self) -> str:
        if self.file.tell() != self.at:  # another reader of the file has used it meanwhile
            self.file.seek(self.at)
        line = self.file.readline()
        if not line:
            raise StopIteration
        self.at += len(line)
        self.number += 1
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8")


def csv_header(path: Path, lines: CountedLines, separator: str = ",") -> list[str]:
    """The names of the columns. Raises InputFileError where they cannot be read, or two are the same."""
    try:
        header = next(csv.reader(lines, strict=True, delimiter=separator), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: its header cannot be read: {error}") from error
    if len(set(header)) != len(header):
        raise InputFileError(f"{path}: two columns have the same name; rename one of them")
    return header


def csv_rows(lines: CountedLines, header: list[str], separator: str = ",") -> Iterator[Row]:
    """The rows that follow, numbered by their first line, each as text by column or with what is wrong with it.

    A quote that nothing closes costs its own line, and not all that follow.
    """
    csv.field_size_limit(_LONGEST)
    reader = csv.reader(lines, strict=True, delimiter=separator)
    while True:
        at, line = lines.at, lines.number + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            if isinstance(error, csv.Error) and "end of data" in str(error) and lines.number > line:
                lines.go_to(at, line - 1)
                next(lines)
                yield Row(line, {}, f"line {line} is not CSV: it opens a quote that nothing closes")
            else:
                yield Row(line, {}, f"{_lines(line, lines.number)} not CSV: {error}")
            reader = csv.reader(lines, strict=True, delimiter=separator)
            continue
        if not values:
            continue
        if len(values) != len(header):
            where = f"line {line} has" if lines.number == line else f"lines {line} to {lines.number} have together"
            yield Row(line, {}, f"{where} {len(values)} fields, the header has {len(header)}")
        else:
            yield Row(line, dict(zip(header, values, strict=True)))


def _lines(first: int, last: int) -> str:
    return f"line {first} is" if first == last else f"lines {first} to {last} are"
