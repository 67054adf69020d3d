"""How far raters agree: the published figures, planted agreement, and what cannot be told."""

import math

import numpy as np
import pytest

from demeanor.measure.agreement import agreement

NAN = math.nan
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): B, two observers and two kinds; C, four observers with gaps
TWO_KINDS = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
WITH_GAPS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


@pytest.mark.parametrize(("ratings", "alpha"), [(TWO_KINDS, 0.095), (WITH_GAPS, 0.849)])
def test_the_published_figures(ratings, alpha):
    found = agreement(np.array(ratings, float))
    assert found.alpha == pytest.approx(alpha, abs=0.0006)
    assert found.interval.low <= found.alpha <= found.interval.high


def test_full_agreement_is_one_and_chance_is_nought():
    rng = np.random.default_rng(0)
    same = np.tile(rng.integers(0, 2, 40).astype(float), (3, 1))
    assert agreement(same).alpha == 1
    assert agreement(same).interval == (1, 1)
    assert agreement(same).alike == 40
    assert not agreement(same).poor
    chance = agreement(rng.integers(0, 2, (2, 4000)).astype(float))
    assert abs(chance.alpha) < 0.05
    assert chance.poor


def test_the_interval_holds_what_was_planted():
    """Each rater errs in 10 of 100 labels that are half of each kind: alpha is 1 - 0.18 / 0.5 = 0.64."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        truth = rng.integers(0, 2, 60)
        ratings = np.array([np.where(rng.random(60) < 0.1, 1 - truth, truth) for _ in range(2)], float)
        low, high = agreement(ratings).interval
        held += low <= 0.64 <= high
    assert held >= 88


def test_scale_and_place_do_not_matter_and_single_labels_say_nothing():
    ratings = np.array(WITH_GAPS)
    assert agreement(ratings * 10 + 1e6).alpha == pytest.approx(agreement(ratings).alpha)
    alone = np.concatenate([ratings, np.array([[5.0], [NAN], [NAN], [NAN]])], axis=1)
    assert agreement(alone) == agreement(ratings)


def test_what_cannot_be_told():
    assert agreement(np.array([[1.0, NAN], [NAN, 0.0]])) is None
    assert agreement(np.zeros((2, 0))) is None
    flat = agreement(np.ones((2, 5)))
    assert math.isnan(flat.alpha)
    assert not flat.poor
    assert flat.alike == 5
