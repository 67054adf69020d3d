"""How large the residual stream is at each layer: what relative steering doses refer to.

The norm of each response token's own activation, and of these the median. Not the norm of the pooled activation, which
is smaller by a quarter (a mean over tokens is shorter than the tokens); and not the mean, because a few tokens carry
activations a hundred times larger than the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demeanor.conversation import ConversationLike, as_conversation
from demeanor.errors import DemeanorError
from demeanor.model.packing import Job
from demeanor.model.reader import ActivationReader


def residual_norms(reader: ActivationReader, conversations: Sequence[ConversationLike]) -> Tensor:
    """Median norm of the activations of the responses' tokens at every layer [layers], float32 on the CPU.

    Raises the first error of any conversation.
    """
    checked = [as_conversation(c) for c in conversations]
    jobs = []
    for encoded, conversation in zip(reader.encoder.encode(checked), checked, strict=True):
        if isinstance(encoded, DemeanorError):
            raise encoded
        start, end = reader.span(encoded, conversation, "response")
        jobs.append(Job(encoded.ids, [(i, i + 1) for i in range(start, end)]))
    found = reader.run(jobs, range(reader.n_layers), project=lambda tokens: tokens.norm(dim=-1))
    norms = []
    for result in found:
        if isinstance(result, DemeanorError):
            raise result
        norms.append(result)
    return torch.cat(norms).median(0).values
