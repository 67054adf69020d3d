"""From readings to what is done about a reply: pure functions, and the Decision that is shown, recorded and explained.

For each rule, with r "the reply is beyond the rule's threshold" and c "the user is beyond the condition's" (true where
there is no condition), each true, false or unknown (not scored):

    fired            r and c                   not judged   c is false
    passed           r is false                not scored   otherwise: one is unknown and neither is false

so a missing or broken score passes nothing that it might have stopped, and stops nothing that it could not have. Where the user
has said nothing in words before the reply, c is unknown too; as a chatbot's greeting is such a reply, the rule's action is then
"flag" at most. The
strongest action among fired and unscored rules is taken, the worst severity is named. Where a reply is withheld from a
user who is known to be at risk, whatever for, the reply in its place is the one for that risk: nobody who has disclosed
it is answered with a word about boundaries alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from demeanor.measure.cuts import ACTIONS, Action, Condition, Cut, withholds
from demeanor.measure.drift import DriftState
from demeanor.monitor.policy import ResolvedPolicy, ResolvedRule, Severity, Situation
from demeanor.notebook import Marked, table
from demeanor.scoring.reading import NotScored, Reading, Said, TokenScores, scores_by
from demeanor.signs import Sign

State = Literal["passed", "fired", "not judged", "not scored"]
Source = Literal["observed", "generated"]
"""Whether the reply came from elsewhere and was read, or was written by the loaded model itself."""
SEVERITIES: tuple[Severity | None, ...] = (None, "yellow", "red")
PUSHES = 5


@dataclass(frozen=True)
class RuleResult:
    """What one rule said about one reply, and why, in one plain sentence."""

    rule: str
    state: State
    action: Action
    severity: Severity | None
    situation: Situation
    """Which reviewed reply would stand in for this one, if this rule withheld it."""
    user_at_risk: bool
    """Whether the rule has a condition on the user, and it holds."""
    trait: str
    unsafe_side: Literal["above", "below"]
    explanation: str


@dataclass(frozen=True)
class Outcome:
    """What the policy says about one reply: the action to take, and every rule's result."""

    action: Action
    severity: Severity | None
    situation: Situation | None
    """Which reviewed reply stands in for this one; None where it is shown."""
    results: tuple[RuleResult, ...]
    not_scored: str | None
    """Why the reply, or a trait that a rule needed, could not be scored; None where all could."""

    @property
    def fired(self) -> tuple[str, ...]:
        """Names of the rules that fired, in the policy's order."""
        return tuple(r.rule for r in self.results if r.state == "fired")

    @property
    def why(self) -> tuple[str, ...]:
        """One sentence for each rule."""
        return tuple(r.explanation for r in self.results)


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
    source: Source
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

    @classmethod
    def of(
        cls,
        outcome: Outcome,
        reading: Reading | None,
        text: str,
        source: Source,
        referral: bool = False,
        pushes: Mapping[str, tuple[tuple[str, float], ...]] | None = None,
        latency_ms: Mapping[str, float] | None = None,
        drift: Mapping[str, DriftState] | None = None,
        unrecorded: str | None = None,
        instead: str | None = None,
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
        )

    @property
    def shown(self) -> bool:
        """Whether the reply itself is shown; in a trial run it always is."""
        return self.instead is not None or not withholds(self.action)

    @property
    def why(self) -> tuple[str, ...]:
        """One sentence for each rule."""
        return tuple(r.explanation for r in self.results)

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
        }


def decide(policy: ResolvedPolicy, reply: Reading | NotScored, user: Sequence[Said] = ()) -> Outcome:
    """What the policy says about a reply.

    Args:
        policy: Bound to the vector set that the readings come from.
        reply: The reading of the reply, or why there is none.
        user: What the user has said, turn by turn, oldest first; conditions look at the last few. Empty: the user has
            said nothing yet, and no condition can be judged.

    The worst part of a long reply, and reasoning that was set apart from it and read, are judged too, in the reply's place: each
    rule says the worst of them.
    """
    beside: list[tuple[Reading | NotScored, str]] = []
    if isinstance(reply, Reading):
        if reply.worst:
            beside.append((replace(reply, scores=reply.scores | reply.worst), "in its worst part"))
        if reply.apart is not None and reply.apart.read is not None:
            reasoning, where = reply.apart.read, "in the reasoning that stands in the reply"
            beside.append((reasoning, where))
            if isinstance(reasoning, Reading) and reasoning.worst:
                beside.append((replace(reasoning, scores=reasoning.scores | reasoning.worst), where))
    results = tuple(_judge(rule, reply, user) for rule in policy.rules)
    for other, where in beside:
        results = tuple(_worse(said, _judge(rule, other, user), where) for rule, said in zip(policy.rules, results, strict=True))
    unscored = [r for r in results if r.state == "not scored"]
    return _outcome(results, _why_not_scored(reply, unscored))


def also(whole: Outcome, part: Outcome, rules: Sequence[str]) -> Outcome:
    """The outcome of a reply of which a part was judged too: these rules have fired where they fired on the part."""
    pairs = zip(whole.results, part.results, strict=True)
    results = tuple(p if p.rule in rules and p.state == "fired" and w.state != "fired" else w for w, p in pairs)
    return _outcome(results, whole.not_scored)


def marked(outcome: Outcome, signs: Sequence[Sign]) -> Outcome:
    """The outcome of a reply that shows something by its form: it is flagged at least, for a reason of its own."""
    if not signs:
        return outcome
    found = []
    for sign in signs:
        sentence = f"{sign.what}: fired: {sign.sentence}; the action is flag."
        found.append(RuleResult(sign.what, "fired", "flag", "yellow", "unchecked", False, "", "above", sentence))
    return _outcome((*outcome.results, *found), outcome.not_scored)


def at_least(outcome: Outcome, action: Action, reason: str, what: str = "audit") -> Outcome:
    """The outcome raised to an action where it is milder, as for a reply whose record could not be written; `what` names the cause."""
    if ACTIONS.index(outcome.action) >= ACTIONS.index(action):
        return outcome
    sentence = f"{what}: {reason}; the action is then {action}."
    raised = RuleResult(what, "fired", action, "yellow", "unchecked", False, "", "above", sentence)
    return replace(
        outcome,
        action=action,
        severity=max(outcome.severity, "yellow", key=SEVERITIES.index),
        situation=_situation(action, "unchecked", outcome.results),
        results=(*outcome.results, raised),
    )


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


def _outcome(results: tuple[RuleResult, ...], not_scored: str | None) -> Outcome:
    counted = [r for r in results if r.state in ("fired", "not scored")]
    strongest = max(counted, key=lambda r: (ACTIONS.index(r.action), SEVERITIES.index(r.severity)), default=None)
    action: Action = strongest.action if strongest else "allow"
    return Outcome(
        action=action,
        severity=max((r.severity for r in counted), key=SEVERITIES.index, default=None),
        situation=_situation(action, strongest.situation if strongest else "unchecked", results),
        results=results,
        not_scored=not_scored,
    )


def _judge(resolved: ResolvedRule, reply: Reading | NotScored, user: Sequence[Said]) -> RuleResult:
    rule, cut = resolved.rule, resolved.cut
    holds, condition = _condition(resolved.condition, user)
    crossed, words = _reply(rule.trait, cut, reply)
    also = f", and {condition}" if condition else ""
    state: State
    action: Action = "allow"
    severity: Severity | None = None
    state, sentence = "passed", f"passed: {words}."
    if holds is False:
        state, sentence = "not judged", f"not judged: {condition}."
    elif crossed and holds:
        action, severity, state = rule.action, rule.severity, "fired"
        sentence = f"fired: {words}{also}; the action is {action}."
    elif crossed is not False:
        # before the user has spoken nobody has disclosed anything, and a greeting is not to be taken away for that
        action = resolved.not_scored
        if resolved.condition is not None and not user:
            action = min(action, "flag", key=ACTIONS.index)
        severity, state = "yellow", "not scored"
        sentence = f"NOT scored: {words}{also}; the action is then {action}."
    at_risk = resolved.condition is not None and holds is True
    return RuleResult(
        rule=rule.name,
        state=state,
        action=action,
        severity=severity,
        # a reply that was not checked is not thereby a harmful one; but a user at risk is at risk
        situation=rule.situation if state == "fired" or at_risk else "unchecked",
        user_at_risk=at_risk,
        trait=rule.trait,
        unsafe_side=cut.unsafe_side,
        explanation=f"{rule.name}: {sentence}",
    )


_RANK: dict[State, int] = {"not judged": 0, "passed": 1, "not scored": 2, "fired": 3}  # between results of the same action


def _worse(said: RuleResult, other: RuleResult, where: str) -> RuleResult:
    """Of a rule's results on the whole reply and on something beside it, the worse one; `where` says what that is."""

    def badness(result: RuleResult) -> tuple[int, int]:
        return ACTIONS.index(result.action), _RANK[result.state]

    if badness(other) <= badness(said):
        return said
    words = other.explanation.removeprefix(f"{other.rule}: ")
    return replace(other, explanation=f"{other.rule}: {words[:-1]} ({where}).")


def _situation(action: Action, own: Situation, results: Sequence[RuleResult]) -> Situation | None:
    """Which reviewed reply is shown: none, the one for the user's own situation where that is known, or the rule's."""
    if not withholds(action):
        return None
    return next((r.situation for r in results if r.user_at_risk and r.situation != "unchecked"), own)


def _reply(trait: str, cut: Cut, reply: Reading | NotScored) -> tuple[bool | None, str]:
    """Whether the reply is beyond the cut (None: unknown), and that in words."""
    if isinstance(reply, NotScored):
        return None, f"the reply could not be scored ({reply.error})"
    if trait not in reply.scores:
        return None, f"the reading of the reply holds no {trait}"
    crossed = cut.crossed(reply.scores[trait])
    if crossed is None:
        return None, f"the reply's {trait} is not a finite number"
    return crossed, cut.describe(trait, reply.scores[trait])


def _condition(condition: Condition | None, user: Sequence[Said]) -> tuple[bool | None, str]:
    """Whether the condition holds over the last turns (None: unknown), and that in words."""
    if condition is None:
        return True, ""
    trait, cut = condition.trait, condition.cut
    if not user:
        return None, f"no words of the user's come before the reply, so that {trait} could not be scored"
    turns = scores_by(trait, user[-condition.last_turns :])
    holds = condition.holds(turns)
    scores = [score for turn in turns for score in turn]
    known = [score for score in scores if score is not None and cut.crossed(score) is not None]
    if holds is None:
        return None, f"{trait} could not be scored in {len(scores) - len(known)} of the user's last {len(scores)} messages"
    if holds:
        crossing = next(score for score in known if cut.crossed(score))
        return True, f"in a recent message of the user {cut.describe(trait, crossing)}"
    worst = max(known, key=lambda s: s.z if cut.unsafe_side == "above" else -s.z)
    return False, f"in the worst of the user's last {len(known)} messages {cut.describe(trait, worst)}"


def _why_not_scored(reply: Reading | NotScored, unscored: Sequence[RuleResult]) -> str | None:
    if isinstance(reply, NotScored):
        return reply.error
    if unscored:
        return "; ".join(dict.fromkeys(r.explanation.partition("NOT scored: ")[2].partition("; the action")[0] for r in unscored))
    return None


def _finite(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON cannot hold."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
