"""Why a rule said what it said about a reply, in plain sentences.

    crisis_missed: fired, so the action is substitute: crisis recognition score -4.0, unsafe from -1.3 down (calibrated for at
    most 2 % false alarms). The limit was relaxed (by 1.4): no clear sign of risk in the user's last message (risk score 0.1;
    clear from 0.5 up).

Scores are z: in units of the calibration's spread, 0 half-way between the trait's poles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from demeanor.measure.calibration import Score
from demeanor.measure.conditions import Condition
from demeanor.measure.cuts import Cut
from demeanor.monitor.policy import ResolvedRule
from demeanor.scoring.reading import NotScored, Reading, Said, scores_by
from demeanor.traits.contexts import CONTEXT, ENDINGS, TOPIC


def spoken(trait: str) -> str:
    """A trait's name as it stands in a sentence: "crisis recognition", "risk" for user_risk."""
    for ending in ENDINGS:
        trait = trait.removesuffix(ending)
    return trait.removeprefix("user_").replace("_", " ")


class Compared(NamedTuple):
    """A reply's score beside a rule's limit."""

    crossed: bool | None
    """Whether the score, relaxed as the conditions ask, is beyond the limit; None where that is unknown."""
    words: str
    beyond: float | None
    """How far beyond it, on the limit's own scale; below 0 on the safe side."""


def of_reply(resolved: ResolvedRule, reply: Reading | NotScored, easing: float) -> Compared:
    """Whether the reply, with its score eased, is beyond the cut, that in words, and how far."""
    trait, cut = resolved.rule.trait, resolved.cut
    if isinstance(reply, NotScored):
        return Compared(None, f"the reply could not be scored ({reply.error})", None)
    if trait not in reply.scores:
        return Compared(None, f"the reply has no score for {trait}", None)
    seen = eased = reply.scores[trait]
    if easing and math.isfinite(easing) and resolved.calibration is not None:
        eased = resolved.calibration.eased(seen, easing, cut.unsafe_side)
    crossed = cut.crossed(eased)
    if crossed is None:
        return Compared(None, f"the reply's score for {trait} is not a finite number", None)
    beyond = float(cut.beyond(eased.z, eased.probability))
    if cut.scale == "probability":
        return Compared(crossed, cut.describe(spoken(trait), eased), beyond)
    if eased is not seen:
        cut = replace(cut, value=cut.value + (easing if cut.unsafe_side == "above" else -easing))
    return Compared(crossed, cut.describe(spoken(trait), seen), beyond)


def of_conditions(
    told: Sequence[tuple[Condition, float | None]], easing: float | None, reply: Reading | NotScored, user: Sequence[Said]
) -> str:
    """Why the rule counted, was relaxed, was not checked or could not be; empty if no condition had a part in it.

    Args:
        told: The conditions that had a part in it, each with its own easing.
        easing: What they come to together.
        reply: The reading of the reply, or why there is none.
        user: What the user has said, turn by turn.
    """
    words = "; ".join(dict.fromkeys(_in_words(condition, found, reply, user) for condition, found in told))
    if words and easing is not None and 0 < easing < math.inf:
        return f"The limit was relaxed (by {easing:.1f}): {words}"
    return words


def _in_words(condition: Condition, easing: float | None, reply: Reading | NotScored, user: Sequence[Said]) -> str:
    trait, cut = condition.trait, condition.cut
    if condition.reads == "response":
        return _of_the_reply(condition, easing, reply)
    if not user:
        nothing = "the user wrote no words before this reply"
        return f"{nothing}, so {trait} could not be scored" if easing is None else nothing
    scores = [score for turn in scores_by(trait, user[-condition.last_turns :]) for score in turn]
    known = [score for score in scores if score is not None and cut.crossed(score) is not None]
    last = "message" if len(scores) == 1 else f"{len(scores)} messages"
    if easing is None:
        return f"{trait} could not be scored in {_of(len(scores) - len(known), len(scores))}"
    called = trait.endswith(CONTEXT)
    if easing == 0:
        most = next(score for score in known if cut.crossed(score))
        seen = f"is one where {spoken(trait)} matters" if called else f"shows {spoken(trait)}"
        return f"a recent message of the user {seen} ({_score(condition, most, 'counts')})"
    most = max(known, key=condition.beyond)
    clear = "" if condition.slope is None else "clear "
    if called:
        kind = "are not {}ones" if len(scores) > 1 else "is not {}one"
        missing = f"the user's last {last} {kind.format('clearly ' if clear else '')} where {spoken(trait)} matters"
    else:
        missing = f"no {clear}sign of {spoken(trait)} in the user's last {last}"
    return f"{missing} ({_score(condition, most, 'clear' if clear else 'checked')})"


def _of_the_reply(condition: Condition, easing: float | None, reply: Reading | NotScored) -> str:
    score = reply.scores.get(condition.trait) if isinstance(reply, Reading) else None
    if score is None or easing is None:
        return f"{condition.trait} could not be scored in the reply"
    named = condition.trait.endswith(TOPIC)
    about = spoken(condition.trait)
    if easing == 0:
        return f"the reply {'is about' if named else 'shows'} {about} ({_score(condition, score, 'counts')})"
    counts, clear, clearly = ("checked", "", "") if condition.slope is None else ("clear", "clear ", "clearly ")
    missing = f"the reply is not {clearly}about {about}" if named else f"no {clear}sign of {about} in the reply"
    return f"{missing} ({_score(condition, score, counts)})"


def _of(some: int, number: int) -> str:
    return "the user's last message" if number == 1 else f"{some} of the user's last {number} messages"


def _score(condition: Condition, score: Score, counts: str) -> str:
    """A score of the user's message or of the reply, and from where on it counts."""
    cut: Cut = condition.cut
    name = "score" if condition.trait.endswith(ENDINGS) else f"{spoken(condition.trait)} score"
    if cut.scale == "probability":
        return f"probability {cut.value_of(score):.0%}; {counts} from {cut.value:.0%} up"
    return f"{name} {cut.beside(score.z)}; {counts} {cut.from_on(score.z)}"
