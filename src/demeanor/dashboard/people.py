"""Accounts: who may sign in, for admins."""

from __future__ import annotations

from starlette.responses import Response

from demeanor.dashboard.handling import Asked
from demeanor.errors import ReviewError
from demeanor.review import accounts


def shown(asked: Asked) -> Response:
    """Every account, and the form for a new one."""
    return _page(asked)


def sent(asked: Asked) -> Response:
    """Add an account."""
    form = asked.form
    try:
        accounts.add(asked.store, form.get("name", ""), form.get("role", ""), form.get("password", ""), asked.name)
    except ReviewError as error:
        return _page(asked, 400, str(error))
    return asked.go("/accounts")


def changed(asked: Asked) -> Response:
    """Change an account: its role, its password, or whether it may sign in."""
    name, what = asked.form.get("name", ""), asked.form.get("what", "")
    try:
        if what == "disable":
            accounts.disable(asked.store, name, asked.name)
        elif what == "enable":
            accounts.enable(asked.store, name, asked.name)
        elif what == "password":
            accounts.set_password(asked.store, name, asked.form.get("password", ""), asked.name)
        else:
            accounts.set_role(asked.store, name, what, asked.name)
    except ReviewError as error:
        return _page(asked, 400, str(error))
    return asked.go("/accounts")


def _page(asked: Asked, status: int = 200, problem: str = "") -> Response:
    found = accounts.accounts(asked.store)
    return asked.show("accounts.html", status, accounts=found, problem=problem, roles=accounts.ROLES, shortest=accounts.SHORTEST)
