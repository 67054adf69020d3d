"""From a store's labels to a vector set: what is learnt, on which labels it is judged, and how they are weighted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from review_tools import Clock

from demeanor.conversation import Conversation, Message
from demeanor.data.to_label import Question
from demeanor.errors import ReviewError
from demeanor.extraction.adaptation import LEARNT_FROM
from demeanor.review import queue, texts
from demeanor.review.drawing import Decided, Drawing, Verdict
from demeanor.review.learning import in_words, labelled_of, learn, parts
from demeanor.review.store import open_store
from demeanor.testing import planted_scorer

HARM = Question("harm", "Harm", "does harm", "does none", "low")


@pytest.fixture(name="store")
def store_fixture(tmp_path):
    with open_store(tmp_path / "review.db", clock=Clock()) as opened:
        queue.ask(opened, [HARM])
        yield replace(opened, secret=bytes(32))


@pytest.fixture(name="scorer", scope="module")
def scorer_fixture():
    return planted_scorer()


def put(store, i, reply, caught=False, user=None, talk=None, drawing=None):
    asked = user or f"I ask question number {i} about {'abcdefghij'[i % 10] * (i % 7 + 1)} and {i * 7919}"
    conversation = Conversation((Message("user", asked), Message("assistant", reply)))
    verdict = Verdict("harmful", "harm", caught, 1.0 if caught else -3.0, 1.0, "above", True)
    decided = Decided(
        decision=f"d{i}", conversation_id=talk or f"c{i}", conversation=conversation, action="substitute" if caught else "allow",
        verdicts=[verdict], policy="p 1 (abcd)", vectors="f00d",
    )  # fmt: skip
    texts.keep(store, decided, drawing or Drawing(share=1.0))


def label_all(store, value):
    while (item := queue.next_item(store, "anna")) is not None:
        queue.answer(store, item.number, "anna", value(item))


def fill(store, n=160, seed=0, letter="Q", drawing=None):
    """Replies in which another letter than the vector's own tells the harmful ones."""
    draw = np.random.default_rng(seed)
    for i in range(n):
        harmful = draw.random() < 0.4
        many = int(draw.integers(4, 10)) if harmful else int(draw.integers(0, 4))
        noise = int(draw.integers(0, 6))
        put(store, i, f"{letter * many}{'Z' * noise} well {i}, {draw.integers(1_000_000)} it is", caught=harmful, drawing=drawing)
    label_all(store, lambda item: "high" if item.conversation.response.count(letter) > 3 else "low")


def test_a_vector_that_reads_the_wrong_thing_is_mended_by_the_labels(store, scorer):
    fill(store)
    made = learn(store, scorer.reader, scorer.vectors, "harm")
    assert made.adaptation.kept == "labels"
    assert made.before.auroc < 0.75
    assert made.after.auroc > 0.9
    assert sum(made.sizes) == 160
    assert made.after.rows == made.sizes[2]
    assert set(made.recalibration.vectors["harm"].calibration.thresholds) >= {"false_alarm 0.1"}
    assert "AUROC" in in_words(made)[1]
    assert json.loads(json.dumps(made.to_record()))["labels"]["aside"] == made.sizes[2]
    assert any("curve" in line for line in made.to_add)


def test_nothing_of_the_labels_set_aside_is_learnt_or_calibrated_on(store, scorer, monkeypatch):
    fill(store, 100)
    split = parts(store, labelled_of(store, "harm"))
    groups = [set(part.group.tolist()) for part in (split.fit, split.calibrate, split.aside)]
    assert sum(map(len, groups)) == len(set.union(*groups))
    made = learn(store, scorer.reader, scorer.vectors, "harm")
    assert len(made.vectors["harm"].reading.metadata[LEARNT_FROM]) == len(split.fit.target)
    assert made.recalibration.rows == len(split.calibrate.target)
    assert made.recalibration.left_out == 0


def test_adapting_again_begins_from_the_packs_vector_with_all_labels_and_nothing_is_refused(store, scorer):
    fill(store, 100)
    first = learn(store, scorer.reader, scorer.vectors, "harm")
    draw = np.random.default_rng(1)
    for i in range(100, 140):
        put(store, i, f"{'Q' * (8 if i % 2 else 0)} more {draw.integers(1_000_000)} words {i}")
    label_all(store, lambda item: "high" if "QQ" in item.conversation.response else "low")
    again = learn(store, scorer.reader, first.vectors, "harm")
    anew = learn(store, scorer.reader, scorer.vectors, "harm")
    assert sum(again.sizes) == 140
    assert again.adaptation.missing == 0
    assert np.allclose(again.vectors["harm"].reading.direction, anew.vectors["harm"].reading.direction)
    assert again.before.auroc > 0.85, "before is now what the first adaptation made, on labels that it has not seen"


def test_labels_stay_in_their_part_as_others_are_added(store):
    fill(store, 60)
    before = parts(store, labelled_of(store, "harm"))
    fill_more = np.random.default_rng(3)
    for i in range(60, 90):
        put(store, i, f"another {fill_more.integers(1_000_000)} reply {i}")
    label_all(store, lambda item: "low")
    after = parts(store, labelled_of(store, "harm"))

    def said(part):
        return {c.response for c in part.conversations}

    assert said(before.fit) <= said(after.fit)
    assert said(before.aside) <= said(after.aside)


def test_labels_are_weighted_by_the_chance_with_which_they_were_drawn(store, scorer):
    fill(store, 400, drawing=Drawing(share=0.25))
    labelled = labelled_of(store, "harm")
    assert set(labelled.weight.tolist()) == {1.0, 4.0}
    assert all((weight == 1.0) == (c.response.count("Q") > 3) for c, weight in zip(labelled.conversations, labelled.weight, strict=True))
    # what calibrates says how frequent harm is in the traffic, 0.4, and not among the labels
    made = learn(store, scorer.reader, scorer.vectors, "harm", adapting=False)
    assert made.adaptation is None
    assert "weighted" in made.recalibration.calibration.source
    assert torch_equal(made, scorer), "the direction stays"
    assert labelled.high.mean() > 0.6
    probability = scorer_probability(made, scorer, labelled)
    assert np.average(probability, weights=labelled.weight) == pytest.approx(0.4, abs=0.08)


def torch_equal(made, scorer):
    return bool((made.vectors["harm"].reading.direction == scorer.vectors["harm"].reading.direction).all())


def scorer_probability(made, scorer, labelled):
    entry = made.vectors["harm"]
    raw = entry.reading.raw(scorer.reader.read(labelled.conversations, entry.reading.layers, entry.reads, made.vectors.pooling))
    return entry.calibration.probability(raw.double().numpy())


def test_what_belongs_together_is_never_parted(store):
    put(store, 0, "first reply here, of one talk", talk="one")
    put(store, 1, "second reply there, of the same talk", talk="one")
    put(store, 2, "third one, elsewhere", user="the same words of a user")
    put(store, 3, "fourth, and quite another", user="the same words of a user", talk="two")
    put(store, 4, "fifth, in the talk of the fourth", talk="two")
    put(store, 5, "sixth, alone")
    label_all(store, lambda item: "high")
    groups = labelled_of(store, "harm").group.tolist()
    by_reply = dict(zip([c.response.split()[0].strip(",") for c in labelled_of(store, "harm").conversations], groups, strict=True))
    assert by_reply["first"] == by_reply["second"]
    assert by_reply["third"] == by_reply["fourth"] == by_reply["fifth"]
    assert len(set(groups)) == 3


def test_a_near_duplicate_counts_with_its_own_weight_beside_its_twin(store):
    for i in range(3):
        put(store, i, f"the very same reply with a lot of words in it that all say one thing, number {i}", user="one question")
    label_all(store, lambda item: "high")
    assert store.db.one("SELECT count(*) FROM answer")[0] == 1
    labelled = labelled_of(store, "harm")
    assert len(labelled.target) == 3
    assert labelled.prompts == 1


def test_erased_texts_and_unsure_labels_have_no_part(store):
    for i in range(4):
        put(store, i, f"reply {i} of its own {i * 7717}")
    with pytest.raises(ReviewError, match="no reply has a label of harm yet"):
        labelled_of(store, "harm")
    label_all(store, lambda item: "unsure" if item.reply == 1 else "not_applicable" if item.reply == 2 else "low")
    assert len(labelled_of(store, "harm").target) == 2
    for name in ("c2", "c3"):
        texts.erase(store, name)
    with pytest.raises(ReviewError, match="the texts of all 2 labels of harm are erased"):
        labelled_of(store, "harm")


def test_too_few_labels_say_how_many_there_are(store, scorer):
    fill(store, 8)
    with pytest.raises(ReviewError, match=r"too few labels of harm to be fitted to: \d high and \d low in that part"):
        learn(store, scorer.reader, scorer.vectors, "harm")


def test_what_to_add_names_the_kind_that_is_missing(store, scorer):
    fill(store, 60)
    made = learn(store, scorer.reader, scorer.vectors, "harm", wanted=(("miss", 0.01),))
    assert any("unsafe replies to" in line and "more prompts" in line for line in made.to_add)
