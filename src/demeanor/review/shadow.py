"""A shadow run: a candidate decides about the same replies as what is in force, which alone acts; where they differ is listed.

Only what each came to is kept, no text; a difference names its reply, whose text is in the store as long as it is kept.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from demeanor.errors import ReviewError, nearest
from demeanor.measure.cuts import ACTIONS, withholds
from demeanor.review.recording import AsDecision
from demeanor.review.store import Store

_WITHHELD = frozenset(action for action in ACTIONS if withholds(action))


@dataclass(frozen=True)
class Would:
    """What one of the two came to."""

    action: str
    rules: tuple[str, ...] = ()
    """Those that fired."""
    not_scored: bool = False

    @classmethod
    def of(cls, decision: AsDecision) -> Would:
        """Of a decision."""
        fired = tuple(result.rule for result in decision.results if result.state == "fired")
        return cls(decision.action, fired, decision.not_scored is not None)


@dataclass(frozen=True)
class Difference:
    """A reply about which the two differ."""

    reply: int | None
    """Its number in the store (`texts.read`); None where it was not kept."""
    at: float
    acted: Would
    would: Would


@dataclass(frozen=True)
class Compared:
    """How a candidate compares with what acted."""

    candidate: str
    replies: int
    table: dict[tuple[str, str], int]
    """How many replies had (the action that was taken, the action that would have been)."""
    not_scored: tuple[int, int]
    """Replies that could not be scored by what acted, and by the candidate."""
    differ: tuple[Difference, ...]
    """Those with another action, the newest first."""

    @property
    def same(self) -> int:
        """Replies with the same action from both."""
        return sum(n for (acted, would), n in self.table.items() if acted == would)

    @property
    def withheld(self) -> tuple[int, int]:
        """How many replies were withheld, and how many would have been."""
        acted = sum(n for (action, _), n in self.table.items() if action in _WITHHELD)
        return acted, sum(n for (_, action), n in self.table.items() if action in _WITHHELD)

    @property
    def words(self) -> str:
        """All of it, in a sentence."""
        acted, would = self.withheld
        return (
            f"{self.candidate}: {self.replies} replies, {self.same} with the same action, {self.replies - self.same} with another; "
            f"{acted} were withheld, {would} would have been"
        )

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "candidate": self.candidate,
            "replies": self.replies,
            "same": self.same,
            "withheld": list(self.withheld),
            "not_scored": list(self.not_scored),
            "actions": [{"acted": acted, "would": would, "replies": n} for (acted, would), n in sorted(self.table.items())],
            "differ": [asdict(one) for one in self.differ],
        }


def note(store: Store, candidate: str, decision: str, acted: Would, would: Would) -> None:
    """Keep what the candidate would have done about a decision; a retry replaces it.

    Args:
        store: The review store.
        candidate: The candidate's name: its policy's identity and its vectors' fingerprint say most.
        decision: The decision's id, as the reply was kept with.
        acted: What was done.
        would: What the candidate would have done.

    Raises:
        ReviewError: an action that is none.
    """
    for one in (acted, would):
        if one.action not in ACTIONS:
            raise ReviewError(f"unknown action {one.action!r}; {nearest(one.action, ACTIONS)}")
    store.db.run(
        "INSERT INTO shadow (decision, candidate, at, acted, would) VALUES (?, ?, ?, ?, ?) ON CONFLICT (candidate, decision) DO UPDATE "
        "SET at = excluded.at, acted = excluded.acted, would = excluded.would",
        *(decision, candidate, store.clock(), json.dumps(asdict(acted)), json.dumps(asdict(would))),
    )


def candidates(store: Store) -> list[str]:
    """Every candidate of which a shadow run was kept, the last one first."""
    return [name for (name,) in store.db.rows("SELECT candidate FROM shadow GROUP BY candidate ORDER BY max(at) DESC, candidate")]


def compare(store: Store, candidate: str | None = None, limit: int = 200) -> Compared:
    """How a candidate compares with what acted: by default the last one, with at most `limit` differences named.

    Raises ReviewError where no such shadow run was kept.
    """
    known = candidates(store)
    if not known:
        raise ReviewError("no shadow run was kept yet; run one: demeanor review shadow")
    candidate = known[0] if candidate is None else candidate
    if candidate not in known:
        raise ReviewError(f"no shadow run of {candidate!r}; {nearest(candidate, known)}")
    table: Counter[tuple[str, str]] = Counter()
    unscored = [0, 0]
    differ: list[Difference] = []
    for at, acted_text, would_text, reply in store.db.rows(
        "SELECT s.at, s.acted, s.would, r.number FROM shadow s LEFT JOIN reply r ON r.decision = s.decision WHERE s.candidate = ? "
        "ORDER BY s.at DESC, r.number DESC",
        candidate,
    ):
        acted, would = _would(acted_text), _would(would_text)
        table[acted.action, would.action] += 1
        unscored[0] += acted.not_scored
        unscored[1] += would.not_scored
        if acted.action != would.action and len(differ) < limit:
            differ.append(Difference(None if reply is None else int(reply), float(at), acted, would))
    return Compared(candidate, sum(table.values()), dict(table), (unscored[0], unscored[1]), tuple(differ))


def _would(text: str) -> Would:
    found = json.loads(text)
    return Would(found["action"], tuple(found["rules"]), bool(found["not_scored"]))
