"""The audit log's JSON lines: {"hash", "n", "record"}, the record's text canonical, so that its bytes are what was hashed.

A lock beside the file keeps writers apart. A line is whole once it ends in a newline: one that does not was in flight when
its process was killed, is left out when the file is read, and is overwritten by the next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from demeanor.errors import AuditError

BLOCK = 65536
POLL = 0.003  # seconds between two tries for the lock; with long ones, a writer that takes it again at once starves the others
OPENING = b'{"hash":"'


class JsonLinesLog:
    """One file; it is opened anew for each record."""

    def __init__(self, path: Path, write: bool, patience: float) -> None:
        self.path, self.torn = path, False
        self._file_lock = FileLock(f"{path}.lock", timeout=patience) if write else None

    def header(self) -> str | None:
        """Text of entry 0; None where none is written yet, empty where the file is something else."""
        with self._reading() as file:
            line = file.readline() if file else b""
        if not line.endswith(b"\n"):
            # nothing, or a header whose writing was cut off; but never somebody else's file, which would be overwritten
            return None if line[: len(OPENING)] == OPENING[: len(line)] else ""
        number, body, _ = _parse(line)
        return body if number == 0 else ""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process writes."""
        assert self._file_lock is not None
        try:
            self._file_lock.acquire(poll_interval=POLL)
        except Timeout as error:
            raise AuditError(f"{self.path}: another process has held the log for too long; is one stuck?") from error
        except OSError as error:
            raise AuditError(f"{self.path}: cannot be locked for writing: {error.strerror or error}") from error
        try:
            yield
        finally:
            self._file_lock.release()

    def last(self) -> tuple[int, str] | None:
        """Number and hash of the last whole line; only ever reads the file's end."""
        with self._reading() as file:
            if file is None:
                return None
            line = _last_line(file)[0]
        if not line:
            return None
        number, _, digest = _parse(line)
        if number is None:
            raise AuditError(f"{self.path}: its last record cannot be read; check it with: demeanor audit verify {self.path}")
        return number, digest

    def add(self, number: int, body: str, digest: str) -> None:
        """Write a line over whatever a killed process left unfinished; on an error nothing of it stays."""
        line = f'{{"hash":"{digest}","n":{number},"record":{body}}}\n'.encode()
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise AuditError(f"{self.path}: cannot be opened for writing: {error.strerror or error}") from error
        try:
            with open(fd, "rb", closefd=False) as file:
                end = _last_line(file)[1]
            try:
                os.ftruncate(fd, end)
                os.lseek(fd, end, os.SEEK_SET)
                _write_all(fd, line)
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, end)
                raise
        except OSError as error:
            raise AuditError(f"{self.path}: record {number} could not be written: {error.strerror or error}") from error
        finally:
            os.close(fd)

    def entries(self) -> Iterator[tuple[int | None, str, str]]:
        """Every whole line in order."""
        with self._reading() as file:
            for line in file or ():
                if not line.endswith(b"\n"):
                    self.torn = True
                    return
                yield _parse(line)

    def close(self) -> None:
        """Nothing is held between records."""

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            file = self.path.open("rb") if self.path.exists() else None
        except OSError as error:
            raise AuditError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        try:
            yield file
        finally:
            if file:
                file.close()


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _last_line(file: Any) -> tuple[bytes, int]:
    """The last line that ends in a newline, and where it ends."""
    size = file.seek(0, os.SEEK_END)
    tail, start = b"", size
    while start > 0 and tail.count(b"\n") < 2:
        step = min(BLOCK, start)
        start -= step
        file.seek(start)
        tail = file.read(step) + tail
    end = tail.rfind(b"\n") + 1
    return tail[tail.rfind(b"\n", 0, max(end - 1, 0)) + 1 : end], start + end


def _parse(line: bytes) -> tuple[int | None, str, str]:
    """Number, text and hash of a line; number None where it is none."""
    try:
        text = line.decode("ascii").rstrip("\n")
        entry = json.loads(text)
        digest, number = entry["hash"], entry["n"]
        opening = f'{{"hash":"{digest}","n":{number},"record":'
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "", ""
    if not isinstance(digest, str) or type(number) is not int or not (text.startswith(opening) and text.endswith("}")):
        return None, "", ""
    return number, text[len(opening) : -1], digest
