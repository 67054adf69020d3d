"""Loading a chat model: the embedded one, a hub id, a local folder or a GGUF file.

One function decides device, dtype and quantisation. No remote code is run, and the network is used only where a hub
id is named that is not in the local hub cache.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from demeanor.errors import MissingExtraError, ModelError, ModelNotFoundError, nearest
from demeanor.model import embedded
from demeanor.model.identity import in_words

Quantization = Literal["8bit", "4bit"]
SMALL = 1_000_000_000  # parameters up to which a model may take twice its memory, to be read faster
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LoadedModel(NamedTuple):
    """A model in evaluation mode and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __repr__(self) -> str:
        return f"LoadedModel({in_words(self.model)})"


def load_model(
    name: str | os.PathLike[str] = embedded.NAME,
    quantization: Quantization | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
) -> LoadedModel:
    """Load a causal chat model and its tokenizer.

    Args:
        name: The embedded model's name, a hub id such as "mistralai/Mistral-7B-Instruct-v0.2", a local folder, or a
            GGUF file.
        quantization: "8bit" or "4bit" with bitsandbytes, on CUDA only.
        device: "auto" (CUDA, then MPS, then CPU), or a torch device.
        dtype: "auto" (bfloat16 where the processor does it natively, float16 on older GPUs, else float32), or a dtype.

    Raises:
        ModelNotFoundError: no such model, or the hub cannot be reached.
        MissingExtraError: bitsandbytes is needed and not installed.
        ModelError: any other failure to load, with its cause.
    """
    name = full_name(name)
    target = _device(device)
    torch_dtype = _dtype(dtype, target)
    options: dict[str, Any] = {"dtype": torch_dtype}
    gguf = name.endswith(".gguf")
    if quantization is not None:
        options |= _quantization(quantization, target)
    elif target.type == "cuda" and target.index is None and not gguf:
        options["device_map"] = "auto"
    with quiet():
        if name == embedded.NAME:
            loaded = _from_folder(embedded.ensure(), options)
        elif gguf:
            loaded = _from_gguf(Path(name), torch_dtype, quantization)
        else:
            loaded = _from_folder(locate(name), options)
    model, tokenizer = loaded
    if "device_map" not in options:
        model = model.to(target)  # type: ignore[arg-type]
    model.eval().requires_grad_(False)
    model.config._name_or_path = name
    return LoadedModel(model, tokenizer)


def full_name(name: str | os.PathLike[str]) -> str:
    """A model's name; of a folder or file here its whole path, as a vector set keeps it and may be used from elsewhere."""
    name = os.fspath(name)
    return str(Path(name).resolve()) if name.endswith(".gguf") or Path(name).is_dir() else name


def load_gguf(path: Path) -> LoadedModel:
    """A GGUF file, dequantised to float32, saveable as an ordinary model."""
    where: dict[str, Any] = {"gguf_file": path.name}
    with quiet(), _read_once():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
        model = _pretrained(path.parent, dtype=torch.float32, **where)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for leftover in ("hf_quantizer", "quantization_method", "is_quantized"):
        if leftover in vars(model):
            delattr(model, leftover)
    return LoadedModel(model, tokenizer)


@contextmanager
def _read_once() -> Iterator[None]:
    """Let transformers parse a GGUF file once and not three times, and its table of tensor names once and not for each weight.

    It imports both from gguf at each use, so what stands there meanwhile is what it calls.
    """
    library: Any = importlib.import_module("gguf")

    class Reader(library.GGUFReader):  # type: ignore[misc]
        data: Any

        def _get(self, *args: Any, **options: Any) -> Any:
            if type(self.data) is np.memmap:  # a plain view of the same memory, of which a slice costs a third
                self.data = self.data.view(np.ndarray)
            return super()._get(*args, **options)

    reader, names = library.GGUFReader, library.get_tensor_name_map
    library.GGUFReader, library.get_tensor_name_map = functools.cache(Reader), functools.cache(names)
    try:
        yield
    finally:
        library.GGUFReader, library.get_tensor_name_map = reader, names


def cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model itself, its weights now in `dtype`; its buffers stay, for rotary frequencies go wrong in low precision."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return model


def fast_here(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, turned into float32 if it is a small one in half precision on a processor that has no arithmetic for that.

    transformers loads a checkpoint in its own dtype, mostly bfloat16, which such a processor imitates at a fifth of the speed.
    """
    half = model.dtype in (torch.bfloat16, torch.float16) and getattr(model.config, "quantization_config", None) is None
    slow = model.device.type == "cpu" and not (model.dtype == torch.bfloat16 and native_bfloat16())
    return cast(model, torch.float32) if half and slow and model.num_parameters() < SMALL else model


def _from_gguf(path: Path, dtype: torch.dtype, quantization: Quantization | None) -> LoadedModel:
    if quantization is not None:
        raise ModelError("a GGUF file is quantised already; leave --quantization out")
    if not path.is_file():
        raise ModelNotFoundError(f"no such file: {path}")
    try:
        model, tokenizer = load_gguf(path)
    except Exception as error:  # what a damaged file raises is up to the library that stumbles over it
        raise ModelError(f"{path} could not be read as a GGUF model: {_first_line(error)}") from error
    return LoadedModel(cast(model, dtype), tokenizer)


def _from_folder(path: Path, options: dict[str, Any]) -> LoadedModel:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        model = _pretrained(path, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # what a damaged file raises is up to the library that stumbles over it
        raise ModelError(f"the model in {path} could not be loaded: {_first_line(error)}") from error
    return LoadedModel(model, tokenizer)


def _pretrained(path: Path, **options: Any) -> PreTrainedModel:
    """The model, or a ModelError where the checkpoint lacks some of its weights: transformers would draw them at random."""
    found: Any = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **options)
    model, report = found
    if missing := sorted(report["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"its files lack weights of {type(model).__name__} ({missing[0]}{more}); save or download it anew, whole")
    return model  # type: ignore[no-any-return]


def locate(name: str) -> Path:
    """The local folder of a model that is named by path or hub id; a hub id is fetched where it is not cached whole."""
    if (path := Path(name)).is_dir():
        if not (path / "config.json").is_file():
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
        raise ModelNotFoundError(f"{name!r} is no hub id ({_first_line(error)}); write it as 'owner/name'") from error
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
            f"{name} is {here} and the hub cannot be reached ({_first_line(error)}); "
            f"go online and run `demeanor models pull {name}`, name a local folder, or use the embedded {embedded.NAME}"
        ) from error
    if not whole(fetched):
        raise ModelNotFoundError(f"{name} is no whole model on the hub: it lacks its config.json or its safetensors weights; name another")
    return fetched


def whole(folder: Path) -> bool:
    """Whether a folder holds a config and all the weights: in one file, or every shard that its index names."""
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


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars and warnings off the terminal while a model is loaded."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):  # the GGUF reader draws a bar of its own that nothing else turns off
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
