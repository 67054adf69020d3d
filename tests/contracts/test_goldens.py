"""Files that were written before are read as they were, what is written now has the same shape, and every --help says the same.

goldens/README.md says which files are kept for ever and which are renewed, and how.
"""

import importlib.metadata
import itertools
import json
import math
import shutil
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import screening_tools
from contracts_tools import (
    ACTIONS,
    BUILT_IN,
    GOLDENS,
    AuditLog,
    AuditRecord,
    LocalEngine,
    Options,
    Parts,
    commands,
    decide,
    equals_golden,
    how_to_renew,
    load_policy,
    manifest_of,
    masked,
    numbers_of,
    renewing,
    screen,
    without_colour,
)
from monitor_tools import AT_RISK, CALM, FINE, HARMFUL, PLAIN, failing, planted, policy

from demeanor import ActivationReader, Monitor, Scorer, VectorSet
from demeanor.traits.contexts import ENDINGS

OLD = GOLDENS / "old"
LOGS = ("jsonl", "db")
DIFFERS = ("latency_ms",)  # from run to run


@pytest.fixture
def old(tmp_path):
    """A copy of the files as they were written, that may be written to."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


@pytest.fixture(scope="module")
def scorer(tokenizer, make_model):
    made = planted(make_model, tokenizer)
    harm = made.vectors["harm"]
    measured = replace(harm.calibration, parts=Parts(mean=0.0, spread=1.0, whole_mean=0.0, whole_spread=0.5, n=40))
    vectors = replace(made.vectors, traits=made.vectors.traits | {"harm": replace(harm, calibration=measured)})
    return Scorer(ActivationReader(made.reader.model, made.reader.tokenizer), vectors)


def test_an_old_vector_set_gives_the_numbers_that_it_gave():
    equals_golden("vectors.json", numbers_of(VectorSet.load(OLD / "vectors")))


@pytest.mark.parametrize("name", ["manifest.json", "calibration.json", "summary.json", "README.md"])
def test_a_vector_set_is_written_as_it_was(tmp_path, name):
    folder = VectorSet.load(OLD / "vectors").save(tmp_path / "set")
    equals_golden(f"vectors/{name}", (folder / name).read_text())


def test_a_vector_set_s_tensors_are_written_as_they_were(tmp_path):
    folder = VectorSet.load(OLD / "vectors").save(tmp_path / "set")
    before, after = (safetensors.torch.load_file(place / "vectors.safetensors") for place in (OLD / "vectors", folder))
    assert {name: t.tolist() for name, t in after.items()} == {name: t.tolist() for name, t in before.items()}


@pytest.mark.parametrize("suffix", LOGS)
def test_an_old_audit_log_is_whole_counted_and_goes_on(command, old, suffix):
    path = old / f"audit.{suffix}"
    verified, counted = command("audit", "verify", path), command("audit", "report", path, "--json")
    assert (verified.returncode, counted.returncode) == (0, 0), verified.stderr + counted.stderr
    equals_golden(f"audit/report-{suffix}.json", counted.stdout)
    equals_golden(f"audit/verified-{suffix}.txt", without_colour(verified.stdout).replace(str(path), f"audit.{suffix}"))
    first = stored(path)[1]["conversation"]
    with AuditLog(path) as log:
        log.append(AuditRecord(**RECORD))
    assert command("audit", "verify", path).returncode == 0
    assert stored(path)[-1]["conversation"] == first  # by the old log's own salt


RECORD: dict[str, Any] = {
    "conversation_id": "c-1", "model": "tiny-chat (ffffffff)", "vectors": "v1", "policy": "1 (00000000)", "recommended": "substitute",
    "taken": "flag", "severity": "red", "rules": ("cold",), "scores": {"warmth": -1.23456, "candour": float("nan")}, "source": "observed",
    "situation": "risk_disclosed", "referral": True, "not_scored": None, "latency_ms": {"score": 1.23456}, "text": "kept where asked",
    "time": "2026-01-31T00:00:00.000+00:00", "trial": True,
}  # fmt: skip


def stored(path):
    """The header and the records of a log, read without the code under test."""
    if path.suffix == ".jsonl":
        return [json.loads(line)["record"] for line in path.read_text().splitlines()]
    connection = sqlite3.connect(path)
    try:
        return [json.loads(body) for (body,) in connection.execute("SELECT body FROM entry ORDER BY number")]
    finally:
        connection.close()


@pytest.mark.parametrize("suffix", LOGS)
def test_an_audit_log_is_written_as_it_was(tmp_path, suffix):
    path = tmp_path / f"audit.{suffix}"
    with AuditLog(path, keep_text=True, salt=b"a salt of the operator's own") as log:
        log.append(AuditRecord(**RECORD))
    equals_golden(f"audit/written-{suffix}.json", masked(stored(path), "begun"))


def test_an_audit_database_has_the_table_and_the_guards_that_it_had(tmp_path):
    path = tmp_path / "audit.db"
    AuditLog(path).close()
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name").fetchall()
    connection.close()
    equals_golden("audit/schema.sql", "".join(f"{sql};\n" for (sql,) in rows))


def test_an_old_screening_is_read(old):
    equals_golden("screening/read.json", manifest_of(old / "screening"))


@pytest.fixture(scope="module")
def screened(tokenizer, make_model, tmp_path_factory):
    """The rows of the old screening, screened today."""
    folder = tmp_path_factory.mktemp("screened")
    shutil.copy(OLD / "rows.jsonl", folder)
    model = make_model("llama")
    vectors = screening_tools.vectors_for(model, tokenizer)
    scorer = Scorer(ActivationReader(model, tokenizer), vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda _name: "1.0")
        options = Options(threads=1, thresholds=["warmth=50"])
        screen(folder / "rows.jsonl", folder / "screening", vectors, LocalEngine(lambda: scorer), options)
    return folder / "screening"


def test_a_screening_s_manifest_is_written_as_it_was(screened):
    found = json.loads((screened / "manifest.json").read_text())
    equals_golden("screening/manifest.json", masked(found, "checksum", "fingerprint", "vectors", "template_hash", "device"))


def test_a_screening_s_columns_are_what_they_were(screened):
    new, old = (pq.read_schema(folder / "scored" / "part-00000.parquet") for folder in (screened, OLD / "screening"))
    assert new.equals(old)
    equals_golden("screening/schema.txt", without_colour(new.to_string(show_field_metadata=True, show_schema_metadata=True)))


def test_a_screening_s_rows_and_flags_have_the_scores_that_they_had(screened):
    new, old = (pq.read_table(folder / "scored").to_pylist() for folder in (screened, OLD / "screening"))
    for now, before in zip(new, old, strict=True):
        numbers = {name for name, value in before.items() if isinstance(value, float)}
        assert {name: now[name] for name in numbers} == pytest.approx({name: before[name] for name in numbers}, abs=1e-3)
        assert {n: v for n, v in now.items() if n not in numbers} == {n: v for n, v in before.items() if n not in numbers}
    flagged, before = (
        [json.loads(line) for line in (folder / "flagged.jsonl").read_text().splitlines()] for folder in (screened, OLD / "screening")
    )
    assert [(row["id"], row.keys(), [*row["traits"]]) for row in flagged] == [(row["id"], row.keys(), [*row["traits"]]) for row in before]
    summary, was = (shape(json.loads((folder / "summary.json").read_text())) for folder in (screened, OLD / "screening"))
    assert summary == was


def shape(value):
    """Which fields there are, and what kind each is."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return type(value).__name__


READ = {
    "plain": [("user", CALM), ("assistant", PLAIN)],
    "no user": [("assistant", FINE)],
    "worst part": [("user", CALM), ("assistant", PLAIN * 12 + "Z" * 16 + PLAIN * 4)],
    "set apart": [("user", AT_RISK), ("assistant", f"<think>{HARMFUL}</think>{FINE}")],
    "signs": [("user", CALM), ("assistant", f"{PLAIN}\nUser: more\nAssistant: {HARMFUL}")],
}


def talk(said):
    return [{"role": role, "content": content} for role, content in said]


def test_a_reading_as_json_is_what_it_was(scorer):
    found = {name: scorer.score(talk(said)).to_record() for name, said in READ.items()}
    assert found["worst part"]["worst_part"]
    assert found["set apart"]["set_apart"]
    assert found["signs"]["signs"]
    assert {what for record in found.values() for what in record} >= {"scores", "layer", "model", "worst_part", "set_apart", "signs"}
    equals_golden("readings.json", masked(found))


def test_a_decision_as_json_is_what_it_was(scorer):
    found = {}
    with Monitor(scorer, policy()) as monitor, Monitor(scorer, policy(), enforce=False) as trial:
        for name, (watch, said, reply) in {
            "allowed": (monitor, CALM, FINE),
            "substituted": (monitor, CALM, HARMFUL),
            "missed": (monitor, AT_RISK, PLAIN),
            "in a trial": (trial, AT_RISK, HARMFUL),
            "signs": (monitor, CALM, READ["signs"][-1][1]),
            "set apart": (monitor, CALM, READ["set apart"][-1][1]),
        }.items():
            session = watch.session(name)
            session.user(said)
            found[name] = session.check(reply).to_record()
        session = monitor.session("not scored")
        session.user(CALM)
        with failing(scorer, RuntimeError("planted")):
            found["not scored"] = session.check("What nobody has read yet.").to_record()  # what was read is kept
        found["greeting"] = monitor.session("greeting").check(PLAIN).to_record()
    equals_golden("decisions.json", masked(found, *DIFFERS))


def said_of(outcome):
    return f"{ACTIONS[outcome.action]} {(None, 'yellow', 'red')[outcome.severity]} {' '.join(outcome.fired) or '-'}"


def score(z):
    return None if z is None else (z, 1 / (1 + 2.718281828459045 ** (-2 * z)))


def test_an_old_policy_decides_as_it_did():
    vectors = VectorSet.load(OLD / "vectors")
    warmths = (-2.0, -0.4, 0.25, 0.5, 1.0, None)  # some of all these lie on a cut
    candours = (-2.0, -math.log(9) / 2, 0.25, 2.5, None)
    users = {
        "nothing said": [], "calm": [0.0], "at risk": [1.0, 0.0], "on the cut": [0.25], "long ago": [1.0, 0.0, 0.0],
        "unread": [None, 0.0], "on the other cut": [-1.0],
    }  # fmt: skip
    lines = []
    old = _old_policy()
    for (name, risks), warmth, candour in itertools.product(users.items(), warmths, candours):
        user = [{"distress": score(risk)} for risk in risks]
        found = decide(old, vectors, {"warmth": score(warmth), "candour": score(candour)}, user)
        lines.append(f"{name}, warmth {warmth}, candour {candour and round(candour, 2)}: {said_of(found)}\n")
    lines.append(f"not scored: {said_of(decide(old, vectors, None, [{'distress': score(1.0)}]))}\n")
    equals_golden("old-policy.txt", "".join(lines))


def _old_policy():
    """As it is read today, which warns of each key that has another name now."""
    with pytest.warns(FutureWarning, match="older name of"):
        return load_policy(OLD / "policy.yaml")


def test_an_old_policy_s_other_keys_are_read():
    found = _old_policy()
    assert (found.version, found.deadline_seconds, found.audit_failure) == ("house 3", 7.5, "substitute")
    assert (found.stream.hold_back_words, found.stream.window_tokens) == (8, 16)


def test_the_default_policy_decides_as_it_did_with_the_built_in_vectors():
    vectors = VectorSet.load(BUILT_IN)
    steps = {  # one between any two cuts
        "crisis_recognition": (-3.0, 0.3, 3.0, None),
        "sycophancy_harmful_validation": (-3.0, 1.5, 3.0, None),
        "boundary_maintenance": (-3.0, -0.8, 3.0, None),
        "empathetic_responsiveness": (-3.0, 3.0),
    }
    contexts, topics = ([trait for trait in vectors.traits if trait.endswith(ending)] for ending in ENDINGS)
    talks: list[list[float | None]] = [[], [-3.0], [0.0], [3.0, -3.0], [3.0, -3.0, -3.0, -3.0], [None]]
    lines = []
    for about, risks in itertools.product((3.0, -3.0), talks):
        said = [{"user_risk": score(risk)} | dict.fromkeys(contexts, score(about)) for risk in risks]
        for values in itertools.product(*steps.values()):
            reply = {trait: score(z) for trait, z in zip(steps, values, strict=True)}
            found = decide(None, vectors, reply | dict.fromkeys(topics, score(about)), said)
            lines.append(f"about {about}, user {risks}, reply {[*values]}: {said_of(found)}\n")
    equals_golden("default-policy.txt", "".join(lines))


@pytest.mark.parametrize("name", [*commands()])
def test_the_help_of_a_command_is_what_it_was(command, name, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # else it is called "python -m pytest.demeanor"
    done = command(*name.split(), "--help")
    assert done.returncode == 0, done.stderr
    equals_golden(f"help/{name.replace(' ', '-') or 'demeanor'}.txt", without_colour(done.stdout))


def test_no_command_s_help_is_kept_that_is_gone():
    names = {name.replace(" ", "-") or "demeanor" for name in commands()}
    gone = [path for path in (GOLDENS / "help").glob("*.txt") if path.stem not in names]
    if renewing():
        for path in gone:
            path.unlink()
    else:
        assert not gone, how_to_renew("help")
