"""Figures as data: where each mark stands on a page, in percent of the drawing's width and height.

A template draws them as SVG in percent, so that a figure is as wide as its page, on a phone too, while its text and dots keep their size.
What a mark means is a word (`safe`, `unsafe`, `plain`, `series-0`); the style sheet gives each word its colour, on light and dark ground.
Two forms: rows with a track each, for one value or a distribution in a row; and a plot with two axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

SERIES = 7  # colours and dashes that lines are told apart by
BINS = 48  # of a distribution


class Scale(NamedTuple):
    """A stretch of numbers that is laid over 0 to 100 percent."""

    low: float
    high: float
    ticks: tuple[float, ...]
    names: tuple[str, ...] = ()
    """What stands at the ticks, where it is not their number."""

    @classmethod
    def over(cls, values: Iterable[float], wanted: int = 6) -> Scale:
        """One that holds all these numbers, with round ends and about so many ticks; what is no finite number is passed over."""
        known = [float(v) for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(known), max(known)
        if low == high:
            low, high = low - 1, high + 1
        step = _round_step((high - low) / wanted)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(first * step, last * step, tuple(round(i * step, 10) for i in range(first, last + 1)))

    @classmethod
    def counting(cls, n: int, most: int = 15) -> Scale:
        """1 to n, with room at both ends."""
        step = max(1, math.ceil(n / most))
        return cls(0.6, n + 0.4, tuple(float(i) for i in range(1, n + 1, step)))

    def at(self, value: float) -> float:
        """Where a number lies, in percent from the low end; what lies outside is put at the end."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    @property
    def labels(self) -> list[tuple[float, str]]:
        """Each tick's place and text, with as many decimals as the ticks need."""
        if self.names:
            return [(self.at(t), name) for t, name in zip(self.ticks, self.names, strict=True)]
        places = next((p for p in range(7) if all(abs(t - round(t, p)) < 1e-9 for t in self.ticks)), 6)
        return [(self.at(t), f"{t:.{places}f}".replace("-", "−")) for t in self.ticks]


def _round_step(wanted: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `wanted`."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= wanted * (1 - 1e-9))


class Dot(NamedTuple):
    """A mark at a place. `hollow` ones are read beside the full ones; `sign` is a letter in its place."""

    x: float
    y: float
    kind: str
    title: str = ""
    hollow: bool = False
    sign: str = ""


class Box(NamedTuple):
    """A filled rectangle, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str = ""


class Line(NamedTuple):
    """A line through points, "x,y x,y"; a broken one is several."""

    points: str
    kind: str


class Level(NamedTuple):
    """A line across the whole drawing, upright or level, with a word beside it."""

    at: float
    kind: str
    title: str = ""


class Named(NamedTuple):
    """What a kind of mark stands for."""

    kind: str
    name: str
    sign: str = ""


@dataclass(frozen=True)
class Track:
    """One row of a figure: its name, its value in words, and what is drawn."""

    name: str
    words: str = ""
    span: tuple[float, float] | None = None
    """From where to where an interval reaches."""
    dots: tuple[Dot, ...] = ()
    boxes: tuple[Box, ...] = ()
    kind: str = "plain"


@dataclass(frozen=True)
class Rows:
    """Rows over one common axis."""

    label: str
    """What a screen reader says of it."""
    scale: Scale
    title: str
    """What the axis measures."""
    tracks: tuple[Track, ...]
    levels: tuple[Level, ...] = ()
    """Upright lines through all rows."""
    legend: tuple[Named, ...] = ()
    tall: bool = False
    """Whether a row needs room for a distribution."""


@dataclass(frozen=True)
class Plot:
    """A drawing with two axes."""

    label: str
    x: Scale
    x_title: str
    y: Scale
    y_title: str
    lines: tuple[Line, ...] = ()
    dots: tuple[Dot, ...] = ()
    boxes: tuple[Box, ...] = ()
    levels: tuple[Level, ...] = ()
    """Level lines."""
    upright: tuple[Level, ...] = ()
    legend: tuple[Named, ...] = ()
    height: int = 240
    bare: bool = False
    """Without the lower axis, where another one stands below it."""


def series(i: int) -> str:
    """The kind of the i-th line."""
    return f"series-{i % SERIES}"


def side(safe: bool) -> str:
    """The kind of what lies on the safe or on the unsafe side."""
    return "safe" if safe else "unsafe"


def strokes(x: Scale, y: Scale, points: Sequence[tuple[float, float | None]], kind: str) -> list[Line]:
    """A line through points; it breaks where one is unknown."""
    pieces: list[list[str]] = [[]]
    for px, py in points:
        if py is None or not math.isfinite(py):
            pieces.append([])
        else:
            pieces[-1].append(f"{x.at(px):g},{round(100 - y.at(py), 2):g}")
    return [Line(" ".join(piece), kind) for piece in pieces if len(piece) > 1]


def line_plot(
    label: str,
    drawn: Mapping[str, Sequence[tuple[float, float | None]]],
    x_title: str,
    y_title: str,
    x: Scale | None = None,
    y: Scale | None = None,
    marked: bool = True,
    levels: Sequence[tuple[float, str]] = (),
    also: Sequence[Dot] = (),
    height: int = 260,
) -> Plot:
    """Lines by name, each through its points, with a dot on each where `marked`; `levels` are level lines with their names."""
    known = [(px, py) for points in drawn.values() for px, py in points if py is not None and math.isfinite(py)]
    x = x or Scale.over([px for px, _ in known])
    y = y or Scale.over([*(py for _, py in known), *(at for at, _ in levels)], 5)
    lines = [line for i, points in enumerate(drawn.values()) for line in strokes(x, y, points, series(i))]
    dots = [
        Dot(x.at(px), round(100 - y.at(py), 2), series(i), f"{name}: {py:.3g} at {px:g}")
        for i, (name, points) in enumerate(drawn.items())
        for px, py in points
        if py is not None and math.isfinite(py)
    ]
    return Plot(
        label, x, x_title, y, y_title, tuple(lines), (*(dots if marked else ()), *also),
        levels=tuple(Level(round(100 - y.at(at), 2), "plain", name) for at, name in levels),
        legend=tuple(Named(series(i), name) for i, name in enumerate(drawn)), height=height,
    )  # fmt: skip


def bars(
    label: str, values: Sequence[tuple[float, str, str]], x: Scale, x_title: str, y: Scale, y_title: str, edges: Sequence[float]
) -> Plot:
    """Bars from 0 between each two edges: each a value, its kind and what is said of it."""
    zero = 100 - y.at(0)
    boxes = []
    for (value, kind, title), low, high in zip(values, edges[:-1], edges[1:], strict=True):
        top = 100 - y.at(value)
        left, width = x.at(low), max(0.05, round(x.at(high) - x.at(low), 2))
        if value:
            boxes.append(Box(left, round(min(top, zero), 2), width, round(max(0.4, abs(top - zero)), 2), kind, title))
    return Plot(label, x, x_title, y, y_title, boxes=tuple(boxes), levels=(Level(round(zero, 2), "zero"),))


def distribution(values: ArrayLike, scale: Scale, kind: str, base: float = 96.0, room: float = 88.0) -> tuple[Box, ...]:
    """How often values fall where, as boxes that stand on `base` percent and fill at most `room`; negative room hangs them down."""
    known = np.asarray(values, float)
    known = np.clip(known[np.isfinite(known)], scale.low, scale.high)
    counts, edges = np.histogram(known, BINS, (scale.low, scale.high))
    most = max(1, int(counts.max(initial=0)))
    found = []
    for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            height = round(abs(room) * count / most, 2)
            top = base - height if room > 0 else base
            title = f"{count} from {low:.2f} to {high:.2f}"
            found.append(Box(scale.at(low), round(top, 2), round(100 / BINS, 2), height, kind, title))
    return tuple(found)
