"""Which vector set and policy are in force: who put them there, when and why, and the way back.

Each change is a line that stays. One step back puts in force again what stood before the present version, and a further step what stood
before that; going back and then promoting begins anew from there. What decided a reply is named in the audit log and with each kept reply
(the policy's identity and the vector set's fingerprint), whatever stands here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from demeanor.errors import ReviewError
from demeanor.review.store import Store

BUILT_IN = "built-in"
"""What stands for the folder of the built-in vector set."""
_COLUMNS = "number, at, who, why, vectors, fingerprint, policy, policy_text, back_from"


@dataclass(frozen=True)
class Version:
    """A vector set with a policy that was put in force."""

    number: int
    at: float
    who: str
    why: str
    vectors: str
    """Folder of the vector set, or `BUILT_IN`."""
    fingerprint: str
    """By which it is seen that the folder holds another one by now."""
    policy: str
    """`Policy.identity`."""
    policy_text: str
    """The policy itself, as YAML."""
    back_from: int | None = None
    """The version that was left, where this was a step back."""

    @property
    def name(self) -> str:
        """As estimates name it (`Decided.version`)."""
        return f"{self.policy}, vectors {self.fingerprint}"

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def promote(store: Store, who: str, why: str, vectors: str, fingerprint: str, policy: str, policy_text: str) -> Version:
    """Put a vector set and a policy in force. Raises ReviewError without a name or a reason, or where they are in force already."""
    _refuse_silent(who, why)
    with store.db.transaction():
        now = in_force(store)
        if now is not None and (now.vectors, now.fingerprint, now.policy_text) == (vectors, fingerprint, policy_text):
            raise ReviewError(f"version {now.number} is the same vector set and policy, and is in force since {now.who} promoted it")
        return _add(store, who, why, vectors, fingerprint, policy, policy_text, None)


def rollback(store: Store, who: str, why: str) -> Version:
    """Put in force again what stood before the present version. Raises ReviewError where nothing did."""
    _refuse_silent(who, why)
    with store.db.transaction():
        stack = _stack(store)
        if len(stack) < 2:
            raise ReviewError("there is no version to go back to" if stack else "no version is in force; promote one first")
        back, left = stack[-2], stack[-1]
        return _add(store, who, why, back.vectors, back.fingerprint, back.policy, back.policy_text, left.number)


def in_force(store: Store) -> Version | None:
    """The version that is in force; None where none was promoted."""
    row = store.db.one(f"SELECT {_COLUMNS} FROM version ORDER BY number DESC LIMIT 1")
    return None if row is None else Version(*row)


def versions(store: Store) -> list[Version]:
    """Every change, the last one first."""
    return [Version(*row) for row in store.db.rows(f"SELECT {_COLUMNS} FROM version ORDER BY number DESC")]


def _stack(store: Store) -> list[Version]:
    """What is in force, above what can be gone back to."""
    found: list[Version] = []
    for version in reversed(versions(store)):
        if version.back_from is not None:
            del found[-2:]  # what was left, and what stood before it, which stands here again
        found.append(version)
    return found


def _add(store: Store, *values: object) -> Version:
    row = store.db.one(
        "INSERT INTO version (at, who, why, vectors, fingerprint, policy, policy_text, back_from) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        f"RETURNING {_COLUMNS}",
        *(store.clock(), *values),
    )
    assert row is not None
    made = Version(*row)
    store.record(made.who, "promote" if made.back_from is None else "rollback", version=made.number, decides=made.name)
    return made


def _refuse_silent(who: str, why: str) -> None:
    if not who.strip() or not why.strip():
        raise ReviewError("say who changes what is in force, and why: both are kept with the version")
