"""A vector set from labels, by the dashboard: a job that shows how far it is, what it came to, and what is put in force."""

import threading
from pathlib import Path

import pytest
from dashboard_tools import clock_fixture, csrf, store_fixture, visit_fixture  # noqa: F401
from test_review_learning import HARM, fill

from demeanor.dashboard.adapting import Adapting
from demeanor.errors import ReviewError
from demeanor.review import queue, versions
from demeanor.review.learning import learn
from demeanor.testing import planted_scorer


@pytest.fixture
def held():
    """What holds a job until a test lets it go on."""
    return threading.Event()


def finished():
    for thread in threading.enumerate():
        if thread.name.startswith("adapting "):
            thread.join(60)


@pytest.fixture
def adapting(held, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scorer = planted_scorer()

    def learner(store, trait, progress):
        progress(3)
        held.wait(60)
        return learn(store, scorer.reader, scorer.vectors, trait, progress=progress)

    yield Adapting(learner, Path("adapted"))  # as the command gives it
    held.set()
    finished()


def test_a_job_shows_its_progress_and_what_it_came_to_and_is_put_in_force(visit, store, adapting, held):
    queue.ask(store, [HARM])
    fill(store)
    cora, anna = visit("cora", adapting=adapting), visit("anna", adapting=adapting)
    form = {"csrf": csrf(cora.get("/labels")), "trait": "harm"}
    assert anna.post("/adapting", data={**form, "csrf": csrf(anna.get("/queue"))}).status_code == 403
    page = cora.post("/adapting", data=form)
    assert page.url.path == "/adapting/1"
    assert "3 of 160 replies read" in page.text
    assert "wait for its end" in cora.post("/adapting", data=form).text
    assert cora.post("/adapting/1", data={**form, "why": "soon"}).status_code == 400
    assert versions.in_force(store) is None
    held.set()
    finished()
    page = cora.get("/adapting/1").text
    assert "AUROC" in page
    assert "Learning curve" in page
    assert "data-every" not in page
    assert cora.post("/adapting/1", data={**form, "why": ""}).status_code == 400
    cora.post("/adapting/1", data={**form, "why": "it is clearly better"})
    now = versions.in_force(store)
    assert (now.who, now.why) == ("cora", "it is clearly better")
    assert now.vectors == str(adapting.jobs[0].folder.resolve())  # whatever folder the gateway is started in
    assert (adapting.jobs[0].folder / "manifest.json").exists()
    assert anna.get("/adapting/1").status_code == 403
    assert cora.get("/adapting/2").status_code == 404


def test_a_job_that_fails_says_why_and_leaves_room_for_the_next(visit, store, tmp_path):
    queue.ask(store, [HARM])
    fill(store, n=12)

    def learner(*_):
        raise ReviewError("<b>too few</b> labels")

    adapting = Adapting(learner, tmp_path)
    client = visit("cora", adapting=adapting)
    form = {"csrf": csrf(client.get("/labels")), "trait": "harm"}
    for number in (1, 2):
        client.post("/adapting", data=form)
        finished()
        assert "&lt;b&gt;too few&lt;/b&gt; labels" in client.get(f"/adapting/{number}").text
    assert "failed" in client.get("/labels").text


def test_without_labels_or_a_model_no_job_begins(visit, store, adapting):
    form = {"trait": "boundary"}
    client = visit("cora", adapting=adapting)
    assert "No reply has a label" in client.post("/adapting", data={**form, "csrf": csrf(client.get("/labels"))}).text
    assert adapting.jobs == []
    client = visit("cora")
    assert "demeanor review adapt" in client.get("/labels").text
    assert client.post("/adapting", data={**form, "csrf": csrf(client.get("/labels"))}).status_code == 400
