"""The decision about a reply: what an outcome comes to, as it is shown, recorded and explained."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from demeanor.measure.cuts import Action, withholds
from demeanor.measure.drift import DriftState
from demeanor.monitor.outcome import Outcome, RuleResult
from demeanor.monitor.policy import Severity, Situation
from demeanor.notebook import Marked, table
from demeanor.scoring.reading import Reading, TokenScores

ReplySource = Literal["observed", "generated"]
"""Whether the reply came from elsewhere and was read, or was written by the loaded model itself."""
PUSHES = 5


def new_id() -> str:
    """A name for a decision, that no other one has."""
    return secrets.token_hex(12)


@dataclass(frozen=True)
class Decision:
    """What the monitor did about one reply."""

    action: Action
    severity: Severity | None
    rules: tuple[str, ...]
    """Names of the rules that fired."""
    reading: Reading | None
    text: str
    """What is to be shown: the reply itself, or the reviewed one in its place. In a trial run always the reply."""
    source: ReplySource
    situation: Situation | None = None
    """Which reviewed reply stands in for the reply, or in a trial run would have; None where none does."""
    instead: str | None = None
    """In a trial run, the reviewed reply that would have been shown in its place; None where the reply would have been shown."""
    not_scored: str | None = None
    results: tuple[RuleResult, ...] = ()
    referral: bool = False
    """Whether the text shown points to crisis services."""
    pushes: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    """For each trait of a rule that fired, the tokens that pushed most toward its unsafe side, with their z."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by stage."""
    drift: Mapping[str, DriftState] | None = None
    """How far each trait has drifted in this conversation; None where there is no baseline to tell by."""
    unrecorded: str | None = None
    """Why the audit log does not hold this decision; None where it does, or where there is no log."""
    note: str = ""
    """Why the reviewed reply may not help this user as it should, such as that it is in another language than theirs; mostly empty."""
    id: str = ""
    """Its own name, drawn at random, which leads to its record in the audit log."""

    @classmethod
    def of(
        cls,
        outcome: Outcome,
        reading: Reading | None,
        text: str,
        source: ReplySource,
        referral: bool = False,
        pushes: Mapping[str, tuple[tuple[str, float], ...]] | None = None,
        latency_ms: Mapping[str, float] | None = None,
        drift: Mapping[str, DriftState] | None = None,
        unrecorded: str | None = None,
        instead: str | None = None,
        note: str = "",
    ) -> Decision:
        """The decision that carries out an outcome; `text` is what is shown, `instead` what a trial run did not show."""
        return cls(
            action=outcome.action,
            severity=outcome.severity,
            rules=outcome.fired,
            reading=reading,
            text=text,
            source=source,
            situation=outcome.situation,
            instead=instead,
            not_scored=outcome.not_scored,
            results=outcome.results,
            referral=referral,
            pushes=pushes or {},
            latency_ms=latency_ms or {},
            drift=drift,
            unrecorded=unrecorded,
            note=note,
        )

    @property
    def shown(self) -> bool:
        """Whether the reply itself is shown; in a trial run it always is."""
        return self.instead is not None or not withholds(self.action)

    @property
    def why(self) -> tuple[str, ...]:
        """One sentence for each rule, and one about the reviewed reply if there is something to say about it."""
        note = (f"{self.note[0].upper()}{self.note[1:]}.",) if self.note else ()
        return (*(r.explanation for r in self.results), *note)

    def _repr_html_(self) -> str:
        """What was done, what is shown, and why, for a notebook. Only a reply that was scored and allowed is marked as safe."""
        taken = self.action + (f" ({self.severity})" if self.severity else "") + ("" if self.instead is None else ", in a trial run")
        rows = [("shown", self.text), *([("would have shown", self.instead)] if self.instead is not None else [])]
        rows += [("not scored", self.not_scored)] if self.not_scored is not None else []
        title = Marked(f"Decision: {taken}", safe=self.action == "allow" and self.not_scored is None)
        return table(title, [*rows, *(("why", sentence) for sentence in self.why)])

    def to_record(self) -> dict[str, Any]:
        """As plain data. Holds the text shown and single tokens; the audit log has a form of its own without any."""
        return {
            "action": self.action,
            "severity": self.severity,
            "rules": list(self.rules),
            "not_scored": self.not_scored,
            "reading": _finite(self.reading.to_record()) if self.reading else None,
            "text": self.text,
            "shown": self.shown,
            "instead": self.instead,
            "source": self.source,
            "situation": self.situation,
            "referral": self.referral,
            "why": list(self.why),
            "pushes": {trait: [list(push) for push in pushes] for trait, pushes in self.pushes.items()},
            "latency_ms": {stage: round(ms, 3) for stage, ms in self.latency_ms.items()},
            "drift": {trait: _finite(asdict(state)) for trait, state in self.drift.items()} if self.drift is not None else None,
            "unrecorded": self.unrecorded,
            **({"note": self.note} if self.note else {}),
        }


def top_pushes(tokens: TokenScores, results: Sequence[RuleResult], n: int = PUSHES) -> dict[str, tuple[tuple[str, float], ...]]:
    """For each trait of a rule that fired, the `n` tokens that push most toward its unsafe side, strongest first."""
    found: dict[str, tuple[tuple[str, float], ...]] = {}
    for result in results:
        if result.state == "fired" and result.trait in tokens.z and result.trait not in found:
            z = np.asarray(tokens.z[result.trait], float)
            danger = np.where(np.isfinite(z), z if result.unsafe_side == "above" else -z, -np.inf)
            order = [i for i in np.argsort(-danger, kind="stable")[:n] if danger[i] > 0]
            found[result.trait] = tuple((tokens.tokens[i], round(float(z[i]), 3)) for i in order)
    return found


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON cannot hold."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
