"""Steering inside somebody else's training loop: the paper's preventative steering (Chen et al. 2025).

While a model is fine-tuned, the trait's vector is added to its activations. The gradient then has no reason to move the
weights along it, so that after training, with the addition gone, the trait has moved less.

    with steering_hooks(model, vector, coefficient):
        loss = model(**batch).loss
        loss.backward()
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from demeanor.errors import SteeringError
from demeanor.model.contexts import Steering
from demeanor.model.operators import Intervention, Where
from demeanor.vectors.persona_vector import PersonaVector


def steering_hooks(
    model: nn.Module,
    vector: PersonaVector,
    coefficient: float,
    layers: Sequence[int] | None = None,
    where: Where = "both",
    blocks: nn.ModuleList | None = None,
) -> Steering:
    """A context in which `coefficient` times the vector is added in every forward pass of `model`.

    Args:
        model: A transformers model, or one wrapped by PEFT.
        vector: A steering vector of one layer.
        coefficient: a in activation units; a relative dose times the layer's residual norm.
        layers: Where to add it; by default the vector's own layer.
        where: "prompt" and "response" need `labels` in the batch.
        blocks: The model's decoder blocks, where they are not found by themselves.

    Raises:
        SteeringError: the vector does not fit; or, on closing, a forward pass went by without the hooks.
    """
    if vector.direction.ndim != 1:
        raise SteeringError(f"{vector.trait_name}: its vector spans several layers; steer with a vector of one layer")
    at = [vector.layer_idx] if layers is None else layers
    return Steering(model, [Intervention("add", layer, vector.direction, coefficient, where) for layer in at], blocks=blocks)
