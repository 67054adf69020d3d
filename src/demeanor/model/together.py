"""Several conversations in one pass, each going on from what is kept of its beginning (see kept).

A small pass takes nearly as long for one conversation as for several, as each lays out the model's weights anew; so rows run side by
side. Each goes on from its own kept keys and values, padded to the longest, under a mask where they differ in length:

    row     [ kept tokens | padding ][ new tokens | padding ]

Padding on the right needs no mask. What a row reads does not depend on those beside it, but for rounding. A row that could not be read
(NaN, no memory) spoils no other: what fails is tried again in halves.

On a model that cannot go on from kept keys and values (see probes), every row runs whole, and only raw scores are kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demeanor.errors import ActivationError
from demeanor.model.batches import NOT_FINITE, out_of_memory
from demeanor.model.directions import Directions
from demeanor.model.hooks import Stack, keys_and_values
from demeanor.model.kept import Blocks, Found, Kept, Values
from demeanor.model.packing import common_prefix, window_bounds

PASS = 64
"""What a pass costs beside its tokens, in tokens; also so many tokens in common are worth waiting for until they are kept. Measured on
two cores as 60 (float32) to 130 (bfloat16)."""
LOOKED_BACK, COPIED = 1000, 20  # so many kept tokens cost a new one as much as it costs itself; so many cost a row as much, to lay out
ALIKE = 8  # kept tokens by which rows differ that count as one new token does, where rows alike are looked for
GROUPED = "TRANSFORMERS_SDPA_FORCE_GQA"
"""By this transformers repeats no keys and values for heads that share them, under a mask too. On a CPU, torch's attention takes a third
less time so, with the same numbers to the bit; elsewhere it may take longer, so that it is left alone there."""
NOTHING: Values = np.zeros((0, 0), np.float32)


class Runs(Protocol):
    """What is needed of an ActivationReader."""

    model: PreTrainedModel
    stack: Stack
    device: torch.device
    context_length: int
    turns_at: int
    token_budget: int

    @property
    def shares_up_to(self) -> int:
        """0 where the model cannot go on from kept keys and values."""


@dataclass(frozen=True, eq=False)
class Row:
    """Tokens that are to be read, and what is kept of their beginning."""

    ids: list[int]
    found: Found
    start: int
    """How many tokens need not run."""

    @property
    def new(self) -> int:
        """How many tokens run."""
        return len(self.ids) - self.start

    @property
    def known(self) -> Values:
        """The raw scores that are kept; of all tokens, where none is new."""
        return np.concatenate(self.found.values) if self.found.values else NOTHING


class Together:
    """Reads rows side by side, and keeps what was read within a limit in bytes.

    Args:
        reader: Of the model.
        directions: What is read of each token, on the model's device.
        limit: Bytes that may be kept; None for no bound.
    """

    def __init__(self, reader: Runs, directions: Directions, limit: int | None = None) -> None:
        self.reader, self.directions = reader, directions
        if reader.device.type == "cpu":
            os.environ.setdefault(GROUPED, "1")
        self.kept = Kept(limit)
        self._layout: list[list[int]] = []  # which layers' keys and values have one shape
        width = directions.matrix.shape[1] // len(directions.layers)
        self._parts = {layer: directions.matrix[:, i * width : (i + 1) * width].T for i, layer in enumerate(directions.layers)}

    @property
    def used(self) -> int:
        """Bytes that are kept now."""
        return self.kept.used

    def bounds(self, length: int) -> list[tuple[int, int, int]]:
        """The windows that so many tokens are read in: where each begins, from where on it reads, where it ends."""
        return list(window_bounds(length, self.reader.context_length))

    def row(self, ids: list[int], anew: int | None = None) -> Row:
        """What is to be run of a window's tokens; those from number `anew` on run in any case. Raises ModelError: no causal model."""
        goes_on = bool(self.reader.shares_up_to)
        found = self.kept.find(ids, anew, self._long(ids))
        whole = found.scored >= len(ids)
        return Row(ids, found, len(ids) if whole else found.tokens if goes_on else 0)

    def choose(self, rows: Sequence[Row]) -> list[int]:
        """Which of these rows the next pass takes, by their places: the first in any case, and those most like it that fit beside it."""
        first = rows[0]
        chosen = [0]
        for i in sorted(range(1, len(rows)), key=lambda i: abs(rows[i].new - first.new) + abs(rows[i].start - first.start) / ALIKE):
            if self.fits([rows[j] for j in chosen], rows[i]):
                chosen.append(i)
        return chosen

    def fits(self, rows: Sequence[Row], row: Row) -> bool:
        """Whether a row may and should run beside these: in this pass that costs less than in one of its own."""
        together = [*rows, row]
        starts = {r.start for r in together}
        if len(starts) > 1 and max(len(r.ids) for r in together) > self.reader.shares_up_to:
            return False  # a mask of our own knows no sliding window
        if len({self._long(r.ids) for r in together}) > 1:
            return False
        if len(together) * max(r.new for r in together) > self.reader.token_budget:
            return False
        if self.reader.shares_up_to and any(self._opens_alike(r, row) for r in rows):
            return False
        if self._laid_out(together) > self._room:
            return False
        return _cost(together) - _cost(rows) <= _cost([row])

    def read(self, rows: Sequence[Row]) -> list[Values | Exception]:
        """Raw scores of each row's tokens [tokens, traits], or why there are none."""
        try:
            return self._pass(rows)
        except Exception as error:
            if out_of_memory(error):
                self.kept.clear()
                if self.reader.device.type == "cuda":
                    torch.cuda.empty_cache()
            if len(rows) == 1:
                return [error]
        half = len(rows) // 2
        return [*self.read(rows[:half]), *self.read(rows[half:])]

    def only(self, sequences: Sequence[Sequence[int]]) -> None:
        """Forget all but these windows of one conversation, and keys and values of all but the last, which may go on."""
        self.kept.only([(ids, self._long(ids)) for ids in sequences])

    def clear(self) -> None:
        """Keep nothing."""
        self.kept.clear()

    def _long(self, ids: Sequence[int]) -> bool:
        """Whether the model reads it as it reads long texts (LongRoPE)."""
        return len(ids) > self.reader.turns_at

    @property
    def _room(self) -> float:
        """Bytes that the keys and values of a batch may take beside those that are kept."""
        return float("inf") if self.kept.limit is None else self.kept.limit / 2

    def _laid_out(self, rows: Sequence[Row]) -> float:
        """Bytes of the keys and values that a batch goes on from, padding included."""
        a_token = max((sum(b.nbytes for b in blocks) / blocks[0].shape[2] for r in rows for blocks in r.found.blocks[:1]), default=0.0)
        return a_token * len(rows) * max(r.start for r in rows)

    def _opens_alike(self, one: Row, other: Row) -> bool:
        """Whether so much of what is new is the same that the second had better wait until it is kept."""
        if one.start != other.start or one.ids[one.start : one.start + PASS] != other.ids[other.start : other.start + PASS]:
            return False
        return common_prefix(one.ids, other.ids) - one.start >= PASS and (self.kept.limit is None or self.kept.limit > 0)

    @torch.inference_mode()
    def _pass(self, rows: Sequence[Row]) -> list[Values | Exception]:
        goes_on, device = bool(self.reader.shares_up_to), self.reader.device
        width, past = max(row.new for row in rows), max(row.start for row in rows)
        ids, position = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
        for at, row in enumerate(rows):
            ids[at, : row.new] = torch.tensor(row.ids[row.start :])
            position[at] = torch.arange(row.start, row.start + width).clamp(max=len(row.ids) - 1)
        options: dict[str, Any] = {}
        cache = DynamicCache(self._laid(rows, past) if past else None)
        if goes_on:
            options = {"position_ids": self.reader.stack.to_device(position), "past_key_values": cache}
            if any(row.start != past for row in rows):
                options |= {"attention_mask": _mask([row.start for row in rows], past, width, device, self.reader.model.dtype)}
        scores = torch.zeros(len(rows), width, len(self.directions.matrix), device=device)

        def take(layer: int, hidden: Tensor) -> None:
            scores.add_((hidden.float() @ self._parts[layer].to(hidden.device)).to(device))

        with self.reader.stack.passes(self.directions.layers, take):
            self.reader.model(input_ids=self.reader.stack.to_device(ids), use_cache=goes_on, **options)
        values = scores.cpu().numpy()
        return [self._settled(row, values[at, : row.new], cache, at, past) for at, row in enumerate(rows)]

    def _settled(self, row: Row, new: Values, cache: DynamicCache, at: int, past: int) -> Values | Exception:
        """A row's raw scores, kept with its keys and values for what goes on from it."""
        if not np.isfinite(new).all():
            return ActivationError(NOT_FINITE)
        may_go_on = bool(self.reader.shares_up_to) and len(row.ids) < self.reader.context_length
        blocks = self._taken(cache, at, past, past + row.new) if may_go_on else None
        self.kept.add(row.ids, row.start, new, blocks, self._long(row.ids))
        return np.concatenate([row.known[: row.start], new]) if row.start else new

    def _laid(self, rows: Sequence[Row], past: int) -> list[tuple[Tensor, Tensor]]:
        """The keys and values that the rows go on from, layer by layer, each [rows, heads, past, width of a head]."""
        first = next(row.found.blocks[0] for row in rows if row.start)
        flat: dict[int, Tensor] = {}
        for group, (like, layers) in enumerate(zip(first, self._layout, strict=True)):
            laid = like.new_zeros(like.shape[0], len(rows), like.shape[1], past, like.shape[3])
            for at, row in enumerate(rows):
                column = 0
                for blocks in row.found.blocks:
                    laid[:, at, :, column : column + blocks[group].shape[2]] = blocks[group]
                    column += blocks[group].shape[2]
            flat |= dict(zip(layers, laid, strict=True))
        return [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]

    def _taken(self, cache: DynamicCache, at: int, start: int, end: int) -> Blocks:
        """Keys and values of a row's new tokens."""
        flat = [tensor for pair in keys_and_values(cache) for tensor in pair]
        if not self._layout:
            alike: dict[Any, list[int]] = {}
            for i, tensor in enumerate(flat):
                alike.setdefault((tensor.shape[1], tensor.shape[3], tensor.dtype, tensor.device), []).append(i)
            self._layout = list(alike.values())
        return [torch.stack([flat[i][at, :, start:end] for i in layers]) for layers in self._layout]


def _cost(rows: Sequence[Row]) -> float:
    """What a pass costs, in tokens of a large batch: for itself, for its new tokens, for what these look back at and what is laid out."""
    if not rows:
        return 0.0
    new, past = max(row.new for row in rows), max(row.start for row in rows)
    return PASS + len(rows) * (new * (1 + past / LOOKED_BACK) + past / COPIED)


def _mask(starts: Sequence[int], past: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Who sees whom, as numbers added to the attention scores [rows, 1, width, past + width].

    A token sees what is kept of its row, and what came before it.
    """
    order = torch.arange(past + width, device=device)
    kept = order[None, :] < torch.tensor(starts, device=device)[:, None]
    new = (order[None, :] >= past) & (order[None, :] - past <= torch.arange(width, device=device)[:, None])
    mask = torch.zeros(len(starts), 1, width, past + width, device=device, dtype=dtype)
    return mask.masked_fill_(~(kept[:, None, None, :] | new[None, None]), torch.finfo(dtype).min)
