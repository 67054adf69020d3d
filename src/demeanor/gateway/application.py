"""The gateway as one ASGI app: which path is answered by what, and what lives as long as the server.

    POST /v1/chat/completions      passed on to the upstream and judged, or answered by the loaded model
    POST /v1/check, /v1/score      judged or scored, nothing passed on; /v1/moderations and LiteLLM's guardrail in their own shapes
    GET  /v1/models, ...           passed on: no reply of a chatbot comes back
    GET  /healthz, /readyz         whether it lives, and whether it can do its work
    GET  /metrics                  what was counted, for Prometheus
    GET  /openapi.json             what is served
    /dashboard/...                 what people review, where a review store is configured; it has accounts of its own
    everything else                refused in one line

Nothing is kept between two requests but what a server's life needs: the monitor, the sessions, the upstream's connections.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Callable

import httpx2
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from demeanor.dashboard.application import app as dashboard
from demeanor.gateway.answers import Answers
from demeanor.gateway.around import Around
from demeanor.gateway.checks import Checks
from demeanor.gateway.config import GatewayConfig
from demeanor.gateway.conversations import Identity
from demeanor.gateway.endpoint import Answer, Endpoint, Handler, Incoming, where
from demeanor.gateway.frames import dumped
from demeanor.gateway.guardrail import PATH, Guardrail
from demeanor.gateway.health import Health
from demeanor.gateway.hooks import Hooks, Judged, Served
from demeanor.gateway.keys import Scope
from demeanor.gateway.limits import Slots
from demeanor.gateway.metrics import CONTENT_TYPE
from demeanor.gateway.openapi import description
from demeanor.gateway.proxy import Proxy, not_served
from demeanor.gateway.refusals import App
from demeanor.gateway.upstream import Upstream
from demeanor.monitor.decision import Decision
from demeanor.monitor.session import Monitor
from demeanor.monitor.sessions import Sessions

log = logging.getLogger("demeanor.gateway")
ALL = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


def build(
    config: GatewayConfig,
    monitor: Monitor,
    hooks: Hooks | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Starlette:
    """The app on a monitor that is there; whoever made the monitor closes it.

    Args:
        config: What it does.
        monitor: What judges.
        hooks: Who may come in, where not the keys say so, and who else is told what happens.
        transport: How the upstream is reached, in tests.
    """
    around = Around(config, monitor)
    health = Health(monitor, around.problems, around.undelivered)
    hooks = _noting(around.hooks(hooks or Hooks()), health)
    sessions = Sessions(monitor, config.sessions.max, config.sessions.ttl)
    identity = Identity(config.conversation_field)
    checks = Checks(config, monitor, sessions, identity, hooks)
    upstream = Upstream(config, transport) if config.upstream is not None else None
    slots = Slots(config.limits.requests, "requests")
    proxy = Proxy(config, monitor, sessions, identity, upstream, hooks, slots) if upstream is not None else None
    answers = Answers(config, monitor, sessions, identity, hooks, slots)

    def route(path: str, name: str, scope: Scope | None, handler: Handler, *methods: str) -> Route:
        return Route(path, Endpoint(name, scope, handler, hooks, config.request_limits), methods=list(methods))

    async def counted(_: Incoming) -> App:
        return Answer(200, around.metrics.exposition(), ((b"content-type", CONTENT_TYPE.encode()),))

    async def openapi(_: Incoming) -> App:
        return Answer(200, dumped(description(proxy is not None)))

    async def refused(incoming: Incoming) -> App:
        return not_served(incoming)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        around.close()
        if upstream is not None:
            await upstream.close()

    routes = [
        route("/v1/chat/completions", "chat", "proxy", proxy.chat if proxy is not None else answers.chat, "POST"),
        route("/v1/check", "check", "check", checks.check, "POST"),
        route("/v1/score", "score", "check", checks.score, "POST"),
        route("/v1/moderations", "moderations", "check", checks.moderations, "POST"),
        route(PATH, "guardrail", "check", Guardrail(checks).answer, "POST"),
        route("/healthz", "healthz", None, health.live, "GET"),
        route("/readyz", "readyz", None, health.ready, "GET"),
        route("/metrics", "metrics", "admin", counted, "GET"),
        route("/openapi.json", "openapi", "admin", openapi, "GET"),
        *([Mount("/dashboard", dashboard(around.reviewed, config.audit))] if around.reviewed is not None else []),
        *([] if proxy is not None else [route("/v1/models", "models", "proxy", answers.models, "GET")]),
        route("/{path:path}", "passed", "proxy", proxy.passed if proxy is not None else refused, *ALL),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _noting(hooks: Hooks, health: Health) -> Hooks:
    """The hooks, none of which takes a reply away by failing; the health is told of that, and of decisions that are not recorded."""

    def told(name: str, tell: Callable[..., None], *said: object) -> None:
        try:
            tell(*said)
        except Exception as error:  # its message may hold what somebody said
            log.error("telling what was %s failed: %s", name, where(error))
            health.untold[name] = type(error).__name__
        else:
            health.untold.pop(name, None)

    def decided(decision: Decision, judged: Judged) -> None:
        health.unrecorded = decision.unrecorded
        told("decided", hooks.decided, decision, judged)

    def served(request: Served) -> None:
        told("served", hooks.served, request)

    return dataclasses.replace(hooks, decided=decided, served=served)
