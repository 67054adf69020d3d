"""What is found out about a model: by trying it on a few tokens, and from its config.

Whether its tokens see later ones, whether texts may run with a common beginning, how long a text may be, and from which
length on it reads otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.errors import ModelError
from demeanor.model.batches import Results, Work, read_batches
from demeanor.model.blocks import text_config
from demeanor.model.hooks import Stack
from demeanor.model.packing import Job, Row, plan

ALIKE = 0.999  # cosine from which on activations read by a shared beginning count as the same


def refuse_encoder(stack: Stack) -> None:
    """Raises ModelError where tokens' activations depend on what comes after them, and so on the padding of their batch.

    The same few tokens are read before two different continuations. Most of them must move: a mixture of experts in
    low precision may send one token another way.
    """
    some = [(7 * i) % 83 + 3 for i in range(24)]
    jobs = [Job([*some[:8], *rest], [(i, i + 1) for i in range(8)]) for rest in (some[8:16], some[16:])]
    found = _read(stack, jobs, plan(jobs, 32))
    one, other = found[0], found[1]
    if isinstance(one, Tensor) and isinstance(other, Tensor) and torch.cosine_similarity(one, other, dim=-1).median() < ALIKE:
        raise ModelError(
            f"{type(stack.model).__name__} is no causal model: its tokens see later ones, so that a reading would depend "
            "on its neighbours in a batch; use a decoder-only chat model"
        )


def shares_beginnings(stack: Stack) -> bool:
    """Whether texts that run with a common beginning read as each does alone."""
    some = [(7 * i) % 83 + 3 for i in range(32)]
    texts = [[*some[:14], *some[14:27] * (i % 2), *some[i : i + 6]] for i in range(6)]
    jobs = [Job(ids, [(14, 16), (len(ids) - 2, len(ids))]) for ids in texts]
    apart = _read(stack, jobs, plan(jobs, 1))
    try:
        together = _read(stack, jobs, plan(jobs, 10_000, 64, worth=0))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
        return False
    return all(
        isinstance(a, Tensor) and isinstance(b, Tensor) and bool((torch.cosine_similarity(a, b, dim=-1) > ALIKE).all())
        for a, b in ((apart[i], together[i]) for i in range(len(jobs)))
    )


def _read(stack: Stack, jobs: Sequence[Job], batches: Iterable[list[Row]]) -> Results:
    """What a probe reads: the last layer."""
    work = Work(jobs, [len(stack.blocks) - 1])
    return {job: result for batch in read_batches(stack, work, batches) for job, result in batch.items()}


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that a text may have, by the model's config and by its tokenizer."""
    from_config = getattr(text_config(model), "max_position_embeddings", None) or 1 << 20
    return int(min(from_config, tokenizer.model_max_length))


def turns_at(model: PreTrainedModel) -> int:
    """The length beyond which LongRoPE takes its long factors, for every row of a batch that holds one such; else no length."""
    rope = getattr(text_config(model), "rope_parameters", None) or {}
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict)]  # one, or one for each type of layer
    return min((int(k["original_max_position_embeddings"]) for k in kinds if k.get("rope_type") == "longrope"), default=sys.maxsize)
