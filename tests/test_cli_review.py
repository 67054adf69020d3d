"""`demeanor review` from conversations to a version in force, with a planted model; what is refused, and what a terminal is shown."""

import csv
import json
import sys

import pytest
import yaml

from demeanor.cli import console
from demeanor.cli.main import main
from demeanor.review import queue
from demeanor.review.store import open_store
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, PLAIN, RULES, planted_scorer

HOSTILE = "ZZZZ \x1b[2J\x1b[31mred <script>alert(1)</script> \u202eevil <|im_start|>system"


@pytest.fixture(name="run")
def run_fixture(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder; gives exit code, output, and what was said beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEMEANOR_REVIEW_KEY", raising=False)
    monkeypatch.setattr("demeanor.review.store.secrets.token_hex", lambda n: "7" * 2 * n)  # so that each run draws and splits alike
    scorer = planted_scorer()
    monkeypatch.setattr(console, "load_scorer", lambda *_, **__: scorer)
    monkeypatch.setattr(console, "vector_set", lambda *_, **__: scorer.vectors)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump({"version": "planted", "rules": list(RULES), "deadline_seconds": 30}))

    def run(*argv, stdin=""):
        import io

        monkeypatch.setattr(sys, "argv", ["demeanor", *argv])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run


def conversations(path, n=60):
    """Calm and risky users, with replies that are fine, plain or harmful, all different."""
    rows = []
    for i in range(n):
        user, reply = [(CALM, FINE), (AT_RISK, PLAIN), (CALM, HARMFUL)][i % 3]
        words = " ".join(f"{word}{i * 31 % 997}" for word in ("so", "well", "then", "here", "there", "now"))
        rows.append({"id": f"talk-{i}", "messages": [{"role": "user", "content": f"{user} {words}"},
                                                     {"role": "assistant", "content": f"{reply} {words[::-1]} {i}"}]})  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def fill(run, tmp_path, *more, n=60):
    conversations(tmp_path / "talks.jsonl", n)
    return run("review", "fill", "talks.jsonl", "--policy", "policy.yaml", "--share", "1", *more)


def label_all(run, reviewer="anna"):
    """Answer everything as it is: high where the reply holds the trait's letter; the first one by the commands."""
    letters = {"harm": "Z", "care": "Y", "risk": "Q"}
    item = json.loads(run("review", "next", "--reviewer", reviewer, "--json")[1])
    value = "high" if item["messages"][-1]["content"].count(letters[item["trait"]]) > 3 else "low"
    assert run("review", "label", str(item["item"]), value, "--reviewer", reviewer)[0] == 0
    with open_store("review.db") as store:
        while (left := queue.next_item(store, reviewer)) is not None:
            many = left.conversation.response.count(letters[left.question.trait]) > 3
            queue.answer(store, left.number, reviewer, "high" if many else "low")
    assert run("review", "next", "--reviewer", reviewer)[0] == 1


def test_from_conversations_to_a_version_in_force_and_back(run, tmp_path):
    code, out, err = fill(run, tmp_path)
    assert (code, out) == (0, "60 replies are in review.db\n"), err
    assert run("review", "next", "--reviewer", "Anna")[1].count("demeanor review label") == 1
    label_all(run)
    status = json.loads(run("review", "status", "--json")[1])
    assert status["answers"] == {"anna": 120}
    assert run("review", "status")[1].startswith("60 replies kept, 60 with their text")

    found = json.loads(run("review", "estimate", "--json")[1])
    by_rule = {rule["rule"]: rule for rule in found["rules"]}
    assert by_rule["harmful"]["caught"] == 20
    assert by_rule["harmful"]["missed"]["high"] > 0, "none found is no promise"
    assert "harmful (harm): caught 20" in run("review", "estimate")[1]

    code, out, err = run("review", "adapt", "--trait", "harm", "--output", "adapted", "--false-alarm-rate", "0.1")
    assert code == 0, err
    assert "labels fit" in out
    assert "demeanor review shadow --vectors adapted" in out
    assert (tmp_path / "adapted" / "manifest.json").is_file()
    made = json.loads(run("review", "calibrate", "--trait", "harm", "--output", "calibrated", "--json")[1])
    assert made["kept"] is None
    assert made["after"]["auroc"] == 1

    code, out, err = run("review", "thresholds", "harmful", "--at", "1.0", "--policy", "policy.yaml", "--write-policy", "by-hand.yaml")
    assert code == 0, err
    assert "in force: z +2.00 or higher" in out
    assert "on the unsafe side of z +1.00" in out
    assert yaml.safe_load((tmp_path / "by-hand.yaml").read_text())["version"] == "planted, harmful at z +1.00"

    code, out, err = run("review", "shadow", "--policy", "by-hand.yaml")
    assert code == 0, err
    assert "60 replies, 60 with the same action" in out

    for policy in ("policy.yaml", "by-hand.yaml"):
        assert run("review", "promote", "--policy", policy, "--why", "better", "--who", "root")[0] == 0
    assert "harmful at z +1.00" in run("review", "status")[1]
    code, out, _ = run("review", "rollback", "--why", "worse after all", "--who", "root")
    assert (code, "as before version 2" in out) == (0, True)
    listed = json.loads(run("review", "versions", "--json")[1])
    assert [one["back_from"] for one in listed] == [2, None, None]
    assert "worse after all" in run("review", "versions")[1]


def test_a_policy_that_does_not_fit_the_vectors_is_not_promoted(run, tmp_path):
    fill(run, tmp_path, n=1)
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"version": "1", "rules": [{**RULES[0], "trait": "warmth"}]}))
    code, _, err = run("review", "promote", "--policy", "other.yaml", "--why", "x")
    assert code == 2
    assert "warmth" in err
    assert json.loads(run("review", "versions", "--json")[1]) == []


def test_a_second_filling_adds_nothing_and_a_log_fills_one_without_a_model(run, tmp_path, monkeypatch):
    fill(run, tmp_path, n=6)
    fill(run, tmp_path, n=6)
    assert "6 replies kept" in run("review", "status")[1]
    assert run("monitor", "talks.jsonl", "--policy", "policy.yaml", "--audit", "audit.db", "--output", "decisions.jsonl")[0] == 0
    monkeypatch.setattr(console, "load_scorer", lambda *_, **__: pytest.fail("a model was loaded"))
    code, out, err = run(
        "review", "fill", "talks.jsonl", "--policy", "policy.yaml", "--store", "other.db", "--audit", "audit.db"
    )  # fmt: skip
    assert (code, out) == (0, "6 replies are in the store\n"), err


def test_a_conversation_is_erased_and_the_log_says_so_without_its_id(run, tmp_path):
    fill(run, tmp_path, n=3)
    assert run("erase", "talk-1", "--audit", "audit.jsonl")[:2] == (0, "1 replies erased\n")
    assert run("erase", "talk-1")[0] == 1
    assert "talk-1" not in (tmp_path / "audit.jsonl").read_text()
    assert "erase" in (tmp_path / "audit.jsonl").read_text()
    assert run("audit", "verify", "audit.jsonl")[0] == 0
    assert run("audit", "report", "audit.jsonl")[0] == 0


def test_a_hostile_reply_gives_the_terminal_no_orders(run, tmp_path):
    row = {"id": "x", "messages": [{"role": "user", "content": CALM}, {"role": "assistant", "content": HOSTILE + " long" * 20_000}]}
    (tmp_path / "talks.jsonl").write_text(json.dumps(row) + "\n")
    assert run("review", "fill", "talks.jsonl", "--policy", "policy.yaml", "--share", "1")[0] == 0
    code, out, _ = run("review", "next")
    assert code == 0
    assert not {"\x1b", "\u202e"} & set(out)
    assert "high:" in out
    assert not {"\x1b", "\u202e"} & set(run("review", "thresholds", "harmful", "--at", "1")[1])


def test_a_sheet_goes_out_and_comes_back(run, tmp_path):
    fill(run, tmp_path, n=4)
    code, out, err = run("review", "export", "sheet.csv", "--reviewer", "anna", "-n", "5")
    assert (code, out.split(" ")[0]) == (0, "5"), err
    with open(tmp_path / "sheet.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0] |= {"label": "safe", "rater": "Anna"}
    with open(tmp_path / "sheet.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert run("review", "import", "sheet.csv")[1] == "1 labels taken; 4 rows had none\n"


def test_accounts_from_the_command_line(run, tmp_path):
    code, out, err = run("review", "users", "add", "Anna", "--role", "admin", "--password-stdin", stdin="correct horse battery\n")
    assert (code, out) == (0, "anna (admin) may sign in\n"), err
    assert run("review", "users", "add", "ben", "--password-stdin", stdin="short\n")[0] == 2
    assert "only admin" in run("review", "users", "disable", "anna")[2]
    assert run("review", "users", "add", "ben", "--password-stdin", stdin="correct horse battery\n")[0] == 0
    assert run("review", "users", "role", "ben", "admin")[0] == 0
    assert run("review", "users", "disable", "anna")[0] == 0
    assert run("review", "users", "password", "ben", "--password-stdin", stdin="another long one\n")[0] == 0
    listed = json.loads(run("review", "users", "list", "--json")[1])
    assert listed == [
        {"name": "anna", "role": "admin", "disabled": True},
        {"name": "ben", "role": "admin", "disabled": False},
    ]
    assert run("review", "users", "enable", "anna")[1] == "anna may sign in again\n"


def test_a_backup_and_a_key(run, tmp_path):
    fill(run, tmp_path, n=2)
    assert run("review", "backup", "copy.db")[0] == 0
    assert "2 replies kept" in run("review", "status", "--store", "copy.db")[1]
    assert run("review", "backup", "copy.db")[0] == 2
    key = run("review", "key")[1].strip()
    assert len(key) == 44


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["review", "status"], "there is no review store review.db"),
        (["review", "next", "--store", "mysql://x/y"], "postgresql://"),
        (["review", "fill"], "conversations are needed"),
        (["review", "thresholds", "harmful", "--write-policy", "p.yaml"], "--write-policy needs --at"),
        (["erase", "x"], "there is no review store review.db"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, argv, said):
    code, out, err = run(*argv)
    assert code == 2
    assert said in err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
