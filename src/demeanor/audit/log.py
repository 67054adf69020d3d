"""The log that is appended to: hash-chained (see chain.py), in SQLite or JSON lines, with no text and no identifier unless asked for.

Conversation ids are HMAC-SHA256 under a salt. A record is on disk before `append` returns. A process that is killed while
it writes loses at most the record in flight: SQLite rolls it back, and the torn last line of a JSON-lines file is left
out and then overwritten.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demeanor.audit.chain import FORMAT, canonical, link, parse_header, salt_check
from demeanor.audit.records import AuditRecord, OpenedRecord, kept
from demeanor.audit.stores import open_store
from demeanor.errors import AuditError


class AuditLog:
    """A log to append to. The suffix decides: .jsonl and .ndjson are JSON lines, anything else is SQLite.

    Safe to use from several threads and, on a local disk, from several processes at once.
    """

    def __init__(self, path: str | Path, keep_text: bool = False, salt: bytes | None = None) -> None:
        """Open or begin a log.

        Args:
            path: The file; its folder must exist.
            keep_text: Whether records keep the text that they are given. Off: it is dropped before anything is written.
            salt: For hashing conversation ids. By default one is drawn and kept in the log's header; one that is given is
                not kept, only a check by which another is refused later.

        Raises:
            AuditError: the file cannot be opened or begun, is no audit log, or was begun with another salt.
        """
        self.path, self.keep_text = Path(path), keep_text
        self._lock = threading.Lock()
        self._store = open_store(self.path, write=True)
        try:
            self._salt = self._begin(salt)
        except BaseException:
            self._store.close()
            raise

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._store.close()

    def hashed(self, conversation_id: str) -> str:
        """A conversation's id as records hold it: the same for the same id in this log, and no way back without the salt."""
        return hmac.new(self._salt, conversation_id.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]

    def append(self, record: AuditRecord | OpenedRecord, wanted: Callable[[], bool] = lambda: True) -> int:
        """Write a record and give its number, from 1.

        Args:
            record: What to write.
            wanted: Asked once, when nothing stands in the way of writing any more; where it says no, nothing is written.

        Raises:
            AuditError: it could not be written, as on a full disk, or was not wanted. The records before it stand and verify.
        """
        return self._add(kept(record, self.hashed(record.conversation_id), self.keep_text), wanted)

    def note(self, event: str, **numbers: int) -> int:
        """Write that something else than a decision happened, such as that texts were erased, and give its number. No text, no id.

        Raises AuditError as `append` does.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        return self._add({"time": now, "event": event, **numbers}, lambda: True)

    def _add(self, record: dict[str, Any], wanted: Callable[[], bool]) -> int:
        with self._lock:
            body = canonical(record)
            with self._store.alone():
                last = self._store.last()
                if last is None:
                    raise AuditError(f"{self.path}: the header is missing; move the file away and start a new log")
                if not wanted():
                    raise AuditError(f"{self.path}: the record was given up before it could be written")
                number, before = last[0] + 1, last[1]
                self._store.add(number, body, link(before, number, body))
        return number

    def _begin(self, salt: bytes | None) -> bytes:
        """The salt to use; writes the header where there is none yet."""
        with self._store.alone():
            text = self._store.header()
            if text is None:
                drawn = salt or secrets.token_bytes(32)
                header = {
                    "demeanor_audit": FORMAT,
                    "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "salt": None if salt else drawn.hex(),
                    "salt_check": salt_check(drawn),
                }
                body = canonical(header)
                self._store.add(0, body, link("", 0, body))
                return drawn
        header = parse_header(self.path, text)
        if salt is None and header["salt"] is None:
            raise AuditError(f"{self.path}: the log was started with its own salt, which is not stored in it; give the same salt")
        used = salt or bytes.fromhex(str(header["salt"]))
        if not hmac.compare_digest(salt_check(used), str(header["salt_check"])):
            raise AuditError(f"{self.path}: the log was started with another salt; give that one, or start a new log")
        return used
