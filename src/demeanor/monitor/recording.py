"""What of a decision goes into the audit log."""

from __future__ import annotations

from demeanor.audit.records import AuditRecord
from demeanor.measure.cuts import Action, withholds
from demeanor.monitor.decision import Decision


def record_of(
    decision: Decision,
    conversation_id: str,
    model: str,
    vectors: str,
    policy: str,
    taken: Action | None = None,
    text: str | None = None,
) -> AuditRecord:
    """The record of a decision; `taken` where something else than the recommended was done.

    A reply that a trial run showed is marked, not replaced, whatever the policy would have done: `taken` is then "flag" at most.
    """
    trial = decision.instead is not None
    return AuditRecord(
        conversation_id=conversation_id,
        model=model,
        vectors=vectors,
        policy=policy,
        recommended=decision.action,
        taken="flag" if trial and withholds(taken or decision.action) else taken or decision.action,
        severity=decision.severity,
        rules=decision.rules,
        scores={trait: score.z for trait, score in decision.reading.scores.items()} if decision.reading else {},
        source=decision.source,
        situation=decision.situation,
        referral=decision.referral,
        not_scored=decision.not_scored,
        latency_ms=decision.latency_ms,
        text=text,
        trial=trial,
    )
