"""From readings to a decision: which rules fire, which wins, and that what is unknown passes nothing."""

import itertools
import json

import numpy as np
import pytest
from test_policy import clinical, policy, rule, score

from demeanor.measure.calibration import Score
from demeanor.measure.conditions import AppliesWhen
from demeanor.measure.cuts import ACTIONS, ThresholdSpec, withholds
from demeanor.monitor.decision import Decision, top_pushes
from demeanor.monitor.outcome import at_least, decide
from demeanor.monitor.policy import Policy, load_policy
from demeanor.scoring.reading import NotScored, Reading, TokenScores

FINE = {"crisis_recognition": 2.0, "sycophancy_harmful_validation": -2.0, "boundary_maintenance": 2.0, "empathetic_responsiveness": 2.0}
NAN = float("nan")


def reading(**z):
    return Reading({trait: score(value) for trait, value in z.items()}, dict.fromkeys(z, (1,)), "tiny-chat")


def reply(**changes):
    return reading(**FINE | changes)


def user(*risks):
    return [NotScored("no") if r is None else reading(user_risk=r) for r in risks]


DEFAULT = load_policy().resolve(clinical())
AT_RISK = AppliesWhen(trait="user_risk", threshold=ThresholdSpec(z=0.5))
HARD = Policy.model_validate(
    load_policy().model_dump()
    | {"rules": [r.model_copy(update={"when": (AT_RISK,)} if "crisis" in r.name else {}) for r in load_policy().rules]}
).resolve(clinical())
"""The default policy with crisis rules that are not judged at all where the user is not at risk."""


def states(outcome):
    return {r.rule: r.state for r in outcome.results}


def test_a_good_reply_is_allowed_with_every_rule_explained():
    outcome = decide(DEFAULT, reply(), user(-2.0))
    assert (outcome.action, outcome.severity, outcome.situation, outcome.not_scored) == ("allow", None, None, None)
    assert len(outcome.why) == len(DEFAULT.rules)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in outcome.why)


def test_a_reply_without_a_hotline_passes_where_nobody_is_at_risk():
    eased, unjudged = (decide(policy, reply(crisis_recognition=-3.0), user(-2.0, -1.5)) for policy in (DEFAULT, HARD))
    assert eased.action == unjudged.action == "allow"
    assert (states(eased)["crisis_missed"], states(unjudged)["crisis_missed"]) == ("passed", "not judged")


def test_a_missed_crisis_is_red_and_answered_by_the_reply_for_disclosed_risk():
    outcome = decide(DEFAULT, reply(crisis_recognition=-3.0), user(3.0))
    assert (outcome.action, outcome.severity, outcome.situation) == ("substitute", "red", "risk_disclosed")
    assert outcome.fired == ("crisis_missed", "crisis_unsure")


@pytest.mark.parametrize(("risks", "judged"), [((3.0, -2.0, -2.0), True), ((3.0, -2.0, -2.0, -2.0), False), ((-2.0, 3.0), True)])
def test_the_worst_of_the_last_three_messages_decides(risks, judged):
    outcome = decide(DEFAULT, reply(crisis_recognition=-3.0), user(*risks))
    assert ("crisis_missed" in outcome.fired) is judged


def test_before_the_user_has_spoken_a_hard_condition_is_not_scored_and_the_greeting_is_flagged_at_most():
    outcome = decide(HARD, reply(crisis_recognition=-3.0), [])
    assert (outcome.action, outcome.severity) == ("flag", "yellow")
    assert states(outcome)["crisis_missed"] == "not scored"
    assert "the user wrote no words before this reply" in outcome.not_scored
    assert decide(HARD, reply(), []).action == "allow"  # on the safe side of the rule, whoever is at risk


def test_before_the_user_has_spoken_a_soft_condition_eases_the_greeting():
    assert decide(DEFAULT, reply(crisis_recognition=-0.5), []).action == "allow"
    far = decide(DEFAULT, reply(crisis_recognition=-3.0), [])
    assert (far.action, far.situation) == ("substitute", "risk_disclosed")
    assert "relaxed (by 0.4): the user wrote no words before this reply" in far.why[0]


def test_the_worst_message_of_a_turn_counts():
    bad = reply(crisis_recognition=-3.0)
    assert "crisis_missed" in decide(DEFAULT, bad, [user(3.0, -2.0, -2.0, -2.0), *user(-2.0), *user(-2.0)]).fired
    assert states(decide(DEFAULT, bad, [user(-2.0, None), *user(-2.0)]))["crisis_missed"] == "not scored"


# r: is the reply beyond the threshold; c: is the user at risk
KLEENE = {
    (True, True): "fired",
    (True, False): "not judged",
    (True, None): "not scored",
    (False, True): "passed",
    (False, False): "not judged",
    (False, None): "passed",
    (None, True): "not scored",
    (None, False): "not judged",
    (None, None): "not scored",
}


@pytest.mark.parametrize(("r", "c"), [*KLEENE])
def test_the_unknown_passes_only_what_nothing_could_have_stopped(r, c):
    said = {True: -3.0, False: 3.0, None: NAN}[r]
    outcome = decide(HARD, reply(crisis_recognition=said), user({True: 3.0, False: -3.0, None: NAN}[c]))
    assert states(outcome)["crisis_missed"] == KLEENE[r, c]
    assert (outcome.not_scored is not None) == (KLEENE[r, c] == "not scored")


@pytest.mark.parametrize("broken", [Score(NAN, NAN, NAN, NAN), Score(NAN, NAN, NAN, 0.5), Score(0.0, 0.0, float("-inf"), 0.5), None])
def test_a_trait_that_is_missing_or_no_number_takes_its_rules_unscored_action(broken):
    scores = dict(reply().scores)
    if broken is None:
        del scores["sycophancy_harmful_validation"]
    else:
        scores["sycophancy_harmful_validation"] = broken
    outcome = decide(DEFAULT, Reading(scores, {}, "tiny-chat"), user(-2.0))
    assert (outcome.action, outcome.situation) == ("substitute", "unchecked")
    assert states(outcome)["harmful_validation"] == "not scored"
    assert "sycophancy_harmful_validation" in outcome.not_scored


def test_an_unscored_reply_is_withheld_and_says_why():
    outcome = decide(DEFAULT, NotScored("the check outlasted its deadline of 10 s"), user(-2.0))
    assert (outcome.action, outcome.situation) == ("substitute", "unchecked")
    assert outcome.not_scored == "the check outlasted its deadline of 10 s"
    assert outcome.fired == ()


@pytest.mark.parametrize("seen", [NotScored("deadline"), reply(boundary_maintenance=-3.0)])
def test_somebody_at_risk_is_asked_about_safety_whatever_their_reply_was_withheld_for(seen):
    assert decide(DEFAULT, seen, user(3.0)).situation == "risk_disclosed"
    assert decide(DEFAULT, seen, user(-3.0)).situation != "risk_disclosed"


def test_an_unread_message_among_the_last_leaves_the_risk_open():
    bad = reply(crisis_recognition=-3.0)
    assert states(decide(DEFAULT, bad, user(None, -3.0)))["crisis_missed"] == "not scored"
    assert states(decide(DEFAULT, bad, user(None, 3.0)))["crisis_missed"] == "fired"
    assert states(decide(HARD, bad, user(None, -3.0, -3.0, -3.0)))["crisis_missed"] == "not judged"


def test_the_lack_of_warmth_alone_never_takes_a_reply_away():
    distressed = decide(DEFAULT, reply(empathetic_responsiveness=-6.0), user(0.6))
    assert (distressed.action, distressed.severity) == ("flag", "yellow")


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_the_strongest_action_and_the_worst_severity_win_whatever_the_order(order):
    rules = [
        rule(name="a", action="flag", severity="red"),
        rule(name="b", action="substitute", severity="yellow", situation="boundary"),
        rule(name="c", action="allow", severity="yellow"),
    ]
    always = [rules[i] | {"when": "always"} for i in order]
    outcome = decide(policy(*always).resolve(clinical()), reading(empathetic_responsiveness=-2.0))
    assert (outcome.action, outcome.severity, outcome.situation) == ("substitute", "red", "boundary")


def test_a_worse_reply_never_gets_a_milder_action():
    strength = [
        ACTIONS.index(decide(DEFAULT, reply(crisis_recognition=c, sycophancy_harmful_validation=-c), user(3.0)).action)
        for c in np.linspace(3, -3, 61)
    ]
    assert strength == sorted(strength)
    assert set(strength) >= {0, 2}


def test_an_unwritable_log_raises_a_decision_but_never_lowers_it():
    allowed, substituted = decide(DEFAULT, reply(), user(-2.0)), decide(DEFAULT, reply(crisis_recognition=-3.0), user(3.0))
    raised = at_least(allowed, "flag", "the audit log cannot be written: disk full")
    assert (raised.action, raised.severity) == ("flag", "yellow")
    assert "disk full" in raised.why[-1]
    assert at_least(substituted, "flag", "disk full") == substituted
    assert at_least(decide(DEFAULT, reply(), user(3.0)), "substitute", "disk full").situation == "risk_disclosed"
    assert at_least(allowed, "substitute", "disk full").situation == "unchecked"


def test_the_pushing_tokens_are_those_toward_the_unsafe_side():
    outcome = decide(DEFAULT, reply(boundary_maintenance=-3.0), user(-2.0))
    tokens = TokenScores(["I", " love", " you", "."], {"boundary_maintenance": np.array([1.0, -4.0, -2.0, NAN])})
    assert top_pushes(tokens, outcome.results) == {"boundary_maintenance": ((" love", -4.0), (" you", -2.0))}
    assert top_pushes(tokens, decide(DEFAULT, reply(), user(-2.0)).results) == {}


def test_a_decision_is_plain_data_even_with_broken_numbers():
    read = Reading(reply().scores | {"boundary_maintenance": Score(NAN, NAN, NAN, NAN)}, {}, "tiny-chat")
    outcome = decide(DEFAULT, read, user(-2.0))
    decision = Decision.of(outcome, read, "shown", "observed", latency_ms={"score": 12.3456})
    record = json.loads(json.dumps(decision.to_record(), allow_nan=False))
    assert record["action"] == "flag"
    assert record["reading"]["scores"]["boundary_maintenance"]["z"] is None
    assert record["latency_ms"] == {"score": 12.346}
    assert decision.shown is not withholds(decision.action)
