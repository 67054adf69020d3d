"""Replies written under steering, each with what was applied to it.

Requests of one batch may carry different plans; a row with an empty plan is written as `write_replies` would write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from demeanor.conversation import Message
from demeanor.errors import SteeringError
from demeanor.model.contexts import Steering
from demeanor.model.generation import Sampling, WrittenReply, write_replies
from demeanor.model.reader import ActivationReader
from demeanor.progress import Progress
from demeanor.steering.dose import Applied, Plan


@dataclass(frozen=True)
class SteeredReply:
    """A reply and what was applied while it was written; nothing where `applied` is empty."""

    reply: WrittenReply
    applied: tuple[Applied, ...]

    @property
    def text(self) -> str:
        """The reply's text."""
        return self.reply.text


def steered_replies(
    reader: ActivationReader,
    prompts: Sequence[Sequence[Message]],
    plans: Sequence[Plan],
    sampling: Sampling | None = None,
    progress: Progress | None = None,
) -> list[SteeredReply]:
    """A reply to each conversation so far under its own plan, in the order given.

    Raises:
        SteeringError: not one plan for each prompt, a plan does not fit the model, or steering was off in a forward pass.
        ModelError, ChatTemplateError: as `write_replies`.
    """
    if len(plans) != len(prompts):
        raise SteeringError(f"{len(plans)} plans for {len(prompts)} prompts; give one for each, Plan() for one that is not steered")

    def steering(batch: Sequence[int]) -> AbstractContextManager[object]:
        rows = [plans[i].interventions for i in batch]
        return Steering(reader.model, rows=rows, blocks=reader.blocks) if any(rows) else nullcontext()

    written = write_replies(reader, prompts, sampling, progress, steering)
    return [SteeredReply(reply, plan.applied) for reply, plan in zip(written, plans, strict=True)]
