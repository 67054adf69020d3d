"""What a gateway counts: the names that the page gives, labels that do not grow, and no text anywhere."""

import json
import re
from pathlib import Path

import pytest
from monitor_tools import AT_RISK, FINE, HARMFUL, blocked, failing, planted, policy

from demeanor import Monitor
from demeanor.monitor.decision import Decision

pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families

from demeanor.gateway.metrics import MOST, Metrics
from demeanor.gateway.reasons import WHY, kind_of

ROOT = Path(__file__).parent.parent


@pytest.fixture
def metrics():
    return Metrics({"version": "1", "model": "tiny"})


def samples(metrics):
    """Every sample by name and labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def decided(**changes):
    return Decision(**{"action": "allow", "severity": None, "rules": (), "reading": None, "text": "x", "source": "observed"} | changes)


def test_a_decision_is_counted_with_its_rules_and_times(metrics):
    metrics.decision(decided())
    metrics.decision(decided(action="substitute", rules=("crisis", "boundary"), latency_ms={"score": 20.0, "audit": 3.0, "queue": 0.5}))
    metrics.decision(decided(action="substitute", instead="reviewed", not_scored="the reply could not be scored"))
    metrics.decision(decided(unrecorded="disk full"))
    found = samples(metrics)
    assert found["demeanor_decisions_total", ("action", "allow"), ("replaced", "false")] == 2
    assert found["demeanor_decisions_total", ("action", "substitute"), ("replaced", "true")] == 1
    assert found["demeanor_decisions_total", ("action", "substitute"), ("replaced", "false")] == 1  # a trial run
    assert found["demeanor_rules_fired_total", ("rule", "crisis")] == 1
    assert found["demeanor_not_scored_total", ("reason", "other")] == 1
    assert found[("demeanor_unrecorded_total",)] == 1
    assert found[("demeanor_pass_seconds_sum",)] == pytest.approx(0.02)
    assert found[("demeanor_audit_seconds_count",)] == 1
    assert found["demeanor_queue_seconds_bucket", ("le", "0.005")] == 1


def test_requests_are_counted_by_kind(metrics):
    for path, status in (
        ("/v1/chat/completions", 200),
        ("/v1/check", 429),
        ("/v1/check", 413),
        ("/etc/passwd", 404),
        ("/healthz", 999),
        ("passed", 302),
    ):
        metrics.request(path, status, 0.1)
    found = samples(metrics)
    for endpoint, kind in (("chat_completions", "2xx"), ("check", "429"), ("check", "4xx"), ("other", "4xx"), ("healthz", "other"),
                             ("passed", "3xx")):  # fmt: skip
        assert found["demeanor_requests_total", ("endpoint", endpoint), ("status", kind)] == 1


def test_labels_do_not_grow(metrics):
    for i in range(10 * MOST):
        metrics.request(f"/v1/{i}", 200, 0.0)
        metrics.decision(decided(rules=(f"rule-{i}",), not_scored=f"reason {i}"))
        metrics.refused(f"code-{i}")
        metrics.upstream_failed(f"kind-{i}")
        metrics.notice(f"result-{i}")
    found = samples(metrics)
    most_of = dict.fromkeys(("rules_fired", "refusals", "upstream_failures", "notices"), MOST + 1) | {"requests": 1, "not_scored": 1}
    for name, most in most_of.items():
        assert sum(key[0] == f"demeanor_{name}_total" for key in found) == most
    assert found["demeanor_rules_fired_total", ("rule", "other")] == 9 * MOST


def test_gauges_are_read_when_they_are_scraped(metrics):
    depth = [3]
    metrics.watch(queue_depth=lambda: depth[0], kept_bytes=lambda: 1 / 0)
    assert samples(metrics)[("demeanor_queue_depth",)] == 3
    depth[0] = 5
    found = samples(metrics)
    assert found[("demeanor_queue_depth",)] == 5
    assert str(found[("demeanor_kept_bytes",)]) == "nan"  # not 0, and the others are there


def test_no_time_is_counted_that_is_none(metrics):
    metrics.words_shown(first=float("nan"), added=float("inf"))
    metrics.words_shown(first=0.2, added=-0.001)  # a clock that was set back
    found = samples(metrics)
    assert found[("demeanor_first_shown_seconds_count",)] == 1
    assert found[("demeanor_added_seconds_sum",)] == 0


def test_several_gateways_in_one_process_count_for_themselves(metrics):
    other = Metrics({"version": "2"})
    metrics.batch(100)
    assert samples(metrics)[("demeanor_tokens_read_total",)] == 100
    assert samples(other)[("demeanor_tokens_read_total",)] == 0
    assert samples(other)["demeanor_build_info", ("version", "2")] == 1


def test_names_follow_the_rules(metrics):
    metrics.decision(decided(rules=("r",)))
    kinds = dict(line.split()[2:4] for line in metrics.exposition().decode().splitlines() if line.startswith("# TYPE "))
    for name, kind in kinds.items():
        assert name.startswith("demeanor_")
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|millis\w*|kb|mb|created)(_|$)", name), name
        assert kind != "histogram" or name.endswith("_seconds"), name


def test_the_page_names_every_metric_and_no_other(metrics):
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `(demeanor_\w+)`", page, re.MULTILINE))
    assert table == {name for name in metrics.names() if "_process_" not in name}
    known = metrics.names()
    for name in re.findall(r"demeanor_\w+", page):
        assert re.sub("_bucket$", "", name) in known | {"demeanor_not_scored_total"}
    reasons = set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) - table
    assert reasons == {kind for _, kind in WHY} | {"no_model", "other"}


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are(metrics):
    metrics.decision(decided(rules=("r",), not_scored="x"))
    metrics.request("/v1/check", 200, 0.1)
    metrics.refused("x")
    metrics.upstream_failed("x")
    board = json.loads((ROOT / "deploy" / "grafana.json").read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(asked) > 10
    known = metrics.names()
    labels = {label for key in samples(metrics) for label, _ in key[1:]}
    for expression in asked:
        found = re.findall(r"demeanor_\w+", expression)
        assert found, expression
        for name in found:
            assert name in known or re.sub("_(bucket|sum|count)$", "", name) in known, name
            assert name not in known or not name.endswith("_seconds"), f"{name} is a histogram; take its _bucket, _sum or _count"
        for group in re.findall(r"by \(([^)]*)\)", expression):
            assert set(group.replace(" ", "").split(",")) <= labels, expression
        assert expression.count("(") == expression.count(")")
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in board["panels"]}) == len(places)


@pytest.fixture(scope="module")
def scorer(tokenizer, make_model):
    return planted(make_model, tokenizer)


def why(scorer, reply=HARMFUL, unread=None):
    with Monitor(scorer, policy()) as monitor:
        session = monitor.session("c")
        session.user(AT_RISK)
        return session.check(reply, unread)


def test_reasons_of_the_monitors_own_have_their_kinds(scorer):
    with Monitor(scorer, policy(deadline=0.05)) as monitor:
        session = monitor.session("c")
        session.user(AT_RISK)
        with blocked(scorer):
            assert kind_of(session.check(HARMFUL).not_scored) == "deadline"
    with failing(scorer):
        assert kind_of(why(scorer).not_scored) == "not_finite"
    with failing(scorer, RuntimeError("CUDA out of memory. Tried to allocate")):
        assert kind_of(why(scorer).not_scored) == "memory"
    assert kind_of(why(scorer, " ").not_scored) == "empty"
    assert kind_of(why(scorer, "<think> never ends").not_scored) == "reasoning"
    assert kind_of(why(scorer, FINE, unread="it answers an image").not_scored) == "not_text"


def test_a_gateway_without_vectors_counts_its_replies_as_without_a_model():
    with Monitor.load("/nowhere/vectors", policy()) as monitor:
        session = monitor.session("c")
        session.user(AT_RISK)
        assert kind_of(session.check(FINE).not_scored, monitor.problem) == "no_model"


def test_nothing_that_was_said_is_in_the_metrics(scorer, metrics):
    decision = why(scorer, HARMFUL)
    metrics.decision(decision)
    metrics.request(f"/v1/{AT_RISK}", 200, 0.1)
    text = metrics.exposition().decode()
    for planted_text in (HARMFUL, AT_RISK, decision.text):
        assert planted_text not in text
