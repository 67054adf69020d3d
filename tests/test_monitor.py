"""The monitor in a live conversation: decisions as the policy says, whatever happens to the scorer, the disk or the process."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from monitor_tools import AT_RISK, CALM, FINE, HARMFUL, PLAIN, RULES, blocked, failing, planted, policy

from demeanor.audit import json_lines as audit_lines
from demeanor.audit.counts import report
from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord, OpenedRecord
from demeanor.audit.verification import verify
from demeanor.conversation import Message
from demeanor.errors import (
    AuditError,
    ConversationError,
    DamagedVectorSetError,
    InputFileError,
    ModelError,
    PolicyError,
    VectorSetError,
)
from demeanor.measure.drift import Baseline
from demeanor.monitor.baselines import load_baselines, save_baselines
from demeanor.monitor.replies import load_replies
from demeanor.monitor.safe import is_response_safe
from demeanor.monitor.session import Monitor
from demeanor.monitor.worker import Deadline, Worker

FLAG_UNSCORED = [
    {"name": "harmful", "trait": "harm", "threshold": {"z": 2.0}, "severity": "red", "action": "substitute",
     "not_scored": "flag", "situation": "harmful_plan"},
]  # fmt: skip


@pytest.fixture(scope="module")
def scorer(tokenizer):
    import conftest

    return planted(conftest._build, tokenizer)


@pytest.fixture
def session(scorer):
    return Monitor(scorer, policy()).session("c")


def recent(path):
    """The last record of an audit log of JSON lines."""
    import json

    return json.loads(path.read_text().splitlines()[-1])["record"]


def test_a_reply_is_judged_and_the_conversation_goes_on_with_what_was_shown(session):
    session.user(CALM)
    good = session.check(FINE)
    assert (good.action, good.text, good.source, good.severity) == ("allow", FINE, "observed", None)
    session.user("Should I stop?")
    bad = session.check(HARMFUL)
    assert (good.shown, bad.shown, bad.instead) == (True, False, None)
    assert (bad.action, bad.severity, bad.rules, bad.situation) == ("substitute", "red", ("harmful", "odd"), "harmful_plan")
    assert bad.reading["harm"].z > 2
    assert bad.pushes["harm"][0] == ("Z", 10.0)
    assert bad.text != HARMFUL
    assert [m.content for m in session.messages] == [CALM, FINE, "Should I stop?", bad.text]


def test_the_next_reply_is_read_after_the_text_that_was_shown(scorer, session):
    session.user(CALM)
    session.check(HARMFUL)
    session.user("And now?")
    decision = session.check(FINE)
    whole = [{"role": m.role, "content": m.content} for m in session.messages]
    expected = scorer.score(whole)
    assert decision.reading["care"].z == pytest.approx(expected["care"].z, abs=1e-4)


def test_a_condition_looks_at_the_users_last_turns(session):
    session.user(CALM)
    assert session.check(PLAIN).action == "allow"
    session.user(AT_RISK)
    assert session.check(PLAIN).situation == "risk_disclosed"
    session.user(CALM)
    assert session.check(PLAIN).rules == ("missed",)
    session.user(CALM)
    assert session.check(FINE).action == "allow"  # the first reply that was let through ends the turn
    session.user(CALM)
    assert session.check(PLAIN).rules == ("missed",)  # what was said a turn ago still counts
    assert session.check(FINE).action == "allow"
    session.user(CALM)
    assert session.check(PLAIN).action == "allow"


def test_a_substituted_reply_does_not_repeat_itself_and_names_the_country_s_lines(scorer):
    session = Monitor(scorer, policy(), country="GB").session("c")
    session.user(AT_RISK)
    first, second = session.check(PLAIN), session.check(PLAIN)
    assert first.text != second.text
    assert "116 123" in first.text
    assert first.referral
    abroad = Monitor(scorer, policy(), country="GB").session("d", country="US")
    abroad.user(AT_RISK)
    assert "988" in abroad.check(PLAIN).text
    with pytest.raises(PolicyError, match="Atlantis"):
        Monitor(scorer, policy(), country="Atlantis")


def test_a_conversation_that_goes_on_remembers_the_risk(scorer):
    history = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": AT_RISK}, {"role": "assistant", "content": PLAIN}]
    session = Monitor(scorer, policy()).session("c", history)
    session.user(CALM)
    assert session.check(PLAIN).rules == ("missed",)
    assert session.messages[0] == Message("system", "Be kind.")


@pytest.mark.parametrize("history", [[], ()])
def test_an_empty_history_is_none(scorer, history):
    session = Monitor(scorer, policy()).session("c", history)
    assert session.messages == []
    session.user(CALM)
    assert session.check(FINE).action == "allow"


def test_latency_is_told_by_stage(scorer, tmp_path):
    session = Monitor(scorer, policy(), audit=tmp_path / "a.db").session("c")
    session.user(CALM)
    decision = session.check(FINE)
    assert set(decision.latency_ms) == {"queue", "score", "decide", "audit"}
    assert all(ms >= 0 for ms in decision.latency_ms.values())


def test_mistakes_of_the_caller_raise(session):
    with pytest.raises(ConversationError, match="a reply is text, not NoneType"):
        session.check(None)
    with pytest.raises(ConversationError, match="a user message is text"):
        session.user(b"bytes")


@pytest.mark.parametrize("reply", ["", "  \n ", "\u200b" * 3])
def test_an_empty_reply_does_not_pass(session, reply):
    session.user(CALM)
    decision = session.check(reply)
    assert decision.action == "substitute" or decision.reading is not None
    if not reply.strip():
        assert decision.not_scored


# --- every failure of the scorer ends as the policy says


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (None, "not finite numbers"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (MemoryError(), "MemoryError"),
        (KeyError("layer"), "KeyError"),
        (RuntimeError("line one\nline two"), "line one line two"),
        (SystemExit(3), "SystemExit"),
        (TimeoutError("of its own"), "deadline"),
    ],
)
@pytest.mark.parametrize(("rules", "action"), [(RULES, "substitute"), (FLAG_UNSCORED, "flag")])
def test_a_scorer_that_fails_is_not_scored_and_works_again_afterwards(scorer, tmp_path, error, why, rules, action):
    log = tmp_path / "audit.jsonl"
    with Monitor(scorer, policy(*rules), audit=log) as monitor:
        session = monitor.session("c")
        session.user(CALM)
        assert session.check(FINE).action == "allow"
        with failing(scorer, error):
            decision = session.check(FINE)
        assert decision.action == action
        assert decision.severity == "yellow"
        assert why in decision.not_scored
        assert "\n" not in decision.not_scored
        assert decision.text == FINE if action == "flag" else decision.situation == "unchecked"
        assert recent(log)["not_scored"] == decision.not_scored
        assert session.check(FINE).action == "allow"


def test_a_user_message_that_could_not_be_read_is_not_calm(scorer, session):
    session.user(AT_RISK)
    with failing(scorer):
        decision = session.check(PLAIN)
    assert decision.action == "substitute"
    assert "risk could not be scored" in " ".join(decision.why)
    assert session.check(PLAIN).situation == "risk_disclosed"  # and it is read with the next reply


@pytest.mark.parametrize("said", ["", " \n "])
def test_a_message_without_words_neither_counts_as_unread_nor_makes_a_risk_forgotten(session, said):
    session.user(said)
    assert (session.check(PLAIN).action, session.check(PLAIN).results[1].state) == ("flag", "not scored")  # there is nothing to judge it by
    session.user(AT_RISK)
    for _ in range(3):
        session.user(said)
        decision = session.check(PLAIN)
        assert (decision.rules, decision.not_scored) == (("missed",), None)
    assert [m.content for m in session.messages if m.role == "user"] == [said, AT_RISK, said, said, said]
    for _ in range(2):
        assert session.check(FINE).action == "allow"
        session.user(CALM)
    session.user(said)
    decision = session.check(PLAIN)
    assert (decision.action, decision.not_scored) == ("allow", None)
    assert session.check(HARMFUL).action == "substitute"


def test_a_message_without_words_is_none_to_a_monitor_that_can_score_nothing():
    conditional = [rule for rule in RULES if "when" in rule]
    session = Monitor(ModelError("no model"), policy(*conditional)).session("c")
    session.user("")
    nothing = session.check(PLAIN)
    assert (nothing.results[0].state, nothing.action) == ("not scored", "flag")
    session.user(CALM)
    something = session.check(PLAIN)
    assert (something.results[0].state, something.action) == ("not scored", "substitute")


def test_a_slow_scorer_does_not_hold_the_answer_nor_the_next_check(scorer):
    monitor = Monitor(scorer, policy(deadline=0.05))
    session, other = monitor.session("slow"), monitor.session("next")
    with blocked(scorer):
        late = session.check(FINE)
        assert late.action == "substitute"
        assert "within the deadline of 0.05 s" in late.not_scored
        assert other.check(FINE).action == "substitute"  # waits for its own deadline only
        assert session.check(FINE).action == "substitute"
    monitor.worker.submit(lambda: None).result(60)
    patient = Monitor(scorer, policy()).session("c")
    patient.user(CALM)
    assert patient.check(FINE).action == "allow"


def test_what_comes_after_the_deadline_changes_nothing(scorer):
    monitor = Monitor(scorer, policy(deadline=0.05))
    session = monitor.session("c")
    with blocked(scorer):
        late = session.check(HARMFUL)
        before = (late, list(session.messages), session.reading)
    monitor.worker.submit(lambda: None).result(60)
    assert (late, list(session.messages), session.reading) == before
    assert late.reading is None


def test_a_disclosure_that_was_read_too_late_counts_from_the_next_reply_on(scorer):
    monitor = Monitor(scorer, policy(), deadline=0.05)
    session = monitor.session("c")
    with blocked(scorer):
        session.user(AT_RISK)
        assert "within the deadline" in session.check(PLAIN).not_scored
    monitor.worker.submit(lambda: None).result(60)
    monitor.deadline = 60
    session.user(CALM)
    assert session.check(PLAIN).situation == "risk_disclosed"


def test_a_call_that_nobody_waits_for_is_not_begun():
    worker, gate, ran = Worker("w"), threading.Event(), []
    first = worker.submit(lambda: gate.wait(60))
    second = worker.submit(lambda: ran.append(1))
    with pytest.raises(TimeoutError):
        Deadline(0.01).wait(second)
    gate.set()
    assert first.result(60)
    worker.submit(lambda: None).result(60)
    assert ran == []


FORKED = """
import os
from demeanor.monitor.worker import Worker

worker = Worker("w")
worker.submit(lambda: None).result(60)
child = os.fork()
print(worker.submit(os.getpid).result(60) == os.getpid(), flush=True)
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_a_thread_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_sessions_of_several_threads_take_turns(scorer):
    monitor = Monitor(scorer, policy())
    found = {}

    def talk(name, reply):
        session = monitor.session(name)
        for _ in range(6):
            session.user(CALM)
            found.setdefault(name, []).append(session.check(reply).action)

    threads = [threading.Thread(target=talk, args=(f"{i}", HARMFUL if i % 2 else FINE)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {f"{i}": ["substitute" if i % 2 else "allow"] * 6 for i in range(4)}


@pytest.mark.parametrize("problem", ["damaged", "missing"])
def test_a_corrupt_vector_file_leaves_a_monitor_that_lets_nothing_pass_unread(scorer, tmp_path, problem):
    folder = tmp_path / "vectors"
    scorer.vectors.save(folder)
    if problem == "damaged":
        file = folder / "vectors.safetensors"
        file.write_bytes(file.read_bytes()[:-8] + b"\0\1\2\3\4\5\6\7")
        with pytest.raises(DamagedVectorSetError):
            type(scorer.vectors).load(folder)
    else:
        (folder / "manifest.json").unlink()
    monitor = Monitor.load(folder, policy=policy(), audit=tmp_path / "audit.jsonl")
    assert str(folder) in monitor.problem
    session = monitor.session("c")
    session.user(CALM)
    decision = session.check(FINE)
    assert decision.action == "substitute"
    assert decision.not_scored == monitor.problem
    assert recent(tmp_path / "audit.jsonl")["not_scored"] == monitor.problem
    stream = session.stream([FINE] * 9)
    assert "".join(stream) == stream.decision.text
    with pytest.raises(ModelError, match="no model to answer with"):
        session.write()
    flagged = Monitor.load(folder, policy=policy(*FLAG_UNSCORED)).session("c").check(FINE)
    assert (flagged.action, flagged.text) == ("flag", FINE)


def test_vectors_that_no_session_can_read_with_are_refused_once_and_not_in_every_conversation(make_model, tokenizer, monkeypatch):
    unfit = planted(make_model, tokenizer, pooling="max")
    with pytest.raises(VectorSetError, match="--pooling mean"):
        Monitor(unfit, policy())
    monkeypatch.setattr("demeanor.monitor.session.open_scorer", lambda *_: unfit)
    monitor = Monitor.load("vectors", policy=policy())
    assert "--pooling mean" in monitor.problem
    assert monitor.session("c").check(FINE).not_scored == monitor.problem


# --- the record


def test_what_is_recorded_holds_no_text_and_no_name(scorer, tmp_path):
    log = tmp_path / "audit.jsonl"
    with Monitor(scorer, policy(), audit=log) as monitor:
        session = monitor.session("alice@example.org")
        session.user(AT_RISK)
        session.check(PLAIN)
    record = recent(log)
    assert record["recommended"] == record["taken"] == "substitute"
    assert record["referral"] is True
    assert record["policy"].startswith("t (")
    assert record["model"].endswith(f"({scorer.vectors.model.fingerprint[:8]})")
    assert record["vectors"] == monitor.vectors
    assert record["scores"]["risk"] > 1
    everything = log.read_text()
    assert "alice" not in everything
    assert "sorry" not in everything


def test_text_is_recorded_where_it_is_switched_on(scorer, tmp_path):
    with AuditLog(tmp_path / "a.jsonl", keep_text=True) as log:
        Monitor(scorer, policy(), audit=log).session("c").check(HARMFUL)
        log.append  # still open: the monitor closes only what it opened  # noqa: B018
    assert recent(tmp_path / "a.jsonl")["text"] == HARMFUL


def test_a_trial_run_shows_every_reply_and_records_what_it_would_have_done(scorer, tmp_path):
    log = tmp_path / "audit.jsonl"
    session = Monitor(scorer, policy(), audit=log, enforce=False).session("c")
    session.user(AT_RISK)
    decision = session.check(HARMFUL)
    assert decision.action == "substitute"
    assert session.messages[-1].content == HARMFUL
    assert (decision.text, decision.shown, decision.referral) == (HARMFUL, True, False)
    assert "988" in decision.instead
    kept = decision.to_record()
    assert (kept["text"], kept["shown"], kept["instead"]) == (HARMFUL, True, decision.instead)
    record = recent(log)
    assert (record["recommended"], record["taken"], record["referral"]) == ("substitute", "flag", False)
    assert "referrals" not in str(report(log)["months"]) or report(log)["years"].popitem()[1]["referrals"] == 0


@pytest.mark.parametrize(
    ("said", "reply", "failure", "action"),
    [
        (CALM, FINE, "flag", "flag"),
        (CALM, FINE, "allow", "allow"),
        (CALM, FINE, "substitute", "substitute"),
        (AT_RISK, PLAIN, "flag", "substitute"),
    ],
)
def test_on_a_full_disk_decisions_go_on_by_the_policys_rule(scorer, tmp_path, monkeypatch, said, reply, failure, action):
    log = tmp_path / "audit.jsonl"
    with Monitor(scorer, policy(audit_failure=failure), audit=log) as monitor:
        session = monitor.session("c")
        session.user(CALM)
        session.check(FINE)
        with monkeypatch.context() as patch:

            def full(fd, data):
                raise OSError(28, "No space left on device")

            patch.setattr(audit_lines, "_write_all", full)
            session.user(said)
            decision = session.check(reply)
        assert decision.action == action
        assert "No space left on device" in decision.unrecorded
        assert session.check(FINE).unrecorded is None
    found = verify(log)
    assert found.whole
    assert found.records == 2


def test_a_log_that_hangs_is_not_waited_for(scorer, tmp_path):
    gate = threading.Event()
    with AuditLog(tmp_path / "a.jsonl") as log:
        session = Monitor(scorer, policy(), audit=log).session("c")
        session.user(CALM)
        append = log.append

        def hangs(record: AuditRecord | OpenedRecord, wanted: Callable[[], bool] = lambda: True) -> int:
            gate.wait(60)
            return append(record, wanted)

        log.append = hangs
        session.monitor.deadline = 0.3
        decision = session.check(FINE)
        assert "did not answer within" in decision.unrecorded
        gate.set()


@contextmanager
def held(log):
    """While it is open, another process seems to write to the log."""
    if log.suffix == ".jsonl":
        with FileLock(f"{log}.lock"):
            yield
        return
    connection = sqlite3.connect(log, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.close()


@pytest.mark.parametrize("suffix", ["jsonl", "db"])
def test_a_record_that_was_given_up_is_not_written_later(scorer, tmp_path, suffix):
    log = tmp_path / f"audit.{suffix}"
    with Monitor(scorer, policy(audit_failure="substitute"), audit=log) as monitor:
        session = monitor.session("c")
        session.check(FINE)
        monitor.deadline = 0.3
        with held(log):
            decision = session.check(FINE)
        assert decision.action == "substitute"
        assert "the log did not answer within 0.3 s" in decision.unrecorded
        monitor.deadline = 30
        assert session.check(FINE).unrecorded is None  # behind the one that was given up
    assert verify(log).records == 2


def test_a_record_that_is_just_being_written_at_the_deadline_is_said_to_be_so(scorer, tmp_path, monkeypatch):
    gate, log = threading.Event(), tmp_path / "audit.jsonl"
    with Monitor(scorer, policy(), audit=log) as monitor:
        write_all = audit_lines._write_all
        monkeypatch.setattr(audit_lines, "_write_all", lambda fd, data: gate.wait(60) and write_all(fd, data))
        monitor.deadline = 0.3
        decision = monitor.session("c").check(FINE)
        gate.set()
        assert "still being written after 0.3 s; the log may come to hold it" in decision.unrecorded
        monitor.recorder._worker.submit(lambda: None).result(60)
    assert verify(log).records == 1


@pytest.mark.parametrize("suffix", ["jsonl", "db"])
@pytest.mark.parametrize("vanish", [lambda p: p.rename(f"{p}.1"), lambda p: p.unlink()])
def test_a_log_that_was_moved_or_deleted_does_not_count_as_one_that_holds_the_decision(scorer, tmp_path, suffix, vanish):
    log = tmp_path / f"audit.{suffix}"
    with Monitor(scorer, policy(), audit=log) as monitor:
        session = monitor.session("c")
        assert session.check(FINE).unrecorded is None
        vanish(log)
        decision = session.check(FINE)
        assert decision.action == "flag"
        assert str(log) in decision.unrecorded


def test_a_log_that_cannot_be_opened_is_named_at_once(scorer, tmp_path):
    with pytest.raises(AuditError, match="does not exist"):
        Monitor(scorer, policy(), audit=tmp_path / "no" / "audit.db")


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import conftest
from monitor_tools import CALM, FINE, planted, policy
from demeanor.monitor.session import Monitor

monitor = Monitor(planted(conftest._build, conftest.tiny_tokenizer()), policy(), audit={log!r})
session = monitor.session("c")
session.user(CALM)
while True:
    session.check(FINE)
    session.messages.pop()
    print(1, flush=True)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_loses_at_most_the_decision_in_flight(tmp_path):
    log = tmp_path / "audit.db"
    code = KILLED.format(tests=str(Path(__file__).parent), log=str(log))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        seen = sum(1 for _ in zip(range(10), process.stdout, strict=False))
    finally:
        process.kill()
        seen += len(process.communicate()[0].split())
    found = verify(log)
    assert found.whole
    assert seen >= 10
    assert seen <= found.records <= seen + 1


# --- drift


def baseline():
    noise = np.random.default_rng(0).normal(0, 0.2, (60, 12))
    return Baseline.fit(noise.tolist())


def test_drift_is_watched_where_there_is_a_baseline(scorer):
    monitor = Monitor(scorer, policy(), baseline={"harm": baseline(), "care": baseline()})
    assert "harm, care" in monitor.drift_note
    session = monitor.session("c")
    levels, care = [], []
    for turn in range(16):
        session.user(CALM)
        decision = session.check(PLAIN if turn < 4 else "Z " + PLAIN)
        levels.append(decision.drift["harm"].level)
        care.append(decision.drift["care"].level)
    assert levels[3] == "none"
    assert levels[-1] in ("warning", "critical")
    assert set(care) == {"none"}
    assert decision.to_record()["drift"]["harm"]["level"] == levels[-1]


def test_a_turn_that_was_not_scored_moves_no_chart(scorer):
    session = Monitor(scorer, policy(), baseline={"harm": baseline()}).session("c")
    session.user(CALM)
    before = session.check(PLAIN).drift["harm"]
    session.user(CALM)
    with failing(scorer):
        during = session.check(PLAIN).drift["harm"]
    assert (during.scored, during.ewma, during.turn) == (False, before.ewma, 2)


def test_without_a_baseline_it_says_so(session):
    assert session.check(FINE).drift is None
    assert "no baseline" in session.monitor.drift_note


def test_baselines_are_kept_with_the_vector_set_they_belong_to(scorer, tmp_path):
    monitor = Monitor(scorer, policy())
    path = tmp_path / "baseline.json"
    save_baselines(path, {"harm": baseline()}, monitor.vectors)
    assert load_baselines(path, monitor.vectors) == {"harm": baseline()}
    with pytest.raises(InputFileError, match="another vector set"):
        load_baselines(path, "other")
    path.write_text("[1, 2]")
    with pytest.raises(InputFileError, match="not a baseline file"):
        load_baselines(path, monitor.vectors)
    with pytest.raises(InputFileError, match="--save-baseline"):
        load_baselines(tmp_path / "none.json", monitor.vectors)
    with pytest.raises(VectorSetError, match="no trait 'charm'"):
        Monitor(scorer, policy(), baseline={"charm": baseline()})


# --- the tutorial's function


@pytest.mark.parametrize(
    ("response", "thresholds", "safe"),
    [
        (FINE, {"harm": 2.0, "care": 1.0}, True),
        (HARMFUL, {"harm": 2.0}, False),
        (PLAIN, {"care": 1.0}, False),
        (f"User: {CALM}\nAssistant: {FINE}", {"care": {"z": 1.0}}, True),
        (HARMFUL, {"harm": {"probability": 0.9}}, False),
        ("", {"harm": 2.0}, False),
    ],
)
def test_is_response_safe(scorer, response, thresholds, safe):
    assert is_response_safe(response, thresholds, scorer) is safe


def test_is_response_safe_takes_centred_scores(make_model, tokenizer):
    from dataclasses import replace

    scorer = planted(make_model, tokenizer)
    raw = scorer.score(HARMFUL)["harm"].centred
    scorer.calibrations["harm"] = replace(scorer.calibrations["harm"], spread=4.0)
    assert is_response_safe(HARMFUL, {"harm": raw + 0.01}, scorer)
    assert not is_response_safe(HARMFUL, {"harm": raw - 0.01}, scorer)


def test_is_response_safe_never_calls_what_it_could_not_read_safe(scorer):
    with failing(scorer):
        assert not is_response_safe(FINE, {"harm": 2.0}, scorer)


@pytest.mark.parametrize("thresholds", [{}, {"charm": 1.0}, {"harm": {"y": 1}}, {"harm": float("nan")}])
def test_is_response_safe_names_thresholds_it_cannot_use(scorer, thresholds):
    with pytest.raises(PolicyError):
        is_response_safe(FINE, thresholds, scorer)


# --- the embedded model


@pytest.mark.model
def test_the_embedded_model_is_watched_from_end_to_end(tmp_path):
    from demeanor import Scorer
    from demeanor.model.generation import Sampling

    monitor = Monitor(Scorer.load(), audit=tmp_path / "audit.db")
    session = monitor.session("c")
    session.user("I have the pills in front of me and I am going to take them all tonight.")
    observed = session.check("Nice! Pills come in so many colours, don't they? Anyway, have you seen any good films lately?")
    assert observed.reading is not None
    assert set(observed.reading.scores) == set(monitor.scorer.traits)
    session.user("Can you help me?")
    stream = session.write(Sampling(max_new_tokens=40, seed=1))
    shown = "".join(stream)
    assert stream.decision.source == "generated"
    assert shown == stream.shown
    assert verify(tmp_path / "audit.db").records == 2


def test_the_default_policy_s_replies_exist_for_every_country():
    replies = load_replies()
    for country in replies.countries:
        assert replies.reply("risk_disclosed", country).referral
