"""How large the residual stream is at each layer: what relative steering doses refer to.

The norm of each response token's own activation, and of these the median. Not the norm of the pooled activation, which
is smaller by a quarter (a mean over tokens is shorter than the tokens); and not the mean, because a few tokens carry
activations a hundred times larger than the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demeanor.conversation import ConversationLike
from demeanor.errors import sound
from demeanor.model.packing import Job
from demeanor.model.reader import ActivationReader


def residual_norms(reader: ActivationReader, conversations: Sequence[ConversationLike]) -> Tensor:
    """Median norm of the activations of the responses' tokens at every layer [layers], float32 on the CPU.

    Raises the first error of any conversation.
    """
    return torch.cat(token_norms(reader, reader.jobs(conversations))).median(0).values


def token_norms(reader: ActivationReader, jobs: Sequence[Job]) -> list[Tensor]:
    """The norm of each token's activation in each job's span, [tokens, layers] a job. Raises the first error of any job."""
    by_token = [Job(job.ids, [(i, i + 1) for start, end in job.spans for i in range(start, end)]) for job in jobs]
    return [sound(result) for result in reader.run(by_token, range(reader.n_layers), project=lambda tokens: tokens.norm(dim=-1))]
