"""The gateway as one ASGI app: which path is answered by what, and what lives as long as the server.

    POST /v1/chat/completions      passed on to the upstream and judged, or answered by the loaded model
    GET  /v1/models, ...           passed on: no reply of a chatbot comes back
    everything else under /v1      refused in one line

Nothing is kept between two requests but what a server's life needs: the monitor, the sessions, the upstream's connections.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
from starlette.applications import Starlette
from starlette.routing import Route

from demeanor.gateway.config import GatewayConfig, load_config
from demeanor.gateway.conversations import Identity
from demeanor.gateway.endpoint import Endpoint, Handler
from demeanor.gateway.hooks import Hooks
from demeanor.gateway.proxy import Proxy
from demeanor.gateway.refusals import App
from demeanor.gateway.upstream import Upstream
from demeanor.monitor.session import Monitor
from demeanor.monitor.sessions import Sessions

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
        hooks: Who may come in, and who is told what happens.
        transport: How the upstream is reached, in tests.
    """
    hooks = hooks or Hooks()
    sessions = Sessions(monitor, config.sessions.max, config.sessions.ttl)
    upstream = Upstream(config, transport) if config.upstream is not None else None
    assert upstream is not None
    proxy = Proxy(config, monitor, sessions, Identity(config.conversation_field), upstream, hooks)

    def route(path: str, name: str, scope: str, handler: Handler, methods: list[str]) -> Route:
        return Route(path, Endpoint(name, scope, handler, hooks, config.limits.body_bytes), methods=methods)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await upstream.close()

    routes = [
        route("/v1/chat/completions", "chat", "proxy", proxy.chat, ["POST"]),
        route("/{path:path}", "passed", "proxy", proxy.passed, ALL),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def app(config: GatewayConfig | str | Path | None = None, monitor: Monitor | None = None, hooks: Hooks | None = None) -> App:
    """An ASGI app to serve or to mount. Its monitor is made here, once, where none is given.

    Args:
        config: One, or the path of a YAML file.
        monitor: What judges; by default what the configuration says.
        hooks: Who may come in, and who is told what happens.
    """
    chosen = config if isinstance(config, GatewayConfig) else load_config(Path(config) if config is not None else None)
    assert monitor is not None
    return build(chosen, monitor, hooks)
