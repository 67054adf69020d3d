"""What steering costs: does the text still make sense, and how far has the model moved from itself.

perplexity   exp(-mean log p) of a reply's tokens under the model that runs: the unsteered one, for steered text
repetition   share of a reply's runs of three tokens that have occurred in it before
kl           mean KL(steered || unsteered) of the next token over the first EARLY tokens of the unsteered reply, in nats
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from demeanor.model.contexts import Steering
from demeanor.model.reader import ActivationReader
from demeanor.steering.dose import Plan

EARLY = 8
ROWS = 16


def perplexities(reader: ActivationReader, prompts: Sequence[list[int]], replies: Sequence[list[int]]) -> list[float]:
    """Perplexity of each reply after its prompt, both as tokens; NaN for a reply without a token."""
    return [math.exp(-float(p.mean())) if len(p) else math.nan for p in log_likelihoods(reader, prompts, replies)]


def log_likelihoods(reader: ActivationReader, prompts: Sequence[list[int]], replies: Sequence[list[int]]) -> list[Tensor]:
    """Log probability of each token of each reply after its prompt, by the model as it runs now."""
    found = []
    for logs, ids in zip(_next_token(reader, prompts, replies), replies, strict=True):
        found.append(logs.gather(1, torch.tensor(ids, dtype=torch.long)[:, None])[:, 0])
    return found


def early_kl(reader: ActivationReader, prompts: Sequence[list[int]], replies: Sequence[list[int]], plan: Plan) -> float:
    """Mean divergence in nats of the steered from the unsteered next token, at the replies' first tokens."""
    early = [ids[:EARLY] for ids in replies]
    plain = list(_next_token(reader, prompts, early))
    with Steering(reader.model, plan.interventions, blocks=reader.blocks):
        steered = list(_next_token(reader, prompts, early))
    each = [float((s.exp() * (s - p)).sum(-1).mean()) for s, p in zip(steered, plain, strict=True) if len(s)]
    return sum(each) / len(each) if each else math.nan


def repetition(ids: Sequence[int]) -> float:
    """Share of the runs of three tokens that repeat an earlier one; 0 for a reply too short to have two."""
    runs = [tuple(ids[i : i + 3]) for i in range(len(ids) - 2)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


@torch.inference_mode()
def _next_token(reader: ActivationReader, prompts: Sequence[list[int]], replies: Sequence[list[int]]) -> Iterator[Tensor]:
    """Log probabilities of the token that comes next, where each reply token stands [reply tokens, vocabulary], on the CPU.

    Labels mark the replies, so that interventions on the prompt or the response know which is which.
    """
    for at in range(0, len(replies), ROWS):
        rows = list(zip(prompts[at : at + ROWS], replies[at : at + ROWS], strict=True))
        width = max(len(p) + len(r) for p, r in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, (prompt, reply) in enumerate(rows):
            end = len(prompt) + len(reply)
            ids[row, :end] = torch.tensor([*prompt, *reply])
            mask[row, :end] = 1
            labels[row, len(prompt) : end] = ids[row, len(prompt) : end]
        device = reader.device
        longest = max(len(r) for _, r in rows)
        kept = width - min(len(p) for p, _ in rows) + 1 if longest else 1
        logits = reader.model(input_ids=ids.to(device), attention_mask=mask.to(device), labels=labels.to(device), use_cache=False).logits[
            :, -min(kept, width) :
        ]
        first = width - logits.shape[1]
        for row, (prompt, reply) in enumerate(rows):
            start = len(prompt) - 1 - first
            yield logits[row, start : start + len(reply)].float().log_softmax(-1).cpu()
