"""Batches of rows to pooled activations by job: the one place where a model is run to be read.

Causal attention lets no token see a later one, so rows are padded on the right without a mask, and padding cannot
change what is read. Rows of several jobs run under a mask of their own (see packing). A batch for which the memory does
not suffice is tried again in parts. Pooling is done in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import DynamicCache

from demeanor.errors import ActivationError
from demeanor.model.hooks import Stack, keys_and_values
from demeanor.model.packing import Job, PackedRow
from demeanor.model.pooling import Pooling, pieces, pooler

NOT_FINITE = "the activations are not finite numbers (NaN or infinity); try --dtype float32"
Project: TypeAlias = Callable[[Tensor], Tensor]
Results: TypeAlias = dict[int, Tensor | ActivationError]
"""By job."""
Heads: TypeAlias = dict[int, list[tuple[Tensor, Tensor]]]
"""Keys and values of the common beginnings that were run, by their length in tokens."""


@dataclass(frozen=True)
class Work:
    """What is to be read in a run: the spans of jobs, at layers, pooled, and projected where a projection is given."""

    jobs: Sequence[Job]
    layers: Sequence[int]
    pooling: Pooling = "mean"
    project: Project | None = None


def read_batches(stack: Stack, work: Work, batches: Iterable[list[PackedRow]]) -> Iterator[Results]:
    """Results by job, a batch at a time; each is taken from the device only once the next one runs there."""
    heads: Heads = {}
    running: tuple[list[PackedRow], Tensor, Tensor] | None = None
    for rows in batches:
        launched = _try_batch(stack, work, rows, heads)
        if running is not None:
            yield _settled(stack, work, *running)
            running = None
        if launched is not None:
            running = (rows, *launched)
        elif smaller := _smaller(rows):
            yield from read_batches(stack, work, smaller)
        else:
            error = ActivationError(f"out of memory on a single conversation ({rows[0].length} tokens a window)")
            yield {rows[0].jobs[0]: error}
    if running is not None:
        yield _settled(stack, work, *running)


def _settled(stack: Stack, work: Work, rows: list[PackedRow], values: Tensor, finite: Tensor) -> Results:
    """A batch's results by job. NaN times a weight of 0 is NaN, so one job can spoil the others of its row: they run again, alone."""
    found = _collected(work.jobs, rows, values, finite)
    for row in rows:
        if len(row.jobs) > 1 and any(isinstance(found[job], ActivationError) for job in row.jobs):
            for results in read_batches(stack, work, [[one] for one in row.alone()]):
                found.update(results)
    return found


def _try_batch(stack: Stack, work: Work, rows: list[PackedRow], heads: Heads) -> tuple[Tensor, Tensor] | None:
    """The results [spans, ...] of a batch and which spans are finite, on the device; None where memory ran out.

    On None the failed pass's tensors are free again: they hung on the error, which ends with this function.
    """
    try:
        pooled = _pooled(stack, work, rows, heads)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    else:
        return (pooled if work.project is None else work.project(pooled)), torch.isfinite(pooled).flatten(1).all(1)
    heads.clear()
    if stack.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _pooled(stack: Stack, work: Work, rows: list[PackedRow], heads: Heads) -> Tensor:
    """Pooled activations of all spans of a batch [spans, layers, hidden], float32 on the device."""
    jobs = work.jobs
    head, width = rows[0].head, max(row.length for row in rows)
    ids, position, branch = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    for at, row in enumerate(rows):
        first = jobs[row.jobs[0]].ids
        ids[at, : row.trunk] = torch.tensor(first[head : head + row.trunk])
        position[at, : row.trunk] = torch.arange(head, head + row.trunk)
        for number, (job, start, end) in enumerate(row.branches(), 1):
            ids[at, start:end] = torch.tensor(jobs[job].ids[head + row.trunk :])
            position[at, start:end] = torch.arange(head + row.trunk, head + row.trunk + end - start)
            branch[at, start:end] = number
    spans = sum(len(jobs[job].spans) for row in rows for job in row.jobs)
    pool = pooler(work.pooling, pieces(jobs, rows), spans, (len(rows), width), stack.to_device)
    found: dict[int, Tensor] = {}

    def take(layer: int, hidden: Tensor) -> None:
        found[layer] = pool(hidden)

    options: dict[str, Any] = {}
    if rows[0].masked:
        options = {
            "position_ids": stack.to_device(position),
            "attention_mask": _mask(stack.to_device(branch), head, stack.model.dtype),
        }
    if head:
        if head not in heads:
            heads[head] = _head(stack, jobs[rows[0].jobs[0]].ids[:head], max(work.layers))
        kept = [(k.expand(len(rows), -1, -1, -1), v.expand(len(rows), -1, -1, -1)) for k, v in heads[head]]
        options |= {"past_key_values": DynamicCache(kept)}
    with stack.passes(work.layers, take):
        stack.model(input_ids=stack.to_device(ids), use_cache=bool(head), **options)
    return torch.stack([found[layer].to(stack.device) for layer in work.layers], dim=1)


def _head(stack: Stack, ids: list[int], deepest: int) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of a common beginning in the layers up to the deepest that is needed, for one row."""
    cache = DynamicCache()
    with stack.passes([deepest], lambda _layer, _hidden: None):
        stack.model(input_ids=stack.to_device(torch.tensor([ids])), past_key_values=cache, use_cache=True)
    return keys_and_values(cache)


def _collected(jobs: Sequence[Job], rows: list[PackedRow], values: Tensor, finite: Tensor) -> Results:
    """Each job's results [its spans, ...] on the CPU, or the error where one is not finite."""
    on_cpu, sound = values.cpu(), finite.tolist()
    found: Results = {}
    at = 0
    for row in rows:
        for job in row.jobs:
            count = len(jobs[job].spans)
            if all(sound[at : at + count]):
                found[job] = on_cpu[at : at + count]
            else:
                found[job] = ActivationError(NOT_FINITE)
            at += count
    return found


def _smaller(rows: list[PackedRow]) -> list[list[PackedRow]]:
    """What to try instead of a batch that was too large: its halves, or one row's jobs each alone; nothing below that."""
    if len(rows) > 1:
        return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return [[row] for row in rows[0].alone()] if len(rows[0].jobs) > 1 or rows[0].head else []


def _mask(branch: Tensor, head: int, dtype: torch.dtype) -> Tensor:
    """Who sees whom, as numbers added to the attention scores [rows, 1, tokens, head + tokens].

    A token sees the head, the trunk (branch 0) and its own branch, as far as they lie before it.
    """
    rows, width = branch.shape
    order = torch.arange(width, device=branch.device)
    sees = (order[:, None] >= order) & ((branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None]))
    mask = torch.zeros(rows, 1, width, head + width, device=branch.device, dtype=dtype)
    mask[..., head:].masked_fill_(~sees[:, None], torch.finfo(dtype).min)
    return mask


def out_of_memory(error: Exception) -> bool:
    """CUDA, MPS, and a CPU on Windows and on Linux each say it in their own words."""
    return any(said in str(error) for said in ("out of memory", "not enough memory", "can't allocate memory"))
