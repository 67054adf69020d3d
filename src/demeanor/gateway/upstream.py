"""The chatbot behind the gateway: requests go on with the client's own bytes and headers, and its answers' headers come back.

Its key comes from the environment; where none is set there, the client's own is passed on. Neither is ever logged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx2

from demeanor.gateway.config import GatewayConfig, upstream_key
from demeanor.gateway.hooks import Headers
from demeanor.gateway.refusals import Refusal

_NOT_ON = frozenset(
    (b"host", b"content-length", b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"expect",
     b"proxy-authorization", b"proxy-connection", b"proxy-authenticate", b"accept-encoding", b"content-encoding", b"date", b"server")
)  # fmt: skip
"""What belongs to one connection, or to a body in another encoding, or to the gateway itself."""
OURS = b"x-demeanor-"


class Upstream:
    """The client of one upstream, for as long as the server runs."""

    def __init__(self, config: GatewayConfig, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        """Nothing is sent yet."""
        assert config.upstream is not None
        self.base, self._key = config.upstream, upstream_key()
        times = config.timeouts
        self._client = httpx2.AsyncClient(
            transport=transport,
            timeout=httpx2.Timeout(times.read, connect=times.connect, pool=times.connect),
            limits=httpx2.Limits(max_connections=config.limits.requests, max_keepalive_connections=64),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def ask(self, method: str, path: str, query: bytes, headers: Headers, body: bytes) -> AsyncIterator[httpx2.Response | Refusal]:
        """Send a request; gives the answer's head, or a refusal where there is none. `path` is what comes after the base URL."""
        url = httpx2.URL(self.base + path).copy_with(query=query or None)
        request = self._client.build_request(method, url, content=body, headers=self._headers(headers))
        try:
            response = await self._client.send(request, stream=True)
        except httpx2.TimeoutException:
            yield Refusal(504, "the upstream did not answer in time", "upstream_timeout")
            return
        except httpx2.HTTPError as error:
            yield Refusal(502, f"the upstream cannot be reached ({type(error).__name__})", "upstream_unreachable")
            return
        try:
            yield response
        finally:
            await response.aclose()

    def _headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        passed = [(name, value) for name, value in headers if name.lower() not in _NOT_ON and not name.lower().startswith(OURS)]
        if self._key is not None:
            passed = [(name, value) for name, value in passed if name.lower() not in (b"authorization", b"api-key", b"x-api-key")]
            passed.append((b"authorization", f"Bearer {self._key}".encode()))
        return [*passed, (b"accept-encoding", b"identity")]


async def read_whole(response: httpx2.Response, most: int) -> bytes | Refusal:
    """An answer's body, or a refusal where it cannot be had."""
    pieces, size = [], 0
    try:
        async for piece in response.aiter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                return Refusal(502, f"the upstream's answer is larger than {most} bytes", "upstream_too_large")
    except httpx2.TimeoutException:
        return Refusal(504, "the upstream did not end its answer in time", "upstream_timeout")
    except httpx2.HTTPError as error:
        return Refusal(502, f"the upstream broke off its answer ({type(error).__name__})", "upstream_broke_off")
    return b"".join(pieces)


def passed_back(response: httpx2.Response, drop: Sequence[bytes] = ()) -> tuple[tuple[bytes, bytes], ...]:
    """An answer's headers that go back to the client."""
    return tuple(
        (name.lower(), value)
        for name, value in response.headers.raw
        if name.lower() not in _NOT_ON and name.lower() not in drop and not name.lower().startswith(OURS)
    )
