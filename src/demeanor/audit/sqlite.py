"""The audit log's SQLite file, by way of peewee: one table of numbers, texts and hashes that refuses updates and deletions.

A write-ahead log with full synchronisation: a record is on disk when its transaction ends, readers and the writer do not
wait for each other. While a log is open, its newest records may lie in the file beside it that ends in "-wal"; copy both.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee

from demeanor.errors import AuditError

TABLE = "CREATE TABLE IF NOT EXISTS entry (number INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL)"
GUARDS = tuple(
    f"CREATE TRIGGER IF NOT EXISTS no_{what} BEFORE {what} ON entry BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    for what in ("UPDATE", "DELETE")
)


class Database:
    """One open file."""

    torn = False  # SQLite takes back by itself what was in flight

    def __init__(self, path: Path, write: bool, patience: float) -> None:
        self.path, self._at, self._pid = path, path.absolute(), os.getpid()
        self._db: Any  # peewee's methods carry no types
        options: dict[str, Any] = {"timeout": patience, "thread_safe": False, "check_same_thread": False}
        if write:
            pragmas = {"journal_mode": "wal", "synchronous": "full"}
            self._db = peewee.SqliteDatabase(str(path), pragmas=pragmas, lock_type="IMMEDIATE", **options)
        else:
            # where nothing can be written beside it (an archive), nobody writes to it either; but SQLite does not look into a
            # write-ahead log beside a file that is called immutable
            wal = Path(f"{path}-wal")
            fixed = "" if os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size) else "&immutable=1"
            self._db = peewee.SqliteDatabase(f"{path.absolute().as_uri()}?mode=ro{fixed}", uri=True, **options)
        with self._named("opened"):
            new = write and not path.exists()
            if new:
                path.touch(mode=0o600)  # whom a person in crisis wrote to is nobody else's business
            self._connect(patience)
            self._file = self._there()
            if write:
                with self._db.atomic():
                    tables = {row[0] for row in self._db.execute_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
                    if tables and "entry" not in tables:
                        raise AuditError(f"{path}: a database, but not an audit log; name another file")
                    for statement in (TABLE, *GUARDS):
                        self._db.execute_sql(statement)

    def _connect(self, patience: float) -> None:
        """SQLite does not wait while another process makes a new log a write-ahead one, so this does."""
        until = time.monotonic() + patience
        while True:
            try:
                self._db.connect()
                return
            except peewee.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def header(self) -> str | None:
        """Text of entry 0."""
        row = self._one("SELECT body FROM entry WHERE number = 0")
        return str(row[0]) if row else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A transaction that holds the write lock from its first moment; what it added is on disk when it ends."""
        if os.getpid() != self._pid:  # two processes on one connection can damage the file
            raise AuditError(f"{self.path}: the log was opened before this process was forked; open it in each process")
        with self._named("written"), self._db.atomic():
            if self._there() != self._file:  # SQLite would go on writing into the file that is gone
                raise AuditError(f"{self.path}: the file was moved or deleted while the log was open; open it again")
            yield

    def _there(self) -> tuple[int, int] | None:
        """Which file is at the path now."""
        with suppress(FileNotFoundError):
            found = os.stat(self._at)
            return found.st_dev, found.st_ino
        return None

    def last(self) -> tuple[int, str] | None:
        """Number and hash of the last entry."""
        row = self._one("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1")
        return (int(row[0]), str(row[1])) if row else None

    def add(self, number: int, body: str, digest: str) -> None:
        """Insert an entry."""
        self._db.execute_sql("INSERT INTO entry (number, body, hash) VALUES (?, ?, ?)", (number, body, digest))

    def entries(self) -> Iterator[tuple[int | None, str, str]]:
        """Every entry in order; the first that cannot be read is the last, without a number."""
        with self._named("read"):
            rows = self._db.execute_sql("SELECT number, body, hash FROM entry ORDER BY number")
        try:
            for number, body, digest in rows:
                yield number if isinstance(number, int) else None, str(body), str(digest)
        except sqlite3.Error:
            yield None, "", ""

    def close(self) -> None:
        """Close the file; the last one to do so folds the write-ahead log back in."""
        with self._named("closed"):
            self._db.close()

    def _one(self, query: str) -> Any:
        with self._named("read"):
            return self._db.execute_sql(query).fetchone()

    @contextmanager
    def _named(self, done: str) -> Iterator[None]:
        """SQLite's errors as one line that names the file and the way out."""
        try:
            yield
        except (peewee.PeeweeException, sqlite3.Error, OSError) as error:
            if isinstance(error, AuditError):
                raise
            reason = str(error)
            if "not a database" in reason or "malformed" in reason or "no such table" in reason:
                raise AuditError(f"{self.path}: not an audit log, or damaged ({reason}); restore it, or name another file") from error
            if "locked" in reason:
                reason = "another process has held the log for too long; is one stuck?"
            if done == "read" and "unable to open" in reason:
                reason += f"; copy it and the {self.path.name}-wal beside it to a folder that can be written to"
            raise AuditError(f"{self.path}: could not be {done}: {reason}; the records before it are intact") from error
