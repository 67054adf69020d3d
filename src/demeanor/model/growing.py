"""Reading a conversation as it grows: each call runs only the tokens that no earlier call has run.

Keys and values of what was read are kept, and each token's projections beside them. Where a conversation turns out to
begin otherwise than before (a template that rewrites earlier turns, a reply that was taken back), what no longer fits is
dropped. On a model that cannot continue from kept keys and values, every call runs the whole, and so does the call in
which the conversation grows beyond a length from which on the model reads otherwise (LongRoPE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from demeanor.errors import ActivationError
from demeanor.model.packing import common_prefix
from demeanor.model.reader import ActivationReader, keys_and_values


class GrowingRead:
    """One conversation's tokens, read once each.

    Args:
        reader: Of the model.
        layers: 0-based layers to read; k of them.
        project: Tokens' activations [tokens, k, hidden], float32, to what is kept of each, [tokens, ...].
    """

    def __init__(self, reader: ActivationReader, layers: Sequence[int], project: Callable[[Tensor], Tensor]) -> None:
        self.reader = reader
        self.layers = list(layers)
        self.project = project
        self.tokens_run = 0
        """How many tokens have passed through the model in all calls."""
        self._forget()

    def _forget(self) -> None:
        self._ids: list[int] = []
        self._values: Tensor | None = None
        self._cache = DynamicCache()

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> Tensor:
        """The projections of all tokens [tokens, ...], on the device.

        Raises ActivationError where they are not finite or there are more tokens than the model's context holds.
        """
        if len(ids) > self.reader.context_length:
            raise ActivationError(f"{len(ids)} tokens do not fit the model's context of {self.reader.context_length}")
        turned = (len(self._ids) > self.reader.turns_at) != (len(ids) > self.reader.turns_at)
        kept = common_prefix(self._ids, ids) if self.reader.shares_up_to and not turned else 0
        if kept < len(self._ids):
            self._keep(kept)
        if kept < len(ids):
            try:
                self._run(list(ids[kept:]))
            except BaseException:  # half a pass may have left layers of different lengths
                self._forget()
                raise
        assert self._values is not None
        return self._values

    def _keep(self, n: int) -> None:
        if n == 0 or self._values is None:
            self._forget()
            return
        self._cache = DynamicCache([(keys[..., :n, :], values[..., :n, :]) for keys, values in keys_and_values(self._cache)])
        self._ids, self._values = self._ids[:n], self._values[:n]

    def _run(self, new: list[int]) -> None:
        start = len(self._ids)
        device = self.reader.device
        found: dict[int, Tensor] = {}
        options: dict[str, Any] = {}
        if self.reader.shares_up_to:
            options = {"position_ids": torch.arange(start, start + len(new), device=device)[None], "past_key_values": self._cache}
        with self.reader.passes(self.layers, lambda layer, hidden: found.__setitem__(layer, hidden[0].float().to(device))):
            self.reader.model(input_ids=torch.tensor([new], device=device), use_cache=bool(options), **options)
        values = self.project(torch.stack([found[layer] for layer in self.layers], dim=1))
        if not torch.isfinite(values).all():
            raise ActivationError("the activations are not finite numbers (NaN or infinity); try --dtype float32")
        self._values = values if self._values is None else torch.cat([self._values, values])
        self._ids += new
        self.tokens_run += len(new)


@contextmanager
def tapped(reader: ActivationReader, layers: Sequence[int], project: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """While it is open, every forward pass of one row adds the projections of its tokens [tokens, ...] to the list it gives.

    Nothing is taken from the device, so that a reply is written at its own speed.
    """
    passes: list[Tensor] = []
    found: dict[int, Tensor] = {}
    deepest = max(layers)

    def take(layer: int, hidden: Tensor) -> None:
        found[layer] = hidden[0].float().to(reader.device)
        if layer == deepest:
            made = project(torch.stack([found[layer] for layer in layers], dim=1))
            if passes and len(made) == sum(map(len, passes)) + 1:  # a LongRoPE model's reply crosses its length: all runs anew
                start = len(passes[0])
                passes[:] = made[:start], made[start:]
            else:
                passes.append(made)

    with reader.passes(layers, take, whole=True):
        yield passes
