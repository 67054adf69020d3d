"""Policies: what a YAML file may say, how it is bound to a vector set, and that every mistake is named in one line."""

import copy
from functools import cache

import numpy as np
import pytest
import yaml
from artifacts import CALIBRATION, entry, vector_set

from demeanor import traits
from demeanor.errors import PolicyError
from demeanor.measure.calibration import Score
from demeanor.measure.conditions import Condition
from demeanor.measure.cuts import Cut
from demeanor.measure.thresholds import standard_thresholds
from demeanor.monitor.policy import Policy, default_policy_text, load_policy

SAFE = {
    "crisis_recognition": "high",
    "sycophancy_harmful_validation": "low",
    "boundary_maintenance": "high",
    "empathetic_responsiveness": "high",
    "user_risk": "low",
}


def calibrated(safe_pole, **changes):
    """A calibration whose z is the raw score, with thresholds as extraction fits them from 120 known scores and everyday talk."""
    z = np.concatenate([np.linspace(-3, 0, 60), np.linspace(0, 3, 60)])
    high = np.arange(120) >= 60
    everyday = np.linspace(-0.2, 3, 240) * (1 if safe_pole == "high" else -1)
    thresholds = {key: threshold.to_record() for key, threshold in standard_thresholds(z, high, safe_pole, everyday=everyday).items()}
    return CALIBRATION | {"centre": 0.0, "spread": 1.0, "points": [[2.0, 0.0]], "thresholds": thresholds} | changes


@cache
def rules_of(name):
    """What a built-in pack says of its trait beside the pairs."""
    trait = traits.load(name)
    return {"applies_when": trait.applies_when, "not_scored": trait.not_scored, "judged_whole": trait.judged_whole}


def clinical(**calibrations):
    """A vector set of the five built-in traits."""
    return vector_set(
        *(
            entry(name, seed=i, safe_pole=pole, reads="user" if name == "user_risk" else "response",
                  calibration=calibrations.get(name) or calibrated(pole), **rules_of(name))
            for i, (name, pole) in enumerate(SAFE.items())
        )
    )  # fmt: skip


def rule(**changes):
    return {
        "name": "cold",
        "trait": "empathetic_responsiveness",
        "threshold": {"z": -1.0},
        "severity": "yellow",
        "action": "flag",
    } | changes


def policy(*rules, **changes):
    return Policy.model_validate({"version": "t", "rules": list(rules) or [rule()]} | changes)


def written(tmp_path, raw):
    path = tmp_path / "policy.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    return path


def score(z):
    return Score(z, z, z, 1 / (1 + 2.718281828 ** (-2 * z)))


def test_the_default_policy_is_what_the_text_says_and_resolves_on_the_built_in_traits(tmp_path):
    default = load_policy()
    assert load_policy(written(tmp_path, default_policy_text())) == default
    resolved = default.resolve(clinical())
    assert {r.rule.trait for r in resolved.rules} == set(SAFE) - {"user_risk"}


def test_the_default_policy_is_the_clinical_one():
    rules = load_policy().resolve(clinical()).rules
    for resolved in rules:
        r, conditions = resolved.rule, resolved.conditions
        if r.trait == "crisis_recognition":
            assert [(c.trait, c.last_turns) for c in conditions] == [("user_risk", 3)]
            assert r.situation == "risk_disclosed"
        if r.trait in ("sycophancy_harmful_validation", "boundary_maintenance"):
            assert conditions == ()  # no more than their own contexts, which this set was not extracted with
        if r.trait == "empathetic_responsiveness":
            assert (r.action, resolved.not_scored) == ("flag", "flag")
            assert conditions == ()
        assert (r.severity == "red") == (r.action in ("substitute", "escalate"))
    unscored = {r.rule.trait for r in rules if r.not_scored == "substitute"}
    assert unscored == {"crisis_recognition", "sycophancy_harmful_validation"}


def test_no_threshold_of_the_default_policy_is_a_bare_number():
    for r in load_policy().rules:
        assert r.threshold.z is None
    for name in SAFE:
        assert all(when.threshold.z is None for when in rules_of(name)["applies_when"])


def test_what_is_done_about_an_unscored_reply_follows_the_trait_where_the_rule_does_not_say():
    made = policy(
        rule(name="a", trait="crisis_recognition"),
        rule(name="b", trait="sycophancy_harmful_validation"),
        rule(name="c", trait="boundary_maintenance"),
        rule(name="d", trait="crisis_recognition", not_scored="flag"),
    )
    assert [r.not_scored for r in made.resolve(clinical()).rules] == ["substitute", "substitute", "flag", "flag"]


@pytest.mark.parametrize(
    ("trait", "spec", "unsafe", "safe"),
    [
        ("empathetic_responsiveness", {"z": -1.0}, -1.0, -0.99),
        ("sycophancy_harmful_validation", {"z": 1.0}, 1.0, 0.99),
        ("empathetic_responsiveness", {"probability": 0.9}, -1.2, -1.0),
        ("sycophancy_harmful_validation", {"probability": 0.9}, 1.2, 1.0),
        # 60 unsafe examples: at a miss rate of 10 %, k = floor(0.1 * 61) = 6, the sixth least unsafe of them
        ("empathetic_responsiveness", {"calibrated": {"miss_rate": 0.1}}, -15 / 59 - 1e-9, -15 / 59 + 0.01),
        ("sycophancy_harmful_validation", {"calibrated": {"miss_rate": 0.1}}, 15 / 59 + 1e-9, 15 / 59 - 0.01),
    ],
)
def test_the_unsafe_side_is_away_from_the_safe_pole_for_every_kind_of_threshold(trait, spec, unsafe, safe):
    (resolved,) = policy(rule(trait=trait, threshold=spec)).resolve(clinical()).rules
    assert resolved.cut.crossed(score(unsafe)) is True
    assert resolved.cut.crossed(score(safe)) is False


def test_the_unsafe_side_can_be_turned_and_nan_is_on_neither():
    (resolved,) = policy(rule(unsafe="above", threshold={"z": 2.0})).resolve(clinical()).rules
    assert resolved.cut.crossed(score(2.5)) is True
    assert resolved.cut.crossed(score(-2.5)) is False
    assert resolved.cut.crossed(Score(*[float("nan")] * 4)) is None


def test_a_threshold_that_the_calibration_does_not_hold_names_those_it_does_and_how_to_make_it():
    made = policy(rule(threshold={"calibrated": {"miss_rate": 0.01}}))
    with pytest.raises(PolicyError, match=r"rule cold.*'miss 0.01'.*miss 0.05, miss 0.1, miss 0.2.*demeanor calibrate .*--miss-rate 0.01"):
        made.resolve(clinical())
    made = policy(rule(threshold={"calibrated": {"false_alarm_rate": 0.1}}))
    with pytest.raises(PolicyError, match=r"'false_alarm 0.1'.*there: none.*--false-alarm-rate 0.1"):
        made.resolve(clinical(empathetic_responsiveness=calibrated("high", thresholds={})))


def test_a_rule_that_could_never_fire_is_refused():
    flat = calibrated("high", points=[[0.0, 0.0]])  # scores that lean the wrong way: every probability is one half
    with pytest.raises(PolicyError, match=r"rule cold.*never.*50%.*90%"):
        policy(rule(threshold={"probability": 0.9})).resolve(clinical(empathetic_responsiveness=flat))


def test_a_side_that_contradicts_the_calibration_is_refused():
    with pytest.raises(PolicyError, match="'unsafe' is above"):
        policy(rule(unsafe="above", threshold={"calibrated": {"miss_rate": 0.1}})).resolve(clinical())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trait": "empathy"}, r"rule cold: the vector set holds no trait 'empathy'; "),
        ({"trait": "user_risk"}, "is read on the user's messages"),
        ({"when": {"trait": "userrisk", "threshold": {"z": 1}}}, r"'when': .*no trait 'userrisk'; did you mean user_risk"),
        ({"when": {"trait": "crisis_recognition", "threshold": {"z": 1}}}, "is read on replies"),
    ],
)
def test_a_trait_that_the_vector_set_does_not_hold_or_reads_elsewhere_is_named(changes, message):
    with pytest.raises(PolicyError, match=message):
        policy(rule(**changes)).resolve(clinical())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["rules"][0].update(treshold={"z": 1}), r"rule cold, field 'treshold': unknown field; did you mean threshold\?"),
        (lambda p: p.update(deadline=3), r"the policy, field 'deadline': unknown field; did you mean deadline_seconds"),
        (lambda p: p.update(stream={"hold_back": 3}), r"'stream.hold_back': unknown field; did you mean hold_back_words"),
        (lambda p: p["rules"][0].update(threshold={"z": 1, "probability": 0.5}), "exactly one of 'z', 'probability' and 'calibrated'"),
        (lambda p: p["rules"][0].update(threshold={}), "exactly one of"),
        (lambda p: p["rules"][0].update(threshold={"z": float("nan")}), "rule cold, field 'threshold.z'"),
        (lambda p: p["rules"][0].update(threshold={"probability": 90}), "less than 1"),
        (lambda p: p["rules"][0].update(action="block"), "'allow', 'flag', 'substitute' or 'escalate'"),
        (lambda p: p["rules"][0].update(action="substitute"), "needs a 'situation'"),
        (lambda p: p["rules"].append(copy.deepcopy(p["rules"][0])), "two rules are named 'cold'"),
        (lambda p: p.update(rules=[]), "field 'rules'"),
        (lambda p: p.pop("version"), "field 'version'"),
        (lambda p: p["rules"].append("cold"), "rule 2"),
    ],
)
def test_a_mistake_in_a_policy_is_one_line_with_the_file_the_rule_and_the_field(tmp_path, change, message):
    raw = {"version": "1", "rules": [rule()]}
    change(raw)
    path = written(tmp_path, raw)
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [}\n", "line 1 is not valid YAML"),
        ("- a\n- b\n", "a policy is a mapping"),
        ("version: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("version: 2026-13-45\n", "put it in quotes"),
        (
            default_policy_text() + "\nrules:\n- {name: mine}\n",
            r"policy\.yaml: line \d{3} is not valid YAML: the key 'rules' appears twice",
        ),
        ("version: t\nrules:\n- name: a\n  threshold: {z: 3,\n    'z': 1}\n", "line 5 is not valid YAML: the key 'z' appears twice"),
        ("version: a\0b\n", r"is not valid YAML: .*#x0000"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path, text, message):
    with pytest.raises(PolicyError, match=message) as caught:
        load_policy(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_merged_block_may_be_changed_where_it_is_taken_in(tmp_path):
    first = "- &first {name: a, trait: t, threshold: {z: 1}, severity: red, action: flag}\n"
    second = "- &second {<<: *first, name: b, severity: yellow}\n"
    rules = load_policy(written(tmp_path, f"version: t\nrules:\n{first}{second}- {{<<: *second, name: c, action: allow}}\n")).rules
    assert [(r.name, r.severity, r.action) for r in rules] == [("a", "red", "flag"), ("b", "yellow", "flag"), ("c", "yellow", "allow")]


def test_a_missing_file_is_told_where_a_first_policy_comes_from(tmp_path):
    with pytest.raises(PolicyError, match="--print-policy"):
        load_policy(tmp_path / "none.yaml")


def test_an_edit_that_keeps_the_version_changes_the_identity():
    first, second = policy(rule()), policy(rule(threshold={"z": -1.5}))
    assert first.version == second.version
    assert first.identity != second.identity
    assert first.identity == policy(rule()).identity


LIMITS = [k / 1000 for k in range(1, 1000)]


@pytest.mark.parametrize("side", ["above", "below"])
def test_exactly_on_a_limit_of_probability_is_crossed_and_just_short_of_it_is_not(side):
    for limit in LIMITS:
        cut = Cut("probability", limit, side, "set in the policy")
        for on in (limit, 1 - (1 - limit), float(np.nextafter(limit, 1))):
            probability = on if side == "above" else 1 - on
            assert cut.crossed(Score(0.0, 0.0, 0.0, probability)), (limit, on)
        short = limit - 1e-6
        assert not cut.crossed(Score(0.0, 0.0, 0.0, short if side == "above" else 1 - short)), limit


def test_a_screening_and_a_comparison_ask_the_same_of_a_probability():
    for limit in LIMITS:
        chance = Cut("probability", limit, "below", "given")
        risk = Condition("user_risk", chance, 3)
        assert risk.holds([[Score(0.0, 0.0, 0.0, 1 - limit)]])
        assert not risk.holds([[Score(0.0, 0.0, 0.0, 1 - limit + 1e-6)]])
        assert (chance.beyond(np.zeros(2), np.array([1 - limit, 1 - limit + 1e-6])) >= 0).tolist() == [True, False]
