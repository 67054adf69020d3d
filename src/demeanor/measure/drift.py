"""Drift over a conversation: an EWMA and a CUSUM of one trait's scores, against a baseline of ordinary conversations.

Scores z are turned toward the unsafe side and standardised by the baseline's mean and spread at that turn,
s = (z - mean(t)) / spread(t). Turns of one conversation are alike, so s is modelled as

    s(t) = b + a(t),    b ~ N(0, share) once for a conversation,    a(t) = phi a(t - 1) + noise,    var a = 1 - share

and both charts run on the standardised one-step errors e(t) of the Kalman filter for it, which are independent N(0, 1) as
long as nothing drifts (residual charts: Alwan & Roberts 1988; Montgomery 2019, ch. 10). e is cut at +-CLIP, so that one
odd turn is no drift.

    EWMA    w(t) = (1 - L) w(t - 1) + L e(t)                        L = 0.1       (Roberts 1959)
            limit(t) = 3.8 sqrt(L / (2 - L) (1 - (1 - L)^2t))                       from w's own variance, exact at every t
    CUSUM   c(t) = max(0, c(t - 1) + e(t) - 0.5), on e itself, never on w         (Page 1954)
            limit 8

Both limits are wider by 1 + 3 / n for a baseline from n conversations, whose means and spreads are estimates themselves.
How near a limit is, r = max(w / limit, c / limit), gives the level: watch from 0.7, warning from 1 (an alarm), critical from 1.5.
A level is left, one step at a time, after three turns under 0.7 of where it began. From a warning on, the filter stops
learning, so that a drifted conversation does not become its own norm. Design and measurements: docs/drift.md.

Numpy only; knows no model and no tensor. The model, its filter and both charts are one thing: each constant above is set with the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demeanor.errors import ExtractionError

Array = NDArray[np.float64]
Level = Literal["none", "watch", "warning", "critical"]
LEVELS: tuple[Level, ...] = ("none", "watch", "warning", "critical")

SMOOTHING = 0.1
EWMA_WIDTH = 3.8
SLACK = 0.5  # half the shift, in spreads, that the CUSUM is quickest for
CUSUM_LIMIT = 8.0
CLIP = 3.0
ESTIMATION = 3.0
ENTER = np.array([0.0, 0.7, 1.0, 1.5])
LEAVE = 0.7
CALM_TURNS = 3

FEWEST_CONVERSATIONS = 40
FEWEST_SCORES = 40  # of a stretch of turns, under which it is pooled with the next
LAGS = 8


@dataclass(frozen=True)
class Baseline:
    """How one trait scores, turn by turn, in ordinary conversations."""

    starts: tuple[int, ...]
    """First turn (from 0) of each stretch of turns that are pooled; the last stretch has no end."""
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    share: float
    """The part of the variance that a whole conversation shares."""
    phi: float
    """Correlation of neighbouring turns beyond that."""
    conversations: int
    scores: int

    @classmethod
    def fit(cls, sequences: Sequence[Sequence[float]]) -> Baseline:
        """From the scores of ordinary conversations, turn by turn; NaN where a turn was not scored.

        Raises:
            ExtractionError: too few conversations, or scores without any spread.
        """
        rows = [np.asarray(s, float) for s in sequences]
        rows = [r for r in rows if np.isfinite(r).any()]
        if len(rows) < FEWEST_CONVERSATIONS:
            raise ExtractionError(f"{len(rows)} scored conversations cannot make a baseline: {FEWEST_CONVERSATIONS} are needed")
        z = np.full((len(rows), max(len(r) for r in rows)), np.nan)
        for i, row in enumerate(rows):
            z[i, : len(row)] = np.where(np.isfinite(row), row, np.nan)
        starts = _stretches(np.isfinite(z).sum(0))
        s, means, spreads = np.full_like(z, np.nan), [], []
        for start, end in zip(starts, [*starts[1:], z.shape[1]], strict=True):
            part = z[:, start:end]
            mean, spread = float(np.nanmean(part)), float(np.nanstd(part, ddof=1))
            if not spread > 0:
                raise ExtractionError(f"the baseline's scores from turn {start + 1} on are all the same; are they different conversations?")
            s[:, start:end] = (part - mean) / spread
            means.append(mean)
            spreads.append(spread)
        share, phi = _dependence(s)
        return cls(tuple(starts), tuple(means), tuple(spreads), share, phi, len(rows), int(np.isfinite(z).sum()))

    def at(self, turn: int) -> tuple[float, float]:
        """Mean and spread at a turn, from 0."""
        stretch = int(np.searchsorted(self.starts, turn, side="right")) - 1
        return self.means[stretch], self.spreads[stretch]

    @property
    def margin(self) -> float:
        """How much wider the limits are because the baseline is estimated."""
        return 1 + ESTIMATION / self.conversations

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "starts": list(self.starts),
            "means": list(self.means),
            "spreads": list(self.spreads),
            "share": self.share,
            "phi": self.phi,
            "conversations": self.conversations,
            "scores": self.scores,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Baseline:
        """From what `to_record` gave."""
        return cls(**{**record, **{name: tuple(record[name]) for name in ("starts", "means", "spreads")}})


@dataclass(frozen=True)
class DriftState:
    """One trait after one turn. All but `expected` and `spread` are in spreads, positive toward the unsafe side."""

    turn: int
    """From 1."""
    level: Level
    scored: bool
    """False: this turn had no score; the charts stand where they stood."""
    ewma: float
    ewma_limit: float
    cusum: float
    cusum_limit: float
    error: float | None
    """e(t): how far the turn was from what the conversation so far let expect; None where it was not scored."""
    expected: float
    """The baseline's mean z at this turn, and its spread."""
    spread: float

    @property
    def alarm(self) -> bool:
        """Whether the level is warning or critical."""
        return self.level in ("warning", "critical")


class DriftMonitor:
    """Watches one trait of one conversation. `unsafe_side` is that of the trait."""

    def __init__(self, baseline: Baseline, unsafe_side: Literal["above", "below"] = "above") -> None:
        self.baseline = baseline
        self._charts = Charts(baseline, unsafe_side)

    def update(self, z: float | None) -> DriftState:
        """The state after the next turn; None or NaN for a turn that could not be scored."""
        charts = self._charts
        scored = z is not None and math.isfinite(z)
        charts.step(np.array([z if scored else np.nan], float))
        expected, spread = self.baseline.at(charts.turn - 1)
        return DriftState(
            turn=charts.turn,
            level=LEVELS[int(charts.level[0])],
            scored=scored,
            ewma=float(charts.ewma[0]),
            ewma_limit=float(charts.ewma_limit[0]),
            cusum=float(charts.cusum[0]),
            cusum_limit=charts.cusum_limit,
            error=float(charts.error[0]) if scored else None,
            expected=expected,
            spread=spread,
        )


class DriftWatch:
    """Watches several traits of one conversation; `sides` names the unsafe side of each.

    A conversation that began before goes on at its own turn: `earlier` replies count as turns without a score until they are read.
    """

    def __init__(self, baselines: Mapping[str, Baseline], sides: Mapping[str, Literal["above", "below"]], earlier: int = 0) -> None:
        self.baselines, self.sides = baselines, sides
        self._turns: list[Mapping[str, float]] = [{}] * earlier
        self._begin()

    def turn(self, z: Mapping[str, float]) -> dict[str, DriftState]:
        """The states after the next turn, by its scores; a trait without one was not scored."""
        self._turns.append(z)
        return self._step(z)

    def take_back(self) -> None:
        """The last turn is judged again: as if it had not been."""
        self._turns.pop()
        self._begin()

    def read(self, earlier: Mapping[int, Mapping[str, float]]) -> None:
        """The scores of turns that were not scored before, by their number from 0."""
        self._turns = [earlier.get(number, z) for number, z in enumerate(self._turns)]
        self._begin()

    def _begin(self) -> None:
        self._monitors = {trait: DriftMonitor(baseline, self.sides[trait]) for trait, baseline in self.baselines.items()}
        for z in self._turns:
            self._step(z)

    def _step(self, z: Mapping[str, float]) -> dict[str, DriftState]:
        return {trait: monitor.update(z.get(trait)) for trait, monitor in self._monitors.items()}


class Charts:
    """The charts of many conversations side by side, a turn at a time; DriftMonitor's with one, a replay's with all."""

    def __init__(self, baseline: Baseline, unsafe_side: Literal["above", "below"] = "above", conversations: int = 1) -> None:
        self.baseline, self.sign = baseline, 1.0 if unsafe_side == "above" else -1.0
        self.cusum_limit = CUSUM_LIMIT * baseline.margin
        zeros = np.zeros(conversations)
        self.turn = 0
        self.scored = zeros.copy()
        self.ewma, self.ewma_limit, self.cusum, self.error = zeros.copy(), np.full(conversations, np.inf), zeros.copy(), zeros.copy()
        self.level, self._calm = np.zeros(conversations, int), np.zeros(conversations, int)
        # the filter: means of b and a, and their covariances, before the turn is seen
        self._b, self._a = zeros.copy(), zeros.copy()
        self._bb, self._ba, self._aa = zeros + baseline.share, zeros.copy(), zeros + (1 - baseline.share)

    def step(self, z: ArrayLike) -> Array:
        """Take in a turn's scores [conversations], NaN where there is none; gives the levels, 0 to 3."""
        mean, spread = self.baseline.at(self.turn)
        self.turn += 1
        s = self.sign * (np.asarray(z, float) - mean) / spread
        seen = np.isfinite(s)
        variance = self._bb + 2 * self._ba + self._aa
        self.error = np.clip(np.where(seen, s - self._b - self._a, 0) / np.sqrt(variance), -CLIP, CLIP)
        self.scored += seen
        self.ewma = np.where(seen, (1 - SMOOTHING) * self.ewma + SMOOTHING * self.error, self.ewma)
        decay = 1 - (1 - SMOOTHING) ** (2 * np.maximum(self.scored, 1))
        self.ewma_limit = EWMA_WIDTH * self.baseline.margin * np.sqrt(SMOOTHING / (2 - SMOOTHING) * decay)
        self.cusum = np.where(seen, np.clip(self.cusum + self.error - SLACK, 0, 2 * self.cusum_limit), self.cusum)
        self._set_level(seen)
        self._learn(seen & (self.level < LEVELS.index("warning")), variance)
        return self.level.astype(float)

    def _set_level(self, seen: NDArray[np.bool_]) -> None:
        ratio = np.maximum(self.ewma / self.ewma_limit, self.cusum / self.cusum_limit)
        reached = np.searchsorted(ENTER, ratio, side="right") - 1
        calm = seen & (ratio < LEAVE * ENTER[self.level])
        self._calm = np.where(calm, self._calm + 1, np.where(seen, 0, self._calm))
        fall = self._calm >= CALM_TURNS
        self.level = np.where(reached > self.level, reached, self.level - fall)
        self._calm = np.where(fall, 0, self._calm)

    def _learn(self, learns: NDArray[np.bool_], variance: Array) -> None:
        """Kalman update where the charts are quiet, then the prediction of the next turn."""
        kb, ka = (self._bb + self._ba) / variance, (self._ba + self._aa) / variance
        innovation = np.where(learns, self.error * np.sqrt(variance), 0)
        self._b, self._a = self._b + kb * innovation, self._a + ka * innovation
        for name, first, second in (("_bb", kb, kb), ("_ba", kb, ka), ("_aa", ka, ka)):
            setattr(self, name, getattr(self, name) - np.where(learns, first * second * variance, 0))
        phi, noise = self.baseline.phi, (1 - self.baseline.share) * (1 - self.baseline.phi**2)
        self._a, self._ba, self._aa = phi * self._a, phi * self._ba, phi**2 * self._aa + noise


def replay(baseline: Baseline, z: ArrayLike, unsafe_side: Literal["above", "below"] = "above") -> NDArray[np.int_]:
    """Levels [conversations, turns], 0 to 3, of scores [conversations, turns]; NaN where a turn was not scored."""
    scores = np.atleast_2d(np.asarray(z, float))
    charts = Charts(baseline, unsafe_side, len(scores))
    return np.stack([charts.step(scores[:, t]).astype(int) for t in range(scores.shape[1])], axis=1)


def false_alarms(sequences: Sequence[Sequence[float]], unsafe_side: Literal["above", "below"] = "above", folds: int = 5) -> float:
    """Share of ordinary conversations with an alarm, each replayed against a baseline fitted without its fold.

    Raises ExtractionError where the conversations of the other folds are too few for a baseline.
    """
    alarms = 0
    for fold in range(folds):
        baseline = Baseline.fit([s for i, s in enumerate(sequences) if i % folds != fold])
        for sequence in sequences[fold::folds]:
            if len(sequence):
                alarms += bool((replay(baseline, [list(sequence)], unsafe_side) >= LEVELS.index("warning")).any())
    return alarms / len(sequences)


def _stretches(counts: NDArray[np.int_]) -> list[int]:
    """First turns of stretches that grow by half, as turns differ less the later they are; too thin a one joins the next.

    What is left at the end joins the last, whose numbers hold for every later turn.
    """
    starts, end = [0], 1
    for turn in range(1, len(counts)):
        if turn >= end and counts[starts[-1] : turn].sum() >= FEWEST_SCORES and counts[turn:].sum() >= FEWEST_SCORES:
            starts.append(turn)
            end = turn + max(1, turn // 2)
    return starts


def _dependence(s: Array) -> tuple[float, float]:
    """`share` and `phi` by least squares on the correlations at the first lags, weighted by how many pairs each rests on."""
    gamma, weight = [], []
    for lag in range(1, min(LAGS, s.shape[1] - 1) + 1):
        products = s[:, lag:] * s[:, :-lag]
        n = int(np.isfinite(products).sum())
        if n:
            gamma.append(float(np.nanmean(products)))
            weight.append(n)
    if not gamma:
        return 0.0, 0.0
    share, phi = np.meshgrid(np.linspace(0, 0.9, 91), np.linspace(0, 0.9, 91), indexing="ij")
    lags = np.arange(1, len(gamma) + 1)[:, None, None]
    loss = (np.array(weight)[:, None, None] * (share + (1 - share) * phi**lags - np.array(gamma)[:, None, None]) ** 2).sum(0)
    best = np.unravel_index(int(np.argmin(loss)), loss.shape)
    return float(share[best]), float(phi[best])
