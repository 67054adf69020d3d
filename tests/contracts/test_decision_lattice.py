"""The order of decisions, as laws that hold for any policy and any readings.

1. What is not scored is never decided more mildly than the same on the safe side: a trait of the reply or of its worst part, the whole
   reply, a message of the user's, or all of them.
2. Nor is it let pass: where a rule would fire if what is not scored were as bad as can be, the decision is at least that rule's
   `not_scored` ("flag" where the user has said nothing yet). So only a policy that says `not_scored: allow` allows it.
3. A stricter policy (every cut moved toward alarm or left, no action and no severity lowered) never decides more mildly. This asks
   that no rule of the stricter one acts more strongly on what is not scored than on what it finds; what the law would otherwise say
   of a rule with action `flag` and not_scored `substitute` is shown by `test_what_the_third_law_leaves_out`.

Milder is a weaker action, or the same with a lesser severity. Each law is shown to catch decisions that break it.
"""

import itertools
from typing import Any, NamedTuple

import pytest
from artifacts import CALIBRATION, entry, vector_set
from contracts_tools import ACTIONS, BUILT_IN, Outcome, decide
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from demeanor import VectorSet
from demeanor.traits.contexts import CONTEXT, TOPIC

SAFE = {"harm": "low", "care": "high", "risk": "low", "calm": "high"}
REPLY, USER = ("harm", "care"), ("risk", "calm")
RATES = {"miss_rate": (0.05, 0.1, 0.2), "false_alarm_rate": (0.02, 0.05, 0.1)}
FAR = 9.0  # beyond every cut


def unsafe_above(trait):
    return SAFE[trait] == "low"


def thresholds(trait):
    """Made up: the fewer are missed the earlier the cut, the fewer false alarms the later."""
    sign, side = (1, "above") if unsafe_above(trait) else (-1, "below")
    kept = {"miss 0.05": -1.0, "miss 0.1": -0.5, "miss 0.2": 0.0, "false_alarm 0.1": 0.5, "false_alarm 0.05": 1.0, "false_alarm 0.02": 2.0}
    about = {"unsafe_side": side, "n": 99, "prompts": 99, "observed_miss": 0.1, "observed_false_alarm": 0.1}
    return {name: {"z": sign * z, "kind": name.split()[0], "rate": float(name.split()[1]), **about} for name, z in kept.items()}


VECTORS = vector_set(
    *(
        entry(trait, safe_pole=pole, reads="user" if trait in USER else "response",
              calibration=CALIBRATION | {"centre": 0.0, "spread": 1.0, "points": [[2.0, 0.0]], "thresholds": thresholds(trait)})
        for trait, pole in SAFE.items()
    )
)  # fmt: skip

# a cut as a step toward alarm: 0 is the latest, each step earlier on the unsafe side
LADDERS: dict[str, Any] = {
    "z": [{"z": z} for z in (2.0, 1.0, 0.5, 0.0, -0.5, -1.5)],  # for an unsafe side above; the sign turns with the side
    "probability": [{"probability": p} for p in (0.95, 0.8, 0.5, 0.2, 0.05)],
    "calibrated": [{"calibrated": {kind: rate}} for kind, rate in (
        ("false_alarm_rate", 0.02), ("false_alarm_rate", 0.05), ("false_alarm_rate", 0.1),
        ("miss_rate", 0.2), ("miss_rate", 0.1), ("miss_rate", 0.05))],
}  # fmt: skip
SEVERITIES = ("yellow", "red")


class Part(NamedTuple):
    """A trait and a cut of a rule, or of its condition."""

    trait: str
    scale: str
    step: int
    turned: bool
    """Whether the policy names the other side than the trait's own as unsafe; not for calibrated cuts, which have theirs."""

    @property
    def above(self):
        return unsafe_above(self.trait) != self.turned

    def written(self, later=0):
        ladder = LADDERS[self.scale]
        threshold = ladder[min(self.step + later, len(ladder) - 1)]
        if self.scale == "z" and not self.above:
            threshold = {"z": -threshold["z"]}
        return {"trait": self.trait, "threshold": threshold} | ({"unsafe": "above" if self.above else "below"} if self.turned else {})


class Drawn(NamedTuple):
    """A rule, and by how much a stricter policy moves each thing in it."""

    reply: Part
    user: Part | None
    last_turns: int
    action: int
    not_scored: int
    severity: int
    moved: tuple[int, int, int, int, int]

    def written(self, name, strict=False):
        reply, user, action, not_scored, severity = self.moved if strict else (0, 0, 0, 0, 0)
        action, not_scored = (min(a + up, len(ACTIONS) - 1) for a, up in ((self.action, action), (self.not_scored, not_scored)))
        action = max(action, not_scored) if strict else action  # see the third law
        when = {"when": self.user.written(user) | {"last_turns": self.last_turns}} if self.user else {}
        return self.reply.written(reply) | when | {
            "name": name, "severity": SEVERITIES[min(self.severity + severity, 1)], "action": ACTIONS[action],
            "not_scored": ACTIONS[not_scored], "situation": "unchecked",
        }  # fmt: skip


def parts(traits):
    found = [Part(*chosen) for chosen in itertools.product(traits, LADDERS, range(5), (False, True))]
    return [part for part in found if not (part.turned and part.scale == "calibrated")]


# few choices, each from a long list, are drawn much faster than many
SIDES = [(reply, user) for user in (None, *parts(USER)) for reply in parts(REPLY)]
SAYS = [*itertools.product((3, 2, 1), range(4), range(4), range(2))]
CUTS_ONLY = [(reply, user, 0, 0, 0) for reply in (5, 2, 1) for user in (5, 2, 0)]
MOVES = st.sampled_from(CUTS_ONLY) | st.sampled_from([*itertools.product(*[range(4)] * 4, range(2))])
RULES = st.builds(lambda sides, says, moved: Drawn._make((*sides, *says, moved)), st.sampled_from(SIDES), st.sampled_from(SAYS), MOVES)


def written(drawn, strict=False):
    return {"version": "t", "rules": [rule.written(f"rule-{i}", strict) for i, rule in enumerate(drawn)]}


def score(z):
    return z, 1 / (1 + 2.718281828459045 ** (-2 * z))


NUMBERS = [score(z) for z in (-2.5, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5)]
ABSENT = "absent"


def scores(traits):
    """A reading: each trait a number, none, or absent; or nothing at all."""
    found = st.tuples(*[st.sampled_from([*NUMBERS, None, ABSENT])] * len(traits))
    return st.none() | found.map(lambda drawn: {t: s for t, s in zip(traits, drawn, strict=True) if s != ABSENT})


REPLIES = scores([*REPLY, *(f"worst {trait}" for trait in REPLY)])
TURNS = st.lists(scores(USER) | st.lists(scores(USER), min_size=1, max_size=2), max_size=4)
POLICIES = st.lists(RULES, min_size=1, max_size=3)


def far(trait, policy, danger):
    """Beyond every cut on a trait, or on the safe side of all; None where the policy looks at it from both sides."""
    sides = {_above(part) for rule in policy["rules"] for part in (rule, rule.get("when")) if part and part["trait"] == trait}
    return None if len(sides) > 1 else score(FAR if (sides == {True}) == danger else -FAR)


def _above(part):
    return part.get("unsafe", "above" if unsafe_above(part["trait"]) else "below") == "above"


def mended_reply(reply, known):
    whole = {trait: (reply or {}).get(trait) or known[trait] for trait in REPLY}
    return whole | {name: s or known[name.removeprefix("worst ")] for name, s in (reply or {}).items() if name.startswith("worst ")}


def mended_user(user, known):
    def mended(reading):
        return {trait: (reading or {}).get(trait) or known[trait] for trait in USER}

    return [[mended(r) for r in said] if isinstance(said, list) else mended(said) for said in user or [None]]


def milder(a, b):
    return a.strength < b.strength


def unscored_is_never_milder(decide, drawn, reply, user):
    """The first law, for one reading: what is not scored in it is put on the safe side, and the decision must not become stronger."""
    policy = written(drawn)
    known = {trait: far(trait, policy, danger=False) for trait in SAFE}
    if None in known.values():
        return
    before = decide(policy, VECTORS, reply, user)
    better, calm = mended_reply(reply, known), mended_user(user, known)
    for after in (decide(policy, VECTORS, better, user), decide(policy, VECTORS, reply, calm), decide(policy, VECTORS, better, calm)):
        assert not milder(before, after), f"law broken: not scored: {before}; on the safe side: {after}"


def unscored_does_not_pass(decide, drawn, reply, user):
    """The second law, for one reading."""
    whole = decide(written(drawn), VECTORS, reply, user)
    for one in drawn:
        alone = written([one])
        known = {trait: far(trait, alone, danger=True) for trait in SAFE}
        now = decide(alone, VECTORS, reply, user)
        worst = decide(alone, VECTORS, mended_reply(reply, known), mended_user(user, known))
        if worst.fired and not now.fired:
            least = min(one.not_scored, 1) if one.user and not user else one.not_scored
            assert whole.action >= least, f"law broken: {ACTIONS[whole.action]} of what may be {worst}"
            assert whole.not_scored, "law broken: nothing says that it was not scored"


def stricter_is_never_milder(decide, drawn, reply, user):
    """The third law, for one reading."""
    lax, strict = (decide(written(drawn, strict), VECTORS, reply, user) for strict in (False, True))
    assert not milder(strict, lax), f"law broken: as it was: {lax}; stricter: {strict}"


MANY = settings(max_examples=200, deadline=None, derandomize=True, report_multiple_bugs=False)
CASES = given(drawn=POLICIES, reply=REPLIES, user=TURNS)


@MANY
@CASES
def test_what_is_not_scored_is_never_decided_more_mildly_than_what_is_safe(drawn, reply, user):
    unscored_is_never_milder(decide, drawn, reply, user)


@MANY
@CASES
def test_what_is_not_scored_does_not_pass(drawn, reply, user):
    unscored_does_not_pass(decide, drawn, reply, user)


@settings(MANY, max_examples=500)
@CASES
def test_a_stricter_policy_never_decides_more_mildly(drawn, reply, user):
    stricter_is_never_milder(decide, drawn, reply, user)


def test_what_the_third_law_leaves_out():
    """A rule that flags what it finds and replaces what it does not know: to know more, by a stricter cut, is then milder.

    Such a rule need not say so: for two traits `not_scored` is "substitute" where it is left out, whatever the action.
    """
    rule = {"name": "r", "trait": "harm", "threshold": {"z": 0.0}, "severity": "yellow", "action": "flag", "not_scored": "substitute"}
    user = [{"risk": None}, {"risk": score(1.0)}]

    def action(limit):
        when = {"trait": "risk", "threshold": {"z": limit}}
        found = decide({"version": "t", "rules": [rule | {"when": when}]}, VECTORS, {"harm": score(1.0)}, user)
        return ACTIONS[found.action]

    assert (action(2.0), action(1.0)) == ("substitute", "flag")


DEFAULT = {
    "crisis_recognition": "high", "sycophancy_harmful_validation": "low", "boundary_maintenance": "high",
    "empathetic_responsiveness": "high", "user_risk": "low",
}  # fmt: skip


@pytest.fixture(scope="module")
def built_in():
    return VectorSet.load(BUILT_IN)


@settings(MANY, max_examples=100)
@given(
    reply=st.fixed_dictionaries({t: st.none() | st.floats(-4, 4).map(score) for t in DEFAULT if t != "user_risk"}),
    topic=st.none() | st.floats(-4, 4).map(score),
    user=st.lists(st.tuples(*[st.none() | st.floats(-4, 4).map(score)] * 2), max_size=4),
)
def test_the_default_policy_keeps_the_first_two_laws(built_in, reply, topic, user):
    contexts, topics = ([trait for trait in built_in.traits if trait.endswith(ending)] for ending in (CONTEXT, TOPIC))
    said = [{"user_risk": risk} | dict.fromkeys(contexts, context) for risk, context in user]
    assert contexts
    assert topics
    before = decide(None, built_in, reply | dict.fromkeys(topics, topic), said)
    good = dict.fromkeys(topics, topic or score(-FAR)) | {t: s or score(FAR if DEFAULT[t] == "high" else -FAR) for t, s in reply.items()}
    calm = [{"user_risk": risk or score(-FAR)} | dict.fromkeys(contexts, context or score(-FAR)) for risk, context in user]
    for after in (
        decide(None, built_in, good, said),
        decide(None, built_in, reply | dict.fromkeys(topics, topic), calm),
        decide(None, built_in, good, calm),
    ):
        assert not milder(before, after)
    if None in (reply["sycophancy_harmful_validation"], reply["boundary_maintenance"]):
        assert before.not_scored
        assert before.action >= (1 if reply["sycophancy_harmful_validation"] else 2)


# decisions that break a law: each law must catch its own


def unknown_is_allowed(policy, vectors, reply, user=()):
    """Takes what is not scored for allowed."""
    found = decide(policy, vectors, reply, user)
    return found if found.fired or not found.not_scored else Outcome(0, 0)


def unknown_hides_the_rest(policy, vectors, reply, user=()):
    """Allows the whole reply where something in it is not scored."""
    found = decide(policy, vectors, reply, user)
    return Outcome(0, 0) if found.not_scored else found


def unread_users_are_calm(policy, vectors, reply, user=()):
    """Takes a message that was not read for one without risk."""
    return decide(policy, vectors, reply, mended_user(user, {t: score(-FAR if unsafe_above(t) else FAR) for t in USER}))


def sides_mixed_up(policy, vectors, reply, user=()):
    """Takes every trait's z for one whose unsafe side is above."""
    rules = [rule | {"unsafe": "above"} if "z" in rule["threshold"] else rule for rule in policy["rules"]]
    return decide(policy | {"rules": rules}, vectors, reply, user)


def first_rule_wins(policy, vectors, reply, user=()):
    outcomes = [decide(policy | {"rules": [rule]}, vectors, reply, user) for rule in policy["rules"]]
    return next((found for found in outcomes if found.action), outcomes[0])


def chances_turned_round(policy, vectors, reply, user=()):
    """Takes a limit for the chance of the safe side."""

    def turned(rule):
        return rule | {"threshold": {"probability": 1 - rule["threshold"]["probability"]}} if "probability" in rule["threshold"] else rule

    return decide(policy | {"rules": [turned(rule) for rule in policy["rules"]]}, vectors, reply, user)


@pytest.mark.parametrize(
    ("law", "decision"),
    [
        (unscored_is_never_milder, unknown_hides_the_rest),
        (unscored_does_not_pass, unknown_is_allowed),
        (unscored_does_not_pass, unknown_hides_the_rest),
        (unscored_does_not_pass, unread_users_are_calm),
        (stricter_is_never_milder, sides_mixed_up),
        (stricter_is_never_milder, first_rule_wins),
        (stricter_is_never_milder, chances_turned_round),
    ],
)
def test_a_law_catches_a_decision_that_breaks_it(law, decision):
    @settings(MANY, max_examples=2000, phases=[Phase.generate])
    @CASES
    def search(drawn, reply, user):
        law(decision, drawn, reply, user)

    with pytest.raises(AssertionError, match="law broken"):
        search()
