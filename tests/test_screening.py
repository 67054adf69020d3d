"""Screening with a tiny model: what comes out, that a killed run ends as an uninterrupted one, and what is refused."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from screening_tools import digests, rows, talk, vectors_for, write

from demeanor import ActivationReader, load_model
from demeanor.cli import console
from demeanor.cli.main import main
from demeanor.conversation import as_conversation
from demeanor.data.text_source import TextSource
from demeanor.errors import InputFileError, OutputError, VectorSetError
from demeanor.model.generation import Sampling, write_replies
from demeanor.scoring import Scorer
from demeanor.screening import Columns, LocalEngine, Options, screen, shards

SMALL = Options(shard_rows=4, threads=1, explained=3)


@pytest.fixture(scope="module")
def made(request):
    tokenizer = request.getfixturevalue("tokenizer")
    model = request.getfixturevalue("make_model")("llama")
    vectors = vectors_for(model, tokenizer)
    return Scorer(ActivationReader(model, tokenizer), vectors)


@pytest.fixture
def run(made, tmp_path):
    """Screen records (or a file) into a folder, with the tiny model."""

    def call(source, folder="out", options=SMALL, vectors=None):
        path = write(tmp_path / "rows.jsonl", source) if isinstance(source, list) else source
        return screen(path, tmp_path / folder, vectors or made.vectors, LocalEngine(lambda: made), options)

    return call


def scored(folder):
    return pq.read_table(folder / "scored").to_pylist()


def test_rows_come_through_untouched_in_order_with_the_scores_of_score_many(run, made, tmp_path):
    given = [{"n": i, "tags": ["a", None], "meta": {"x": 1.5}, **row} for i, row in enumerate(rows(11))]
    run(given)
    found = scored(tmp_path / "out")
    assert [{k: row[k] for k in given[0]} for row in found] == given
    for row, reading in zip(found, made.score_many([g["messages"] for g in given]), strict=True):
        for trait in made.traits:
            assert row[f"demeanor_{trait}_z"] == pytest.approx(reading[trait].z, abs=1e-4)
        assert row["demeanor_warmth_difference"] == pytest.approx(reading["warmth"].centred, abs=1e-4)
        assert row["demeanor_error"] is None
    assert "demeanor_user_risk_difference" not in found[0]


def test_a_row_that_cannot_be_scored_is_a_row_with_its_error(run, tmp_path):
    made = run([*rows(3), "{broken", {"id": 9, "messages": [{"role": "user", "content": "hello?"}]}, {"id": 10, "messages": talk(" ")}])
    assert (made.failed, made.summary["rows"], made.summary["scored"]) == (3, 6, 3)
    found = scored(tmp_path / "out")
    assert [row["demeanor_error"] is None for row in found] == [True, True, True, False, False, False]
    assert "not JSON" in found[3]["demeanor_error"]
    assert found[4]["messages"] == [{"role": "user", "content": "hello?"}]
    assert found[5]["demeanor_warmth_z"] is None
    assert "row 3" in made.summary["first_error"]


def test_jsonl_output_holds_the_same(run, tmp_path):
    run([*rows(5), "{broken"])
    run([*rows(5), "{broken"], "lines", replace(SMALL, output="jsonl"))
    parts = sorted((tmp_path / "lines" / "scored").iterdir())
    lines = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert [line.get("id") for line in lines] == [0, 1, 2, 3, 4, None]
    assert [{k: v for k, v in line.items() if k.startswith("demeanor")} for line in lines] == [
        {k: v for k, v in row.items() if k.startswith("demeanor")} for row in scored(tmp_path / "out")
    ]
    assert (tmp_path / "lines" / "flagged.jsonl").read_bytes() == (tmp_path / "out" / "flagged.jsonl").read_bytes()


def test_parquet_keeps_its_types(run, tmp_path):
    table = pa.table({"messages": [r["messages"] for r in rows(6)], "when": pa.array([1] * 6, pa.timestamp("us", "UTC")),
                      "blob": [b"\x00"] * 6, "kind": pa.array(["a", "b"] * 3).dictionary_encode()})  # fmt: skip
    pq.write_table(table, tmp_path / "in.parquet")
    run(tmp_path / "in.parquet")
    assert pq.read_table(tmp_path / "out" / "scored").select(table.schema.names).equals(pq.read_table(tmp_path / "in.parquet"))


class KilledError(BaseException):
    """Ends a run where it stands, as nothing in it catches it."""


@pytest.mark.slow
@pytest.mark.parametrize("options", [SMALL, replace(SMALL, baseline="generate", shard_rows=8)], ids=["mean", "generate"])
def test_a_run_that_ends_at_any_write_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch, options):
    given = [*rows(18), "{broken"]
    run(given, "whole", options)
    real = shards.write_whole
    for stops in itertools.count():
        left = [stops]

        def write_whole(path, content, left=left):
            if left[0] == 0:
                path.parent.mkdir(exist_ok=True)
                path.with_name(f".{path.name}.part").write_bytes(content[: len(content) // 2])
                raise KilledError
            left[0] -= 1
            real(path, content)

        for module in ("shards", "screen", "results"):
            monkeypatch.setattr(sys.modules[f"demeanor.screening.{module}"], "write_whole", write_whole)
        with contextlib.suppress(KilledError):
            run(given, f"stopped-{stops}", options)
            break
        monkeypatch.undo()
        run(given, f"stopped-{stops}", options)
        parts = list((tmp_path / f"stopped-{stops}").rglob(".*.part"))
        assert digests(tmp_path / f"stopped-{stops}") == digests(tmp_path / "whole"), (stops, parts)
    assert stops >= 5  # the manifest, each part, the answers, the summary


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_to_the_same_bytes(run, made, tmp_path):
    run(rows(18), "whole")
    made.reader.model.save_pretrained(tmp_path / "model")
    made.reader.tokenizer.save_pretrained(tmp_path / "model")
    made.vectors.save(tmp_path / "vectors")
    code = f"""
import os, signal
from pathlib import Path
from demeanor.screening import screen as go, LocalEngine, Options, shards
from demeanor.screening.ray_engine import LoadScorer
from demeanor.vectors import VectorSet
real = Path.replace
def replace(self, target):
    if "part-00002" in self.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
vectors = VectorSet.load({str(tmp_path / "vectors")!r})
load = LoadScorer(vectors, {str(tmp_path / "model")!r}, "cpu", "float32")
go({str(tmp_path / "rows.jsonl")!r}, {str(tmp_path / "out")!r}, vectors, LocalEngine(load), Options(shard_rows=4, threads=1, explained=3))
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert len(list((tmp_path / "out" / "scored").glob("part-*"))) == 2
    run(rows(18))
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_nothing_is_scored_twice(run, made, tmp_path, monkeypatch):
    run(rows(11))
    (tmp_path / "out" / "scored" / "part-00001.parquet").unlink()
    asked = []
    real = Scorer.score_many
    monkeypatch.setattr(Scorer, "score_many", lambda self, given: asked.append(len(given)) or real(self, given))
    run(rows(11))
    assert asked == [4]


def test_a_run_that_has_begun_refuses_to_go_on_with_something_else(run, made, tmp_path):
    run(rows(6))
    with pytest.raises(OutputError, match=r"other options \(it was begun with --shard-rows 4\)"):
        run(rows(6), options=replace(SMALL, shard_rows=8))
    with pytest.raises(OutputError, match="another input"):
        run(rows(7))
    changed = replace(made.vectors.traits["warmth"], safe_pole="low")
    with pytest.raises(OutputError, match="another vector set"):
        run(rows(6), vectors=replace(made.vectors, traits={**made.vectors.traits, "warmth": changed}))
    begun = shards.Manifest.load(tmp_path / "out")
    edited = json.loads(json.dumps(begun.pins).replace(made.vectors.model.fingerprint, "0" * 24))
    (tmp_path / "out" / "manifest.json").write_bytes(replace(begun, pins=edited).to_json())
    with pytest.raises(OutputError, match="another model"):
        run(rows(6))
    with pytest.raises(OutputError, match="begun with --threads 1"):
        run(rows(6), options=replace(SMALL, threads=2))
    with pytest.raises(OutputError, match="begun with no --messages-column, --format parquet"):
        run(rows(6), options=replace(SMALL, columns=Columns(messages="messages"), output="jsonl"))


def test_the_thread_count_of_the_beginning_is_kept(run, tmp_path):
    run(rows(6))
    run(rows(6), options=replace(SMALL, threads=None))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["options"]["threads"] == 1


def test_other_thresholds_are_tried_on_what_is_scored_already(run, monkeypatch, made):
    first = run(rows(9))
    monkeypatch.setattr(Scorer, "score_many", None)
    second = run(rows(9), options=replace(SMALL, thresholds=["warmth=-99", "flattery=99"]))
    assert (first.summary["flagged"] > 0, second.summary["flagged"]) == (True, 0)


def test_folders_that_are_not_its_own_are_refused(run, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("x")
    with pytest.raises(OutputError, match="not empty and holds no screening"):
        run(rows(2))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.docx"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        run(rows(2), "file")
    with shards.only_run(tmp_path / "busy"), pytest.raises(OutputError, match="another `demeanor screen` is writing"):
        run(rows(2), "busy")
    (tmp_path / "data").mkdir()
    source = write(tmp_path / "data" / "rows.jsonl", rows(2)).parent
    with pytest.raises(OutputError, match="lies in the input"):
        run(source, "data/out")
    monkeypatch.chdir(source)
    with pytest.raises(OutputError, match="lies in the input"):
        run(Path("../data"), "data/out")


def test_a_second_screening_of_its_own_output_is_refused(run, tmp_path):
    run(rows(5))
    with pytest.raises(InputFileError, match="'demeanor_warmth_raw' already"):
        run(tmp_path / "out" / "scored", "again")


def test_the_worst_come_first_with_what_pushed_them(run, made, tmp_path):
    run(rows(12))
    cut = float(np.median([row["demeanor_warmth_z"] for row in scored(tmp_path / "out")]))
    result = run(rows(12), options=replace(SMALL, thresholds=[f"warmth={cut}", "flattery=99"]))
    lines = [json.loads(line) for line in (tmp_path / "out" / "flagged.jsonl").read_text().splitlines()]
    z = [row["demeanor_warmth_z"] for row in scored(tmp_path / "out")]
    assert [line["row"] for line in lines] == sorted((i for i in range(12) if z[i] <= cut), key=lambda i: (z[i], i))
    assert 0 < len(lines) < 12
    assert all(line["trait"] == "warmth" and line["threshold"] == cut for line in lines)
    tokens = made.score_tokens(lines[0]["messages"])
    at = int(np.argmin(tokens.z["warmth"]))
    assert lines[0]["tokens"][0] == {"token": tokens.tokens[at], "z": pytest.approx(float(tokens.z["warmth"][at]), abs=1e-4)}
    assert [len(rows) for rows in result.worst.values()] == [12, 12]  # the report's, though they do not cross


def test_the_models_own_answers_are_the_baseline(run, made, tmp_path):
    given = [*rows(7), {"id": 7, "messages": [{"role": "assistant", "content": "I hear you."}]}]
    result = run(given, options=replace(SMALL, baseline="generate"))
    prompts = [as_conversation(row["messages"]).messages[:1] for row in given[:5]]
    replies = write_replies(made.reader, prompts, Sampling(160, 0.0))
    answers = [json.loads(line) for line in (tmp_path / "out" / "answers" / "batch-00000.jsonl").read_text().splitlines()]
    assert [a.get("reply") for a in answers[:5]] == [r.text for r in replies]
    assert len(answers) == 6  # five distinct prompts, and none at all
    found = scored(tmp_path / "out")
    for i, row in enumerate(found[:7]):
        own = answers[i % 5]
        if "raw" in own:
            assert row["demeanor_warmth_difference"] == pytest.approx(row["demeanor_warmth_raw"] - own["raw"]["warmth"])
    assert found[7]["demeanor_warmth_z"] is not None
    assert found[7]["demeanor_warmth_difference"] is None
    assert "no prompt" in found[7]["demeanor_error"]
    assert (result.failed, result.without_baseline) == (0, sum(row["demeanor_error"] is not None for row in found))
    assert result.summary["scored"] == 8


def test_rows_are_written_shard_by_shard_before_the_next_is_read(run, tmp_path, monkeypatch):
    seen = []
    real = TextSource.read

    def read(self, cut, schema):
        seen.append((cut.first, len(list((tmp_path / "out" / "scored").glob("part-*")))))
        return real(self, cut, schema)

    monkeypatch.setattr(TextSource, "read", read)
    run(rows(14))
    assert seen == [(0, 0), (4, 1), (8, 2), (12, 3)]


def fewer_rows(record):
    record["shards"] = record["shards"][:-1]
    record["rows"] -= 3


def a_shorter_shard(record):
    record["shards"][0][1] -= 1


def a_gap(record):
    record["shards"][1][0] += 1
    record["shards"][1][1] -= 1


@pytest.mark.parametrize("edit", [fewer_rows, a_shorter_shard, a_gap, lambda r: r.__setitem__("rows", 5), lambda r: r.pop("checksum")])
def test_an_edited_manifest_is_noticed_and_drops_no_row(run, tmp_path, edit):
    run(rows(11))
    path = tmp_path / "out" / "manifest.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))
    with pytest.raises(OutputError, match=r"manifest\.json was edited, torn, or written by an earlier version .*start again") as caught:
        run(tmp_path / "rows.jsonl")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("edit", [a_shorter_shard, a_gap])
def test_a_manifest_that_was_signed_anew_must_still_hold_each_row_once(run, tmp_path, edit):
    run(rows(11))
    path = tmp_path / "out" / "manifest.json"
    record = json.loads(path.read_text())
    record.pop("checksum")
    edit(record)
    record["checksum"] = shards._checksum(record)
    path.write_text(json.dumps(record))
    with pytest.raises(OutputError, match="its shards do not hold each row once"):
        run(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("output", ["parquet", "jsonl"])
def test_a_part_that_lost_rows_is_noticed(run, tmp_path, output):
    options = replace(SMALL, output=output)
    run(rows(11), options=options)
    part = tmp_path / "out" / "scored" / f"part-00001.{output}"
    if output == "parquet":
        pq.write_table(pq.read_table(part).slice(1), part)
    else:
        part.write_text("".join(part.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(OutputError, match=f"part-00001.{output} holds 3 rows, and 4 were written; remove it and run"):
        run(tmp_path / "rows.jsonl", options=options)
    part.unlink()
    assert run(tmp_path / "rows.jsonl", options=options).summary["rows"] == 11


def test_unknown_traits_and_thresholds_are_named(run):
    with pytest.raises(VectorSetError, match=r"no threshold 'miss 0.3'; did you mean miss 0.2"):
        run(rows(2), options=replace(SMALL, thresholds=["miss 0.3"]))
    with pytest.raises(VectorSetError, match="no trait 'warmt'"):
        run(rows(2), options=replace(SMALL, thresholds=["warmt=1"]))
    with pytest.raises(VectorSetError, match="not TRAIT=Z"):
        run(rows(2), options=replace(SMALL, thresholds=["warmth=low"]))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_an_input_that_changes_meanwhile_is_noticed_and_nothing_of_it_is_kept(run, made, tmp_path, monkeypatch, name):
    def put(given):
        if name == "rows.jsonl":
            write(tmp_path / name, given)
        else:
            pq.write_table(pa.Table.from_pylist(given), tmp_path / name, row_group_size=4)
        return tmp_path / name

    source = put(rows(12))
    expected = run(source, "before") and digests(tmp_path / "before")
    score, done = made.score_many, []

    def then_it_changes(conversations):
        done.append(True)
        if len(done) == 2:
            put([{**row, "messages": talk("Another reply.")} for row in rows(12)] if name == "rows.jsonl" else rows(6))
        return score(conversations)

    monkeypatch.setattr(made, "score_many", then_it_changes)
    with pytest.raises(InputFileError, match="has changed while it was screened"):
        run(source)
    monkeypatch.undo()
    put(rows(12))
    run(source)
    assert digests(tmp_path / "out") == expected


def test_scores_by_another_model_than_the_vectors_say_so(made, make_model, tokenizer, tmp_path):
    other = Scorer(ActivationReader(make_model("qwen2"), tokenizer), made.vectors, allow_other_model=True)
    result = screen(write(tmp_path / "rows.jsonl", rows(2)), tmp_path / "out", made.vectors, LocalEngine(lambda: other), SMALL)
    (warning,) = result.summary["warnings"]
    assert "another model" in warning


@pytest.mark.parametrize("output", ["parquet", "jsonl"])
def test_rows_that_only_look_unlike_others_are_screened(run, tmp_path, output):
    deep = {}
    for _ in range(600):
        deep = {"a": deep}
    assert run([{**row, "meta": deep} for row in rows(2)], "deep", replace(SMALL, output=output)).failed == 0
    views = pa.table({"response": pa.array(["I hear you.", "Go away."], pa.string_view()), "id": pa.array(["a", "b"], pa.string_view())})
    pq.write_table(views, tmp_path / "views.parquet")
    options = replace(SMALL, output=output, thresholds=["warmth=99"])
    assert run(tmp_path / "views.parquet", "views", options).summary["flagged"] == 2


def test_named_columns(run, tmp_path):
    given = [{"q": "hello", "a": "I hear you.", "prompt": 5} for _ in range(3)]
    run(given, options=replace(SMALL, columns=Columns(prompt="q", response="a")))
    assert all(row["demeanor_error"] is None for row in scored(tmp_path / "out"))


@pytest.fixture
def command(made, tmp_path, monkeypatch, capsys):
    """Run `demeanor screen ARGS` with the tiny model: exit code, standard output and standard error."""
    made.vectors.save(tmp_path / "vectors")
    monkeypatch.setattr(console, "load_scorer", lambda *options: made)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["demeanor", "screen", "--vectors", str(tmp_path / "vectors"), *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return call


def test_the_command_says_what_it_did_and_exits_with_3_where_rows_hold_errors(command, tmp_path):
    source = write(tmp_path / "rows.jsonl", [*rows(7), "{broken"])
    code, out, err = command("-i", source, "-o", tmp_path / "out", "--shard-rows", 4, "--explain", 2)
    assert code == 3
    assert "8 rows" in out
    assert "1 of 8 rows were NOT scored, the first: row 7: line 8 is not JSON" in err
    assert "scoring (8)" in err  # a line where there is no terminal for a bar
    assert "</html>" in (tmp_path / "out" / "report.html").read_text()
    before = digests(tmp_path / "out")
    assert command("-i", source, "-o", tmp_path / "out", "--shard-rows", 4, "--explain", 2)[0] == 3
    assert digests(tmp_path / "out") == before


def test_the_command_refuses_in_one_line_before_a_model_is_loaded(command, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "load_scorer", None)
    source = write(tmp_path / "rows.jsonl", rows(2))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    (tmp_path / "empty.jsonl").write_text("")
    for args, says in (
        (["-i", tmp_path / "none.jsonl", "-o", tmp_path / "out"], "no such file"),
        (["-i", "/dev/null", "-o", tmp_path / "out"], "a pipe or a device"),
        (["-i", tmp_path / "empty.jsonl", "-o", tmp_path / "out"], "holds no rows"),
        (["-i", source, "-o", tmp_path / "full"], "not empty"),
        (["-i", source, "-o", tmp_path / "out", "--response-column", "reply"], "no column 'reply'"),
        (["-i", source, "-o", tmp_path / "out", "--actors", 2], "need --engine ray"),
        (["-i", source, "-o", tmp_path / "out", "-t", "warmth=x"], "not TRAIT=Z"),
    ):
        code, _, err = command(*args)
        *loading, said = err.strip().splitlines()
        assert (code, loading) in ((2, []), (2, ["loading the vectors"])), err
        assert says in said


@pytest.mark.model
def test_the_embedded_model_gives_the_same_bytes_in_two_processes(tmp_path):
    loaded = load_model()
    vectors_for(*loaded).save(tmp_path / "vectors")
    source = write(tmp_path / "rows.jsonl", rows(40))
    for seed in ("1", "2"):  # of Python's hashes, by which sets are ordered
        command = [sys.executable, "-m", "demeanor.cli.main", "screen", "-i", source, "-o", tmp_path / seed,
                   "--vectors", tmp_path / "vectors", "--threads", "1", "--shard-rows", "16", "--explain", "2"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed})
    first, second = (digests(tmp_path / seed) for seed in ("1", "2"))
    assert "report.html" in first
    assert first == second
