"""The command line as a person meets it: one line an error, exit codes that mean something, and no model where none is needed."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from artifacts import entry, vector_set

import demeanor
from demeanor.cli import console
from demeanor.cli.main import main
from demeanor.cli.models import WELL_TRIED
from demeanor.conversation import as_conversation
from demeanor.errors import ActivationError, DemeanorError
from demeanor.extraction import extract_vectors
from demeanor.keys import row_hash
from demeanor.measure.metrics import Interval
from demeanor.model import embedded
from demeanor.model.reader import ActivationReader
from demeanor.scoring import NotScored, Reading, Score
from demeanor.traits import load, names

COMMANDS = [
    "demo",
    "extract",
    "validate",
    "score",
    "traits list",
    "traits show",
    "traits lint",
    "models list",
    "models pull",
    "models path",
    "cache show",
    "cache empty",
]
PACK = "name: warmth\ndescription: How warm.\npairs:\n- {id: w-1, high: I am so glad, low: I am so what}\n"


@pytest.fixture(autouse=True)
def no_model(monkeypatch, tmp_path):
    """An empty working folder and cache; loading the embedded model is a bug here."""

    def refuse():
        raise AssertionError("a model was loaded before the input was checked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEMEANOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "ensure", refuse)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `demeanor ARGS`: its exit code, standard output and standard error."""

    def call(*args, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["demeanor", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return call


class FakeScorer:
    """Gives every reply the same reading, and fails at replies that say so."""

    vectors = vector_set()
    reading = Reading({"warmth": Score(1.5, 1.0, 0.5, 0.75)}, {"warmth": (1, 2)}, "tiny-chat")

    def score(self, conversation):
        as_conversation(conversation)
        return self.reading

    def score_many(self, conversations):
        for conversation in conversations:
            try:
                if as_conversation(conversation).response == "break the machine":
                    raise ActivationError("the activations hold NaN")
                yield self.reading
            except ActivationError:
                raise
            except DemeanorError as error:
                yield NotScored(str(error))


@pytest.fixture
def fake_scorer(monkeypatch):
    monkeypatch.setattr(console, "load_scorer", lambda *options, **named: FakeScorer())


def modules_after(*args):
    """Which heavy modules a command imports, in a process of its own; its exit code; what it prints."""
    code = (
        "import sys; from demeanor.cli.main import main; sys.argv[0] = 'demeanor'\n"
        "try: main()\nexcept SystemExit as end: print('CODE', end.code)\n"
        "print('HEAVY', [m for m in ('torch', 'transformers', 'sklearn', 'plotly') if m in sys.modules])"
    )
    return subprocess.check_output([sys.executable, "-c", code, *args], text=True)


def test_the_version_is_printed_and_nothing_else(run):
    code, out, err = run("--version")
    assert (code, out, err) == (0, f"demeanor {demeanor.__version__}\n", "")


def test_the_shell_s_completion_is_offered(run):
    assert "--install-completion" in run("--help")[1]


@pytest.mark.slow
def test_scoring_imports_nothing_that_only_fitting_needs():
    code = (
        "import demeanor.scoring, demeanor.cli.score, demeanor.cli.tables, demeanor.vectors, demeanor.model.loading, sys; "
        "print([m for m in ('sklearn', 'scipy.stats', 'pandas', 'statsmodels', 'plotly', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_outside_a_terminal_progress_is_a_line_every_ten_seconds(capsys):
    now = iter([0.0, 3.0, 10.0, 15.0, 21.0, 22.0])
    step = console.lines("reading warmth", 100, clock=lambda: next(now))
    for done in (10, 10, 10, 12, 58):
        step(done)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "reading warmth (100)",
        "reading warmth: 20 of 100, 2.0/s, 0:00:40 left",
        "reading warmth: 42 of 100, 2.0/s, 0:00:29 left",
    ]


def test_something_is_said_before_anything_slow_is_imported():
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'torch': print('SAID BEFORE TORCH' if said.getvalue() else 'SILENT', flush=True); raise SystemExit\n"
        "import io; said = sys.stderr = io.StringIO()\n"
        "sys.meta_path.insert(0, Refuse()); sys.argv = ['demeanor', 'score', 'Assistant: hello there']\n"
        "from demeanor.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "SAID BEFORE TORCH"


def test_what_is_kept_is_shown_and_emptied(run, tmp_path):
    kept = tmp_path / "cache" / "activations.db"
    kept.parent.mkdir()
    kept.write_bytes(b"x" * 3_000_000)
    code, out, _ = run("cache", "show")
    assert code == 0
    assert "3 MB of 2147 MB" in out
    assert run("cache", "empty")[:2] == (0, f"3 MB of activations deleted from {kept.parent}\n")
    assert not kept.exists()
    assert run("cache", "empty")[0] == 0


def test_help_imports_nothing_heavy():
    printed = modules_after("--help")
    assert "CODE 0" in printed
    assert "HEAVY []" in printed
    assert all(command in printed for command in ("demo", "extract", "validate", "score", "traits", "models"))


def test_listing_traits_imports_nothing_heavy():
    printed = modules_after("traits", "list")
    assert "HEAVY []" in printed
    assert all(name in printed for name in names())  # not cut off, however narrow the terminal


def test_listing_models_cuts_no_name_off(run):
    code, out, _ = run("models", "list")
    assert code == 0
    assert all(name in out for name in (embedded.NAME, *WELL_TRIED))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert re.search(rf"Usage: .*{command} \[OPTIONS\]", out)
    assert len(out.split("Options")[0].split()) > 15


BAD = [
    ("extract -t crisis_recogniton", r"unknown trait 'crisis_recogniton'; did you mean crisis_recognition?"),
    ("extract -t nowhere.yaml", "unknown trait 'nowhere.yaml'"),
    ("extract -t bad.yaml", "bad.yaml: pair w-1, field 'low': "),
    ("extract -m smollm2-135m", "unknown model 'smollm2-135m'; did you mean smollm2-135m-instruct?"),
    ("extract -m [bold]x", "unknown model '[bold]x'"),
    ("extract -m nowhere.gguf", "/nowhere.gguf"),
    ("extract -m mine", "mine holds no config.json"),
    ("extract --method ldaa", "unknown method 'ldaa'; did you mean lda?"),
    ("extract --layers 10:20", "cannot read --layers '10:20'; write all, 10-20, or 8,12,16"),
    ("extract --layers 99999999999", "cannot read --layers"),
    ("extract --pooling middle", "unknown pooling 'middle'; use mean, last or max"),
    ("extract --quantization 8bit", "8bit quantization needs a CUDA device"),
    ("extract --quantization 3bit", "unknown quantization '3bit'; use 8bit or 4bit"),
    ("extract --dtype float17", "unknown dtype 'float17'; did you mean"),
    ("extract --device gpu", "unknown device 'gpu'; use auto, cpu, cuda"),
    ("extract --device cuda", "no CUDA device is available here; use --device auto or cpu"),
    ("extract --output mine", "mine exists and is not a vector set; name another folder"),
    ("extract --output talks.jsonl", "talks.jsonl exists and is not a vector set"),
    ("extract --control-vectors talks.jsonl", "talks.jsonl is a file, but a folder is needed there"),
    ("extract --report .", ". is a folder; name a file with --report"),
    ("extract --tutorial talks.jsonl", "talks.jsonl is a file, but a folder is needed there"),
    ("score -o out.jsonl", "--output is only for files of rows; give one with --input"),
    ("score hello -i talks.jsonl -o out.jsonl", "give either a text or --input, not both"),
    ("score -i talks.jsonl -o talks.jsonl", "talks.jsonl is the input; name another file with --output"),
    ("score -i talks.jsonl -o mine/../talks.jsonl", "is the input; name another file"),
    ("score -i nowhere.jsonl -o out.jsonl", "nowhere.jsonl: no such file"),
    ("score -i mine -o out.jsonl", "mine: the folder has no .jsonl, .csv or .parquet file"),
    ("score -i empty.jsonl -o out.jsonl", "empty.jsonl has no rows"),
    ("score -i latin.jsonl -o out.jsonl", "latin.jsonl: no row can be read (line 1 is not UTF-8 text"),
    ("score", "the text is empty; give a reply"),
    ("score hello --vectors mine", "no vector set in mine (no manifest.json); make one with `demeanor extract --output mine`"),
    ("score hello --vectors torn", "manifest.json is damaged or incomplete"),
    ("score hello -m other/model", "no vectors for other/model; make them first: demeanor extract --model other/model"),
    ("score User:hello", "no assistant message in the conversation"),
    ("validate --vectors nowhere", "no vector set in nowhere"),
    ("validate --vectors set -t user_risk", "but none of them is among the traits given"),
    ("traits show user_rsk", "unknown trait 'user_rsk'; did you mean user_risk?"),
    ("traits lint mine", "mine: the folder has no .yaml file"),
    ("models path nowhere", "nowhere is not on this machine"),
]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Files for the bad commands, on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text("{")
    vector_set().save(tmp_path / "set")
    (tmp_path / "bad.yaml").write_text(PACK.replace("low: I am so what", "low: ''"))
    (tmp_path / "talks.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes('{"text": "é"}\n'.encode("latin-1"))


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize(("command", "words"), BAD, ids=[command for command, _ in BAD])
def test_bad_input_is_one_line_and_exit_2_and_writes_nothing(run, command, words, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*command.split())
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "talks.jsonl").read_text() == '{"text": "hello"}\n'
    assert code == 2
    assert out == ""
    *loading, last = err.splitlines()
    assert all(line.startswith("loading ") for line in loading)
    assert last.startswith("error: ")
    assert words in last


def test_input_that_is_no_text(run):
    code, _, err = run("score", stdin=b"User: \xff")
    assert (code, err) == (2, "error: standard input is not UTF-8 text (byte 6)\n")


@pytest.mark.parametrize("text", ["a [bold]b[/] c", "[/]", "back\\[slash]", ":smile:", "two\nlines"])
def test_an_error_says_what_the_user_wrote(run, text):
    code, _, err = run("traits", "show", text)
    assert code == 2
    assert repr(text) in err
    assert err.count("\n") == 1


def test_an_error_with_several_lines_becomes_one(capsys):
    console.problem("first\nsecond")
    assert capsys.readouterr().err == "error: first second\n"


def test_an_interrupt_exits_with_130(run, monkeypatch):
    def interrupt(paths):
        raise KeyboardInterrupt

    monkeypatch.setattr("demeanor.traits.load_many", interrupt)
    code, _, err = run("traits", "lint", "all")
    assert code == 130
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["traits list", "monitor --print-policy"])  # printed by rich, and by typer
def test_output_that_nobody_reads_exits_with_141_and_output_that_has_no_room_with_2(command):
    called = [sys.executable, "-m", "demeanor.cli.main", *command.split()]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(called, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
    with open("/dev/full", "w") as full:
        done = subprocess.run(called, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (2, b"error: cannot write the output: No space left on device\n")


def test_lint_of_a_bad_pack_exits_with_1(run, tmp_path):
    (tmp_path / "bad.yaml").write_text(PACK.replace("so what", "so what and yet and yet and yet"))
    code, out, err = run("traits", "lint", "bad.yaml")
    assert code == 1
    assert "problem pair w-1: 4 against 10 words" in out
    assert err == "error: 1 problem(s) found\n"


def test_lint_of_a_fair_pack_exits_with_0(run, tmp_path):
    (tmp_path / "fair.yaml").write_text(PACK)
    code, out, err = run("traits", "lint", "fair.yaml")
    assert (code, err) == (0, "")
    assert "note train: 1 pairs" in out


def test_text_of_a_pack_is_shown_as_it_is_written(run, tmp_path):
    pair = """- {id: '[/w-1]', high: '[b]', low: 'I am [/b]'}"""
    (tmp_path / "odd.yaml").write_text(f"name: warmth\ndescription: '[/] [red]How[/red] warm :smile:'\npairs:\n{pair}\n")
    code, out, _ = run("traits", "show", "odd.yaml")
    assert code == 0
    assert "[/] [red]How[/red] warm :smile:" in out
    assert "[/w-1]" in out
    assert "I am [/b]" in out


@pytest.mark.parametrize("name", ["owner/my~model", "my models/chat", "owner/a--b"])
def test_a_name_that_no_hub_model_can_have_is_one_line(run, name):
    code, _, err = run("extract", "-m", name)
    assert code == 2
    loading, said = err.splitlines()
    assert loading.startswith("loading ")
    assert said.startswith("error: ")


@pytest.mark.parametrize(
    ("text", "layers"),
    [(None, None), ("all", [0, 1, 2]), ("1", [1]), ("0-2", [0, 1, 2]), ("2,0", [0, 2]), ("0-1,1-2", [0, 1, 2]), ("2-1", [])],
)
def test_layers_are_read(text, layers):
    assert console.parse_layers(text, 3) == layers


@pytest.mark.parametrize("edited", [False, True])
def test_pairs_of_another_pack_than_the_vector_s_are_not_simply_called_held_out(run, tmp_path, monkeypatch, llama, tokenizer, edited):
    reader = ActivationReader(llama, tokenizer)
    pairs = "".join(f"- {{id: w-{i}, high: 'I hear you, {i}', low: 'So what, {i}'}}\n" for i in range(12))
    (tmp_path / "pack.yaml").write_text(f"name: warmth\ndescription: How warm.\npairs:\n{pairs}")
    extract_vectors(reader, [load(tmp_path / "pack.yaml")], "mean_difference", [1]).vectors.save(tmp_path / "set")
    if edited:  # a pair less, so that the others fall into other splits
        (tmp_path / "pack.yaml").write_text(f"name: warmth\ndescription: How warm.\npairs:\n{pairs.split(chr(10), 1)[1]}")
    monkeypatch.setattr(console, "load_reader", lambda *_: reader)
    _, shown, _ = run("validate", "--vectors", "set", "-t", "pack.yaml")
    assert ("the vector may have been trained on some of these pairs" in " ".join(shown.split())) == edited
    _, printed, _ = run("validate", "--vectors", "set", "-t", "pack.yaml", "--json")
    assert ("trained on" in json.loads(printed)["traits"]["warmth"].get("caution", "")) == edited


@pytest.mark.usefixtures("fake_scorer")
def test_one_text_as_a_table_and_as_json(run):
    code, out, _ = run("score", r"User: I failed.\nAssistant: Oh no.")
    assert code == 0
    assert "warmth" in out
    assert "0.75" in out
    code, out, _ = run("score", "--json", stdin="\ufeffAssistant: Où?\nUser: Là.\nAssistant: Ah.".encode())
    assert json.loads(out)["scores"]["warmth"] == {"raw": 1.5, "centred": 1.0, "z": 0.5, "probability": 0.75}


@pytest.mark.usefixtures("fake_scorer")
def test_a_file_keeps_its_rows_in_order_and_gains_the_scores(run, tmp_path):
    (tmp_path / "talks.jsonl").write_text('{"id": 1, "response": "a"}\n\n{"id": 2, "text": "é"}\n')
    code, _, err = run("score", "-i", "talks.jsonl", "-o", "out/scores.jsonl.gz")
    assert code == 0
    assert "2 of 2 rows scored" in err
    code, _, _ = run("score", "-i", "out/scores.jsonl.gz", "-o", "again.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["demeanor"]["scores"]["warmth"]["z"]) for row in rows] == [(1, 0.5), (2, 0.5)]
    assert rows[1]["text"] == "é"


@pytest.mark.usefixtures("fake_scorer")
def test_rows_that_cannot_be_scored_keep_their_place_and_exit_with_3(run, tmp_path):
    lines = ['{"response": "a"}', "not json", '{"response": ""}', '{"z": NaN, "response": "b"}', '{"response": "\\ud83d"}']
    (tmp_path / "talks.jsonl").write_text("\n".join(lines))
    code, _, err = run("score", "-i", "talks.jsonl", "-o", "out.jsonl")
    assert code == 3
    assert "error: 2 of 5 rows could not be scored" in err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    errors = [row["demeanor"].get("error", "") for row in rows]
    assert [error.split(":")[0][:6] for error in errors] == ["", "line 2", "line 3", "", ""]
    assert rows[2]["response"] == ""
    assert rows[3]["z"] is None  # nobody reads it, and JSON holds no NaN


@pytest.mark.usefixtures("fake_scorer")
def test_a_failure_half_way_leaves_no_half_file(run, tmp_path):
    (tmp_path / "talks.jsonl").write_text('{"text": "a"}\n{"text": "break the machine"}\n')
    code, _, err = run("score", "-i", "talks.jsonl", "-o", "out.jsonl")
    assert code == 2
    assert "error: the activations hold NaN" in err
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["talks.jsonl"]


@pytest.mark.usefixtures("fake_scorer")
@pytest.mark.parametrize("command", ["score", "monitor"])
def test_an_input_that_can_be_read_only_once_is_refused(run, tmp_path, command):
    reading, writing = os.pipe()
    os.write(writing, b'{"text": "a"}\n')
    os.close(writing)
    code, _, err = run(command, "-i", f"/dev/fd/{reading}", "-o", "out.jsonl")
    os.close(reading)
    assert code == 2
    assert "write it to a file first" in err
    assert list(tmp_path.iterdir()) == []


def test_an_input_that_grows_meanwhile_gives_no_result(run, tmp_path, monkeypatch):
    source = tmp_path / "talks.jsonl"
    source.write_text('{"text": "a"}\n')

    def load(*options):
        source.write_text('{"text": "a"}\n' * 2)
        return FakeScorer()

    monkeypatch.setattr(console, "load_scorer", load)
    code, _, err = run("score", "-i", source, "-o", "out.jsonl")
    assert code == 2
    assert "changed while it was read: 1 rows at first, 2 at the end" in err
    assert [p.name for p in tmp_path.iterdir()] == ["talks.jsonl"]


@pytest.mark.usefixtures("fake_scorer")
def test_a_sheet_to_label_says_what_it_leaves_out(run, tmp_path):
    rows = ['{"response": "half a pair \\ud83d"}', '{"response": ""}', '{"id": null, "prompt": "Hi", "response": "I hear you."}']
    (tmp_path / "talks.jsonl").write_text("\n".join(rows))
    code, _, err = run("sample", "-t", "warmth", "-i", "talks.jsonl", "-o", "sheet.csv")
    assert code == 3
    assert "1 of 3 rows could not be scored and are not in the sheet, the first: line 2" in err
    with open("sheet.csv", encoding="utf-8-sig", newline="") as file:
        sheet = {row["id"]: row["conversation"] for row in csv.DictReader(file)}
    assert sheet == {
        "1": ">>> Chatbot, the reply to label:\nhalf a pair ?",
        "3": "User:\nHi\n\n>>> Chatbot, the reply to label:\nI hear you.",
    }
    filled = Path("sheet.csv").read_bytes()
    code, _, err = run("sample", "-t", "warmth", "-i", "talks.jsonl", "-o", "sheet.csv")
    assert (code, Path("sheet.csv").read_bytes()) == (2, filled)
    assert "may hold somebody's labels" in err
    assert run("sample", "-t", "warmth", "-i", "talks.jsonl", "--n", 0)[0] == 2


@pytest.mark.usefixtures("fake_scorer")
def test_a_spreadsheet_takes_no_reply_for_a_formula(run, tmp_path):
    rows = [
        {"id": "@SUM(1)", "prompt": "+1", "response": '=HYPERLINK("http://evil.example")'},
        {"prompt": "Hi", "response": "- one\n- two"},
    ]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("sample", "-t", "warmth", "-i", "talks.jsonl", "-o", "sheet.csv")[0] == 0
    with open("sheet.csv", encoding="utf-8-sig", newline="") as file:
        sheet = list(csv.DictReader(file))
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in sheet for cell in row.values())
    written = {json.loads(row["messages"])[-1]["content"] for row in sheet}
    assert written == {row["response"] for row in rows}  # what is read back is what was said


def test_a_sheet_for_a_trait_of_the_users_goes_by_what_the_user_says(run, tmp_path, monkeypatch):
    class OfTheUser(FakeScorer):
        vectors = vector_set(entry("warmth", reads="user"))

        def score_many(self, conversations):
            for conversation in conversations:
                asked = any(m.role == "user" for m in conversation.messages)
                yield self.reading if asked else Reading({}, {}, "tiny-chat")

    monkeypatch.setattr(console, "load_scorer", lambda *options, **named: OfTheUser())
    rows = [{"prompt": said, "response": "Call a hotline."} for said in ("I feel like dying", "My cat is ill", "Exams again")]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], {"response": "alone"}]))
    code, _, err = run("sample", "-t", "warmth", "-i", "talks.jsonl", "-o", "sheet.csv")
    assert code == 3
    assert "1 of 5 rows could not be scored and are not in the sheet, the first: line 5: no user message to read" in err
    assert "the other 1 are nearly the same" in err
    with open("sheet.csv", encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


@pytest.mark.usefixtures("fake_scorer")
def test_labels_that_go_against_the_trait_calibrate_nothing(run, tmp_path, monkeypatch):
    made = SimpleNamespace(interval=Interval(0.0, 0.2), auroc=0.1, prompts=9)
    monkeypatch.setattr("demeanor.extraction.recalibration.recalibrate", lambda *_: made)
    monkeypatch.setattr(FakeScorer, "reader", None, raising=False)
    vector_set().save(tmp_path / "vectors")
    before = {p.name: p.read_bytes() for p in (tmp_path / "vectors").iterdir()}
    (tmp_path / "labelled.jsonl").write_text("".join(f'{{"response": "a {i}", "label": {i % 2}}}\n' for i in range(9)))
    code, _, err = run("calibrate", "-t", "warmth", "-i", "labelled.jsonl")
    assert code == 2
    assert (
        "the labels contradict the scores of warmth (AUROC 0.10 [0.00, 0.20]), so nothing was saved. Check first that 1 or high means: "
        "the reply" in err
    )
    assert "adapt it to labelled replies to more than these 9 prompts" in " ".join(err.split())
    assert {p.name: p.read_bytes() for p in (tmp_path / "vectors").iterdir()} == before


@pytest.mark.parametrize("reads", ["user", "response"])
def test_a_message_of_the_users_alone_is_scored_by_a_set_that_reads_only_that(run, tmp_path, monkeypatch, reads):
    monkeypatch.setattr(console, "load_scorer", lambda *_: FakeScorer())
    vector_set(entry("warmth", reads=reads)).save(tmp_path / "vectors")
    assert run("score", "User: I cannot go on.")[0] == (0 if reads == "user" else 2)


def test_a_demonstration_into_a_file_is_refused_before_it_begins(run, tmp_path):
    (tmp_path / "notes.txt").write_text("kept")
    code, _, err = run("demo", "--output", "notes.txt")
    assert (code, (tmp_path / "notes.txt").read_text()) == (2, "kept")
    assert "notes.txt is a file; name a folder" in err


def test_a_labelled_row_without_a_reply_is_named_before_a_model_is_loaded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "vector_set", lambda *options: FakeScorer.vectors)
    rows = [*({"response": f"a {i}", "label": i % 2} for i in range(9)), {"response": " ", "label": 1}]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run("adapt", "-t", "warmth", "-i", "labelled.jsonl", "-o", "adapted")
    assert code == 2
    assert "labelled.jsonl: line 10: the assistant message to score is empty" in err


@pytest.mark.usefixtures("fake_scorer")
@pytest.mark.parametrize("rows", [[{"level": 1}, {"level": 0}], [{"label": ""}, {"label": None}]])
def test_an_adapted_set_is_not_written_over_by_rows_without_labels(run, tmp_path, rows):
    kept = entry("warmth")
    kept.reading.metadata["adapted"] = {"rows": 20, "prompts": 10, "auroc": {"value": 0.8, "low": 0.7, "high": 0.9}}
    vector_set(kept).save(tmp_path / "adapted")
    before = {p.name: p.read_bytes() for p in (tmp_path / "adapted").iterdir()}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"response": "a", **row}) + "\n" for row in rows))
    code, out, err = run("adapt", "-t", "warmth", "-i", "rows.jsonl", "-o", "adapted")
    assert (code, out) == (2, "")
    assert ("'level' is it" if "level" in rows[0] else "holds warmth adapted to labelled replies") in " ".join(err.split())
    assert {p.name: p.read_bytes() for p in (tmp_path / "adapted").iterdir()} == before


@pytest.mark.usefixtures("fake_scorer")
def test_a_sheet_that_is_not_filled_in_yet_gives_the_packs_vector(run, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"response": "a", "Label": ""}\n{"response": "b", "label": null}\n')
    code, _, err = run("adapt", "-t", "warmth", "-i", "rows.jsonl", "-o", "adapted")
    assert code == 0
    assert "no row of rows.jsonl has its 'label' filled in, so the vector was saved unchanged" in " ".join(err.split())


def test_calibrate_says_how_many_replies_were_learnt_from_and_stops_where_none_is_fresh(run, tmp_path):
    kept = entry("warmth")
    rows = [{"prompt": f"question {i}", "response": f"reply {i}", "label": i % 2} for i in range(6)]
    kept.reading.metadata["learnt_from"] = [row_hash(as_conversation({k: r[k] for k in ("prompt", "response")})) for r in rows]
    vector_set(kept).save(tmp_path / "vectors")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = run("calibrate", "-t", "warmth", "-i", "rows.jsonl")
    assert code == 2
    assert "warmth was adapted to 6 of these 6 labelled replies, so they are not fresh, and none is left" in " ".join(err.split())
