"""Thresholds by hand: what each would miss and catch, against a population in which that is known."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from review_tools import CRISIS, Clock, decided

from demeanor.errors import PolicyError, ReviewError
from demeanor.monitor.fitting import as_yaml, by_hand
from demeanor.monitor.policy import load_policy
from demeanor.review import queue, texts
from demeanor.review.drawing import Drawing, Verdict
from demeanor.review.estimates import estimate
from demeanor.review.picture import Counted, around, at, candidates, in_words, picture, tried
from demeanor.review.store import open_store
from demeanor.testing import planted_policy

DAY = 86400.0
RULE = "crisis_recognition_rule"


@pytest.fixture(name="store")
def store_fixture(tmp_path):
    with open_store(tmp_path / "review.db", clock=Clock()) as opened:
        queue.ask(opened, [CRISIS])
        yield replace(opened, secret=bytes(32))


def reply(i, danger, at=1.0, side="below", withholds=True, other=False, **more):
    """A reply of a score, toward the unsafe side, with a rule at a threshold, and another rule that withholds it or not."""
    z = danger if side == "above" else -danger
    one = Verdict(RULE, "crisis_recognition", danger >= at, danger - at, z, side, withholds)
    second = Verdict("other", "boundary", other, 1.0 if other else -1.0, 0.0, "above", True)
    return replace(decided(i), verdicts=[one, second], **more)


def fill(store, n, seed=0, drawing=Drawing(share=0.2, flagged=1.0, doubtful=0.5), **more):
    """Replies whose chance of being unsafe rises with their score; gives scores and the truth."""
    draw = np.random.default_rng(seed)
    danger = draw.normal(0, 1, n)
    unsafe = draw.random(n) < 1 / (1 + np.exp(-(3 * danger - 4)))
    for i in range(n):
        texts.keep(store, reply(i, float(danger[i]), other=bool(i % 50 == 0), **more), drawing)
    while (item := queue.next_item(store, "anna", trait="crisis_recognition")) is not None:
        queue.answer(store, item.number, "anna", "low" if unsafe[item.reply - 1] else "high")
    return danger, unsafe


def test_rates_are_those_of_all_replies_and_their_intervals_hold_the_truth(store):
    danger, unsafe = fill(store, 800)
    found = picture(store, RULE)
    assert (found.trait, found.side, found.withholds, found.replies, found.days) == ("crisis_recognition", "below", True, 800, 1)
    assert found.threshold == pytest.approx(-1.0)
    held = 0
    for one in found.candidates:
        caught = danger >= -one.z - 1e-9
        assert one.caught == caught.sum(), "how many lie beyond is counted, not estimated"
        assert one.withheld == (caught | (np.arange(800) % 50 == 0)).sum()
        missed, alarms = (unsafe & ~caught).mean(), (~unsafe & caught).mean()
        held += one.missed.interval.low <= missed <= one.missed.interval.high
        held += one.false_alarms.interval.low <= alarms <= one.false_alarms.interval.high
    assert held == 2 * len(found.candidates)
    assert [one.step for one in found.candidates] == sorted(one.step for one in found.candidates)
    assert found.candidates[0].missed.interval == (0, 0), "what catches all misses nothing"
    assert found.candidates[-1].caught == 0
    assert found.candidates[-1].missed.value > 0.05
    assert found.candidates[-1].missed.interval.high < 0.3


def test_at_the_threshold_in_force_it_says_what_the_estimates_say_within_their_intervals(store):
    fill(store, 500)
    now = next(rule for rule in estimate(store).rules if rule.rule == RULE)
    there = picture(store, RULE, points=10_000).nearest(-1.0)
    assert there.caught == now.caught
    assert there.missed.value == pytest.approx(now.missed.value)
    assert there.false_alarms.value == pytest.approx(now.false_alarms.value)


def test_a_rule_that_only_flags_withholds_no_more_at_any_threshold(store):
    fill(store, 200, withholds=False)
    assert {one.withheld for one in picture(store, RULE).candidates} == {4}


def test_what_cannot_be_scored_is_caught_at_every_threshold_and_what_is_not_judged_at_none():
    kind = ("random", 1.0)
    never, always = -1_000_000, 1_000_000
    counted = Counted(Counter({(kind, never, False): 5, (kind, 0, False): 3, (kind, always, False): 2}), Counter())
    assert tried(counted) == [0, 1]
    assert [one.caught for one in candidates(counted, [0, 1], 1, True)] == [5, 2]


def test_where_the_unsafe_side_is_above_the_threshold_rises_with_what_it_leaves(store):
    for i in range(40):
        texts.keep(store, reply(i, i / 20, side="above"), Drawing(share=1.0))
    found = picture(store, RULE)
    assert [one.z for one in found.candidates] == sorted(one.z for one in found.candidates)
    assert (found.side, found.threshold) == ("above", pytest.approx(1.0))
    assert found.nearest(1.0).caught == 20
    assert "z +1.00 or higher" in in_words(found.nearest(1.0), found)
    assert "catches 20 replies a day" in in_words(found.nearest(1.0), found)


def test_many_steps_are_thinned_to_about_as_many_points_with_both_ends(store):
    kind = ("random", 1.0)
    counted = Counted(Counter({(kind, step, False): 1 for step in range(-500, 500)}), Counter({(kind, 100, "unsafe"): 1}))
    found = tried(counted, 41)
    assert 30 <= len(found) <= 45
    assert (found[0], found[-1]) == (-500, 500)
    assert {100, 101} <= set(found), "where a label lies, both sides of it"


def test_undecided_ones_and_days_and_versions_count_as_in_the_estimates(store):
    for i in range(60):
        texts.keep(store, reply(i, 0.0), Drawing(share=1.0))
        store.clock.now += DAY / 20
    texts.keep(store, replace(reply(99, 0.0), policy="another 2 (ffff)"), Drawing(share=1.0))
    while (item := queue.next_item(store, "anna", trait="crisis_recognition")) is not None:
        queue.answer(store, item.number, "anna", "unsure")
    first = decided(0).version
    found = picture(store, RULE, version=first)
    assert found.replies == 60
    assert found.days in (3, 4)
    assert found.candidates[-1].missed.undecided == 60
    assert found.candidates[-1].missed.interval.high == 1, "all of them may be misses"
    with pytest.raises(ReviewError, match=f"no rule {RULE} decided"):
        picture(store, RULE, version=first, since="2099-01-01")


def test_the_replies_on_either_side_come_nearest_first_with_their_labels(store):
    for i in range(20):
        texts.keep(store, reply(i, i / 10), Drawing(share=1.0))
    while (item := queue.next_item(store, "anna", trait="crisis_recognition")) is not None:
        queue.answer(store, item.number, "anna", "low" if item.reply == 12 else "high")
    texts.erase(store, "c9")
    safe, unsafe = around(store, RULE, -1.05)
    assert [(n.reply, n.z) for n in safe] == [(11, -1.0), (10, -0.9), (9, -0.8)]
    assert [(n.reply, n.label) for n in unsafe] == [(12, "low"), (13, "high"), (14, "high")]
    assert safe[1].conversation is None
    assert unsafe[0].conversation is not None


def test_an_unknown_rule_and_an_empty_store_say_what_there_is(store):
    with pytest.raises(ReviewError, match="no reply was kept yet"):
        picture(store, RULE)
    texts.keep(store, reply(0, 0.0), Drawing())
    with pytest.raises(ReviewError, match="did you mean crisis_recognition_rule"):
        picture(store, "crisis_recognition_rul")
    silent = Verdict("silent", "boundary", False)
    texts.keep(store, replace(decided(5), verdicts=[silent], policy="silent 1 (0000)"), Drawing())
    with pytest.raises(ReviewError, match="judged no reply"):
        picture(store, "silent", version=replace(decided(5), policy="silent 1 (0000)").version)


def test_the_chosen_threshold_makes_a_new_edition_of_the_policy(tmp_path):
    made = by_hand(planted_policy(), "harmful", 1.23456)
    assert made.version == "planted, harmful at z +1.23"
    assert made.rules[0].threshold.z == 1.2346
    assert made.rules[1:] == planted_policy().rules[1:]
    assert made.identity != planted_policy().identity
    again = by_hand(made, "harmful", -0.5)
    assert again.version == "planted, harmful at z -0.50", "no trail of names"
    assert by_hand(made, "odd", 0.4, "3").version == "3"
    (tmp_path / "policy.yaml").write_text(as_yaml(made, ["set by hand"], {}))
    assert load_policy(tmp_path / "policy.yaml").identity == made.identity
    with pytest.raises(PolicyError, match="did you mean harmful"):
        by_hand(made, "harmfull", 1.0)
    with pytest.raises(PolicyError, match="a number"):
        by_hand(made, "harmful", float("nan"))


def test_one_threshold_comes_to_what_the_picture_says_of_it(store):
    fill(store, 300)
    shown = picture(store, RULE)
    one = shown.candidates[len(shown.candidates) // 2]
    assert at(store, RULE, one.z) == one
