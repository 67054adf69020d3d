"""A decision as it is recorded, in plain words and numbers, and as it is kept: no text and no identifier unless asked for."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AuditRecord:
    """One decision as it is recorded. The conversation's id is hashed when it is written; `text` only kept where asked."""

    conversation_id: str
    model: str
    """Name and fingerprint of the model that was read."""
    vectors: str
    """Fingerprint of the vector set."""
    policy: str
    """`Policy.identity`."""
    recommended: str
    """What the policy asked for."""
    taken: str
    """What was done; another than recommended where an operator overrode it."""
    severity: str | None
    rules: tuple[str, ...]
    scores: Mapping[str, float]
    """z of each trait."""
    source: str
    situation: str | None
    referral: bool
    """Whether the user was pointed to crisis services."""
    not_scored: str | None
    latency_ms: Mapping[str, float]
    text: str | None = None
    time: str = ""
    """ISO 8601 in UTC; left empty, the time of writing."""
    trial: bool = False
    """Whether the reply was shown in a trial run though the policy would have replaced it; nobody overrode anything then."""
    decision: str = ""
    """The decision's own id; empty in records of decisions that had none."""


@dataclass(frozen=True)
class OpenedRecord:
    """A reply begins to be shown while it is written: `decision` is the id that its decision will have.

    Where no record of that decision follows, the reply was interrupted, as by a crash: part of it may have been shown.
    """

    conversation_id: str
    decision: str
    time: str = ""


def kept(record: AuditRecord | OpenedRecord, conversation: str, keep_text: bool) -> dict[str, Any]:
    """The record as it is written: under the hash of its conversation's id, its numbers rounded, its text only where asked."""
    time = record.time or datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    if isinstance(record, OpenedRecord):
        return {"time": time, "conversation": conversation, "opened": record.decision}
    made: dict[str, Any] = {
        "time": time,
        "conversation": conversation,
        "model": record.model,
        "vectors": record.vectors,
        "policy": record.policy,
        "scores": {trait: round(float(z), 4) if math.isfinite(z) else None for trait, z in record.scores.items()},
        "rules": list(record.rules),
        "severity": record.severity,
        "recommended": record.recommended,
        "taken": record.taken,
        "situation": record.situation,
        "referral": record.referral,
        "source": record.source,
        "not_scored": record.not_scored,
        "latency_ms": {stage: round(float(ms), 3) for stage, ms in record.latency_ms.items()},
    }
    made |= {"trial": True} if record.trial else {}
    made |= {"decision": record.decision} if record.decision else {}
    return made | ({"text": record.text} if keep_text and record.text is not None else {})
