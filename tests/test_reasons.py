"""What a decision says of its rules: the claim first, a number with its direction, and no word that needs explaining."""

import pytest

from demeanor.measure.calibration import Calibration, Score
from demeanor.measure.conditions import Condition
from demeanor.measure.cuts import Cut
from demeanor.monitor.outcome import RuleResult, decide
from demeanor.monitor.policy import Policy, ResolvedPolicy, ResolvedRule
from demeanor.monitor.reasons import spoken
from demeanor.scoring.reading import NotScored, Reading

UNIT = Calibration(centre=0.0, spread=1.0, method="platt", points=((1.0, 0.0),), n_high=9, n_low=9, source="test")


def scored(**z):
    return Reading({trait: UNIT.score(value) for trait, value in z.items()}, {}, "tiny-chat")


def said(cut=None, condition=None, reply=None, user=()):
    """The explanation of one rule on one reply."""
    rule = {"name": "missed", "trait": "crisis_recognition", "threshold": {"z": -1}, "severity": "red", "action": "flag"}
    made = Policy.model_validate({"version": "t", "rules": [rule]})
    cut = cut or Cut("z", -1.0, "below", "set in the policy")
    resolved = ResolvedRule(made.rules[0], cut, (condition,) if condition else (), "flag", UNIT)
    return decide(ResolvedPolicy(made, (resolved,)), reply or scored(crisis_recognition=-3.0), [[one] for one in user]).why[0]


def on_risk(slope=None, trait="user_risk", cut=None):
    return Condition(trait, cut or Cut("z", -0.2, "above", "set in the policy"), 3, slope)


def test_a_rule_that_fires_says_the_action_the_score_and_where_unsafe_begins():
    assert said() == "missed: fired, so the action is flag: crisis recognition score -3.0, unsafe from -1.0 down (set in the policy)."
    above = Cut("z", 2.0, "above", "set in the policy")
    assert said(above) == "missed: passed: crisis recognition score -3.0, unsafe from 2.0 up (set in the policy)."


def test_a_rule_that_was_not_checked_says_so_first():
    assert said(condition=on_risk(), user=[scored(user_risk=-4.63)]) == (
        "missed: not checked: no sign of risk in the user's last message (risk score -4.6; checked from -0.2 up)."
    )
    assert "no sign of risk in the user's last 2 messages (risk score -1.0;" in said(
        condition=on_risk(), user=[scored(user_risk=-4.63), scored(user_risk=-1.0)]
    )


def test_a_relaxed_limit_is_the_limit_that_is_shown_and_says_why_it_is():
    assert said(condition=on_risk(2.0), user=[scored(user_risk=-0.7)]) == (
        "missed: fired, so the action is flag: crisis recognition score -3.0, unsafe from -2.0 down (set in the policy). "
        "The limit was relaxed (by 1.0): no clear sign of risk in the user's last message (risk score -0.7; clear from -0.2 up)."
    )
    assert "passed: crisis recognition score -3.0, unsafe from -5.0 down" in said(condition=on_risk(2.0), user=[scored(user_risk=-2.2)])
    assert "The limit was relaxed (by 1.0): the user wrote no words before this reply." in said(
        condition=on_risk(2.0, cut=Cut("z", 0.5, "above", "")), user=[]
    )


def test_what_called_for_the_rule_is_named():
    assert said(condition=on_risk(), user=[scored(user_risk=1.0)]).endswith(
        "A recent message of the user shows risk (risk score 1.0; counts from -0.2 up)."
    )
    context = on_risk(3.0, trait="crisis_recognition-context", cut=Cut("z", 1.0, "above", ""))
    assert said(condition=context, user=[scored(**{"crisis_recognition-context": 1.5})]).endswith(
        "A recent message of the user is one where crisis recognition matters (score 1.5; counts from 1.0 up)."
    )
    assert "the user's last message is not clearly one where crisis recognition matters (score 0.0; clear from 1.0 up)" in said(
        condition=context, user=[scored(**{"crisis_recognition-context": 0.0})]
    )


def about(score, slope=2.0, trait="crisis_recognition-topic"):
    """What is said where the reply's own score for a trait is the condition."""
    condition = Condition(trait, Cut("z", 1.0, "above", ""), 3, slope, reads="response")
    return said(condition=condition, reply=scored(crisis_recognition=-3.0, **{trait: score}), user=[scored(user_risk=0.0)])


def test_what_the_reply_speaks_of_relaxes_the_limit_and_says_so():
    assert about(0.5).endswith(
        "unsafe from -2.0 down (set in the policy). The limit was relaxed (by 1.0): the reply is not clearly about crisis recognition "
        "(score 0.5; clear from 1.0 up)."
    )
    assert about(1.5).endswith("The reply is about crisis recognition (score 1.5; counts from 1.0 up).")
    assert about(0.5, slope=None) == "missed: not checked: the reply is not about crisis recognition (score 0.5; checked from 1.0 up)."
    assert "no clear sign of warmth in the reply (warmth score 0.5; clear from 1.0 up)" in about(0.5, trait="warmth")
    assert "The reply shows warmth (warmth score 1.5; counts from 1.0 up)." in about(1.5, trait="warmth")
    assert "crisis_recognition-topic could not be scored in the reply" in about(float("nan"))


@pytest.mark.parametrize(
    ("reply", "user", "words"),
    [
        (NotScored("out of memory"), [], "the reply could not be scored (out of memory)"),
        (scored(warmth=1.0), [], "the reply has no score for crisis_recognition"),
        (Reading({"crisis_recognition": Score(0.0, 0.0, float("nan"), 0.5)}, {}, "m"), [], "for crisis_recognition is not a finite number"),
        (None, [NotScored("deadline")], "user_risk could not be scored in the user's last message; crisis recognition score -3.0"),
        (None, [NotScored("deadline"), scored(user_risk=-3.0)], "user_risk could not be scored in 1 of the user's last 2 messages;"),
    ],
)  # fmt: skip
def test_what_could_not_be_scored_is_named_with_the_action(reply, user, words):
    told = said(condition=on_risk() if user else None, reply=reply, user=user)
    assert told.startswith("missed: NOT scored, so the action is flag: ")
    assert words in told


@pytest.mark.parametrize(
    ("score", "limit", "words"),
    [
        (-0.64, -0.58, "score -0.64, unsafe from -0.58 down"),  # both are -0.6
        (-0.5801, -0.5804, "score -0.5801, unsafe from -0.5804 down"),
        (0.25, 0.25, "score 0.2, unsafe from 0.2 down"),
        (-0.01, 1.0, "score 0.0, unsafe from 1.0 down"),  # not -0.0
    ],
)
def test_a_score_and_its_limit_are_told_apart_whenever_they_differ(score, limit, words):
    assert Cut("z", limit, "below", "x").describe("t", UNIT.score(score)) == f"t {words} (x)"


def test_a_probability_is_named_as_one():
    cut = Cut("probability", 0.8, "below", "set in the policy")
    assert "crisis recognition unsafe with a probability of 95%; the limit is 80% (set in the policy)" in said(cut)
    risk = on_risk(cut=Cut("probability", 0.9, "above", ""))
    assert "no sign of risk in the user's last message (probability 50%; checked from 90% up)" in said(
        condition=risk, user=[scored(user_risk=0.0)]
    )


def test_a_trait_is_spoken_of_in_words():
    assert [spoken(name) for name in ("user_risk", "boundary_maintenance", "warmth", "warmth-context", "warmth-topic")] == [
        "risk", "boundary maintenance", "warmth", "warmth", "warmth"
    ]  # fmt: skip


def test_the_place_in_a_reply_stands_with_what_happened_there():
    places = ("in the worst part of the reply", "where the reply was stopped")
    fired = RuleResult("r", "fired", "flag", "red", "boundary", False, "t", "above", "t score 3.0, unsafe from 2.0 up (x)", where=places)
    assert fired.explanation == (
        "r: fired in the worst part of the reply, where the reply was stopped, so the action is flag: t score 3.0, unsafe from 2.0 up (x)."
    )


def test_what_raises_an_action_says_so():
    raised = RuleResult("audit", "raised", "flag", "yellow", "unchecked", False, "", "above", "the disk is full")
    assert raised.explanation == "audit: the disk is full, so the action is flag."
