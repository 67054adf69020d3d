"""Who may review, and who is signed in.

A password is kept as scrypt's hash under a salt of its own; a session's token is kept as a hash under the store's secret, so that a copy
of the store signs nobody in. A session ends after half a day, or an hour without use, and whenever its account is disabled or its password
changed. Wrong passwords are counted by name and by address: signing in is then closed for a quarter of an hour, for that name from
that address first, so that nobody can lock another out from elsewhere with a few tries.

scrypt: Percival & Josefsson (2016), RFC 7914, with N = 2^14, r = 8, p = 1 (16 MB).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

from demeanor.errors import ReviewError, TooManyAttemptsError, nearest
from demeanor.review.store import Store

Role = Literal["reviewer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
SHORTEST = 12  # characters of a password
LONGEST = 1024
LASTS, UNUSED = 12 * 3600.0, 3600.0  # seconds that a session lasts, and lasts without use
CLOSED = 900.0  # seconds for which wrong passwords count
MOST_HERE, MOST_AT_ADDRESS, MOST_FOR_NAME = 5, 20, 50
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_COST = (14, 8, 1)


@dataclass(frozen=True)
class Account:
    """Somebody who may sign in."""

    name: str
    role: Role
    added: float
    disabled: bool = False


@dataclass(frozen=True)
class SignedIn:
    """A session."""

    token: str
    """For the browser's cookie; the store does not hold it."""
    account: Account
    csrf: str
    """What each form has to send along; the same for the whole session."""
    until: float


def add(store: Store, name: str, role: str, password: str, who: str = "") -> Account:
    """Add an account; `who` added it. Raises ReviewError for a name that is taken or none, and a password that is too short."""
    name = _name(name)
    if role not in ROLES:
        raise ReviewError(f"unknown role {role!r}; {nearest(role, ROLES)}")
    hashed = _hashed(password)
    with store.db.transaction():
        if _row(store, name) is not None:
            raise ReviewError(f"there is an account {name} already; choose another name")
        store.db.run("INSERT INTO reviewer (name, role, secret, added) VALUES (?, ?, ?, ?)", name, role, hashed, store.clock())
        store.record(who, "account added", account=name, role=role)
    return account(store, name)


def account(store: Store, name: str) -> Account:
    """An account by its name. Raises ReviewError where there is none."""
    row = _row(store, _name(name))
    if row is None:
        known = [one.name for one in accounts(store)]
        raise ReviewError(f"there is no account {name}; " + (nearest(name, known) if known else "add one: demeanor review users add NAME"))
    return _account(row)


def accounts(store: Store) -> list[Account]:
    """Every account, by name."""
    return [_account(row) for row in store.db.rows("SELECT name, role, added, disabled FROM reviewer ORDER BY name")]


def set_password(store: Store, name: str, password: str, who: str = "") -> None:
    """Give an account another password; whoever is signed in with it is signed out. Raises ReviewError."""
    found, hashed = account(store, name), _hashed(password)
    with store.db.transaction():
        store.db.run("UPDATE reviewer SET secret = ? WHERE name = ?", hashed, found.name)
        store.db.run("DELETE FROM session WHERE reviewer = ?", found.name)
        store.record(who, "password set", account=found.name)


def set_role(store: Store, name: str, role: str, who: str = "") -> None:
    """Give an account another role. Raises ReviewError where no admin would be left."""
    if role not in ROLES:
        raise ReviewError(f"unknown role {role!r}; {nearest(role, ROLES)}")
    with store.db.transaction():
        found = account(store, name)
        if role != "admin":
            _refuse_last(store, found)
        store.db.run("UPDATE reviewer SET role = ? WHERE name = ?", role, found.name)
        store.record(who, "role set", account=found.name, role=role)


def disable(store: Store, name: str, who: str = "") -> None:
    """Let an account sign in no more, and sign it out; its labels stay. Raises ReviewError where no admin would be left."""
    with store.db.transaction():
        found = account(store, name)
        _refuse_last(store, found)
        store.db.run("UPDATE reviewer SET disabled = 1 WHERE name = ?", found.name)
        store.db.run("DELETE FROM session WHERE reviewer = ?", found.name)
        store.db.run("DELETE FROM reservation WHERE reviewer = ?", found.name)
        store.record(who, "account disabled", account=found.name)


def enable(store: Store, name: str, who: str = "") -> None:
    """Let a disabled account sign in again. Raises ReviewError where there is none."""
    with store.db.transaction():
        found = account(store, name)
        store.db.run("UPDATE reviewer SET disabled = 0 WHERE name = ?", found.name)
        store.record(who, "account enabled", account=found.name)


def sign_in(store: Store, name: str, password: str, address: str = "") -> SignedIn | None:
    """Begin a session; None for a wrong name or password, or a disabled account, which takes as long as a right one.

    Args:
        store: The review store.
        name: The account's.
        password: Its password.
        address: Where the request comes from; wrong passwords are counted by it.

    Raises:
        TooManyAttemptsError: too many were wrong lately; whether this one is right is then not looked at.
    """
    now = store.clock()
    known = unicodedata.normalize("NFKC", name).strip().lower()
    by_name, by_address = store.hashed("sign-in", known), store.hashed("address", address)
    _refuse_many(store, by_name, by_address, now)
    row = store.db.one("SELECT secret, disabled FROM reviewer WHERE name = ?", known) if _NAME.fullmatch(known) else None
    right = _same(password, str(row[0]) if row else _NOBODY)
    if row is None or row[1] or not right:
        with store.db.transaction():
            store.db.run("DELETE FROM attempt WHERE at <= ?", now - CLOSED)
            store.db.run("INSERT INTO attempt (name, address, at) VALUES (?, ?, ?)", by_name, by_address, now)
        return None
    token = secrets.token_urlsafe(32)
    with store.db.transaction():
        store.db.run("DELETE FROM session WHERE until <= ? OR used <= ?", now, now - UNUSED)
        store.db.run("DELETE FROM attempt WHERE name = ? AND address = ?", by_name, by_address)
        store.db.run("INSERT INTO session (token, reviewer, used, until) VALUES (?, ?, ?, ?)", _kept(store, token), known, now, now + LASTS)
    return SignedIn(token, account(store, known), _csrf(store, token), now + LASTS)


def session(store: Store, token: str) -> SignedIn | None:
    """Who is signed in with a token, which counts as use; None where nobody is any more."""
    now = store.clock()
    row = store.db.one(
        "SELECT r.name, r.role, r.added, r.disabled, s.until, s.used FROM session s JOIN reviewer r ON r.name = s.reviewer "
        "WHERE s.token = ? AND s.until > ? AND s.used > ? AND r.disabled = 0",
        *(_kept(store, token), now, now - UNUSED),
    )
    if row is None:
        return None
    if now - float(row[5]) > UNUSED / 60:  # not a write for every page
        store.db.run("UPDATE session SET used = ? WHERE token = ?", now, _kept(store, token))
    return SignedIn(token, _account(row[:4]), _csrf(store, token), float(row[4]))


def sign_out(store: Store, token: str) -> None:
    """End a session, if there is one."""
    store.db.run("DELETE FROM session WHERE token = ?", _kept(store, token))


def _refuse_many(store: Store, by_name: str, by_address: str, now: float) -> None:
    for most, where, values in (
        (MOST_HERE, "name = ? AND address = ?", (by_name, by_address)),
        (MOST_AT_ADDRESS, "address = ?", (by_address,)),
        (MOST_FOR_NAME, "name = ?", (by_name,)),
    ):
        row = store.db.one(
            f"SELECT at FROM attempt WHERE at > ? AND {where} ORDER BY at DESC LIMIT 1 OFFSET ?", now - CLOSED, *values, most - 1
        )
        if row is not None:
            raise TooManyAttemptsError(round(float(row[0]) + CLOSED - now))


def _refuse_last(store: Store, found: Account) -> None:
    admins = [one for one in accounts(store) if one.role == "admin" and not one.disabled]
    if [one.name for one in admins] == [found.name]:
        raise ReviewError(f"{found.name} is the only admin; make another account admin first")


def _name(name: str) -> str:
    given = unicodedata.normalize("NFKC", name).strip().lower()
    if not _NAME.fullmatch(given):
        raise ReviewError(f"{name!r} cannot be an account's name: letters a to z, digits and . _ - @, 64 at most, such as anna or b.smith")
    return given


def _row(store: Store, name: str) -> tuple[object, ...] | None:
    return store.db.one("SELECT name, role, added, disabled FROM reviewer WHERE name = ?", name)


def _account(row: tuple[object, ...]) -> Account:
    name, role, added, disabled = row
    return Account(str(name), "admin" if role == "admin" else "reviewer", float(str(added)), bool(disabled))


def _kept(store: Store, token: str) -> str:
    return store.hashed("session", token)


def _csrf(store: Store, token: str) -> str:
    return store.hashed("csrf", token)


def _scrypt(password: str, salt: bytes, cost: tuple[int, int, int]) -> bytes:
    n, r, p = cost
    text = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=salt, n=2**n, r=r, p=p, maxmem=2 ** (n + 8) * r, dklen=32)


def _hashed(password: str) -> str:
    if len(password) < SHORTEST:
        raise ReviewError(f"a password needs at least {SHORTEST} characters; a few words that you remember will do")
    if len(password) > LONGEST:
        raise ReviewError(f"a password has at most {LONGEST} characters")
    salt = secrets.token_bytes(16)
    return "$".join(("scrypt", *map(str, _COST), salt.hex(), _scrypt(password, salt, _COST).hex()))


_NOBODY = "$".join(("scrypt", *map(str, _COST), "00" * 16, "00" * 32))


def _same(password: str, kept: str) -> bool:
    _, n, r, p, salt, hashed = kept.split("$")
    found = _scrypt(password[:LONGEST], bytes.fromhex(salt), (int(n), int(r), int(p)))
    return hmac.compare_digest(found, bytes.fromhex(hashed))
