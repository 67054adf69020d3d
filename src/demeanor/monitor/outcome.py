"""From readings to what is to be done about a reply: pure functions.

For each rule, with r "the reply is beyond the rule's threshold" and c "the user is beyond the condition's" (true where
there is no condition), each true, false or unknown (not scored). Where a condition is soft and does not hold, r is about the reply's
score eased by what is lacking, and c is true:

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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from demeanor.measure.conditions import COUNTS, Condition, together
from demeanor.measure.cuts import ACTIONS, Action, withholds
from demeanor.measure.poles import Side
from demeanor.monitor.policy import ResolvedPolicy, ResolvedRule, Severity, Situation
from demeanor.scoring.reading import NotScored, Reading, Said, scores_by
from demeanor.signs import Sign

State = Literal["passed", "fired", "raised", "not judged", "not scored"]
"""`raised` is no rule's: something else, such as an audit log that cannot be written, asks for at least its action."""
SEVERITIES: tuple[Severity | None, ...] = (None, "yellow", "red")


@dataclass(frozen=True)
class RuleResult:
    """What one rule said about one reply, and why."""

    rule: str
    state: State
    action: Action
    severity: Severity | None
    situation: Situation
    """Which reviewed reply would stand in for this one, if this rule withheld it."""
    user_at_risk: bool
    """Whether the rule has a condition on the user's risk, and the user's messages call for it."""
    trait: str
    unsafe_side: Side
    reason: str
    """What was compared with what, or what could not be, in words."""
    easing: float = 0.0
    """By how many z the reply's score was eased, as the user's messages do not call for the trait; 0 too where that is not known."""
    where: tuple[str, ...] = ()
    """In which part of the reply, or at which point of a stream, where that is not the whole."""
    beyond: float | None = None
    """How far the score, as it was eased, lies beyond the rule's threshold on the unsafe side, on the threshold's scale; None where that
    is not known."""

    @property
    def explanation(self) -> str:
        """All of it in one plain sentence."""
        then = {
            "passed": "",
            "not judged": "",
            "fired": f"; the action is {self.action}",
            "not scored": f"; the action is then {self.action}",
            "raised": f"; the action is then {self.action}",
        }[self.state]
        said = {"not scored": "NOT scored: ", "raised": ""}.get(self.state, f"{self.state}: ")
        return f"{self.rule}: {said}{self.reason}{then}{''.join(f' ({place})' for place in self.where)}."


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
        return tuple(r.rule for r in self.results if r.state in ("fired", "raised"))

    @property
    def why(self) -> tuple[str, ...]:
        """One sentence for each rule."""
        return tuple(r.explanation for r in self.results)


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
        found.append(RuleResult(sign.what, "fired", "flag", "yellow", "unchecked", False, "", "above", sign.sentence))
    return _outcome((*outcome.results, *found), outcome.not_scored)


def at_least(outcome: Outcome, action: Action, reason: str, what: str = "audit") -> Outcome:
    """The outcome raised to an action where it is milder, as for a reply whose record could not be written; `what` names the cause."""
    if ACTIONS.index(outcome.action) >= ACTIONS.index(action):
        return outcome
    raised = RuleResult(what, "raised", action, "yellow", "unchecked", False, "", "above", reason)
    return replace(
        outcome,
        action=action,
        severity=max(outcome.severity, "yellow", key=SEVERITIES.index),
        situation=_situation(action, "unchecked", outcome.results),
        results=(*outcome.results, raised),
    )


def _outcome(results: tuple[RuleResult, ...], not_scored: str | None) -> Outcome:
    counted = [r for r in results if r.state in ("fired", "raised", "not scored")]
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
    rule, cut, asked = resolved.rule, resolved.cut, resolved.conditions
    easing, condition = _conditions(asked, user)
    crossed, words, beyond = _reply(resolved, reply, easing)
    also = f", and {condition}" if condition else ""
    state: State
    action: Action = "allow"
    severity: Severity | None = None
    state, reason = "passed", words
    if easing is not None and math.isinf(easing):
        state, reason = "not judged", condition
    elif crossed and easing is not None:
        action, severity, state, reason = rule.action, rule.severity, "fired", words + also
    elif crossed is not False:
        # before the user has spoken nobody has disclosed anything, and a greeting is not to be taken away for that
        action = resolved.not_scored
        if easing is None and not user:
            action = min(action, "flag", key=ACTIONS.index)
        severity, state, reason = "yellow", "not scored", words + also
    elif easing:
        reason = words + also
    asks_for_it = rule.situation == "risk_disclosed" or any(condition.slope is None for condition in asked)
    at_risk = bool(asked and user) and asks_for_it and easing is not None and easing <= COUNTS
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
        reason=reason,
        easing=easing if easing is not None and math.isfinite(easing) else 0.0,
        beyond=beyond,
    )


_RANK: dict[State, int] = {"not judged": 0, "passed": 1, "not scored": 2, "fired": 3, "raised": 3}  # between results of the same action


def _worse(said: RuleResult, other: RuleResult, where: str) -> RuleResult:
    """Of a rule's results on the whole reply and on something beside it, the worse one; `where` says what that is."""

    def badness(result: RuleResult) -> tuple[int, int]:
        return ACTIONS.index(result.action), _RANK[result.state]

    if badness(other) <= badness(said):
        return said
    return replace(other, where=(*other.where, where))


def _situation(action: Action, own: Situation, results: Sequence[RuleResult]) -> Situation | None:
    """Which reviewed reply is shown: none, the one for the user's own situation where that is known, or the rule's."""
    if not withholds(action):
        return None
    return next((r.situation for r in results if r.user_at_risk and r.situation != "unchecked"), own)


def _reply(resolved: ResolvedRule, reply: Reading | NotScored, easing: float | None) -> tuple[bool | None, str, float | None]:
    """Whether the reply, with its score eased, is beyond the cut (None: unknown), that in words, and how far."""
    trait, cut = resolved.rule.trait, resolved.cut
    if isinstance(reply, NotScored):
        return None, f"the reply could not be scored ({reply.error})", None
    if trait not in reply.scores:
        return None, f"the reading of the reply holds no {trait}", None
    score = reply.scores[trait]
    if easing and math.isfinite(easing) and resolved.calibration is not None:
        score = resolved.calibration.eased(score, easing, cut.unsafe_side)
    crossed = cut.crossed(score)
    if crossed is None:
        return None, f"the reply's {trait} is not a finite number", None
    return crossed, cut.describe(trait, score), float(cut.beyond(score.z, score.probability))


def _conditions(conditions: Sequence[Condition], user: Sequence[Said]) -> tuple[float | None, str]:
    """How far the reply's score is eased by what the user's last turns lack (None: unknown; infinite: not judged), and that in words."""
    if not conditions:
        return 0.0, ""
    each = [(condition, condition.easing(scores_by(condition.trait, user))) for condition in conditions]
    easing = together([found for _, found in each])
    told = [one for one in each if one[1] == easing] or [one for one in each if one[1]]  # what decided alone, else all that had a part
    return easing, " and ".join(_in_words(condition, found, user) for condition, found in told)


def _in_words(condition: Condition, easing: float | None, user: Sequence[Said]) -> str:
    trait, cut = condition.trait, condition.cut
    turns = scores_by(trait, user[-condition.last_turns :])
    if not user:
        said = "no words of the user's come before the reply"
        return f"{said}, so that {trait} could not be scored" if easing is None else f"eased by {easing:.2f}, as {said}"
    scores = [score for turn in turns for score in turn]
    known = [score for score in scores if score is not None and cut.crossed(score) is not None]
    if easing is None:
        return f"{trait} could not be scored in {len(scores) - len(known)} of the user's last {len(scores)} messages"
    if easing == 0:
        crossing = next(score for score in known if cut.crossed(score))
        return f"in a recent message of the user {cut.describe(trait, crossing)}"
    worst = max(known, key=condition.beyond)
    if condition.slope is not None:
        return f"eased by {easing:.2f}, as {trait} reads at most z {worst.z:+.2f} in the user's last {len(known)} messages"
    return f"in the worst of the user's last {len(known)} messages {cut.describe(trait, worst)}"


def _why_not_scored(reply: Reading | NotScored, unscored: Sequence[RuleResult]) -> str | None:
    if isinstance(reply, NotScored):
        return reply.error
    if unscored:
        return "; ".join(dict.fromkeys(r.reason for r in unscored))
    return None
