"""`demeanor dashboard` and `demeanor demo --serve`: what they say, where they listen, and what they refuse."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from demeanor.cli.main import app
from demeanor.errors import AuditError, ReviewError


@contextmanager
def running(*arguments):
    """A command, with the first line that it says."""
    command = [sys.executable, "-u", "-m", "demeanor.cli.main", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    try:
        yield process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.mark.slow
def test_it_says_where_it_serves_and_serves_there(tmp_path):
    with running("dashboard", "--store", tmp_path / "review.db", "--port", 0) as said:
        address = re.search(r"serving the dashboard at (http://127\.0\.0\.1:\d+) ", said)[1]
        with urllib.request.urlopen(address) as page:
            assert page.geturl().endswith("/sign-in?next=%2F")
            assert b"There is no account yet" in page.read()


@pytest.mark.slow
def test_the_demo_says_in_one_line_where_it_is_and_how_to_sign_in_and_keeps_what_was_there(tmp_path):
    passwords = []
    for _ in range(2):
        with running("demo", "--serve", "--output", tmp_path) as said:
            passwords.append(re.search(r"at http://127\.0\.0\.1:\d+; sign in as demo with the password (\S{12,}) \(Ctrl-C", said)[1])
    assert passwords[0] != passwords[1]
    assert {path.name for path in tmp_path.iterdir()} >= {"dashboard.db", "dashboard-audit.db"}


def refused(*arguments):
    return CliRunner().invoke(app, ["dashboard", *map(str, arguments)]).exception


def test_an_audit_log_that_is_not_there_and_a_port_that_is_taken_are_refused(tmp_path):
    error = refused("--store", tmp_path / "review.db", "--audit", tmp_path / "audit.db")
    assert isinstance(error, AuditError)
    assert not (tmp_path / "review.db").exists()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error = refused("--store", tmp_path / "review.db", "--port", taken.getsockname()[1])
    assert isinstance(error, ReviewError)
    assert "take another --port" in str(error)


def test_without_starlette_it_names_what_to_install(tmp_path, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "uvicorn" else found(name, *more))
    assert "pip install 'demeanor[serve]'" in str(refused("--store", tmp_path / "review.db"))
