"""From what the monitor decided to what the store keeps.

A rule is tried on the whole reply, on its worst part and on reasoning that stands in it, each eased by what the user's side lacks; the
worst of these scores is what a threshold has to be compared with, and what is kept beside the verdict. This room imports no monitor: what
it needs of a decision and of a policy's rules is named here, and the monitor's own have it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from demeanor.conversation import Conversation
from demeanor.errors import ReviewError
from demeanor.measure.calibration import Calibration
from demeanor.measure.cuts import Cut, withholds
from demeanor.measure.poles import Side
from demeanor.review.drawing import Decided, Drawing, Verdict
from demeanor.review.store import Store
from demeanor.review.texts import keep
from demeanor.scoring.reading import Reading

_FAR = np.linspace(-8, 8, 3201)  # z at which a limit of probability is looked for


class AsResult(Protocol):
    """What one rule said (`monitor.RuleResult`)."""

    @property
    def rule(self) -> str: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def action(self) -> Any: ...  # noqa: D102
    @property
    def easing(self) -> float: ...  # noqa: D102


class AsDecision(Protocol):
    """A decision (`monitor.Decision`)."""

    @property
    def action(self) -> Any: ...  # noqa: D102
    @property
    def results(self) -> Sequence[AsResult]: ...  # noqa: D102
    @property
    def reading(self) -> Reading | None: ...  # noqa: D102
    @property
    def not_scored(self) -> str | None: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def shown(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True)
class Watched:
    """A rule of the policy in force, as far as it matters here."""

    name: str
    trait: str
    side: Side
    at: float
    """Its threshold, in z; NaN where that is not known."""
    withholds: bool
    eased: bool = False
    """Whether it has a condition."""

    @classmethod
    def of(cls, name: str, trait: str, cut: Cut, action: Any, calibration: Calibration | None, eased: bool) -> Watched:
        """Of a resolved rule; a limit of probability becomes the z at which the calibration reaches it."""
        return cls(name, trait, cut.unsafe_side, threshold_in_z(cut, calibration), withholds(action), eased)


def watched(policy: Any) -> tuple[Watched, ...]:
    """The rules of a policy that is bound to a vector set (`monitor.ResolvedPolicy`)."""
    return tuple(Watched.of(r.rule.name, r.rule.trait, r.cut, r.rule.action, r.calibration, bool(r.conditions)) for r in policy.rules)


def threshold_in_z(cut: Cut, calibration: Calibration | None) -> float:
    """Where a cut lies, in z; NaN where that cannot be told."""
    if cut.scale == "z":
        return cut.value
    if calibration is None:
        return math.nan
    beyond = cut.beyond(_FAR, calibration.probability(calibration.centre + calibration.spread * _FAR)) >= 0
    if not beyond.any():
        return math.nan
    return float(_FAR[beyond].min() if cut.unsafe_side == "above" else _FAR[beyond].max())


def record(
    store: Store,
    decision: AsDecision,
    conversation: Conversation,
    conversation_id: str,
    policy: Any,
    vectors: str,
    drawing: Drawing | None = None,
    decision_id: str | None = None,
) -> int:
    """Keep a decision in a store, with its reply, and give its number: what a gateway, or whoever holds a session, calls for each.

    Args:
        store: The review store.
        decision: What `Session.check` gave, or a stream's last.
        conversation: Up to the reply that was judged, as it was before anything took its place; it ends with it.
        conversation_id: The store keeps only its hash.
        policy: The resolved one that decided (`Monitor.policy`).
        vectors: The vector set's fingerprint (`Monitor.vectors`).
        drawing: How replies are drawn and how long they are kept.
        decision_id: By which a retry is known. By default a hash of the conversation's id and all its messages.

    Raises:
        ReviewError: it cannot be written, or the conversation does not end with a reply.
    """
    made = decided(decision, conversation, conversation_id, policy, vectors, decision_id or known_by(store, conversation, conversation_id))
    return keep(store, made, drawing or Drawing())


def known_by(store: Store, conversation: Conversation, conversation_id: str) -> str:
    """A decision's id where it has none of its own: the same for the same reply at the same place of a conversation."""
    return store.hashed("decision", f"{conversation_id}\n{json.dumps(conversation.to_record())}")


def decided(decision: AsDecision, conversation: Conversation, conversation_id: str, policy: Any, vectors: str, decision_id: str) -> Decided:
    """A decision as the store takes it; see `record`."""
    if not conversation.messages or conversation.messages[-1].role != "assistant":
        raise ReviewError("the conversation does not end with the assistant's reply that was judged; leave out what was said after it")
    scores = {} if decision.reading is None else {trait: score.z for trait, score in decision.reading.scores.items()}
    return Decided(
        decision=decision_id,
        conversation_id=conversation_id,
        conversation=conversation,
        action=decision.action,
        verdicts=verdicts(decision.results, decision.reading, watched(policy)),
        policy=policy.policy.identity,
        vectors=vectors,
        scores={trait: z for trait, z in scores.items() if math.isfinite(z)},
        shown=None if decision.shown else decision.text,
        not_scored=decision.not_scored,
    )


def verdicts(results: Sequence[AsResult], reading: Reading | None, rules: Sequence[Watched]) -> tuple[Verdict, ...]:
    """What each rule of the policy came to. Reasons without a rule (signs, an audit log that cannot be written) are passed over."""
    said = {result.rule: result for result in results}
    found = []
    for rule in rules:
        result = said.get(rule.name)
        if result is None:
            continue
        fired = result.state == "fired"
        caught = fired or (result.state == "not scored" and result.action != "allow")
        danger = None
        if result.state in ("fired", "passed") and reading is not None:
            danger = _danger(rule, reading, result.easing, fired)
        found.append(_verdict(rule, caught, danger))
    return tuple(found)


def from_log(body: Mapping[str, Any], rules: Sequence[Watched]) -> tuple[Verdict, ...]:
    """The same from a record of the audit log, which names the rules that fired and the scores of the whole reply.

    How far a rule with a condition eased a score is not in a record: there the score is left unknown unless the rule fired.
    """
    found = []
    for rule in rules:
        fired, z = rule.name in body["rules"], body["scores"].get(rule.trait)
        unscored = body["not_scored"] is not None and z is None and body["recommended"] != "allow"
        known = z is not None and math.isfinite(rule.at) and (fired or not rule.eased)
        danger = None
        if known:
            danger = z if rule.side == "above" else -z
            danger = max(danger, _toward(rule, rule.at)) if fired else min(danger, math.nextafter(_toward(rule, rule.at), -math.inf))
        found.append(_verdict(rule, fired or unscored, danger))
    return tuple(found)


def _toward(rule: Watched, z: float) -> float:
    return z if rule.side == "above" else -z


def _verdict(rule: Watched, caught: bool, danger: float | None) -> Verdict:
    if danger is None or not math.isfinite(danger):
        return Verdict(rule.name, rule.trait, caught, None, None, rule.side, rule.withholds)
    beyond = None if math.isnan(rule.at) else danger - _toward(rule, rule.at)
    return Verdict(rule.name, rule.trait, caught, beyond, _toward(rule, danger), rule.side, rule.withholds)


def _danger(rule: Watched, reading: Reading, easing: float, fired: bool) -> float | None:
    """The worst score that the rule was tried on, eased, toward its unsafe side."""
    found = [_toward(rule, z) - easing for z in _every_z(reading, rule.trait) if math.isfinite(z)]
    if not found:
        return None
    # one that fired on a stretch of a stream lies beyond the threshold there, whatever the whole comes to
    return max(*found, _toward(rule, rule.at)) if fired and math.isfinite(rule.at) else max(found)


def _every_z(reading: Reading, trait: str) -> Iterator[float]:
    apart = reading.apart.read if reading.apart is not None else None
    for one in (reading, *([apart] if isinstance(apart, Reading) else [])):
        for scores in (one.scores, one.worst):
            if trait in scores:
                yield scores[trait].z
