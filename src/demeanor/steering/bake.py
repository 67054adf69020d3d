"""A copy of a model that is steered for good: what is added becomes a bias of the block's output projection.

A block ends with h = x + MLP(...), the MLP's last step being a linear projection. A vector that is added to the block's
output is that projection's bias, where it has one. Llama has one on request of its config (`mlp_bias`), with zeros where
nothing is added; Mistral and Qwen2 are the same computation under another name, so they are rebuilt as a Llama (with
zeros for the biases that they lack). Where a norm follows the projection (Gemma) or there is no such bias (Phi-3), it is
refused. Before a copy is given out, it is compared with the hooks on some tokens.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from demeanor.errors import OutputError, SteeringError
from demeanor.model.blocks import decoder_blocks, text_config
from demeanor.model.contexts import Steering
from demeanor.model.pretrained import cast, quiet
from demeanor.model.reader import ActivationReader
from demeanor.steering.dose import Plan
from demeanor.steering.engines import additions
from demeanor.vectors.folder import refuse_standing, written_whole

PROJECTIONS = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "fc2")
AS_LLAMA = ("llama", "mistral", "qwen2")
ALIKE = 0.02  # of what steering moves, how much the copy may differ from the hooks: rounding, in low precision


def bake(model: PreTrainedModel, plan: Plan, blocks: str | None = None) -> PreTrainedModel:
    """A copy of `model` that computes without hooks what `model` computes with them.

    Raises SteeringError where the plan is more than additions to every token, or the architecture has no place for them.
    """
    added = additions(plan)
    if getattr(model.config, "quantization_config", None) is not None:
        raise SteeringError("a quantised model cannot be baked: load it without quantization")
    baked = _with_biases(model, decoder_blocks(model, blocks))
    own = decoder_blocks(baked, blocks)
    with torch.no_grad():
        for layer, vector in added.items():
            bias = _projection(own[layer]).bias
            assert isinstance(bias, Tensor)
            bias += vector.to(bias)
    _compare(model, baked, plan, decoder_blocks(model, blocks))
    return baked


def save_baked(reader: ActivationReader, plan: Plan, folder: Path) -> None:
    """Bake a plan and write model, tokenizer and a note of what was applied to a new folder, whole or not at all."""
    refuse_standing(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is not empty; name another folder")
    baked = bake(reader.model, plan, reader.blocks_path)
    note = {"made_from": reader.model.config._name_or_path, "applied": [a.to_record() for a in plan.applied]}
    with written_whole(folder, "the model") as place:
        with quiet():
            baked.save_pretrained(place)
        reader.tokenizer.save_pretrained(place)
        (place / "demeanor_steering.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def _projection(block: nn.Module) -> nn.Module:
    found = dict(block.named_modules())
    return next((found[name] for name in PROJECTIONS if name in found), nn.Identity())


def _with_biases(model: PreTrainedModel, blocks: nn.ModuleList) -> PreTrainedModel:
    """A copy whose blocks' output projections have biases."""
    if all(isinstance(getattr(_projection(b), "bias", None), Tensor) for b in blocks):
        return copy.deepcopy(model)
    config = text_config(model)
    if config.model_type not in AS_LLAMA or config is not model.config:
        raise SteeringError(
            f"{config.model_type} has no bias at the end of its blocks, so nothing can be baked into it; "
            "steer it with hooks, or export a control vector for llama.cpp"
        )
    if _slides(config):
        raise SteeringError(f"this {config.model_type} uses a sliding window, unlike Llama models, so it cannot be baked; use hooks")
    known = {key: value for key, value in config.to_dict().items() if key in LlamaConfig().to_dict() and key != "model_type"}
    biased = any(name.endswith("q_proj.bias") for name, _ in model.named_parameters())
    known |= {"mlp_bias": True, "attention_bias": biased, "architectures": ["LlamaForCausalLM"]}
    with torch.random.fork_rng():
        rebuilt: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**known))
    cast(rebuilt, model.dtype).to(model.device).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in rebuilt.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
    _, unexpected = rebuilt.load_state_dict(model.state_dict(), strict=False)
    if unexpected:
        raise SteeringError(f"{config.model_type}: its weights {unexpected[:3]} do not fit a Llama, so it cannot be baked; use hooks")
    rebuilt.generation_config = copy.deepcopy(model.generation_config)
    return rebuilt


def _slides(config) -> bool:  # type: ignore[no-untyped-def]  # a config class of transformers' choice
    if not getattr(config, "sliding_window", None):
        return False
    kinds = getattr(config, "layer_types", None)
    return kinds is None or "sliding_attention" in kinds


@torch.inference_mode()
def _compare(model: PreTrainedModel, baked: PreTrainedModel, plan: Plan, blocks: nn.ModuleList) -> None:
    """Refuse a copy that does not do what the hooks do."""
    ids = torch.tensor([[(7 * i) % 83 + 3 for i in range(24)]], device=model.device)
    plain = model(input_ids=ids).logits.float()
    with Steering(model, plan.interventions, blocks=blocks):
        wanted = model(input_ids=ids).logits.float()
    off, moved = (baked(input_ids=ids).logits.float() - wanted).norm(), (wanted - plain).norm()
    rounding = 8 * torch.finfo(model.dtype).eps * wanted.norm()
    if not off <= torch.maximum(ALIKE * moved, rounding):
        raise SteeringError(
            f"the baked copy differs from the hooks by {float(off / moved):.0%} of what steering does; this architecture cannot "
            "be baked, so steer it with hooks"
        )
