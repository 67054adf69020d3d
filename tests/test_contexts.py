"""When a trait is called for: learnt from the contexts of its own pairs, and by how much a reply's score is eased elsewhere."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from monitor_tools import AT_RISK, CALM, PLAIN, planted

from demeanor.conversation import Message
from demeanor.errors import PolicyError
from demeanor.extraction import extract_vectors
from demeanor.extraction.easing import eased_by
from demeanor.measure.calibration import Calibration, Score
from demeanor.measure.conditions import AppliesWhen, Condition, total_easing
from demeanor.measure.cuts import Cut, ThresholdSpec, find_cut
from demeanor.measure.poles import Pole
from demeanor.measure.thresholds import fit_threshold, standard_thresholds
from demeanor.model.reader import ActivationReader
from demeanor.monitor.outcome import decide
from demeanor.monitor.policy import Policy
from demeanor.monitor.session import Monitor
from demeanor.scoring.reading import Reading, looked_at
from demeanor.scoring.scorer import Scorer
from demeanor.traits import ContrastPair, TraitDefinition
from demeanor.traits.contexts import (
    CALLED_FOR,
    FAMILIES,
    FEWEST,
    SLOPE,
    TOPIC_SLOPE,
    context_name,
    context_trait,
    topic_name,
    topic_trait,
)
from demeanor.traits.ordinary import ordinary_conversations


def pairs(n, families, asked="Question {} about the boat?"):
    return tuple(
        ContrastPair(f"p{i}", (Message("user", asked.format(i)),), f"Row {i}, gladly.", f"Sink {i}, idiot.", f"family {i % families}")
        for i in range(n)
    )


def definition(n=60, families=10, **changes):
    return TraitDefinition("kindness", "d", pairs=pairs(n, families), **changes)


def test_it_is_learnt_from_the_pack_alone_with_the_pack_s_splits():
    trait = definition()
    of = context_trait(trait)
    assert (of.name, of.reads, of.safe_pole) == (context_name("kindness"), "user", "low")
    high = [(split, e) for split, e in of.unpaired if e.high]
    assert {e.family: split for split, e in high} == dict(trait.splits)
    assert all(e.conversation.messages[-1].role == "user" for _, e in of.unpaired)
    low = [split for split, e in of.unpaired if not e.high]
    assert sorted(low) == sorted(o.split for o in ordinary_conversations())


def test_one_context_of_several_pairs_is_one_example():
    twice = definition()
    twice = TraitDefinition("kindness", "d", pairs=(*twice.pairs, replace(twice.pairs[0], id="again", high="Gladly!")))
    assert sum(e.high for _, e in context_trait(twice).unpaired) == 60


@pytest.mark.parametrize(
    "trait",
    [
        definition(FEWEST, FAMILIES + 4),  # a part of them calibrates and tests
        definition(60, FAMILIES),
        definition(applies_when="always"),
        TraitDefinition("told", "d", ["User: Hi\nAssistant: Hello"], ["User: Hi\nAssistant: Go"]),
    ],
    ids=["too few contexts", "too few families", "always", "plain texts"],
)
def test_a_trait_without_enough_contexts_counts_always(trait):
    assert context_trait(trait) is None
    assert topic_trait(trait) is None


def test_what_replies_speak_of_is_learnt_from_both_poles_with_the_pack_s_splits():
    trait = definition()
    of = topic_trait(trait)
    assert (of.name, of.reads, of.safe_pole, of.judged_whole) == (topic_name("kindness"), "response", "low", True)
    for split in ("train", "calibration", "test"):
        high = [e.conversation for e in of.examples(split) if e.high]
        assert high == [e.conversation for e in trait.examples(split)]
        low = [e.conversation for e in of.examples(split) if not e.high]
        assert low == [o.conversation for o in ordinary_conversations() if o.split == split]


def test_a_trait_that_asks_for_something_has_no_topic():
    """A reply that speaks of something else is just what such a trait is to find."""
    assert context_trait(definition(judged_whole=True)) is not None
    assert topic_trait(definition(judged_whole=True)) is None


def score(z):
    return Score(z, z, z, 0.5)


@pytest.mark.parametrize(
    ("slope", "turns", "eased"),
    [
        (3.0, [[1.5]], 0.0),
        (3.0, [[0.0]], 3.0),
        (3.0, [[-1.0, 0.5]], 1.5),  # the message that calls for it most
        (3.0, [[0.0], [9.0], [-4.0], [-4.0]], 15.0),  # what was said three turns ago is over
        (None, [[0.0]], math.inf),
        (None, [[1.0]], 0.0),
        (3.0, [], 3.0),  # nothing is said yet: as after a message half-way
        (None, [], None),
        (3.0, [[0.0, None]], None),  # the unknown is not calm
        (3.0, [[2.0, None]], 0.0),
    ],
)
def test_a_reply_is_eased_by_what_the_user_s_messages_lack(slope, turns, eased):
    condition = Condition("called", Cut("z", 1.0, "above", "made up"), 2, slope)
    assert condition.easing([[None if z is None else score(z) for z in turn] for turn in turns]) == eased


@pytest.mark.parametrize(("second", "together"), [(0.0, 3.0 + 2.0), (-9.0, 3.0 + 11.0), (None, None)])
def test_several_conditions_ease_together(second, together):
    conditions = [Condition(name, Cut("z", at, "above", "made up"), 1, slope) for name, at, slope in (("a", 1.0, 3.0), ("b", 2.0, 1.0))]
    said = {"a": [[score(0.0)]], "b": [[None if second is None else score(second)]]}
    assert total_easing(conditions, lambda c: said[c.trait]) == together


def test_what_one_condition_leaves_unjudged_no_other_brings_back():
    cut = Cut("z", 1.0, "above", "made up")
    said = {"a": [[score(0.0)]], "b": [[None]]}
    assert total_easing([Condition("a", cut, 1), Condition("b", cut, 1, 3.0)], lambda c: said[c.trait]) == math.inf


RULE = {"name": "cold", "trait": "care", "severity": "yellow", "action": "flag"}


@pytest.mark.parametrize("threshold", [{"z": 1.0}, {"probability": 0.12}])
@pytest.mark.parametrize(("slope", "action"), [(0.5, "flag"), (5.0, "allow"), (None, "allow")])
def test_the_monitor_eases_a_reply_after_calm_words_and_not_after_others(make_model, tokenizer, threshold, slope, action):
    """Care reads z 0 in PLAIN, which is unsafe up to 1; CALM lacks 1 of risk, so that it is eased by the slope."""
    when = {"trait": "risk", "threshold": {"z": 1.0}, "last_turns": 2} | ({} if slope is None else {"slope": slope})
    policy = Policy.model_validate({"version": "t", "rules": [RULE | {"threshold": threshold, "when": when}]})
    with Monitor(planted(make_model, tokenizer), policy) as monitor:
        for said, wanted in ((CALM, action), (AT_RISK, "flag")):
            session = monitor.session(said)
            session.user(said)
            decision = session.check(PLAIN)
            assert decision.action == wanted
    calm = Monitor(planted(make_model, tokenizer), policy).session("c")
    calm.user(CALM)
    if slope is not None:
        assert f"The limit was relaxed (by {slope:.1f})" in calm.check(PLAIN).why[0]


def test_a_slope_is_measured_in_z():
    with pytest.raises(ValueError, match="'slope'"):
        AppliesWhen(trait="risk", threshold=ThresholdSpec(probability=0.5), slope=3.0)
    rule = RULE | {"threshold": {"z": 1.0}, "when": {"trait": "risk", "threshold": {"z": 1.0}, "slope": 0}}
    with pytest.raises(ValueError, match="greater than 0"):
        Policy.model_validate({"version": "t", "rules": [rule]})


def calibrated(unsafe_is_high):
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(1.5, 1, 200), rng.normal(-1.5, 1, 200)])
    high = np.arange(400) < 200
    everyday = rng.normal(-2, 2, 400) * (1 if unsafe_is_high else -1)
    safe: Pole = "low" if unsafe_is_high else "high"
    return (
        Calibration(0, 1, "platt", ((1.0, 0.0),), 200, 200, "drawn", standard_thresholds(z, high, safe, everyday=everyday)),
        safe,
        everyday,
    )


@pytest.mark.parametrize("unsafe_is_high", [True, False])
def test_of_two_false_alarm_rates_the_stricter_counts(unsafe_is_high):
    calibration, safe, _ = calibrated(unsafe_is_high)

    def cut(**rates):
        return find_cut(ThresholdSpec.model_validate({"calibrated": rates}), "t", calibration, safe).value

    both = cut(false_alarm_rate=0.05, ordinary_rate=0.005)
    assert both == (max if unsafe_is_high else min)(cut(false_alarm_rate=0.05), cut(ordinary_rate=0.005))
    assert abs(cut(ordinary_rate=0.005)) > abs(cut(ordinary_rate=0.05))
    for rates in ({}, {"miss_rate": 0.05, "ordinary_rate": 0.05}):
        with pytest.raises(ValueError, match="give either"):
            ThresholdSpec.model_validate({"calibrated": rates})


@pytest.mark.parametrize("unsafe_is_high", [True, False])
def test_an_ordinary_rate_holds_on_everyday_talk_that_is_new(unsafe_is_high):
    calibration, _, _ = calibrated(unsafe_is_high)
    threshold = calibration.thresholds["ordinary 0.05"]
    fresh = np.random.default_rng(1).normal(-2, 2, 5000) * (1 if unsafe_is_high else -1)
    assert 0.02 < (Cut.of(threshold).beyond(fresh, fresh) >= 0).mean() < 0.08
    assert threshold.observed_ordinary <= 0.05
    assert "an everyday reply is flagged" in threshold.guarantee


def test_an_ordinary_rate_that_the_talk_is_too_little_for_is_refused_with_the_number():
    with pytest.raises(Exception, match="50 everyday examples cannot support a ordinary rate of 1%: 99 are needed"):
        fit_threshold(np.zeros(4), np.arange(4) < 2, True, 0.01, "ordinary", everyday=np.arange(50.0))


def test_a_policy_that_asks_for_a_rate_that_is_not_there_names_what_is(make_model, tokenizer):
    rule = RULE | {"threshold": {"calibrated": {"ordinary_rate": 0.005}}}
    with pytest.raises(PolicyError, match=r"has no threshold 'ordinary 0\.005'"):
        Policy.model_validate({"version": "t", "rules": [rule]}).resolve(planted(make_model, tokenizer).vectors)


@pytest.fixture(scope="module")
def extracted(make_model, tokenizer):
    """A trait of one's own, with nothing written for when it is called for."""
    return extract_vectors(ActivationReader(make_model("llama"), tokenizer), [definition(90, 15)], layers=[1]).vectors


def test_extraction_makes_the_condition_and_sets_thresholds_with_it(extracted):
    entry, of = extracted["kindness"], extracted[context_name("kindness")]
    when, about = entry.applies_when
    assert (when.trait, when.slope, when.threshold.z) == (of.reading.trait_name, SLOPE, CALLED_FOR)
    assert of.reads == "user"
    assert (about.trait, about.slope, extracted[about.trait].reads) == (topic_name("kindness"), TOPIC_SLOPE, "response")
    assert extracted.contexts == {context_name("kindness"): "kindness", topic_name("kindness"): "kindness"}
    assert of.proof.paired_accuracy is None
    assert of.proof.auroc.value > 0.9  # the boat, against everyday talk of other kinds
    together, alone = (entry.calibration.thresholds[f"ordinary 0.02{end}"] for end in ("", " always"))
    assert together.z > alone.z  # unsafe is below: everyday talk is eased, so the same share of it allows a milder cut
    assert together.observed_miss <= alone.observed_miss


def test_a_rule_for_every_reply_takes_the_threshold_that_was_set_without_the_condition(extracted):
    rule = {
        "name": "rude",
        "trait": "kindness",
        "threshold": {"calibrated": {"ordinary_rate": 0.02}},
        "severity": "yellow",
        "action": "flag",
    }
    eased, always = (
        Policy.model_validate({"version": "t", "rules": [rule | more]}).resolve(extracted).rules[0] for more in ({}, {"when": "always"})
    )
    assert ([c.reads for c in eased.conditions], always.conditions) == (["user", "response"], ())
    assert always.cut.value == extracted["kindness"].calibration.thresholds["ordinary 0.02 always"].z
    assert eased.cut.value == extracted["kindness"].calibration.thresholds["ordinary 0.02"].z


def test_it_survives_a_saving(extracted, tmp_path):
    loaded = type(extracted).load(extracted.save(tmp_path / "set"))
    assert loaded["kindness"].applies_when == extracted["kindness"].applies_when
    assert loaded.fingerprint() == extracted.fingerprint()


def test_a_reply_that_speaks_of_something_else_is_eased_and_the_reason_says_so(extracted):
    rule = {"name": "rude", "trait": "kindness", "threshold": {"z": 0.0}, "severity": "red", "action": "flag"}
    policy = Policy.model_validate({"version": "t", "rules": [rule]}).resolve(extracted)

    def judged(topic):
        said = {"kindness": score(-1.0)} | ({} if topic is None else {topic_name("kindness"): score(topic)})
        user = Reading({context_name("kindness"): score(2.0)}, {}, "planted")
        (result,) = decide(policy, Reading(said, {}, "planted"), [user]).results
        return result

    assert judged(2.0).state == "fired"
    assert judged(0.0).state == "passed"  # z -1 is eased by 2 for the 1 that is lacking
    assert judged(0.0).easing == 2.0
    assert "the reply is not clearly about kindness" in judged(0.0).reason
    assert judged(None).state == "not scored"


def test_labelled_replies_are_eased_as_the_monitor_eases_them(extracted, make_model, tokenizer):
    """What `calibrate` sets thresholds with is what a reading says."""
    reader = ActivationReader(make_model("llama"), tokenizer)
    talk = [*[e.conversation for e in definition(90, 15).examples("test")][:4], ordinary_conversations()[0].conversation]
    eased = eased_by(reader, extracted, "kindness", talk)
    conditions = extracted.conditions("kindness")
    for reading, found in zip(Scorer(reader, extracted).score_many(talk), eased, strict=True):
        assert isinstance(reading, Reading)
        assert found == pytest.approx(total_easing(conditions, partial(looked_at, reply=reading, turns=reading.users)), abs=1e-4)
