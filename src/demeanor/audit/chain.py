"""The chain that records hang in: each is kept as one canonical JSON text, and its hash covers all that came before it.

With h(0) the hash of the log's header,

    h(n) = SHA-256(h(n - 1) | n | text of record n)

so an edit, a removal, an insertion or a change of order breaks the chain from there on.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from demeanor.errors import AuditError

FORMAT = 1


def problem_with(stored: int | None, number: int, body: str, digest: str, before: str) -> str:
    """What is wrong with an entry that should be number `number` after hash `before`; empty where nothing is."""
    what = f"record {number}" if number else "the header"
    if stored is None:
        return f"{what} cannot be read"
    if stored != number:
        return f"{what} is missing: record {stored} stands in its place"
    if not hmac.compare_digest(link(before, number, body).encode(), digest.encode("utf-8", "replace")):
        return f"{what} was changed, or what stood before it was: its hash does not fit"
    return ""


def link(before: str, number: int, body: str) -> str:
    """The hash h(number) of a record's text after the hash `before`, in hexadecimal digits."""
    return hashlib.sha256(f"{before}|{number}|{body}".encode("utf-8", "surrogatepass")).hexdigest()


def salt_check(salt: bytes) -> str:
    """What tells a log's salt from another, and does not give it away."""
    return hmac.new(salt, b"demeanor audit", hashlib.sha256).hexdigest()[:16]


def canonical(record: dict[str, Any]) -> str:
    """The one text of a record: ASCII, keys sorted, no white space."""
    return json.dumps(record, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":"))


def parse_header(path: Path, text: str) -> dict[str, Any]:
    """A log's header. Raises AuditError where the text is none, or of another version."""
    try:
        header = json.loads(text)
        version = header["demeanor_audit"]
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{path}: not an audit log; name another file") from error
    if version != FORMAT:
        raise AuditError(f"{path}: written by another version of Demeanor (format {version}); this one writes format {FORMAT}")
    return dict(header)
