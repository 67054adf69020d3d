"""Labelled replies, as `adapt` and `calibrate` learn from them: the same rows as `score` takes, with a label."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.conversation import Conversation, SpanOf
from demeanor.data.rows import Row
from demeanor.data.sheets import COLUMNS, conversation_of, empty, group_of, rows_of
from demeanor.errors import ExtractionError, InputFileError
from demeanor.keys import folded

LABEL = "label"
OTHER_NAMES = ("level", "score", "rating", "grade", "target", "class", "annotation")
"""Columns that may hold what was meant as a label; they are named in an error, and never read."""
SHOWN = 12  # columns that an error names
WORDS = {"high": 1.0, "low": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
FEWEST_GROUPS = 3  # prompts from which on they are kept together


@dataclass(frozen=True)
class Labelled:
    """Labelled replies: `target` in [0, 1] (1 is the high pole), `group` what belongs together (the same prompt or pair)."""

    conversations: list[Conversation]
    target: NDArray[Any]
    group: NDArray[Any]

    @property
    def high(self) -> NDArray[np.bool_]:
        """Above the middle of the targets; of graded labels, above their median."""
        middle = 0.5 if set(np.unique(self.target)) <= {0.0, 1.0} else float(np.median(self.target))
        above = self.target > middle
        return above if above.any() else self.target >= middle

    @property
    def prompts(self) -> int:
        """How many groups there are."""
        return len(set(self.group.tolist()))

    def where(self, keep: NDArray[np.bool_]) -> Labelled:
        """Some of the rows, with the same targets."""
        kept = [c for c, k in zip(self.conversations, keep.tolist(), strict=True) if k]
        return Labelled(kept, self.target[keep], self.group[keep])

    @property
    def clusters(self) -> NDArray[Any]:
        """What is drawn together for intervals: groups, or single rows where the groups are too few to be drawn."""
        return self.group if self.prompts >= FEWEST_GROUPS else np.arange(len(self.group))


def as_labelled(conversations: Sequence[Conversation], labels: Sequence[float], groups: Sequence[str]) -> Labelled:
    """Labels of any scale as targets between 0 and 1. Raises ExtractionError where they are all the same."""
    values = np.array(labels, float)
    if len(values) == 0 or values.max() == values.min():
        raise ExtractionError("all labels are the same; both kinds of reply are needed")
    return Labelled(list(conversations), (values - values.min()) / (values.max() - values.min()), np.array(groups))


def read_labelled(path: Path, reads: SpanOf | None = None) -> Labelled:
    """Labelled rows of a JSON-lines file, or of a CSV that `demeanor sample` wrote.

    Args:
        path: The file.
        reads: What the trait is read on, which no row may lack.

    `label` is a number (higher is more of the trait) or high/low. Rows of one `pair_id`, else one `group`, else one
    prompt belong together. A row with an empty label is passed over, as in a sheet that is half done. Raises InputFileError,
    with the line, for a label that cannot be read and a row without what is to be read; and where no row has a label at all,
    or some have it under another name.
    """
    conversations, labels, groups = [], [], []
    for row in labelled_rows(path):
        raw = row.record[LABEL]
        if empty(raw):
            continue
        labels.append(_number(path, row.number, raw))
        conversation = conversation_of(path, row, reads)
        conversations.append(conversation)
        groups.append(group_of(row.record, conversation))
    if not labels:
        raise InputFileError(f"{path} holds no labelled row; give each reply a 'label': 0 or 1, or a number, higher for more of the trait")
    return as_labelled(conversations, labels, groups)


def labelled_rows(path: Path) -> list[Row]:
    """The rows that have the column `label`, filled in or not.

    Raises InputFileError where no row has it, and at a row that has one that is nearly so named: it would be passed over in silence.
    """
    rows = rows_of(path)
    with_it = [row for row in rows if LABEL in row.record]
    columns = list(dict.fromkeys(name for row in rows for name in row.record))
    near = _nearly(columns)
    if rows and not with_it:
        shown = ", ".join(repr(name) for name in columns[:SHOWN]) + (", ..." if len(columns) > SHOWN else "")
        raise InputFileError(
            f"{path} has no column 'label', only {shown or 'empty rows'}; "
            + (
                f"if {near!r} is it, rename it to 'label'"
                if near
                else "give each reply one: 0 or 1, or a number, higher for more of the trait"
            )
        )
    for row in rows:
        if near is not None and LABEL not in row.record and near not in OTHER_NAMES and _value(row.record.get(near)) is not None:
            raise InputFileError(f"{path}: line {row.number} has no 'label', and {near!r} is not read as one; rename it to 'label'")
    return with_it


def _nearly(columns: list[str]) -> str | None:
    """The column that was probably meant to be `label`."""
    names = {folded(name): name for name in columns if folded(name) not in COLUMNS}
    close = next(iter(difflib.get_close_matches(LABEL, names, n=1, cutoff=0.7)), None)
    near = close or next((word for word in OTHER_NAMES if word in names), None)
    return names[near] if near else None


def _number(path: Path, number: int, raw: object) -> float:
    value = _value(raw)
    if value is None:
        raise InputFileError(f"{path}: line {number}: the label {raw!r} is neither a number nor high or low")
    return value


def _value(raw: object) -> float | None:
    """A label as a number; None where it is none."""
    text = str(raw).strip().lower()
    if text in WORDS:
        return WORDS[text]
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
