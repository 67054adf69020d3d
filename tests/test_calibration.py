"""Raw scores to z and probability: what the numbers promise holds on data made to be known."""

import json

import numpy as np
import pytest

from demeanor.errors import ExtractionError
from demeanor.measure.calibration import Calibration, fit_calibration
from demeanor.measure.metrics import expected_calibration_error

GRID = np.linspace(-500, 900, 400)


def gaussian(n=400, gap=2.0, seed=0):
    """Raw scores around 200 with a spread of 30, and their poles; the gap is in units of the spread."""
    rng = np.random.default_rng(seed)
    high = np.arange(n) % 2 == 0
    return 200 + 30 * (rng.normal(size=n) + np.where(high, gap / 2, -gap / 2)), high


def stepped(n=600, seed=0):
    """Scores that tell nothing but on which side of zero they are, where no logistic curve fits: 1 in 5 is mislabelled."""
    rng = np.random.default_rng(seed)
    raw = rng.uniform(-1, 1, size=n)
    return raw, (raw > 0) ^ (rng.uniform(size=n) < 0.2)


def fit(raw, high, groups=None):
    return fit_calibration(raw, high, np.arange(len(raw)) // 2 if groups is None else groups, "made up")


def test_centre_and_spread_are_those_of_the_poles():
    calibration = fit(*gaussian(4000))
    assert calibration.centre == pytest.approx(200, abs=2)
    assert calibration.spread == pytest.approx(30, abs=1)
    assert calibration.z(260.0) == pytest.approx(2.0, abs=0.1)


def test_the_centre_is_half_way_between_the_poles_however_many_examples_each_has():
    raw = np.array([10.0, 12, 11, 11, 10, 12, 0, 2])
    calibration = fit(raw, np.array([True] * 6 + [False] * 2))
    assert calibration.centre == pytest.approx(6)
    assert (calibration.n_high, calibration.n_low) == (6, 2)
    assert calibration.z(6.0) == 0


@pytest.mark.parametrize(("data", "expected"), [(gaussian, "platt"), (stepped, "isotonic")])
def test_the_method_is_the_one_that_fits(data, expected):
    assert fit(*data()).method == expected


@pytest.mark.parametrize("data", [gaussian, stepped])
def test_probabilities_hold_on_data_that_they_were_not_fitted_on(data):
    calibration = fit(*data())
    raw, high = data(4000, seed=1)
    assert expected_calibration_error(calibration.probability(raw), high) < 0.06


@pytest.mark.parametrize("data", [gaussian, stepped])
def test_probability_grows_with_the_score_and_is_never_certain(data):
    p = fit(*data()).probability(GRID)
    assert (np.diff(p) >= 0).all()
    assert p[0] < 0.3 < 0.7 < p[-1]
    assert 0 < p.min() <= p.max() < 1


@pytest.mark.parametrize("value", [1e9, -1e9])
def test_scores_far_out_give_no_certainty_and_no_overflow(value):
    p = float(fit(*gaussian()).probability(value))
    assert 0 < p < 1


def test_perfectly_separated_poles_give_no_certainty():
    raw = np.concatenate([np.linspace(1, 2, 40), np.linspace(-2, -1, 40)])
    p = fit(raw, np.arange(80) < 40, np.arange(80) % 40).probability(raw)
    assert 0 < p.min() <= p.max() < 1
    assert (p[:40] > 0.9).all()
    assert (p[40:] < 0.1).all()


@pytest.mark.parametrize("n", [12, 400])
def test_scores_that_lean_the_wrong_way_support_the_base_rate_alone(n):
    raw, high = gaussian(n, gap=-2.0)
    high[: n // 4] = False  # a base rate other than a half
    calibration = fit(raw, high)
    assert calibration.probability(GRID) == pytest.approx(high.mean(), abs=0.02)


def test_few_examples_get_platt():
    raw, high = stepped(38)
    assert fit(raw, high).method == "platt"


def test_copies_of_an_example_do_not_make_its_step_look_proven():
    raw, high = gaussian(16, gap=0.7)
    copied = np.tile(raw, 20), np.tile(high, 20)
    assert fit(*copied, groups=np.tile(np.arange(16), 20)).method == "platt"
    assert fit(*copied, groups=np.arange(320)).method == "isotonic"  # what folds that split the copies would take


@pytest.mark.parametrize("data", [gaussian, stepped])
def test_a_calibration_comes_back_from_json_as_it_was(data):
    calibration = fit(*data())
    again = Calibration.from_record(json.loads(json.dumps(calibration.to_record())))
    assert again == calibration
    assert (again.probability(GRID) == calibration.probability(GRID)).all()


@pytest.mark.parametrize(("high", "low"), [(1, 10), (10, 1), (0, 10)])
def test_a_pole_with_fewer_than_two_examples_is_refused(high, low):
    with pytest.raises(ExtractionError, match="two examples of each pole"):
        fit(np.arange(high + low, dtype=float), np.arange(high + low) < high)


def test_scores_that_are_all_equal_are_refused():
    with pytest.raises(ExtractionError, match="same score"):
        fit(np.ones(10), np.arange(10) < 5)
