"""What a client is told of a decision: action, rules and the decision's id, which leads to its record in the audit log. No text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demeanor.measure.cuts import ACTIONS
from demeanor.monitor.decision import Decision

NOT_JUDGED = "not-judged"
"""In the place of an action, of a choice that says nothing to the user: it only calls tools."""


def told(decision: Decision | None) -> dict[str, Any]:
    """The decision as a field of an answer."""
    if decision is None:
        return {"action": NOT_JUDGED, "rules": [], "decision": None}
    return {
        "action": decision.action,
        "rules": list(decision.rules),
        "decision": decision.id,
        **({"not_scored": True} if decision.not_scored is not None else {}),
        **({"trial": True} if decision.instead is not None else {}),
    }


def headers(decisions: Sequence[Decision]) -> dict[str, str]:
    """The decisions on an answer's choices as headers: the strongest action, all rules, and all ids in the choices' order."""
    if not decisions:
        return {"x-demeanor-action": NOT_JUDGED}
    found = {
        "x-demeanor-action": max((d.action for d in decisions), key=ACTIONS.index),
        "x-demeanor-rules": ",".join(dict.fromkeys(rule for d in decisions for rule in d.rules)),
        "x-demeanor-decision": ",".join(d.id for d in decisions),
    }
    if any(d.not_scored is not None for d in decisions):
        found["x-demeanor-not-scored"] = "true"
    return found
