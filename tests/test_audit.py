"""The audit log: whole after a kill, a full disk and two writers; any change to it is named; nobody can be read from it."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager

import peewee
import pytest
from filelock import FileLock
from test_decision import DEFAULT, reply, user
from typer.testing import CliRunner

from demeanor.audit.counts import report
from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord, OpenedRecord
from demeanor.audit.verification import verify
from demeanor.cli.audit import app
from demeanor.errors import AuditError
from demeanor.measure.cuts import Action
from demeanor.monitor.decision import Decision
from demeanor.monitor.outcome import decide
from demeanor.monitor.recording import record_of

SUFFIXES = ("db", "jsonl")
both = pytest.mark.parametrize("suffix", SUFFIXES)


def record(conversation="c-1", time="2026-03-01T10:00:00.000+00:00", **changes):
    fields = {
        "conversation_id": conversation,
        "model": "tiny-chat (ffffffff)",
        "vectors": "v1",
        "policy": "1 (00000000)",
        "recommended": "flag",
        "taken": "flag",
        "severity": "yellow",
        "rules": ("low_empathy",),
        "scores": {"empathetic_responsiveness": -1.25},
        "source": "observed",
        "situation": None,
        "referral": False,
        "not_scored": None,
        "latency_ms": {"score": 12.5},
        "text": "my secret words",
        "time": time,
    }
    return AuditRecord(**fields | changes)


def fill(path, n=5, **options):
    with AuditLog(path, **options) as log:
        for i in range(n):
            log.append(record(f"c-{i % 2}", scores={"empathetic_responsiveness": float(i)}))
    return path


def bodies(path):
    """What the file itself holds, read without the code under test."""
    if path.suffix == ".jsonl":
        return [json.loads(line)["record"] for line in path.read_text().splitlines()[1:]]
    connection = sqlite3.connect(path)
    try:
        return [json.loads(body) for (body,) in connection.execute("SELECT body FROM entry WHERE number > 0 ORDER BY number")]
    finally:
        connection.close()


@both
def test_what_is_appended_is_there_and_verifies(tmp_path, suffix):
    path = fill(tmp_path / f"audit.{suffix}")
    found = verify(path)
    assert found.whole
    assert found.records == 5
    assert [b["scores"]["empathetic_responsiveness"] for b in bodies(path)] == [0, 1, 2, 3, 4]
    assert bodies(path)[0]["time"] == "2026-03-01T10:00:00.000+00:00"


@both
def test_a_log_goes_on_where_it_ended(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    heads = [verify(fill(path, 3)).head for _ in range(3)]
    assert verify(path).records == 9
    assert len(set(heads)) == 3
    assert len({b["conversation"] for b in bodies(path)}) == 2  # the salt is kept: the same ids give the same hashes


@both
def test_neither_text_nor_conversation_id_is_in_the_file_unless_asked_for(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    with AuditLog(path) as log:
        log.append(record("alice@example.org"))
    everything = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"alice" not in everything
    assert b"secret" not in everything
    kept = tmp_path / f"kept.{suffix}"
    with AuditLog(kept, keep_text=True) as log:
        log.append(record())
    assert bodies(kept)[0]["text"] == "my secret words"


@both
def test_a_given_salt_is_not_kept_and_another_is_refused(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    salt = b"sixteen letters!"
    fill(path, 1, salt=salt)
    fill(path, 1, salt=salt)
    everything = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert salt not in everything
    assert salt.hex().encode() not in everything
    assert len({b["conversation"] for b in bodies(path)}) == 1
    with pytest.raises(AuditError, match="another salt"):
        AuditLog(path, salt=b"another")
    with pytest.raises(AuditError, match="give the same salt"):
        AuditLog(path)
    other = fill(tmp_path / f"other.{suffix}", 1)
    assert bodies(other)[0]["conversation"] != bodies(path)[0]["conversation"]


def change_lines(path, change):
    lines = path.read_text().splitlines(keepends=True)
    change(lines)
    path.write_text("".join(lines))


def change_table(path, *statements):
    connection = sqlite3.connect(path)
    for statement in ("DROP TRIGGER no_UPDATE", "DROP TRIGGER no_DELETE", *statements):
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("change", "broken", "problem"),
    [
        (lambda x: x.__setitem__(3, x[3].replace('"severity":"yellow"', '"severity":null')), 3, "record 3 was changed"),
        (lambda x: x.pop(2), 2, "record 2 is missing: record 3"),
        (lambda x: x.insert(2, x[1]), 2, "record 2 is missing: record 1"),
        (lambda x: x.__setitem__(slice(2, 4), [x[3], x[2]]), 2, "record 2 is missing"),
        (lambda x: x.__setitem__(4, "gibberish\n"), 4, "record 4 cannot be read"),
        (lambda x: x.__setitem__(0, x[0].replace('"begun":"2', '"begun":"1')), 0, "the header was changed"),
        (lambda x: x.pop(0), 0, "the header is missing"),
    ],
)
def test_the_first_broken_line_is_named(tmp_path, change, broken, problem):
    path = fill(tmp_path / "audit.jsonl")
    change_lines(path, change)
    found = verify(path)
    assert not found.whole
    assert found.broken == broken
    assert found.records == max(broken - 1, 0)
    assert problem in found.problem


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("UPDATE entry SET body = replace(body, 'yellow', 'red') WHERE number = 3", 3),
        ("DELETE FROM entry WHERE number = 2", 2),
        ("UPDATE entry SET hash = 'x' WHERE number = 4", 4),
        ("UPDATE entry SET body = '{}' WHERE number = 0", 0),
        ("DELETE FROM entry", 0),
        ("UPDATE entry SET body = CAST(x'ff' AS TEXT) WHERE number = 3", 3),
    ],
)
def test_the_first_broken_row_is_named(tmp_path, statement, broken):
    path = fill(tmp_path / "audit.db")
    change_table(path, statement)
    found = verify(path)
    assert not found.whole
    assert found.broken == broken


def test_a_damaged_page_breaks_the_chain_where_it_lies(tmp_path):
    path = fill(tmp_path / "audit.db", 60)
    content = bytearray(path.read_bytes())
    at = content.rindex(b'"scores":{"empathetic_responsiveness":40.0}') // 4096 * 4096
    content[at : at + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    found = verify(path)
    assert 0 < found.broken <= 41
    assert f"record {found.broken} cannot be read" in found.problem
    assert report(path)["records"] == found.records == found.broken - 1


def test_records_in_the_write_ahead_log_count_where_the_folder_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "audit.db"
    with AuditLog(path) as log:
        log.append(record())
        monkeypatch.setattr(os, "access", lambda *_: False)
        assert (tmp_path / "audit.db-wal").stat().st_size > 0
        assert (verify(path).whole, verify(path).records) == (True, 1)
    assert verify(path).records == 1  # an archive, without anything beside it


def test_the_table_itself_refuses_changes(tmp_path):
    path = fill(tmp_path / "audit.db")
    connection = sqlite3.connect(path)
    for statement in ("UPDATE entry SET body = '{}'", "DELETE FROM entry WHERE number = 5"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


WRITER = """
import json, sys
from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord, OpenedRecord
assert "torch" not in sys.modules
log, record, n = AuditLog(sys.argv[1]), AuditRecord(**json.loads(sys.argv[2])), int(sys.argv[3])
while n:
    print(log.append(record), flush=True)
    n -= 1
"""


@contextmanager
def writer(path, n):
    """A process that appends `n` records (-1: for ever) and prints the number of each; gone at the end, whatever happens."""
    command = [sys.executable, "-c", WRITER, str(path), json.dumps(record().__dict__), str(n)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@both
def test_killed_while_writing_it_loses_at_most_the_record_in_flight(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    with writer(path, -1) as process:
        acknowledged = [int(process.stdout.readline()) for _ in range(50)][-1]
        process.kill()
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    found = verify(path)
    assert found.whole
    assert acknowledged <= found.records <= acknowledged + 1
    fill(path, 2)
    assert verify(path).whole
    assert verify(path).records == found.records + 2


@pytest.mark.parametrize("cut", [1, 40, 10**6])
def test_a_torn_last_line_is_left_out_and_then_overwritten(tmp_path, cut):
    path = fill(tmp_path / "audit.jsonl")
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: len(whole) - min(cut, len(last) - 1)])
    found = verify(path)
    assert (found.whole, found.torn, found.records) == (True, True, 4)
    fill(path, 1)
    assert verify(path).records == 5
    assert not verify(path).torn


def test_a_log_whose_header_was_torn_begins_again(tmp_path):
    path = fill(tmp_path / "audit.jsonl", 0)
    path.write_bytes(path.read_bytes()[:30])
    fill(path, 2)
    assert verify(path).records == 2


@pytest.mark.slow
@both
def test_two_processes_keep_one_chain(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    with writer(path, 60) as first, writer(path, 60) as second:
        numbers = [int(n) for p in (first, second) for n in p.communicate()[0].split()]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted(numbers) == list(range(1, 121))
    assert verify(path).whole
    assert verify(path).records == 120


def test_a_log_that_another_process_is_just_making_is_waited_for(tmp_path, monkeypatch):
    connect, refused = peewee.SqliteDatabase.connect, []

    def busy(self, *arguments, **options):
        if len(refused) < 3:
            refused.append(True)
            raise peewee.OperationalError("database is locked")
        return connect(self, *arguments, **options)

    monkeypatch.setattr(peewee.SqliteDatabase, "connect", busy)
    with AuditLog(tmp_path / "audit.db") as log:
        assert log.append(record("c-1")) == 1
    assert len(refused) == 3


@both
def test_threads_keep_one_chain(tmp_path, suffix):
    from concurrent.futures import ThreadPoolExecutor

    with AuditLog(tmp_path / f"audit.{suffix}") as log, ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda i: log.append(record(f"c-{i}")), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    assert verify(log.path).records == 40


def test_another_log_in_the_place_of_the_open_one_is_not_taken_for_it(tmp_path, monkeypatch):
    path, other = tmp_path / "audit.db", fill(tmp_path / "other.db", 1)
    monkeypatch.chdir(tmp_path)
    with AuditLog("audit.db") as log:
        log.append(record())
        monkeypatch.chdir("/")
        assert log.append(record()) == 2
        other.replace(path)
        with pytest.raises(AuditError, match=r"audit\.db: the file was moved or deleted .* open it again"):
            log.append(record())


def test_a_connection_is_not_shared_with_a_forked_process(tmp_path, monkeypatch):
    with AuditLog(tmp_path / "audit.db") as log:
        log.append(record())
        parent = os.getpid()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: parent + 1)
            with pytest.raises(AuditError, match="opened before this process was forked; open it in each process"):
                log.append(record())
        assert log.append(record()) == 2


def test_a_lock_that_another_writer_holds_is_tried_often(tmp_path, monkeypatch):
    waited = []
    with AuditLog(tmp_path / "audit.jsonl") as log:
        other = FileLock(f"{log.path}.lock")

        def sleep(seconds):
            waited.append(seconds)
            other.release()

        with other:
            monkeypatch.setattr(time, "sleep", sleep)
            assert log.append(record()) == 1
            monkeypatch.undo()
    assert len(waited) == 1
    assert waited[0] < 0.005


FULL = """
import json, resource, sys
from demeanor.errors import AuditError
from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord, OpenedRecord
log, record = AuditLog(sys.argv[1]), AuditRecord(**json.loads(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
written = 0
try:
    while written < 10_000:
        written = log.append(record)
except AuditError as error:
    print(error)
try:
    log.append(record)
    print("accepted")
except AuditError:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(written, log.append(record))
"""


@both
def test_a_full_disk_is_reported_and_the_log_stays_whole(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    command = [sys.executable, "-c", FULL, str(path), json.dumps(record().__dict__)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    message, again, numbers = done.stdout.splitlines()
    written, after = map(int, numbers.split())
    assert str(path) in message
    assert again == "refused"
    assert 0 < written < 10_000
    assert after == written + 1  # there is room again: it goes on where it ended
    found = verify(path)
    assert found.whole
    assert found.records == written + 1


def test_a_write_that_fails_half_way_leaves_no_half_a_line(tmp_path, monkeypatch):
    path = fill(tmp_path / "audit.jsonl", 2)
    before = path.read_bytes()
    real = os.write
    calls = []

    def short(fd, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(fd, data[:50])

    with AuditLog(path) as log:
        monkeypatch.setattr(os, "write", short)
        with pytest.raises(AuditError, match=r"record 3 could not be written: No space left on device"):
            log.append(record())
        monkeypatch.undo()
    assert calls
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.jsonl", b'{"my": "only copy"}\n', "not an audit log"),
        ("notes.jsonl", b"a line of mine without an end", "not an audit log"),
        ("notes.db", b"a text that is no database, and long enough to be looked into" * 40, "not an audit log, or damaged"),
    ],
)
def test_somebody_else_s_file_is_left_as_it_is(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AuditError, match=message):
        AuditLog(path)
    assert path.read_bytes() == content


def test_another_database_is_left_as_it_is(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (a)")
    connection.commit()
    with pytest.raises(AuditError, match="but not an audit log"):
        AuditLog(path)
    assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["mine"]
    connection.close()


@both
def test_a_log_that_cannot_be_is_refused_with_the_way_out(tmp_path, suffix):
    with pytest.raises(AuditError, match="no such file"):
        verify(tmp_path / f"none.{suffix}")
    with pytest.raises(AuditError, match="make it first"):
        AuditLog(tmp_path / "no" / f"audit.{suffix}")
    with pytest.raises(AuditError, match="is a folder"):
        AuditLog(tmp_path)
    assert list(tmp_path.iterdir()) == []


@both
def test_only_its_owner_can_read_a_log(tmp_path, suffix):
    path = fill(tmp_path / f"audit.{suffix}", 1)
    assert path.stat().st_mode & 0o077 == 0


@both
def test_broken_numbers_are_recorded_as_none(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    with AuditLog(path) as log:
        log.append(record(scores={"boundary_maintenance": float("nan")}, not_scored="not a finite number"))
    assert bodies(path)[0]["scores"] == {"boundary_maintenance": None}
    assert verify(path).whole


def decision(z, risk):
    read = reply(crisis_recognition=z)
    outcome = decide(DEFAULT, read, user(risk))
    return Decision.of(outcome, read, "shown text", "observed", referral=outcome.situation == "risk_disclosed")


def counted(path):
    """A log of two months: a missed crisis, an ordinary reply that an operator flagged, and an unscored one."""
    with AuditLog(path) as log:
        rows: list[tuple[float, float, str, Action | None]]
        rows = [(-3.0, 3.0, "2026-03", None), (-3.0, 3.0, "2026-04", None), (3.0, -3.0, "2026-04", "flag")]
        for z, risk, month, taken in rows:
            made = record_of(decision(z, risk), "alice", "m", "v", "1", taken=taken)
            log.append(AuditRecord(**{**made.__dict__, "time": f"{month}-01T00:00:00.000+00:00"}))
        log.append(record(time="2027-01-01T00:00:00.000+00:00", not_scored="deadline", rules=(), severity="yellow"))
    return path


@both
def test_the_report_counts_by_month_and_names_nobody(tmp_path, suffix):
    path = counted(tmp_path / f"audit.{suffix}")
    found = report(path)
    assert found["chain"] == "whole"
    assert found["years"] == {"2026": {"decisions": 3, "referrals": 2}, "2027": {"decisions": 1, "referrals": 0}}
    assert found["months"]["2026-04"] == {
        "decisions": 2,
        "severity": {"none": 1, "red": 1},
        "action": {"flag": 1, "substitute": 1},
        "rules": {"crisis_missed": 1, "crisis_unsure": 1},
        "referrals": {"risk_disclosed": 1},
        "not_scored": 0,
        "overridden": 1,
        "only_tried": 0,
    }
    assert found["months"]["2027-01"]["not_scored"] == 1
    with AuditLog(path) as log:
        assert log.hashed("alice") not in json.dumps(found)


def test_the_commands_say_whole_or_where_it_broke(tmp_path):
    path = counted(tmp_path / "audit.jsonl")
    runner = CliRunner(env={"COLUMNS": "120", "TERM": "dumb"})
    shown = runner.invoke(app, ["verify", str(path)])
    assert shown.exit_code == 0
    assert verify(path).head in shown.output
    shown = runner.invoke(app, ["report", str(path)])
    assert shown.exit_code == 0
    assert "2026: 3 decisions, 2 referrals" in shown.output
    assert json.loads(runner.invoke(app, ["report", str(path), "--json"]).stdout) == report(path)
    change_lines(path, lambda x: x.__setitem__(2, x[2].replace('"red"', '"yellow"')))
    for command in ("verify", "report"):
        shown = runner.invoke(app, [command, str(path)])
        assert shown.exit_code == 1
        assert "record 2 was changed" in shown.output


@both
def test_a_noted_head_is_found_in_a_log_that_goes_on(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    heads = []
    for n in range(4):
        fill(path, n)
        heads.append(verify(path))
    assert [(found.records, verify(path, found.head).noted_at) for found in heads] == [(0, 0), (1, 1), (3, 3), (6, 6)]
    assert verify(path, heads[1].head.upper() + "\n").noted_at == 1
    assert verify(path).noted_at is None


@both
def test_a_tail_that_was_cut_off_is_noticed_by_the_head_that_was_noted(tmp_path, suffix):
    path = fill(tmp_path / f"audit.{suffix}", 5)
    head = verify(path).head
    drop_last(path, 2)
    fill(path, 4)  # and the log goes on, longer than before
    found = verify(path, head)
    assert (found.whole, found.records, found.noted_at) == (True, 7, None)
    anew = fill(tmp_path / f"anew.{suffix}", 7)
    assert verify(anew, head).noted_at is None


@pytest.mark.parametrize("head", ["", "abc", "z" * 64, "0" * 63])
def test_what_is_no_head_is_refused(tmp_path, head):
    with pytest.raises(AuditError, match="is not the head of a log; give the 64 hexadecimal digits"):
        verify(fill(tmp_path / "audit.db"), head)


def drop_last(path, n):
    """Cut off the last records of a log, as somebody may who can write to it."""
    if path.suffix == ".jsonl":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-n]))
        return
    connection = sqlite3.connect(path)
    (table,) = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'") if name != "sqlite_sequence"]
    for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY rowid DESC LIMIT {n})")
    connection.commit()
    connection.close()


@both
def test_the_command_exits_with_1_where_a_noted_head_or_records_are_missing(tmp_path, suffix):
    path = fill(tmp_path / f"audit.{suffix}", 5)
    head = verify(path).head
    fill(path, 2)
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})

    def shown(*options):
        found = runner.invoke(app, ["verify", str(path), *options])
        return found.exit_code, " ".join(found.output.split())

    code, said = shown("--head", head, "--at-least", "7")
    assert code == 0
    assert "the log contains the head given, at record 5; 2 records were added since" in said
    code, said = shown("--at-least", "8")
    assert code == 1
    assert "it has 7 records, fewer than the 8 expected" in said
    code, said = shown("--head", "0" * 64)
    assert code == 1
    assert "the log does not contain the head given: records have been removed" in said


def test_a_trial_run_counts_no_replacement_that_did_not_happen(tmp_path):
    read = reply(crisis_recognition=-3.0)
    outcome = decide(DEFAULT, read, user(3.0))
    tried = Decision.of(outcome, read, "the reply itself", "observed", instead="the reviewed reply")
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        for taken in (None, "flag", "substitute"):
            log.append(record_of(tried, "alice", "m", "v", "1", taken=taken))
        log.append(record_of(decision(-3.0, 3.0), "alice", "m", "v", "1"))
    (month,) = report(path)["months"].values()
    assert (month["action"], month["only_tried"], month["overridden"]) == ({"flag": 3, "substitute": 1}, 3, 0)
    assert (month["severity"], month["referrals"]) == ({"red": 4}, {"risk_disclosed": 1})
    shown = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["report", str(path)])
    assert "3 replies that the policy would have replaced were shown in a trial run" in " ".join(shown.output.split())


def test_several_logs_are_verified_at_once(tmp_path):
    paths = [fill(tmp_path / name, 2) for name in ("one.db", "two.jsonl")]
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    shown = runner.invoke(app, ["verify", *map(str, paths)])
    assert shown.exit_code == 0
    assert shown.output.count("intact: 2 records") == 2
    assert str(paths[1]) in shown.output
    assert isinstance(runner.invoke(app, ["verify", *map(str, paths), "--head", "0" * 64]).exception, AuditError)
    change_lines(paths[1], lambda x: x.__setitem__(1, x[1].replace('"yellow"', '"red"')))
    shown = runner.invoke(app, ["verify", *map(str, paths)])
    assert shown.exit_code == 1
    assert "intact: 2 records" in shown.output
    assert "was changed" in shown.output


@both
def test_a_reply_that_was_opened_and_not_decided_reads_as_interrupted(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    with AuditLog(path) as log:
        for name in ("d1", "d2"):
            log.append(OpenedRecord("c-1", name))
        log.append(record(decision="d1"))
    assert verify(path).records == 3
    assert report(path)["interrupted"] == 1
    assert report(path)["years"] == {"2026": {"decisions": 1, "referrals": 0}}
    assert "1 replies began" in CliRunner().invoke(app, ["report", str(path)]).output
