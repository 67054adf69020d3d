"""One small layer of SQL over SQLite and PostgreSQL.

Statements are written once, with ? for a value, in the SQL that both speak; what differs (how a transaction begins, how numbers are drawn)
is here. A transaction is on disk when its block ends: SQLite keeps a write-ahead log with full synchronisation, PostgreSQL does so
by itself. One connection, used by one thread at a time.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from demeanor.errors import MissingExtraError, ReviewError

PATIENCE = 10.0  # seconds that a transaction waits for another process
URLS = ("postgresql://", "postgres://")
LOCK = 7_236_401  # of PostgreSQL's advisory locks, the one by which writers of a store take turns
Row = tuple[Any, ...]


class Database:
    """An open database. `name` is how messages call it, without a password."""

    name: str
    numbered: str
    """How a column is declared that numbers its rows."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._deep = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and alone: no other writer comes between. One within another is part of it.

        Raises ReviewError where the database cannot be reached or does not answer in time.
        """
        if os.getpid() != self._pid:  # two processes on one connection can damage the file
            raise ReviewError(f"{self.name}: the store was opened before this process was forked; open it in each process")
        with self._lock, self._named():
            if self._deep:
                yield
                return
            self._begin()
            self._deep = 1
            try:
                yield
            except BaseException:
                with suppress(Exception):  # what went wrong first is what is to be said
                    self._end("ROLLBACK")
                raise
            else:
                self._end("COMMIT")
            finally:
                self._deep = 0

    def rows(self, statement: str, *values: object) -> list[Row]:
        """What a statement gives."""
        with self._lock, self._named():
            return self._execute(statement, values)[0]

    def one(self, statement: str, *values: object) -> Row | None:
        """The first row that a statement gives; None where it gives none."""
        return next(iter(self.rows(statement, *values)), None)

    def run(self, statement: str, *values: object) -> int:
        """Execute a statement and give how many rows it changed."""
        with self._lock, self._named():
            return self._execute(statement, values)[1]

    def tables(self) -> set[str]:
        """The names of the tables that are there."""
        raise NotImplementedError

    def scrub(self) -> None:
        """Have what was deleted leave the disk too, as far as the database can."""
        raise NotImplementedError

    def backup(self, target: Path) -> None:
        """Write a copy of all that is in force now to a new file. Raises ReviewError."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the connection back."""
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _end(self, how: str) -> None:
        self._execute(how, ())

    def _execute(self, statement: str, values: tuple[object, ...]) -> tuple[list[Row], int]:
        raise NotImplementedError

    @contextmanager
    def _named(self) -> Iterator[None]:
        raise NotImplementedError
        yield


class Sqlite(Database):
    """A file, or ":memory:"."""

    numbered = "INTEGER PRIMARY KEY"

    def __init__(self, path: Path | str, patience: float = PATIENCE) -> None:
        super().__init__()
        self.name, self._path, self._patience = str(path), Path(path), patience
        memory = str(path) == ":memory:"
        if not memory and self._path.is_dir():
            raise ReviewError(f"{path} is a folder; name a file, such as review.db")
        if not memory and not self._path.parent.is_dir():
            raise ReviewError(f"{path}: the folder {self._path.parent} does not exist; make it first")
        with self._named():
            if not memory and not self._path.exists():
                self._path.touch(mode=0o600)  # what people wrote in a crisis is nobody else's business
            self._db = sqlite3.connect(str(path), timeout=patience, isolation_level=None, check_same_thread=False)
            until = time.monotonic() + patience
            while True:  # SQLite does not wait while another process makes a new file a write-ahead one, so this does
                try:
                    self._db.execute("PRAGMA journal_mode = wal")
                    break
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > until:
                        raise
                    time.sleep(0.02)
            for pragma in ("synchronous = full", "foreign_keys = on", "secure_delete = on"):  # what is erased is overwritten
                self._db.execute(f"PRAGMA {pragma}")

    def tables(self) -> set[str]:
        """The names of the tables that are there."""
        return {row[0] for row in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def scrub(self) -> None:
        """Deleted content was overwritten (secure_delete); the write-ahead log is emptied as well, unless somebody reads from it."""
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def backup(self, target: Path) -> None:
        """Write a copy of all that is in force now to a new file."""
        _refuse_taken(target)
        with self._lock, self._named():
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            copy = sqlite3.connect(target)
            try:
                self._db.backup(copy)
            finally:
                copy.close()

    def close(self) -> None:
        """Close the file; what was erased goes from the write-ahead log too."""
        with self._lock, suppress(sqlite3.Error):
            self._db.close()

    def _begin(self) -> None:
        """Wait for the turn in short steps: SQLite itself waits in ever longer ones, and a busy writer would never let another in."""
        self._db.execute("PRAGMA busy_timeout = 1")
        until = time.monotonic() + self._patience
        try:
            while True:
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > until:
                        raise
                    time.sleep(random.uniform(0.0002, 0.002))  # noqa: S311  # at other moments than the next one
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {round(1000 * self._patience)}")

    def _execute(self, statement: str, values: tuple[object, ...]) -> tuple[list[Row], int]:
        cursor = self._db.execute(statement, values)
        return cursor.fetchall(), cursor.rowcount

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, ReviewError):
                raise
            reason = str(error)
            if "not a database" in reason or "malformed" in reason:
                raise ReviewError(
                    f"{self.name}: not a review store, or damaged ({reason}); restore a backup, or name another file"
                ) from error
            if "locked" in reason:
                reason = f"another process has held it for more than {PATIENCE:g} seconds; is one stuck?"
            raise ReviewError(f"{self.name}: {reason}; what was stored before stands") from error


class Postgres(Database):
    """A database of a PostgreSQL server, by its URL."""

    numbered = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"

    def __init__(self, url: str, patience: float = PATIENCE) -> None:
        super().__init__()
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtraError("a review store in PostgreSQL needs psycopg: pip install 'demeanor[postgres]'") from error
        parts = urlsplit(url)
        self.name = f"postgresql://{parts.hostname or 'localhost'}{parts.path}"  # the URL may hold a password
        self._url, self._psycopg, self._patience = url, psycopg, patience
        with self._named():
            self._db = self._connected()

    def tables(self) -> set[str]:
        """The names of the tables that are there."""
        return {row[0] for row in self.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")}

    def scrub(self) -> None:
        """Rows that were replaced stay in the files until they are vacuumed."""
        self.run("VACUUM reply, answer, band")

    def backup(self, target: Path) -> None:
        """Write what pg_dump gives of it to a new file; `pg_restore` reads it."""
        _refuse_taken(target)
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            # by the environment, as what stands on a command line is seen by all users of the machine
            environment = dict(os.environ)
            command = ["pg_dump", "--format=custom", f"--file={target}", f"--dbname={_without_password(self._url)}"]
            if password := urlsplit(self._url).password:
                environment["PGPASSWORD"] = password
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            target.unlink(missing_ok=True)
            raise ReviewError("pg_dump was not found; install PostgreSQL's client programs (Debian: postgresql-client)") from error
        except OSError as error:
            raise ReviewError(f"{target}: cannot be written: {error.strerror or error}") from error
        if done.returncode:
            target.unlink(missing_ok=True)
            raise ReviewError(f"{self.name}: pg_dump failed: {done.stderr.strip()}")

    def close(self) -> None:
        """Close the connection."""
        with self._lock, suppress(self._psycopg.Error):
            self._db.close()

    def _connected(self) -> Any:
        # rows are wanted in the order of writing whatever the locale, and a lost server is to be noticed
        found = self._psycopg.connect(self._url, autocommit=True, connect_timeout=max(2, round(self._patience)))
        found.execute(f"SET lock_timeout = {round(1000 * self._patience)}")
        return found

    def _begin(self) -> None:
        if self._db.closed or self._db.broken:
            self._db = self._connected()
        self._db.execute("BEGIN")
        self._db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))

    def _execute(self, statement: str, values: tuple[object, ...]) -> tuple[list[Row], int]:
        if not self._deep and (self._db.closed or self._db.broken):
            self._db = self._connected()
        cursor = self._db.execute(statement.replace("%", "%%").replace("?", "%s") if values else statement, values or None)
        return (cursor.fetchall() if cursor.description else []), cursor.rowcount

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            raise ReviewError(f"{self.name}: {' '.join(str(error).split())}; what was stored before stands") from error


def open_database(where: str | Path, patience: float = PATIENCE) -> Database:
    """A database by its URL (postgresql://user@host/name), or the SQLite file at a path, which is made where it is not there.

    Raises ReviewError where it cannot be opened, MissingExtraError where the driver is not installed.
    """
    if isinstance(where, str) and where.startswith(URLS):
        return Postgres(where, patience)
    if isinstance(where, str) and "://" in where:
        raise ReviewError(f"a review store is a file or a URL that begins with postgresql://, not {where.split('://')[0]}://")
    return Sqlite(where, patience)


def _refuse_taken(target: Path) -> None:
    if target.exists():
        raise ReviewError(f"{target} is there already; name another file")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}@{host}").geturl()
