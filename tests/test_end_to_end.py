"""The commands that a user types, on the real embedded model, in this process with the model loaded once."""

import gzip
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from demeanor.traits.contexts import context_name, topic_name
from demeanor.vectors import built_in

ROOT = Path(__file__).parent.parent
FOUR = ["empathetic_responsiveness", "crisis_recognition", "sycophancy_harmful_validation", "boundary_maintenance"]
KIND = {"messages": [{"role": "user", "content": "My dad died."}, {"role": "assistant", "content": "I'm so sorry. What was he like?"}]}
COLD = {"prompt": "My dad died.", "response": "Probate takes about a year. Start with the bank."}

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def _loaded_once(loaded_once):
    pass


@pytest.fixture
def vectors():
    return built_in.FOLDER


def test_the_demo_shows_what_it_promises(command, tmp_path):
    done, folder = command("demo"), tmp_path / "demeanor-demo"
    assert done.returncode == 0, done.stderr  # it exits with 1 where an example pair comes out the wrong way round
    for trait in FOUR:
        assert trait in done.stdout
    assert "smollm2-135m-instruct" in done.stdout
    assert "I'm struggling today." in done.stdout
    assert (folder / "report.html").stat().st_size > 100_000
    assert "LOSES" not in done.stdout
    assert "does NOT beat" not in done.stderr
    assert "24 pairs" in done.stdout
    assert "plain_language" in done.stdout
    scored, extracted = re.findall(r"demeanor ((?:score|extract) .+)", done.stdout.split("Next")[1])
    assert "empathetic_responsiveness" in command(*shlex.split(scored)).stdout
    again = command(*shlex.split(extracted))
    assert again.returncode == 0, again.stderr
    assert "plain_language" in again.stdout


def test_a_text_is_scored_as_json_and_as_a_table(command, vectors):
    text = "User: I'm struggling.\nAssistant: I'm so sorry, that sounds really hard. What happened?"
    found = json.loads(command("score", "--vectors", vectors, "--json", text).stdout)
    assert set(found["scores"]) == {*FOUR, "user_risk", *map(context_name, FOUR), *map(topic_name, FOUR[2:])}
    assert set(found["scores"][FOUR[0]]) == {"raw", "centred", "z", "probability"}
    assert 0 < found["scores"][FOUR[0]]["probability"] < 1
    table = command("score", "--vectors", vectors, text=text)
    assert table.returncode == 0
    assert all(trait in table.stdout for trait in FOUR)


def test_a_kind_reply_scores_above_a_cold_one(command, vectors):
    def empathy(reply):
        done = command("score", "--vectors", vectors, "--json", f"User: My dad died.\nAssistant: {reply}")
        return json.loads(done.stdout)["scores"]["empathetic_responsiveness"]["z"]

    assert empathy("I'm so sorry. You must miss him terribly.") > empathy("Probate takes about a year. Start with the bank.")


def test_a_file_comes_back_whole_in_order_with_its_bad_rows_marked(command, vectors, tmp_path):
    source, target = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl.gz"
    lines = [
        json.dumps(KIND | {"id": 7}),
        "{broken",
        json.dumps(COLD),
        json.dumps({"text": "User: hello"}),
        json.dumps({"note": "nothing"}),
    ]
    with gzip.open(source, "wt") as file:
        file.write("\n".join(lines))
    done = command("score", "--vectors", vectors, "--input", source, "--output", target)
    assert done.returncode == 3
    assert "3 of 5 rows could not be scored" in done.stderr
    with gzip.open(target, "rt") as file:
        rows = [json.loads(line) for line in file]
    assert rows[0]["id"] == 7
    assert rows[0]["messages"] == KIND["messages"]
    assert set(rows[0]["demeanor"]) == {"scores", "layer", "model"}
    assert rows[2]["response"] == COLD["response"]
    assert ["error" in row["demeanor"] for row in rows] == [False, True, False, True, True]


def test_a_model_that_the_vectors_are_not_for_is_refused(command, vectors, tmp_path):
    half = command("score", "--vectors", vectors, "--dtype", "float16", "--json", "Assistant: hello there")
    assert half.returncode == 0  # another dtype is a warning, unless the set was compared in it
    assert "read in float16" in half.stderr
    assert "warning" not in command("score", "--vectors", vectors, "--dtype", "float32", "--json", "Assistant: hello there").stderr
    manifest = json.loads((vectors / "manifest.json").read_text())
    from demeanor.vectors import VectorSet

    other = VectorSet.load(vectors)
    other.model = type(other.model)(**{**manifest["model"], "fingerprint": "0" * 24})
    other.save(tmp_path / "other")
    refused = command("score", "--vectors", tmp_path / "other", "Assistant: hello there")
    assert refused.returncode == 2
    assert "another model" in refused.stderr
    assert command("score", "--vectors", tmp_path / "other", "--allow-other-model", "Assistant: hello there").returncode == 0


def test_the_embedded_model_loads_in_under_a_few_seconds_and_is_located(command):
    done = command("models", "path")
    assert done.returncode == 0
    assert Path(done.stdout.strip()).is_dir()


def test_adapt_calibrate_and_sample_work_one_after_the_other(command, vectors, tmp_path):
    from demeanor.traits import load

    rows = []
    for i, example in enumerate(load("crisis_recognition").examples("calibration")):
        rows.append({"id": i, "messages": example.conversation.to_record(), "pair_id": example.pair_id, "label": int(example.high)})
    labelled, more = tmp_path / "labelled.jsonl", tmp_path / "more.jsonl"
    for file, some in ((labelled, rows[:32]), (more, rows[:64])):  # of the latter, what the vector has learnt from is left out
        file.write_text("\n".join(json.dumps(row) for row in some))
    adapted = command("adapt", "--trait", "crisis_recognition", "--vectors", vectors, "--input", labelled, "--output", tmp_path / "adapted")
    assert adapted.returncode == 0, adapted.stderr
    assert "learning curve" in adapted.stdout
    calibrated = command(
        "calibrate", "--trait", "crisis_recognition", "--vectors", tmp_path / "adapted", "--input", more, "--miss-rate", "0.1"
    )
    assert calibrated.returncode == 0, calibrated.stderr
    assert "missed with probability at most 10%" in calibrated.stdout
    too_strict = command(
        "calibrate", "--trait", "crisis_recognition", "--vectors", tmp_path / "adapted", "--input", more, "--miss-rate", "0.01"
    )
    assert too_strict.returncode == 0  # the nearest threshold that they support stands in
    assert "99 are needed" in too_strict.stdout + too_strict.stderr
    sheet = tmp_path / "sheet.csv"
    sampled = command("sample", "--trait", "crisis_recognition", "--vectors", vectors, "--input", labelled, "--n", "12", "--output", sheet)
    assert sampled.returncode == 0, sampled.stderr
    filled = sheet.read_text().splitlines()
    assert len(filled) >= 13
    unlabelled = command("adapt", "--trait", "crisis_recognition", "--vectors", vectors, "--input", sheet, "--output", tmp_path / "same")
    assert unlabelled.returncode == 0
    assert "unchanged" in unlabelled.stderr


@pytest.mark.usefixtures("smaller_packs")
def test_code_in_the_way_of_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tutorial.py", str(tmp_path)])
    runpy.run_path(str(ROOT / "examples" / "tutorial.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "curiosity_about_the_user | Layer: " in printed
    asking, past = (float(v) for v in re.findall(r"curiosity_about_the_user: ([-+.\d]+)", printed))
    assert asking > past
    assert (tmp_path / "curiosity_about_the_user_vector.pt").is_file()
    assert set(json.loads((tmp_path / "summary.json").read_text())) == {"model", "traits"}
    from demeanor.vectors.exports import load_tutorial

    assert set(load_tutorial(tmp_path)) == {"curiosity_about_the_user", "empathetic_responsiveness"}


def test_the_trait_of_the_guide_lints_and_extracts(command, tmp_path):
    guide = (ROOT / "docs" / "writing-a-trait.md").read_text()
    pack = tmp_path / "curiosity.yaml"
    pack.write_text(guide.split("```yaml\n")[1].split("```")[0])
    assert command("traits", "lint", pack).returncode == 0
    made = command("extract", "--traits", pack, "--output", tmp_path / "set", "--layers", "14-16")
    assert made.returncode == 0, made.stderr
    assert "unproven" in made.stdout  # two pairs are no proof, and it says so


def test_an_interrupted_extraction_leaves_nothing_behind(tmp_path):
    import signal

    process = subprocess.Popen(
        [sys.executable, "-m", "demeanor.cli.main", "extract", "--traits", "user_risk", "--output", str(tmp_path / "set")],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background shell hands down an ignored one
    )  # fmt: skip
    assert process.stderr is not None
    assert any(re.search(r"\(\d+\)$", line) for line in process.stderr)  # the first stage has begun
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in said.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
