"""Rows of Parquet files, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from demeanor.data.columns import Columns
from demeanor.data.files import checksums, reading
from demeanor.data.rows import Row
from demeanor.data.surveys import CHANGED, Block, Place, See, ShardPlace, Survey, arrow_block, show_rows
from demeanor.data.tables import from_table, jsonable, without_views
from demeanor.data.utterances import utterances_in
from demeanor.errors import InputFileError


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with reading(path):
        try:
            yield
        except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter: a column's name that is no text
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputFileError(f"{path}: not a whole Parquet file ({reason})") from error


def are_utterances(path: Path, columns: Columns) -> bool:
    """Whether the rows of a file are one utterance each. Raises InputFileError."""
    with _reading(path), pq.ParquetFile(path) as file:
        return utterances_in(file.schema_arrow.names, columns) is not None


class ParquetSource:
    """Parquet files, read by row group. A place is [file, row group, row in the group]."""

    def __init__(self, files: list[Path], root: Path, columns: Columns) -> None:
        self.files, self.root, self.columns = files, root, columns
        self.told: dict[str, None] = {}
        """What a person should know of how it was read."""
        self._here: tuple[int, Iterator[pa.Table]] | None = None
        self._rest: pa.Table | None = None

    def check(self) -> list[dict[str, Any]]:
        """The files as they are now."""
        return checksums(self.files, self.root)

    def close(self) -> None:
        """Let go of the open file."""
        self._here = self._rest = None

    def survey(self, shard_rows: int, see: See | None = None) -> Survey:
        """The files' own metadata; the rows are read only where something is to see them."""
        schema: pa.Schema | None = None
        groups: list[tuple[int, int, int]] = []
        for number, path in enumerate(self.files):
            with _reading(path), pq.ParquetFile(path) as file:
                found = without_views(file.schema_arrow)
                if len(set(found.names)) != len(found.names):
                    raise InputFileError(f"{path}: two columns have the same name; rename one of them")
                if schema is not None and not found.equals(schema):
                    raise InputFileError(f"{path}: its columns differ from those of {self.files[0].name}; screen them separately")
                schema = schema or found
                groups += [(number, g, file.metadata.row_group(g).num_rows) for g in range(file.metadata.num_row_groups)]
        where = self.root if len(self.files) > 1 else self.files[0]
        rows = sum(count for *_, count in groups)
        if rows == 0 or schema is None:
            raise InputFileError(f"{where} has no rows")
        if wrong := self.columns.missing(schema.names):
            raise InputFileError(f"{where} has {wrong}")
        cuts, before = [], 0
        for number, group, count in groups:
            for first in range(-(-before // shard_rows) * shard_rows, before + count, shard_rows):
                cuts.append(ShardPlace(first, min(shard_rows, rows - first), [number, group, first - before]))
            before += count
        if see is not None:
            show_rows(self, cuts, schema, see)
        return Survey(self.check(), rows, schema, cuts)

    def rows(self) -> Iterator[Row]:
        """All rows."""
        records = (record for table in self._tables([0, 0, 0]) for record in from_table(table))
        for number, record in enumerate(records, 1):
            yield Row(number, jsonable(record), one="row")

    def read(self, cut: ShardPlace, schema: pa.Schema) -> Block:
        """The rows of one shard."""
        if self._here is None or self._here[0] != cut.first:
            self._here, self._rest = (cut.first, self._tables(cut.place)), None
        pieces, wanted = [], cut.rows
        while wanted:
            piece = self._rest if self._rest is not None else next(self._here[1], None)
            if piece is None:
                raise InputFileError(CHANGED)
            self._rest = piece.slice(wanted) if piece.num_rows > wanted else None
            pieces.append(piece.slice(0, wanted))
            wanted -= pieces[-1].num_rows
        self._here = cut.first + cut.rows, self._here[1]
        return arrow_block(pa.concat_tables(pieces).replace_schema_metadata(schema.metadata), cut.first, self.columns)

    def _tables(self, place: Place) -> Iterator[pa.Table]:
        number, group, skip = place
        while number < len(self.files):
            with _reading(self.files[number]), pq.ParquetFile(self.files[number]) as file:
                for batch in file.iter_batches(1024, row_groups=range(group, file.metadata.num_row_groups), use_threads=False):
                    if skip < batch.num_rows:
                        table = pa.Table.from_batches([batch.slice(skip)])
                        yield table.cast(without_views(table.schema))
                    skip = max(0, skip - batch.num_rows)
            number, group, skip = number + 1, 0, 0
