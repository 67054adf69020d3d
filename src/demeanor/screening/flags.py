"""Which rows are flagged: thresholds, what crosses them, and the flagged in order of badness, spilled to disk where many.

    beyond = z - threshold   where the unsafe side is above,  threshold - z  where it is below; flagged from 0 on

A row's badness is the largest `beyond` over its traits, in units of each trait's usual spread. Two rules narrow this:
a trait that is read on the user's own messages says nothing against a reply, so it flags only where a threshold is given
for it; and a trait that applies only under a condition (crisis recognition where the user is at risk) is judged as the monitor judges
it: eased by what the user's messages lack, or not judged. Where nothing is known of a hard condition, as in a row without a user's
message, the row counts.
"""

from __future__ import annotations

import heapq
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.data.rows import to_line
from demeanor.errors import VectorSetError, nearest
from demeanor.measure.conditions import Condition
from demeanor.measure.cuts import Cut
from demeanor.measure.metrics import Array
from demeanor.measure.thresholds import ALWAYS
from demeanor.vectors.vector_set import VectorSet

DEFAULTS = ("false_alarm 0.05", "miss 0.2")
"""The thresholds that are looked for where none is asked for: most of a data set is fine, so false alarms come first."""
SPILL = 20_000  # flagged rows that are held in memory before they are sorted onto the disk


@dataclass(frozen=True)
class Limit:
    """A cut on one trait's z, and when it counts."""

    trait: str
    name: str
    cut: Cut
    guarantee: str = ""
    conditions: tuple[Condition, ...] = ()

    def beyond(self, z: Mapping[str, Array], easing: Mapping[str, Array]) -> Array:
        """How far each row lies on the unsafe side [rows]; minus infinity where it is not scored or the trait does not count.

        Args:
            z: By trait [rows].
            easing: By how many z each row is eased, for traits with a condition [rows].
        """
        far = self.cut.beyond(z[self.trait], np.zeros_like(z[self.trait]))
        far = np.where(np.isnan(far), -np.inf, far)
        return far if not self.conditions else far - easing[self.trait]


def choose_limits(vectors: VectorSet, wanted: Sequence[str] = (), always: bool = False) -> dict[str, Limit]:
    """The threshold of each trait that flags.

    Args:
        vectors: The set, whose calibrations hold thresholds by name.
        wanted: "miss 0.1" takes that threshold of every trait; "TRAIT=1.5" gives one trait a z, whatever is given for all. Of two
            of a kind the later wins. By default the calibrations' "false_alarm 0.05", else "miss 0.2"; a trait that has
            neither is cut half-way between its poles.
        always: Whether each trait counts in every row, also where its condition does not hold.

    Raises:
        VectorSetError: no such trait or threshold.
    """
    flagging = vectors.judged
    limits = {name: _default(vectors, name, always) for name in flagging}
    for text in sorted(wanted, key=lambda text: "=" in text):
        trait, given, value = (part.strip() for part in text.partition("="))
        if not given:
            found = {name: _calibrated(vectors, name, " ".join(text.split()), always) for name in flagging}
            without = [name for name, limit in found.items() if limit is None]
            if without:
                known = vectors[without[0]].calibration.thresholds
                raise VectorSetError(f"{without[0]} has no threshold {text!r}; {nearest(text, known)}, or give TRAIT=Z")
            limits |= {name: limit for name, limit in found.items() if limit}
            continue
        if trait not in vectors.traits:
            raise VectorSetError(f"no trait {trait!r} to set a threshold for; {nearest(trait, vectors.traits)}")
        try:
            z = float(value)
        except ValueError:
            z = math.nan
        if not math.isfinite(z):
            raise VectorSetError(f"the threshold {text!r} is not TRAIT=Z with a number")
        limits[trait] = _limit(vectors, trait, "given", z)
    return {name: replace(limit, conditions=()) for name, limit in limits.items()} if always else limits


def known_limits(vectors: VectorSet, chosen: Mapping[str, Limit]) -> list[Limit]:
    """Every threshold that a row can be counted against: those of the calibrations, and the chosen ones."""
    found: dict[tuple[str, str], Limit] = {}
    for trait, limit in chosen.items():
        for name in vectors[trait].calibration.thresholds:
            calibrated = _calibrated(vectors, trait, name, not limit.conditions)
            if calibrated is not None and not name.endswith(ALWAYS):
                found[trait, name] = replace(calibrated, conditions=limit.conditions)
        found[trait, limit.name] = limit
    return list(found.values())


def _default(vectors: VectorSet, trait: str, always: bool) -> Limit:
    found = (_calibrated(vectors, trait, name, always) for name in DEFAULTS)
    return next((limit for limit in found if limit), None) or _limit(vectors, trait, "half-way between the poles", 0.0)


def _calibrated(vectors: VectorSet, trait: str, name: str, always: bool) -> Limit | None:
    known = vectors[trait].calibration.thresholds
    threshold = (known.get(name + ALWAYS) if always else None) or known.get(name)
    return None if threshold is None else Limit(trait, name, Cut.of(threshold), threshold.guarantee, vectors.conditions(trait))


def _limit(vectors: VectorSet, trait: str, name: str, z: float) -> Limit:
    return Limit(trait, name, Cut("z", z, vectors[trait].unsafe_side, name), conditions=vectors.conditions(trait))


@dataclass(frozen=True)
class Flagged:
    """A row that crosses a threshold (or, in a list of the worst, one that comes nearest)."""

    beyond: float
    row: int
    trait: str
    """The trait by which it is worst."""
    z: float
    traits: dict[str, dict[str, float]]
    """Every trait that it crosses, with its z and threshold."""
    messages: list[dict[str, str]]
    id: Any = None

    @property
    def order(self) -> tuple[float, int]:
        """Worst first; of equals the earlier row."""
        return (-self.beyond, self.row)

    @property
    def reply(self) -> str:
        """The text that was scored."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "assistant"), "")


class Sorter:
    """Flagged rows in order of badness, in bounded memory: sorted runs go to a folder and are merged as they are read."""

    def __init__(self, folder: Path, held: int = SPILL) -> None:
        self.folder, self.held = folder, held
        self.count = 0
        self._here: list[Flagged] = []
        self._runs: list[Path] = []
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed

    def add(self, flagged: Flagged) -> None:
        """Take one in."""
        self.count += 1
        self._here.append(flagged)
        if len(self._here) >= self.held:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._runs.append(self.folder / f"run-{len(self._runs):05d}.jsonl")
            with self._runs[-1].open("w", encoding="utf-8") as file:
                file.writelines(to_line(vars(f)) for f in sorted(self._here, key=lambda f: f.order))
            self._here = []

    def worst_first(self) -> Iterator[Flagged]:
        """All of them in order; may be called again."""
        runs: list[Iterable[Flagged]] = [_read(path) for path in self._runs]
        return heapq.merge(*runs, sorted(self._here, key=lambda f: f.order), key=lambda f: f.order)

    def close(self) -> None:
        """Remove what was spilled."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read(path: Path) -> Iterator[Flagged]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield Flagged(**json.loads(line))


@dataclass
class Worst:
    """The worst few rows of one trait, whether they cross its threshold or not."""

    size: int
    rows: list[Flagged] = field(default_factory=list)

    def candidates(self, beyond: Array) -> NDArray[np.int64]:
        """Indices of the rows of a part that may be among the worst, worst first."""
        last = self.rows[-1].beyond if len(self.rows) == self.size else -np.inf
        order = np.argsort(-beyond, kind="stable")[: self.size]
        return order[beyond[order] > last]

    def add(self, flagged: Sequence[Flagged]) -> None:
        """Take some in and keep the worst."""
        self.rows = sorted([*self.rows, *flagged], key=lambda f: f.order)[: self.size]
