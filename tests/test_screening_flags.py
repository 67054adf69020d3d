"""What is flagged, in which order, what repeats, the shift with its interval, and the report."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from artifacts import MODEL, entry
from artifacts import vector_set as artifact_set

from demeanor.data.duplicates import NearDuplicates
from demeanor.measure.conditions import AppliesWhen
from demeanor.measure.cuts import Cut, ThresholdSpec
from demeanor.measure.thresholds import Threshold
from demeanor.reports.screening import write_report
from demeanor.scoring.reading import TokenScores
from demeanor.screening.flags import Flagged, Limit, Sorter, Worst, choose_limits, known_limits
from demeanor.screening.results import Explained, Screening
from demeanor.screening.summary import EDGES, GROUPS, Tally, bootstrap_mean
from demeanor.vectors import VectorSet

HOSTILE = "<script>alert('x')</script>"


def calibrated(*limits, side="below"):
    thresholds = {name: Threshold(z, side, name.split()[0], float(name.split()[1]), n=20, prompts=20) for name, z in limits}
    return replace(entry().calibration, thresholds=thresholds)


AT_RISK = AppliesWhen(trait="user_risk", threshold=ThresholdSpec(probability=0.5), last_turns=2)


def crisis_set() -> VectorSet:
    return artifact_set(
        entry("crisis_recognition", calibration=calibrated(("miss 0.2", 0.1), ("miss 0.05", 0.6)), applies_when=AT_RISK),
        entry("flattery", safe_pole="low", calibration=calibrated(("miss 0.2", 0.5), ("false_alarm 0.05", 1.0), side="above")),
        entry("warmth"),
        entry("user_risk", reads="user", safe_pole="low"),
    )


def test_thresholds_come_from_the_calibration_or_are_given():
    limits = choose_limits(crisis_set())
    assert {n: (x.name, x.cut.value, x.cut.unsafe_side == "above") for n, x in limits.items()} == {
        "crisis_recognition": ("miss 0.2", 0.1, False),
        "flattery": ("false_alarm 0.05", 1.0, True),
        "warmth": ("half-way between the poles", 0.0, False),  # nothing calibrated
    }
    given = choose_limits(crisis_set(), ["crisis_recognition=-2", "user_risk=1.5"])
    assert (given["crisis_recognition"].cut.value, given["user_risk"].cut.value, given["user_risk"].cut.unsafe_side) == (-2.0, 1.5, "above")
    without_warmth = VectorSet(crisis_set().model, {n: e for n, e in crisis_set().traits.items() if n != "warmth"})
    for order in (1, -1):  # what is said of one trait goes before what is said of all
        given_both = choose_limits(without_warmth, ["crisis_recognition=-2", "miss 0.2"][::order])
        assert (given_both["crisis_recognition"].cut.value, given_both["flattery"].cut.value) == (-2.0, 0.5)
    assert [(x.trait, x.name) for x in known_limits(crisis_set(), given)][:3] == [
        ("crisis_recognition", "miss 0.2"), ("crisis_recognition", "miss 0.05"), ("crisis_recognition", "given")
    ]  # fmt: skip


def test_a_crisis_is_missed_only_where_there_may_be_one():
    limit = choose_limits(crisis_set())["crisis_recognition"]
    z = {"crisis_recognition": np.array([-3.0, -3.0, -3.0, 2.0, np.nan])}
    easing = {"crisis_recognition": np.array([0.0, 1000.0, 3.0, 0.0, 0.0])}  # by nothing, not judged, by more than it lies beyond
    assert (limit.beyond(z, easing) >= 0).tolist() == [True, False, True, False, False]
    assert limit.beyond(z, easing)[[0, 2]] == pytest.approx([3.1, 0.1])


def flagged(row, beyond, text="a reply", trait="warmth"):
    return Flagged(beyond, row, trait, -beyond, {trait: {"z": -beyond, "threshold": 0.0}}, [{"role": "assistant", "content": text}])


def test_the_order_is_the_same_whether_it_fits_the_memory_or_not(tmp_path):
    rng = random.Random(0)
    given = [flagged(i, rng.choice([0.5, 1.0, 2.0])) for i in range(57)]
    sorter = Sorter(tmp_path / "spool", held=10)
    for one in given:
        sorter.add(one)
    assert list(sorter.worst_first()) == sorted(given, key=lambda f: (-f.beyond, f.row))
    assert len(list((tmp_path / "spool").iterdir())) == 5
    sorter.close()
    assert not (tmp_path / "spool").exists()


def test_the_worst_of_many_parts_are_kept():
    worst = Worst(3)
    for first, beyond in ((0, [0.1, 0.9, -np.inf, 0.5]), (4, [0.5, 2.0, 0.0])):
        found = worst.candidates(np.array(beyond))
        worst.add([flagged(first + int(i), beyond[i]) for i in found])
    assert [(f.row, f.beyond) for f in worst.rows] == [(5, 2.0), (1, 0.9), (3, 0.5)]


def test_near_duplicates_are_found_and_others_are_not():
    words = [f"word{i}" for i in range(400)]
    rng = random.Random(1)
    index = NearDuplicates()
    originals = [rng.sample(words, 20) for _ in range(200)]
    assert all(index.first_of(i, " ".join(text)) is None for i, text in enumerate(originals))
    for i, text in enumerate(originals):
        changed = [*text[:18], "quite", "other"]  # 18 of 22 words in common
        rng.shuffle(changed)
        assert index.first_of(1000 + i, " ".join(changed).upper()) == i
    assert index.first_of(2000, " ".join([*originals[0][:8], *words[300:312]])) is None
    assert index.sizes[0] == 1


def test_the_interval_covers_the_mean_and_widens_where_rows_share_prompts():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        effect = rng.normal(0.3, 1.0, GROUPS // 8)  # what the rows of one prompt have in common
        counts = np.zeros(GROUPS)
        sums = np.zeros(GROUPS)
        counts[: len(effect)] = 10
        sums[: len(effect)] = 10 * effect + rng.normal(0, 1, len(effect)) * np.sqrt(10)
        interval = bootstrap_mean(sums, counts, draws=400)
        covered += interval.low < 0.3 < interval.high
    assert covered >= 35
    assert interval.high - interval.low > 0.25  # one over all rows as if they were independent would be 0.15 wide
    assert bootstrap_mean(np.ones(GROUPS), np.eye(GROUPS)[0]) is None


def test_the_tally_counts_every_part():
    limit = Limit("warmth", "given", Cut("z", 0.0, "below", "given"))
    tally = Tally(["warmth"], [limit], {"warmth": limit})
    for z, errors in (([1.0, -1.0, np.nan], [None, None, "no reply"]), ([-9.0, 0.3], [None, None])):
        array = {"warmth": np.array(z)}
        tally.add(array, {"warmth": 2 * array["warmth"]}, np.arange(len(z)), errors)
    record = tally.to_record({"warmth": 4.0})
    assert (record["rows"], record["failed"], record["first_error"]) == (5, 1, "row 2: no reply")
    warmth = record["traits"]["warmth"]
    assert warmth["thresholds"][0]["rows"] == 2
    assert warmth["shift"]["raw"]["value"] == pytest.approx(2 * (1 - 1 - 9 + 0.3) / 4)
    assert warmth["shift"]["spreads"]["value"] == pytest.approx(2 * (1 - 1 - 9 + 0.3) / 16)
    assert sum(warmth["histogram"]) == 4
    assert warmth["histogram"][0] == 1  # -9 lies beyond the last bin and is counted in it
    assert len(warmth["histogram"]) == len(EDGES) - 1


def hostile_report(folder):
    """The page of a screening in which everything that people wrote is hostile."""
    vectors = artifact_set(entry("warmth"))
    limits = choose_limits(vectors)
    tally = Tally(["warmth"], known_limits(vectors, limits), limits)
    z = {"warmth": np.linspace(-3, 3, 50)}
    tally.add(z, z, np.arange(50), [None] * 49 + [HOSTILE])
    tally.add({"warmth": np.array([np.nan])}, {"warmth": np.array([np.nan])}, np.array([0]), [HOSTILE])
    tally.flagged = 25
    summary = {**tally.to_record({"warmth": 2.0}), "near_duplicates": 1, "baseline": "mean", "model": MODEL.name,
               "input": [{"name": HOSTILE}], "conditions": {}, "without_tokens": 0, "warnings": [f"scored by {HOSTILE}"]}  # fmt: skip
    json.dumps(summary, allow_nan=False)
    bad = flagged(3, 2.5, HOSTILE)
    worst = {"warmth": [Explained(bad, True, TokenScores([HOSTILE], {"warmth": np.array([-2.0])})), Explained(bad, False, "too long")]}
    write_report(Screening(folder, summary, worst, [(bad, 7)], limits), vectors, folder / "screening.html")
    return folder / "screening.html"


def test_the_report_shows_what_was_found_and_nobodys_text_becomes_markup(tmp_path):
    html = hostile_report(tmp_path).read_text()
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;") >= 7
    for text in ("1 rows were not scored", "1 rows were scored and have no baseline", "scored by"):
        assert text in html
    for text in ("and 7 more like it", "25 of 51 rows are flagged", "half-way between the poles"):
        assert text in html


@pytest.mark.parametrize(("middle", "clear"), [(0.0, False), (1.0, True), (-1.0, True)])
def test_the_report_says_whether_a_shift_is_clear(tmp_path, middle, clear):
    vectors = artifact_set(entry("warmth"))
    limits = choose_limits(vectors)
    tally = Tally(["warmth"], known_limits(vectors, limits), limits)
    z = {"warmth": middle + np.linspace(-2, 2, 50)}
    tally.add(z, z, np.arange(50), [None] * 50)
    summary = {**tally.to_record({"warmth": 2.0}), "near_duplicates": 0, "baseline": "mean", "model": MODEL.name,
               "input": [{"name": "rows.jsonl"}], "conditions": {}, "without_tokens": 0, "warnings": []}  # fmt: skip
    write_report(Screening(tmp_path, summary, {"warmth": []}, [], limits), vectors, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    told = html.partition(">toward</th>")[2].partition("</table>")[0]
    assert ("not clear: the interval holds 0" in told) is not clear
    toward = {0.0: None, 1.0: "the reply shows warmth.", -1.0: "the reply shows no warmth."}[middle]
    assert toward is None or toward in told
