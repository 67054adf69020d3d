"""Rates from labels with known chances: intervals that hold at every look, never 0 where nothing was found."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import betaln

from demeanor.measure.metrics import Interval
from demeanor.measure.rates import ANY, RARE, Stratum, rate

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import estimates as simulation


def test_nothing_found_is_a_bound_and_never_an_estimate_of_0():
    for n in (1, 50, 500, 100_000):
        found = rate([Stratum(100_000, n, 0)])
        assert found.value is None
        assert found.interval.low == 0
        assert 0 < found.interval.high < 1
        assert found.interval.high <= 5 / n
    assert 3 < 500 * rate([Stratum(10**6, 500, 0)]).interval.high < 4


def test_the_ends_are_where_the_evidence_is_twenty_to_one():
    for n, k in ((50, 1), (500, 7), (500, 250), (30, 30), (2000, 3)):
        low, high = rate([Stratum(1000, n - k, k)]).interval
        a, b = RARE

        def evidence(t, n=n, k=k, a=a, b=b):
            return betaln(a + k, b + n - k) - betaln(a, b) - k * math.log(t) - ((n - k) * math.log1p(-t) if k < n else 0)

        assert evidence(low) == pytest.approx(math.log(20), abs=1e-5)
        assert high == 1 if k == n else evidence(high) == pytest.approx(math.log(20), abs=1e-5)
        assert low < k / n <= high


def test_strata_are_weighted_by_their_replies():
    # nine in ten replies were allowed, and one in a hundred of these seen; of the others all were
    found = rate([Stratum(9000, 88, 2), Stratum(1000, 700, 300)])
    assert found.value == pytest.approx(0.9 * 2 / 90 + 0.1 * 0.3)
    assert found.labelled == 1090
    assert found.interval.low < found.value < found.interval.high
    # by far the most of what is unknown is unknown about the allowed ones: the others cost little
    assert found.interval.high < 1.2 * (0.9 * rate([Stratum(1, 88, 2)]).interval.high + 0.1 * rate([Stratum(1, 700, 300)]).interval.high)


@pytest.mark.parametrize("upper", [True, False])
def test_the_greatest_and_the_least_sum_are_those_that_a_search_finds(upper):
    counts = [(9000, 190, 2), (800, 60, 20), (200, 10, 30)]
    w = np.array([n for n, _, _ in counts]) / 10_000
    k, rest = np.array([c[2] for c in counts]), np.array([c[1] for c in counts])
    a, b = RARE

    def against(t):
        return np.array([betaln(a + x, b + y) - betaln(a, b) for x, y in zip(k, rest, strict=True)]) - k * np.log(t) - rest * np.log1p(-t)

    limits = [
        {"type": "ineq", "fun": lambda t: math.log(40) - against(t).sum()},
        {"type": "ineq", "fun": lambda t: math.log(120) - against(t)},
    ]
    found = rate([Stratum(*c) for c in counts]).interval
    sign = -1 if upper else 1
    draw = np.random.default_rng(0)
    ends = []
    for _ in range(20):
        start = np.clip(k / (k + rest) * draw.uniform(0.6, 1.5, 3), 1e-6, 0.99)
        best = minimize(lambda t: sign * float(w @ t), start, bounds=[(1e-9, 1 - 1e-9)] * 3, constraints=limits, method="SLSQP")
        ends += [best.fun] if best.success else []
    assert (found.high if upper else found.low) == pytest.approx(sign * min(ends), rel=1e-3)


def test_a_stratum_without_labels_may_hold_anything():
    found = rate([Stratum(900, 300, 3), Stratum(100, 0, 0)])
    assert found.value is None
    assert 0.1 + 0.9 * rate([Stratum(900, 300, 3)]).interval.high == pytest.approx(found.interval.high, abs=0.005)
    assert not rate([Stratum(900, 0, 0)]).enough
    assert rate([Stratum(900, 0, 0)]).interval == Interval(0, 1)
    assert not rate([]).enough


def test_replies_beyond_the_strata_dilute():
    assert rate([Stratum(100, 90, 10)], 1000).value == pytest.approx(0.01)
    high = rate([Stratum(100, 90, 10)], 1000).interval.high
    assert high == pytest.approx(0.1 * rate([Stratum(100, 90, 10)]).interval.high)


def test_undecided_ones_are_taken_at_their_worst_and_the_narrow_interval_leaves_them_out():
    plain, unsure = rate([Stratum(1000, 190, 10)]), rate([Stratum(1000, 190, 10, 20)])
    assert unsure.narrow == plain.interval
    assert unsure.interval.high == rate([Stratum(1000, 190, 30)]).interval.high
    assert unsure.interval.low == rate([Stratum(1000, 210, 10)]).interval.low
    assert unsure.value == plain.value
    assert rate([Stratum(1000, 0, 0, 20)]).interval == Interval(0, 1)


def test_more_labels_narrow_it_and_few_are_called_few():
    widths = [np.subtract(*rate([Stratum(10**6, 49 * n, n)]).interval[::-1]) for n in (1, 5, 50, 500)]
    assert widths == sorted(widths, reverse=True)
    assert not rate([Stratum(1000, 40, 1)]).enough
    assert rate([Stratum(1000, 60, 1)]).enough


def test_extreme_counts_are_no_trouble():
    for counts in ((0, 10**6), (10**6, 0), (1, 10**7), (10**7, 1)):
        for prior in (RARE, ANY):
            low, high = rate([Stratum(10**9, *counts, prior=prior), Stratum(1, 1, 1, prior=prior)]).interval
            assert 0 <= low <= high <= 1


def test_the_simulation_tries_the_interval_that_is_used():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 300))
        u = int(rng.integers(0, n // 5 + 1))
        k = int(rng.binomial(n - u, 0.1))
        truth = float(rng.choice([0.0, 0.001, 0.02, 0.1, 0.3]))
        low, high = simulation.interval(k, u, n)
        bad = simulation.outside(np.array([k]), np.array([u]), np.array([n]), np.array([truth]))[0]
        assert bool(bad) == (not low - 1e-9 <= truth <= high + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("undecided", ["none", "alike", "telling"])
@pytest.mark.parametrize("p", [0.0, 0.01, 0.1])
def test_the_interval_holds_at_every_look_in_simulated_traffic(p, undecided):
    found = simulation.one_stratum(p, 0.02, 500, undecided, draws=400, seed=7)
    assert found.at_the_end >= 0.93
    assert found.at_every_look >= 0.93
    assert found.never_zero
    if (p, undecided) == (0.1, "none"):
        assert found.one_look_interval < 0.85, "which is why an interval for one look is not used"
    several = simulation.several_strata(p, 0.1, 500, undecided, draws=100, seed=8)
    assert several.at_the_end >= 0.93
    assert several.never_zero
