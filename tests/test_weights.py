"""Labels that were not drawn alike: what is fitted to them, weighted, is what the whole population would give."""

import numpy as np
import pytest

from demeanor.conversation import Conversation, Message
from demeanor.data.labelled import Labelled
from demeanor.errors import ExtractionError
from demeanor.extraction.regression import Problem, fit
from demeanor.measure.calibration import fit_calibration
from demeanor.measure.metrics import auroc, brier, clustered_auroc_interval, expected_calibration_error, weighted_auroc
from demeanor.measure.statistics import share_interval
from demeanor.measure.thresholds import ErrorKind, fit_threshold, standard_thresholds

WANTED: tuple[tuple[ErrorKind, float], ...] = (("miss", 0.1), ("miss", 0.2), ("false_alarm", 0.05))
DRAWN = 0.05  # chance of the replies that nothing flagged


def population(n=200_000, seed=0):
    """Scores, labels and weights: all that score above 1 are drawn, of the others a small share."""
    draw = np.random.default_rng(seed)
    z = draw.normal(0, 1, n)
    unsafe = draw.random(n) < 1 / (1 + np.exp(-(2 * z - 2.5)))
    drawn = (z > 1) | (draw.random(n) < DRAWN)
    return z, unsafe, drawn, np.where(z > 1, 1.0, 1 / DRAWN)


def normal(weights):
    return weights / weights.mean()


def test_a_threshold_from_labels_drawn_unevenly_is_that_of_the_population():
    z, unsafe, drawn, weights = population()
    for kind, rate in WANTED:
        whole = fit_threshold(z, unsafe, True, rate, kind)
        weighted = fit_threshold(z[drawn], unsafe[drawn], True, rate, kind, weights=weights[drawn])
        plain = fit_threshold(z[drawn], unsafe[drawn], True, rate, kind)
        assert weighted.z == pytest.approx(whole.z, abs=0.1), (kind, rate)
        assert abs(plain.z - whole.z) > 0.25, "without weights it is another one"
        error = (z[unsafe] < weighted.z).mean() if kind == "miss" else (z[~unsafe] >= weighted.z).mean()
        assert error < rate + 0.02
        assert weighted.observed_miss == pytest.approx(whole.observed_miss, abs=0.05)
        assert weighted.other_low <= (weighted.observed_false_alarm if kind == "miss" else weighted.observed_miss) <= weighted.other_high


def test_the_error_is_kept_for_the_next_reply_of_the_traffic_at_small_sizes():
    missed = []
    for seed in range(300):
        z, unsafe, drawn, weights = population(900, seed)
        try:
            cut = fit_threshold(z[drawn], unsafe[drawn], True, 0.2, weights=weights[drawn])
        except ExtractionError:
            continue
        later, bad, *_ = population(2000, seed + 10_000)
        missed.append((later[bad] < cut.z).mean())
    assert len(missed) > 100
    assert np.mean(missed) < 0.2


def test_few_heavy_labels_support_less_and_say_so():
    z, unsafe = np.arange(40.0), np.ones(40, bool)
    assert fit_threshold(z, unsafe, True, 0.05).n == 40
    weights = np.ones(40)
    weights[0] = 50
    with pytest.raises(ExtractionError, match=r"40 unsafe examples, which count for 1\.78 as they were not drawn alike, cannot support"):
        fit_threshold(z, unsafe, True, 0.05, weights=weights)


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_equal_weights_change_nothing(scale):
    z, unsafe, *_ = population(400)
    weights, groups = np.full(400, scale), np.arange(400) // 2
    assert standard_thresholds(z, unsafe, "low", groups, weights=weights).keys() == standard_thresholds(z, unsafe, "low", groups).keys()
    with_weights, without = (fit_threshold(z, unsafe, True, 0.1, groups=groups, weights=w) for w in (weights, None))
    assert with_weights.z == without.z
    assert weighted_auroc(z, unsafe, weights) == pytest.approx(auroc(z[unsafe], z[~unsafe]))
    p = 1 / (1 + np.exp(-z))
    assert brier(p, unsafe, weights) == pytest.approx(brier(p, unsafe))
    assert expected_calibration_error(p, unsafe, weights=weights) == pytest.approx(expected_calibration_error(p, unsafe), abs=1e-9)
    found, plain = (fit_calibration(z, unsafe, groups, "made up", w) for w in (normal(weights), None))
    assert (found.centre, found.spread) == pytest.approx((plain.centre, plain.spread))
    assert found.points[0] == pytest.approx(plain.points[0], abs=1e-3)


def test_whole_weights_are_repetitions():
    draw = np.random.default_rng(1)
    z, high, times = np.round(draw.normal(0, 1, 60), 1), draw.random(60) < 0.4, draw.integers(1, 5, 60)
    again = np.repeat(np.arange(60), times)
    assert weighted_auroc(z, high, times.astype(float)) == pytest.approx(auroc(z[again][high[again]], z[again][~high[again]]))
    p = 1 / (1 + np.exp(-z))
    assert brier(p, high, times.astype(float)) == pytest.approx(brier(p[again], high[again]))


def test_probabilities_and_their_error_are_those_of_the_population():
    z, unsafe, drawn, weights = population()
    groups = np.arange(drawn.sum())
    found = fit_calibration(z[drawn], unsafe[drawn], groups, "drawn", normal(weights[drawn]))
    plain = fit_calibration(z[drawn], unsafe[drawn], groups, "drawn")
    whole = fit_calibration(z, unsafe, np.arange(len(z)), "all")
    assert (found.centre, found.spread) == pytest.approx((whole.centre, whole.spread), abs=0.05)
    assert abs(plain.centre - whole.centre) > 0.2
    assert found.source == "drawn, weighted for how they were drawn"
    assert expected_calibration_error(found.probability(z), unsafe) < 0.02
    own = expected_calibration_error(found.probability(z[drawn]), unsafe[drawn], weights=weights[drawn])
    assert own < 0.03
    assert weighted_auroc(z[drawn], unsafe[drawn], weights[drawn]) == pytest.approx(auroc(z[unsafe], z[~unsafe]), abs=0.02)
    few = drawn & (np.arange(len(z)) < 20_000)
    interval = clustered_auroc_interval(z[few], unsafe[few], np.arange(few.sum()), 300, normal(weights[few]))
    assert interval.low < auroc(z[unsafe], z[~unsafe]) < interval.high


def test_a_weighted_share_has_a_wider_interval_about_the_populations_share():
    flags, weights = np.array([True] * 10 + [False] * 30), np.array([1.0] * 10 + [5.0] * 30)
    low, high = share_interval(flags, np.arange(40), weights)
    assert low < 10 / 160 < high
    assert high - low > 0.15


def test_the_fit_to_weighted_rows_is_the_fit_to_as_many_repetitions():
    draw = np.random.default_rng(2)
    x, times = draw.normal(0, 1, (50, 4)), draw.integers(1, 4, 50)
    y = (x[:, 0] + draw.normal(0, 1, 50) > 0).astype(float)

    def problem(rows, weights):
        return Problem(
            x[rows], np.zeros(len(rows)), y[rows], y[rows] > 0.5, rows, np.zeros(4), 0.0, np.ones(4), np.zeros(4), False, weights
        )  # fmt: skip

    again = np.repeat(np.arange(50), times)
    _, weighted, bias = fit(problem(np.arange(50), times.astype(float)), 1.0)
    _, repeated, other = fit(problem(again, None), 1.0)
    _, plain, _ = fit(problem(np.arange(50), None), 1.0)
    assert weighted == pytest.approx(repeated, abs=1e-4)
    assert bias == pytest.approx(other, abs=1e-4)
    assert np.abs(plain - repeated).max() > 0.01


def test_weights_go_with_their_rows_and_count_for_as_many_labels():
    talk = Conversation((Message("user", "a"), Message("assistant", "b")))
    made = Labelled([talk] * 4, np.array([0.0, 1.0, 0.0, 1.0]), np.arange(4), np.array([1.0, 1.0, 2.0, 4.0]))
    assert made.weights.tolist() == [0.5, 0.5, 1.0, 2.0]
    assert made.where(np.array([False, False, True, True])).weight.tolist() == [2.0, 4.0]
    assert made.where(np.array([True, True, False, False])).weights is None, "alike among themselves"
    assert Labelled([talk], np.ones(1), np.zeros(1)).weights is None
