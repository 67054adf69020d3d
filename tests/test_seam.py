"""The seam to a model: whatever gives raw scores of spans of token ids can be scored with, a reader without any model too."""

from dataclasses import replace

import numpy as np
import pytest
from artifacts import CALIBRATION, MODEL, entry, unit, vector_set

from demeanor import Monitor, Scorer
from demeanor.errors import ActivationError, ChatTemplateError, DemeanorError, ModelError, WrongModelError
from demeanor.model.chat import Encoded
from demeanor.monitor.policy import Policy
from demeanor.scoring import ConversationScorer, NotScored
from demeanor.scoring.gauge import Gauge, Places
from demeanor.scoring.scorer import open_scorer

RULE = {"name": "harmful", "trait": "harm", "threshold": {"z": 2.0}, "severity": "red", "action": "substitute", "situation": "harmful_plan"}
TALK = [{"role": "user", "content": "q q hello"}, {"role": "assistant", "content": "I see you h"}]


class Letters:
    """Reads words: each is a token. A trait's raw score is the share of a span's words that are its letter. There is no model."""

    identity = MODEL

    def __init__(self, letters="hq"):
        self.letters, self.words, self.passes = letters, [], 0

    def encode(self, conversations):
        return [self._encode(c) for c in conversations]

    def _encode(self, conversation):
        if any("???" in m.content for m in conversation.messages):
            return ChatTemplateError("no such template")
        ids, spans = [], []
        for message in conversation.messages:
            words = message.content.split()
            self.words += words
            spans.append((len(ids), len(ids) + len(words)))
            ids += [ord(word[0]) for word in words]
        return Encoded(ids, spans, "")

    def token_texts(self, ids):
        return [chr(i) for i in ids]

    def windows(self, length):
        return 1

    def project(self, jobs, directions, progress=None):
        self.passes += len(jobs)
        assert directions.matrix.shape[0] == len(self.letters)
        found: list = []
        for job in jobs:
            if ord("!") in job.ids:
                found.append(ActivationError("not finite"))
                continue
            share = [[np.mean([i == ord(c) for i in job.ids[start:end]]) for c in self.letters] for start, end in job.spans]
            found.append(np.array(share, float))
        return found


def trait(name, **changes):
    calibration = CALIBRATION | {"centre": 0.0, "spread": 0.1, "points": [[2.0, 0.0]]}
    return entry(name, calibration=calibration, safe_pole="low", **changes)


@pytest.fixture
def scorer():
    return Scorer(Letters(), vector_set(trait("harm"), trait("risk", reads="user")))


def test_it_scores_as_with_a_model(scorer):
    reading = scorer.score(TALK)
    assert (reading["harm"].z, reading["risk"].z) == pytest.approx((2.5, 20 / 3))
    assert reading.model == "tiny-chat"
    many = list(scorer.score_many([TALK, [{"role": "user", "content": "x"}, {"role": "assistant", "content": "! broken"}], TALK]))
    assert many[0] == many[2] == reading
    assert many[1] == NotScored("not finite")
    turns = scorer.score_turns([*TALK, {"role": "user", "content": "q"}, {"role": "assistant", "content": "h h"}])
    assert [turn["harm"].z for turn in turns] == pytest.approx([2.5, 10.0])
    assert scorer.score_tokens(TALK).z["harm"].tolist() == pytest.approx([0.0, 0.0, 0.0, 10.0])
    with pytest.raises(DemeanorError, match="no such template"):
        scorer.score([{"role": "user", "content": "???"}, {"role": "assistant", "content": "h"}])


def test_a_reader_that_keeps_nothing_is_read_anew_live(scorer):
    live = ConversationScorer(scorer)
    assert live.read(TALK).reading == scorer.score(TALK)
    longer = [*TALK, {"role": "user", "content": "q"}, {"role": "assistant", "content": "h h"}]
    assert live.read(longer).reading["harm"].z == pytest.approx(10.0)


@pytest.mark.parametrize(("reply", "action"), [("I see you and I am sorry", "allow"), ("h h do it", "substitute")])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_monitor_stands_on_it(scorer, reply, action, streamed):
    with Monitor(scorer, Policy.model_validate({"version": "t", "rules": [RULE]})) as monitor:
        session = monitor.session("c")
        session.user("q hello")
        if streamed:
            stream = session.stream(word + " " for word in reply.split())
            "".join(stream)
            decision = stream.decision
        else:
            decision = session.check(reply)
    assert decision.action == action


def test_what_needs_a_model_says_so(scorer):
    with pytest.raises(ModelError, match="Letters only reads"):
        _ = scorer.reader


def test_it_is_opened_like_a_model_and_bound_like_one(scorer, tmp_path):
    scorer.vectors.save(tmp_path / "vectors")
    reader = Letters()
    assert open_scorer(tmp_path / "vectors", reader).score(TALK) == scorer.score(TALK)
    other = Letters()
    other.identity = replace(MODEL, fingerprint="0" * 24)
    with pytest.raises(WrongModelError):
        open_scorer(tmp_path / "vectors", other)
    assert open_scorer(tmp_path / "vectors", other, allow_other_model=True).warnings


def test_raw_scores_become_readings_without_any_reader():
    gauge = Gauge(vector_set(trait("harm"), trait("risk", reads="user")))
    places = Places({"response": (3, 7), "user": (0, 3)})
    assert gauge.asked(places) == [(3, 7), (0, 3)]
    reading = gauge.reading(np.array([[0.2, 9.0], [9.0, 0.3]]), places)
    assert (reading["harm"].z, reading["risk"].z) == pytest.approx((2.0, 3.0))
    assert gauge.directions.matrix.shape == (2, 2 * len(unit(0)))
