"""The directions that something is read by, stacked, so that one product gives every trait's raw score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from demeanor.model.pooling import Pooling


@dataclass(frozen=True, eq=False)
class Directions:
    """What to read of a span, and how: raw score = pooled activations of the layers, one after another, times a trait's row."""

    layers: tuple[int, ...]
    """0-based, ascending; k of them."""
    matrix: Tensor
    """[traits, k * hidden], float32; zero where a trait reads nothing of a layer."""
    pooling: Pooling = "mean"

    def project(self, pooled: Tensor) -> Tensor:
        """Pooled activations [spans, k, hidden] to raw scores [spans, traits], where the matrix is."""
        return pooled.float().flatten(1) @ self.matrix.T

    def to(self, device: torch.device) -> Directions:
        """The same on a device."""
        return Directions(self.layers, self.matrix.to(device), self.pooling)
