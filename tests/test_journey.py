"""From labels to a monitor, by the commands as they are printed, on invented replies to a planted model."""

import io
import json
import random
import re
import shlex
import sys

import pytest
from monitor_tools import planted

from demeanor import Scorer, VectorSet
from demeanor.cli import console, main
from demeanor.monitor.policy import load_policy

WORDS = ["tea", "bread", "rain", "paper", "chair", "window", "road", "music", "apple", "stone", "river", "lamp", "kitchen",
         "bus", "phone", "dog", "rent", "winter", "school", "garden"]  # fmt: skip
POLICY = """\
version: mine
deadline_seconds: 60
rules:
  - name: missed
    trait: care
    threshold: {calibrated: {miss_rate: 0.1}}
    severity: red
    action: substitute
    situation: risk_disclosed
  - name: unsure
    trait: care
    threshold: {calibrated: {miss_rate: 0.05}}
    severity: yellow
    action: flag
"""


@pytest.fixture(scope="module")
def scorer(tokenizer):
    import conftest

    return planted(conftest._build, tokenizer)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, scorer):
    """Run a command line in a folder that holds the planted set as "pack" and POLICY: its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def load(vectors, *_, **__):
        return Scorer(scorer.reader, vectors if isinstance(vectors, VectorSet) else VectorSet.load(vectors))

    monkeypatch.setattr(console, "load_scorer", load)
    scorer.vectors.save(tmp_path / "pack")
    (tmp_path / "mine.yaml").write_text(POLICY)

    def call(line):
        name, *args = shlex.split(line)
        assert name == "demeanor"
        monkeypatch.setattr(sys, "argv", ["demeanor", *args])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        with pytest.raises(SystemExit) as ended:
            main.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


def replies(path, n, seed, safe=0.5, sign="Z", labelled=True):
    """Invented replies in which a good one holds letters that the pack's vector does not read."""
    draw, rows = random.Random(seed), []
    for i in range(n):
        good = (i + 0.5) / n < safe
        letters = [sign] * (draw.randint(2, 4) if good else draw.randint(0, 1)) + ["Y"] * (sign != "Y" and draw.randint(0, 2))
        words = letters + draw.sample(WORDS, draw.randint(12, 16) - len(letters))
        draw.shuffle(words)
        row = {"prompt": f"{' '.join(draw.sample(WORDS, 5))} {seed}.{i}?", "response": " ".join(words)}
        rows.append(row | ({"label": "safe" if good else "unsafe"} if labelled else {}))
    draw.shuffle(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def printed(text, start):
    """The command that a line of the output names."""
    (line,) = re.findall(rf"^{start}[^:]*: (demeanor .*)$", text, re.MULTILINE)
    return line


@pytest.mark.parametrize("labels", [20, 40, 80])
def test_labels_end_in_a_monitor_by_the_commands_as_printed(run, tmp_path, labels):
    replies(tmp_path / "first.jsonl", labels // 2, 0)
    replies(tmp_path / "second.jsonl", labels // 2, 1)
    replies(tmp_path / "conversations.jsonl", 12, 2, labelled=False)
    code, out, err = run("demeanor adapt --vectors pack --trait care --input first.jsonl --output adapted")
    assert code == 0, err
    assert "kept: the vector fitted to the labels" in out or "kept: the pack's own vector" in out
    calibrate = printed(out, "next, with").replace("FILE", "second.jsonl") + " --miss-rate 0.1 --policy mine.yaml"
    code, out, err = run(calibrate)
    assert code == 0, err
    if "all thresholds are there; next" in out:
        judge = printed(out, "all thresholds are there; next")
    else:
        assert re.search(r"\d+ more prompts with unsafe replies are needed", out)
        code, out, err = run(printed(out, "to write a policy that works"))
        assert code == 0, err
        judge = printed(out, "try it")
    code, out, err = run(judge + " --output decisions.jsonl")
    assert code == 0, err
    assert "12 replies of 12 conversations" in out


def test_few_unsafe_labels_give_a_false_alarm_rate_and_say_what_may_be_missed(run, tmp_path):
    replies(tmp_path / "rows.jsonl", 60, 3, safe=0.95, sign="Y")  # three unsafe: none of the usual miss rates is supported
    code, out, err = run("demeanor calibrate --vectors pack --trait care --input rows.jsonl --miss-rate 0.1 --policy mine.yaml "
                         "--write-policy fits.yaml")  # fmt: skip
    assert code == 0, err
    assert "3 unsafe examples cannot support a miss rate of 10%: 9 are needed. Used instead: flag z below" in " ".join(err.split())
    assert (
        "rule missed asks care for at most 10 % missed: not there; 6 more prompts with unsafe replies are needed (9 in all, 3 there)" in out
    )
    assert re.search(r"The nearest: at most 2 % false alarms; \d+ % missed in the calibration sample \(95 % interval \d+ to \d+ %\)", out)
    fits = load_policy(tmp_path / "fits.yaml")
    assert [wanted.key for rule in fits.rules for wanted in rule.threshold.calibrated.each] == ["false_alarm 0.02", "false_alarm 0.1"]
    fits.resolve(VectorSet.load(tmp_path / "pack"))


def test_the_monitor_offers_what_is_supported_and_the_command_that_writes_it(run, tmp_path):
    replies(tmp_path / "rows.jsonl", 24, 4, sign="Y")
    replies(tmp_path / "talks.jsonl", 3, 5, labelled=False)
    assert run("demeanor calibrate --vectors pack --trait care --input rows.jsonl")[0] == 0
    code, _, err = run("demeanor monitor talks.jsonl --vectors pack --policy mine.yaml")
    said = " ".join(err.split())
    assert code == 2
    assert "has no threshold 'miss 0.05' (there:" in said
    assert "the nearest is 'miss 0.1' (at most 10 % missed;" in said
    assert "`demeanor policy fit --output policy.yaml` writes a policy that fits" in said
    assert run("demeanor policy fit --vectors pack --policy mine.yaml --output policy.yaml")[0] == 0
    assert run("demeanor monitor talks.jsonl --vectors pack --policy policy.yaml")[0] == 0


def test_adapting_again_begins_from_the_packs_vector_and_counts_what_is_not_given_again(run, tmp_path):
    replies(tmp_path / "old.jsonl", 30, 6)
    replies(tmp_path / "new.jsonl", 30, 7)
    whole = tmp_path / "whole.jsonl"
    whole.write_text((tmp_path / "old.jsonl").read_text() + (tmp_path / "new.jsonl").read_text())
    assert run("demeanor adapt --vectors pack -t care -i old.jsonl -o once")[0] == 0
    code, _, err = run("demeanor adapt --vectors once -t care -i whole.jsonl -o twice")
    assert (code, "are missing now" in err) == (0, False)
    assert run("demeanor adapt --vectors pack -t care -i whole.jsonl -o at-once")[0] == 0
    twice, at_once = (VectorSet.load(tmp_path / name)["care"] for name in ("twice", "at-once"))
    assert twice.reading.direction.tolist() == at_once.reading.direction.tolist()
    assert twice.calibration == at_once.calibration
    code, _, err = run("demeanor adapt --vectors once -t care -i new.jsonl -o forgot")
    assert code == 0
    assert "30 labelled replies from an earlier adaptation are missing now" in " ".join(err.split())
    forgot = VectorSet.load(tmp_path / "forgot")["care"]
    assert run("demeanor adapt --vectors pack -t care -i new.jsonl -o new-alone")[0] == 0
    alone = VectorSet.load(tmp_path / "new-alone")["care"]
    assert forgot.reading.direction.tolist() == alone.reading.direction.tolist()  # nothing of what was left out is in it
    assert forgot.reading.metadata["labels_given"] == alone.reading.metadata["labels_given"]


def test_a_store_is_added_to_read_again_and_erased_from(run, tmp_path):
    replies(tmp_path / "old.jsonl", 30, 6)
    replies(tmp_path / "new.jsonl", 30, 7)
    (tmp_path / "whole.jsonl").write_text((tmp_path / "old.jsonl").read_text() + (tmp_path / "new.jsonl").read_text())
    for given, output in (("old", "once"), ("new", "twice")):
        code, _, err = run(
            f"demeanor adapt --vectors {'pack' if given == 'old' else 'once'} -t care -i {given}.jsonl --store store.jsonl -o {output}"
        )
        assert code == 0, err
        assert "raters" not in err
    store = tmp_path / "store.jsonl"
    assert store.stat().st_mode & 0o077 == 0
    assert run("demeanor adapt --vectors pack -t care -i whole.jsonl -o at-once")[0] == 0
    twice, at_once = (VectorSet.load(tmp_path / name)["care"] for name in ("twice", "at-once"))
    assert sorted(twice.reading.metadata["labels_given"]) == sorted(at_once.reading.metadata["labels_given"])
    erased = json.loads(store.read_text().splitlines()[0])
    store.write_text("".join(store.read_text().splitlines(keepends=True)[1:]))  # as one erases a reply
    code, _, err = run("demeanor adapt --vectors twice -t care -i new.jsonl --store store.jsonl -o without")
    assert code == 0
    assert "1 labelled replies from an earlier adaptation are missing now" in " ".join(err.split())
    assert erased["hash"] not in json.dumps(VectorSet.load(tmp_path / "without")["care"].reading.metadata)
    assert len(store.read_text().splitlines()) == 59  # a row that is given again is there once


def test_a_store_keeps_the_rows_of_other_traits_and_refuses_a_broken_line(run, tmp_path):
    replies(tmp_path / "rows.jsonl", 20, 8)
    for trait in ("care", "harm"):
        assert run(f"demeanor adapt --vectors pack -t {trait} -i rows.jsonl --store store.jsonl -o {trait}")[0] == 0
    lines = (tmp_path / "store.jsonl").read_text().splitlines()
    assert [json.loads(line)["trait"] for line in lines] == ["care"] * 20 + ["harm"] * 20
    (tmp_path / "store.jsonl").write_text(lines[0].replace('"unsafe"', '"dunno"').replace('"safe"', '"dunno"') + "\n")
    code, _, err = run("demeanor adapt --vectors pack -t care -i rows.jsonl --store store.jsonl -o out")
    assert code == 2
    assert "'dunno' is no label that a store holds; delete the line" in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_where_the_packs_vector_stays_the_same_labels_calibrate_it(run, tmp_path):
    replies(tmp_path / "rows.jsonl", 40, 9, sign="Y")  # what the pack's vector reads: nothing is gained
    code, out, _ = run("demeanor adapt --vectors pack -t care -i rows.jsonl -o adapted")
    assert code == 0
    assert "kept: the pack's own vector; on prompts left out" in out
    kept, pack = (VectorSet.load(tmp_path / name)["care"] for name in ("adapted", "pack"))
    assert kept.reading.direction.tolist() == pack.reading.direction.tolist()
    assert (kept.calibration, kept.own) == (pack.calibration, None)
    code, _, err = run(printed(out, "next, with the same labels").replace("FILE", "rows.jsonl"))
    assert (code, "are left out" in err) == (0, False)


def test_suggest_keeps_to_the_budget_and_says_what_it_can_promise(run, tmp_path):
    (tmp_path / "base.yaml").write_text(
        POLICY.replace("calibrated: {miss_rate: 0.1}", "z: 0.0").replace("calibrated: {miss_rate: 0.05}", "z: 1")
    )
    replies(tmp_path / "traffic.jsonl", 200, 10, safe=1.0, sign="Y", labelled=False)
    code, out, err = run("demeanor policy suggest --vectors pack --policy base.yaml --input traffic.jsonl --budget 10/200 -o budget.yaml")
    assert code == 0, err
    said = " ".join((out + err).split())
    withheld, of = map(int, re.search(r"(\d+) of (\d+) replies withheld", said).groups())
    assert of == 200
    assert 0 < withheld <= 10
    assert "200 replies of 200 conversations cannot promise 50.0 in 1,000: that takes 59 conversations at the least" in said
    assert "missed on the calibration sample" in out
    code, out, err = run("demeanor monitor traffic.jsonl --vectors pack --policy budget.yaml --output decisions.jsonl")
    assert code == 0, err
    actions = [json.loads(line)["demeanor"]["action"] for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert actions.count("substitute") == withheld
    for wrong, why in (("5", "is not a share between 0 and 1"), ("x", "is not a share"), ("0", "is not a share")):
        code, _, err = run(f"demeanor policy suggest --vectors pack --policy base.yaml --input traffic.jsonl --budget {wrong}")
        assert (code, why in " ".join(err.split())) == (2, True)


@pytest.mark.parametrize("command", ["monitor talks.jsonl", "chat"])
def test_a_policy_that_withholds_nothing_says_so_at_the_start(run, tmp_path, command):
    replies(tmp_path / "talks.jsonl", 3, 11, labelled=False)
    flags = POLICY.replace("calibrated: {miss_rate: 0.1}", "z: 0.5").replace("calibrated: {miss_rate: 0.05}", "z: 1")
    (tmp_path / "guarded-one.yaml").write_text(flags)
    (tmp_path / "review.yaml").write_text(flags.replace("substitute", "flag"))
    opening = "withholds nothing: every reply is shown. What it flags, and what could not be scored, is for people to read"
    for policy, said in (("review.yaml", True), ("guarded-one.yaml", False)):
        code, _, err = run(f"demeanor {command} --vectors pack --policy {policy}")
        assert (code, opening in " ".join(err.split())) == (0, said), err
