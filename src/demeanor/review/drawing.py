"""Which replies are put before people: each with a chance that is known and kept, without which nobody knows what was missed.

    flagged    a rule fired on the trait, or could not be scored and did something        all of them, unless said otherwise
    doubtful   no rule did, and the score lies close to a rule's threshold                some
    random     all others, the allowed ones too                                           a small share

A reply is drawn where u < p, with p the chance of its kind and u a number between 0 and 1 that a keyed hash of the decision's id gives: as
good as chance, and the same for a retry. Within a kind the queue goes by u / p, which is even from 0 to 1, so that whatever part of it
people get through is a random part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from demeanor.conversation import Conversation
from demeanor.errors import ReviewError
from demeanor.measure.poles import Side

Why = Literal["flagged", "doubtful", "random"]
WHY: tuple[Why, ...] = ("flagged", "doubtful", "random")


@dataclass(frozen=True)
class Verdict:
    """What one rule came to about one reply."""

    rule: str
    trait: str
    caught: bool
    """Whether the rule did something about it: it fired, or it could not be scored and the policy acts on that."""
    beyond: float | None = None
    """How far the score lies beyond the rule's threshold, in z; negative on the safe side. None: it was not scored or not judged."""
    z: float | None = None
    """The trait's score as the rule saw it: the worst of what it was tried on, eased by the user's side. None as for `beyond`."""
    side: Side = "above"
    """The unsafe side."""
    withholds: bool = False
    """Whether the rule withholds the replies that it catches."""

    @property
    def danger(self) -> float | None:
        """The score toward the unsafe side: higher is worse, whichever side that is."""
        return None if self.z is None else self.z if self.side == "above" else -self.z


@dataclass(frozen=True)
class Decided:
    """A reply that was decided about, as the store takes it."""

    decision: str
    """Its id, which a retry repeats."""
    conversation_id: str
    conversation: Conversation
    """Ends with the reply."""
    action: str
    verdicts: Sequence[Verdict]
    policy: str
    """`Policy.identity`."""
    vectors: str
    """The vector set's fingerprint."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """z by trait."""
    shown: str | None = None
    """What was shown in its place."""
    not_scored: str | None = None

    @property
    def version(self) -> str:
        """What decided: estimates never mix two of them."""
        return f"{self.policy}, vectors {self.vectors}"


@dataclass(frozen=True)
class Drawing:
    """How replies are drawn and kept."""

    share: float = 0.02
    """Chance of any reply to be drawn. The smaller it is, the longer it takes to know what is missed."""
    doubtful: float = 0.25
    """Chance of a reply whose score lies close to a threshold."""
    flagged: float = 1.0
    """Chance of a reply that a rule caught."""
    margin: float = 0.5
    """How close, in z, is doubtful."""
    reviewers: int = 1
    """How many people are asked about each; where two differ a third is."""
    days: float = 30.0
    """How long texts are kept."""
    labelled_days: float = 365.0
    """How long those are kept that somebody labelled, for adapting again needs all of them."""

    def __post_init__(self) -> None:
        """Refuse what is no chance, and what would leave replies that can never be drawn."""
        for name in ("share", "doubtful", "flagged"):
            if not 0 < getattr(self, name) <= 1:
                raise ReviewError(f"{name} is the chance of a reply to be drawn, above 0 and at most 1, not {getattr(self, name)}")
        if self.reviewers < 1 or not (self.days > 0 and self.labelled_days > 0 and self.margin >= 0):
            raise ReviewError("at least one reviewer an item, a time above 0 and a margin from 0 on are needed")

    def chance(self, why: Why) -> float:
        """How likely a reply of a kind is drawn."""
        return {"flagged": max(self.flagged, self.share), "doubtful": max(self.doubtful, self.share), "random": self.share}[why]


STEP = 0.05
"""Width, in z, of the steps in which scores are counted; thresholds can be tried where two meet."""
NEVER, ALWAYS = -1_000_000, 1_000_000
"""Steps of replies that a rule catches at no threshold, as it does not judge them, or at every one, as they could not be scored."""


def step_of(verdict: Verdict) -> int:
    """The step that a verdict is counted in: a threshold at STEP * n catches those from n on."""
    if verdict.danger is None or not math.isfinite(verdict.danger):
        return ALWAYS if verdict.caught else NEVER
    return max(NEVER + 1, min(ALWAYS - 1, math.floor(verdict.danger / STEP + 1e-9)))


def why_of(verdicts: Sequence[Verdict], margin: float) -> Why:
    """Of which kind a reply is, by what the rules on one trait came to."""
    if any(verdict.caught for verdict in verdicts):
        return "flagged"
    near = any(verdict.beyond is not None and abs(verdict.beyond) < margin for verdict in verdicts)
    return "doubtful" if near else "random"
