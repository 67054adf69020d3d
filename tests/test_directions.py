"""A direction planted in Gaussian activations is found again, massive dimensions or not."""

import numpy as np
import pytest

from demeanor.errors import ExtractionError
from demeanor.extraction.directions import METHODS, fit_layers, method, spread
from demeanor.measure.metrics import auroc

WIDTH = 128
PAIRS = 60
MASSIVE = [3, 77]  # dimensions whose activations are a hundred times larger than the rest


def planted(massive=False, separation=3.0, seed=0):
    """High and low poles [pairs, width], and the direction between them, which leaves the massive dimensions alone."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=WIDTH)
    direction[MASSIVE] = 0
    direction /= np.linalg.norm(direction)
    poles = []
    for side in (1, -1):
        x = rng.normal(size=(PAIRS, WIDTH))
        if massive:
            x[:, MASSIVE] = 500 + 100 * rng.normal(size=(PAIRS, len(MASSIVE)))
        poles.append(x + side * separation / 2 * direction)
    return poles[0], poles[1], direction


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_a_strong_direction_with_its_sign(name):
    high, low, direction = planted(separation=8.0)
    assert method(name)(high, low) @ direction > 0.9
    assert method(name)(low, high) @ direction < -0.9


@pytest.mark.parametrize("name", ["whitened_mean_difference", "lda", "logistic"])
def test_massive_dimensions_hide_a_direction_from_the_mean_difference_alone(name):
    high, low, direction = planted(massive=True)
    assert abs(method("mean_difference")(high, low) @ direction) < 0.5
    assert method(name)(high, low) @ direction > 0.8


@pytest.mark.parametrize("name", ["whitened_mean_difference", "lda", "logistic"])
def test_a_loud_dimension_counts_by_its_variance(name):
    """Where the difference is as large as the variance in each dimension, all dimensions tell equally much of the trait."""
    rng = np.random.default_rng(0)
    loud = np.where(np.arange(WIDTH) % 2, 10.0, 1.0)
    high, low = (rng.normal(size=(PAIRS, WIDTH)) * loud + side * 0.5 * loud**2 for side in (1, -1))
    best = np.ones(WIDTH) / np.sqrt(WIDTH)
    assert method("mean_difference")(high, low) @ best < 0.75
    assert method(name)(high, low) @ best > 0.9


@pytest.mark.parametrize("name", ["lda", "logistic"])
def test_a_shared_nuisance_is_told_from_the_trait_where_the_covariance_is_used(name):
    """Scored on fresh data: methods that look at each dimension alone follow the nuisance."""
    rng = np.random.default_rng(0)
    trait, other = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T
    nuisance = (trait + other) / np.sqrt(2)

    def poles(n):
        x = rng.normal(size=(2, n, WIDTH)) + 8 * rng.normal(size=(2, n, 1)) * nuisance
        return x[0] + 2.5 * trait, x[1] - 2.5 * trait

    (high, low), (fresh_high, fresh_low) = poles(PAIRS), poles(500)

    def told(of):
        direction = method(of)(high, low)
        return auroc(fresh_high @ direction, fresh_low @ direction)

    assert max(told("mean_difference"), told("whitened_mean_difference")) < 0.85
    assert told(name) > 0.93


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_directions_have_length_one_whatever_the_scale(name, scale):
    high, low, _ = planted(massive=True)
    assert np.linalg.norm(method(name)(high * scale, low * scale)) == pytest.approx(1)


@pytest.mark.parametrize("name", METHODS)
def test_a_dimension_that_never_moves_gets_no_weight_and_does_no_harm(name):
    high, low, direction = planted(separation=8.0)
    high[:, 5] = low[:, 5] = 7.0
    found = method(name)(high, low)
    assert abs(found[5]) < 1e-6
    assert found @ direction > 0.85


@pytest.mark.parametrize("name", METHODS)
def test_equal_poles_have_no_direction(name):
    high, _, _ = planted()
    with pytest.raises(ExtractionError, match="same activations"):
        method(name)(high, high.copy())


def test_pca_needs_pairs():
    high, low, _ = planted()
    with pytest.raises(ExtractionError, match="pairs"):
        method("pca")(high, low[:-1])


@pytest.mark.parametrize("name", [n for n in METHODS if n != "pca"])
def test_poles_need_not_be_of_one_size(name):
    high, low, direction = planted(separation=8.0)
    assert method(name)(high, low[:20]) @ direction > 0.85


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(ExtractionError, match="did you mean logistic"):
        method("logistics")


def test_several_layers_weigh_alike_although_one_is_a_thousand_times_larger():
    (high0, low0, direction0), (high1, low1, direction1) = planted(separation=8.0), planted(separation=8.0, seed=1)
    high, low = np.stack([high0, 1000 * high1], 1), np.stack([low0, 1000 * low1], 1)
    found = fit_layers(high, low, method("mean_difference"))
    assert np.linalg.norm(found) == pytest.approx(1)
    spreads = [spread(high[:, k] @ found[k], low[:, k] @ found[k]) for k in range(2)]
    assert spreads[0] == pytest.approx(spreads[1])
    for row, direction in zip(found, (direction0, direction1), strict=True):
        assert row @ direction / np.linalg.norm(row) > 0.9


def test_the_spread_is_taken_within_the_poles():
    assert spread(np.array([10.0, 12.0]), np.array([-12.0, -10.0])) == pytest.approx(1)
