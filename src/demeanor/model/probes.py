"""What is found out about a model: by trying it on a few tokens, and from its config.

Whether its tokens see later ones, whether texts may run with a common beginning, how long a text may be, and from which
length on it reads otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.errors import ModelError
from demeanor.model.batches import Results, Work, read_batches
from demeanor.model.blocks import text_config
from demeanor.model.hooks import Stack
from demeanor.model.packing import Job, PackedRow, plan

ALIKE = 0.999  # cosine from which on activations read by a shared beginning count as the same
_CAUSAL: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
"""Of each loaded model that was tried, whether it is causal."""


def refuse_encoder(stack: Stack) -> None:
    """Raises ModelError where tokens' activations depend on what comes after them, and so on the padding of their batch.

    A model shows it once, in one short pass; whoever reads it later is answered from memory.
    """
    causal = _CAUSAL.get(stack.model)
    if causal is None:
        causal = _is_causal(stack)
        if causal is not None:
            _CAUSAL[stack.model] = causal
    if causal is False:
        raise ModelError(
            f"{type(stack.model).__name__} is not a causal model: its tokens see later ones, so a score would depend "
            "on the other texts in its batch; use a decoder-only chat model"
        )


def _is_causal(stack: Stack) -> bool | None:
    """Whether the same few tokens read alike before two different continuations; None where they could not be read.

    Only where most of them move is the model no causal one: a mixture of experts in low precision may send one token
    another way. What its config and class say is not asked, for neither is certain.
    """
    some = [(7 * i) % 83 + 3 for i in range(24)]
    jobs = [Job([*some[:8], *rest], [(i, i + 1) for i in range(8)]) for rest in (some[8:16], some[16:])]
    found = _read(stack, jobs, plan(jobs, 32))
    one, other = found[0], found[1]
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return None
    return bool(torch.cosine_similarity(one, other, dim=-1).median() >= ALIKE)


def shares_beginnings(stack: Stack) -> bool:
    """Whether texts that run with a common beginning read as each does alone.

    Not every architecture takes a mask of one's own, keys and values of an earlier pass, or positions that jump back.
    """
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


def _read(stack: Stack, jobs: Sequence[Job], batches: Iterable[list[PackedRow]]) -> Results:
    """What a probe reads: the last layer."""
    work = Work(jobs, [len(stack.blocks) - 1])
    return {job: result for batch in read_batches(stack, work, batches) for job, result in batch.items()}


def may_share_up_to(model: PreTrainedModel, longest: int) -> int:
    """The longest text, of at most `longest` tokens, whose beginning attention of this reach lets it share; 0 where that is too short."""
    config = text_config(model)
    reach = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    longest = min([longest, *(int(r) for r in reach if r)])
    return longest if longest >= 64 else 0


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that a text may have, by the model's config and by its tokenizer."""
    from_config = getattr(text_config(model), "max_position_embeddings", None) or 1 << 20
    return int(min(from_config, tokenizer.model_max_length))


def turns_at(model: PreTrainedModel) -> int:
    """The length beyond which LongRoPE takes its long factors, for every row of a batch that holds one such; else no length."""
    rope = getattr(text_config(model), "rope_parameters", None) or {}
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict)]  # one, or one for each type of layer
    return min((int(k["original_max_position_embeddings"]) for k in kinds if k.get("rope_type") == "longrope"), default=sys.maxsize)
