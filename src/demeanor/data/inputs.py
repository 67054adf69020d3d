"""Whatever people bring, as rows and conversations: the one way in, for every command.

given = open_input("talks.csv", Columns(response="answer"))
looked = given.look()            # one pass: what there is, refused where no row can be read
for row, found in given.read():  # each row with its conversation, or what is wrong with it
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from demeanor.data.columns import Columns
from demeanor.data.forms import Found
from demeanor.data.rows import Row
from demeanor.data.sources import open_source
from demeanor.data.surveys import Source
from demeanor.errors import ConversationError, InputFileError

FEW = 100  # rows that are looked at where the rest is read later anyway


@dataclass
class Looked:
    """What a pass over an input has found."""

    rows: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    """How many conversations came in each form."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Names of speakers that were taken for a role."""
    textless: int = 0
    """Turns without text, which were left out."""
    told: list[str] = field(default_factory=list)
    """What else a person should know of how it was read."""
    columns: dict[str, None] = field(default_factory=dict)
    """The columns there are, of the rows that were looked at."""
    first_error: str | None = None
    partial: bool = False
    """Whether there are more rows than were looked at."""

    def add(self, row: Row, found: Found | str) -> None:
        """Count a row."""
        self.rows += 1
        if len(self.columns) < FEW:
            self.columns.update(dict.fromkeys(map(str, row.record)))
        if isinstance(found, str):
            self.first_error = self.first_error or found
            return
        self.forms[found.form] += 1
        self.aliases.update(found.aliases)
        self.textless += found.textless

    @property
    def summary(self) -> list[str]:
        """Lines that say how it was read."""
        counted = [form if self.partial else f"{form}, {_some(count, 'conversation')}" for form, count in self.forms.most_common()]
        lines = [f"read as {'; '.join(counted)}"] if counted else []
        if self.aliases:
            lines.append("speakers: " + ", ".join(f"{name} is the {role}" for name, role in sorted(self.aliases.items())))
        if self.textless and not self.partial:
            left = _some(self.textless, "turn")
            lines.append(f"left out {left} without text (tool calls, images)")
        return [*self.told, *lines]


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


class Input:
    """Rows from anywhere, with their conversations."""

    def __init__(self, spec: str, source: Source, columns: Columns) -> None:
        self.spec, self.source, self.columns = spec, source, columns

    def rows(self) -> Iterator[Row]:
        """All rows, each with its number and what is wrong with it."""
        return self.source.rows()

    def read(self) -> Generator[tuple[Row, Found | str]]:
        """Each row with its conversation, or in words what is wrong with it."""
        for row in self.rows():
            yield row, self.find(row)

    def find(self, row: Row) -> Found | str:
        """The conversation of a row, or what is wrong with it."""
        if row.error is not None:
            return row.error
        try:
            return self.columns.find(row.record)
        except ConversationError as error:
            return f"{row.where}: {error}"

    def look(self, most: int | None = None) -> Looked:
        """A pass over all rows, or over the first `most`, before anything costly is done.

        Raises InputFileError where there are no rows, or not one of them can be read.
        """
        looked = Looked()
        rows = self.read()
        for row, found in rows:
            looked.add(row, found)
            if looked.rows == most:
                looked.partial = True
                rows.close()
                break
        looked.told = list(self.source.told)
        if looked.rows == 0:
            raise InputFileError(f"{self.spec} has no rows; give one JSON object a line, or a CSV with a header and rows")
        if not looked.forms:
            wrong = self.columns.missing(list(looked.columns)) if looked.columns else None
            raise InputFileError(f"{self.spec} has {wrong}" if wrong else f"{self.spec}: no row can be read ({looked.first_error})")
        return looked


def open_input(spec: str | Path, columns: Columns | None = None) -> Input:
    """A path to a file or a folder, or a hub data set's name. Raises InputFileError."""
    columns = columns or Columns()
    return Input(str(spec), open_source(str(spec), columns), columns)


def spooled(stream: IO[bytes] | None = None) -> Path:
    """Standard input as a file, as it is to be read twice; it is gone when the process ends."""
    data = (stream or sys.stdin.buffer).read()
    folder = tempfile.TemporaryDirectory(prefix="demeanor-")
    _SPOOLED.append(folder)
    path = Path(folder.name) / (
        "standard-input.gz" if data[:2] == b"\x1f\x8b" else "standard-input.parquet" if data[:4] == b"PAR1" else "standard-input"
    )
    path.write_bytes(data)
    return path


_SPOOLED: list[tempfile.TemporaryDirectory[str]] = []


def parse_roles(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """--role NAME=user, as often as it is given. Raises InputFileError."""
    found = []
    for text in given:
        name, mark, role = text.rpartition("=")
        if not mark or not name.strip() or not role.strip():
            raise InputFileError(f"cannot read --role {text!r}; write NAME=user, NAME=assistant, NAME=system or NAME=tool")
        found.append((name.strip(), role.strip()))
    return tuple(found)
