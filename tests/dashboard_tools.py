"""A dashboard for tests: a review store with two reviewers and an admin, served to a client that keeps cookies."""

import re
from dataclasses import replace

import pytest
from review_tools import BOUNDARY, CRISIS, Clock
from starlette.testclient import TestClient

from demeanor.dashboard.application import app
from demeanor.review import accounts
from demeanor.review.queue import ask
from demeanor.review.store import open_store

PASSWORD = "correct horse battery"
PEOPLE = {"anna": "reviewer", "ben": "reviewer", "cora": "admin"}


@pytest.fixture(name="clock")
def clock_fixture():
    return Clock()


@pytest.fixture(name="store")
def store_fixture(tmp_path, clock):
    with open_store(tmp_path / "review.db", clock=clock) as opened:
        ask(opened, [CRISIS, BOUNDARY])
        for name, role in PEOPLE.items():
            accounts.add(opened, name, role, PASSWORD)
        yield replace(opened, secret=bytes(32))  # so that each run draws the same


@pytest.fixture(name="visit")
def visit_fixture(store):
    """A client, signed in as somebody where a name is given."""
    made = []

    def visit(name=None, **more):
        client = TestClient(app(store, **more), follow_redirects=True)
        made.append(client)
        if name:
            signed = client.post("/sign-in", data={"name": name, "password": PASSWORD, "next": "/queue"})
            assert signed.status_code == 200, signed.text
        return client

    yield visit
    for client in made:
        client.close()


def csrf(page):
    """The token that a page's forms send along."""
    return re.search(r'name="csrf" value="([0-9a-f]+)"', page.text)[1]
