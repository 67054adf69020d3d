"""What every request goes through before a page is made: who asks, whether they may, and whether the form is one of ours.

A page is a function of what was asked; it runs in a thread, as the store waits for its disk. A form has to come from a page of this
dashboard (its Origin, and the session's own token in it), so that another site cannot have a signed-in browser send one.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from demeanor.dashboard.look import HEADERS, Look
from demeanor.errors import DemeanorError, ReviewError
from demeanor.review import accounts
from demeanor.review.accounts import Role, SignedIn
from demeanor.review.store import Store

COOKIE = "demeanor_session"
LONGEST = 1_000_000  # bytes of a form
FIELDS = 100
FRESH = 60.0  # seconds for which something is remembered
T = TypeVar("T")


class NotFoundError(ReviewError):
    """What was asked for is not there."""


class Counts(Protocol):
    """Counts that are made beside the pages."""

    def latest(self) -> tuple[dict[str, Any] | None, str, float]:
        """The last ones, or what was wrong, and when they were made."""


@dataclass(frozen=True)
class Desk:
    """What the pages are made from."""

    store: Store
    reports: Path | None = None
    """A folder of HTML reports that are listed."""
    counted: Counts | None = None
    """The counts of an audit log."""
    adapting: object | None = None
    """What learns from labels (adapting.Adapting)."""
    look: Look = field(default_factory=Look)
    _remembered: dict[Hashable, tuple[float, Any]] = field(default_factory=dict)

    def remembered(self, what: Hashable, make: Callable[[], T]) -> T:
        """What was made a short while ago, or is made now: for what takes long and is asked for again and again, as a slider does."""
        now = time.monotonic()
        for key, (at, _) in list(self._remembered.items()):
            if now - at > FRESH:
                self._remembered.pop(key, None)
        if what not in self._remembered:
            self._remembered[what] = now, make()
        found: T = self._remembered[what][1]
        return found


@dataclass(frozen=True)
class Asked:
    """A request, and who asks."""

    desk: Desk
    who: SignedIn | None
    root: str
    """The path at which the dashboard is mounted."""
    here: str
    """The path below it."""
    parts: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    address: str
    secure: bool
    token: str

    @property
    def store(self) -> Store:
        """The review store."""
        return self.desk.store

    @property
    def name(self) -> str:
        """The name of the account that asks."""
        assert self.who is not None
        return self.who.account.name

    @property
    def admin(self) -> bool:
        """Whether an admin asks."""
        return self.who is not None and self.who.account.role == "admin"

    def at(self, path: str, **query: Any) -> str:
        """The address of a page of the dashboard, with the parameters that are not empty."""
        asked = {name: value for name, value in query.items() if value not in (None, "")}
        return f"{self.root}{path}" + (f"?{urlencode(asked, errors='replace')}" if asked else "")

    def show(self, template: str, status: int = 200, **content: Any) -> Response:
        """A page for whoever asks."""
        return self.desk.look.page(template, status, asked=self, at=self.at, who=self.who, **content)

    def go(self, path: str, **query: Any) -> Response:
        """To another page, once a form was dealt with."""
        return RedirectResponse(self.at(path, **query), 303, HEADERS)

    def number(self, name: str) -> int:
        """A number in the path. Raises NotFoundError where it is none."""
        given = self.parts[name]
        if not (given.isascii() and given.isdigit() and len(given) < 19):
            raise NotFoundError(f"{given!r} is not a number")
        return int(given)


Page = Callable[[Asked], Response]


def endpoint(desk: Desk, page: Page, role: Role | None = "reviewer") -> Callable[[Request], Awaitable[Response]]:
    """A page as starlette calls it; `role` is what one needs to be, None for nothing."""

    async def answer(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LONGEST:
                return refused(_asked(desk, request, b""), 413, f"a form has at most {LONGEST:,} bytes; shorten the text")
        return await run_in_threadpool(_answered, desk, request, body, page, role)

    return answer


def _answered(desk: Desk, request: Request, body: bytes, page: Page, role: Role | None) -> Response:
    asked = _asked(desk, request, body)
    try:
        if role is not None and asked.who is None:
            if request.method == "POST":
                return refused(asked, 403, "you are signed out, and nothing was stored; sign in and send it again")
            return asked.go("/sign-in", next=asked.here + (f"?{request.url.query}" if request.url.query else ""))
        if role == "admin" and not asked.admin:
            return refused(asked, 403, "this page is for admins; ask one of them")
        if request.method == "POST" and not _ours(request, asked):
            return refused(asked, 403, "this form did not come from a page of your session; open the page again and send it from there")
        return page(asked)
    except NotFoundError as error:
        return refused(asked, 404, str(error))
    except DemeanorError as error:
        return refused(asked, 400, str(error))


def refused(asked: Asked, status: int, why: str) -> Response:
    """A page that says why nothing was done."""
    return asked.show("refused.html", status, why=why, title="Not found" if status == 404 else "This cannot be done")


def _asked(desk: Desk, request: Request, body: bytes) -> Asked:
    root = request.scope.get("root_path", "").rstrip("/")
    path = request.scope["path"]
    token = request.cookies.get(COOKIE, "")
    return Asked(
        desk=desk, who=accounts.session(desk.store, token) if token else None, root=root, here=quote(path.removeprefix(root) or "/"),
        parts=request.path_params, query=dict(request.query_params), form=_form(request, body),
        address=request.client.host if request.client else "", secure=request.url.scheme == "https", token=token,
    )  # fmt: skip


def _form(request: Request, body: bytes) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if request.method != "POST" or kind != "application/x-www-form-urlencoded":
        return {}
    try:
        found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:  # too many fields
        return {}
    return {name: values[-1] for name, values in found.items()}


def _ours(request: Request, asked: Asked) -> bool:
    """Whether a form comes from this dashboard: by where the browser says that it does, and by the session's token in it."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return False
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    return asked.who is None or hmac.compare_digest(asked.form.get("csrf", "").encode(), asked.who.csrf.encode())
