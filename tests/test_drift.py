"""Drift: the charts' own numbers, a planted shift found, ordinary conversations left alone, and levels that do not flutter."""

import json

import numpy as np
import pytest

from demeanor.errors import ExtractionError
from demeanor.measure.drift import (
    CUSUM_LIMIT,
    EWMA_WIDTH,
    LEVELS,
    SLACK,
    SMOOTHING,
    Baseline,
    DriftMonitor,
    false_alarms,
    replay,
)
from demeanor.measure.poles import Side

PLAIN = Baseline((0,), (0.0,), (1.0,), 0.0, 0.0, 10**9, 10**9)
ALARM = LEVELS.index("warning")


def conversations(n, turns, share=0.0, phi=0.0, settling=0.0, seed=0):
    """Scores [n, turns] of variance 1 with a shared part, neighbours that are alike, and a mean that settles."""
    rng = np.random.default_rng(seed)
    a = np.sqrt((1 - share) * (1 - phi**2)) * rng.normal(size=(n, turns))
    a[:, 0] /= np.sqrt(1 - phi**2)
    for t in range(1, turns):
        a[:, t] += phi * a[:, t - 1]
    return a + np.sqrt(share) * rng.normal(size=(n, 1)) + settling * np.exp(-np.arange(turns) / 3)


def test_the_charts_are_the_textbook_s():
    scores = conversations(1, 25)[0]
    monitor, w, c = DriftMonitor(PLAIN), 0.0, 0.0
    for z in scores:
        state = monitor.update(z)
        w, c = (1 - SMOOTHING) * w + SMOOTHING * z, max(0.0, c + z - SLACK)
        assert state.ewma == pytest.approx(w)
        assert state.cusum == pytest.approx(c)
    # the EWMA's own variance, from its weights on independent errors
    weights = SMOOTHING * (1 - SMOOTHING) ** np.arange(len(scores))
    assert state.ewma_limit == pytest.approx(EWMA_WIDTH * np.sqrt((weights**2).sum()))
    assert state.cusum_limit == pytest.approx(CUSUM_LIMIT)


def test_the_limits_start_narrow_and_widen():
    monitor = DriftMonitor(PLAIN)
    limits = [monitor.update(0.0).ewma_limit for _ in range(20)]
    assert limits[0] == pytest.approx(EWMA_WIDTH * SMOOTHING)
    assert limits == sorted(limits)


@pytest.mark.parametrize(("share", "phi"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.4), (0.3, 0.3)])
def test_the_dependence_between_turns_is_recovered(share, phi):
    baseline = Baseline.fit(list(conversations(1500, 30, share, phi)))
    assert baseline.share == pytest.approx(share, abs=0.06)
    assert baseline.phi == pytest.approx(phi, abs=0.08)


@pytest.mark.parametrize(("share", "phi", "settling"), [(0.0, 0.0, 0.0), (0.3, 0.3, 0.0), (0.5, 0.0, 1.0)])
def test_fewer_than_one_in_a_hundred_ordinary_conversations_has_an_alarm_with_four_traits(share, phi, settling):
    baseline = Baseline.fit(list(conversations(200, 30, share, phi, settling)))
    fresh = conversations(8000, 100, share, phi, settling, seed=1)
    levels = replay(baseline, fresh)
    assert (levels[:, :30] >= ALARM).any(1).mean() < 0.0025
    # stable to 100 turns: no more alarms in a later stretch of 30 than the length gives
    early = (levels[:, :70] >= ALARM).any(1, keepdims=True)
    assert ((levels[:, 70:] >= ALARM) & ~early).any(1).mean() < 0.005


def test_taking_turns_for_independent_would_cry_wolf():
    """What the model of the dependence is for."""
    fresh = conversations(2000, 30, share=0.5, seed=1)
    naive = (replay(PLAIN, fresh) >= ALARM).any(1).mean()
    fitted = (replay(Baseline.fit(list(conversations(200, 30, share=0.5))), fresh) >= ALARM).any(1).mean()
    assert naive > 0.1 > 0.005 > fitted


@pytest.mark.parametrize(("side", "sign"), [("above", 1), ("below", -1)])
def test_a_planted_shift_is_found_on_its_side_only(side, sign):
    baseline = Baseline.fit(list(conversations(200, 30, share=0.2)))
    shifted = conversations(400, 40, share=0.2, seed=1)
    shifted[:, 15:] += 2 * sign
    assert (replay(baseline, shifted, side)[:, 15:27] >= ALARM).any(1).mean() > 0.9
    other: Side = "below" if side == "above" else "above"
    assert (replay(baseline, shifted, other) >= ALARM).any(1).mean() < 0.02


def test_the_baseline_allows_for_the_turn():
    """Every conversation begins two spreads up and settles: ordinary, and no drift in either direction."""
    usual = conversations(300, 30, settling=2.0)
    baseline = Baseline.fit(list(usual))
    assert baseline.at(0)[0] == pytest.approx(2.0, abs=0.2)
    assert baseline.at(500) == baseline.at(29)
    for side in ("above", "below"):
        assert (replay(baseline, conversations(2000, 30, settling=2.0, seed=1), side) >= ALARM).any(1).mean() < 0.005


def test_sparse_turns_are_pooled():
    long = [list(row) for row in conversations(50, 3)] + [list(row) for row in conversations(4, 20, seed=1)]
    baseline = Baseline.fit(long)
    assert baseline.starts == (0, 1, 2, 3)  # from turn 4 on, four conversations are enough only together
    assert baseline.scores == 230


def test_one_odd_turn_is_no_drift():
    monitor = DriftMonitor(PLAIN)
    quiet = [monitor.update(0.0) for _ in range(5)]
    assert not monitor.update(50.0).alarm
    assert quiet[-1].level == "none"


def test_levels_rise_through_watch_and_warning_to_critical_and_come_back_step_by_step():
    monitor = DriftMonitor(PLAIN)
    up = [monitor.update(2.0).level for _ in range(12)]
    assert list(dict.fromkeys(up)) == ["watch", "warning", "critical"] or list(dict.fromkeys(up)) == list(LEVELS)
    down = [monitor.update(-0.5).level for _ in range(60)]
    assert list(dict.fromkeys(down)) == ["critical", "warning", "watch", "none"]


def test_a_level_does_not_flutter_around_its_limit():
    monitor = DriftMonitor(PLAIN)
    while not monitor.update(1.6).alarm:
        pass
    around = [monitor.update(z).level for z in [0.0, 1.0] * 10]
    assert around == [around[0]] * 20


def test_a_drifted_conversation_does_not_become_its_own_norm():
    baseline = Baseline((0,), (0.0,), (1.0,), 0.3, 0.0, 10**9, 10**9)
    monitor = DriftMonitor(baseline)
    for z in [0.0] * 10 + [3.0] * 10:
        state = monitor.update(z)
    assert state.alarm
    assert all(monitor.update(3.0).alarm for _ in range(200))


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_a_turn_without_a_score_moves_nothing_and_says_so(missing):
    monitor = DriftMonitor(PLAIN)
    before = [monitor.update(1.0) for _ in range(3)][-1]
    after = monitor.update(missing)
    assert (after.turn, after.scored, after.error) == (4, False, None)
    assert (after.ewma, after.cusum, after.level) == (before.ewma, before.cusum, before.level)
    assert monitor.update(1.0).scored


def test_many_conversations_at_once_are_as_one_by_one():
    baseline = Baseline.fit(list(conversations(200, 30, 0.3, 0.3)))
    scores = conversations(20, 40, 0.3, 0.3, seed=2)
    scores[:10, 15:] += 2
    scores[3, 7] = np.nan
    together = replay(baseline, scores)
    for row, levels in zip(scores, together, strict=True):
        monitor = DriftMonitor(baseline)
        assert [LEVELS.index(monitor.update(z).level) for z in row] == levels.tolist()


def test_ordinary_conversations_replayed_against_the_others_raise_hardly_an_alarm():
    usual = [list(row) for row in conversations(300, 30, 0.3)]
    assert false_alarms(usual) < 0.01
    changed = [[*row[:10], *(z + 3 for z in row[10:])] if i % 10 == 0 else row for i, row in enumerate(usual)]
    assert false_alarms(changed) > 0.05


def test_a_baseline_from_few_conversations_has_wider_limits():
    assert Baseline.fit(list(conversations(40, 30))).margin > Baseline.fit(list(conversations(400, 30))).margin > 1


def test_a_baseline_comes_back_from_json_as_it_was():
    baseline = Baseline.fit(list(conversations(60, 12, 0.3)))
    assert Baseline.from_record(json.loads(json.dumps(baseline.to_record()))) == baseline


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        (list(conversations(39, 10)), "39 scored conversations"),
        ([[float("nan")] * 5] * 100, "0 scored conversations"),
        ([[1.0] * 5] * 100, "all the same"),
    ],
)
def test_what_cannot_make_a_baseline_is_refused(sequences, message):
    with pytest.raises(ExtractionError, match=message):
        Baseline.fit(sequences)
