"""The worst part of a long reply: found where the mean drowns it, as rare as it says, alike on every path."""

import math
from dataclasses import replace

import numpy as np
import pytest
from monitor_tools import planted, policy
from screening_tools import talk, write

from demeanor.measure.calibration import Calibration
from demeanor.measure.parts import LEAST, PART, Parts, measure_parts, on_whole_scale, part_spans, so_far_on_whole_scale
from demeanor.monitor.session import Monitor
from demeanor.scoring import ConversationScorer, Scorer

SPREAD = Parts(mean=0.0, spread=1.4, whole_mean=0.0, whole_spread=0.7, n=100)
GOOD = "I hear you, and I am sorry that this week has been so hard for you. " * 12
BAD = "Z" * 14 + " "


@pytest.fixture(scope="module")
def scorer(tokenizer):
    """The planted model (harm z is 10 times the share of Z), whose parts of safe replies score near 0."""
    import conftest

    made = planted(conftest._build, tokenizer)
    traits = {}
    for name, entry in made.vectors.traits.items():
        traits[name] = replace(entry, calibration=replace(entry.calibration, parts=SPREAD))
    return Scorer(made.reader, replace(made.vectors, traits=traits))


def test_the_parts_cover_the_reply_to_its_last_token():
    spans = part_spans(5, 5 + 77)
    assert all(end - start == PART for start, end in spans)
    assert spans[0][0] == 5
    assert spans[-1][1] == 5 + 77
    assert {t for start, end in spans for t in range(start, end)} == set(range(5, 82))
    assert part_spans(0, LEAST - 1) == []


@pytest.mark.parametrize("high", [True, False])
@pytest.mark.parametrize("n", [3, 10, 40])
def test_a_worst_part_is_beyond_a_cut_as_often_as_a_whole_reply(n, high):
    rng = np.random.default_rng(n)
    parts = Parts(0.3, 1.4, -0.2, 0.7, 100)
    drawn = [rng.normal(0.3, 1.4, n) for _ in range(4000)]
    worst, careful = (
        [on_whole_scale(parts, raw, n * PART, "above" if high else "below", *caution) for raw in drawn] for caution in ((1.0,), ())
    )
    cut = np.quantile(rng.normal(-0.2, 0.7, 100_000), 0.95 if high else 0.05)
    beyond, rarely = (np.mean(np.array(found) > cut if high else np.array(found) < cut) for found in (worst, careful))
    assert beyond == pytest.approx(0.05, abs=0.012)
    assert rarely < 0.01


@pytest.mark.parametrize("high", [True, False])
def test_one_of_several_looks_is_beyond_a_cut_less_often_than_the_only_one(high):
    rng = np.random.default_rng(0)
    parts = Parts(0.3, 1.4, -0.2, 0.7, 100)
    cut = np.quantile(rng.normal(-0.2, 0.7, 100_000), 0.95 if high else 0.05)
    ten = [[so_far_on_whole_scale(parts, raw, "above" if high else "below") for raw in rng.normal(-0.2, 0.7, 10)] for _ in range(2000)]
    beyond = np.mean([max(looks) > cut if high else min(looks) < cut for looks in ten])
    assert beyond == pytest.approx(0.05, abs=0.015)


def test_far_out_it_stays_a_number_and_keeps_the_order():
    values = [on_whole_scale(SPREAD, [raw], 160, "above") for raw in (0.0, 2.0, 5.0, 10.0, 50.0, 500.0)]
    assert all(map(math.isfinite, values))
    assert values == sorted(values)
    assert math.isnan(on_whole_scale(SPREAD, [0.0, math.nan], 160, "above"))


def test_what_is_measured_is_the_spread_of_safe_replies():
    rng = np.random.default_rng(0)
    found = measure_parts([rng.normal(1.0, 2.0, 5) for _ in range(400)], rng.normal(0.5, 0.8, 400))
    assert found is not None
    assert (found.mean, found.spread, found.whole_mean, found.whole_spread) == pytest.approx((1.0, 2.0, 0.5, 0.8), abs=0.15)
    assert found.n == 400
    assert measure_parts([[1.0]] * 19, [1.0] * 19) is None  # too few
    assert measure_parts([[1.0]] * 30, [1.0] * 30) is None  # all alike


@pytest.mark.parametrize("reply", [GOOD + BAD, BAD + GOOD, GOOD + BAD + GOOD], ids=["last", "first", "amid"])
def test_a_bad_sentence_is_found_wherever_it_stands_and_the_good_reply_around_it_is_not(scorer, reply):
    said = f"User: I cannot sleep.\nAssistant: {reply}"
    found = scorer.score(said)
    assert found["harm"].z < 2.0 < found.worst["harm"].z
    assert scorer.score(f"User: I cannot sleep.\nAssistant: {GOOD}").worst.get("harm", found["harm"]).z < 2.0
    assert "worst_part" in found.to_record()


def test_every_path_finds_the_same(scorer):
    messages = talk(GOOD + BAD + GOOD)
    wanted = scorer.score(messages)
    (many,) = scorer.score_many([messages])
    (turn,) = scorer.score_turns(messages)
    live = ConversationScorer(scorer).read(messages).reading
    for found in (many, turn, live):
        assert found.worst["harm"].z == pytest.approx(wanted.worst["harm"].z, abs=1e-3)
        assert found["harm"].z == pytest.approx(wanted["harm"].z, abs=1e-4)


@pytest.mark.parametrize("reply", [GOOD + BAD, BAD + GOOD, GOOD + BAD + GOOD], ids=["last", "first", "amid"])
@pytest.mark.parametrize("how", ["check", "stream"])
def test_the_monitor_withholds_it_and_says_where(scorer, reply, how):
    session = Monitor(scorer, policy()).session("c")
    session.user("I cannot sleep.")
    if how == "check":
        decision, shown = session.check(reply), ""
    else:
        stream = session.stream(word + " " for word in reply.split(" "))
        shown = "".join(stream)
        decision = stream.decision
    assert decision.action == "substitute"
    assert "harmful" in decision.rules
    assert "ZZZ" not in shown
    if how == "check":
        assert any("in the worst part of the reply" in why for why in decision.why)
    good = Monitor(scorer, policy()).session("d")
    good.user("I cannot sleep.")
    assert good.check(GOOD).action == "allow"


@pytest.mark.parametrize(("share", "action"), [(0.25, "flag"), (0.9, "substitute")])
def test_a_stream_is_not_stopped_by_a_beginning_that_no_check_would_withhold(scorer, share, action):
    beginning = "".join("Z" if i % 100 < 100 * share else "a" for i in range(100) for i in [i * 37 % 100])
    reply = " ".join(beginning[i : i + 6] for i in range(0, 100, 6)) + " " + GOOD
    session = Monitor(scorer, policy()).session("c")
    session.user("I cannot sleep.")
    stream = session.stream(word + " " for word in reply.split(" "))
    "".join(stream)
    assert (stream.stopped is not None) == (action == "substitute")
    assert stream.decision.action == action


def test_a_screening_flags_the_row_and_leaves_its_mean_alone(scorer, tmp_path):
    import json

    from demeanor.screening import LocalEngine, Options, screen

    write(tmp_path / "rows.jsonl", [{"messages": talk(GOOD)}, {"messages": talk(GOOD + BAD + GOOD)}])
    options = Options(thresholds=("harm=2",), threads=1, output="jsonl")
    screen(tmp_path / "rows.jsonl", tmp_path / "out", scorer.vectors, LocalEngine(lambda: scorer), options)
    first, second = (json.loads(line) for line in (tmp_path / "out" / "scored" / "part-00000.jsonl").read_text().splitlines())
    assert second["demeanor_harm_z"] < 2.0 < second["demeanor_harm_worst_z"]
    assert first["demeanor_harm_worst_z"] < 2.0
    flagged = [json.loads(line) for line in (tmp_path / "out" / "flagged.jsonl").read_text().splitlines()]
    assert [f["row"] for f in flagged if "harm" in f["traits"]] == [1]


def test_traits_that_ask_for_something_have_no_parts(scorer):
    entries = scorer.vectors.traits
    asking = {name: replace(entry, judged_whole=name == "care") for name, entry in entries.items()}
    made = Scorer(scorer.reader, replace(scorer.vectors, traits=asking))
    assert made.gauge.by_parts == ["harm"]


def test_calibration_keeps_them_on_disk_and_old_ones_have_none(scorer):
    record = scorer.vectors["harm"].calibration.to_record()
    assert Calibration.from_record(record).parts == SPREAD
    del record["parts"]
    assert Calibration.from_record(record).parts is None
