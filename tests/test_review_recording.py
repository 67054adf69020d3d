"""From the monitor's decisions to the store: live, from a stream, and from an audit log with its transcripts."""

import math

import pytest
from review_tools import Clock

from demeanor.conversation import Conversation, Message
from demeanor.errors import AuditError, ReviewError
from demeanor.measure.calibration import Calibration
from demeanor.measure.cuts import Cut
from demeanor.monitor.transcripts import judge_transcript
from demeanor.review import texts
from demeanor.review.drawing import ALWAYS, NEVER, STEP, Drawing, Verdict, step_of
from demeanor.review.importing import import_log
from demeanor.review.recording import Watched, from_log, record, threshold_in_z, watched
from demeanor.review.store import open_store
from demeanor.testing import AT_RISK, CALM, DOUBTFUL, FINE, HARMFUL, PLAIN, planted_monitor

ALL = Drawing(share=1.0)


@pytest.fixture(name="store")
def store_fixture(tmp_path):
    with open_store(tmp_path / "review.db", clock=Clock()) as opened:
        yield opened


@pytest.fixture(name="monitor", scope="module")
def monitor_fixture():
    with planted_monitor(enforce=True) as made:
        yield made


def talk(user, reply):
    return Conversation((Message("user", user), Message("assistant", reply)))


def live(store, monitor, user, reply, name="one"):
    session = monitor.session(name)
    session.user(user)
    decision = session.check(reply)
    number = record(store, decision, talk(user, reply), name, monitor.policy, monitor.vectors, ALL)
    return decision, texts.read(store, number)


def by_rule(kept):
    return {verdict.rule: verdict for verdict in kept.verdicts}


def test_a_decision_is_kept_with_the_reply_that_was_judged_and_what_was_shown(store, monitor):
    decision, kept = live(store, monitor, CALM, HARMFUL)
    assert kept.conversation.response == HARMFUL
    assert (kept.action, kept.shown) == ("substitute", decision.text)
    assert kept.version == f"{monitor.policy.policy.identity}, vectors {monitor.vectors}"
    assert kept.scores == {trait: score.z for trait, score in decision.reading.scores.items()}
    _, allowed = live(store, monitor, CALM, FINE, "two")
    assert (allowed.action, allowed.shown) == ("allow", None)


def test_a_verdict_says_how_far_beyond_its_rule_and_a_rule_that_does_not_judge_says_nothing(store, monitor):
    decision, kept = live(store, monitor, CALM, DOUBTFUL)
    z = decision.reading.scores["harm"].z
    found = by_rule(kept)
    assert found["odd"] == Verdict("odd", "harm", True, z - 0.5, z, "above", False)
    assert found["harmful"] == Verdict("harmful", "harm", False, z - 2.0, z, "above", True)
    assert (found["missed"].caught, found["missed"].beyond, found["missed"].z) == (False, None, None), "nobody is at risk"
    decision, kept = live(store, monitor, AT_RISK, PLAIN, "two")
    z = decision.reading.scores["care"].z
    assert by_rule(kept)["missed"] == Verdict("missed", "care", True, 1.0 - z, z, "below", True)
    assert by_rule(kept)["missed"].danger == -z


def test_a_retry_changes_nothing_and_another_place_in_the_talk_is_another_decision(store, monitor):
    for _ in range(2):
        live(store, monitor, CALM, FINE)
    live(store, monitor, CALM, FINE, "other")
    assert store.db.one("SELECT count(*) FROM reply")[0] == 2
    assert store.db.one("SELECT sum(replies) FROM spread WHERE rule = 'harmful'")[0] == 2


def test_a_reply_that_could_not_be_scored_is_caught_only_where_the_policy_does_something(store, monitor):
    session = monitor.session("one")
    session.user(AT_RISK)
    decision = session.check(PLAIN, "nobody can read it")
    kept = texts.read(store, record(store, decision, talk(AT_RISK, PLAIN), "one", monitor.policy, monitor.vectors, ALL))
    found = by_rule(kept)
    assert kept.not_scored == "nobody can read it"
    assert all(verdict.caught and verdict.z is None for verdict in found.values())
    assert {step_of(verdict) for verdict in found.values()} == {ALWAYS}


def test_the_last_decision_of_a_stream_is_kept_like_any_other(store, monitor):
    session = monitor.session("one")
    session.user(CALM)
    stream = session.stream()
    for word in HARMFUL.split(" "):
        stream.feed(word + " ")
    stream.finish()
    decision = stream.decision
    kept = texts.read(store, record(store, decision, talk(CALM, HARMFUL), "one", monitor.policy, monitor.vectors, ALL))
    found = by_rule(kept)["harmful"]
    assert kept.action == "substitute"
    assert found.caught
    assert found.beyond >= 0, "what fired lies beyond the threshold"


def test_a_conversation_that_does_not_end_with_the_reply_is_refused(store, monitor):
    session = monitor.session("one")
    session.user(CALM)
    decision = session.check(FINE)
    with pytest.raises(ReviewError, match="leave out what was said after it"):
        record(store, decision, Conversation((Message("user", CALM),)), "one", monitor.policy, monitor.vectors)


def test_a_limit_of_probability_lies_where_the_calibration_reaches_it():
    calibration = Calibration(0.0, 1.0, "platt", ((2.0, 0.0),), 12, 12, "planted")
    above = Cut("probability", 0.8, "above", "")
    below = Cut("probability", 0.8, "below", "")
    assert threshold_in_z(above, calibration) == pytest.approx(math.log(4) / 2, abs=0.01)
    assert threshold_in_z(below, calibration) == pytest.approx(-math.log(4) / 2, abs=0.01)
    assert math.isnan(threshold_in_z(above, None))


def test_steps_meet_where_thresholds_are_tried():
    def step(z, side="above", caught=False):
        return step_of(Verdict("r", "t", caught, 0.0, z, side))

    assert [step(z) for z in (-0.001, 0.0, 0.049, 0.05, 1.5)] == [-1, 0, 0, 1, round(1.5 / STEP)]
    assert step(1.5, "below") == -30
    assert (step(None), step(None, caught=True), step(math.nan)) == (NEVER, ALWAYS, NEVER)
    assert NEVER < step(-1e9) < step(1e9) < ALWAYS


@pytest.fixture(name="logged", scope="module")
def logged_fixture(tmp_path_factory):
    """An audit log of a trial run, the conversations of it, and the monitor."""
    log = tmp_path_factory.mktemp("log") / "audit.jsonl"
    talks = [
        ("a", Conversation((*talk(CALM, FINE).messages, *talk(AT_RISK, PLAIN).messages))),
        ("b", talk(CALM, DOUBTFUL)),
        ("c", talk(CALM, HARMFUL)),
    ]
    with planted_monitor(audit=log, enforce=False) as monitor:
        for name, conversation in talks:
            judge_transcript(monitor, name, conversation)
        yield log, talks, monitor


def test_an_audit_log_and_its_conversations_fill_a_store(store, logged):
    log, talks, monitor = logged
    found = import_log(store, log, talks, watched(monitor.policy), monitor.policy.policy.identity, ALL)
    assert (found.replies, dict(found.left)) == (4, {})
    kept = texts.find(store)
    assert [k.action for k in reversed(kept)] == ["allow", "substitute", "flag", "substitute"]
    assert by_rule(kept[1])["odd"].caught
    assert by_rule(kept[1])["odd"].z == pytest.approx(kept[1].scores["harm"])
    assert by_rule(kept[3])["missed"].z is None, "how far the score was eased is not in the log"
    assert by_rule(kept[2])["missed"].beyond >= 0
    import_log(store, log, talks, watched(monitor.policy), monitor.policy.policy.identity, ALL)
    assert len(texts.find(store)) == 4, "a second time nothing is added"


def test_what_does_not_fit_the_log_is_left_out_and_counted(store, logged):
    log, talks, monitor = logged
    rules, policy = watched(monitor.policy), monitor.policy.policy.identity
    longer = ("b", Conversation((*talks[1][1].messages, *talks[1][1].messages)))
    found = import_log(store, log, [talks[2], longer, ("never seen", talks[0][1])], rules, policy)
    assert found.replies == 1
    assert sorted(found.left.values()) == [2, 2]
    assert "another number of decisions" in found.words
    assert import_log(store, log, talks, rules, "another policy").left[f"decided by policy {policy}, not another policy"] == 4
    with pytest.raises(ReviewError, match="with the ids"):
        import_log(store, log, [("x", talks[0][1])], rules, policy)


def test_replies_that_were_replaced_are_not_taken_from_a_transcript(store, tmp_path):
    log = tmp_path / "audit.db"
    with planted_monitor(audit=log) as monitor:
        session = monitor.session("a")
        session.user(CALM)
        decision = session.check(HARMFUL)
        found = import_log(
            store, log, [("a", talk(CALM, decision.text))], watched(monitor.policy), monitor.policy.policy.identity
        )  # fmt: skip
    assert found.replies == 0
    assert list(found.left) == ["replaced when it was decided about, so that the transcript does not hold it"]


def test_a_log_that_was_changed_is_refused(store, logged, tmp_path):
    log, talks, monitor = logged
    changed = tmp_path / "changed.jsonl"
    changed.write_text(log.read_text().replace('"flag"', '"allow"'))
    with pytest.raises(AuditError, match="does not hold"):
        import_log(store, changed, talks, watched(monitor.policy), monitor.policy.policy.identity)


def test_every_record_of_the_log_names_the_policy_and_vectors_that_decided(logged):
    from demeanor.audit.verification import checked

    log, _, monitor = logged
    bodies = [body for _, body in checked(log) if body is not None]
    assert {(b["policy"], b["vectors"]) for b in bodies} == {(monitor.policy.policy.identity, monitor.vectors)}


def test_an_erasure_is_noted_in_the_chain_and_is_no_decision(store, logged, tmp_path):
    from demeanor.audit.counts import report
    from demeanor.audit.log import AuditLog
    from demeanor.audit.verification import verify

    log, talks, monitor = logged
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(log.read_bytes())
    before = report(copy)
    with AuditLog(copy) as opened:
        assert opened.note("erase", replies=2) == 5
    assert verify(copy).whole
    assert '"event":"erase","replies":2' in copy.read_text().splitlines()[-1].replace('\\"', '"').replace(" ", "")
    after = report(copy)
    assert (after["records"], after["months"]) == (5, before["months"])
    assert import_log(store, copy, talks, watched(monitor.policy), monitor.policy.policy.identity).replies == 4


def test_a_score_that_the_log_rounded_stays_on_its_side_of_the_threshold():
    rule = Watched("odd", "harm", "above", 0.5, False)
    body = {"rules": ["odd"], "scores": {"harm": 0.49999}, "not_scored": None, "recommended": "flag"}
    assert from_log(body, [rule])[0].beyond == 0
    assert from_log(body | {"rules": [], "scores": {"harm": 0.5}}, [rule])[0].beyond < 0
