"""How strongly to steer: doses relative to the residual stream, and the wall beyond which a model stops making sense.

    dose = |a v| / n      n: the median norm of a response token's activation at that layer (VectorSet.neutral_norm)

so that a = dose * n for a unit vector v. A positive dose steers to the high pole, a negative one to the low pole. The
*load* of a plan is the norm of everything that is added at a layer over n, summed over layers. Beyond WARN a warning
comes with the plan; beyond REFUSE a plan is refused unless it is forced. Where the largest coherent dose of a vector has
been measured (`demeanor steer calibrate --save`), more than that comes with a warning too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from demeanor.errors import SteeringError
from demeanor.model.operators import Intervention, Kind, SteeringCondition, Where
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import VectorSet

WARN, REFUSE = 0.5, 1.5


@dataclass(frozen=True)
class Applied:
    """What was applied, of one trait at one layer. `coefficient` is a, or tau, in activation units; `dose` the same over n."""

    trait: str
    dose: float
    coefficient: float
    layer: int
    where: Where
    conditional: bool = False
    kind: Kind = "add"

    def __str__(self) -> str:
        only = ", only while it reads on the wrong side" if self.conditional else ""
        at = f"at layer {self.layer}, {self.where}{only}"
        if self.kind == "add":
            return f"{self.trait} {self.dose:+.2f} (a = {self.coefficient:+.1f}) {at}"
        return f"{self.kind} {self.trait}" + (f" at {self.coefficient:+.1f}" if self.kind != "ablate" else "") + f" {at}"

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "kind": self.kind,
            "trait": self.trait,
            "dose": self.dose,
            "coefficient": self.coefficient,
            "layer": self.layer,
            "where": self.where,
            "conditional": self.conditional,
        }


@dataclass(frozen=True, eq=False)
class Plan:
    """Interventions with what they amount to. An empty plan leaves the model as it is."""

    interventions: tuple[Intervention, ...] = ()
    applied: tuple[Applied, ...] = ()
    load: float = 0.0
    warnings: tuple[str, ...] = ()


def plan_doses(
    vectors: VectorSet,
    doses: Mapping[str, float],
    norms: Tensor,
    layers: Sequence[int] | None = None,
    where: Where = "both",
    raw: bool = False,
    conditional: bool = False,
    force: bool = False,
) -> Plan:
    """The additions that steer these traits at these doses, all together.

    Args:
        vectors: Holds the traits' steering vectors.
        doses: Relative dose of each trait; positive toward the high pole.
        norms: Residual norm at every layer [layers]: `vectors.neutral_norm`.
        layers: Where to add each vector; by default at the layer that it was made at. At each of several layers the
            whole dose is added.
        where: Prompt, response or both.
        raw: The doses are coefficients in activation units instead.
        conditional: Steer a trait only while its rolling score is on the other side than the one steered to.
        force: Allow a load beyond REFUSE.

    Raises:
        VectorSetError: an unknown trait.
        SteeringError: a load beyond REFUSE, or a dose that is no number.
    """
    if not doses:
        raise SteeringError("no trait to steer; name one with its dose (--trait NAME --dose 0.4, or --trait NAME=0.4)")
    interventions, applied, warnings = [], [], []
    for name, dose in doses.items():
        vector = _steering(vectors, name)
        for layer in layers if layers is not None else [vector.layer_idx]:
            norm = norm_at(norms, layer)
            a = dose if raw else dose * norm
            condition = _condition(vectors, name, dose) if conditional else None
            interventions.append(Intervention("add", layer, vector.direction, a, where, condition))
            applied.append(Applied(name, a / norm, a, layer, where, conditional))
            largest = vector.metadata.get("doses", {}).get("high" if a > 0 else "low") if layer == vector.layer_idx else None
            if largest is not None and abs(a / norm) > abs(largest) * (1 + 1e-6):
                warnings.append(f"{name} at {a / norm:+.2f} is beyond {largest:+.2f}, the largest dose measured as coherent")
    load = load_of(interventions, norms)
    return Plan(tuple(interventions), tuple(applied), load, (*warnings, *wall(load, force)))


def plan_projection(
    vectors: VectorSet,
    trait: str,
    kind: Kind,
    norms: Tensor,
    tau: float | None = None,
    layers: Sequence[int] | None = None,
    where: Where = "both",
) -> Plan:
    """Ablate a trait's steering vector, or keep the projection on it above (floor) or below (ceiling) tau.

    tau is in activation units; by default what was measured with the vector (its metadata "floor" or "ceiling").
    Raises SteeringError where there is neither.
    """
    vector = _steering(vectors, trait)
    if kind != "ablate" and tau is None:
        tau = vector.metadata.get(kind)
        if tau is None:
            raise SteeringError(f"{trait}: no {kind} was measured with its vector; give one in activation units (--tau)")
        if layers is not None and list(layers) != [vector.layer_idx]:
            raise SteeringError(
                f"{trait}: its {kind} was measured at layer {vector.layer_idx} and means nothing at others; "
                "leave out --layers, or give the cap in activation units (--tau)"
            )
    tau = 0.0 if tau is None else float(tau)
    at = [vector.layer_idx] if layers is None else layers
    made = tuple(Intervention(kind, layer, vector.direction, tau, where) for layer in at)
    return Plan(made, tuple(Applied(trait, tau / norm_at(norms, layer), tau, layer, where, kind=kind) for layer in at))


def _steering(vectors: VectorSet, name: str) -> PersonaVector:
    """A trait's steering vector. Raises SteeringError where it has none of one layer."""
    vector = vectors[name].steering
    if vector.direction.ndim != 1:
        raise SteeringError(f"{name}: its steering vector spans several layers; steer with a vector of one layer")
    if not vector.direction.any():
        raise SteeringError(
            f"{name} was made from labels alone and has no steering vector; write contrast pairs of it as a pack, then "
            "`demeanor steer calibrate --trait PACK.yaml --vectors FOLDER --save` makes one"
        )
    return vector


def norm_at(norms: Tensor, layer: int) -> float:
    """The residual norm of a layer. Raises SteeringError where there is none."""
    if not 0 <= layer < len(norms):
        raise SteeringError(f"layer {layer} is not within 0 to {len(norms) - 1}, the layers of this model")
    norm = float(norms[layer])
    if not norm > 0:
        raise SteeringError(f"no residual norm was measured at layer {layer}; measure it, or give raw coefficients")
    return norm


def load_of(interventions: Sequence[Intervention], norms: Tensor) -> float:
    """Norm of all that is added at a layer, over the residual norm there, summed over the layers."""
    load = 0.0
    for layer in {i.layer for i in interventions if i.kind == "add"}:
        total = torch.stack([i.direction.float() * i.amount for i in interventions if i.kind == "add" and i.layer == layer]).sum(0)
        load += float(total.norm()) / norm_at(norms, layer)
    return load


def wall(load: float, force: bool = False) -> tuple[str, ...]:
    """Warnings about a load; raises SteeringError beyond REFUSE unless forced."""
    if load > REFUSE and not force:
        raise SteeringError(f"a dose of {load:.2f} in all is beyond {REFUSE}, where replies fall apart; use less, or force it (--force)")
    if load > WARN:
        return (f"a dose of {load:.2f} in all is beyond {WARN}: replies may stop making sense; `demeanor steer calibrate` measures it",)
    return ()


def _condition(vectors: VectorSet, name: str, dose: float) -> SteeringCondition:
    """The trait's score on the side away from the one that a dose of this sign steers to."""
    entry = vectors[name]
    if entry.reads != "response":
        raise SteeringError(f"{name} is read on the user's messages, so it cannot be a condition for steering; leave the condition out")
    centre = entry.calibration.centre
    return SteeringCondition(entry.reading.layers, entry.reading.rows.float(), centre, "below" if dose > 0 else "above")
