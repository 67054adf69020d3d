"""A plan's additions as files for other engines: llama.cpp's control vector and lm-eval's steered model.

Both engines add at every token, so only plain additions to prompt and response can be written.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from demeanor.errors import SteeringError
from demeanor.model.identity import identify
from demeanor.model.reader import ActivationReader
from demeanor.steering.dose import Plan
from demeanor.vectors import exports


def write_control_vector(reader: ActivationReader, plan: Plan, path: Path) -> None:
    """The plan as a llama.cpp control vector, to be applied at scale 1 (`--control-vector FILE`)."""
    notes: dict[str, str | float] = {"applied": "; ".join(map(str, plan.applied))}
    model = identify(reader.model, reader.tokenizer, reader.blocks_path)
    exports.write_control_vector(additions(plan), model, path, notes)


def write_lm_eval(reader: ActivationReader, plan: Plan, path: Path) -> None:
    """The plan as the file that lm-eval's `--model steered` takes as steer_path."""
    base = reader.model.base_model
    name = next((n for n, module in base.named_modules() if module is reader.blocks), None)
    if name is None:
        raise SteeringError("lm-eval looks for layers inside the model's base_model, and this model's blocks are not in there")
    exports.write_lm_eval(additions(plan), name, reader.model.dtype, path)


def additions(plan: Plan) -> dict[int, Tensor]:
    """What the plan adds to the output of each layer [hidden], float32. Raises SteeringError for what is no plain addition."""
    found: dict[int, Tensor] = {}
    for each in plan.interventions:
        if each.kind != "add" or each.where != "both" or each.condition is not None:
            raise SteeringError(
                f"only an addition to every token can leave this library, not {each.kind} on {each.where}"
                f"{' under a condition' if each.condition else ''}; steer with hooks instead"
            )
        found[each.layer] = found.get(each.layer, torch.zeros_like(each.direction.float())) + each.direction.float() * each.amount
    if not found:
        raise SteeringError("the plan is empty, so there is nothing to write; give a trait and a dose")
    return found
