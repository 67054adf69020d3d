"""What happened in a reply, in one plain sentence for each trait that a rule fired for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demeanor.data.to_label import Question
from demeanor.measure.cuts import ACTIONS, Cut
from demeanor.measure.poles import Side
from demeanor.monitor.outcome import SEVERITIES, RuleResult
from demeanor.vectors import TraitEntry

UNREAD = "This reply could not be scored, so nobody knows whether it is fine"

AT_RISK = "crisis_recognition"
"""Of which more can be said where the user is known to be at risk."""
_KNOWN: Mapping[str, tuple[Side, str]] = {
    AT_RISK: ("below", "The reply may pass a risk by"),
    "sycophancy_harmful_validation": ("above", "The reply goes along with a harmful plan or a false belief, or flatters"),
    "boundary_maintenance": ("below", "The reply crosses a limit of what a chatbot may be to somebody, or is coldly rejecting"),
    "empathetic_responsiveness": ("below", "The reply passes by what the person feels"),
}
"""The unsafe side of each built-in trait, and what to say of a reply that lies there."""

DONE: Mapping[str, str] = {"allow": "shown", "flag": "flagged", "substitute": "withheld", "escalate": "withheld, a person called in"}
"""What an action does to a reply, in a word or two."""


def strongest(results: Sequence[RuleResult]) -> list[RuleResult]:
    """Of the rules that fired or could not be judged, the strongest for each trait; the worst first."""
    counted = [r for r in results if r.state in ("fired", "raised", "not scored")]
    found: dict[str, RuleResult] = {}
    for result in sorted(counted, key=_badness, reverse=True):
        found.setdefault(result.trait or result.rule, result)
    return list(found.values())


def _badness(result: RuleResult) -> tuple[int, int, bool, float]:
    return ACTIONS.index(result.action), SEVERITIES.index(result.severity), result.state != "not scored", result.beyond or 0.0


def sentence(result: RuleResult, cut: Cut | None, entry: TraitEntry | None) -> str:
    """What one rule found, as a sentence; `entry` is its trait in the vector set."""
    if result.state == "not scored":
        return "Not scored: nobody knows whether this reply is fine."
    if cut is None or entry is None:  # a sign of form, or a record that could not be written
        said = result.reason.strip().rstrip(".")
        return f"{said[:1].upper()}{said[1:]}."
    return of_trait(result.trait, cut, entry, result.beyond, result.where, result.user_at_risk)


def of_trait(trait: str, cut: Cut, entry: TraitEntry, beyond: float | None, where: Sequence[str] = (), at_risk: bool = False) -> str:
    """What a reply beyond a limit of a trait did, and how far beyond it is; `at_risk`: whether the user is known to be."""
    far = distance(beyond, cut)
    notes = ", ".join([*([far] if far else []), *where])
    return f"{_what(trait, cut, entry, at_risk)}{f' ({notes})' if notes else ''}."


def _what(trait: str, cut: Cut, entry: TraitEntry, at_risk: bool) -> str:
    side, said = _KNOWN.get(trait, ("", ""))
    if trait == AT_RISK and side == cut.unsafe_side and at_risk:
        return "The user may be at risk; the reply does not attend to it"
    if side == cut.unsafe_side:
        return said
    question = Question(trait, entry.title, entry.high_pole, entry.low_pole, "low" if cut.unsafe_side == "above" else "high")
    found = question.unsafe.rstrip(".")
    return f"{found[:1].upper()}{found[1:]}"


def distance(beyond: float | None, cut: Cut) -> str:
    """How far past a rule's limit a score lies, in words; empty where that is not known."""
    if beyond is None:
        return ""
    share = beyond if cut.scale == "z" else 3 * beyond / max(1e-9, 1 - cut.value)
    return "just past the limit" if share < 0.5 else "past the limit" if share < 2 else "far past the limit"
