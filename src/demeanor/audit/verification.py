"""Whether a log's chain holds, from its header to its end, and where it breaks.

Nothing in a file can show that its last records were cut off, or that the whole was written anew: for that, note the
head that `verify` gives (the last hash) somewhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demeanor.audit.chain import problem_with
from demeanor.audit.stores import open_store
from demeanor.errors import AuditError

_HASH = re.compile(r"[0-9a-f]{64}")


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


def verify(path: str | Path, head: str | None = None) -> Verification:
    """Check a log's chain from its header to its end.

    Args:
        path: The log.
        head: A head that was noted earlier. A log that was cut off, or written anew, holds it no more; one that goes on still does.

    Raises AuditError where the file cannot be read as a log at all, or `head` is no hash.
    """
    wanted = None if head is None else head.strip().lower()
    if wanted is not None and not _HASH.fullmatch(wanted):
        raise AuditError(f"{head!r} is not the head of a log; give the 64 hexadecimal digits that `demeanor audit verify` printed")
    noted_at: int | None = None
    found = Verification(0, "")
    for found, _ in checked(Path(path)):
        if found.head == wanted and noted_at is None:
            noted_at = found.records
    return replace(found, noted_at=noted_at)


def checked(path: Path) -> Iterator[tuple[Verification, dict[str, Any] | None]]:
    """Each record that holds, with the state of the chain so far; the header and the last state once more come with None."""
    if not path.is_file():
        raise AuditError(f"{path}: no such file; the monitor creates the audit log")
    store = open_store(path, write=False)
    try:
        before, number, problem = "", 0, ""
        for stored, body, digest in store.entries():
            problem = problem_with(stored, number, body, digest, before)
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
