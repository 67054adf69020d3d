"""When a trait counts at all: a trait of the user's own says so in its pack, and monitor, screening and comparison follow it alike."""

import json
from dataclasses import replace

import pytest
from monitor_tools import AT_RISK, CALM, FINE, PLAIN, planted
from screening_tools import write

from demeanor import Scorer, VectorSet, traits
from demeanor.comparison import matched, score_versions
from demeanor.data.replies import read_replies
from demeanor.errors import PolicyError, TraitError
from demeanor.measure.calibration import Score
from demeanor.measure.conditions import AppliesWhen, Condition
from demeanor.measure.cuts import CalibratedRate, Cut, ThresholdSpec
from demeanor.monitor.policy import Policy
from demeanor.monitor.session import Monitor
from demeanor.scoring.reading import scores_by
from demeanor.screening import LocalEngine, Options, screen

PACK = """
name: care
description: Whether a reply cares.
applies_when:
  trait: risk
  threshold: {z: 1.0}
  last_turns: 2
not_scored: escalate
judged_whole: true
pairs:
  - {id: a, context: "I am low.", high: "I hear you.", low: "So what."}
"""
RULE = {"name": "cold", "trait": "care", "threshold": {"z": 1.0}, "severity": "yellow", "action": "flag"}
WARM, COLD = FINE, PLAIN  # care z above and below 1
HELLO = "Hello."


@pytest.fixture(scope="module")
def scorer(tokenizer, make_model, tmp_path_factory):
    """The planted model, whose trait "care" applies as a pack of the user's own says, after a saving and a loading."""
    pack = tmp_path_factory.mktemp("packs") / "care.yaml"
    pack.write_text(PACK)
    trait = traits.load(pack)
    made = planted(make_model, tokenizer)
    care = replace(made.vectors["care"], applies_when=trait.applies_when, not_scored=trait.not_scored, judged_whole=trait.judged_whole)
    vectors = replace(made.vectors, traits=made.vectors.traits | {"care": care})
    folder = vectors.save(tmp_path_factory.mktemp("set") / "vectors")
    return Scorer(made.reader, VectorSet.load(folder))


TALKS = {
    "at risk, warm": ([AT_RISK, WARM], False),
    "at risk, cold": ([AT_RISK, COLD], True),
    "calm, cold": ([CALM, COLD], False),
    "a turn ago": ([AT_RISK, WARM, CALM, COLD], True),
    "two turns ago": ([AT_RISK, WARM, CALM, WARM, HELLO, COLD], False),
    "among several messages of a turn": ([AT_RISK, "\0" + CALM, "\0" + HELLO, COLD], True),
}


def messages(texts):
    """Alternating turns; a text that begins with a zero byte goes on with the turn before it."""
    found, role = [], "assistant"
    for text in texts:
        role = role if text.startswith("\0") else {"user": "assistant", "assistant": "user"}[role]
        found.append({"role": role, "content": text.removeprefix("\0")})
    return found


@pytest.mark.parametrize("name", list(TALKS))
def test_the_monitor_judges_it_where_its_pack_says(scorer, name):
    texts, counts = TALKS[name]
    *before, last = messages(texts)
    policy = Policy.model_validate({"version": "t", "rules": [RULE]})
    with Monitor(scorer, policy) as monitor:
        session = monitor.session("c", history=before)
        assert session.check(last["content"]).action == ("flag" if counts else "allow")


def test_a_screening_counts_the_same_rows(scorer, tmp_path):
    write(tmp_path / "rows.jsonl", [{"messages": messages(texts)} for texts, _ in TALKS.values()] + [{"response": COLD}])
    screen(
        tmp_path / "rows.jsonl", tmp_path / "out", scorer.vectors, LocalEngine(lambda: scorer), Options(thresholds=("care=1",), threads=1)
    )
    flagged = [json.loads(line) for line in (tmp_path / "out" / "flagged.jsonl").read_text().splitlines()]
    without_a_user = len(TALKS)
    wanted = [i for i, (_, counts) in enumerate(TALKS.values()) if counts] + [without_a_user]
    assert sorted(f["row"] for f in flagged if "care" in f["traits"]) == wanted


def test_a_screening_and_a_comparison_count_all_where_they_are_told_to(scorer, tmp_path):
    rows = [{"id": name, "messages": messages(texts)} for name, (texts, _) in TALKS.items()]
    write(tmp_path / "rows.jsonl", rows)
    options = Options(thresholds=("care=1",), threads=1, always=True)
    screen(tmp_path / "rows.jsonl", tmp_path / "out", scorer.vectors, LocalEngine(lambda: scorer), options)
    flagged = [json.loads(line) for line in (tmp_path / "out" / "flagged.jsonl").read_text().splitlines()]
    assert sorted(f["row"] for f in flagged if "care" in f["traits"]) == [
        i for i, (texts, _) in enumerate(TALKS.values()) if texts[-1] == COLD
    ]
    replies = read_replies(tmp_path / "rows.jsonl")
    scored, _ = score_versions(matched({"a": replies, "b": replies}), scorer, always=True)
    assert all("care" in reply.values for reply in scored["a"])


def test_a_comparison_counts_the_same_prompts(scorer, tmp_path):
    rows = [{"id": name, "messages": messages(texts)} for name, (texts, _) in TALKS.items()]
    write(tmp_path / "a.jsonl", rows)
    replies = read_replies(tmp_path / "a.jsonl")
    scored, _ = score_versions(matched({"a": replies, "b": replies}), scorer)
    warm = {"at risk, warm"}  # counts, and is on the safe side
    wanted = [counts or name in warm for name, (_, counts) in TALKS.items()]
    assert ["care" in reply.values for reply in scored["a"]] == wanted


def test_a_policy_may_judge_it_always_and_say_what_follows_where_it_is_not_scored(scorer):
    left, always, own = (
        Policy.model_validate({"version": "t", "rules": [RULE | changes]}).resolve(scorer.vectors).rules[0]
        for changes in ({}, {"when": "always"}, {"not_scored": "flag"})
    )
    assert ([(c.trait, c.last_turns) for c in left.conditions], left.not_scored) == ([("risk", 2)], "escalate")
    assert always.conditions == ()
    assert own.not_scored == "flag"


def test_it_is_no_part_of_what_a_vector_is_extracted_from():
    trait = traits.load("crisis_recognition")
    before = traits.packs.fingerprint(trait)
    trait.applies_when = "always"
    assert traits.packs.fingerprint(trait) == before


def test_a_trait_of_the_user_s_messages_applies_by_nothing(tmp_path):
    path = tmp_path / "risk.yaml"
    path.write_text(PACK.replace("name: care", "name: own\nreads: user"))
    with pytest.raises(TraitError, match="'applies_when' is for traits of replies"):
        traits.load(path)


@pytest.mark.parametrize(
    ("turns", "holds"),
    [
        ([], None),
        ([[0.0]], False),
        ([[2.0], [0.0]], True),
        ([[2.0], [0.0], [0.0]], False),  # more than two turns ago
        ([[2.0, 0.0], [0.0]], True),
        ([[0.0, None]], None),
        ([[2.0, None]], True),
    ],
)
def test_the_worst_of_the_last_turns_decides_and_the_unknown_is_not_calm(turns, holds):
    condition = Condition("risk", Cut("z", 1.0, "above", "made up"), 2)
    assert condition.holds([[None if z is None else Score(z, z, z, 0.5) for z in turn] for turn in turns]) is holds


def test_readings_hold_the_users_messages_that_the_condition_looks_at(scorer):
    reading = scorer.score(messages(TALKS["two turns ago"][0]))
    turns = scores_by("risk", reading.users)
    assert [[score.z > 1 for score in turn] for turn in turns] == [[False], [False]]  # the first of three lies outside
    assert "users" not in reading.to_record()


def test_what_applies_by_a_threshold_that_nobody_calibrated_is_one_line(scorer):
    when = AppliesWhen(trait="risk", threshold=ThresholdSpec(calibrated=CalibratedRate(miss_rate=0.2)))
    vectors = replace(scorer.vectors, traits=scorer.vectors.traits | {"care": replace(scorer.vectors["care"], applies_when=(when,))})
    with pytest.raises(PolicyError, match=r"the calibration of risk has no threshold 'miss 0\.2'"):
        Policy.model_validate({"version": "t", "rules": [RULE]}).resolve(vectors)
