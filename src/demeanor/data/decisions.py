"""Replies that the monitor has decided about, as `demeanor monitor --output` writes them: rows of conversations with 'demeanor'."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demeanor.conversation import Conversation, from_record
from demeanor.data.rows import read_rows
from demeanor.data.sheets import own_group
from demeanor.errors import DemeanorError, InputFileError


@dataclass(frozen=True)
class Decided:
    """A reply, what was said before it, and what was decided about it."""

    name: str
    conversation: Conversation
    """Ends with the reply."""
    action: str
    z: Mapping[str, float] = field(default_factory=dict)
    """By trait; a trait that could not be read is missing."""
    group: str = ""
    """What it belongs together with, if it is not its prompt: the group of its row, or the conversation that holds several replies."""


def read_decisions(path: Path) -> tuple[list[Decided], list[str], int]:
    """Every reply that was decided about, what is wrong with the rows that hold none that can be read, and how many rows there are.

    Raises InputFileError for a file in which no row holds decisions.
    """
    found: list[Decided] = []
    left: list[str] = []
    rows = 0
    for row in read_rows(path):
        rows += 1
        if row.error is not None:
            left.append(row.error)
            continue
        try:
            found += _decided(row.name, row.record)
        except (DemeanorError, TypeError, KeyError, AttributeError) as error:
            left.append(f"line {row.number}: {error if isinstance(error, DemeanorError) else _FOREIGN}")
    if not found:
        raise InputFileError(f"{path}: no row holds a decision ({left[0] if left else 'it is empty'}); {_WANTED}")
    return found, left, rows


_FOREIGN = "its 'demeanor' holds no decisions of the monitor"
_WANTED = "give a file that `demeanor monitor --output` wrote, or unlabelled replies with --input"


def _decided(name: str, record: dict[str, Any]) -> Iterator[Decided]:
    said = record["demeanor"]
    if "error" in said:
        raise InputFileError(f"not judged: {said['error']}")
    conversation = from_record(record)
    several = f"conversation {name}" if len(said["decisions"]) > 1 else ""
    made = []
    for decision in said["decisions"]:
        at = decision["message"]
        if not isinstance(at, int) or not 0 <= at < len(conversation.messages) or conversation.messages[at].role != "assistant":
            raise InputFileError(f"a decision is about message {at}, which is no reply; the rows were changed since")
        scores = (decision.get("reading") or {}).get("scores") or {}
        z = {trait: score["z"] for trait, score in scores.items() if isinstance(score.get("z"), int | float) and math.isfinite(score["z"])}
        upto = Conversation(conversation.messages[: at + 1])
        made.append(Decided(f"{name} message {at + 1}" if several else name, upto, decision["action"], z, own_group(record) or several))
    yield from made  # none of a row that turns out to be broken half way
