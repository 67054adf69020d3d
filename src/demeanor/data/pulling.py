"""Public sets on this machine: fetched from their upstream on the user's command, checked by hash, kept as rows in Demeanor's own form.

    FOLDER/NAME.jsonl     {"id", "messages", "label", "group", "source"}, the reply last; higher is more of the trait
    FOLDER/NAME.json      the licence, the upstream, the hash of each of its files as they were seen, and of NAME.jsonl

A folder that somebody else filled is read too: rows with "context" and "response" in the place of "messages", or the upstream's own
files, at their paths or below a folder with the repository's name. A row that stands twice counts once; where its labels differ, it does
not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from demeanor.conversation import Conversation, from_messages, from_record
from demeanor.data.converters import CONVERTERS, SourceRow
from demeanor.data.files import reading
from demeanor.data.public_sources import NONE, PublicSource
from demeanor.data.rows import Row, read_rows, to_line, writing
from demeanor.errors import ConversationError, InputFileError, OutputError
from demeanor.keys import prompt_key, row_hash

Get = Callable[[str], bytes]
"""Gives the content of one address. Raises InputFileError."""
UPSTREAM = "https://raw.githubusercontent.com"
TIMEOUT = 60  # seconds without a byte
MOST = 64 << 20  # bytes of one file


class Pulled(NamedTuple):
    """What a pull wrote."""

    path: Path
    rows: int
    groups: int
    left_out: int
    """Rows that stand twice, or have two labels, or hold no reply."""
    unknown: dict[str, str]
    """The hashes that were seen of files whose hash the catalogue does not know."""


def address(source: PublicSource, path: str) -> str:
    """Where a file of a set is, at the catalogue's revision."""
    return f"{UPSTREAM}/{source.repository}/{source.revision}/{quote(path)}"


def over_http(url: str) -> bytes:
    """One file from the network. Raises InputFileError."""
    import requests

    host = url.split("/")[2]
    try:
        with requests.get(url, timeout=TIMEOUT, stream=True, headers={"User-Agent": "demeanor"}) as answer:
            if answer.status_code != 200:
                raise InputFileError(
                    f"{host} answered {answer.status_code} for {url}; look at the set's page, or bring its files with --from"
                )
            content = b""
            for chunk in answer.iter_content(1 << 18):
                content += chunk
                if len(content) > MOST:
                    raise InputFileError(f"{url} is larger than {MOST >> 20} MB, more than any file in the catalogue")
            return content
    except requests.RequestException as error:
        raise InputFileError(
            f"{host} cannot be reached ({type(error).__name__}); bring the set's files, and name their folder with --from"
        ) from None


def fetched(source: PublicSource, get: Get = over_http) -> dict[str, bytes]:
    """A set's upstream files by path, each from its address."""
    return {path: get(address(source, path)) for path in _with_form(source).files}


def pull(source: PublicSource, files: Mapping[str, bytes], folder: Path, overwrite: bool = False) -> Pulled:
    """Check a set's upstream files by hash, convert them, and write the rows and their record.

    Raises:
        InputFileError: a file has another hash than the catalogue names, or another form than the converter knows.
        OutputError: the set is there already, or cannot be written.
    """
    refuse_present(source, folder, overwrite)
    seen = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    for name, known in source.files.items():
        if known is not None and seen.get(name) != known:
            what = f"has sha256 {seen[name][:12]}..." if name in seen else "is missing"
            raise InputFileError(f"{source.name}: {name} {what}, {known[:12]}... is expected; download it again from {source.page}")
    unknown = {name: seen[name] for name, known in source.files.items() if known is None}
    return _kept(source, convert(source, files), seen, unknown, folder)


def adopt(source: PublicSource, path: Path, folder: Path, overwrite: bool = False) -> Pulled:
    """Write the rows of a set that somebody else converted; no hash of the upstream's can be checked. Raises as `pull` does."""
    refuse_present(source, folder, overwrite)
    rows = [_read_row(path, row) for row in read_rows(path)]
    seen = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    return _kept(source, rows, seen, seen, folder)


def _kept(source: PublicSource, given: Sequence[SourceRow], seen: Mapping[str, str], unknown: dict[str, str], folder: Path) -> Pulled:
    """Write the rows and their record."""
    rows, left_out = _distinct(given)
    lines = [_line(source, row) for row in rows]
    path = folder / f"{source.name}.jsonl"
    with writing(path) as file:
        file.writelines(lines)
    groups = len({row.group for row in rows})
    record = {
        **source.model_dump(include={"name", "title", "upstream", "revision", "licence", "use", "trait", "labelled_by", "high"}),
        "files": dict(seen),
        "rows": len(rows),
        "groups": groups,
        "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
    }
    with writing(folder / f"{source.name}.json") as file:
        file.write(json.dumps(record, indent=1) + "\n")
    return Pulled(path, len(rows), groups, left_out, unknown)


def refuse_present(source: PublicSource, folder: Path, overwrite: bool) -> None:
    """Raise OutputError where a set is in a folder already and is not to be written over."""
    path = folder / f"{source.name}.jsonl"
    if path.exists() and not overwrite:
        raise OutputError(f"{path} already exists; use it as it is, or replace it with --overwrite")


def convert(source: PublicSource, files: Mapping[str, bytes]) -> list[SourceRow]:
    """The labelled rows of a set's upstream files. Raises InputFileError where they have another form than the converter knows."""
    converter = CONVERTERS[_with_form(source).converter]
    try:
        rows = list(converter({path: content.decode("utf-8-sig") for path, content in files.items()}))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise InputFileError(
            f"{source.name}: its files do not have the form that the converter knows ({type(error).__name__}: {error}); "
            f"the catalogue is for revision {source.revision[:12]} of {source.repository}"
        ) from error
    if not rows:
        raise InputFileError(f"{source.name}: its files have no labelled row; look at {source.page}")
    return rows


def read_source(source: PublicSource, folders: Sequence[Path]) -> list[SourceRow] | None:
    """A set's rows from the first of the folders that has them, as rows or as the upstream's files; None where none has.

    Raises InputFileError for a folder that is none, a row that cannot be read, and files of another form.
    """
    for folder in folders:
        if (path := folder / f"{source.name}.jsonl").is_file():
            return _distinct(_read_row(path, row) for row in read_rows(path))[0]
        if (files := local_files(source, folder)) is not None:
            return _distinct(convert(source, files))[0]
    return None


def local_files(source: PublicSource, folder: Path) -> dict[str, bytes] | None:
    """A set's upstream files out of a folder, below it or below a folder with the repository's name; None where they are not all there."""
    for root in (folder, folder / source.repository.split("/")[1], folder / source.repository.replace("/", "+")):
        if source.files and all((root / path).is_file() for path in source.files):
            found = {}
            for path in source.files:
                with reading(root / path):
                    found[path] = (root / path).read_bytes()
            return found
    return None


def _with_form(source: PublicSource) -> PublicSource:
    if source.converter == NONE:
        raise InputFileError(f"{source.name} cannot be read: {source.why_none}")
    return source


def _line(source: PublicSource, row: SourceRow) -> str:
    messages = Conversation(row.messages).to_record()
    return to_line({"id": row.id, "messages": messages, "label": row.label, "group": row.group, "source": source.name})


def _read_row(path: Path, row: Row) -> SourceRow:
    """A row of a converted set, in Demeanor's own form or with `context` and `response`."""
    if row.error is not None:
        raise InputFileError(f"{path}: {row.error}")
    record: dict[str, Any] = row.record
    label = record.get("label")
    if isinstance(label, bool) or not isinstance(label, int | float):
        raise InputFileError(f"{path}: {row.where} has the label {label!r}; a number is expected, higher for more of the trait")
    try:
        if isinstance(record.get("context"), list) and "messages" not in record:
            conversation = from_messages([*record["context"], {"role": "assistant", "content": record.get("response")}])
        else:
            conversation = from_record(record)
    except ConversationError as error:
        raise InputFileError(f"{path}: {row.where}: {error}") from error
    group = record.get("group") or record.get("pair_id") or prompt_key(conversation.messages[:-1])
    return SourceRow(row.name, conversation.messages, float(label), str(group))


def _distinct(rows: Iterable[SourceRow]) -> tuple[list[SourceRow], int]:
    """The rows that can be read, each once and without those that have two labels; and how many are left out."""
    found: dict[str, SourceRow | None] = {}
    total = 0
    for row in rows:
        total += 1
        try:
            key = row_hash(Conversation(row.messages))
        except ConversationError:  # no reply to be seen
            continue
        first = found.setdefault(key, row)
        if first is not None and first.label != row.label:
            found[key] = None
    kept = [row for row in found.values() if row is not None]
    return kept, total - len(kept)
