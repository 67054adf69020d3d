"""Looking through a store, on SQLite and PostgreSQL alike: what is found, and counts of minutes, days and scores."""

from dataclasses import replace

import pytest
from review_tools import clock_fixture, decided, said, server_fixture, store_fixture, where_fixture  # noqa: F401

from demeanor.review import looking, queue, texts
from demeanor.review.drawing import Drawing, Verdict
from demeanor.review.estimates import estimate
from demeanor.review.looking import Wanted
from demeanor.review.picture import around, at, picture
from demeanor.review.status import status

ALL = Drawing(share=1.0)
VERSION = "guarded 1 (abcd), vectors f00d"


def put(store, i, z, **more):
    verdict = Verdict("crisis_rule", "crisis_recognition", z <= 1, 1 - z, z, "below", withholds=True)
    texts.keep(store, replace(decided(i, caught=z <= 1, conversation=said(i), **more), verdicts=(verdict,)), ALL)


@pytest.fixture
def filled(store, clock):
    clock.now = 60_000.0 * 60 * 500
    for i, (second, z) in enumerate(zip((0, 30, 59.9, 60, 90, 120), (2, 0.5, 2, 3, 0.2, 2), strict=True)):
        clock.now = 60_000.0 * 60 * 500 + second
        put(store, i, z, not_scored="too long" if i == 3 else None)
    return store


def numbers(store, **wanted):
    return [reply.number for reply in looking.search(store, Wanted(**wanted), patience=60).replies]


def test_replies_are_found(filled):
    assert numbers(filled) == [6, 5, 4, 3, 2, 1]
    assert numbers(filled, action="flag", rule="crisis_rule", trait="crisis_recognition") == [5, 2]
    assert numbers(filled, text="ALPHA3", since=0.0, until=1e12) == [4]
    queue.answer(filled, 1, "anna", "high")
    queue.answer(filled, 2, "anna", "decline")
    assert numbers(filled, reviewed=True) == [1]
    assert numbers(filled, reviewed=False, before=4) == [3, 2]
    assert numbers(filled, unasked="anna", before=4) == [2, 1]
    assert looking.unanswered(filled, "anna", [1, 2, 3]) == {3}
    assert looking.unanswered(filled, "anna", [1, 2, 3], "boundary") == set()
    assert [(a.trait, a.value) for a in looking.answers(filled, 1)] == [("crisis_recognition", "high")]


def test_counts_are_those_of_what_was_kept(filled):
    assert looking.minutes(filled, 0.0) == {"allow": {30_000_000: 2, 30_000_001: 1, 30_000_002: 1}, "flag": {30_000_000: 1, 30_000_001: 1}}
    assert looking.actions(filled, 0.0) == {"allow": 4, "flag": 2}
    assert looking.unscored(filled, 0.0) == [("too long", 1)]
    assert looking.rules(filled) == {"crisis_rule": "crisis_recognition"}
    today = looking.day(filled)
    assert sum(looking.spread(filled, VERSION, today, today)["crisis_rule"].values()) == 6
    assert looking.spread(filled, VERSION, looking.day(filled, 9), looking.day(filled, 1)) == {}
    assert looking.limits(filled, VERSION)["crisis_rule"].z == pytest.approx(1.0)


def test_an_erased_reply_is_still_counted_and_no_longer_found_by_its_text(filled):
    texts.erase(filled, "c3")
    assert numbers(filled, text="alpha3") == []
    assert 4 in numbers(filled)
    found = status(filled)
    assert (found.replies, found.texts) == (6, 5)
    assert [(one.waiting, one.gone) for one in found.asked if one.trait == "crisis_recognition"] == [(5, 1)]


def test_labelled_items_are_found_among_many_whoever_labelled_them(filled):
    for number in range(1, 6):
        queue.answer(filled, number, "anna", "high" if number % 2 else "low")
    (one,) = estimate(filled).rules
    assert one.missed.labelled + one.false_alarms.labelled == 5
    assert at(filled, "crisis_rule", 1.0).missed == picture(filled, "crisis_rule").nearest(1.0).missed
    safe, unsafe = around(filled, "crisis_rule", 1.0)
    assert [near.reply for near in unsafe] == [2, 5]
    assert {near.label for near in safe} == {"high", None}
