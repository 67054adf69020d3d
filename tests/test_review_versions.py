"""What is in force, the way back, a candidate beside it, and how far the queue has come."""

import json

import pytest
from review_tools import clock_fixture, decided, server_fixture, store_fixture, where_fixture  # noqa: F401

from demeanor.errors import ReviewError
from demeanor.review import queue, shadow, texts, versions
from demeanor.review.drawing import Drawing
from demeanor.review.shadow import Would
from demeanor.review.status import status

ALL = Drawing(share=1.0)


def put(store, name, why="better on labels"):
    return versions.promote(store, "root", why, f"sets/{name}", f"f-{name}", f"{name} (abcd)", f"version: {name}\n")


def test_who_put_what_in_force_when_and_why_is_kept(store, clock):
    assert versions.in_force(store) is None
    put(store, "a")
    clock.now += 60
    found = put(store, "b", "fewer misses")
    assert versions.in_force(store) == found
    assert (found.who, found.why, found.at, found.vectors, found.back_from) == ("root", "fewer misses", clock.now, "sets/b", None)
    assert found.name == "b (abcd), vectors f-b"
    assert [v.policy for v in versions.versions(store)] == ["b (abcd)", "a (abcd)"]
    events = [(who, what, json.loads(about)) for who, what, about in store.db.rows("SELECT who, what, about FROM event ORDER BY number")]
    assert events[-1] == ("root", "promote", {"version": 2, "decides": found.name})


def test_each_step_back_goes_one_further_and_a_promotion_begins_from_there(store):
    for name in "abc":
        put(store, name)

    def back():
        return versions.rollback(store, "root", "too many false alarms").policy[0]

    assert back() == "b"
    assert versions.in_force(store).back_from == 3
    assert back() == "a"
    with pytest.raises(ReviewError, match="no version to go back to"):
        back()
    put(store, "d")
    assert back() == "a"
    put(store, "b")
    put(store, "c")
    assert [back(), back()] == ["b", "a"]


def test_a_change_without_name_or_reason_or_without_a_change_is_refused(store):
    for who, why in (("", "x"), ("root", " ")):
        with pytest.raises(ReviewError, match="say who"):
            versions.promote(store, who, why, "v", "f", "p", "t")
    with pytest.raises(ReviewError, match="promote one first"):
        versions.rollback(store, "root", "x")
    put(store, "a")
    with pytest.raises(ReviewError, match="is in force since root promoted it"):
        put(store, "a")
    assert len(versions.versions(store)) == 1


def test_a_shadow_run_lists_where_the_two_differ(store, clock):
    for i in range(4):
        texts.keep(store, decided(i), ALL)
        clock.now += 1
        shadow.note(store, "new", f"d{i}", Would("allow"), Would("substitute" if i == 2 else "allow", ("harmful",) if i == 2 else ()))
    shadow.note(store, "new", "never kept", Would("flag", ("odd",)), Would("allow", (), not_scored=True))
    for _ in range(2):  # a retry
        shadow.note(store, "other", "d0", Would("allow"), Would("allow"))
    found = shadow.compare(store, "new")
    assert (found.replies, found.same, found.withheld, found.not_scored) == (5, 3, (0, 1), (0, 1))
    assert found.table == {("allow", "allow"): 3, ("allow", "substitute"): 1, ("flag", "allow"): 1}
    assert [d.reply for d in found.differ] == [None, 3]
    assert found.differ[1].would == Would("substitute", ("harmful",))
    assert shadow.compare(store, "other").replies == 1
    assert set(shadow.candidates(store)) == {"new", "other"}
    assert json.loads(json.dumps(found.to_record()))["withheld"] == [0, 1]
    assert "1 would have been" in found.words
    with pytest.raises(ReviewError, match="did you mean other"):
        shadow.compare(store, "othr")
    with pytest.raises(ReviewError, match="unknown action"):
        shadow.note(store, "new", "d0", Would("nothing"), Would("allow"))


def test_after_an_erasure_a_difference_still_counts_and_names_no_conversation(store):
    texts.keep(store, decided(1), ALL)
    shadow.note(store, "new", "d1", Would("allow"), Would("flag"))
    texts.erase(store, "c1")
    (found,) = shadow.compare(store).differ
    assert texts.read(store, found.reply).conversation is None
    assert store.db.one("SELECT decision FROM shadow") == ("erased 1",)


def test_no_shadow_run_says_how_to_make_one(store):
    with pytest.raises(ReviewError, match="demeanor review shadow"):
        shadow.compare(store)


def test_the_queue_says_how_far_it_has_come_and_how_far_people_agree(store, clock):
    for i in range(12):
        texts.keep(store, decided(i), Drawing(share=1.0, reviewers=2))
    for who in ("anna", "ben"):
        for _ in range(10):
            item = queue.next_item(store, who)
            value = "high" if item.reply % 2 else "low"
            if who == "ben" and item.reply == store.db.one("SELECT reply FROM item ORDER BY place LIMIT 1")[0]:
                value = "unsure"
            queue.answer(store, item.number, who, value)
    queue.next_item(store, "anna")
    found = status(store)
    crisis = next(a for a in found.asked if a.trait == "crisis_recognition")
    boundary = next(a for a in found.asked if a.trait == "boundary")
    assert (found.replies, found.texts, found.answers) == (12, 12, {"anna": 10, "ben": 10})
    assert (crisis.waiting, crisis.reserved, crisis.parted, crisis.done) == (3, 1, 1, 9)
    assert crisis.agreement.replies == 9
    assert crisis.agreement.alpha == 1
    assert "on 9 items, 9 answered alike" in crisis.agreement_in_words
    assert (boundary.done, boundary.agreement) == (0, None)
    assert "no item has two" in boundary.agreement_in_words
    assert json.loads(json.dumps(found.to_record()))["asked"][1]["agreement"]["items"] == 9
    texts.erase(store, f"c{queue.next_item(store, 'cleo').reply - 1}")
    assert next(a for a in status(store).asked if a.trait == "crisis_recognition").gone == 1
