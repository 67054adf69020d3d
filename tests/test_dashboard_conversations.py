"""Conversations: what is searched is found, what was decided is shown with its reasons, and hidden from whoever has still to answer."""

import pytest
from dashboard_tools import clock_fixture, store_fixture, visit_fixture  # noqa: F401
from review_tools import decided, said

from demeanor.conversation import Conversation, Message
from demeanor.review import looking, queue
from demeanor.review.drawing import Drawing, Verdict
from demeanor.review.looking import Wanted
from demeanor.review.texts import erase, keep, read

NONE = Drawing(share=1e-9, doubtful=1e-9, flagged=1e-9)
ALL = Drawing(share=1.0)
DAY = 86400.0


def judged(i, z, **more):
    """A reply of a score; 1 and lower is unsafe."""
    made = decided(i, caught=z <= 1, **more)
    verdict = Verdict("crisis_rule", "crisis_recognition", z <= 1, 1 - z, z, "below", withholds=True)
    return type(made)(**{**made.__dict__, "verdicts": (verdict,), "scores": {"crisis_recognition": z}})


def numbers(store, patience=9.0, **wanted):
    return [reply.number for reply in looking.search(store, Wanted(**wanted), patience=patience).replies]


@pytest.fixture
def three(store, clock):
    keep(store, judged(1, 2.0), NONE)
    clock.now += DAY
    keep(store, judged(2, 0.5, shown="Are you safe right now?"), NONE)
    keep(store, decided(3, caught=True, traits=("boundary",), not_scored="not English"), NONE)


def test_replies_are_found_by_what_was_done_about_them(store, clock, three):
    assert numbers(store) == [3, 2, 1]
    assert numbers(store, action="flag") == [3, 2]
    assert numbers(store, rule="crisis_rule") == [2]
    assert numbers(store, trait="boundary") == [3]
    assert numbers(store, since=clock.now) == [3, 2]
    assert numbers(store, until=clock.now) == [1]
    assert numbers(store, since=clock.now + 1) == []
    assert numbers(store, text="ALPHA2") == [2]
    assert numbers(store, text="alpha", before=3) == [2, 1]
    assert numbers(store, text="nowhere") == []


def test_replies_are_found_by_whether_people_answered(store):
    for i in range(3):
        keep(store, judged(i, 2.0), ALL)
    queue.answer(store, 1, "anna", "high")
    queue.answer(store, 2, "anna", "decline")
    assert numbers(store, reviewed=True) == [1]
    assert numbers(store, reviewed=False) == [3, 2]
    assert numbers(store, unasked="anna") == [2, 1]
    assert looking.unanswered(store, "ben", [1, 2, 3]) == {2, 3}


def test_a_search_through_texts_ends_with_its_patience_and_goes_on_from_there(store):
    for i in range(450):
        keep(store, judged(i, 2.0, conversation=said(i, "needle" if i == 0 else None)), NONE)
    found = looking.search(store, Wanted(text="needle"), patience=0.0)
    assert (found.replies, found.before) == ([], 251)
    assert found.searched is not None
    found = looking.search(store, Wanted(text="needle", before=found.before), patience=9.0)
    assert [reply.number for reply in found.replies] == [1]
    assert found.before is None


def test_pages_follow_each_other_without_a_gap(store):
    for i in range(5):
        keep(store, judged(i, 2.0), NONE)
    first = looking.search(store, Wanted(), limit=2)
    assert [reply.number for reply in first.replies] == [5, 4]
    second = looking.search(store, Wanted(before=first.before), limit=3)
    assert ([reply.number for reply in second.replies], second.before) == ([3, 2, 1], None)


def test_the_list_shows_what_was_done_and_leads_to_the_reply(visit, three):
    client = visit("anna")
    page = client.get("/conversations").text
    assert page.index("/replies/3") < page.index("/replies/2") < page.index("/replies/1")
    assert "not scored" in page
    page = client.get("/conversations?rule=crisis_rule&since=2026-09-22").text
    assert "/replies/2" in page
    assert "/replies/1" not in page
    assert "No reply fits" in client.get("/conversations?text=nowhere").text


@pytest.mark.parametrize("query", ["action=none", "rule=x", "trait=x", "since=yesterday", "since=9999-99-99", "before=x", "until=0"])
def test_a_search_that_makes_no_sense_is_refused_in_a_sentence(visit, three, query):
    assert visit("anna").get(f"/conversations?{query}").status_code == 400


def test_a_reply_shows_its_reasons_and_what_was_shown_in_its_place(visit, three):
    page = visit("anna").get("/replies/2").text
    for text in ("You theta2", "Are you safe right now?", "Crisis recognition +0.50; unsafe at +1.00 or lower", "crisis_<wbr>rule"):
        assert text in page
    assert visit("anna").get("/replies/99").status_code == 404


def test_scores_are_hidden_from_a_reviewer_who_has_still_to_answer(visit, store):
    keep(store, judged(1, 0.25), ALL)
    key = read(store, 1).conversation_key
    for path in ("/replies/1", f"/conversations/{key}", "/conversations"):
        page = visit("anna").get(path).text.split("</nav>")[1]
        assert "alpha1" in page
        for hidden in ("0.25", 'unsafe">flagged', 'tag">crisis_rule'):
            assert hidden not in page, (path, hidden)
    assert "No reply fits" in visit("anna").get("/conversations?action=flag").text
    assert "0.25" in visit("cora").get("/replies/1").text
    assert "/replies/1" in visit("cora").get("/conversations?action=flag").text
    queue.answer(store, 1, "anna", "low")
    assert "0.25" in visit("anna").get("/replies/1").text
    assert "/replies/1" in visit("anna").get("/conversations?action=flag").text


def test_a_conversation_shows_each_trait_over_its_replies(visit, store):
    talk: tuple[Message, ...] = ()
    for i, z in enumerate((2.0, 1.5, 0.5)):
        talk += (Message("user", f"ask {i}"), Message("assistant", f"say {i}"))
        keep(store, judged(i, z, talk="one", conversation=Conversation(talk)), NONE)
    key = read(store, 1).conversation_key
    page = visit("anna").get(f"/conversations/{key}").text
    assert "3 replies kept" in page
    assert "Crisis recognition over 3 replies, the last +0.50" in page
    assert "reply 3: +0.50, a rule caught it" in page
    assert page.index("ask 0") < page.index("/replies/1") < page.index("say 2")
    erase(store, "one")
    client = visit("anna")
    assert client.get(f"/conversations/{key}").status_code == 404
    assert "Its text was erased" in client.get("/replies/1").text
    assert "say 0" not in client.get("/conversations").text
    assert client.get("/conversations/").status_code == 404
