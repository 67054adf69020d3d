"""Where the gateway asks who may come in, and tells what happened: keys, metrics, logs and notices hang here (see around).

What is told holds no key; only `decided` is given texts, for a review store where one is switched on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from demeanor.conversation import Conversation
from demeanor.gateway.access import authorise
from demeanor.gateway.keys import KeyStore, Scope
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
    """What was wrong with the upstream, or in the gateway, where something was."""
    refusal: str | None = None
    """The code of the refusal that was sent, where one was."""
    gone: bool = False
    """Whether the client left before the end."""
    seconds: float = 0.0
    """From the request's last byte to the answer's."""
    to_first_shown: float | None = None
    """Seconds until the first bytes of the answer were sent."""
    to_first_words: float | None = None
    """Seconds until the first words of a reply were sent."""
    held: list[float] = field(default_factory=list)
    """Seconds that each piece of the upstream's was held back before it, or what took its place, was sent."""
    began: float = field(default_factory=time.perf_counter)
    """When the request's last byte had come, by `time.perf_counter`."""
    upstream_seconds: float = 0.0
    """Of these, spent waiting for the upstream."""


class Judged(NamedTuple):
    """What a decision was made about."""

    conversation_id: str
    conversation: Conversation
    """Up to the reply, as it was before anything took its place; it ends with it."""


def local_only(headers: Headers, scope: Scope) -> str | Refusal:
    """Lets this machine in, and nothing else."""
    return by_keys(None, headers, scope)


def by_keys(store: KeyStore | None, headers: Headers, scope: Scope) -> str | Refusal:
    """Lets in who shows a key of a store's; without a store, this machine."""
    found = authorise(store, headers, scope)
    return found if isinstance(found, Refusal) else found.name


@dataclass
class Hooks:
    """What is called.

    `authorise` gets a request's headers and the scope that it needs ("proxy", "check", "admin"), and gives who asks, or why not. By default
    the configuration's keys say so.
    """

    authorise: Callable[[Headers, Scope], str | Refusal] = local_only
    without_keys: Callable[[Headers], Headers] = lambda headers: headers
    """The headers without the gateway's own keys, to be passed on to the upstream."""
    decided: Callable[[Decision, Judged], None] = lambda decision, judged: None
    """A decision was made about a reply; before its text is sent."""
    served: Callable[[Served], None] = lambda served: None
    """A request was answered."""
    streaming: Callable[[int], None] = lambda more: None
    """One stream more is open, or (-1) one less."""
