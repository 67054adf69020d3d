"""What a store's labels say of each rule: by strata of known chances, for each version, and no more than they support."""

from dataclasses import replace

import pytest
from review_tools import clock_fixture, decided, said, server_fixture, store_fixture, where_fixture  # noqa: F401

from demeanor.errors import ReviewError
from demeanor.review import queue, texts
from demeanor.review.drawing import Drawing, Verdict
from demeanor.review.estimates import estimate, in_words, versions_seen

DAY = 86400.0


def label(store, truth, who="anna"):
    """Answer every item that is left by the number of its reply."""
    while (item := queue.next_item(store, who)) is not None:
        queue.answer(store, item.number, who, truth(item.reply))


def test_misses_and_false_alarms_are_weighted_by_how_replies_were_chosen(store):
    # 100 caught, of which every fifth is safe; 900 allowed, of which every hundredth is missed, and a fifth is drawn
    for i in range(1000):
        texts.keep(store, decided(i, caught=i % 10 == 0, beyond=-3.0), Drawing(share=0.2))
    drawn = store.db.one("SELECT count(*) FROM item WHERE why = 'random'")[0]
    assert 130 < drawn < 230
    # reply number is i + 1
    label(store, lambda n: ("high" if n % 50 == 1 else "low") if n % 10 == 1 else ("low" if n % 100 == 2 else "high"))
    found = estimate(store)
    assert (found.version, found.replies) == (decided(0).version, 1000)
    (rule,) = found.rules
    assert (rule.rule, rule.trait, rule.caught) == ("crisis_recognition_rule", "crisis_recognition", 100)
    missed = store.db.one("SELECT count(*) FROM item WHERE why = 'random' AND value = 'low'")[0]
    assert missed > 0
    assert rule.missed.value == pytest.approx(0.9 * missed / drawn)
    assert rule.missed.interval.low <= 0.01 <= rule.missed.interval.high
    assert rule.false_alarms.value == pytest.approx(0.1 * 20 / 100)
    assert (rule.missed.labelled, rule.false_alarms.labelled) == (drawn, 100)
    assert "of 1,000 replies (95 %:" in in_words(rule.missed, "missed")


def test_what_two_rules_on_one_trait_caught_is_told_apart(store):
    # the mild rule catches all, the strict one those beyond it
    for i in range(200):
        strict = i % 4 == 0
        verdicts = [
            Verdict("mild", "crisis_recognition", True, 1.0),
            Verdict("strict", "crisis_recognition", strict, 0.5 if strict else -1.5),
        ]
        texts.keep(store, replace(decided(i), verdicts=verdicts), Drawing(share=0.1))
    label(store, lambda n: "low")
    mild, severe = estimate(store).rules
    assert (mild.caught, severe.caught) == (200, 50)
    assert mild.missed.interval == (0, 0)
    assert in_words(mild.missed, "missed") == "missed: none of the replies could be one"
    assert severe.missed.value == pytest.approx(0.75)
    assert mild.false_alarms.value is None
    assert 0 < mild.false_alarms.interval.high < 0.05


def test_too_few_labels_is_said_and_no_miss_found_is_an_upper_bound(store):
    for i in range(300):
        texts.keep(store, decided(i), Drawing(share=1.0))
    assert in_words(estimate(store).rules[0].missed, "missed").startswith("missed: too few labels to say (0,")
    for _ in range(40):
        item = queue.next_item(store, "anna")
        queue.answer(store, item.number, "anna", "high")
    assert "too few labels to say (40, and at least 50" in in_words(estimate(store).rules[0].missed, "missed")
    label(store, lambda n: "high")
    found = estimate(store).rules[0].missed
    assert found.value is None
    assert in_words(found, "missed").startswith("missed: none found in 300 labels; at most 12 of 1,000 replies")
    assert estimate(store).rules[0].to_record()["missed"]["per_1000"] is None


@pytest.mark.parametrize(
    ("value", "counts"),
    [("high", (1, 0, 0)), ("low", (0, 1, 0)), ("not_applicable", (1, 0, 0)), ("unsure", (0, 0, 1)), ("decline", (0, 0, 1))],
)
def test_what_each_answer_counts_as(store, value, counts):
    texts.keep(store, decided(0), Drawing(share=1.0))
    queue.answer(store, queue.next_item(store, "anna").number, "anna", value)
    missed = estimate(store).rules[0].missed
    assert (missed.labelled - missed.found, missed.found, missed.undecided) == counts


def test_where_reviewers_differ_it_is_undecided_until_a_third_has_answered(store):
    texts.keep(store, decided(0), Drawing(share=1.0, reviewers=2))
    for who, value, undecided in (("anna", "high", 0), ("ben", "low", 1), ("cleo", "low", 0)):
        queue.answer(store, queue.next_item(store, who).number, who, value)
        assert estimate(store).rules[0].missed.undecided == undecided
    assert estimate(store).rules[0].missed.found == 1


def test_expired_and_erased_texts_stay_in_the_numbers(store, clock):
    for i in range(60):
        texts.keep(store, decided(i), Drawing(share=1.0, days=1, labelled_days=2))
    for _ in range(55):
        item = queue.next_item(store, "anna")
        queue.answer(store, item.number, "anna", "high")
    before = estimate(store).rules[0].missed
    texts.erase(store, f"c{item.reply - 1}")
    clock.now += 5 * DAY
    assert queue.next_item(store, "ben") is None
    assert estimate(store).rules[0].missed == before
    assert before.labelled == 55


def test_versions_are_never_mixed_and_a_period_may_be_named(store, clock):
    for i in range(60):
        texts.keep(store, decided(i), Drawing(share=1.0))
    clock.now += 3 * DAY
    for i in range(60, 100):
        texts.keep(store, replace(decided(i), policy="guarded 2 (beef)"), Drawing(share=1.0))
    label(store, lambda n: "high")
    later, first = versions_seen(store)
    assert (estimate(store).version, estimate(store).replies) == (later, 40)
    assert estimate(store, first).replies == 60
    assert estimate(store, first).rules[0].missed.labelled == 60
    assert estimate(store, first, until="2000-01-01").replies == 0
    assert estimate(store, later, since="2026-01-01").rules[0].missed.labelled == 40
    with pytest.raises(ReviewError, match="no reply was decided by 'guarded 3'"):
        estimate(store, "guarded 3")


def test_an_empty_store_says_what_to_do(store):
    with pytest.raises(ReviewError, match="no reply was kept yet"):
        estimate(store)


def test_the_order_of_the_queue_does_not_favour_what_is_common(store):
    # half of the traffic is one template that is safe, and of the rest every fifth is missed; only a part is labelled
    for i in range(400):
        template = i % 2 == 0
        texts.keep(store, decided(i, conversation=said(0) if template else None), Drawing(share=1.0))
    n = 0
    while (item := queue.next_item(store, "anna")) is not None and n < 60:
        n += 1
        queue.answer(store, item.number, "anna", "low" if (item.reply - 1) % 10 == 1 else "high")
    missed = estimate(store).rules[0].missed
    copies = store.db.one("SELECT count(*) FROM item WHERE alike IS NOT NULL")[0]
    assert 30 < copies < 90, "copies take over a label in their own turn, not all at once"
    assert missed.interval.low < 0.1 < missed.interval.high
    assert missed.value == pytest.approx(0.1, abs=0.08)
