"""One prompt answered under several plans, each reply read by the unsteered model: what steering does, for a person to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demeanor.conversation import Conversation, Message
from demeanor.model.generation import Sampling
from demeanor.scoring.reading import NotScored, Reading
from demeanor.scoring.scorer import Scorer
from demeanor.steering.dose import Plan
from demeanor.steering.replies import SteeredReply, steered_replies


@dataclass(frozen=True)
class SideBySide:
    """A prompt's replies in the order of their plans, each with its reading."""

    prompt: str
    replies: tuple[SteeredReply, ...]
    readings: tuple[Reading | NotScored, ...]

    @property
    def not_scored(self) -> int:
        """How many replies could not be scored."""
        return sum(isinstance(reading, NotScored) for reading in self.readings)

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        rows = [
            {"reply": reply.text, "applied": [a.to_record() for a in reply.applied], "demeanor": reading.to_record()}
            for reply, reading in zip(self.replies, self.readings, strict=True)
        ]
        return {"prompt": self.prompt, "replies": rows}


def side_by_side(scorer: Scorer, prompt: str, plans: Sequence[Plan], sampling: Sampling | None = None) -> SideBySide:
    """What the scorer's model replies to a prompt without steering and under each plan. Raises as `steered_replies`."""
    said = Message("user", prompt)
    all_plans = [Plan(), *plans]
    replies = steered_replies(scorer.reader, [[said]] * len(all_plans), all_plans, sampling)
    readings = scorer.score_many([Conversation((said, Message("assistant", reply.text))) for reply in replies])
    return SideBySide(prompt, tuple(replies), tuple(readings))
