"""Labelled replies, as `adapt` and `calibrate` learn from them: the same rows as `score` takes, with a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.conversation import Conversation, SpanOf
from demeanor.data.answers import agreed, read_answers
from demeanor.errors import ExtractionError, InputFileError

FEWEST_GROUPS = 3  # prompts from which on they are kept together


@dataclass(frozen=True)
class Labelled:
    """Labelled replies: `target` in [0, 1] (1 is the high pole), `group` what belongs together (the same prompt or pair)."""

    conversations: list[Conversation]
    target: NDArray[Any]
    group: NDArray[Any]
    weight: NDArray[np.float64] | None = None
    """How many replies of the traffic each stands for, where they were not drawn alike; None: all stand for as many."""

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
        return Labelled(kept, self.target[keep], self.group[keep], None if self.weight is None else self.weight[keep])

    @property
    def weights(self) -> NDArray[np.float64] | None:
        """The weights with a mean of 1, so that as many labels count for as much; None where all are alike."""
        if self.weight is None or len(self.weight) == 0 or np.ptp(self.weight) == 0:
            return None
        return np.asarray(self.weight / self.weight.mean(), float)

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
    """Labelled rows of a JSON-lines file, or of a sheet that `demeanor sample` wrote, without a trait in view.

    Args:
        path: The file.
        reads: What the trait is read on, which no row may lack.

    `label` is a number (higher is more of the trait) or high/low. Rows of one `pair_id`, else one `group`, else one
    prompt belong together. A row with an empty label is passed over, as in a sheet that is half done. Raises InputFileError,
    with every line in one list, for labels that cannot be read and rows without what is to be read; and where no row has a label at
    all, or some have it under another name. `answers.py` has the same in two steps, with the trait's safe pole and what was left out.
    """
    found = agreed(read_answers(path), reads)
    if not found.values:
        raise InputFileError(f"{path} has no labelled row; give each reply a 'label': 0 or 1, or a number, higher for more of the trait")
    return as_labelled(found.conversations, found.values, found.groups)
