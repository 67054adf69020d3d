"""Notices that are to reach somebody: a queue on disk, from which one goes only when it was delivered.

    waiting ──► delivered (gone)         tried again after 1, 2, 4, ... seconds, at most a quarter of an hour
       └──────► dead (stays)             after a day

A notice says which rule fired, how severe that is, which decision it was and where to look; never what was said. It is on disk
before `add` returns, once for each decision, and is delivered at least once: whoever receives it twice knows it by its id. Several
processes may share the file, as a notice that is being tried is reserved for a while. A dead one stays until somebody sees to it
(`revive`, `forget`), and is counted until then.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from demeanor.errors import NoticeError

FIRST_WAIT, LONGEST_WAIT = 1.0, 900.0  # seconds
LIFE = 86_400.0  # seconds until a notice is given up
RESERVED = 60.0  # seconds in which one that is being tried is nobody else's
FORMAT = 1
TABLE = """CREATE TABLE IF NOT EXISTS notice (
    id TEXT PRIMARY KEY, decision TEXT NOT NULL UNIQUE, body TEXT NOT NULL, made REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, dead INTEGER NOT NULL DEFAULT 0, problem TEXT)"""
Clock = Callable[[], float]


@dataclass(frozen=True)
class Notice:
    """What somebody is told about a decision. There is no field for a text."""

    decision: str
    """The decision's id, which leads to its audit record."""
    action: str
    severity: str | None
    rules: tuple[str, ...]
    link: str | None = None
    """Where to look, such as the queue of replies that wait for a person."""


class Waiting(NamedTuple):
    """One notice as it stands in the queue."""

    id: str
    body: str
    attempts: int
    """How often it was tried before."""
    made: float
    problem: str | None = None
    """Why the last try failed."""


class Counts(NamedTuple):
    """What is undelivered."""

    waiting: int
    dead: int
    oldest_seconds: float
    """How long the oldest has waited; 0 where none does."""


class NoticeQueue:
    """The queue in one SQLite file. Its methods may be called from any thread, and wait for the disk."""

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        """Open the file, or make it, readable by its owner only. Raises NoticeError."""
        self.path, self.clock = path, clock
        self._lock = threading.Lock()
        try:
            if not path.exists():
                path.touch(mode=0o600)
            self._db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise NoticeError(f"{path}: the queue of notices cannot be opened: {error}; name another file, or make its folder") from error
        with self._writing() as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, FORMAT) or (found == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]):
                raise NoticeError(f"{path}: a database of something else, or of a newer version; name another file")
            db.execute(TABLE)
            db.execute(f"PRAGMA user_version = {FORMAT}")

    def add(self, notice: Notice) -> str:
        """Put a notice on disk; gives its id. A second one about the same decision is the first. Raises NoticeError."""
        made, now = f"ntc_{secrets.token_hex(12)}", self.clock()
        body = json.dumps(_record(made, now, notice), ensure_ascii=False)
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO notice (id, decision, body, made, due) VALUES (?, ?, ?, ?, ?)",
                       (made, notice.decision, body, now, now))  # fmt: skip
            return str(db.execute("SELECT id FROM notice WHERE decision = ?", (notice.decision,)).fetchone()[0])

    def take(self) -> Waiting | None:
        """The notice that is due first, reserved for this process; None where none is due."""
        now = self.clock()
        with self._writing() as db:
            row = db.execute("SELECT id, body, attempts, made, problem FROM notice WHERE NOT dead AND due <= ? ORDER BY due, made LIMIT 1",
                             (now,)).fetchone()  # fmt: skip
            if row is None:
                return None
            db.execute("UPDATE notice SET due = ?, attempts = attempts + 1 WHERE id = ?", (now + RESERVED, row[0]))
        return Waiting(*row)

    def delivered(self, notice: Waiting) -> None:
        """It has been received, and leaves the queue."""
        with self._writing() as db:
            db.execute("DELETE FROM notice WHERE id = ?", (notice.id,))

    def failed(self, notice: Waiting, problem: str) -> bool:
        """It was not received: it waits for its next try, or is dead. Gives whether it is dead."""
        now = self.clock()
        due = now + min(FIRST_WAIT * 2 ** min(notice.attempts, 20), LONGEST_WAIT)
        dead = now - notice.made >= LIFE
        with self._writing() as db:
            db.execute("UPDATE notice SET due = ?, dead = ?, problem = ? WHERE id = ?", (due, dead, problem[:200], notice.id))
        return dead

    def until_due(self) -> float | None:
        """Seconds until one is due; None where none waits."""
        with self._reading() as db:
            due = db.execute("SELECT min(due) FROM notice WHERE NOT dead").fetchone()[0]
        return None if due is None else max(0.0, due - self.clock())

    def counts(self) -> Counts:
        """How many are undelivered."""
        with self._reading() as db:
            count = "SELECT count(*) FILTER (WHERE NOT dead), count(*) FILTER (WHERE dead), min(made) FROM notice"
            waiting, dead, oldest = db.execute(count).fetchone()
        return Counts(waiting, dead, 0.0 if oldest is None else max(0.0, self.clock() - oldest))

    def dead(self) -> list[Waiting]:
        """Those that were given up, oldest first, with why."""
        with self._reading() as db:
            rows = db.execute("SELECT id, body, attempts, made, problem FROM notice WHERE dead ORDER BY made").fetchall()
        return [Waiting(*row) for row in rows]

    def revive(self) -> int:
        """Try the dead ones again, for another day; gives how many."""
        now = self.clock()
        with self._writing() as db:
            return db.execute("UPDATE notice SET dead = 0, attempts = 0, due = ?, made = ? WHERE dead", (now, now)).rowcount

    def forget(self, ids: Sequence[str]) -> int:
        """Delete dead ones that somebody has seen to; gives how many."""
        with self._writing() as db:
            return sum(db.execute("DELETE FROM notice WHERE dead AND id = ?", (i,)).rowcount for i in ids)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction; what it wrote is on disk when it ends."""
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise NoticeError(f"{self.path}: the queue of notices: {error}; is the disk full, or the file damaged?") from error


def _record(made: str, now: float, notice: Notice) -> dict[str, Any]:
    """The notice as it is sent."""
    return {
        "id": made,
        "type": "demeanor.decision",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "decision": notice.decision,
        "action": notice.action,
        "severity": notice.severity,
        "rules": list(notice.rules),
        "link": notice.link,
    }
