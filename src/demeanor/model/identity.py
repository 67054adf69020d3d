"""Which model this is: what a vector set is bound to.

The fingerprint covers the shape of the architecture and a sample of every weight, rounded to bfloat16, so that a
fine-tuned or quantised copy differs and a bfloat16 checkpoint loaded in another dtype does not. A float32 checkpoint may
differ when loaded in float16, which rounds it otherwise. An adapter that was merged shows in the weights; as a sparse one might slip
through the sample, the hash of its files is recorded too. Nothing of the config is covered: models of the same weights
with another rope scaling or sliding window share a fingerprint, though they give other activations. Dtype and
quantisation are recorded beside it.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.model.blocks import text_config
from demeanor.model.chat import ChatEncoder
from demeanor.model.templates import PLAIN, PLAIN_HASH, told

_SAMPLE = 64
_ALWAYS = ("name", "architecture", "layers", "hidden_size", "fingerprint", "template_hash", "dtype", "quantization", "blocks")
_ADAPTER = "_demeanor_adapter"  # the attribute of a model that holds its adapter's hash
_LEAST = 2**-16  # below it float16 cannot hold every bfloat16 number; hashed as zero


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What is recorded of a model in a vector set's manifest."""

    name: str
    architecture: str
    layers: int
    hidden_size: int
    fingerprint: str
    template_hash: str
    dtype: str
    quantization: str
    blocks: str = ""
    """Dotted name of the decoder blocks, where the user had to name them."""
    adapter: str = ""
    """Hash of the adapter that is merged into the weights, where there is one."""
    template: str = ""
    """The chat template that the model was told, by its name or whole; "" for the tokenizer's own."""

    @property
    def load_quantization(self) -> Literal["8bit", "4bit"] | None:
        """What `load_model` must be given to load it alike; a GGUF file or a quantised checkpoint needs nothing."""
        return self.quantization if self.quantization in ("8bit", "4bit") else None  # type: ignore[return-value]

    @property
    def load_template(self) -> str | None:
        """What the model must be told to read alike; None where its own chat template was used."""
        return self.template or (PLAIN if self.template_hash == PLAIN_HASH else None)

    def to_record(self) -> dict[str, str | int]:
        """As plain data for the manifest, without what there is none of."""
        return {key: value for key, value in asdict(self).items() if key in _ALWAYS or value}


def identify(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, blocks: str | None = None) -> ModelIdentity:
    """Identify a loaded model; some milliseconds for a small one. `blocks` is where its decoder blocks are, where that had to be said."""
    config = text_config(model)
    return ModelIdentity(
        name=str(model.config._name_or_path or type(model).__name__),
        architecture=str(config.model_type),
        layers=int(config.num_hidden_layers),
        hidden_size=int(config.hidden_size),
        fingerprint=fingerprint(model),
        template_hash=ChatEncoder(tokenizer).template_hash,
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=_quantization(model),
        blocks=blocks or "",
        adapter=getattr(model, _ADAPTER, ""),
        template=told(tokenizer),
    )


def tell_adapter(model: PreTrainedModel, digest: str) -> None:
    """Let a model say which adapter was merged into it."""
    setattr(model, _ADAPTER, digest)


def in_words(model: PreTrainedModel) -> str:
    """A loaded model for a person: name, kind, size, dtype or quantisation, device. Looks at no weights."""
    config, quantized = text_config(model), _quantization(model)
    kept = str(model.dtype).removeprefix("torch.") if quantized == "none" else quantized
    name = model.config._name_or_path or type(model).__name__
    return f"{name} ({config.model_type}, {config.num_hidden_layers} layers of width {config.hidden_size}, {kept} on {model.device})"


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> str:
    """Hash of the architecture's shape and of evenly spaced values of each weight."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        if weight.device.type == "meta" or weight.numel() == 0:
            continue
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE]
        if sample.is_floating_point():
            sample = sample.to(torch.bfloat16)
            sample = sample.masked_fill(sample.abs() < _LEAST, 0).view(torch.int16)
        digest.update(sample.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def _quantization(model: PreTrainedModel) -> str:
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return "none"
    record = config if isinstance(config, dict) else config.to_dict()
    if record.get("load_in_8bit"):
        return "8bit"
    return "4bit" if record.get("load_in_4bit") else str(record.get("quant_method", "unknown"))
