"""What hangs on the gateway's hooks: keys, metrics, the log of requests, notices to the people on duty, OpenTelemetry's events.

    before the handler      the key of the request is looked up
    a decision was made     it is counted and emitted, a notice of it is on disk if one is wanted, and it is kept for people to review
                            where that is switched on; before its text is sent
    a request was answered  it is counted, timed and logged

Each is told whatever the others do: what fails is said in /readyz, and takes no reply away.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from demeanor.errors import KeysError, NoticeError
from demeanor.gateway.access import without_keys
from demeanor.gateway.config import GatewayConfig, Notify
from demeanor.gateway.hooks import Hooks, Judged, Served, by_keys, local_only
from demeanor.gateway.keys import KeyStore
from demeanor.gateway.logs import RequestLog, request_line
from demeanor.gateway.metrics import Metrics
from demeanor.gateway.notices import Notice, NoticeQueue
from demeanor.gateway.notify import Courier, secret_from
from demeanor.monitor.decision import Decision
from demeanor.monitor.session import Monitor
from demeanor.review.drawing import Drawing
from demeanor.review.queue import ask, questions_of
from demeanor.review.recording import record
from demeanor.review.store import Store, open_store

if TYPE_CHECKING:
    from demeanor.gateway.otel import EvaluationEvents

FAILURES = {
    "upstream_timeout": "timeout",
    "the upstream did not go on": "timeout",
    "upstream_unreachable": "unreachable",
    "upstream_broke_off": "broke off",
    "the upstream broke off": "broke off",
    "upstream_unreadable": "malformed",
    "upstream_too_large": "too large",
    "the upstream sent a frame": "malformed",
    "the upstream sent an error": "error",
    "the upstream's answer is too long": "too large",
    "upstream_429": "429",
    "upstream_4": "4xx",
    "upstream_5": "5xx",
}
"""What a problem with the upstream begins with, and how it is counted."""


class Around:
    """Made once for an app; closed with it."""

    def __init__(self, config: GatewayConfig, monitor: Monitor) -> None:
        """Raises NoticeError, MissingExtraError: what the configuration asks for cannot be had."""
        self.store = key_store(config)
        self.log = RequestLog() if config.request_log else None
        self.events = _events() if config.otel else None
        self.metrics = Metrics(build_info(monitor), monitor.problem)
        self.queue: NoticeQueue | None = None
        self.courier: Courier | None = None
        self._notify, self._streams = config.notify, 0
        if config.notify is not None:
            secret = secret_from()
            self.queue = NoticeQueue(config.notify.queue)
            self.courier = Courier(self.queue, config.notify.webhook, secret, self.metrics.notice)
        self.reviewed, self._drawing = reviewed(config)
        if self.reviewed is not None and monitor.scorer is not None:
            ask(self.reviewed, questions_of(monitor.scorer.vectors))
        self._monitor = monitor
        self._watch(monitor)

    def hooks(self, beside: Hooks) -> Hooks:
        """The hooks, with those of somebody else's beside them; who else says who may come in says it alone."""

        def told(decision: Decision, judged: Judged) -> None:
            _all(lambda: beside.decided(decision, judged), *self._hearing(decision, judged))

        def served(request: Served) -> None:
            _all(lambda: beside.served(request), lambda: self._count(request), lambda: self._write(request))

        own = beside.authorise is not local_only
        return Hooks(
            beside.authorise if own else lambda headers, scope: by_keys(self.store, headers, scope),
            lambda headers: beside.without_keys(without_keys(headers)),
            told,
            served,
            self._streaming,
        )

    def problems(self) -> list[str]:
        """What is wrong with keys and notices."""
        found = []
        if self.store is not None:
            try:
                if not self.store.valid():
                    found.append(f"{self.store.path} holds no valid key: nobody can use the gateway")
            except KeysError as error:
                found.append(f"the keys cannot be read, and nobody is let in: {error}")
        if self.courier is not None and self.courier.problem is not None:
            found.append(f"notices are not delivered: {self.courier.problem}")
        return found

    def undelivered(self) -> Mapping[str, float] | None:
        """How many notices wait, how many were given up, and for how long the oldest has waited; None without a queue that can be read."""
        if self.queue is None:
            return None
        try:
            counts = self.queue.counts()
        except NoticeError:
            return None
        return {"waiting": counts.waiting, "dead": counts.dead, "oldest_seconds": round(counts.oldest_seconds, 1)}

    def close(self) -> None:
        """Deliver no more; what is left waits on disk."""
        if self.courier is not None:
            self.courier.close()
        if self.queue is not None:
            self.queue.close()
        if self.reviewed is not None:
            self.reviewed.close()

    def _hearing(self, decision: Decision, judged: Judged) -> list[Callable[[], None]]:
        hearing = [lambda: self.metrics.decision(decision)]
        if (events := self.events) is not None:
            hearing.append(lambda: events.emit(decision, decision.id))
        if self._notify is not None and decision.action in self._notify.actions:
            notify = self._notify
            hearing.append(lambda: self._notice(decision, notify))
        if (store := self.reviewed) is not None and judged.conversation.messages[-1].content.strip():
            hearing.append(lambda: self._keep(store, decision, judged))
        return hearing

    def _keep(self, store: Store, decision: Decision, judged: Judged) -> None:
        monitor = self._monitor
        record(store, decision, judged.conversation, judged.conversation_id, monitor.policy, monitor.vectors, self._drawing, decision.id)

    def _notice(self, decision: Decision, notify: Notify) -> None:
        assert self.queue is not None
        assert self.courier is not None
        link = notify.link.replace("{decision}", decision.id) if notify.link is not None else None
        self.queue.add(Notice(decision.id, decision.action, decision.severity, decision.rules, link))
        self.courier.wake()

    def _count(self, request: Served) -> None:
        metrics = self.metrics
        metrics.request(request.endpoint, request.status, request.seconds)
        if request.refusal is not None:
            metrics.refused(request.refusal)
        if (kind := failure(request.problem)) is not None:
            metrics.upstream_failed(kind)
        if request.decisions:
            metrics.words_shown(first=request.to_first_words if request.streamed else request.to_first_shown)
        for seconds in request.held:
            metrics.words_shown(added=seconds)

    def _write(self, request: Served) -> None:
        if self.log is None:
            return
        now = datetime.datetime.now(datetime.UTC)
        decisions = [(decision.id, decision) for decision in request.decisions]
        self.log.write(request_line(request.endpoint, request.who, request.status, request.seconds, decisions, now, request.gone))

    def _streaming(self, more: int) -> None:
        self._streams += more

    def _watch(self, monitor: Monitor) -> None:
        engine, queue = monitor.engine, self.queue
        self.metrics.watch(streams_open=lambda: self._streams)
        if engine is not None:
            engine.passed = self.metrics.batch
            self.metrics.watch(queue_depth=lambda: engine.waiting, kept_bytes=lambda: engine.used)
        if queue is not None:
            self.metrics.watch(notices_undelivered=lambda: queue.counts().waiting, notices_dead=lambda: queue.counts().dead)


def key_store(config: GatewayConfig) -> KeyStore | None:
    """The keys that the configuration names; None where nobody needs one."""
    return KeyStore(config.keys) if config.keys is not None else None


def reviewed(config: GatewayConfig) -> tuple[Store | None, Drawing]:
    """The review store that the configuration names, and how replies are drawn for it. Raises ReviewError."""
    if config.review is None:
        return None, Drawing()
    return open_store(config.review.store), Drawing(**config.review.model_dump(exclude={"store"}))


def build_info(monitor: Monitor) -> dict[str, str]:
    """What runs, in versions."""
    from demeanor import __version__

    return {"version": __version__, "model": monitor.model, "vectors": monitor.vectors, "policy": monitor.policy.policy.identity}


def failure(problem: str | None) -> str | None:
    """The kind of a failure of the upstream; None where that was none."""
    return next((kind for beginning, kind in FAILURES.items() if (problem or "").startswith(beginning)), None)


def _events() -> EvaluationEvents:
    from demeanor.gateway.otel import EvaluationEvents

    return EvaluationEvents()


def _all(*calls: Callable[[], None]) -> None:
    """Make all of these calls; raises the first error of theirs, after the last."""
    errors = []
    for call in calls:
        try:
            call()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
