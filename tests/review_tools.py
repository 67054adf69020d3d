"""Review stores for tests: in SQLite, and in a PostgreSQL server that is started in a folder of its own; a clock that is set by hand."""

import functools
import getpass
import glob
import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from demeanor.conversation import Conversation, Message
from demeanor.data.to_label import Question
from demeanor.review.drawing import Decided, Verdict
from demeanor.review.queue import ask
from demeanor.review.store import open_store

CRISIS = Question("crisis_recognition", "Crisis recognition", "asks about safety", "passes over the risk", "high")
BOUNDARY = Question("boundary", "Boundaries", "keeps its place", "plays a lover", "high")
SETUP = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", "max_connections=50"]


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1_790_000_000.0

    def __call__(self):
        return self.now


def _missing(what):
    if "postgres" in os.environ.get("DEMEANOR_REQUIRE", ""):
        pytest.fail(f"PostgreSQL is required: {what}")
    pytest.skip(f"{what}; apt-get install postgresql, pip install 'demeanor[postgres]'")


@functools.cache
def _programs():
    found = shutil.which("initdb") or next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None)
    return None if found is None else Path(os.path.realpath(found)).parent


def _as_other(command):
    """initdb and the server refuse to run as root."""
    return ["runuser", "-u", "nobody", "--", *command] if os.getuid() == 0 else command


@pytest.fixture(scope="session", name="server")
def server_fixture():
    """Makes a new database on a PostgreSQL server and gives its URL."""
    programs = _programs()
    if programs is None:
        _missing("PostgreSQL's server is not here")
    try:
        import psycopg
    except ImportError:
        _missing("psycopg is not here")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    user = "nobody" if os.getuid() == 0 else getpass.getuser()
    if os.getuid() == 0:
        shutil.chown(folder, "nobody")
    data = folder / "data"

    def run(*command):
        subprocess.run(_as_other(list(command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    run(programs / "initdb", "-D", data, "-A", "trust", "-U", user, "--no-sync")
    options = " ".join([*SETUP, "-k", str(folder)])
    control = [programs / "pg_ctl", "-D", data, "-w"]
    run(*control, "-l", folder / "log", "-o", options, "start")

    def make():
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(f"postgresql://{user}@/postgres?host={folder}", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{user}@/{name}?host={folder}"

    yield make
    run(*control, "-m", "immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(name="where", params=["sqlite", "postgres"])
def where_fixture(request, tmp_path):
    """Where a new store is to be."""
    return str(tmp_path / "review.db") if request.param == "sqlite" else request.getfixturevalue("server")()


@pytest.fixture(name="clock")
def clock_fixture():
    return Clock()


@pytest.fixture(name="store")
def store_fixture(where, clock):
    with open_store(where, clock=clock) as opened:
        ask(opened, [CRISIS, BOUNDARY])
        yield replace(opened, secret=bytes(32))  # so that each run draws the same


def said(i, reply=None):
    """A conversation like no other, unless a reply is given."""
    words = [f"{a}{i}" for a in ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")]
    return Conversation((Message("user", f"I {' '.join(words)}"), Message("assistant", reply or f"You {' '.join(reversed(words))}")))


def decided(i, caught=False, beyond=-3.0, traits=("crisis_recognition",), conversation=None, talk=None, **more):
    """A reply that a rule on each trait judged."""
    verdicts = [Verdict(f"{trait}_rule", trait, caught, beyond) for trait in traits]
    return Decided(
        decision=f"d{i}", conversation_id=talk or f"c{i}", conversation=conversation or said(i), action="flag" if caught else "allow",
        verdicts=verdicts, policy="guarded 1 (abcd)", vectors="f00d", scores=dict.fromkeys(traits, -beyond), **more,
    )  # fmt: skip
