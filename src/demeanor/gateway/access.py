"""Whether a request may pass: its key, the scope that the path asks for, and what may be served without any key.

The key comes as `x-demeanor-key`, `x-api-key` or `Authorization: Bearer`. It is known by its form (dmn_...), so that the client's key
for the upstream may come beside it in another header; `without_keys` takes ours out of what is passed on.

Without keys only this machine is served: a bind beyond loopback is refused, and so is a request that a page in a browser
makes (its Host or Origin names another place), as any page that the user opens can reach 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from demeanor.errors import KeysError
from demeanor.gateway.keys import SCOPES, KeyStore, Scope
from demeanor.gateway.refusals import Refusal

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""
CARRIERS = (b"x-demeanor-key", b"x-api-key", b"authorization")
_FORM = re.compile(rb"dmn_", re.IGNORECASE)  # wherever it stands: what a client mistook for the place is not to leave the house either
CHALLENGE = (("www-authenticate", 'Bearer realm="demeanor"'),)


@dataclass(frozen=True)
class Who:
    """Who asks."""

    name: str
    id: str = ""
    """The key's id; empty where no key is needed."""
    scopes: tuple[Scope, ...] = SCOPES


LOCAL = Who("local")


def authorise(keys: KeyStore | None, headers: Headers, scope: Scope) -> Who | Refusal:
    """Who asks for something of a scope, or why it is refused. Without a store: this machine, if no other page asks in its name."""
    headers = list(headers)
    if keys is None:
        return _not_from_a_page(headers) or LOCAL
    presented = set(filter(None, (_ours(name, value) for name, value in headers)))
    if not presented:
        return _refused("no key was given; send it as Authorization: Bearer dmn_..., x-api-key or x-demeanor-key", "missing_api_key")
    if len(presented) > 1:
        return _refused("two different keys were given; send one", "invalid_api_key")
    try:
        key = keys.find(presented.pop())
    except KeysError:
        return Refusal(503, "the gateway cannot read its keys and lets nobody in; /readyz says why", "keys_unreadable")
    if key is None:
        return _refused("the key is not known here", "invalid_api_key")
    state = key.state(keys.clock())
    if state != "valid":
        ended = "was revoked" if state == "revoked" else "has expired"
        return _refused(f"the key {key.name} {ended}; ask for a new one", f"{state}_api_key")
    if scope not in key.scopes:
        return Refusal(403, f"the key {key.name} is for {', '.join(key.scopes)}; this needs {scope}", "insufficient_scope")
    return Who(key.name, key.id, key.scopes)


def without_keys(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers without those that hold a key of the gateway's, to be passed on to an upstream."""
    return [(name, value) for name, value in headers if name.lower() != CARRIERS[0] and not _FORM.search(value)]


def check_bind(host: str, keys: KeyStore | None) -> None:
    """Raise KeysError where a gateway on `host` would be open to others without a key, or where none of its keys is valid."""
    if is_loopback(host):
        return
    way = "make a key (demeanor keys add NAME --scope proxy) and name its file, or bind to 127.0.0.1"
    if keys is None:
        raise KeysError(f"binding to {host or 'every address'} without keys would let anybody who reaches this machine in; {way}")
    if not keys.valid():
        raise KeysError(f"{keys.path} holds no valid key, so that nobody could use a gateway on {host}; {way}")


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine and nothing else. An empty host, 0.0.0.0 and :: are every address."""
    name = host.strip().strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _refused(message: str, code: str) -> Refusal:
    return Refusal(401, message, code, headers=CHALLENGE)


def _ours(name: bytes, value: bytes) -> bytes | None:
    """The gateway's key in a header; None where there is none."""
    if name.lower() not in CARRIERS:
        return None
    token = value.strip()
    if name.lower() == b"authorization":
        kind, _, token = token.partition(b" ")
        token = token.strip() if kind.lower() == b"bearer" else b""
    return token if _FORM.match(token) or name.lower() == CARRIERS[0] else None


def _not_from_a_page(headers: Headers) -> Refusal | None:
    for name, value in headers:
        said = value.decode("latin-1")
        where = said if name.lower() == b"origin" else f"//{said}" if name.lower() == b"host" else None
        if where is not None and not _names_loopback(where):
            return Refusal(403, "without keys only this machine is served, as 127.0.0.1 or localhost; else set up keys", "not_local")
    return None


def _names_loopback(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "?")
    except ValueError:
        return False
