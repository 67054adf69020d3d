"""The audit log: append-only, hash-chained, in SQLite or JSON lines, with no text and no identifier unless asked for.

Each record is kept as one canonical JSON text. With h(0) the hash of the log's header,

    h(n) = SHA-256(h(n - 1) | n | text of record n)

so an edit, a removal, an insertion or a change of order breaks the chain from there on, and `verify` names the place.
Nothing in a file can show that its last records were cut off, or that the whole was written anew: for that, note the
head that `verify` gives (the last hash) somewhere else. Conversation ids are HMAC-SHA256 under a salt.

A record is on disk before `append` returns. A process that is killed while it writes loses at most the record in
flight: SQLite rolls it back, and the torn last line of a JSON-lines file is left out and then overwritten.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import math
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from demeanor.errors import AuditError

if TYPE_CHECKING:
    from demeanor.monitor.decision import Decision
    from demeanor.monitor.policy import Action

FORMAT = 1
JSON_LINES = (".jsonl", ".ndjson")
_HASH = re.compile(r"[0-9a-f]{64}")
PATIENCE = 5.0  # seconds that a record waits for another process to finish its own


@dataclass(frozen=True)
class AuditRecord:
    """One decision as it is recorded. The conversation's id is hashed when it is written; `text` only kept where asked."""

    conversation_id: str
    model: str
    """Name and fingerprint of the model that was read."""
    vectors: str
    """Fingerprint of the vector set."""
    policy: str
    """`Policy.identity`."""
    recommended: Action
    """What the policy asked for."""
    taken: Action
    """What was done; another than recommended where an operator overrode it."""
    severity: str | None
    rules: tuple[str, ...]
    scores: Mapping[str, float]
    """z of each trait."""
    source: str
    situation: str | None
    referral: bool
    """Whether the user was pointed to crisis services."""
    not_scored: str | None
    latency_ms: Mapping[str, float]
    text: str | None = None
    time: str = ""
    """ISO 8601 in UTC; left empty, the time of writing."""
    trial: bool = False
    """Whether the reply was shown in a trial run though the policy would have replaced it; nobody overrode anything then."""

    @classmethod
    def of(
        cls,
        decision: Decision,
        conversation_id: str,
        model: str,
        vectors: str,
        policy: str,
        taken: Action | None = None,
        text: str | None = None,
    ) -> AuditRecord:
        """The record of a decision; `taken` where something else than the recommended was done.

        A reply that a trial run showed is marked, not replaced, whatever the policy would have done: `taken` is then "flag" at most.
        """
        from demeanor.monitor.policy import withholds

        trial = decision.instead is not None
        return cls(
            conversation_id=conversation_id,
            model=model,
            vectors=vectors,
            policy=policy,
            recommended=decision.action,
            taken="flag" if trial and withholds(taken or decision.action) else taken or decision.action,
            severity=decision.severity,
            rules=decision.rules,
            scores={trait: score.z for trait, score in decision.reading.scores.items()} if decision.reading else {},
            source=decision.source,
            situation=decision.situation,
            referral=decision.referral,
            not_scored=decision.not_scored,
            latency_ms=decision.latency_ms,
            text=text,
            trial=trial,
        )


@dataclass(frozen=True)
class Verification:
    """Whether a log's chain holds."""

    records: int
    """How many records hold, from the first."""
    head: str
    """Hash of the last of them; noted elsewhere, it shows later that nothing was cut off."""
    broken: int | None = None
    """Number of the first record that does not hold, from 1; 0 for the header."""
    problem: str = ""
    torn: bool = False
    """Whether a last, unfinished record of an interrupted write was left out; the chain holds all the same."""
    noted_at: int | None = None
    """After which record the head that was noted earlier stood; None where none was given, or it is not in the chain."""

    @property
    def whole(self) -> bool:
        """Whether every record holds."""
        return self.broken is None


class _Store(Protocol):
    """Where the texts and hashes lie."""

    def header(self) -> str | None: ...
    @contextmanager
    def alone(self) -> Iterator[None]: ...
    def last(self) -> tuple[int, str] | None: ...
    def add(self, number: int, body: str, digest: str) -> None: ...
    def entries(self) -> Iterator[tuple[int | None, str, str]]: ...
    @property
    def torn(self) -> bool: ...
    def close(self) -> None: ...


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
        self._store = _open(self.path, write=True)
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

    def append(self, record: AuditRecord, wanted: Callable[[], bool] = lambda: True) -> int:
        """Write a record and give its number, from 1.

        Args:
            record: What to write.
            wanted: Asked once, when nothing stands in the way of writing any more; where it says no, nothing is written.

        Raises:
            AuditError: it could not be written, as on a full disk, or was not wanted. The records before it stand and verify.
        """
        with self._lock:
            body = _canonical(self._as_kept(record))
            with self._store.alone():
                last = self._store.last()
                if last is None:
                    raise AuditError(f"{self.path}: the header is gone; move the file away and begin a new log")
                if not wanted():
                    raise AuditError(f"{self.path}: the record was given up before it could be written")
                number, before = last[0] + 1, last[1]
                self._store.add(number, body, _link(before, number, body))
        return number

    def _as_kept(self, record: AuditRecord) -> dict[str, Any]:
        kept: dict[str, Any] = {
            "time": record.time or datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "conversation": self.hashed(record.conversation_id),
            "model": record.model,
            "vectors": record.vectors,
            "policy": record.policy,
            "scores": {trait: round(float(z), 4) if math.isfinite(z) else None for trait, z in record.scores.items()},
            "rules": list(record.rules),
            "severity": record.severity,
            "recommended": record.recommended,
            "taken": record.taken,
            "situation": record.situation,
            "referral": record.referral,
            "source": record.source,
            "not_scored": record.not_scored,
            "latency_ms": {stage: round(float(ms), 3) for stage, ms in record.latency_ms.items()},
        }
        kept |= {"trial": True} if record.trial else {}
        return kept | ({"text": record.text} if self.keep_text and record.text is not None else {})

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
                    "salt_check": _salt_check(drawn),
                }
                body = _canonical(header)
                self._store.add(0, body, _link("", 0, body))
                return drawn
        header = _header(self.path, text)
        if salt is None and header["salt"] is None:
            raise AuditError(f"{self.path}: the log was begun with a salt of its own, which it does not hold; give the same one")
        used = salt or bytes.fromhex(str(header["salt"]))
        if not hmac.compare_digest(_salt_check(used), str(header["salt_check"])):
            raise AuditError(f"{self.path}: the log was begun with another salt; give that one, or begin a new log")
        return used


def is_log(path: Path) -> bool:
    """Whether a file is an audit log, whole or not."""
    if not path.is_file():
        return False
    try:
        store = _open(path, write=False)
    except AuditError:
        return False
    try:
        return "demeanor_audit" in (store.header() or "")
    except AuditError:
        return False
    finally:
        store.close()


def verify(path: str | Path, head: str | None = None) -> Verification:
    """Check a log's chain from its header to its end.

    Args:
        path: The log.
        head: A head that was noted earlier. A log that was cut off, or written anew, holds it no more; one that goes on still does.

    Raises AuditError where the file cannot be read as a log at all, or `head` is no hash.
    """
    wanted = None if head is None else head.strip().lower()
    if wanted is not None and not _HASH.fullmatch(wanted):
        raise AuditError(f"{head!r} is no head of a log; give the 64 hexadecimal digits that `demeanor audit verify` printed")
    noted_at: int | None = None
    found = Verification(0, "")
    for found, _ in _checked(Path(path)):
        if found.head == wanted and noted_at is None:
            noted_at = found.records
    return replace(found, noted_at=noted_at)


def report(path: str | Path) -> dict[str, Any]:
    """Counts by year and by month, without identifiers: decisions, severity, action taken, rules, referrals, not scored.

    Counts the records that hold; "chain" says whether those are all. Raises AuditError where the file cannot be read.
    """
    years: dict[str, Counter[str]] = {}
    months: dict[str, _Month] = {}
    verification = Verification(0, "")
    for state, record in _checked(Path(path)):
        verification = state
        if record is not None:
            months.setdefault(record["time"][:7], _Month()).count(record)
            years.setdefault(record["time"][:4], Counter()).update(decisions=1, referrals=int(record["referral"]))
    return {
        "records": verification.records,
        "chain": "whole" if verification.whole else verification.problem,
        "years": {year: {"decisions": c["decisions"], "referrals": c["referrals"]} for year, c in sorted(years.items())},
        "months": {month: counts.to_record() for month, counts in sorted(months.items())},
    }


@dataclass
class _Month:
    decisions: int = 0
    referrals: Counter[str] = field(default_factory=Counter)
    severity: Counter[str] = field(default_factory=Counter)
    action: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    not_scored: int = 0
    overridden: int = 0
    only_tried: int = 0
    """Replies that a trial run showed, and the policy would have replaced."""

    def count(self, record: Mapping[str, Any]) -> None:
        self.decisions += 1
        self.severity[record["severity"] or "none"] += 1
        self.action[record["taken"]] += 1
        self.rules.update(record["rules"])
        self.not_scored += record["not_scored"] is not None
        trial = record.get("trial", False)
        self.only_tried += trial
        self.overridden += record["taken"] != record["recommended"] and not trial
        if record["referral"]:
            self.referrals[record["situation"] or "none"] += 1

    def to_record(self) -> dict[str, Any]:
        counters = {name: dict(sorted(getattr(self, name).items())) for name in ("severity", "action", "rules", "referrals")}
        return {
            "decisions": self.decisions,
            **counters,
            "not_scored": self.not_scored,
            "overridden": self.overridden,
            "only_tried": self.only_tried,
        }


def _checked(path: Path) -> Iterator[tuple[Verification, dict[str, Any] | None]]:
    """Each record that holds, with the state of the chain so far; the header and the last state once more come with None."""
    if not path.is_file():
        raise AuditError(f"{path}: no such file; an audit log is begun by the monitor")
    store = _open(path, write=False)
    try:
        before, number, problem = "", 0, ""
        for stored, body, digest in store.entries():
            problem = _problem(stored, number, body, digest, before)
            if problem:
                break
            record = json.loads(body)
            before, number = digest, number + 1
            yield Verification(number - 1, before), record if number > 1 else None
        if number == 0 and not problem:
            problem = "the header is missing"
        if problem:
            yield Verification(max(number - 1, 0), before, number, problem), None
        else:
            yield Verification(number - 1, before, torn=store.torn), None
    finally:
        store.close()


def _problem(stored: int | None, number: int, body: str, digest: str, before: str) -> str:
    """What is wrong with an entry that should be number `number` after hash `before`; empty where nothing is."""
    what = f"record {number}" if number else "the header"
    if stored is None:
        return f"{what} cannot be read"
    if stored != number:
        return f"{what} is missing: record {stored} stands in its place"
    if not hmac.compare_digest(_link(before, number, body).encode(), digest.encode("utf-8", "replace")):
        return f"{what} was changed, or what stood before it was: its hash does not fit"
    return ""


def _link(before: str, number: int, body: str) -> str:
    return hashlib.sha256(f"{before}|{number}|{body}".encode("utf-8", "surrogatepass")).hexdigest()


def _salt_check(salt: bytes) -> str:
    return hmac.new(salt, b"demeanor audit", hashlib.sha256).hexdigest()[:16]


def _canonical(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
        version = header["demeanor_audit"]
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{path}: not an audit log; name another file") from error
    if version != FORMAT:
        raise AuditError(f"{path}: written by another version of Demeanor (format {version}); this one writes format {FORMAT}")
    return dict(header)


def _open(path: Path, write: bool) -> _Store:
    if path.is_dir():
        raise AuditError(f"{path} is a folder; name a file, such as audit.db or audit.jsonl")
    if not path.parent.is_dir():
        raise AuditError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.suffix in JSON_LINES:
        from demeanor.audit.json_lines import Lines

        return Lines(path, write, PATIENCE)
    from demeanor.audit.sqlite import Database

    return Database(path, write, PATIENCE)
