"""What a sweep over layers and doses found: its points, what they must keep, and the dose that follows (see calibrate)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

CERTAIN = 0.05  # p above which a shift counts as none


@dataclass(frozen=True)
class Bounds:
    """What a recommended dose must keep."""

    perplexity_ratio: float = 1.5
    """Median over prompts of the steered reply's perplexity over the unsteered one's, both by the unsteered model."""
    repetition: float = 0.1
    """By how much the mean share of repeated runs may rise."""
    capability: float = 0.1
    """By how much the share of right answers may fall."""


class Shift(NamedTuple):
    """Mean change over prompts, in units of the spread within a pole, and its two-sided p (paired t test)."""

    mean: float
    p: float


@dataclass(frozen=True)
class Point:
    """What one dose at one layer did."""

    layer: int
    dose: float
    shift: Shift
    words: Shift
    perplexity_ratio: float
    repetition: float
    kl: float
    capability: float
    empty: int
    """Replies without a word, which count as no shift and as incoherent."""
    coherent: bool

    @property
    def works(self) -> bool:
        """Whether the trait moved to the side that the dose points to, beyond chance."""
        return self.shift.mean * self.dose > 0 and self.shift.p < CERTAIN


@dataclass(frozen=True)
class Sweep:
    """A trait's curve, the unsteered model beside it, and what follows."""

    trait: str
    points: tuple[Point, ...]
    capability: float
    repetition: float
    perplexity: float
    prompts: int
    bounds: Bounds

    def recommended(self, toward: int) -> Point | None:
        """The largest dose toward the high (+1) or low (-1) pole that works and is coherent, with all smaller ones at its
        layer coherent too; at the layer where that moves the trait most. None where there is none.
        """
        best: Point | None = None
        for layer in sorted({p.layer for p in self.points}):
            largest: Point | None = None
            for point in sorted((p for p in self.points if p.layer == layer and p.dose * toward > 0), key=lambda p: abs(p.dose)):
                if not point.coherent:
                    break
                if point.works:
                    largest = point
            if largest is not None and (best is None or abs(largest.shift.mean) > abs(best.shift.mean)):
                best = largest
        return best

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        record = asdict(self)
        for point, made in zip(record["points"], self.points, strict=True):
            point["shift"], point["words"] = made.shift._asdict(), made.words._asdict()
        record["recommended"] = {}
        for name, toward in (("high", 1), ("low", -1)):
            found = self.recommended(toward)
            record["recommended"][name] = None if found is None else {"layer": found.layer, "dose": found.dose}
        return record
