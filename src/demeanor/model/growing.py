"""Reading a conversation as it grows: each call runs only the tokens that no earlier call has run.

Keys and values of what was read are kept, and each token's raw scores beside them (see kept). Where a conversation turns out to
begin otherwise than before (a template that rewrites earlier turns, a reply that was taken back), what no longer fits is
dropped. On a model that cannot continue from kept keys and values, every call runs the whole, and so does the call in
which the conversation grows beyond a length from which on the model reads otherwise (LongRoPE).

A conversation longer than the model's context is read in the windows of packing, of which only the newest keeps its keys and
values. What many conversations keep together is bounded by a Budget: the one that was not read for longest gives up what it
has, and is read anew when it goes on. Many that are to be read side by side are read otherwise: see together.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demeanor.model.directions import Directions
from demeanor.model.together import Runs, Together


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
        self.budget = budget
        self.tokens_run = 0
        """How many tokens have passed through the model in all calls."""
        self._together = Together(reader, directions)
        self._anew: int | None = None

    def read(self, ids: Sequence[int], since: int = 0) -> NDArray[np.float64]:
        """Raw scores of the tokens from `since` on [tokens, traits]. Raises ActivationError where they are not finite."""
        if self.budget is None:
            return self._read(list(ids), since)
        with self.budget.reading(self):
            return self._read(list(ids), since)

    def first_read(self, length: int, since: int) -> int:
        """The first token whose raw scores cost nothing more where those from `since` on are read."""
        return next((done for _, done, end in self._together.bounds(length) if end > since), 0)

    @property
    def bytes_kept(self) -> int:
        """What is kept of the conversation now."""
        return self._together.used

    def give_up(self) -> None:
        """Keep nothing; the next call runs all its tokens."""
        self._together.clear()

    def keep(self, n: int) -> None:
        """Keep nothing of the tokens from the n-th on; the next call runs them anew."""
        self._anew = n if self._anew is None else min(n, self._anew)

    def _read(self, ids: list[int], since: int) -> NDArray[np.float64]:
        bounds = self._together.bounds(len(ids))
        found = []
        for start, done, end in bounds:
            if end <= since:
                continue
            row = self._together.row(ids[start:end], None if self._anew is None else max(0, self._anew - start))
            values = row.known
            if row.new:
                self.tokens_run += row.new
                (read,) = self._together.read([row])
                if isinstance(read, Exception):
                    raise read
                values = read
            found.append(values[max(done, since) - start :])
        self._anew = None
        self._together.only([ids[start:end] for start, _, end in bounds])
        return np.concatenate(found).astype(np.float64)


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
