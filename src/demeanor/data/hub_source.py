"""Rows of a Hugging Face data set, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from demeanor.data.columns import Columns
from demeanor.data.rows import Row
from demeanor.data.surveys import Block, See, ShardPlace, Survey, arrow_block, show_rows
from demeanor.data.tables import from_table, jsonable
from demeanor.errors import InputFileError, MissingExtraError


class HubSource:
    """A Hugging Face data set, "owner/name", "owner/name:split" or "owner/name@config:split"; by default its train split.

    Needs the extra 'datasets'. A place is [row].
    """

    def __init__(self, spec: str, columns: Columns) -> None:
        try:
            import datasets  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise MissingExtraError("reading a Hugging Face data set by name needs datasets: pip install 'demeanor[datasets]'") from error
        name, _, split = spec.partition(":")
        name, _, config = name.partition("@")
        self.spec, self.columns = spec, columns
        self.told: dict[str, None] = {}
        """What a person should know of how it was read."""
        try:
            self.data = datasets.load_dataset(name, config or None, split=split or "train").with_format("arrow")
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputFileError(f"the data set {spec} cannot be loaded ({reason}); check its name, config and split") from error

    def close(self) -> None:
        """Nothing is open."""

    def check(self) -> list[dict[str, Any]]:
        """The data set's own fingerprint."""
        return [{"name": self.spec, "rows": len(self.data), "fingerprint": str(self.data._fingerprint)}]

    def survey(self, shard_rows: int, see: See | None = None) -> Survey:
        """Its size and columns; the rows are read only where something is to see them."""
        rows = len(self.data)
        if rows == 0:
            raise InputFileError(f"{self.spec} has no rows")
        schema: pa.Schema = self.data[:1].schema
        if wrong := self.columns.missing(schema.names):
            raise InputFileError(f"{self.spec} has {wrong}")
        cuts = [ShardPlace(first, min(shard_rows, rows - first), [first]) for first in range(0, rows, shard_rows)]
        if see is not None:
            show_rows(self, cuts, schema, see)
        return Survey(self.check(), rows, schema, cuts)

    def rows(self) -> Iterator[Row]:
        """All rows."""
        for first in range(0, len(self.data), 1024):
            for i, record in enumerate(from_table(self.data[first : first + 1024]), first + 1):
                yield Row(i, jsonable(record), one="row")

    def read(self, cut: ShardPlace, schema: pa.Schema) -> Block:
        """The rows of one shard."""
        return arrow_block(self.data[cut.first : cut.first + cut.rows].cast(schema), cut.first, self.columns)
