"""The one place where the gateway asks who may come in, and tells what happened: keys, metrics, logs and notices hang here.

What is told holds no text and no key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from demeanor.gateway.refusals import Refusal
from demeanor.monitor.decision import Decision

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class Served:
    """One request and how it was answered."""

    endpoint: str
    who: str
    status: int = 0
    decisions: list[Decision] = field(default_factory=list)
    streamed: bool = False
    problem: str | None = None
    """What was wrong with the upstream, where something was."""
    gone: bool = False
    """Whether the client left before the end."""
    seconds: float = 0.0
    """From the request's last byte to the answer's."""
    to_first_shown: float | None = None
    """Seconds until the first bytes of the answer were sent, where it was streamed."""
    upstream_seconds: float = 0.0
    """Of these, spent waiting for the upstream."""


def anybody(headers: Headers, scope: str) -> str | Refusal:
    """Lets everybody in: for a gateway that only this machine can reach."""
    return "local"


@dataclass
class Hooks:
    """What is called.

    `authorise` gets a request's headers and the scope that it needs ("proxy", "check", "admin"), and gives who asks, or why not.
    """

    authorise: Callable[[Headers, str], str | Refusal] = anybody
    without_keys: Callable[[Headers], Headers] = lambda headers: headers
    """The headers without the gateway's own keys, to be passed on to the upstream."""
    decided: Callable[[Decision, str], None] = lambda decision, conversation: None
    """A decision was made, in the conversation of this id; before its text is sent."""
    served: Callable[[Served], None] = lambda served: None
    """A request was answered."""
