"""Measures of discrimination against scikit-learn, and intervals against what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from demeanor.measure.metrics import (
    auroc,
    bootstrap_auroc,
    bootstrap_paired_accuracy,
    brier,
    clustered_auroc_interval,
    cohens_d,
    expected_calibration_error,
    paired_accuracy,
)

few = st.lists(st.integers(-3, 3), min_size=1, max_size=30)  # few values, so that there are ties


@settings(deadline=None, derandomize=True)
@given(few, few)
def test_auroc_is_scikit_learns_ties_included(high, low):
    expected = roc_auc_score([1] * len(high) + [0] * len(low), high + low)
    assert auroc(np.array(high, float), np.array(low, float)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("high", "low", "expected"), [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1, 1], 0.5), ([1], [0, 1], 0.75)]
)
def test_auroc_of_plain_cases(high, low, expected):
    assert auroc(np.array(high, float), np.array(low, float)) == expected


def test_paired_accuracy_compares_within_pairs_and_counts_ties_half():
    assert paired_accuracy(np.array([2.0, 5, 1, 0]), np.array([1.0, 4, 1, 3])) == pytest.approx(2.5 / 4)


def test_cohens_d():
    assert cohens_d(np.array([3.0, 5, 7]), np.array([1.0, 3, 5])) == pytest.approx(1.0)
    assert cohens_d(np.array([1.0, 2, 3]), np.array([4.0, 5, 6])) == pytest.approx(-3.0)
    assert np.isnan(cohens_d(np.array([3.0]), np.array([1.0, 2])))
    assert np.isnan(cohens_d(np.array([3.0, 3]), np.array([1.0, 1])))


def pairs(n, shift, rng):
    """Scores of n pairs that share something, so that a pair's two scores are correlated."""
    shared = rng.normal(size=n)
    return shared + rng.normal(size=n) + shift, shared + rng.normal(size=n)


def test_the_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = auroc(*pairs(20_000, 1.0, rng))
    drawn = (pairs(40, 1.0, rng) for _ in range(100))
    intervals = [bootstrap_auroc(high, low, draws=300) for high, low in drawn]
    covered = sum(i.low <= truth <= i.high for i in intervals)
    assert 86 <= covered <= 99
    assert sum(truth > i.high for i in intervals) < 12
    assert sum(truth < i.low for i in intervals) < 12


def test_more_pairs_give_a_narrower_interval_and_the_same_one_each_time():
    rng = np.random.default_rng(0)
    many = pairs(400, 1.0, rng)
    high, low = many
    wide, narrow = bootstrap_auroc(high[:25], low[:25], draws=300), bootstrap_auroc(high, low, draws=300)
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    assert narrow == bootstrap_auroc(high, low, draws=300)


def test_the_paired_bootstrap_draws_whole_pairs():
    high = np.arange(30.0)
    low, top = bootstrap_paired_accuracy(high + 1, high, draws=50)  # every pair is told apart, so every draw is
    assert (round(low, 2), top) == (0.88, 1.0)


@pytest.mark.parametrize(("pairs", "low"), [(2, 0.16), (9, 0.66), (48, 0.93)])
def test_poles_that_lie_wholly_apart_are_no_certainty(pairs, low):
    high = np.arange(float(pairs)) + 100
    assert [round(end, 2) for end in bootstrap_auroc(high, high - 200)] == [low, 1.0]
    assert [round(end, 2) for end in bootstrap_auroc(high - 200, high)] == [0.0, round(1 - low, 2)]
    assert [round(end, 2) for end in bootstrap_auroc(high, high - 200, paired=False)] == [low, 1.0]


def clustered(rng, groups=20, each=10):
    """Replies to prompts; a prompt moves all its replies' scores together and has one label."""
    label = np.arange(groups) % 2 == 0
    scores = np.repeat(rng.normal(size=groups) + label, each) + 0.1 * rng.normal(size=groups * each)
    return scores, np.repeat(label, each), np.repeat(np.arange(groups), each)


def test_clustered_intervals_are_wider_than_if_replies_were_independent():
    scores, high, groups = clustered(np.random.default_rng(0))
    honest = clustered_auroc_interval(scores, high, groups, draws=300)
    naive = clustered_auroc_interval(scores, high, np.arange(len(scores)), draws=300)
    assert honest.high - honest.low > 2 * (naive.high - naive.low)
    assert honest.low < auroc(scores[high], scores[~high]) < honest.high


def test_clustered_intervals_take_names_as_groups_and_say_where_there_is_none():
    scores, high, groups = clustered(np.random.default_rng(0))
    names = np.array([f"prompt {g}" for g in groups])
    assert clustered_auroc_interval(scores, high, names, draws=20).low > 0
    assert np.isnan(clustered_auroc_interval(scores, np.ones(len(scores), bool), groups, draws=20)).all()


def test_calibration_error_is_small_for_honest_probabilities_and_large_for_boasting_ones():
    rng = np.random.default_rng(0)
    honest = rng.uniform(size=5000)
    high = rng.uniform(size=5000) < honest
    assert expected_calibration_error(honest, high) < 0.03
    assert expected_calibration_error(np.where(honest > 0.5, 0.99, 0.01), high, bins=2) > 0.2
    assert expected_calibration_error(np.full(10, 0.7), np.arange(10) < 7, bins=1) == pytest.approx(0)
    assert expected_calibration_error(np.full(10, 0.9), np.arange(10) < 4, bins=1) == pytest.approx(0.5)


def test_calibration_error_does_not_depend_on_the_order_of_equal_probabilities():
    high = np.arange(20) < 10
    for ordered in (high, ~high, np.arange(20) % 2 == 0):
        assert expected_calibration_error(np.full(20, 0.5), ordered) == pytest.approx(0)


def test_calibration_error_of_fewer_examples_than_bins():
    assert expected_calibration_error(np.array([0.2, 0.9]), np.array([False, True])) == pytest.approx(0.15)


def test_brier_is_scikit_learns():
    rng = np.random.default_rng(0)
    p, high = rng.uniform(size=50), rng.uniform(size=50) < 0.4
    assert brier(p, high) == pytest.approx(brier_score_loss(high, p))
