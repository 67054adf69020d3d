"""Saying what was read of labelled replies, and how well a calibration to them holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from demeanor.cli import console

if TYPE_CHECKING:
    from demeanor.data.labelled import Labelled


def calibration_error(ece: float) -> str:
    """In words, also where it is unknown."""
    if math.isnan(ece):
        return "calibration error unknown: too few prompts with replies of both kinds to cross-validate"
    return f"calibration error {ece:.3f} (cross-validated)"


def note_size(labelled: Labelled) -> None:
    """Say what was read."""
    high = labelled.high
    console.note(
        f"{len(high)} labelled replies ({int(high.sum())} high, {int((~high).sum())} low), {len(set(labelled.group.tolist()))} prompts"
    )
