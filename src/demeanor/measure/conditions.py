"""When a trait counts: conditions on what the user says, as people write them and with their numbers.

A reply alone does not tell small talk from a crossed line; the message that it answers does. A condition names a trait of the user's
messages, or of what the reply itself speaks of, and a threshold. Short of that, a hard one leaves the reply unjudged; one with a slope
eases the reply's score toward its safe side, by as much as is lacking. Several messages are combined in one way, by `Condition`, and
several conditions by `total_easing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from demeanor.measure.calibration import Score
from demeanor.measure.cuts import Cut, Strict, ThresholdSpec, renamed
from demeanor.measure.poles import Side

COUNTS = 3.0
"""Up to so many z of easing a prompt still counts as one that calls for a trait, where replies are compared by it."""


class AppliesWhen(Strict):
    """A trait counts only where a trait of the user's messages is beyond a threshold."""

    trait: str
    threshold: ThresholdSpec
    unsafe: Side | None = None
    """Left out: the side away from that trait's safe pole."""
    last_turns: int = Field(default=3, ge=1, le=100, strict=True)
    """The worst message of the user's last so many turns decides. A turn is all that the user says up to a reply that was scored and
    shown. `last_messages`, as older policies call it, is read as the same."""
    slope: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    """Short of the threshold a reply's z is eased toward its safe side: by so many z for each z that is lacking. Left out, the
    reply is not judged at all there."""

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, value: Any) -> Any:
        return renamed(value, "last_messages", "last_turns")

    @model_validator(mode="after")
    def _soft_is_on_z(self) -> AppliesWhen:
        if self.slope is not None and self.threshold.probability is not None:
            raise ValueError("with a 'slope' the threshold is given as 'z' or 'calibrated': what is lacking is measured in z")
        return self


def as_conditions(value: Any) -> Any:
    """One condition, or a list of them that must all hold, as a tuple."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


ConditionsField: TypeAlias = Annotated[tuple[AppliesWhen, ...], BeforeValidator(as_conditions)]

HALF_WAY = Score(0.0, 0.0, 0.0, 0.5)


@dataclass(frozen=True)
class Condition:
    """`AppliesWhen` with its number: when a trait counts at all."""

    trait: str
    """The trait of the user's messages, or of the reply."""
    cut: Cut
    last_turns: int
    slope: float | None = None
    reads: Literal["user", "response"] = "user"
    """Whose words the trait is read on."""

    def holds(self, turns: Sequence[Sequence[Score | None]]) -> bool | None:
        """Whether the worst message of the user's last turns is beyond the cut.

        Args:
            turns: The scores of each message, turn by turn, oldest first; None for a message that has none.

        Returns:
            None where nothing can be said: the user has said nothing, or no known score is beyond and some score is missing.
        """
        crossed = [None if score is None else self.cut.crossed(score) for turn in turns[-self.last_turns :] for score in turn]
        if any(crossed):
            return True
        return None if not crossed or None in crossed else False

    def easing(self, turns: Sequence[Sequence[Score | None]]) -> float | None:
        """How far a reply's z is eased toward its safe side: 0 where the condition holds; infinitely, where a hard one does not.

        Where the user has said nothing yet, a condition with a slope eases as after a message half-way between the poles.

        Args:
            turns: As for `holds`.

        Returns:
            None where nothing can be said.
        """
        if self.slope is not None and not any(turns):
            return self.lacking(self.beyond(HALF_WAY))
        holds = self.holds(turns)
        if holds is not False:
            return 0.0 if holds else None
        return self.lacking(max(self.beyond(score) for turn in turns[-self.last_turns :] for score in turn if score is not None))

    def beyond(self, score: Score) -> float:
        """How far a message calls for the trait, on the cut's scale."""
        return float(self.cut.beyond(score.z, score.probability))

    def lacking(self, beyond: float) -> float:
        """The easing, from how far the message lies beyond the cut that calls for the trait most."""
        if beyond >= 0:
            return 0.0
        return math.inf if self.slope is None else -beyond * self.slope


def total_easing(conditions: Sequence[Condition], said: Callable[[Condition], Sequence[Sequence[Score | None]]]) -> float | None:
    """How far a reply's z is eased by all conditions of its trait together.

    Args:
        conditions: Of the trait; none: it always counts.
        said: The scores that a condition looks at, as `Condition.holds` takes them.

    Returns:
        As `together`.
    """
    return together([condition.easing(said(condition)) for condition in conditions])


def together(easings: Sequence[float | None]) -> float | None:
    """What several conditions ease by: infinite where one leaves the reply unjudged, None where one cannot be told and none does that."""
    if math.inf in easings:
        return math.inf
    return None if None in easings else float(sum(easing for easing in easings if easing is not None))
