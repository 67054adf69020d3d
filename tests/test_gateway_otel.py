"""Decisions as OpenTelemetry's evaluation events, through the SDK and its exporter in memory."""

import pytest
from monitor_tools import AT_RISK, FINE, HARMFUL, failing, planted, policy

from demeanor import Monitor

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from demeanor.gateway.otel import EVENT, EvaluationEvents

SECRET = "my sister's name is Aurelia"


@pytest.fixture(scope="module")
def scorer(tokenizer, make_model):
    return planted(make_model, tokenizer)


@pytest.fixture
def emitted():
    """What emits, and what it has emitted."""
    exporter, provider = InMemoryLogRecordExporter(), LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    yield EvaluationEvents(provider), lambda: [each.log_record for each in exporter.get_finished_logs()]
    provider.shutdown()


def decided(scorer, reply):
    with Monitor(scorer, policy()) as monitor:
        session = monitor.session("c")
        session.user(f"{AT_RISK} {SECRET}")
        return session.check(reply)


@pytest.mark.parametrize("reply", [FINE, HARMFUL])
def test_each_rule_is_an_event(scorer, emitted, reply):
    events, finished = emitted
    decision = decided(scorer, reply)
    events.emit(decision, "d1", "chatcmpl-1")
    found = finished()
    assert [record.event_name for record in found] == [EVENT] * len(decision.results)
    for record, result in zip(found, decision.results, strict=True):
        said = dict(record.attributes)
        assert said["gen_ai.evaluation.name"] == result.rule
        assert said["gen_ai.evaluation.score.label"] == result.state
        assert said["gen_ai.evaluation.score.value"] == pytest.approx(decision.reading.scores[result.trait].z)
        assert said["gen_ai.evaluation.explanation"] == result.reason
        assert said["gen_ai.response.id"] == "chatcmpl-1"
        assert said["demeanor.decision.id"] == "d1"
        assert "error.type" not in said
    assert any(record.severity_number.name == "WARN" for record in found) == (reply == HARMFUL)


def test_a_rule_that_could_not_be_judged_is_an_error_and_no_success(scorer, emitted):
    events, finished = emitted
    with failing(scorer):
        decision = decided(scorer, HARMFUL)
    events.emit(decision, "d1")
    found = [dict(record.attributes) for record in finished()]
    assert found
    for said in found:
        assert said["gen_ai.evaluation.score.label"] == "not scored"
        assert said["error.type"] == "not_finite"
        assert not {"gen_ai.evaluation.score.value", "gen_ai.evaluation.explanation", "gen_ai.response.id"} & set(said)


def test_no_text_is_in_an_event(scorer, emitted):
    events, finished = emitted
    with failing(scorer, RuntimeError(f"could not read {SECRET}")):
        decision = decided(scorer, f"{HARMFUL} {SECRET}")
    assert any(SECRET in result.reason for result in decision.results)  # so that there was something to leave out
    events.emit(decision, "d1")
    events.emit(decided(scorer, f"{HARMFUL} {SECRET}"), "d2")
    said = "".join(f"{record.body} {record.event_name} {dict(record.attributes)}" for record in finished())
    for text in (SECRET, HARMFUL, AT_RISK, decision.text):
        assert text not in said


def test_an_event_belongs_to_the_span_of_the_request(scorer, emitted):
    events, finished = emitted
    tracer = TracerProvider().get_tracer("t")
    with tracer.start_as_current_span("chat") as span:
        events.emit(decided(scorer, FINE), "d1")
    assert {record.span_id for record in finished()} == {span.get_span_context().span_id}


def test_without_a_provider_nothing_happens(scorer):
    EvaluationEvents().emit(decided(scorer, FINE), "d1")
