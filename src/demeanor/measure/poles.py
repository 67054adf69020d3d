"""The two poles of a trait, and which side of its scores is the unsafe one. The one place where that is derived."""

from __future__ import annotations

from typing import Literal

Pole = Literal["high", "low"]
Side = Literal["above", "below"]


def unsafe_side(safe_pole: Pole) -> Side:
    """Scores rise toward the high pole: where that is the safe one, what lies below a cut is unsafe."""
    return "below" if safe_pole == "high" else "above"
