"""What is taken of a forward pass: the outputs of decoder blocks, and the keys and values that a cache then holds.

Our own hooks take them; the pass stops after the deepest layer that is needed, so that neither the blocks above nor the
LM head run. No pass has dropout, whatever mode the model is in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class _EnoughError(Exception):
    """Ends a forward pass after the deepest layer that is needed."""


@dataclass(frozen=True)
class Stack:
    """A model as its decoder blocks, to be run and read; `device` is where its tokens go."""

    model: PreTrainedModel
    blocks: nn.ModuleList
    device: torch.device

    @contextmanager
    def passes(self, layers: Sequence[int], take: Callable[[int, Tensor], None], whole: bool = False) -> Iterator[None]:
        """As `capture`; a model in training mode is in evaluation mode meanwhile, and each of its modules then in its own again."""
        training = [module for module in self.model.modules() if module.training] if self.model.training else []
        try:
            for module in training:
                module.training = False
            with capture(self.blocks, layers, take, whole):
                yield
        finally:
            for module in training:
                module.training = True

    def to_device(self, tensor: Tensor) -> Tensor:
        """Without waiting for what the device is doing."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor.to(self.device)


@contextmanager
def capture(blocks: nn.ModuleList, layers: Sequence[int], take: Callable[[int, Tensor], None], whole: bool = False) -> Iterator[None]:
    """While it is open, `take(layer, hidden)` gets each layer's output [batch, tokens, hidden].

    Then the pass ends, and with it what is inside the context; with `whole` every pass goes on to its end. Passes of
    other threads through the same model are not touched.
    """
    deepest, own = max(layers), threading.get_ident()
    handles = []

    def hook(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            if threading.get_ident() != own:
                return
            take(layer, output[0] if isinstance(output, tuple) else output)
            if layer == deepest and not whole:
                raise _EnoughError

        return after

    try:
        for layer in sorted(set(layers)):
            handles.append(blocks[layer].register_forward_hook(hook(layer)))
        yield
    except _EnoughError:
        pass
    except RuntimeError as error:
        # torch goes through a block's hooks once more where one has raised, and fails if another thread changes them just then;
        # all that was to be taken has been taken by then
        if not isinstance(error.__context__, _EnoughError):
            raise
    finally:
        for handle in handles:
            handle.remove()


def keys_and_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """What a cache holds of each layer that has run [rows, heads, tokens, width of a head]."""
    found = (layer for layer in cache.layers if isinstance(layer, DynamicLayer))
    return [(layer.keys, layer.values) for layer in found if layer.keys is not None and layer.values is not None]
