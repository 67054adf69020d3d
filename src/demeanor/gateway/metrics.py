"""What a gateway counts, for Prometheus: seconds and bytes, one prefix, and no label whose values grow with use.

Labels hold names out of a policy or out of lists in this file, never a user, a conversation, a text or a key. A name beyond the first
hundred of its kind is counted as "other". Each gateway has a registry of its own, so that several can stand in one process; of
several processes each counts for itself. docs/metrics.md says what every metric means.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from demeanor.errors import MissingExtraError
from demeanor.gateway.reasons import kind_of
from demeanor.monitor.decision import Decision

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
except ImportError as error:
    raise MissingExtraError("a gateway's metrics need prometheus-client: pip install 'demeanor[serve]'") from error

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ENDPOINTS = {
    "/v1/chat/completions": "chat_completions",
    "/v1/check": "check",
    "/v1/score": "score",
    "/v1/moderations": "moderations",
    "/beta/litellm_basic_guardrail_api": "guardrail",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/models": "models",
    "/v1/embeddings": "embeddings",
    "/healthz": "healthz",
    "/readyz": "readyz",
    "/metrics": "metrics",
    "/openapi.json": "openapi",
}
"""Paths as the label `endpoint` names them; any other is "other"."""
NAMES = {name: name for name in ENDPOINTS.values()} | {"chat": "chat_completions", "passed": "passed"}
MOST = 100  # values of a label
FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The counters of one gateway. Its methods may be called from any thread."""

    def __init__(self, build: Mapping[str, str], problem: str | None = None) -> None:
        """`build`: what `demeanor_build_info` says, such as version, model, vectors and policy. `problem`: the monitor's, if it has one."""
        self._problem = problem
        made = self._registry = CollectorRegistry()
        self._names: dict[str, set[str]] = {}
        self.requests = Counter("demeanor_requests", "Requests that were answered.", ["endpoint", "status"], registry=made)
        self.refusals = Counter("demeanor_refusals", "Requests that were refused, by the error's code.", ["code"], registry=made)
        self.decisions = Counter("demeanor_decisions", "Decisions about replies.", ["action", "replaced"], registry=made)
        self.rules = Counter("demeanor_rules_fired", "Rules that fired.", ["rule"], registry=made)
        self.not_scored = Counter("demeanor_not_scored", "Replies that could not be scored, by kind of reason.", ["reason"], registry=made)
        self.unrecorded = Counter("demeanor_unrecorded", "Decisions that the audit log does not hold.", registry=made)
        self.upstream = Counter("demeanor_upstream_failures", "Upstream's failures, by kind.", ["kind"], registry=made)
        self.batches = Counter("demeanor_batches", "Batches that were read.", registry=made)
        self.tokens = Counter("demeanor_tokens_read", "Tokens that were read.", registry=made)
        self.notices = Counter("demeanor_notices", "Attempts to deliver a notice, by result.", ["result"], registry=made)
        self.request_seconds = self._times("demeanor_request_seconds", "From a request's arrival to its last byte.", SLOW, "endpoint")
        self.first_shown = self._times("demeanor_first_shown_seconds", "From a request's arrival to the first words of its reply.", SLOW)
        self.added = self._times("demeanor_added_seconds", "How long words of the upstream's were held back before they were sent.", SLOW)
        self._stages = {
            "queue": self._times("demeanor_queue_seconds", "How long a reply waited for its reading to begin.", SLOW),
            "score": self._times("demeanor_pass_seconds", "How long the reading of a reply took.", SLOW),
            "decide": self._times("demeanor_decide_seconds", "How long the policy took to decide.", FAST),
            "audit": self._times("demeanor_audit_seconds", "How long a record took to be on disk.", FAST),
            "write": self._times("demeanor_write_seconds", "How long the loaded model wrote a reply.", SLOW),
        }
        self._gauges = {
            "queue_depth": Gauge("demeanor_queue_depth", "Replies that wait to be read.", registry=made),
            "streams_open": Gauge("demeanor_streams_open", "Streams that are open.", registry=made),
            "kept_bytes": Gauge("demeanor_kept_bytes", "What is kept of conversations' beginnings in memory.", registry=made),
            "notices_undelivered": Gauge("demeanor_notices_undelivered", "Notices that wait to be delivered.", registry=made),
            "notices_dead": Gauge("demeanor_notices_dead", "Notices that were given up.", registry=made),
        }
        Info("demeanor_build", "Versions of what runs.", registry=made).info(dict(build))
        ProcessCollector(namespace="demeanor", registry=made)

    def request(self, path: str, status: int, seconds: float) -> None:
        """A request was answered; its path, or its endpoint's name, is counted by its kind, its status by its class (429 by itself)."""
        endpoint = ENDPOINTS.get(path) or NAMES.get(path, "other")
        self.requests.labels(endpoint, "429" if status == 429 else f"{status // 100}xx" if 100 <= status < 600 else "other").inc()
        _observe(self.request_seconds.labels(endpoint), seconds)

    def refused(self, code: str) -> None:
        """A request was refused with an error of this code."""
        self.refusals.labels(self._one_of("code", code)).inc()

    def decision(self, decision: Decision) -> None:
        """A decision was taken: its action, rules, whether the reply was scored and recorded, and the time of each stage."""
        self.decisions.labels(decision.action, "false" if decision.shown else "true").inc()
        for rule in decision.rules:
            self.rules.labels(self._one_of("rule", rule)).inc()
        if decision.not_scored is not None:
            self.not_scored.labels(kind_of(decision.not_scored, self._problem)).inc()
        if decision.unrecorded is not None:
            self.unrecorded.inc()
        for stage, ms in decision.latency_ms.items():
            if stage in self._stages:
                _observe(self._stages[stage], ms / 1000)

    def words_shown(self, first: float | None = None, added: float | None = None) -> None:
        """Words went to the client: seconds since its request for the first of a reply, and seconds that they were held back."""
        if first is not None:
            _observe(self.first_shown, first)
        if added is not None:
            _observe(self.added, added)

    def upstream_failed(self, kind: str) -> None:
        """The upstream failed; `kind` is a word such as "timeout", "broke off", "429", "5xx", "malformed"."""
        self.upstream.labels(self._one_of("kind", kind)).inc()

    def batch(self, tokens: int) -> None:
        """A batch of so many tokens was read."""
        self.batches.inc()
        self.tokens.inc(tokens)

    def notice(self, result: str) -> None:
        """An attempt to deliver a notice ended: "delivered", "failed" or "dead"."""
        self.notices.labels(self._one_of("result", result)).inc()

    def watch(self, **read: Callable[[], float]) -> None:
        """Say where a gauge's value is read at each scrape: queue_depth, streams_open, kept_bytes, notices_undelivered, notices_dead."""
        for name, call in read.items():
            self._gauges[name].set_function(_safely(call))

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format (CONTENT_TYPE)."""
        return generate_latest(_WithoutBirthdays(self._registry))

    def names(self) -> set[str]:
        """The names of all families, as the text format gives them; those of this process's memory and processor too."""
        return {line.split()[2] for line in self.exposition().decode().splitlines() if line.startswith("# TYPE ")}

    def _times(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, what, labels, buckets=buckets, registry=self._registry)

    def _one_of(self, label: str, value: str) -> str:
        known = self._names.setdefault(label, set())
        if value in known or len(known) < MOST:
            known.add(value)
            return value
        return "other"


class _WithoutBirthdays:
    """A registry without the samples that say when each counter was made: as gauges they double what is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _observe(histogram: Any, seconds: float) -> None:
    if math.isfinite(seconds):
        histogram.observe(max(0.0, seconds))


def _safely(call: Callable[[], float]) -> Callable[[], float]:
    """NaN where a value cannot be read, as one that fails is not to take the others with it."""

    def read() -> float:
        with contextlib.suppress(Exception):
            return float(call())
        return math.nan

    return read
