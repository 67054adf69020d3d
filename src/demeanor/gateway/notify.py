"""Signed webhooks: each notice of the queue goes to one address, until it is received.

    POST url        webhook-id: the notice's      webhook-timestamp: seconds of this try
                    webhook-signature: v1,base64(HMAC-SHA256(secret, id + "." + timestamp + "." + body))

That is the form of the Standard Webhooks, for which receivers have libraries. Any answer from 200 to 299 means received; all else, a
redirect too, is tried again. The address is the operator's own: https, or http on this machine. The secret comes from the
environment. An address may hold a secret itself, so that messages name its host alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from urllib.parse import urlsplit

from demeanor.errors import NoticeError
from demeanor.gateway.access import is_loopback
from demeanor.gateway.notices import NoticeQueue, Waiting

SECRET = "DEMEANOR_NOTIFY_SECRET"  # noqa: S105 - the variable's name
SHORTEST = 24  # bytes of a secret
PATIENCE = 10.0  # seconds for one try
AT_ONCE = 100  # notices between two looks at whether to stop
LOOK = 30.0  # seconds after which the queue is looked at again, as other processes add to it
Post = Callable[[str, bytes, Mapping[str, str]], int]
"""Sends a body with headers to a URL; gives the answer's status, raises OSError where there is none."""


def check_url(url: str) -> str:
    """The URL. Raises NoticeError where notices could go through open networks in plain text, or it holds a password."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise NoticeError(f"notify: the webhook's URL cannot be read ({error}); write https://HOST/PATH") from error
    if parts.scheme not in ("http", "https") or not host:
        raise NoticeError("notify: the webhook's URL begins with https:// and names a host, such as https://hooks.example.org/demeanor")
    if parts.username is not None or parts.password is not None:
        raise NoticeError(
            f"notify: the webhook's URL holds a user or a password; write https://{host}/..., as notices are signed with {SECRET}"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise NoticeError(f"notify: http sends notices in plain text to {host}; use https, or an address on this machine")
    return url


def secret_from(environment: Mapping[str, str] = os.environ) -> bytes:
    """The secret that notices are signed with: whsec_ and base64, or any text of 24 bytes or more. Raises NoticeError."""
    text = environment.get(SECRET, "")
    way = f"set {SECRET} to a random secret that the receiver knows too, e.g. whsec_$(openssl rand -base64 32)"
    if not text:
        raise NoticeError(f"notify: there is no secret to sign notices with; {way}")
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True) if text.startswith("whsec_") else text.encode()
    except binascii.Error as error:
        raise NoticeError(f"notify: what follows whsec_ in {SECRET} is no base64; {way}") from error
    if len(secret) < SHORTEST:
        raise NoticeError(f"notify: the secret in {SECRET} is shorter than {SHORTEST} bytes; {way}")
    return secret


def signed(notice: Waiting, at: float, secret: bytes) -> dict[str, str]:
    """The headers of one try."""
    stamp = str(int(at))
    made = hmac.new(secret, f"{notice.id}.{stamp}.{notice.body}".encode(), hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "demeanor",
        "webhook-id": notice.id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(made).decode()}",
    }


def deliver_due(queue: NoticeQueue, url: str, secret: bytes, post: Post, told: Callable[[str], None] = lambda result: None) -> int:
    """Try what is due, each once; gives how many were tried. `told` hears "delivered", "failed" or "dead" for each. Raises NoticeError."""
    tried = 0
    while tried < AT_ONCE and (notice := queue.take()) is not None:
        tried += 1
        try:
            status = post(url, notice.body.encode(), signed(notice, queue.clock(), secret))
            problem = None if 200 <= status < 300 else f"it answered {status}"
        except OSError as error:
            problem = str(error) or type(error).__name__
        if problem is None:
            queue.delivered(notice)
            told("delivered")
        else:
            told("dead" if queue.failed(notice, f"{urlsplit(url).hostname}: {problem}") else "failed")
    return tried


class Courier:
    """A thread that delivers what is in a queue, from now until it is closed. What is left then waits on disk for the next one."""

    def __init__(
        self,
        queue: NoticeQueue,
        url: str,
        secret: bytes,
        told: Callable[[str], None] = lambda result: None,
        post: Post | None = None,
    ) -> None:
        """Begin. Raises NoticeError for a URL that `check_url` refuses."""
        self._queue, self._url, self._secret, self._told = queue, check_url(url), secret, told
        self._post = post or _post
        self._stop = threading.Event()
        self._more = threading.Event()
        self.problem: str | None = None
        """Why the queue cannot be read or written; None while it can."""
        self._thread = threading.Thread(target=self._deliver, name="demeanor-notices", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is a new notice."""
        self._more.set()

    def close(self) -> None:
        """End, after the try that is under way."""
        self._stop.set()
        self._more.set()
        self._thread.join(2 * PATIENCE)

    def __enter__(self) -> Courier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _deliver(self) -> None:
        while not self._stop.is_set():
            self._more.clear()
            wait: float | None
            try:
                deliver_due(self._queue, self._url, self._secret, self._post, self._told)
                wait = self._queue.until_due()
                self.problem = None
            except NoticeError as error:  # a full disk may be emptied
                self.problem, wait = str(error), LOOK
            self._more.wait(LOOK if wait is None else min(wait, LOOK))


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """One try over the network; redirects are not followed, and of the answer only the status is read."""
    try:
        import httpx2
    except ImportError as error:
        raise OSError("webhooks need httpx2: pip install 'demeanor[serve]'") from error
    try:
        proxies = not is_loopback(urlsplit(url).hostname or "")  # a proxy of the environment's cannot reach this machine
        with httpx2.stream(
            "POST", url, content=body, headers=dict(headers), timeout=PATIENCE, follow_redirects=False, trust_env=proxies
        ) as answer:
            return int(answer.status_code)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise OSError(type(error).__name__) from error  # its message may hold the whole URL
