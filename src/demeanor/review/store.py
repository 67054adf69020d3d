"""A review store: a database with its tables, the seal that its texts go through, its secret, and a clock.

The secret is drawn when the store is begun. It hashes conversation ids, so that the store holds none, and decides by chance which replies
are drawn, so that the draw can be repeated and nobody outside can foresee it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demeanor.errors import ReviewError
from demeanor.review.database import Database, open_database
from demeanor.review.migrations import migrate
from demeanor.review.sealing import CHECK, VARIABLE, Seal, key_in_environment, seal_with

Clock = Callable[[], float]


@dataclass(frozen=True)
class Store:
    """An open review store."""

    db: Database
    seal: Seal
    secret: bytes
    clock: Clock = time.time

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the database back."""
        self.db.close()

    def hashed(self, kind: str, text: str) -> str:
        """A text as the store may hold it: the same for the same text, and no way back without the secret."""
        return hmac.new(self.secret, f"{kind} {text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    def chance(self, decision: str) -> float:
        """A number from 0 to 1 that a decision is drawn by: as if by chance, and the same each time."""
        return int(self.hashed("draw", decision)[:13], 16) / 16**13

    def record(self, who: str, what: str, **about: Any) -> None:
        """Note who did what, without any text of a conversation."""
        self.db.run("INSERT INTO event (at, who, what, about) VALUES (?, ?, ?, ?)", self.clock(), who, what, json.dumps(about))

    def backup(self, target: Path, who: str = "") -> None:
        """Write a copy of the store to a new file; sealed texts stay sealed in it. Raises ReviewError."""
        self.db.backup(target)
        self.record(who, "backup")


def open_store(where: str | Path, key: str | None = None, clock: Clock = time.time) -> Store:
    """Open a review store, or begin one.

    Args:
        where: A path (SQLite), or a URL that begins with postgresql://.
        key: Seals texts at rest; by default that of DEMEANOR_REVIEW_KEY. A store that was begun without one stays without.
        clock: Seconds since 1970; times to live and reservations are told by it.

    Raises:
        ReviewError: it cannot be opened, is no review store, or was begun with another key.
        MissingExtraError: it needs a library that is not installed.
    """
    key = key or key_in_environment()
    seal = seal_with(key)
    db = open_database(where)
    try:
        migrate(db)
        with db.transaction():
            about = dict(db.rows("SELECT name, value FROM demeanor_review"))
            if "secret" not in about:
                about = {"secret": secrets.token_hex(32), "check": str(seal.close(CHECK)) if key else ""}
                for name, value in about.items():
                    db.run("INSERT INTO demeanor_review (name, value) VALUES (?, ?)", name, value)
        _refuse_other_key(db.name, seal, key, about["check"])
    except BaseException:
        db.close()
        raise
    return Store(db, seal, bytes.fromhex(about["secret"]), clock)


def _refuse_other_key(name: str, seal: Seal, key: str | None, check: str) -> None:
    if not key and check:
        raise ReviewError(f"{name}: its texts are sealed; set {VARIABLE} to the key that it was begun with")
    if key and not check:
        raise ReviewError(f"{name}: it was begun without a key, and its texts are not sealed; unset {VARIABLE}, or begin another store")
    try:
        seal.open(check or None)
    except ReviewError as error:
        raise ReviewError(f"{name}: {VARIABLE} is not the key that it was begun with") from error
