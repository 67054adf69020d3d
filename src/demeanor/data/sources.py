"""Where rows come from: JSON lines (.gz too), CSV, Parquet, a folder of one of these, or a Hugging Face data set by name.

A source is read twice: once by `survey`, which counts, finds the columns, notes where each shard begins and takes the
files' hashes; then shard by shard by `read`, in any order, each from the place that was noted. Neither holds more than
a shard. CSV fields stay text; Parquet and hub columns keep their Arrow types. Rows are numbered from 1 in error messages
(a text file's lines), from 0 elsewhere. A row that cannot be read keeps its place with its error.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from demeanor.conversation import Conversation, from_record
from demeanor.data.csv_rows import Lines, csv_header, csv_rows
from demeanor.data.rows import Row, parse_line, refuse_pipe
from demeanor.data.tables import Kind, as_table, encodes, field_of, from_table, kind_of, merge, without_views
from demeanor.errors import ConversationError, InputFileError, MissingExtraError, nearest

Place: TypeAlias = list[int]
"""Where to begin to read; each kind of source has its own numbers."""
See: TypeAlias = Callable[[int, Row], None]
"""Called with a row's number from 0 and the row while a source is surveyed."""

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".jsonl.gz": "jsonl", ".ndjson.gz": "jsonl", ".csv": "csv", ".csv.gz": "csv",
            ".parquet": "parquet"}  # fmt: skip
MOST_COLUMNS = 1000
CHANGED = "the input has changed while it was screened; start again with another --output"
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?(:\S+)?")


@dataclass(frozen=True)
class Columns:
    """Which columns hold the conversation; all None takes `messages`, else `prompt` and `response`, else `text`."""

    prompt: str | None = None
    response: str | None = None
    messages: str | None = None

    def __post_init__(self) -> None:
        if self.messages and (self.prompt or self.response):
            raise InputFileError("name either the column of messages, or those of prompt and response")
        if self.prompt and not self.response:
            raise InputFileError("--prompt-column needs --response-column: the reply is what is scored")

    @property
    def named(self) -> list[str]:
        """The columns that were named."""
        return [c for c in (self.messages, self.prompt, self.response) if c]

    def wanted(self, present: list[str]) -> list[str]:
        """Those of these columns that the conversation is read from."""
        return [c for c in present if c in (self.named or ("messages", "prompt", "response", "text"))]

    def conversation(self, record: dict[str, Any]) -> Conversation:
        """The conversation of a row. Raises ConversationError."""
        if self.messages:
            return from_record({"messages": _unpacked(self._value(record, self.messages))})
        if self.response:
            prompt = _unpacked(self._value(record, self.prompt)) if self.prompt else None
            return from_record({"prompt": prompt, "response": self._value(record, self.response)})
        # in a table every row has every column, if only as a null
        given = {name: record[name] for name in ("messages", "prompt", "response", "text") if record.get(name) is not None}
        return from_record({name: value if name in ("response", "text") else _unpacked(value) for name, value in given.items()})

    def missing(self, present: list[str]) -> str | None:
        """What is wrong with these columns, in words; None where the conversation can be read from them."""
        for name in self.named:
            if name not in present:
                return f"no column {name!r}; {nearest(name, present)}"
        if not self.named and not {"messages", "response", "text"} & set(present):
            return (
                "neither 'messages' nor 'prompt' and 'response' nor 'text'; name the columns with --messages-column, or "
                f"--prompt-column and --response-column (its columns: {', '.join(present[:20]) or 'none'})"
            )
        return None

    @staticmethod
    def _value(record: dict[str, Any], name: str) -> Any:
        if record.get(name) is None:
            raise ConversationError(f"the row has no value in the column {name!r}")
        return record[name]


def _unpacked(value: Any) -> Any:
    """A list of messages that a CSV or text column holds as JSON, as the list."""
    if not isinstance(value, str) or value.lstrip()[:2] not in ("[{", "[]"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in found) else value


@dataclass(frozen=True)
class Cut:
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
    cuts: list[Cut]


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

    def check(self) -> list[dict[str, Any]]:
        """The files as they are now: name, bytes and sha256."""

    def survey(self, shard_rows: int, see: See | None = None) -> Survey:
        """One pass over all rows. Raises InputFileError for an empty source, and for a column that is not there."""

    def read(self, cut: Cut, schema: pa.Schema) -> Block:
        """The rows of one shard."""

    def close(self) -> None:
        """Let go of open files; reading opens them again."""


def open_source(spec: str, columns: Columns | None = None) -> Source:
    """The source that a path or a hub name ("owner/name", "owner/name@config:split") stands for. Raises InputFileError."""
    path, columns = Path(spec), columns or Columns()
    if not path.exists():
        if _HUB.fullmatch(spec) and not _suffix(path):
            return HubSource(spec, columns)
        raise InputFileError(f"{spec}: no such file or folder (a Hugging Face data set is named 'owner/name', or 'owner/name:split')")
    refuse_pipe(path)
    files = sorted(p for p in path.rglob("*") if p.is_file() and _suffix(p)) if path.is_dir() else [path]
    files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    if not files:
        raise InputFileError(f"{path}: the folder holds no .jsonl, .csv or .parquet file")
    kinds = {_suffix(p) for p in files}
    if "" in kinds:
        raise InputFileError(f"{path}: cannot tell what it holds; name it .jsonl, .jsonl.gz, .csv or .parquet")
    if len(kinds) > 1:
        raise InputFileError(f"{path}: the folder holds {' and '.join(sorted(kinds))} files; screen one kind at a time")
    root = path if path.is_dir() else path.parent
    return ParquetSource(files, root, columns) if kinds == {"parquet"} else TextSource(files, root, columns, kinds == {"csv"})


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), "")


def _checksums(files: list[Path], root: Path) -> list[dict[str, Any]]:
    found = []
    for path in files:
        with _reading(path), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append({"name": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": digest})
    return found


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputFileError(f"{path}: not a whole gzip file ({error})") from error
    except pa.ArrowException as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputFileError(f"{path}: not a whole Parquet file ({reason})") from error
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}") from error


class TextSource:
    """JSON lines or CSV, plain or gzipped. A place is [file, byte, line]; in a .gz the byte is that of the text."""

    def __init__(self, files: list[Path], root: Path, columns: Columns, is_csv: bool) -> None:
        self.files, self.root, self.columns, self.is_csv = files, root, columns, is_csv
        self._open: tuple[int, IO[bytes]] | None = None
        self._headers: dict[int, list[str]] = {}

    def check(self) -> list[dict[str, Any]]:
        """The files as they are now."""
        return _checksums(self.files, self.root)

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
        cuts: list[Cut] = []
        rows = 0
        place: Place = [0, 0, 0]
        for row, after in self._rows(place):
            if rows % shard_rows == 0:
                cuts.append(Cut(rows, shard_rows, place))
            for name, value in row.record.items():
                if not encodes(name):
                    raise InputFileError(f"{self.files[0]}: a row has the key {name!a}, which no file can hold; rename it")
                kinds[name] = merge(kinds.get(name, "null"), "string" if self.is_csv else kind_of(value))
            if len(kinds) > MOST_COLUMNS:
                where = self.files[0]
                raise InputFileError(f"{where}: the rows have more than {MOST_COLUMNS} different keys; put the changing ones in one")
            if see is not None:
                see(rows, row)
            rows, place = rows + 1, after
        where = self.root if len(self.files) > 1 else self.files[0]
        if rows == 0:
            raise InputFileError(f"{where} holds no rows; give one JSON object a line, or a CSV with a header and rows")
        if not kinds:
            raise InputFileError(f"{where}: no row can be read ({next(iter(self._rows([0, 0, 0])))[0].error})")
        if wrong := self.columns.missing(list(kinds)):
            raise InputFileError(f"{where} has {wrong}")
        cuts[-1] = Cut(cuts[-1].first, rows - cuts[-1].first, cuts[-1].place)
        return Survey(self.check(), rows, pa.schema([field_of(name, kind) for name, kind in kinds.items()]), cuts)

    def read(self, cut: Cut, schema: pa.Schema) -> Block:
        """The rows of one shard."""
        rows = [row for (row, _), _ in zip(self._rows(cut.place), range(cut.rows), strict=False)]
        return Block(rows, as_table([row.record for row in rows], schema))

    def _rows(self, place: Place) -> Iterator[tuple[Row, Place]]:
        """Rows from a place on, each with the place after it."""
        number, at, line = place
        while number < len(self.files):
            with _reading(self.files[number]):
                lines = Lines(self._file(number), at, line)
                for row in self._csv_rows(lines, number) if self.is_csv else _json_rows(lines):
                    told = row.error and len(self.files) > 1
                    named = Row(row.number, {}, f"{self.files[number].name}: {row.error}") if told else row
                    yield named, [number, lines.at, lines.number]
            number, at, line = number + 1, 0, 0

    def _file(self, number: int) -> IO[bytes]:
        """The file, kept open: seeking onward in a .gz costs only what lies between."""
        if self._open is None or self._open[0] != number:
            self.close()
            path = self.files[number]
            opened: IO[bytes] = gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[assignment]  # noqa: SIM115
            self._open = number, opened
        return self._open[1]

    def _csv_rows(self, lines: Lines, number: int) -> Iterator[Row]:
        if number not in self._headers:
            first = Lines(self._file(number))
            self._headers[number] = csv_header(self.files[number], first)
            if lines.number == 0:
                lines.at, lines.number = first.at, first.number
        elif lines.number == 0:
            csv_header(self.files[number], lines)
        yield from csv_rows(lines, self._headers[number])


def _json_rows(lines: Lines) -> Iterator[Row]:
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            yield Row(lines.number, {}, f"line {lines.number} is not UTF-8 text: {error.reason}")
            continue
        if line.strip():
            yield parse_line(lines.number, line)


def _block(table: pa.Table, first: int, columns: Columns) -> Block:
    """A shard of Arrow rows, of which only the conversation's columns are parsed."""
    records = from_table(table.select(columns.wanted(table.schema.names)))
    return Block([Row(first + i + 1, record) for i, record in enumerate(records)], table, parsed_whole=False)


class ParquetSource:
    """Parquet files, read by row group. A place is [file, row group, row in the group]."""

    def __init__(self, files: list[Path], root: Path, columns: Columns) -> None:
        self.files, self.root, self.columns = files, root, columns
        self._here: tuple[int, Iterator[pa.Table]] | None = None
        self._rest: pa.Table | None = None

    def check(self) -> list[dict[str, Any]]:
        """The files as they are now."""
        return _checksums(self.files, self.root)

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
                    raise InputFileError(f"{path}: two of its columns have one name; rename one of them")
                if schema is not None and not found.equals(schema):
                    raise InputFileError(f"{path}: its columns differ from those of {self.files[0].name}; screen them apart")
                schema = schema or found
                groups += [(number, g, file.metadata.row_group(g).num_rows) for g in range(file.metadata.num_row_groups)]
        where = self.root if len(self.files) > 1 else self.files[0]
        rows = sum(count for *_, count in groups)
        if rows == 0 or schema is None:
            raise InputFileError(f"{where} holds no rows")
        if wrong := self.columns.missing(schema.names):
            raise InputFileError(f"{where} has {wrong}")
        cuts, before = [], 0
        for number, group, count in groups:
            for first in range(-(-before // shard_rows) * shard_rows, before + count, shard_rows):
                cuts.append(Cut(first, min(shard_rows, rows - first), [number, group, first - before]))
            before += count
        if see is not None:
            for cut in cuts:
                for i, row in enumerate(self.read(cut, schema).rows):
                    see(cut.first + i, row)
        return Survey(self.check(), rows, schema, cuts)

    def read(self, cut: Cut, schema: pa.Schema) -> Block:
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
        return _block(pa.concat_tables(pieces).replace_schema_metadata(schema.metadata), cut.first, self.columns)

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
            raise InputFileError(f"{self.spec} holds no rows")
        schema: pa.Schema = self.data[:1].schema
        if wrong := self.columns.missing(schema.names):
            raise InputFileError(f"{self.spec} has {wrong}")
        cuts = [Cut(first, min(shard_rows, rows - first), [first]) for first in range(0, rows, shard_rows)]
        if see is not None:
            for cut in cuts:
                for i, row in enumerate(self.read(cut, schema).rows):
                    see(cut.first + i, row)
        return Survey(self.check(), rows, schema, cuts)

    def read(self, cut: Cut, schema: pa.Schema) -> Block:
        """The rows of one shard."""
        return _block(self.data[cut.first : cut.first + cut.rows].cast(schema), cut.first, self.columns)
