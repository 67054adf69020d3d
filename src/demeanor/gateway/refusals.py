"""A request that is not served: one line of why, in the shape of OpenAI's errors, so that every client can read it.

    {"error": {"message": "...", "type": "...", "param": null, "code": "..."}}

`type` follows from the status, `code` names the cause for a program, `message` says what was seen and the way out. No refusal
repeats what the client sent: no text, no key.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application, and what it is called with."""

CODE = "demeanor.refusal"
"""Where a scope holds the code of the refusal that was sent."""
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Refusal:
    """Why a request is not served. Calling it as an ASGI app sends it."""

    status: int
    message: str
    code: str
    param: str | None = None
    """The field of the request that is at fault."""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def type(self) -> str:
        """The kind of error, in OpenAI's words."""
        return TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    @property
    def body(self) -> bytes:
        """The answer's body."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the refusal as the whole answer, and leave its code in the scope for whoever counts."""
        scope[CODE] = self.code
        body = self.body
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), *self.headers]
        start = {"type": "http.response.start", "status": self.status}
        await send({**start, "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]})
        await send({"type": "http.response.body", "body": body})
