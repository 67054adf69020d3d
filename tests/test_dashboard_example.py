"""The example that a newcomer sees: every page of it shows something, and it is the same each time."""

import re

import pytest
from dashboard_tools import PASSWORD
from starlette.testclient import TestClient

from demeanor.audit.verification import verify
from demeanor.dashboard import example
from demeanor.dashboard.application import app
from demeanor.review import accounts
from demeanor.review.store import open_store
from demeanor.vectors import built_in


@pytest.mark.slow
def test_every_page_of_the_example_shows_something(tmp_path):
    with open_store(tmp_path / "review.db") as store:
        example.fill(store, tmp_path / "audit.db", built_in.load())
        accounts.add(store, "demo", "admin", PASSWORD)
        replies = store.db.one("SELECT count(*) FROM reply")[0]
        assert verify(tmp_path / "audit.db").records == replies > example.TALKS
        with TestClient(app(store, tmp_path / "audit.db")) as client:
            page = client.post("/sign-in", data={"name": "demo", "password": PASSWORD}).text
            assert "Version 1" in page
            assert "<svg" in page
            assert "Your answer" in client.get("/queue").text
            assert "/replies/1" in client.get("/conversations?before=3").text
            labels = client.get("/labels").text
            assert re.search(r"[0-9.]+ of 1,000 replies", labels)
            assert "alpha 0." in labels
            assert "Where they differ" in labels
            assert client.get("/labels/low_empathy").text.count("/replies/") > 3
            assert "Its chain is whole" in client.get("/reports").text
