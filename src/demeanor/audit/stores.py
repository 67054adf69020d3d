"""Where a log lies: JSON lines where its name ends so, else SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from demeanor.errors import AuditError

JSON_LINES = (".jsonl", ".ndjson")
PATIENCE = 5.0  # seconds that a record waits for another process to finish its own


class Store(Protocol):
    """Where the texts and hashes lie."""

    def header(self) -> str | None:
        """Text of entry 0; None where none is written yet."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process writes."""
        yield

    def last(self) -> tuple[int, str] | None:
        """Number and hash of the last entry."""

    def add(self, number: int, body: str, digest: str) -> None:
        """Write an entry; it is on disk when this returns, or when `alone` ends."""

    def entries(self) -> Iterator[tuple[int | None, str, str]]:
        """Number, text and hash of every entry in order; number None where it cannot be read."""

    @property
    def torn(self) -> bool:
        """Whether a last, unfinished entry was left out of `entries`."""

    def close(self) -> None:
        """Give the file back."""


def open_store(path: Path, write: bool) -> Store:
    """The file of a log, to read or to append to. Raises AuditError where its place cannot be one."""
    if path.is_dir():
        raise AuditError(f"{path} is a folder; name a file, such as audit.db or audit.jsonl")
    if not path.parent.is_dir():
        raise AuditError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.suffix in JSON_LINES:
        from demeanor.audit.json_lines import JsonLinesLog

        return JsonLinesLog(path, write, PATIENCE)
    from demeanor.audit.sqlite import Database

    return Database(path, write, PATIENCE)


def is_log(path: Path) -> bool:
    """Whether a file is an audit log, whole or not."""
    if not path.is_file():
        return False
    try:
        store = open_store(path, write=False)
    except AuditError:
        return False
    try:
        return "demeanor_audit" in (store.header() or "")
    except AuditError:
        return False
    finally:
        store.close()
