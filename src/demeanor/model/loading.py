"""Loading a chat model by its name: the embedded one, a hub id, a local folder, a GGUF file, or a PEFT adapter on one of these.

One function decides device, dtype and quantisation. No remote code is run, and the network is used only where a hub
id is named that is not in the local hub cache.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import PreTrainedModel

from demeanor.errors import MissingExtraError, ModelError, ModelNotFoundError, nearest
from demeanor.model import adapters, embedded
from demeanor.model.pretrained import LoadedModel, cast, first_line, from_folder, from_gguf, quiet

Quantization = Literal["8bit", "4bit"]
SMALL = 1_000_000_000  # parameters up to which a model may take twice its memory, to be read faster
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str | os.PathLike[str] = embedded.NAME,
    quantization: Quantization | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
) -> LoadedModel:
    """Load a causal chat model and its tokenizer.

    Args:
        name: The embedded model's name, a hub id such as "mistralai/Mistral-7B-Instruct-v0.2", a local folder, or a
            GGUF file. Or a PEFT adapter, by its folder or hub id: it is merged into the base model that its config names, or
            into the one that stands before it, as in "BASE + ADAPTER".
        quantization: "8bit" or "4bit" with bitsandbytes, on CUDA only.
        device: "auto" (CUDA, then MPS, then CPU), or a torch device.
        dtype: "auto" (bfloat16 where the processor does it natively, float16 on older GPUs, else float32), or a dtype.

    Raises:
        ModelNotFoundError: no such model, or the hub cannot be reached.
        MissingExtraError: bitsandbytes or peft is needed and not installed.
        ModelError: any other failure to load, with its cause.
    """
    name = full_name(name)
    target = _device(device)
    torch_dtype = _dtype(dtype, target)
    options: dict[str, Any] = {"dtype": torch_dtype}
    whole, adapter = base_and_adapter(name)
    if adapter is not None:
        adapters.check_adapter(adapter)
        if quantization is not None:
            raise ModelError("an adapter cannot be merged into quantised weights; leave --quantization out")
    gguf = whole.endswith(".gguf")
    if quantization is not None:
        options |= _quantization(quantization, target)
    elif target.type == "cuda" and target.index is None and not gguf:
        options["device_map"] = "auto"
    with quiet():
        if whole == embedded.NAME:
            loaded = from_folder(embedded.ensure(), options)
        elif gguf:
            if quantization is not None:
                raise ModelError("a GGUF file is quantised already; leave --quantization out")
            loaded = from_gguf(Path(whole), torch_dtype)
        else:
            loaded = from_folder(whole_model(whole, name), options)
        if adapter is not None:
            loaded = adapters.merged(loaded, adapter)
    model, tokenizer = loaded
    if "device_map" not in options:
        model = model.to(target)  # type: ignore[arg-type]
    model.eval().requires_grad_(False)
    model.config._name_or_path = name if adapter is None else f"{whole}{adapters.WITH}{adapters.parts(name).last}"
    return LoadedModel(model, tokenizer)


def full_name(name: str | os.PathLike[str]) -> str:
    """A model's name; of a folder or file here its whole path, as a vector set keeps it and may be used from elsewhere.

    Of an adapter that is here, both names: "BASE + ADAPTER".
    """
    name = os.fspath(name)
    if (path := Path(name)).is_dir():
        own = str(path.resolve())
        return full_name(f"{adapters.base_of(path)}{adapters.WITH}{own}") if adapters.is_adapter(path) else own
    base, last = adapters.parts(name)
    if base is not None:
        return f"{full_name(base)}{adapters.WITH}{Path(last).resolve() if Path(last).is_dir() else last}"
    return str(path.resolve()) if name.endswith(".gguf") else name


def base_and_adapter(name: str) -> tuple[str, Path | None]:
    """The name of a whole model, and the folder of the adapter that goes on top of it, if there is one."""
    base, last = adapters.parts(name)
    if base is None and (last == embedded.NAME or last.endswith(".gguf")):
        return last, None
    folder = locate(last)
    if adapters.is_adapter(folder):
        return base or full_name(adapters.base_of(folder)), folder
    if base is not None:
        raise ModelError(f"{last} is not an adapter (it has no {adapters.CONFIG}), so it cannot go on top of {base}")
    return last, None


def whole_model(whole: str, name: str) -> Path:
    """The folder of a whole model, by itself or as the base of an adapter."""
    stacked = ModelError(f"the base model of {name} is an adapter itself; merge that one first, and save it whole")
    if adapters.parts(whole).base is not None:
        raise stacked
    try:
        folder = locate(whole)
    except ModelNotFoundError as error:
        if whole == name:
            raise
        adapter = adapters.parts(name).last
        raise ModelNotFoundError(
            f"the base model of the adapter {adapter} is missing: {error}; "
            f"if it lies elsewhere, name both: --model 'BASE{adapters.WITH}{adapter}'"
        ) from error
    if adapters.is_adapter(folder):
        raise stacked
    return folder


def fast_here(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, turned into float32 if it is a small one in half precision on a processor that has no arithmetic for that.

    transformers loads a checkpoint in its own dtype, mostly bfloat16, which such a processor imitates at a fifth of the speed.
    """
    half = model.dtype in (torch.bfloat16, torch.float16) and getattr(model.config, "quantization_config", None) is None
    slow = model.device.type == "cpu" and not (model.dtype == torch.bfloat16 and native_bfloat16())
    return cast(model, torch.float32) if half and slow and model.num_parameters() < SMALL else model


def locate(name: str) -> Path:
    """The local folder of a model or adapter that is named by path or hub id; a hub id is fetched where it is not cached whole."""
    if (path := Path(name)).is_dir():
        if not (path / "config.json").is_file() and not adapters.is_adapter(path):
            raise ModelNotFoundError(f"{path} holds no config.json; it is not a saved transformers model")
        return path
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelNotFoundError(
            f"unknown model {name!r}; {nearest(name, [embedded.NAME])} (or give a hub id 'owner/name', a folder, or a .gguf file)"
        )
    return _hub_folder(name)


def _hub_folder(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    # OSError, and the HTTPError of httpx or, from huggingface_hub 2 on, of httpx2
    no_answer: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
    here = "not in the local hub cache"
    kept = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "tokenizer*"]
    try:
        cached = Path(snapshot_download(name, allow_patterns=kept, local_files_only=True))
        if whole(cached):
            return cached
        here = "only partly in the local hub cache"
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name!r} is not a Hugging Face id ({first_line(error)}); write it as 'owner/name'") from error
    except (LocalEntryNotFoundError, FileNotFoundError):
        pass
    try:
        HfApi().model_info(name, timeout=10)  # one question, without the download's long retries
        fetched = Path(snapshot_download(name, allow_patterns=kept))
    except GatedRepoError as error:
        raise ModelNotFoundError(f"{name} is gated: accept its licence on the hub, then run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(f"the hub knows no model {name!r}; check the spelling, or `hf auth login` if it is private") from error
    except no_answer as error:
        raise ModelNotFoundError(
            f"{name} is {here} and the hub cannot be reached ({first_line(error)}); "
            f"go online and run `demeanor models pull {name}`, name a local folder, or use the embedded {embedded.NAME}"
        ) from error
    if not whole(fetched):
        raise ModelNotFoundError(f"{name} is not a complete model on the hub: it lacks config.json or safetensors weights; name another")
    return fetched


def whole(folder: Path) -> bool:
    """Whether a folder holds a config and all the weights: in one file, or every shard that its index names; or a whole adapter."""
    if adapters.is_adapter(folder) and (folder / adapters.WEIGHTS).is_file():
        return True
    return (folder / "config.json").is_file() and any(_weights(folder, name) for name in ("model.safetensors", "pytorch_model.bin"))


def _weights(folder: Path, name: str) -> bool:
    if (folder / name).is_file():
        return True
    try:
        shards = set(json.loads((folder / f"{name}.index.json").read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return all((folder / shard).is_file() for shard in shards)


def _device(device: str) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:1, mps") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("no CUDA device is available here; use --device auto or cpu")
    if found.type == "meta":
        raise ModelError("the meta device computes nothing; use --device auto or cpu")
    try:
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, ImportError) as error:  # what torch raises depends on the kind of device
        raise ModelError(f"there is no device {device!r} here; use --device auto or cpu") from error
    return found


def _dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ModelError(f"unknown dtype {dtype!r}; {nearest(dtype, ['auto', *DTYPES])}")
        return DTYPES[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and native_bfloat16():
        return torch.bfloat16
    return torch.float32


def native_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 natively (AVX512-BF16, AMX or Arm's BF16), and oneDNN is not kept from it."""
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    if not any(word in allowed for word in ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")):
        return False
    can = torch.cpu.get_capabilities()
    return any(can.get(feature, False) for feature in ("avx512_bf16", "amx_bf16", "bf16"))


def _quantization(quantization: Quantization, device: torch.device) -> dict[str, Any]:
    if quantization not in ("8bit", "4bit"):
        raise ModelError(f"unknown quantization {quantization!r}; use 8bit or 4bit")
    if device.type != "cuda":
        raise ModelError(f"{quantization} quantization needs a CUDA device and none is used here; leave it out, or load a GGUF file")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError(f"{quantization} quantization needs bitsandbytes: pip install 'demeanor[cuda]'")
    config = (
        transformers.BitsAndBytesConfig(load_in_8bit=True)
        if quantization == "8bit"
        else transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=_dtype("auto", device))
    )
    return {"quantization_config": config, "device_map": "auto" if device.index is None else {"": device}}
