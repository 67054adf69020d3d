"""What rows are read from, shard by shard: what a source can do, and what a survey of one finds.

A source is read twice: once by `survey`, which counts, finds the columns, notes where each shard begins and takes the
files' hashes; then shard by shard by `read`, in any order, each from the place that was noted. Neither holds more than
a shard. CSV fields stay text; Parquet and hub columns keep their Arrow types. Rows are numbered from 1 in error messages
(a text file's lines), from 0 elsewhere. A row that cannot be read keeps its place with its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from demeanor.data.columns import Columns
from demeanor.data.rows import Row
from demeanor.data.tables import from_table

Place: TypeAlias = list[int]
"""Where to begin to read; each kind of source has its own numbers."""
See: TypeAlias = Callable[[int, Row], None]
"""Called with a row's number from 0 and the row while a source is surveyed."""

CHANGED = "the input has changed while it was screened; start again with another --output"


@dataclass(frozen=True)
class ShardPlace:
    """A shard of the input: its first row (from 0), how many rows it has, and where they begin."""

    first: int
    rows: int
    place: Place


@dataclass(frozen=True)
class Survey:
    """What one pass over a source has found."""

    files: list[dict[str, Any]]
    """Name, bytes and sha256 of each file; for a hub data set its fingerprint."""
    rows: int
    schema: pa.Schema
    cuts: list[ShardPlace]


@dataclass(frozen=True)
class Block:
    """The rows of a shard: as records with their errors (of Arrow rows, the conversation's columns), and as a table of all
    of the input's columns.
    """

    rows: list[Row]
    table: pa.Table
    parsed_whole: bool = True
    """Whether the records hold all columns."""


class Source(Protocol):
    """What rows are read from."""

    told: dict[str, None]
    """What a person should know of how it was read, such as its encoding; complete when it has been read."""

    def rows(self) -> Iterator[Row]:
        """All rows, numbered from 1: a text file's lines, else its rows."""

    def check(self) -> list[dict[str, Any]]:
        """The files as they are now: name, bytes and sha256."""

    def survey(self, shard_rows: int, see: See | None = None) -> Survey:
        """One pass over all rows. Raises InputFileError for an empty source, and for a column that is not there."""

    def read(self, cut: ShardPlace, schema: pa.Schema) -> Block:
        """The rows of one shard."""

    def close(self) -> None:
        """Let go of open files; reading opens them again."""


def show_rows(source: Source, cuts: list[ShardPlace], schema: pa.Schema, see: See) -> None:
    """Read a source shard by shard, for `see` to see every row."""
    for cut in cuts:
        for i, row in enumerate(source.read(cut, schema).rows):
            see(cut.first + i, row)


def arrow_block(table: pa.Table, first: int, columns: Columns) -> Block:
    """A shard of Arrow rows, of which only the conversation's columns are parsed."""
    records = from_table(table.select(columns.wanted(table.schema.names)))
    return Block([Row(first + i + 1, record, one="row") for i, record in enumerate(records)], table, parsed_whole=False)
