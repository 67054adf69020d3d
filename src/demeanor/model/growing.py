"""Reading a conversation as it grows: each call runs only the tokens that no earlier call has run.

Keys and values of what was read are kept, and each token's projections beside them. Where a conversation turns out to
begin otherwise than before (a template that rewrites earlier turns, a reply that was taken back), what no longer fits is
dropped. On a model that cannot continue from kept keys and values, every call runs the whole, and so does the call in
which the conversation grows beyond a length from which on the model reads otherwise (LongRoPE).

A conversation longer than the model's context is read in the windows of packing, of which only the newest keeps its keys and
values. What many conversations keep together is bounded by a Budget: the one that was not read for longest gives up what it
has, and is read anew when it goes on.
"""

from __future__ import annotations

import threading
import weakref
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from demeanor.errors import ActivationError
from demeanor.model.batches import NOT_FINITE
from demeanor.model.directions import Directions
from demeanor.model.hooks import Stack, keys_and_values
from demeanor.model.packing import common_prefix, window_bounds


class Runs(Protocol):
    """What is needed of an ActivationReader."""

    model: PreTrainedModel
    stack: Stack
    device: torch.device
    context_length: int
    turns_at: int

    @property
    def shares_up_to(self) -> int:
        """0 where the model cannot go on from kept keys and values."""


class Budget:
    """So many bytes for what all conversations keep; a conversation that is being read is not asked to give up anything."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._sizes: OrderedDict[weakref.ref[GrowingRead], int] = OrderedDict()  # in the order in which they were read
        self._gone: deque[weakref.ref[GrowingRead]] = deque()  # told by the garbage collector, at any time and in any thread
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes that are kept now, as of the last read; what is being read is not counted."""
        with self._lock:
            self._forget_the_gone()
            return self._used

    @contextmanager
    def reading(self, conversation: GrowingRead) -> Iterator[None]:
        """While it is open, the conversation is not asked to give up anything; then those are that were not read for longest."""
        key = weakref.ref(conversation, self._gone.append)
        with self._lock:
            self._used -= self._sizes.pop(key, 0)
        try:
            yield
        finally:
            with self._lock:
                self._forget_the_gone()
                self._sizes[key] = size = conversation.bytes_kept
                self._used += size
                while self._used > self.limit and self._sizes:
                    other, size = self._sizes.popitem(last=False)
                    self._used -= size
                    if (found := other()) is not None:
                        found.give_up()

    def _forget_the_gone(self) -> None:
        while self._gone:
            self._used -= self._sizes.pop(self._gone.popleft(), 0)


class GrowingRead:
    """One conversation's tokens, read once each; of those beyond the context, up to half a context is run again in each window.

    Args:
        reader: Of the model.
        directions: What is read of each token, on the model's device.
        budget: What may be kept, together with other conversations; None for no bound.
    """

    def __init__(self, reader: Runs, directions: Directions, budget: Budget | None = None) -> None:
        self.reader = reader
        self.directions = directions
        self.budget = budget
        self.tokens_run = 0
        """How many tokens have passed through the model in all calls."""
        self._windows: dict[int, _Window] = {}  # by where they begin

    def read(self, ids: Sequence[int], since: int = 0) -> NDArray[np.float64]:
        """Raw scores of the tokens from `since` on [tokens, traits]. Raises ActivationError where they are not finite."""
        if self.budget is None:
            return self._read(ids, since)
        with self.budget.reading(self):
            return self._read(ids, since)

    def first_read(self, length: int, since: int) -> int:
        """The first token whose projections cost nothing more where those from `since` on are read."""
        return next((done for _, done, end in window_bounds(length, self.reader.context_length) if end > since), 0)

    @property
    def bytes_kept(self) -> int:
        """What is kept of the conversation now."""
        return sum(window.bytes_kept for window in self._windows.values())

    def give_up(self) -> None:
        """Keep nothing; the next call runs all its tokens."""
        self._windows = {}

    def keep(self, n: int) -> None:
        """Keep nothing of the tokens from the n-th on; the next call runs them anew."""
        self._windows = {start: window for start, window in self._windows.items() if start < n}
        for start, window in self._windows.items():
            window.keep(n - start)

    @torch.inference_mode()
    def _read(self, ids: Sequence[int], since: int) -> NDArray[np.float64]:
        bounds = [b for b in window_bounds(len(ids), self.reader.context_length) if b[2] > since]
        newest = bounds[-1][0]
        self._windows = {start: window for start, window in self._windows.items() if start <= newest}
        found = []
        for start, done, end in bounds:
            window = self._windows.setdefault(start, _Window(self.reader, self.directions))
            had = window.tokens_run
            try:
                values = window.read(ids[start:end])
            finally:
                self.tokens_run += window.tokens_run - had
            if start != newest:
                window.close()
            found.append(values[max(done, since) - start :])
        return (torch.cat(found) if len(found) > 1 else found[0]).cpu().double().numpy()


class _Window:
    """What fits the context: tokens, their projections, and keys and values to go on from."""

    def __init__(self, reader: Runs, directions: Directions) -> None:
        self.reader, self.directions = reader, directions
        self.tokens_run = 0
        self._ids = array("q")
        self._values: Tensor | None = None
        self._cache = DynamicCache()
        self._open = True

    @property
    def bytes_kept(self) -> int:
        tensors = [tensor for pair in keys_and_values(self._cache) for tensor in pair]
        tensors += [self._values] if self._values is not None else []
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors) + self._ids.itemsize * len(self._ids)

    def close(self) -> None:
        """Keep no keys and values: nothing is to come. Should the tokens change all the same, all are run again."""
        self._cache = DynamicCache()
        self._open = False

    def read(self, ids: Sequence[int]) -> Tensor:
        """The projections of all its tokens."""
        turned = (len(self._ids) > self.reader.turns_at) != (len(ids) > self.reader.turns_at)
        kept = common_prefix(self._ids, ids) if not turned else 0
        if kept < len(ids) and not (self.reader.shares_up_to and self._open):
            kept = 0
        self.keep(kept)
        if kept < len(ids):
            try:
                self._run(list(ids[kept:]))
            except BaseException:  # half a pass may have left layers of different lengths
                self._forget()
                raise
        assert self._values is not None
        return self._values

    def keep(self, n: int) -> None:
        """Forget all but the first n tokens."""
        if n >= len(self._ids):
            return
        if n == 0 or self._values is None:
            self._forget()
            return
        self._cache = DynamicCache([(keys[..., :n, :], values[..., :n, :]) for keys, values in keys_and_values(self._cache)])
        self._ids, self._values = self._ids[:n], self._values[:n]

    def _forget(self) -> None:
        self._ids, self._values = array("q"), None
        self._cache, self._open = DynamicCache(), True

    def _run(self, new: list[int]) -> None:
        start = len(self._ids)
        device = self.reader.device
        found: dict[int, Tensor] = {}
        options: dict[str, Any] = {}
        if self.reader.shares_up_to:
            options = {"position_ids": torch.arange(start, start + len(new), device=device)[None], "past_key_values": self._cache}
        with self.reader.stack.passes(self.directions.layers, lambda layer, hidden: found.__setitem__(layer, hidden[0].float().to(device))):
            self.reader.model(input_ids=torch.tensor([new], device=device), use_cache=bool(options), **options)
        values = self.directions.project(torch.stack([found[layer] for layer in self.directions.layers], dim=1))
        if not torch.isfinite(values).all():
            raise ActivationError(NOT_FINITE)
        self._values = values if self._values is None else torch.cat([self._values, values])
        self._ids.extend(new)
        self.tokens_run += len(new)


@contextmanager
def tapped(reader: Runs, directions: Directions) -> Iterator[list[Tensor]]:
    """While it is open, every forward pass of one row adds its tokens' raw scores [tokens, traits] to the list it gives.

    Nothing is taken from the device, so that a reply is written at its own speed.
    """
    passes: list[Tensor] = []
    found: dict[int, Tensor] = {}
    directions, layers = directions.to(reader.device), directions.layers
    deepest = max(layers)

    def take(layer: int, hidden: Tensor) -> None:
        found[layer] = hidden[0].float().to(reader.device)
        if layer == deepest:
            made = directions.project(torch.stack([found[layer] for layer in layers], dim=1))
            if passes and len(made) == sum(map(len, passes)) + 1:  # a LongRoPE model's reply crosses its length: all runs anew
                start = len(passes[0])
                passes[:] = made[:start], made[start:]
            else:
                passes.append(made)

    with reader.stack.passes(layers, take, whole=True):
        yield passes
