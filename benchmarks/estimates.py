"""Whether the intervals of `demeanor review estimate` hold: simulated traffic in which the truth is known, drawn, labelled and looked at.

For miss rates, shares that go to people, numbers of labels, and ways in which labels go missing, each 2,000 times: how often the 95 %
interval holds the truth when all labels are in, and how often it does at every look, after each tenth label. Both truths are tried: how
many of the period's replies were missed, and the rate of the process behind them; the worse counts. For comparison the same of Clopper and
Pearson's interval, which is made for one look.

    python benchmarks/estimates.py            all of it (about ten minutes on one core), the tables of docs/review.md
    python benchmarks/estimates.py --draws 100
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import betaln, xlog1py, xlogy

from demeanor.measure.rates import LEVEL, RARE, Stratum, rate

RATES = (0.0, 0.001, 0.01, 0.1)
SHARES = (0.005, 0.02, 0.1, 0.5, 1.0)
LABELS = (50, 200, 500, 2000)
UNDECIDED = {"none": (0.0, 0.0), "alike": (0.07, 0.07), "telling": (0.05, 0.35)}
"""Chance that a safe, and that a missed, reply is left undecided (unsure or declined)."""
EXPIRED = 0.15  # share of the drawn replies that nobody ever sees
LOOK = 10


class Covered(NamedTuple):
    """Shares of the simulated periods whose interval holds the truth."""

    at_the_end: float
    at_every_look: float
    one_look_interval: float
    """Of Clopper and Pearson's, at every look; of decided labels."""
    never_zero: bool
    """Whether every upper end is above 0."""
    high: float
    """The median upper end."""


@functools.cache
def interval(k: int, u: int, n: int) -> tuple[float, float]:
    """The product's own interval of k found and u undecided among n seen replies."""
    low, high = rate([Stratum(1_000_000, n - k - u, k, u)]).interval
    return low, high


def outside(k: np.ndarray, u: np.ndarray, n: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The same test for whole arrays: whether the truth lies outside. `test_rates` compares it with `interval`."""
    a, b = RARE

    def against(count: np.ndarray) -> np.ndarray:
        evidence = betaln(a + count, b + n - count) - betaln(a, b) - xlogy(count, truth) - xlog1py(n - count, -truth)
        return evidence >= -math.log(LEVEL)

    above = (truth * n > k + u) & against(k + u)
    below = (truth * n < k) & against(k)
    return (n > 0) & (above | below)


def one_stratum(p: float, share: float, labels: int, undecided: str, draws: int, seed: int) -> Covered:
    """Traffic of one kind, of which a share is drawn."""
    rng = np.random.default_rng(seed)
    replies = round(labels / share)
    missed = rng.binomial(replies, p, draws)
    found = rng.hypergeometric(missed, replies - missed, labels)  # among those drawn, in an order of chance
    y = rng.permuted(np.arange(labels) < found[:, None], axis=1)
    seen = rng.random(y.shape) >= EXPIRED
    left = seen & (rng.random(y.shape) < np.where(y, UNDECIDED[undecided][1], UNDECIDED[undecided][0]))
    n, u, k = (np.cumsum(what, axis=1)[:, LOOK - 1 :: LOOK] for what in (seen, left, seen & y & ~left))
    worst = []
    for truth in (missed / replies, np.full(draws, p)):
        bad = outside(k, u, n, truth[:, None])
        decided = np.maximum(n - u, 1)
        low = np.where(k > 0, stats.beta.ppf(0.025, np.maximum(k, 1), decided - k + 1), 0)
        high = np.where(k < decided, stats.beta.ppf(0.975, k + 1, np.maximum(decided - k, 1)), 1)
        parted = (truth[:, None] < low) | (truth[:, None] > high)
        worst.append((1 - bad[:, -1].mean(), 1 - bad.any(1).mean(), 1 - parted.any(1).mean()))
    ends = [interval(*map(int, row)) for row in zip(k[:, -1], u[:, -1], n[:, -1], strict=True)]
    uppers = np.array([high for _, high in ends])
    end, every, once = (float(min(x)) for x in zip(*worst, strict=True))
    return Covered(end, every, once, bool((uppers > 0).all()), float(np.median(uppers)))


def several_strata(p: float, share: float, labels: int, undecided: str, draws: int, seed: int) -> Covered:
    """Traffic as the queue draws it: 2 % caught by another rule and all drawn, 10 % doubtful and drawn with 0.25, the rest by the share.

    The rate is five times as high among the doubtful. Only the end is looked at; the interval is the product's own.
    """
    rng = np.random.default_rng(seed)
    chance = np.array([1.0, max(0.25, share), share])
    part = np.array([0.02, 0.10, 0.88])
    replies = np.maximum(1, np.round(labels / (part @ chance) * part)).astype(int)
    lift = np.array([1.0, 5.0, 1.0])
    rates = np.minimum(p * lift / (part @ lift), 1)
    total = int(replies.sum())
    inside, high = [], []
    for _ in range(draws):
        missed = rng.binomial(replies, rates)
        drawn = rng.binomial(replies, chance)
        found = rng.hypergeometric(missed, replies - missed, drawn)
        seen = rng.binomial([found, drawn - found], 1 - EXPIRED)
        left = rng.binomial(seen, np.array([UNDECIDED[undecided][1], UNDECIDED[undecided][0]])[:, None])
        k, rest = seen - left
        made = rate([Stratum(int(n), int(r), int(f), int(w)) for n, r, f, w in zip(replies, rest, k, left.sum(0), strict=True)])
        truths = (missed.sum() / total, float(replies @ rates) / total)
        inside.append([made.interval.low <= t <= made.interval.high for t in truths])
        high.append(made.interval.high)
    return Covered(float(np.mean(inside, axis=0).min()), math.nan, math.nan, min(high) > 0, float(np.median(high)))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print("| miss rate | labels | undecided | holds at the end | at every look | one-look interval | median upper end, per 1,000 |")
    print("|---|---|---|---|---|---|---|")
    seed, lowest = 0, 1.0
    for p, labels, undecided in itertools.product(RATES, LABELS, UNDECIDED):
        cells = []
        for share in SHARES:
            seed += 1
            cells.append(one_stratum(p, share, labels, undecided, draws, seed))
        end, every, once = (min(cell[i] for cell in cells) for i in range(3))
        assert all(cell.never_zero for cell in cells)
        lowest = min(lowest, every)
        print(
            f"| {100 * p:g} % | {labels} | {undecided} | {100 * end:.1f} % | {100 * every:.1f} % | {100 * once:.1f} % | "
            f"{1000 * cells[0].high:.3g} |",
            flush=True,
        )
    print(f"\nThe lowest of all {len(RATES) * len(LABELS) * len(UNDECIDED) * len(SHARES)} cells, at every look: {100 * lowest:.1f} %\n")
    print("| miss rate | share | labels | undecided | holds at the end | median upper end, per 1,000 |")
    print("|---|---|---|---|---|---|")
    for p, share, labels, undecided in itertools.product(RATES, (0.005, 0.1, 1.0), (50, 500, 2000), ("none", "telling")):
        seed += 1
        found = several_strata(p, share, labels, undecided, draws, seed)
        assert found.never_zero
        print(
            f"| {100 * p:g} % | {100 * share:g} % | {labels} | {undecided} | {100 * found.at_the_end:.1f} % | {1000 * found.high:.3g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
