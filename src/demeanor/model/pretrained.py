"""Files to a model and its tokenizer: a folder that transformers saved, or a GGUF file. No remote code is run, and no network is used."""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from demeanor.errors import ModelError, ModelNotFoundError
from demeanor.model.identity import in_words


class LoadedModel(NamedTuple):
    """A model in evaluation mode and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def __repr__(self) -> str:
        return f"LoadedModel({in_words(self.model)})"


def from_folder(path: Path, options: dict[str, Any]) -> LoadedModel:
    """The model that transformers saved in a folder. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        model = _pretrained(path, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # what a damaged file raises is up to the library that stumbles over it
        raise ModelError(f"the model in {path} could not be loaded: {first_line(error)}") from error
    return LoadedModel(model, tokenizer)


def tokenizer_in(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder alone. Raises ModelError."""
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # as above
        raise ModelError(f"the tokenizer in {path} could not be loaded: {first_line(error)}") from error


def from_gguf(path: Path, dtype: torch.dtype) -> LoadedModel:
    """The model of a GGUF file. Raises ModelError, ModelNotFoundError."""
    if not path.is_file():
        raise ModelNotFoundError(f"no such file: {path}")
    try:
        model, tokenizer = load_gguf(path)
    except Exception as error:  # what a damaged file raises is up to the library that stumbles over it
        raise ModelError(f"{path} could not be read as a GGUF model: {first_line(error)}") from error
    return LoadedModel(cast(model, dtype), tokenizer)


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


def _pretrained(path: Path, **options: Any) -> PreTrainedModel:
    """The model, or a ModelError where the checkpoint lacks some of its weights: transformers would draw them at random."""
    found: Any = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **options)
    model, report = found
    if missing := sorted(report["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"its files lack weights of {type(model).__name__} ({missing[0]}{more}); save or download the whole model again")
    return model  # type: ignore[no-any-return]


def cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model itself, its weights now in `dtype`; its buffers stay, for rotary frequencies go wrong in low precision."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return model


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


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
