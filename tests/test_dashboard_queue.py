"""The queue's page: one item at a time, answered by form; the model's score stays hidden until the answer is given."""

import pytest
from dashboard_tools import clock_fixture, csrf, store_fixture, visit_fixture  # noqa: F401
from review_tools import decided

from demeanor.review import queue
from demeanor.review.drawing import Drawing
from demeanor.review.texts import keep

ALL = Drawing(share=1.0)


def answer(client, page, number, value, **more):
    return client.post(f"/queue/{number}", data={"csrf": csrf(page), "value": value, **more})


def test_an_item_shows_the_conversation_and_the_poles_and_no_score(visit, store):
    keep(store, decided(1, caught=True, beyond=1.2345), ALL)
    page = visit("anna").get("/queue").text
    for text in ("Crisis recognition", "asks about safety", "passes over the risk", "I alpha1 beta1", "You theta1"):
        assert text in page
    for hidden in ("1.23", "crisis_recognition_rule", "flag", "caught"):
        assert hidden not in page.split("</nav>")[1]


def test_an_answer_is_kept_with_its_note_and_leads_to_the_next_item(visit, store):
    for i in range(2):
        keep(store, decided(i), ALL)
    client = visit("anna")
    page = client.get("/queue")
    first = queue.next_item(store, "anna").number
    page = answer(client, page, first, "high", note=" as asked ", better="Are you safe?")
    assert f"Item {first} is answered: <b>High</b>" in page.text
    assert queue.next_item(store, "anna").number != first
    who, value, *texts = store.db.one("SELECT reviewer, value, note, better FROM answer")
    assert (who, value, *map(store.seal.open, texts)) == ("anna", "high", "as asked", "Are you safe?")


def test_the_score_is_shown_after_the_answer_only_and_the_answer_then_stands(visit, store):
    keep(store, decided(1, caught=True, beyond=1.25), ALL)
    client = visit("anna")
    page = client.get("/queue")
    token = csrf(page)
    assert client.post("/queue/1/score", data={"csrf": token}).status_code == 404
    answer(client, page, 1, "low")
    assert answer(client, page, 1, "unsure").status_code == 200
    shown = client.post("/queue/1/score", data={"csrf": token})
    assert "−1.25" in shown.text
    assert "a reply that a rule caught" in shown.text
    refused = answer(client, page, 1, "high")
    assert refused.status_code == 400
    assert "that answer stands" in refused.text


def test_two_reviewers_get_different_items_and_one_given_back_goes_to_the_other(visit, store):
    keep(store, decided(1), ALL)
    anna, ben = visit("anna"), visit("ben")
    page = anna.get("/queue")
    assert "alpha1" in page.text
    assert "Nothing waits for you" in ben.get("/queue").text
    anna.post("/queue/release", data={"csrf": csrf(page)})
    assert "alpha1" in ben.get("/queue").text


def test_a_declined_item_goes_to_somebody_else(visit, store):
    keep(store, decided(1), ALL)
    anna, ben = visit("anna"), visit("ben")
    assert "Nothing waits" in answer(anna, anna.get("/queue"), 1, "decline").text
    assert "alpha1" in ben.get("/queue").text


def test_only_one_trait_where_it_is_asked_for(visit, store):
    keep(store, decided(1), ALL)
    keep(store, decided(2, traits=("boundary",)), ALL)
    client = visit("anna")
    assert "keeps its place" in client.get("/queue?trait=boundary").text
    assert client.get("/queue?trait=nothing").status_code == 404


@pytest.mark.parametrize("number", ["0", "99", "-1", "x", "9" * 30, "1%00"])
def test_an_item_that_is_not_there_is_refused_in_a_sentence(visit, store, number):
    keep(store, decided(1), ALL)
    client = visit("anna")
    assert answer(client, client.get("/queue"), number, "high").status_code in (400, 404)
    assert store.db.one("SELECT count(*) FROM answer") == (0,)


def test_an_unknown_answer_is_refused(visit, store):
    keep(store, decided(1), ALL)
    client = visit("anna")
    assert answer(client, client.get("/queue"), 1, "medium").status_code == 400


def test_an_erased_text_leaves_the_queue(visit, store):
    from demeanor.review.texts import erase

    keep(store, decided(1), ALL)
    client = visit("anna")
    assert "alpha1" in client.get("/queue").text
    erase(store, "c1")
    assert "Nothing waits" in client.get("/queue").text
