"""Changing a model's activations while it runs: steering, as a context manager that never is silently off.

It puts hooks in place that apply the operators (see operators) to the tokens that are to be steered (see passes), and takes
them away. Nested contexts all act, the innermost first. A context may be used again once it is closed, not while it is open.

A context steers the thread that opened it and those that are started while it is open (a streamer's). What threads that
ran before do with the model meanwhile is left alone, neither steered nor counted.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.utils.hooks import RemovableHandle

from demeanor.errors import SteeringError
from demeanor.model.blocks import decoder_blocks, text_config
from demeanor.model.operators import Intervention, operations
from demeanor.model.passes import Pass, Rolling


class Steering:
    """Applies interventions to every forward pass of a model while it is open: `with Steering(model, [intervention]): ...`.

    Args:
        model: The model that is run, or one that wraps it (a PEFT model).
        interventions: What acts on every row.
        rows: What acts on each row of the batch after that; every pass must then have that many rows.
        blocks: The model's decoder blocks, where they are not found by themselves.

    Raises:
        SteeringError: on making, where something does not fit the model; while open, where prompt and response cannot be
            told apart, or a pass went by without the hooks; on closing, where no pass was run at all.
    """

    def __init__(
        self,
        model: nn.Module,
        interventions: Sequence[Intervention] = (),
        rows: Sequence[Sequence[Intervention]] | None = None,
        blocks: nn.ModuleList | None = None,
    ) -> None:
        self.blocks = decoder_blocks(model) if blocks is None else blocks  # type: ignore[arg-type]
        self.rows = None if rows is None else len(rows)
        self.passes = 0
        used = [*interventions, *(i for row in rows or () for i in row)]
        self._check(used, int(text_config(model).hidden_size))  # type: ignore[arg-type]
        self._owners = _owners(model, self.blocks)
        self._ops = operations(interventions, rows)
        self._conditions = list({id(i.condition): i.condition for i in used if i.condition is not None}.values())
        self._layers = sorted({i.layer for i in used} | {layer for c in self._conditions for layer in c.layers})
        self._handles: list[RemovableHandle] = []
        self._pass: Pass | None = None
        self._rolling: dict[int, Rolling] = {}
        self._caches: weakref.WeakSet[Any] = weakref.WeakSet()

    def _check(self, used: Sequence[Intervention], width: int) -> None:
        for each in used:
            condition = each.condition
            for layer in (each.layer, *(condition.layers if condition else ())):
                if not 0 <= layer < len(self.blocks):
                    raise SteeringError(f"layer {layer} is not within 0 to {len(self.blocks) - 1}, the layers of this model")
            for vector in (each.direction, *(condition.directions if condition else ())):
                if len(vector) != width:
                    raise SteeringError(f"the steering vector is {len(vector)} wide and the model {width}; use vectors of this model")

    def __enter__(self) -> Self:
        if self._handles:
            raise SteeringError("this steering context is open already; close it first, or make another one to nest")
        self._pass, self.passes, self._rolling = None, 0, {id(c): Rolling(c) for c in self._conditions}
        # autograd's threads, dummies to Python, compute again what was steered
        self._older = {t for t in threading.enumerate() if not isinstance(t, threading._DummyThread)} - {threading.current_thread()}
        self._older_ran = False
        try:
            for rank, owner in enumerate(self._owners):
                self._handles.append(owner.register_forward_pre_hook(self._before(rank), with_kwargs=True))
                self._handles.append(owner.register_forward_hook(self._after(rank)))
            for layer in self._layers:
                # before the block's other hooks, so that whoever else reads the block reads what the next block gets
                self._handles.append(self.blocks[layer].register_forward_hook(self._at(layer), prepend=True))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._remove()
        if error is not None:
            return
        self._check_pass()
        if self.passes == 0:
            raise SteeringError(
                "nothing was steered: only threads that ran before steering was on ran the model; open the context in the thread that does"
                if self._older_ran
                else "nothing was steered: no forward pass of this model ran while steering was on; was another model run?"
            )

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for cache in self._caches:
            vars(cache).pop("reorder_cache", None)
        self._caches.clear()

    def _before(self, rank: int) -> Callable[..., None]:
        names = list(inspect.signature(self._owners[rank].forward).parameters)

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if threading.current_thread() in self._older:
                self._older_ran = True
                return
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            current = self._pass
            if current is None or current.done or rank <= max(current.owners):  # else it is the same pass, further in
                self._check_pass()
                self.passes += 1
                self._pass = current = Pass()
            current.owners.append(rank)
            current.learn(given)
            if self._conditions and hasattr(cache := given.get("past_key_values"), "reorder_cache"):
                cache.reorder_cache = _no_beams  # type: ignore[union-attr]
                self._caches.add(cache)

        return hook

    def _after(self, rank: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, _output: Any) -> None:
            if threading.current_thread() in self._older:
                return
            if self._pass is not None and rank == self._pass.owners[0]:
                self._pass.done = True
                self._check_pass()

        return hook

    def _check_pass(self) -> None:
        """All layers have run; in a pass that ended early (a reader's), all below the deepest that has."""
        current = self._pass
        if current is None:
            return
        deepest = self._layers[-1] if current.done and self._layers else max(current.ran, default=-1)
        if missing := [layer for layer in self._layers if layer <= deepest and layer not in current.ran]:
            raise SteeringError(
                f"steering was off at layers {missing} in a forward pass, for its hooks did not run there; "
                "run the model itself, not a compiled or exported copy, and leave its hooks alone"
            )

    def _at(self, layer: int) -> Callable[..., Any]:
        operations = [op for op in self._ops if op.layer == layer]
        reads = [c for c in self._conditions if layer in c.layers]

        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if threading.current_thread() in self._older:
                return output
            hidden = output[0] if isinstance(output, tuple) else output
            current = self._pass
            if current is None:
                raise SteeringError("the model's blocks were run on their own; call the model that was given")
            if self.rows not in (None, len(hidden)):
                raise SteeringError(f"interventions for {self.rows} rows, and a batch of {len(hidden)}; give one list for each row")
            current.ran.add(layer)
            for op in operations:
                on = current.mask(op.where, hidden)
                if op.condition is not None:
                    on = on * self._rolling[id(op.condition)].gate(current, hidden)[:, None]
                hidden = op.apply(hidden, on)
            for condition in reads:
                self._rolling[id(condition)].read(layer, hidden, current)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook


def _owners(model: nn.Module, blocks: nn.ModuleList) -> list[nn.Module]:
    """The modules that hold the blocks, outermost first: each may be the one that is called."""
    path = next((name for name, module in model.named_modules() if module is blocks), None)
    if path is None:
        raise SteeringError("these blocks are not part of this model; leave blocks out, or take them from the model that is run")
    parts = path.split(".")
    return [model.get_submodule(".".join(parts[:k])) for k in range(len(parts))]


def _no_beams(*_: Any) -> None:
    """Stands for a cache's `reorder_cache` under a condition, whose scores stay in their rows."""
    raise SteeringError(
        "steering on a condition reads each row's own reply, and beam search moves replies between rows; generate without beams, "
        "or leave the condition out"
    )
