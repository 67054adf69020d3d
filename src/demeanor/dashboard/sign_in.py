"""Signing in and out. The session's token is in a cookie that scripts cannot read and that other sites cannot have sent."""

from __future__ import annotations

import re

from starlette.responses import Response

from demeanor.dashboard.handling import COOKIE, Asked
from demeanor.errors import TooManyAttemptsError
from demeanor.review import accounts

_WITHIN = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path of this server: a slash, no second one and no backslash after it, which browsers take for a host."""


def shown(asked: Asked) -> Response:
    """The form to sign in with."""
    return _page(asked)


def sent(asked: Asked) -> Response:
    """Begin a session, or say why not."""
    try:
        found = accounts.sign_in(asked.store, asked.form.get("name", ""), asked.form.get("password", ""), asked.address)
    except TooManyAttemptsError as error:
        response = _page(asked, 429, str(error))
        response.headers["Retry-After"] = str(error.wait)
        return response
    if found is None:
        return _page(asked, 403, "the name or the password is not right; try again")
    response = asked.go(_within(asked.form.get("next", "")))
    response.set_cookie(COOKIE, found.token, path=f"{asked.root}/", secure=asked.secure, httponly=True, samesite="strict")
    return response


def out(asked: Asked) -> Response:
    """End the session."""
    accounts.sign_out(asked.store, asked.token)
    response = asked.go("/sign-in")
    response.delete_cookie(COOKIE, path=f"{asked.root}/", httponly=True, samesite="strict")
    return response


def _page(asked: Asked, status: int = 200, problem: str = "") -> Response:
    wanted = _within(asked.form.get("next", "") or asked.query.get("next", ""))
    empty = not accounts.accounts(asked.store)
    return asked.show("sign_in.html", status, next=wanted, problem=problem, empty=empty, name=asked.form.get("name", ""))


def _within(wanted: str) -> str:
    """A page of the dashboard to go on to, and nothing elsewhere."""
    return wanted if _WITHIN.fullmatch(wanted) and not wanted.startswith("/sign-") else "/"
