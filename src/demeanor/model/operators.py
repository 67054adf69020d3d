"""What steering does to activations: tensor in, tensor out; knows no model.

With v a unit vector and h the output of a decoder block at one token:

    add       h + a v                                 a in activation units
    ablate    h - <h, v> v                            nothing is left along v
    floor     h - v min(<h, v> - tau, 0)              <h, v> is at least tau   (Lu et al. 2026, activation capping)
    ceiling   h - v max(<h, v> - tau, 0)              <h, v> is at most tau

Projections are taken in float32. Where several interventions act at one layer they act in the order given. Rows of a
batch may carry different interventions. A row or token that is not steered keeps its value bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from demeanor.errors import SteeringError
from demeanor.model.pooling import ROLLING

Kind = Literal["add", "ablate", "floor", "ceiling"]
Where = Literal["prompt", "response", "both"]


@dataclass(frozen=True, eq=False)
class SteeringCondition:
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
    """One change of the residual stream after one decoder block (0-based). See the formulas above.

    `direction` [hidden] has length 1. `amount` is a of "add" or tau of "floor" and "ceiling", in activation units, and is not used
    by "ablate"; a positive a adds to the trait. Raises SteeringError where the direction does not fit.
    """

    kind: Kind
    layer: int
    direction: Tensor
    amount: float = 0.0
    where: Where = "both"
    condition: SteeringCondition | None = None

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
    condition: SteeringCondition | None
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
