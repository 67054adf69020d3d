"""The queue: each item to one person at a time, no label twice and none lost, the score hidden until the answer."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from review_tools import BOUNDARY, CRISIS, clock_fixture, decided, said, server_fixture, store_fixture, where_fixture  # noqa: F401

from demeanor.conversation import Conversation, Message
from demeanor.errors import ReviewError
from demeanor.review import queue, texts
from demeanor.review.drawing import Drawing, Verdict, why_of
from demeanor.review.settling import settle
from demeanor.review.store import open_store

ALL = Drawing(share=1.0)


def fill(store, n, drawing=ALL, **more):
    for i in range(n):
        texts.keep(store, decided(i, **more), drawing)


def label_all(store, reviewer, value="high"):
    seen = []
    while (item := queue.next_item(store, reviewer)) is not None:
        seen.append(item.number)
        queue.answer(store, item.number, reviewer, value)
    return seen


@pytest.mark.parametrize(
    ("values", "wanted", "label", "needs"),
    [
        ([], 1, None, 1),
        (["high"], 1, "high", 1),
        (["unsure"], 1, "unsure", 1),
        (["decline"], 1, None, 1),
        (["decline", "low"], 1, "low", 1),
        (["high"], 2, None, 2),
        (["high", "high"], 2, "high", 2),
        (["high", "low"], 2, None, 3),
        (["high", "low", "low"], 2, "low", 3),
        (["high", "low", "unsure"], 2, "unsure", 3),
        (["high", "low", "not_applicable"], 2, "unsure", 3),
        (["high", "decline", "high"], 2, "high", 2),
        (["high", "low"], 1, "unsure", 2),  # two came in at once
        (["high", "high"], 1, "high", 2),
    ],
)
def test_what_several_answers_come_to(values, wanted, label, needs):
    assert settle(values, wanted) == (label, needs)


@pytest.mark.parametrize(
    ("caught", "beyond", "why"),
    [
        (True, 2.0, "flagged"),
        (True, None, "flagged"),
        (False, -0.4, "doubtful"),
        (False, 0.4, "doubtful"),
        (False, -0.6, "random"),
        (False, None, "random"),
    ],
)
def test_of_which_kind_a_reply_is(caught, beyond, why):
    assert why_of([Verdict("far", "t", False, -9.0), Verdict("r", "t", caught, beyond)], 0.5) == why


def test_a_share_of_each_kind_is_drawn_and_its_chance_is_kept(store):
    drawing = Drawing(share=0.1, doubtful=0.5)
    for i in range(600):
        texts.keep(store, decided(i, caught=i % 3 == 0, beyond=(1.0, -0.1, -3.0)[i % 3]), drawing)
    drawn = Counter(store.db.rows("SELECT why, probability FROM item"))
    assert drawn["flagged", 1.0] == 200
    assert 70 < drawn["doubtful", 0.5] < 130
    assert 8 < drawn["random", 0.1] < 35
    assert len(drawn) == 3
    tally = {(why, p): n for why, p, n in store.db.rows("SELECT why, probability, replies FROM tally")}
    assert tally == {("flagged", 1.0): 200, ("doubtful", 0.5): 200, ("random", 0.1): 200}
    places = [p for (p,) in store.db.rows("SELECT place FROM item WHERE why = 'flagged'")]
    assert min(places) < 0.1
    assert 0.9 < max(places) < 1


def test_two_reviewers_get_different_items_and_a_page_that_is_loaded_again_the_same(store):
    fill(store, 3)
    a, b = queue.next_item(store, "anna"), queue.next_item(store, "ben")
    assert a.number != b.number
    assert queue.next_item(store, "anna").number == a.number
    assert a.question == CRISIS
    assert a.conversation.response.startswith("You theta")


def test_a_reservation_runs_out_and_a_label_that_comes_later_still_counts(store, clock):
    fill(store, 1)
    item = queue.next_item(store, "anna", patience=60)
    assert queue.next_item(store, "ben") is None
    clock.now += 61
    assert queue.next_item(store, "ben").number == item.number
    queue.answer(store, item.number, "anna", "low")
    queue.answer(store, item.number, "ben", "low")
    assert store.db.rows("SELECT reviewer, value FROM answer ORDER BY number") == [("anna", "low"), ("ben", "low")]
    assert store.db.one("SELECT value FROM item") == ("low",)


def test_what_was_taken_and_given_back_goes_to_somebody_else(store):
    fill(store, 2)
    assert len(queue.reserve(store, "anna", 5)) == 2
    assert queue.next_item(store, "ben") is None
    assert queue.release(store, "anna") == 2
    assert queue.next_item(store, "ben") is not None


def test_two_are_asked_where_that_is_wanted_and_a_third_where_they_differ(store):
    fill(store, 4, Drawing(share=1.0, reviewers=2))
    assert len(label_all(store, "anna", "high")) == 4
    assert label_all(store, "anna") == []
    while (item := queue.next_item(store, "ben")) is not None:
        queue.answer(store, item.number, "ben", "high" if item.number % 2 else "low")
    third = label_all(store, "cleo", "low")
    assert len(third) == 2
    assert all(n % 2 == 0 for n in third)
    assert Counter(v for (v,) in store.db.rows("SELECT value FROM item")) == {"high": 2, "low": 2}
    assert queue.next_item(store, "dora") is None


def test_who_declines_is_not_asked_again_and_somebody_else_is(store):
    fill(store, 1)
    item = queue.next_item(store, "anna")
    queue.answer(store, item.number, "anna", "decline")
    assert queue.next_item(store, "anna") is None
    assert queue.next_item(store, "ben").number == item.number


def test_items_of_one_trait_only(store):
    fill(store, 3, traits=("crisis_recognition", "boundary"))
    assert queue.next_item(store, "anna", trait="boundary").question == BOUNDARY
    assert len(store.db.rows("SELECT * FROM item")) == 6


def test_the_score_is_hidden_until_the_answer_and_the_answer_then_stands(store):
    fill(store, 1, beyond=-1.25)
    item = queue.next_item(store, "anna")
    assert not any("score" in name or name in ("action", "why") for name in vars(item))
    with pytest.raises(ReviewError, match="the score is shown after the answer"):
        queue.shown(store, item.number, "anna")
    queue.answer(store, item.number, "anna", "low")
    queue.answer(store, item.number, "anna", "high")  # a slip of the key
    found = queue.shown(store, item.number, "anna")
    assert (found.why, found.action, found.score) == ("random", "allow", 1.25)
    with pytest.raises(ReviewError, match="the score was shown since"):
        queue.answer(store, item.number, "anna", "low")
    queue.answer(store, item.number, "anna", "high", note="a request that is sent twice does no harm")
    assert store.db.one("SELECT value FROM item") == ("high",)


def test_unknown_answers_and_items_are_refused_with_the_way_out(store):
    with pytest.raises(ReviewError, match="did you mean unsure"):
        queue.answer(store, 1, "anna", "unsur")
    with pytest.raises(ReviewError, match="no item 1"):
        queue.answer(store, 1, "anna", "unsure")


def test_a_trait_that_the_store_was_told_nothing_of_is_refused(store):
    fill(store, 1, traits=("sycophancy",))
    with pytest.raises(ReviewError, match="what is asked about sycophancy"):
        queue.next_item(store, "anna")
    assert store.db.rows("SELECT * FROM reservation") == []


def test_near_duplicates_are_shown_once_and_take_over_the_label_in_their_turn(store):
    same = said(0).messages
    for i in range(6):
        copy = Conversation((same[0], Message("assistant", same[1].content + f" Number {i}.")))
        texts.keep(store, decided(i, conversation=copy), ALL)
    other = Conversation((Message("user", "Something else entirely is on my mind today"), same[1]))
    texts.keep(store, decided(6, conversation=other), ALL)
    a = queue.next_item(store, "anna")
    b = queue.next_item(store, "ben")
    assert b is not None
    assert {a.reply, b.reply} & {7} == {7}, "the same reply to another message is another item"
    assert queue.next_item(store, "cleo") is None, "the near-duplicates wait for the one that is being answered"
    for item, who in ((a, "anna"), (b, "ben")):
        queue.answer(store, item.number, who, "low")
    assert label_all(store, "anna") == []
    assert store.db.one("SELECT count(*) FROM item WHERE value = 'low'")[0] == 7
    assert store.db.one("SELECT count(*) FROM answer")[0] == 2
    first = next(i.number for i in (a, b) if i.reply != 7)
    assert store.db.rows("SELECT DISTINCT alike FROM item WHERE alike IS NOT NULL") == [(first,)]


def test_one_whose_twin_was_erased_is_asked_about(store):
    for i in range(2):
        texts.keep(store, decided(i, conversation=said(0)), ALL)
    item = queue.next_item(store, "anna")
    texts.erase(store, f"c{item.reply - 1}")
    assert queue.next_item(store, "anna").reply != item.reply


WORK = """
import sys
from demeanor.review import queue
from demeanor.review.store import open_store
where, who = sys.argv[1:]
with open_store(where) as store:
    print("open", flush=True)
    sys.stdin.readline()
    while (item := queue.next_item(store, who)) is not None:
        queue.answer(store, item.number, who, "high")
        print(item.number, flush=True)
"""


def _worker(where, who):
    """A process that says "open" and then waits to be told to begin."""
    return subprocess.Popen([sys.executable, "-c", WORK, where, who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_reviewers_on_200_items_at_once_get_none_twice_and_lose_none(where):
    with open_store(where) as store:
        queue.ask(store, [CRISIS])
        fill(store, 200)
        both = [_worker(where, who) for who in ("anna", "ben")]
        assert [w.stdout.readline() for w in both] == ["open\n"] * 2
        for w in both:
            w.stdin.write("\n")
            w.stdin.flush()
        done = [w.communicate(timeout=120)[0].split() for w in both]
        assert [w.returncode for w in both] == [0, 0]
        assert Counter(Counter(done[0] + done[1]).values()) == {1: 200}
        assert min(map(len, done)) > 0
        assert store.db.one("SELECT count(*), count(DISTINCT item) FROM answer") == (200, 200)
        assert store.db.one("SELECT count(*) FROM item WHERE value = 'high'")[0] == 200
        assert store.db.rows("SELECT * FROM reservation") == []


@pytest.mark.slow
def test_killed_at_ten_moments_no_label_is_lost(where):
    draw = random.Random(0)
    said_done = []
    with open_store(where) as store:
        queue.ask(store, [CRISIS])
        fill(store, 200)
    for i in range(10):
        worker = _worker(where, f"r{i}")
        assert worker.stdout.readline() == "open\n"
        worker.stdin.write("\n")
        worker.stdin.close()
        for _ in range(draw.randrange(3, 12)):
            said_done.append(worker.stdout.readline().strip())
        if i % 2:
            time.sleep(draw.random() / 200)  # the moment of the kill, anywhere within an answer; nothing waits for it
        worker.send_signal(signal.SIGKILL)
        rest = worker.stdout.read().split("\n")[:-1]
        said_done += rest
        worker.wait(timeout=60)
        worker.stdout.close()
    with open_store(where) as store:
        stored = {str(n) for (n,) in store.db.rows("SELECT item FROM answer")}
        assert set(said_done) <= stored, "what was said to be stored is stored"
        assert len(said_done) == len(set(said_done))
        assert store.db.one("SELECT count(*) FROM answer")[0] - len(said_done) <= 10, "at most the one in flight beyond that"
        assert len({n for (n,) in store.db.rows("SELECT item FROM reservation")} & {int(n) for n in stored}) == 0
        labelled = store.db.one("SELECT count(*) FROM item WHERE value = 'high'")[0]
        assert labelled == len(stored)
