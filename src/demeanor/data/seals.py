"""Seals: whether what a sheet holds for the machine has come back as it was handed out.

A seal is written beside the cells that it is made of, one short SHA-256 for each, so that a changed cell can be named. What spreadsheets
change by themselves is left out of it: of the conversation that people read, only its ASCII letters and digits count.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from demeanor.keys import folded

SEALED = ("conversation", "trait", "group", "messages")
_DIGITS = 12


def seal(cells: Mapping[str, str]) -> str:
    """The seal of a row's cells."""
    return "sha256:" + "-".join(_digest(_kept(name, cells.get(name, ""))) for name in SEALED)


def unsealed(cells: Mapping[str, str], written: str) -> list[str]:
    """The columns whose cells are no longer what the seal was made of; ["hash"] where it is the seal that was changed."""
    parts = written.strip().removeprefix("sha256:").split("-")
    made = seal(cells).removeprefix("sha256:").split("-")
    changed = [name for name, old, new in zip(SEALED, parts, made, strict=False) if old != new]
    return ["hash"] if len(parts) != len(SEALED) or len(changed) == len(SEALED) else changed


def _kept(name: str, cell: str) -> str:
    if name == "conversation":
        return re.sub(r"[^A-Za-z0-9]", "", cell)
    return folded(cell) if name == "group" else cell.strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
