"""From the hidden states of a batch to one activation a span, in float32.

A span's tokens may stand in several stretches of a row (see packing). Pooling of spans of n tokens:

    mean   the mean of its tokens: one product a layer, weights [rows, slots, tokens] times hidden [rows, tokens, hidden]
    last   its last token
    max    in each dimension, the largest of the rolling means over ROLLING tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from demeanor.model.packing import Job, PackedRow

Pooling = Literal["mean", "last", "max"]
Pool: TypeAlias = Callable[[Tensor], Tensor]
"""Hidden states [rows, tokens, hidden] to pooled activations [spans, hidden], float32."""
ROLLING = 8  # tokens in the rolling means that the "max" pooling takes the largest of


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a span's tokens in a batch."""

    span: int
    row: int
    start: int
    end: int


def pieces(jobs: Sequence[Job], rows: Sequence[PackedRow]) -> list[Piece]:
    """Where the spans stand. They are numbered by row, then by job within the row, then as the job lists them."""
    found = []
    span = 0
    for at, row in enumerate(rows):
        for branch in row.branches():
            for start, end in jobs[branch[0]].spans:
                found += [Piece(span, at, first, last) for first, last in row.columns(branch, start, end)]
                span += 1
    return found


def pooler(pooling: Pooling, found: list[Piece], spans: int, shape: tuple[int, int], to_device: Callable[[Tensor], Tensor]) -> Pool:
    """What pools the spans of a batch of this shape; a span without a token gives zeros."""
    if pooling == "mean":
        return _MeanPool(found, spans, shape, to_device)
    return _TokenPool(found, spans, pooling)


def combine(pooling: Pooling, parts: Sequence[Tensor], held: Sequence[Sequence[int]]) -> Tensor:
    """The pooled activations [spans, ...] of a conversation from those of its windows.

    `held` [windows, spans] says how many of a span's tokens each window read. For "max", windows read the last
    ROLLING - 1 tokens of the one before again, so that every rolling mean lies within one of them.
    """
    stacked, tokens = torch.stack(list(parts)), torch.tensor(held)
    if pooling == "mean":
        weights = tokens / tokens.sum(0)
        return (stacked * weights.view(*weights.shape, *[1] * (stacked.ndim - 2))).sum(0)
    spans = range(stacked.shape[1])
    if pooling == "last":
        return torch.stack([stacked[int(tokens[:, i].nonzero()[-1]), i] for i in spans])
    whole = tokens >= tokens.amax(0).clamp(max=ROLLING)  # a window with fewer tokens has only means over too few
    return torch.stack([stacked[whole[:, i], i].amax(0) for i in spans])


class _MeanPool:
    """A row's product touches that row alone, so that a row with NaN spoils no other."""

    def __init__(self, found: list[Piece], spans: int, shape: tuple[int, int], to_device: Callable[[Tensor], Tensor]) -> None:
        rows, tokens = shape
        lengths = [0] * spans
        slots: dict[tuple[int, int], int] = {}
        used = [0] * rows
        for piece in found:
            lengths[piece.span] += piece.end - piece.start
            if (piece.row, piece.span) not in slots:
                slots[piece.row, piece.span] = used[piece.row]
                used[piece.row] += 1
        weights = torch.zeros(rows, max(used), tokens)
        for piece in found:
            weights[piece.row, slots[piece.row, piece.span], piece.start : piece.end] = 1 / lengths[piece.span]
        self.weights = to_device(weights)
        self.row, self.span = to_device(torch.tensor(list(slots), dtype=torch.long).reshape(-1, 2).T)
        self.slot = to_device(torch.tensor(list(slots.values()), dtype=torch.long))
        self.spans = spans

    def __call__(self, hidden: Tensor) -> Tensor:
        # a model that is spread over devices has layers elsewhere than its embeddings
        weights, row, slot, span = (t.to(hidden.device) for t in (self.weights, self.row, self.slot, self.span))
        means = torch.bmm(weights, hidden.float())[row, slot]
        return torch.zeros(self.spans, means.shape[1], device=means.device).index_copy_(0, span, means)


class _TokenPool:
    """Pooling that looks at a span's tokens in order."""

    def __init__(self, found: list[Piece], spans: int, pooling: Pooling) -> None:
        self.last = pooling == "last"
        self.pieces: list[list[Piece]] = [[] for _ in range(spans)]
        for piece in found:
            self.pieces[piece.span].append(piece)

    def __call__(self, hidden: Tensor) -> Tensor:
        return torch.stack(
            [
                self._one(torch.cat([hidden[p.row, p.start : p.end] for p in of_span]))
                if of_span
                else hidden.new_zeros(hidden.shape[-1], dtype=torch.float32)
                for of_span in self.pieces
            ]
        )

    def _one(self, tokens: Tensor) -> Tensor:
        if self.last:
            return tokens[-1].float()
        size = min(ROLLING, len(tokens))
        return tokens.float().unfold(0, size, 1).mean(-1).amax(0)
