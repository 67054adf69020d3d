"""A PEFT adapter as a model: its base model with the adapter's weights merged into it, so that everything else sees an ordinary model.

An adapter is a folder, or a hub repository, that holds adapter_config.json and adapter_model.safetensors. Its base model is the one
that its config names, or another copy of it that is named before it: "BASE + ADAPTER". Only safetensors are read, and no remote
code is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import warnings
from pathlib import Path
from typing import NamedTuple

from transformers import AutoTokenizer, PreTrainedModel

from demeanor.errors import MissingExtraError, ModelError
from demeanor.model.identity import tell_adapter
from demeanor.model.pretrained import LoadedModel, first_line, quiet

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
WITH = " + "


class Named(NamedTuple):
    """A model's name in its parts: "BASE + ADAPTER", or the name of one of them."""

    base: str | None
    last: str


def parts(name: str) -> Named:
    """The parts of a model's name."""
    base, found, last = name.rpartition(WITH)
    return Named(base.strip(), last.strip()) if found else Named(None, name)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model."""
    return (folder / CONFIG).is_file()


def base_of(folder: Path) -> str:
    """The name of the base model that an adapter's config gives. Raises ModelError."""
    try:
        base = json.loads((folder / CONFIG).read_text("utf-8"))["base_model_name_or_path"]
        if not isinstance(base, str) or not base.strip():
            raise ValueError("base_model_name_or_path is empty")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise ModelError(f"{folder / CONFIG} names no base model ({reason}); name it yourself: --model 'BASE{WITH}{folder}'") from error
    return base


def check_adapter(folder: Path) -> None:
    """Refuse, before a base model is loaded for it, an adapter that cannot be merged. Raises ModelError, MissingExtraError."""
    if not (folder / WEIGHTS).is_file():
        kept = "adapter_model.bin, a pickle" if (folder / "adapter_model.bin").is_file() else "no weights"
        raise ModelError(f"the adapter in {folder} holds {kept}; save it again with safetensors, as {WEIGHTS}")
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError(f"{folder} is a PEFT adapter, and that needs peft: pip install 'demeanor[lora]'")


def merged(base: LoadedModel, folder: Path) -> LoadedModel:
    """The base model with the adapter merged into its weights; the adapter's own tokenizer, where it holds one. Raises ModelError."""
    import peft

    model, tokenizer = base
    try:
        if (folder / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with warnings.catch_warnings(record=True) as told, quiet():
            warnings.simplefilter("always")
            adapted = peft.PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
        if lacking := [str(w.message) for w in told if "missing adapter keys" in str(w.message)]:
            raise ModelError(f"it lacks weights ({lacking[0].strip()[:120]}); was it trained on this base model?")
        if not hasattr(adapted.base_model, "merge_and_unload"):
            raise ModelError(f"a {adapted.active_peft_config.peft_type.value} adapter has no weights that could be merged into the model's")
        whole: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    except Exception as error:  # what does not fit is up to peft to stumble over
        raise ModelError(f"the adapter in {folder} could not be merged into {model.config._name_or_path}: {first_line(error)}") from error
    tell_adapter(whole, fingerprint(folder))
    return LoadedModel(whole, tokenizer)


def fingerprint(folder: Path) -> str:
    """A hash of all that an adapter's files say of what is added to the weights: 24 hexadecimal digits."""
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    for passing in ("base_model_name_or_path", "inference_mode", "peft_version", "revision"):  # a folder may be moved, or saved anew
        config.pop(passing, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    with (folder / WEIGHTS).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:24]
