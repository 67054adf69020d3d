"""Built-in policies by name, policies fitted to what a vector set supports or to a budget, and both halves of a threshold."""

import numpy as np
import pytest
from artifacts import CALIBRATION, entry, vector_set

from demeanor.errors import PolicyError
from demeanor.measure.calibration import Score
from demeanor.measure.conditions import AppliesWhen
from demeanor.measure.cuts import CalibratedRate, Cut, ThresholdSpec
from demeanor.measure.statistics import fewest_for, share_at_most
from demeanor.measure.thresholds import Threshold, fit_threshold
from demeanor.monitor.fitting import fitted
from demeanor.monitor.policy import BUILT_IN, Policy, load_policy, policy_text, unresolved
from demeanor.monitor.suggesting import missed_at, parse_budget
from demeanor.vectors import built_in


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_policy_is_known_by_name_and_printed_as_it_is_in_force(tmp_path, name):
    (tmp_path / "printed.yaml").write_text(policy_text(name))
    assert load_policy(name) == load_policy(tmp_path / "printed.yaml")
    assert load_policy() == load_policy("guarded")


def test_review_only_has_the_rules_of_guarded_and_withholds_nothing():
    guarded, review = load_policy("guarded"), load_policy("review-only")
    assert guarded.withholds
    assert not review.withholds
    assert [(r.name, r.trait, r.threshold, r.when, r.severity) for r in review.rules] == [
        (r.name, r.trait, r.threshold, r.when, r.severity) for r in guarded.rules
    ]
    assert {(r.action, r.not_scored) for r in review.rules} == {("flag", "flag")}
    assert review.version.startswith("review-only")
    assert "withholds nothing" in review.resolve(built_in.load()).opening
    assert guarded.resolve(built_in.load()).opening == ""
    assert unresolved(review).opening  # nor where nothing can be scored


def test_a_file_named_like_a_built_in_policy_is_given_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guarded").write_text(policy_text("guarded").replace('version: "3"', 'version: "mine"'))
    assert load_policy("./guarded").version == load_policy(tmp_path / "guarded").version == "mine"
    assert load_policy("guarded").version == "3"
    with pytest.raises(PolicyError, match="built in by name: guarded, review-only"):
        load_policy("garded")
    with pytest.raises(PolicyError, match="did you mean review-only"):
        policy_text("review-onyl")


def threshold(kind, rate, z=1.0, **changes):
    fields = {"n": 60, "prompts": 60, "observed_miss": 0.84, "observed_false_alarm": 0.02}
    return Threshold(z, "above", kind, rate, **(fields | changes))


def with_thresholds(*found):
    return vector_set(entry("warmth", safe_pole="low", calibration={**CALIBRATION, "thresholds": {t.key: t.to_record() for t in found}}))


def asking(kind, rate, **changes):
    one = {
        "name": "cold",
        "trait": "warmth",
        "threshold": {"calibrated": {f"{kind}_rate": rate}},
        "severity": "red",
        "action": "substitute",
    }
    return Policy.model_validate({"version": "t", "rules": [one | {"situation": "boundary"} | changes]})


@pytest.mark.parametrize(
    ("there", "asked", "action", "instead"),
    [
        ([("miss", 0.1), ("miss", 0.2), ("false_alarm", 0.02)], ("miss", 0.05), "substitute", "miss 0.1"),
        ([("false_alarm", 0.02), ("false_alarm", 0.1)], ("miss", 0.1), "substitute", "false_alarm 0.02"),
        ([("false_alarm", 0.02), ("false_alarm", 0.1)], ("miss", 0.1), "flag", "false_alarm 0.1"),
        ([("miss", 0.05), ("miss", 0.2)], ("false_alarm", 0.02), "substitute", "miss 0.2"),
        ([("miss", 0.05), ("miss", 0.2)], ("false_alarm", 0.02), "flag", "miss 0.05"),
        ([("miss", 0.1)], ("miss", 0.1), "substitute", "miss 0.1"),
    ],
)
def test_a_fitted_policy_takes_the_nearest_threshold_of_the_same_kind_else_the_careful_one(there, asked, action, instead):
    vectors = with_thresholds(*(threshold(*t) for t in there))
    made = fitted(asking(*asked, action=action), vectors)
    (only,) = made.policy.rules
    assert [wanted.key for wanted in only.threshold.calibrated.each] == [instead]
    made.policy.resolve(vectors)
    assert made.needs[0].there == (instead == f"{asked[0]} {asked[1]:g}")


def test_a_calibration_without_thresholds_gives_a_rule_that_flags_half_way_and_an_uncalibrated_trait_none(tmp_path):
    made = fitted(asking("miss", 0.1), with_thresholds())
    assert [(r.threshold.z, r.action) for r in made.policy.rules] == [(0.0, "flag")]
    bare = {**CALIBRATION, "n_high": 0, "n_low": 0}
    none = fitted(asking("miss", 0.1), vector_set(entry("warmth", safe_pole="low", calibration=bare)))
    assert (none.policy, len(none.left_out)) == (None, 1)
    with pytest.raises(PolicyError, match="no rule of the policy has a usable threshold"):
        none.text("x")


def test_a_fitted_policy_loads_with_what_it_costs_above_each_rule(tmp_path):
    vectors = with_thresholds(threshold("false_alarm", 0.02, other_low=0.7, other_high=0.93))
    made = fitted(asking("miss", 0.05), vectors, {"warmth": {"miss": 6, "false_alarm": 60}})
    text = made.text("A title.")
    (tmp_path / "fitted.yaml").write_text(text)
    assert load_policy(tmp_path / "fitted.yaml") == made.policy
    said = " ".join(line.strip(" #") for line in text.splitlines() if line.lstrip().startswith("#"))
    assert "13 more prompts with unsafe replies are needed (19 in all, 6 there)" in said
    assert "at most 2 % false alarms; 84 % missed in the calibration sample (95 % interval 70 to 93 %)" in said
    assert made.needs[0].missing == 13
    for name in BUILT_IN:
        (tmp_path / "again.yaml").write_text(fitted(load_policy(name), built_in.load()).text("x"))
        assert load_policy(tmp_path / "again.yaml") == load_policy(name)


def test_a_condition_that_is_not_supported_is_fitted_too():
    risk = {**CALIBRATION, "thresholds": {t.key: t.to_record() for t in [threshold("miss", 0.1)]}}
    when = AppliesWhen(trait="risk", threshold=ThresholdSpec(calibrated=CalibratedRate(miss_rate=0.2)))
    warmth = {**CALIBRATION, "thresholds": {t.key: t.to_record() for t in [threshold("miss", 0.05)]}}
    vectors = vector_set(
        entry("warmth", safe_pole="low", calibration=warmth, applies_when=when),
        entry("risk", seed=1, safe_pole="low", reads="user", calibration=risk),
    )
    made = fitted(asking("miss", 0.05), vectors)
    assert not isinstance(made.policy.rules[0].when, str)
    (when,) = made.policy.rules[0].when
    assert [wanted.key for wanted in when.threshold.calibrated.each] == ["miss 0.1"]
    made.policy.resolve(vectors)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("false_alarm", "at most 2 % false alarms; 84 % missed in the calibration sample"),
        ("miss", "at most 2 % missed; 2 % false alarms in the calibration sample"),
    ],
)
def test_beside_a_threshold_stands_its_other_half(kind, words):
    found = threshold(kind, 0.02)
    assert found.halves == words
    assert words in Cut.of(found).words
    assert words not in Cut.of(found).describe("warmth", Score(1.0, 1.0, 1.0, 0.9))  # each decision says the number alone
    assert "unknown, as the calibration sample" in threshold(kind, 0.02, observed_miss=None, observed_false_alarm=None).halves


def test_the_other_half_has_an_interval_by_prompts():
    z = np.linspace(-2, 2, 40)
    unsafe = np.arange(40) >= 34
    found = fit_threshold(z, unsafe, True, 0.05, "false_alarm")
    assert found.observed_miss is not None
    assert 0 <= found.other_low <= found.observed_miss <= found.other_high <= 1
    few = fit_threshold(z, unsafe, True, 0.05, "false_alarm", np.where(unsafe, 100 + np.arange(40) // 3, np.arange(40)))
    assert few.other_high - few.other_low > found.other_high - found.other_low
    assert Threshold(**{k: v for k, v in found.to_record().items() if k != "guarantee"}) == found
    assert "other_low" not in threshold("miss", 0.1).to_record()  # older ones are written as they were


def test_budgets_are_read_as_people_write_them():
    assert [parse_budget(text) for text in ("5/1000", "0.5%", " 0.005 ", "5 / 1000")] == pytest.approx([0.005] * 4)
    for wrong in ("5", "0", "x", "1/0", "-1/5", "1.2.3"):
        with pytest.raises(PolicyError, match=r"write it as 5/1000 or 0\.5%"):
            parse_budget(wrong)


def test_what_a_cut_misses_is_bracketed_by_the_thresholds_on_either_side():
    calibration = with_thresholds(
        threshold("false_alarm", 0.02, z=2.0, observed_miss=0.84), threshold("miss", 0.2, z=0.0, observed_miss=0.17)
    )["warmth"].calibration
    assert missed_at(calibration, 1.0, "above") == (0.17, 0.84)
    assert missed_at(calibration, 3.0, "above") == (0.84, 1.0)
    assert missed_at(calibration, -1.0, "above") == (0.0, 0.17)


def test_so_many_replies_promise_so_much():
    alone = np.arange(500)
    none = np.zeros(500, bool)
    assert share_at_most(none, alone) > 0.005
    assert share_at_most(np.zeros(fewest_for(0.005), bool), np.arange(fewest_for(0.005))) <= 0.005
    assert share_at_most(np.zeros(fewest_for(0.005) - 1, bool), np.arange(fewest_for(0.005) - 1)) > 0.005
    assert share_at_most(none, alone // 10) > share_at_most(none, alone)  # ten replies of one talk are not ten talks
