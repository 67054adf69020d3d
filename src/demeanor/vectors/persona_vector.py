"""A direction in activation space for one trait, pointing from the low pole to the high one.

raw score = activation · direction, higher meaning more of the trait. The direction has unit length. Most vectors are
read at one layer, direction [hidden]; one that is read at k layers together has direction [k, hidden], of unit length
as a whole, and the raw score is summed over the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demeanor.errors import DamagedVectorSetError, VectorSetError

UNIT = 1e-2  # by how far a direction's length may differ from 1: it may have been kept in half precision

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(eq=False)
class PersonaVector:
    """One trait's direction (Chen et al. 2025); the fields are the tutorial's.

    `direction` is a float32 unit vector [hidden], or [k, hidden] with `metadata["layers"]` naming the k layers.
    `layer_idx` is the 0-based decoder block whose output it is read from (the middle one of several).
    `strength` is the norm of the difference of the poles' mean activations at that layer, in activation units; it grows
    with depth and says nothing of how well the vector discriminates. `metadata` is plain data (JSON).
    """

    trait_name: str
    direction: Tensor
    layer_idx: int
    strength: float
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.direction.ndim not in (1, 2) or self.direction.shape[0] == 0:
            raise VectorSetError(f"{self.trait_name}: a direction is [hidden] or [layers, hidden], not {tuple(self.direction.shape)}")
        if self.direction.ndim == 2 and len(self.layers) != len(self.direction):
            raise VectorSetError(f"{self.trait_name}: {len(self.direction)} rows of direction for the layers {self.layers}")
        if not torch.isfinite(self.direction).all():
            raise VectorSetError(f"{self.trait_name}: the direction holds NaN or infinity; extract it again")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that it is read at, in the order of the direction's rows."""
        return tuple(self.metadata.get("layers", (self.layer_idx,)))

    @property
    def rows(self) -> Tensor:
        """The direction as [k, hidden], one row a layer."""
        return self.direction if self.direction.ndim == 2 else self.direction[None]

    @property
    def centre(self) -> float:
        """The raw score half-way between the poles; 0.0 where it was never measured."""
        return float(self.metadata.get("centre", 0.0))

    def raw(self, activations: Tensor) -> Tensor:
        """Raw scores of activations [..., k, hidden] read at `layers`: [...]."""
        return (activations * self.rows.to(activations)).sum((-2, -1))

    def curve(self) -> dict[int, float]:
        """The layer curve: cross-validated AUROC of each candidate layer, ascending; empty if none was measured."""
        found = self.metadata.get("layer_curve") or {}
        return dict(sorted((int(layer), float(value)) for layer, value in found.items()))

    def plot_layers(self) -> go.Figure:
        """The layer curve as a Plotly figure, the layers that it is read at as dots. Raises VectorSetError if there is no curve."""
        if not self.curve():
            why = self.metadata.get("layer_choice")
            raise VectorSetError(
                f"{self.trait_name} has no layer curve{f' ({why})' if why else ''}; extract it from pairs of at least three families"
            )
        from demeanor.vectors.curves import layer_figure

        return layer_figure({self.trait_name: self})

    def __repr__(self) -> str:
        method = f", {self.metadata['method']}" if "method" in self.metadata else ""
        at = f"{layer_words(self.layers)} of width {self.direction.shape[-1]}"
        return f"PersonaVector({self.trait_name}: {at}, strength {self.strength:.2f}{method})"


def layer_words(layers: Sequence[int]) -> str:
    """Layers for a person: "layer 12", "layers 12-16", "layers 4, 8, 12"."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if list(layers) == list(range(layers[0], layers[0] + len(layers))):
        return f"layers {layers[0]}-{layers[-1]}"
    return f"layers {', '.join(map(str, layers))}"


def check_direction(direction: Tensor, what: str, may_be_zero: bool = False) -> None:
    """Raise DamagedVectorSetError for what is no direction that a score can rest on: not finite, not of unit length."""
    if not direction.is_floating_point():
        raise DamagedVectorSetError(
            f"{what} holds {str(direction.dtype).removeprefix('torch.')}, not floating-point numbers; extract it again"
        )
    if not torch.isfinite(direction).all():
        raise DamagedVectorSetError(f"{what} holds NaN or infinity; extract it again")
    length = float(direction.double().norm())
    if abs(length - 1) > UNIT and not (may_be_zero and length == 0):
        raise DamagedVectorSetError(f"{what} has length {length:.3g}, and a direction must have length 1; extract it again")
