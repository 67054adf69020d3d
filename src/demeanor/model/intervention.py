"""Changing a model's activations while it runs: steering, as a context manager that never is silently off.

With v a unit vector and h the output of a decoder block at one token:

    add       h + a v                                 a in activation units
    ablate    h - <h, v> v                            nothing is left along v
    floor     h - v min(<h, v> - tau, 0)              <h, v> is at least tau   (Lu et al. 2026, activation capping)
    ceiling   h - v max(<h, v> - tau, 0)              <h, v> is at most tau

Projections are taken in float32. Where several interventions act at one layer they act in the order given. A token is
steered where it is no padding (by the attention mask of the forward pass that is running), and on the side that
`where` names:

    response  every token from which a token of the reply is written: the prompt's last one and the reply's own
    prompt    all tokens before that
    both      all of them

Which is which follows from the cache while text is generated and from `labels` while a model is trained; where neither
is there only "both" can be meant. Rows of a batch may carry different interventions. A row or token that is not
steered keeps its value bit for bit.

Nested contexts all act, the innermost first. A context may be used again once it is closed, not while it is open.
A four-dimensional mask of one's own names no padding, so that all its tokens are steered.

A context steers the thread that opened it and those that are started while it is open (a streamer's). What threads that
ran before do with the model meanwhile is left alone, neither steered nor counted.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from demeanor.errors import SteeringError
from demeanor.model.blocks import decoder_blocks, text_config
from demeanor.model.pooling import ROLLING

Kind = Literal["add", "ablate", "floor", "ceiling"]
Where = Literal["prompt", "response", "both"]


@dataclass(frozen=True, eq=False)
class Condition:
    """Steer only while a rolling score of the reply so far is on the wrong side.

    The score of a token is the sum over `layers` of its (steered) activation times `directions` [k, hidden], minus
    `centre`. It is averaged over the last `window` tokens of the reply. Before the reply has a token nothing is
    steered, and a token's own score decides from the next token on. So a reply has to keep its row and come token by token:
    no beams, no prompt in chunks or behind a kept cache, no assistant model.
    """

    layers: tuple[int, ...]
    directions: Tensor
    centre: float
    wrong: Literal["below", "above"]
    window: int = ROLLING


@dataclass(frozen=True, eq=False)
class Intervention:
    """One change at one layer. `direction` [hidden] has length 1; `amount` is a, or tau, and is not used by ablate."""

    kind: Kind
    layer: int
    direction: Tensor
    amount: float = 0.0
    where: Where = "both"
    condition: Condition | None = None

    def __post_init__(self) -> None:
        if self.direction.ndim != 1:
            raise SteeringError(f"a steering direction is [hidden], not {tuple(self.direction.shape)}; give one layer's")
        if not torch.isfinite(self.direction).all() or not torch.isfinite(torch.tensor(float(self.amount))):
            raise SteeringError("a steering vector or its amount holds NaN or infinity; extract the vector again")
        if abs(float(self.direction.float().norm()) - 1) > 1e-3:
            raise SteeringError(f"a steering direction has length 1, not {float(self.direction.float().norm()):.3g}; divide it by its norm")
        if self.condition is not None and self.where == "prompt":
            raise SteeringError(
                "a condition is read on the reply as it is written, so it never steers the prompt; "
                "steer the response or both (--where), or leave the condition out"
            )


class Steering:
    """Applies interventions to every forward pass of a model while it is open.

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
                raise SteeringError("the model's blocks were run without the model; call the model that was given")
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


@dataclass
class Pass:
    """A forward pass that is running: what is known of its tokens, and which of our layers have run."""

    owners: list[int] = field(default_factory=list)
    ran: set[int] = field(default_factory=set)
    done: bool = False
    attention: Tensor | None = None
    labels: Tensor | None = None
    past: int | None = None
    """Tokens in the cache; None where no cache was given."""
    _masks: dict[str, Tensor] = field(default_factory=dict)

    def learn(self, given: dict[str, Any]) -> None:
        """Note what the arguments of a module tell; the outermost that knows a thing is believed."""
        attention, labels, cache = given.get("attention_mask"), given.get("labels"), given.get("past_key_values")
        if self.attention is None and isinstance(attention, Tensor) and attention.ndim == 2:
            self.attention = attention
        if self.labels is None and isinstance(labels, Tensor):
            self.labels = labels
        if self.past is None and hasattr(cache, "get_seq_length"):
            self.past = int(cache.get_seq_length())  # type: ignore[union-attr]

    def mask(self, where: Where, hidden: Tensor) -> Tensor:
        """1 at the tokens to steer, 0 at the others [batch, tokens], float32."""
        key = f"{where} {hidden.device}"
        if key not in self._masks:
            self._masks[key] = self._mask(where, hidden)
        found = self._masks[key]
        if found.shape != hidden.shape[:2]:
            raise SteeringError(f"a mask for {tuple(found.shape)} tokens and activations of {tuple(hidden.shape[:2])}; they do not fit")
        return found

    def _mask(self, where: Where, hidden: Tensor) -> Tensor:
        batch, tokens = hidden.shape[:2]
        real = (
            torch.ones(batch, tokens, device=hidden.device)
            if self.attention is None
            else self._real(self.attention, tokens).to(hidden.device)
        )
        if where == "both":
            return real
        if self.labels is not None:
            writes = nn.functional.pad(self.labels[:, 1:] != -100, (0, 1)).float().to(hidden.device)
        elif self.past is None or (self.past > 0 and tokens > 1):
            raise SteeringError(
                f"cannot tell the prompt from the response in this forward pass, to steer the {where} only; "
                "generate with a cache, give labels, or steer both"
            )
        elif self.past > 0:
            writes = torch.ones_like(real)
        else:  # the prompt: its last token writes the reply's first
            counted = real.cumsum(1)
            writes = (counted == counted[:, -1:]).float() * real
        return real * (writes if where == "response" else 1 - writes)

    def _real(self, attention: Tensor, tokens: int) -> Tensor:
        """1 at the tokens that run and are no padding; the mask may name those in the cache too, and places yet to come."""
        width, past = attention.shape[1], self.past
        if past is not None and width >= past + tokens:
            return (attention[:, past : past + tokens] != 0).float()
        if width != tokens:
            before = "" if past is None else f" after {past} in the cache"
            raise SteeringError(
                f"an attention mask of {width} tokens does not fit {tokens}{before}, so it cannot say which of them are padding"
            )
        return (attention != 0).float()


class Rolling:
    """A trait's rolling score of each row's reply, and whether it is on the wrong side."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.scores: list[Tensor] = []
        self.partial: Tensor | None = None
        self.newest: tuple[Pass, Tensor] | None = None
        """The score of the token that is running, which counts from the next pass on."""

    def gate(self, current: Pass, hidden: Tensor) -> Tensor:
        """1 for the rows to steer at this token, else 0 [batch]."""
        if current.past is None or current.labels is not None or (current.past > 0 and hidden.shape[1] > 1):
            raise SteeringError(
                "steering on a condition needs a reply that is generated token by token, with a cache that begins with its prompt; "
                "leave the condition out here, or generate without chunks, candidates and kept caches"
            )
        if current.past == 0:
            self.scores, self.newest = [], None
        self._count(current)
        if not self.scores:
            return torch.zeros(len(hidden), device=hidden.device)
        mean = torch.stack([s.to(hidden.device) for s in self.scores]).mean(0)
        return (mean < 0 if self.condition.wrong == "below" else mean > 0).float()

    def read(self, layer: int, hidden: Tensor, current: Pass) -> None:
        """Add a layer's part to the newest token's score; the deepest layer makes it whole."""
        c = self.condition
        if not current.past:
            return  # the prompt
        row = c.directions[c.layers.index(layer)].to(hidden.device, torch.float32)
        part = (hidden[:, -1].detach().float() @ row).to(hidden.device)
        self.partial = part if layer == min(c.layers) or self.partial is None else self.partial.to(part.device) + part
        if layer == max(c.layers):
            self._count(current)
            self.newest, self.partial = (current, self.partial - c.centre), None

    def _count(self, current: Pass) -> None:
        if self.newest is not None and self.newest[0] is not current:
            self.scores = [*self.scores, self.newest[1]][-self.condition.window :]
            self.newest = None


def changed(kind: Kind, hidden: Tensor, on: Tensor, vectors: Tensor, amounts: Tensor, chosen: Tensor) -> Tensor:
    """`hidden` [batch, tokens, hidden] changed where `on` [batch, tokens] is 1.

    `amounts` and `chosen` [batch or 1] are a row's tau and whether the change is for that row. `vectors` [batch or 1, hidden]
    is what "add" adds to each row; of the other kinds it is the one direction [1, hidden].
    """
    if kind == "add":
        return hidden + (vectors[:, None] * on[..., None]).to(hidden.dtype)
    along = hidden.float() @ vectors[0]
    if kind == "floor":
        along = (along - amounts[:, None]).clamp(max=0)
    elif kind == "ceiling":
        along = (along - amounts[:, None]).clamp(min=0)
    return (hidden.float() - (along * on * chosen[:, None])[..., None] * vectors[0]).to(hidden.dtype)


@dataclass
class Operation:
    """Interventions of one kind at one layer, as tensors. `vectors` [rows or 1, hidden]; `amounts` and `chosen` [rows or 1]."""

    kind: Kind
    layer: int
    where: Where
    condition: Condition | None
    vectors: Tensor
    amounts: Tensor
    chosen: Tensor

    def apply(self, hidden: Tensor, on: Tensor) -> Tensor:
        """As `changed`, on the device of `hidden`."""
        if self.vectors.device != hidden.device:
            self.vectors, self.amounts, self.chosen = (t.to(hidden.device) for t in (self.vectors, self.amounts, self.chosen))
        return changed(self.kind, hidden, on, self.vectors, self.amounts, self.chosen)


def operations(everywhere: Sequence[Intervention], rows: Sequence[Sequence[Intervention]] | None) -> list[Operation]:
    """In the order given; a row's own come after those for all. Neighbouring additions become one.

    Where several rows hold the same object at the same place of their lists, it is one operation on these rows.
    """
    rows = rows or ()
    members = [(each, [1.0]) for each in everywhere]
    for place in range(max(map(len, rows), default=0)):
        shared: dict[int, tuple[Intervention, list[float]]] = {}
        for at, row in enumerate(rows):
            if place < len(row):
                shared.setdefault(id(row[place]), (row[place], [0.0] * len(rows)))[1][at] = 1.0
        members += shared.values()
    found: list[Operation] = []
    for each, chosen in members:
        direction = each.direction.detach().float().cpu()
        on = torch.tensor(chosen)
        amount = torch.full_like(on, float(each.amount))
        vectors = direction[None] * (amount * on)[:, None] if each.kind == "add" else direction[None]
        last = next((op for op in reversed(found) if op.layer == each.layer), None)
        if last is not None and last.kind == each.kind == "add" and last.where == each.where and last.condition is each.condition:
            last.vectors = last.vectors + vectors
        else:
            found.append(Operation(each.kind, each.layer, each.where, each.condition, vectors, amount, on))
    return found


def _owners(model: nn.Module, blocks: nn.ModuleList) -> list[nn.Module]:
    """The modules that hold the blocks, outermost first: each may be the one that is called."""
    path = next((name for name, module in model.named_modules() if module is blocks), None)
    if path is None:
        raise SteeringError("these blocks are no part of this model; leave blocks out, or take them from the model that is run")
    parts = path.split(".")
    return [model.get_submodule(".".join(parts[:k])) for k in range(len(parts))]


def _no_beams(*_: Any) -> None:
    """Stands for a cache's `reorder_cache` under a condition, whose scores stay in their rows."""
    raise SteeringError(
        "steering on a condition reads each row's own reply, and beam search moves replies between rows; generate without beams, "
        "or leave the condition out"
    )
