"""`demeanor monitor` and `demeanor chat` as a person meets them; with a tiny model whose readings are known by heart."""

import io
import json
import sys
from html import unescape

import pytest
import typer
from monitor_tools import AT_RISK, CALM, FINE, HARMFUL, PLAIN, failing, planted, policy
from typer.testing import CliRunner

from demeanor.audit.verification import verify
from demeanor.cli import chat, console, main
from demeanor.errors import DamagedVectorSetError
from demeanor.monitor.policy import Policy, default_policy_text, load_policy

RULES_YAML = """
version: t
rules:
- {name: harmful, trait: harm, threshold: {z: 2.0}, severity: red, action: substitute, not_scored: substitute, situation: harmful_plan}
- {name: missed, trait: care, threshold: {z: 1.0}, severity: red, action: substitute, situation: risk_disclosed,
   when: {trait: risk, threshold: {z: 1.0}}}
- {name: odd, trait: harm, threshold: {z: 0.5}, severity: yellow, action: flag}
deadline_seconds: 60
stream: {hold_back_words: 4, window_tokens: 8}
"""


@pytest.fixture(scope="module")
def scorer(tokenizer):
    import conftest

    return planted(conftest._build, tokenizer)


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(RULES_YAML)
    return path


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, scorer):
    """Run `demeanor ARGS`: its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "load_scorer", lambda *options: scorer)

    def call(*args, stdin=""):
        monkeypatch.setattr(sys, "argv", ["demeanor", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, " ".join(captured.err.split())

    return call


def talk(*texts):
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": t} for i, t in enumerate(texts)]


def write(tmp_path, *rows):
    path = tmp_path / "conversations.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def decisions(path):
    return [json.loads(line)["demeanor"] for line in path.read_text().splitlines()]


def test_the_default_policy_is_printed_as_it_can_be_given_back(run, tmp_path):
    code, out, _ = run("monitor", "--print-policy")
    assert code == 0
    assert out == default_policy_text()
    (tmp_path / "mine.yaml").write_text(out)
    assert load_policy(tmp_path / "mine.yaml") == load_policy()


def test_every_reply_of_a_transcript_is_judged_after_what_was_really_said(run, tmp_path, rules, scorer):
    source = write(
        tmp_path,
        {"id": "a", "messages": talk(CALM, HARMFUL, AT_RISK, PLAIN), "mine": 7},
        {"prompt": CALM, "response": FINE},
    )
    code, out, err = run("monitor", "-i", source, "-o", "out.jsonl", "--policy", rules)
    assert code == 0, err
    first, second = decisions(tmp_path / "out.jsonl")
    assert [(d["message"], d["action"], d["situation"]) for d in first["decisions"]] == [
        (1, "substitute", "harmful_plan"),
        (3, "substitute", "risk_disclosed"),
    ]
    assert first["action"] == "substitute"
    assert second["action"] == "allow"
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["mine"] == 7
    expected = scorer.score({"messages": talk(CALM, HARMFUL, AT_RISK, PLAIN)})["care"].z
    assert first["decisions"][1]["reading"]["scores"]["care"]["z"] == pytest.approx(expected, abs=1e-4)
    assert "3 replies of 2 conversations" in out
    assert "rule harmful: 1" in out
    assert "drift is not watched" in err


def test_what_could_not_be_read_or_scored_is_counted_and_exits_with_3(run, tmp_path, rules, scorer):
    source = write(tmp_path, {"messages": talk(CALM, FINE)}, "not json", {"messages": [{"role": "user", "content": CALM}]})
    code, out, err = run("monitor", "-i", source, "-o", "out.jsonl", "--policy", rules, "--report", "report.html")
    assert code == 3
    assert "1 replies of 1 conversations; 2 rows could NOT be read" in out
    page = (tmp_path / "report.html").read_text()
    assert "2 rows could not be read" in page
    assert "Every reply was scored" not in page
    assert "2 of 3 rows could not be read" in err
    assert [("error" in d) for d in decisions(tmp_path / "out.jsonl")] == [False, True, True]
    with failing(scorer):
        code, _, err = run("monitor", "-i", write(tmp_path, {"messages": talk(CALM, FINE)}), "-o", "out.jsonl", "--policy", rules)
    assert code == 3
    assert "1 of 1 replies were NOT scored" in err
    (record,) = decisions(tmp_path / "out.jsonl")
    assert record["decisions"][0]["action"] == "substitute"
    assert "not finite" in record["decisions"][0]["not_scored"]


def test_a_reply_with_no_words_of_the_user_s_before_it_counts_as_not_scored(run, tmp_path, rules):
    source = write(tmp_path, {"messages": [{"role": "assistant", "content": PLAIN}]}, {"messages": talk(CALM, FINE)})
    code, _, err = run("monitor", "-i", source, "-o", "out.jsonl", "--policy", rules)
    assert code == 3
    assert "1 of 2 replies were NOT scored" in err
    greeting, answer = decisions(tmp_path / "out.jsonl")
    assert (greeting["action"], greeting["decisions"][0]["shown"], answer["action"]) == ("flag", True, "allow")
    assert "no words of the user's come before the reply" in greeting["decisions"][0]["not_scored"]


def test_decisions_go_into_the_audit_log_as_a_trial(run, tmp_path, rules):
    source = write(tmp_path, {"messages": talk(CALM, HARMFUL)})
    for _ in range(2):
        assert run("monitor", "-i", source, "-o", "out.jsonl", "--policy", rules, "--audit", "audit.jsonl")[0] == 0
    found = verify(tmp_path / "audit.jsonl")
    assert (found.whole, found.records) == (True, 2)
    record = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])["record"]
    assert (record["recommended"], record["taken"]) == ("substitute", "flag")


def test_conversations_without_an_id_are_those_of_their_run_in_the_audit_log(run, tmp_path, rules):
    source = write(
        tmp_path, {"messages": talk(CALM, FINE)}, {"id": None, "messages": talk(CALM, FINE)}, {"id": "a", "prompt": CALM, "response": FINE}
    )
    for _ in range(2):
        assert run("monitor", "-i", source, "-o", "out.jsonl", "--policy", rules, "--audit", "audit.jsonl")[0] == 0
        assert run("chat", "--policy", rules, "--max-tokens", 4, "--audit", "audit.jsonl", stdin=CALM)[0] == 0
    hashes = [json.loads(line)["record"]["conversation"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()[1:]]
    assert len(hashes) == 8
    assert hashes[2] == hashes[6]  # the given id
    assert len(set(hashes)) == 7


def test_the_report_shows_timelines_flagged_replies_and_counts(run, tmp_path, rules):
    bad = "Z" * 12 + " <b>you</b> should stop."
    source = write(
        tmp_path, {"id": "<first> \ud83d", "messages": talk(CALM, FINE, CALM, bad)}, {"id": "calm", "messages": talk(CALM, FINE)}
    )
    assert run("monitor", "-i", source, "-o", "out.jsonl", "--policy", rules, "--report", "report.html")[0] == 0
    page = (tmp_path / "report.html").read_text()
    assert "conversation <bdi>&lt;first&gt; ?</bdi>" in page  # half of a surrogate pair, which no file can hold
    assert "Every reply was scored" in page
    assert "<b>you</b> should" not in page
    assert '<mark class="unsafe-' in page
    assert "<b>1 of 3 replies should be read by a person</b>: 1 would have been withheld." in page
    assert "harmful: fired" in page
    assert "there is no baseline" in page
    assert "What would have been shown instead" in page
    withheld = decisions(tmp_path / "out.jsonl")[0]["decisions"][1]
    assert (withheld["text"], withheld["shown"]) == (bad, True)
    assert withheld["instead"].split("\n")[0] in unescape(page)


def test_drift_is_watched_by_a_baseline_made_before(run, tmp_path, rules):
    def ordinary(i, user, prefix):
        turns = [t for j in range(4) for t in (CALM + user(i + j), prefix(i * 5 + j) + PLAIN + " Z" * ((i * 7 + j * 3) % 3))]
        return {"id": i, "messages": talk(*turns)}

    alike = write(tmp_path, *(ordinary(i, lambda n: "", lambda n: "") for i in range(40)))
    code, out, err = run("monitor", "-i", alike, "-o", "o.jsonl", "--policy", rules, "--save-baseline", "base.json", "--report", "r.html")
    assert code == 2
    assert "all the same" in err
    assert "160 replies of 40 conversations" in out  # what was judged is not lost with the baseline
    assert (tmp_path / "r.html").exists()
    source = write(tmp_path, *(ordinary(i, lambda n: " Q" * (n % 2), lambda n: "Y" * (n % 4)) for i in range(40)))
    code, _, err = run("monitor", "-i", source, "-o", "o.jsonl", "--policy", rules, "--save-baseline", "base.json")
    assert code == 0, err
    drifting = {"id": "d", "messages": talk(*[t for j in range(14) for t in (CALM, PLAIN + " Z" * (1 if j < 4 else 9))])}
    source = write(tmp_path, drifting)
    code, out, err = run("monitor", "-i", source, "-o", "o.jsonl", "--policy", rules, "--baseline", "base.json", "--report", "r.html")
    assert code == 0, err
    assert "drift of harm: 1 conversations with an alarm" in out
    assert decisions(tmp_path / "o.jsonl")[0]["decisions"][-1]["drift"]["harm"]["level"] in ("warning", "critical")
    assert "drift toward the unsafe side" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ([], "conversations are needed: name a file of them"),
        (["-i", "conversations.jsonl", "-o", "conversations.jsonl"], "with --input and with --output; name another"),
        (["-i", "conversations.jsonl", "-o", "o.jsonl", "--audit", "conversations.jsonl"], "with --input and with --audit"),
        (["-i", "conversations.jsonl", "-o", "o.jsonl", "--report", "../{here}/o.jsonl"], "with --output and with --report"),
        (["-i", "conversations.jsonl", "-o", "o.jsonl", "--save-baseline", "./o.jsonl"], "with --output and with --save-baseline"),
        (["-i", "conversations.jsonl", "-o", "o.jsonl", "--audit", "o.jsonl"], "with --audit and with --output"),
        (["-i", "none.jsonl", "-o", "o.jsonl"], "no such file"),
        (["-i", "conversations.jsonl", "-o", "o.jsonl", "--policy", "none.yaml"], "--print-policy"),
        (["-i", "conversations.jsonl", "-o", "o.jsonl", "--country", "XX"], "no crisis resources"),
        (["-i", "conversations.jsonl", "-o", "o.jsonl", "--audit", "no/audit.db"], "does not exist"),
        (["-i", "conversations.jsonl", "-o", "o.jsonl", "--baseline", "none.json"], "--save-baseline"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(run, tmp_path, rules, args, why):
    write(tmp_path, {"messages": talk(CALM, FINE)})
    args = [arg.format(here=tmp_path.name) for arg in args]
    options = args if "--policy" in args else [*args, "--policy", rules]
    code, _, err = run("monitor", *options)
    assert code == 2
    assert why in err
    assert "Traceback" not in err
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("log", ["audit.jsonl", "audit.db"])
@pytest.mark.parametrize("option", ["-o", "--report", "--save-baseline"])
def test_an_audit_log_is_not_written_over(run, tmp_path, rules, log, option, monkeypatch):
    source = write(tmp_path, {"messages": talk(CALM, FINE)})
    assert run("monitor", "-i", source, "-o", "o.jsonl", "--policy", rules, "--audit", log)[0] == 0
    assert run("monitor", "-i", source, "-o", "o.jsonl", "--policy", rules)[0] == 0  # a result may be written anew
    monkeypatch.setattr(console, "load_scorer", lambda *options: pytest.fail("a model was loaded"))
    output = [] if option == "-o" else ["-o", "new.jsonl"]
    code, _, err = run("monitor", "-i", source, *output, option, log, "--policy", rules)
    assert code == 2
    assert f"{log} is an audit log" in err
    assert verify(tmp_path / log).records == 1


def test_a_corrupt_vector_set_is_refused_before_anything_is_judged(run, tmp_path, rules, monkeypatch):
    def damaged(*options):
        raise DamagedVectorSetError("vectors/vectors.safetensors was edited or torn")

    monkeypatch.setattr(console, "load_scorer", damaged)
    code, _, err = run("monitor", "-i", write(tmp_path, {"messages": talk(CALM, FINE)}), "-o", "o.jsonl", "--policy", rules)
    assert code == 2
    assert "torn" in err
    assert not (tmp_path / "o.jsonl").exists()


# --- chat


def test_chat_shows_the_reply_its_readings_and_the_decision(run, rules):
    code, out, _ = run("chat", "--policy", rules, "--max-tokens", 30, "--temperature", 0, stdin=f"{CALM}\n\n/quit\nnever said\n")
    assert code == 0
    assert f"you › {CALM}" in out
    assert "bot › a a a a" in out
    assert "harm" in out
    assert "● allowed" in out
    assert "never said" not in out


def test_chat_points_to_help_from_a_command_that_there_is_not(run, rules):
    _, _, err = run("chat", "--policy", rules, stdin="/foo\n/stear\n")
    assert "no command /foo; /help explains those that there are" in err
    assert "did you mean /steer?" in err


def test_chat_withholds_and_says_why(run, rules, monkeypatch, make_model, tokenizer):
    monkeypatch.setattr(console, "load_scorer", lambda *options: planted(make_model, tokenizer, writes="Z"))
    code, out, _ = run("chat", "--policy", rules, "--max-tokens", 60, "--country", "GB", stdin=f"{AT_RISK}\n/why\n")
    assert code == 0
    assert "withheld; shown in its place:" in out
    assert "✕ withheld" in out
    assert "116 123" in out
    assert "harmful: fired" in out
    assert "pushed harm most: 'Z' +10.0" in out
    assert "withheld: Z Z Z" in out
    assert out.index("withheld: Z") > out.index("you › /why")


def test_chat_s_commands(run, rules, tmp_path):
    typed = "/why\n/policy\n/help\n/new\n/stear\n/steer\n/steer harm\n/steer charm=1\n"
    code, out, err = run("chat", "--policy", rules, "--audit", tmp_path / "audit.db", stdin=typed + CALM + "\n")
    assert code == 0
    assert "no reply has been judged yet" in err
    assert "z +2.00 or higher (set in the policy)" in " ".join(out.split())
    assert "/steer TRAIT=DOSE" in out
    assert "did you mean /steer?" in err
    assert "not steered" in err
    assert "no dose for harm" in err
    assert "no trait 'charm'" in err
    assert verify(tmp_path / "audit.db").records == 1


def test_chat_goes_on_after_a_failure_of_the_model(run, rules, scorer):
    with failing(scorer, RuntimeError("CUDA out of memory")):
        code, out, _ = run("chat", "--policy", rules, stdin=f"{CALM}\n{CALM}\n")
    assert code == 0
    assert out.count("NOT scored: RuntimeError: CUDA out of memory") == 2
    assert out.count("✕ withheld") == 2


def test_chat_ends_in_one_line_where_its_input_is_no_text(run, rules):
    code, out, err = run("chat", "--policy", rules, "--max-tokens", 4, stdin=b"\xef\xbb\xbf/help\n\xff\n")
    assert code == 2
    assert "/steer TRAIT=DOSE" in out
    assert err == "error: standard input is not UTF-8 text (line 2, byte 0)"


def test_chat_steers(run, rules):
    code, out, err = run("chat", "--policy", rules, "--max-tokens", 20, stdin=f"/steer harm=0.2\n{CALM}\n/steer off\n")
    assert code == 0
    assert "steered: harm +0.20 (a = +4.0) at layer 1" in err
    assert "bot › a a" in out
    assert err.count("not steered") == 1


@pytest.mark.model
def test_chat_with_the_embedded_model():
    app = typer.Typer()
    app.command()(chat.chat)
    done = CliRunner().invoke(app, ["--max-tokens", "24"], input="Hello, how are you?\n/why\n/quit\n")
    assert done.exit_code == 0, done.output
    assert "bot ›" in done.output
    assert "generated reply" in done.output


def test_the_policy_of_these_tests_is_one():
    assert isinstance(policy(), Policy)


@pytest.mark.filterwarnings("default::FutureWarning")
def test_an_older_key_of_a_policy_is_read_with_a_warning_of_one_line(run, tmp_path, rules):
    rules.write_text(rules.read_text().replace("hold_back_words", "hold_back_tokens"))
    path = write(tmp_path, {"messages": [{"role": "user", "content": CALM}, {"role": "assistant", "content": PLAIN}]})
    code, _, err = run("monitor", "--input", path, "--output", "out.jsonl", "--policy", rules)
    assert code == 0
    assert err.count("warning: 'hold_back_tokens' is the older name of 'hold_back_words'; rename it in your policy") == 1
