"""A vector set on disk: a folder of safetensors, JSON and a card, written whole or not at all.

    vectors.safetensors   reading.TRAIT [layers, hidden], steering.TRAIT [hidden], neutral.norm [layers],
                          neutral.scale [layers, hidden]
    manifest.json         format version, model, pooling, traits with metrics, versions, date, hashes of the other two
    calibration.json      for each trait, how raw scores become z and probability
    summary.json          the tutorial's shape
    README.md             a card for people

The same vector set gives the same bytes. Loading checks hashes, shapes and numbers before anything is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from demeanor.errors import DamagedVectorSetError, FormatVersionError, OutputError, VectorSetError
from demeanor.model.identity import ModelIdentity
from demeanor.vectors.card import card
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import TraitEntry, VectorSet

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
ADAPTED = "adapted"  # in the metadata of a reading vector that was fitted to labelled replies: at which size, how well
_HASHED = ("vectors.safetensors", "calibration.json")
_ENTRY_TEXT = ("title", "description", "high_pole", "low_pole", "safe_pole", "reads", "pack_hash", "metrics")


def save(vectors: VectorSet, folder: Path) -> Path:
    """Write `vectors` to `folder`, replacing a vector set that is there. Raises OutputError; leaves no half set."""
    refuse_foreign(folder)
    refuse_unadapted(folder, adapted_traits(vectors))
    place = _real(folder)
    staging = place.parent / f".{place.name}-{secrets.token_hex(4)}"  # named before it is made: an interrupt finds it
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        staging.chmod(0o755)
        for name, content in _files(vectors).items():
            _write(staging / name, content)
        aside = _put_in_place(staging, place)
    except OSError as error:
        raise OutputError(f"cannot write the vector set to {folder}: {error.strerror}; nothing was kept") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if aside is not None:
        _carry_over(aside, place)
    return folder


def _put_in_place(staging: Path, folder: Path) -> Path | None:
    """Rename `staging` to `folder`; a set that is there is put aside, and back where that fails. Where it now is, if it was."""
    if not folder.exists():
        os.replace(staging, folder)
        return None
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    try:
        os.replace(folder, aside / "set")
        try:
            os.replace(staging, folder)
        except OSError:
            os.replace(aside / "set", folder)
            raise
    except OSError:
        with contextlib.suppress(OSError):  # not empty: the old set is still in it
            aside.rmdir()
        raise
    return aside


def _carry_over(aside: Path, folder: Path) -> None:
    """What somebody else put beside the old set, a report say, stays; the old set goes."""
    try:
        for other in (aside / "set").iterdir():
            if not (folder / other.name).exists():
                os.replace(other, folder / other.name)
    except OSError as error:
        raise OutputError(
            f"the vector set is saved in {folder}, but not all that lay beside the old one could be moved there: {error.strerror}; "
            f"move the rest from {aside / 'set'}"
        ) from error
    shutil.rmtree(aside, ignore_errors=True)


def _real(folder: Path) -> Path:
    """Where `folder` leads: what is replaced is the folder behind a symbolic link, not the link."""
    return Path(os.path.realpath(folder))


def refuse_foreign(folder: Path) -> None:
    """Raise OutputError where saving to `folder` could not work, or would delete something else than a vector set.

    To be called before the work that makes the set, too.
    """
    place = _real(folder)
    if place == Path.cwd():
        raise OutputError(f"{folder} is the folder that you are in, and saving would replace it; name another folder")
    if place.is_mount():
        raise OutputError(f"{folder} is a mount point, which cannot be replaced; name a folder inside it")
    ours = (folder / MANIFEST).is_file() and any((folder / name).is_file() for name in _HASHED)  # even a damaged one
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is not a vector set; name another folder")


def refuse_unadapted(folder: Path, adapted: Iterable[str]) -> None:
    """Raise OutputError where saving to `folder` would lose what was learnt of labels: a trait that is adapted there and not in `adapted`.

    To be called before the work that makes the set, too.
    """
    try:
        traits = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["traits"]
        there = {name for name, record in traits.items() if ADAPTED in record["reading"]["metadata"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no set, or one too damaged to lose anything
        return
    if lost := sorted(there - set(adapted)):
        raise OutputError(
            f"{folder} holds {', '.join(lost)} adapted to labelled replies, and what is to be saved does not; name another folder with "
            "--output, or remove that one first"
        )


def adapted_traits(vectors: VectorSet) -> list[str]:
    """The traits that were fitted to labelled replies."""
    return [name for name, entry in vectors.traits.items() if ADAPTED in entry.reading.metadata]


def load(folder: Path) -> VectorSet:
    """Read and check a vector set.

    Raises:
        VectorSetError: there is none, or it cannot be read.
        FormatVersionError: written by a newer Demeanor.
        DamagedVectorSetError: torn, edited, NaN or wrong shapes.
    """
    try:
        return _load(folder)
    except OSError as error:
        raise VectorSetError(f"{folder} cannot be read: {error.strerror}; check its permissions") from error


def _load(folder: Path) -> VectorSet:
    if not (folder / MANIFEST).is_file():
        raise VectorSetError(f"no vector set in {folder} (no {MANIFEST}); make one with `demeanor extract --output {folder}`")
    manifest = _read_manifest(folder)
    for name in _HASHED:
        path = folder / name
        if not path.is_file():
            raise DamagedVectorSetError(f"{path} is missing; restore the folder or extract again")
        if _sha256(path.read_bytes()) != manifest["files"].get(name):
            raise DamagedVectorSetError(f"{path} is torn or was edited (its hash differs from the manifest's); restore it or extract again")
    try:
        tensors = safetensors.torch.load_file(folder / "vectors.safetensors")
        calibrations = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
        model = ModelIdentity(**manifest["model"])
        traits = {
            name: _entry(name, record, tensors, calibrations, model) for name in manifest["order"] for record in [manifest["traits"][name]]
        }
        return VectorSet(
            model=model,
            traits=traits,
            pooling=manifest["pooling"],
            neutral_norm=tensors["neutral.norm"],
            neutral_scale=tensors["neutral.scale"],
            created=manifest["created"],
            versions=manifest["versions"],
        )
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DamagedVectorSetError(f"{folder}: the vector set does not hold together ({error}); extract it again") from error


def _entry(
    name: str,
    record: dict[str, Any],
    tensors: dict[str, torch.Tensor],
    calibrations: dict[str, Any],
    model: ModelIdentity,
) -> TraitEntry:
    vectors = {}
    for use in ("reading", "steering"):
        tensor, kept = tensors[f"{use}.{name}"], record[use]
        layers = kept["metadata"].get("layers", [kept["layer_idx"]])
        if tensor.shape[-1] != model.hidden_size or (tensor.ndim == 2 and len(tensor) != len(layers)):
            raise DamagedVectorSetError(
                f"{name}: the {use} direction has the shape {tuple(tensor.shape)}, the model is {model.hidden_size} wide; extract it again"
            )
        if not all(0 <= layer < model.layers for layer in layers):
            raise DamagedVectorSetError(f"{name}: layers {layers} are not among the model's {model.layers}; extract it again")
        if not torch.isfinite(tensor).all():
            raise DamagedVectorSetError(f"{name}: the {use} direction holds NaN or infinity; extract it again")
        vectors[use] = PersonaVector(name, tensor, kept["layer_idx"], kept["strength"], kept["metadata"])
    return TraitEntry(vectors["reading"], vectors["steering"], calibration=calibrations[name], **{k: record[k] for k in _ENTRY_TEXT})


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = int(manifest["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedVectorSetError(f"{path} is not a whole manifest ({error}); restore it or extract again") from error
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{folder} has format version {version}, this Demeanor reads up to {FORMAT_VERSION}; upgrade: pip install -U demeanor"
        )
    checksum = manifest.pop("checksum", None)
    if checksum != _sha256(_json(manifest)):
        raise DamagedVectorSetError(f"{path} was edited (its checksum does not fit); restore it or extract again")
    return manifest  # type: ignore[no-any-return]


def _files(vectors: VectorSet) -> dict[str, bytes]:
    tensors = {
        "neutral.norm": vectors.neutral_norm.float().contiguous(),
        "neutral.scale": vectors.neutral_scale.float().contiguous(),
    }
    records: dict[str, Any] = {}
    for name, entry in vectors.traits.items():
        record: dict[str, Any] = {key: getattr(entry, key) for key in _ENTRY_TEXT}
        for use, vector in (("reading", entry.reading), ("steering", entry.steering)):
            tensors[f"{use}.{name}"] = vector.direction.detach().cpu().float().contiguous()
            record[use] = {"layer_idx": vector.layer_idx, "strength": vector.strength, "metadata": vector.metadata}
        records[name] = record
    files = {
        "vectors.safetensors": safetensors.torch.save(tensors),
        "calibration.json": _json({name: entry.calibration for name, entry in vectors.traits.items()}),
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "created": vectors.created,
        "model": asdict(vectors.model),
        "pooling": vectors.pooling,
        "versions": vectors.versions,
        "files": {name: _sha256(content) for name, content in files.items()},
        "order": list(records),
        "traits": records,
    }
    manifest["checksum"] = _sha256(_json(manifest))
    files[MANIFEST] = _json(manifest)
    files["summary.json"] = _json(summary(vectors))
    files["README.md"] = card(vectors).encode()
    return files


def summary(vectors: VectorSet) -> dict[str, Any]:
    """The tutorial's summary: the model's name, and layer and strength of each trait's (steering) vector."""
    return {
        "model": vectors.model.name,
        "traits": {n: {"layer": e.steering.layer_idx, "strength": e.steering.strength} for n, e in vectors.traits.items()},
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
