"""Rows of files of text, plain or gzipped, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from demeanor.data.as_lines import AsLines, as_lines
from demeanor.data.columns import Columns
from demeanor.data.csv_rows import CountedLines, csv_header, csv_rows
from demeanor.data.files import checksums, reading
from demeanor.data.rows import Row, line_rows
from demeanor.data.surveys import Block, Place, See, ShardPlace, Survey
from demeanor.data.tables import Kind, as_table, encodes, field_of, kind_of, merge
from demeanor.errors import InputFileError

MOST_COLUMNS = 1000


class TextSource:
    """JSON lines or CSV, plain or gzipped, or what `as_lines` makes such. A place is [file, byte, line]; the byte is that of the lines."""

    def __init__(self, files: list[Path], root: Path, columns: Columns, kind: str) -> None:
        self.files, self.root, self.columns, self.kind = files, root, columns, kind
        self.told: dict[str, None] = {}
        """What a person should know of how the files were read, as far as they were."""
        self._open: tuple[int, IO[bytes], AsLines] | None = None
        self._headers: dict[int, list[str]] = {}

    def check(self) -> list[dict[str, Any]]:
        """The files as they are now."""
        return checksums(self.files, self.root)

    def close(self) -> None:
        """Let go of the open file."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def survey(self, shard_rows: int, see: See | None = None) -> Survey:
        """One pass over all rows."""
        with closing(self):
            return self._survey(shard_rows, see)

    def _survey(self, shard_rows: int, see: See | None) -> Survey:
        kinds: dict[str, Kind] = {}
        cuts: list[ShardPlace] = []
        rows = 0
        place: Place = [0, 0, 0]
        for row, after in self._rows(place):
            if rows % shard_rows == 0:
                cuts.append(ShardPlace(rows, shard_rows, place))
            for name, value in row.record.items():
                if not encodes(name):
                    raise InputFileError(f"{self.files[0]}: a row has the key {name!a}, which no file can hold; rename it")
                kinds[name] = merge(kinds.get(name, "null"), kind_of(value))
            if len(kinds) > MOST_COLUMNS:
                where = self.files[0]
                raise InputFileError(f"{where}: the rows have more than {MOST_COLUMNS} different keys; put the changing ones in one")
            if see is not None:
                see(rows, row)
            rows, place = rows + 1, after
        where = self.root if len(self.files) > 1 else self.files[0]
        if rows == 0:
            raise InputFileError(f"{where} has no rows; give one JSON object a line, or a CSV with a header and rows")
        if not kinds:
            raise InputFileError(f"{where}: no row can be read ({next(iter(self._rows([0, 0, 0])))[0].error})")
        if wrong := self.columns.missing(list(kinds)):
            raise InputFileError(f"{where} has {wrong}")
        cuts[-1] = ShardPlace(cuts[-1].first, rows - cuts[-1].first, cuts[-1].place)
        return Survey(self.check(), rows, pa.schema([field_of(name, kind) for name, kind in kinds.items()]), cuts)

    def rows(self) -> Iterator[Row]:
        """All rows."""
        with closing(self):
            for row, _ in self._rows([0, 0, 0]):
                yield row

    def read(self, cut: ShardPlace, schema: pa.Schema) -> Block:
        """The rows of one shard."""
        rows = [row for (row, _), _ in zip(self._rows(cut.place), range(cut.rows), strict=False)]
        return Block(rows, as_table([row.record for row in rows], schema))

    def _rows(self, place: Place) -> Iterator[tuple[Row, Place]]:
        """Rows from a place on, each with the place after it."""
        number, at, line = place
        while number < len(self.files):
            with reading(self.files[number]):
                file, form = self._file(number)
                lines = CountedLines(file, at, line)
                for row in self._csv_rows(lines, number, form) if form.is_csv else line_rows(lines, form.one):
                    told = row.error and len(self.files) > 1
                    named = Row(row.number, {}, f"{self.files[number].name}: {row.error}", row.one) if told else row
                    yield named, [number, lines.at, lines.number]
            number, at, line = number + 1, 0, 0

    def _file(self, number: int) -> tuple[IO[bytes], AsLines]:
        """The file, kept open: seeking onward in a .gz costs only what lies between."""
        if self._open is None or self._open[0] != number:
            self.close()
            form = as_lines(self.files[number], self.kind, self.columns)
            if form.told:
                self.told.setdefault(form.told)
            self._open = number, form.open(self.files[number]), form
        return self._open[1:]

    def _csv_rows(self, lines: CountedLines, number: int, form: AsLines) -> Iterator[Row]:
        if number not in self._headers:
            first = CountedLines(lines.file)
            self._headers[number] = csv_header(self.files[number], first, form.separator)
            if lines.number == 0:
                lines.at, lines.number = first.at, first.number
        elif lines.number == 0:
            csv_header(self.files[number], lines, form.separator)
        yield from csv_rows(lines, self._headers[number], form.separator)
