"""A vector set on disk: a folder of safetensors, JSON and a card, written whole or not at all.

    vectors.safetensors   reading.TRAIT [layers, hidden], steering.TRAIT [hidden], neutral.norm [layers],
                          neutral.scale [layers, hidden]; own.TRAIT, the pack's vector of a trait that was adapted to labelled replies
    manifest.json         format version, model, pooling, traits with their proof ("metrics"), versions, date, hashes of the other two
    calibration.json      for each trait, how raw scores become z and probability
    summary.json          the tutorial's shape
    README.md             a card for people

The same vector set gives the same bytes. Loading checks hashes, and then every field (schema.py) and tensor, before anything is used:
the hashes show what was torn or edited, not who wrote it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import safetensors.torch
import torch
from safetensors import SafetensorError

from demeanor.errors import DamagedVectorSetError, FormatVersionError, OutputError, VectorSetError
from demeanor.language import ENGLISH
from demeanor.model.identity import ModelIdentity
from demeanor.model.pooling import Pooling
from demeanor.vectors.card import card
from demeanor.vectors.entry import OwnVector, TraitEntry
from demeanor.vectors.folder import refuse_standing, written_whole
from demeanor.vectors.format_1 import upgraded
from demeanor.vectors.persona_vector import PersonaVector, check_direction
from demeanor.vectors.schema import SetManifest, VectorRecord, check_manifest, parse_json

if TYPE_CHECKING:
    from demeanor.vectors.vector_set import VectorSet

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
ADAPTED = "adapted"  # in the metadata of a reading vector that was fitted to labelled replies: at which size, how well
TRIED = "tried"  # the same of a fit that was no better than the pack's own vector, which stayed
_HASHED = ("vectors.safetensors", "calibration.json")
_ENTRY_TEXT = ("title", "description", "high_pole", "low_pole", "safe_pole", "reads", "pack_hash", "not_scored", "judged_whole")


class Contents(TypedDict):
    """What a folder holds: the fields of a VectorSet."""

    model: ModelIdentity
    traits: dict[str, TraitEntry]
    pooling: Pooling
    neutral_norm: torch.Tensor
    neutral_scale: torch.Tensor
    created: str
    versions: dict[str, str]
    made_from: dict[str, str]
    dtypes: dict[str, dict[str, float]]


def save(vectors: VectorSet, folder: Path) -> Path:
    """Write `vectors` to `folder`, replacing a vector set that is there. Leaves no half set.

    Raises OutputError where it cannot be written, or would lose an adaptation; DamagedVectorSetError where it could not be loaded again.
    """
    refuse_foreign(folder)
    refuse_unadapted(folder, adapted_traits(vectors))
    files = _files(vectors)
    _parse(files, folder)  # what could not be loaded again is not written over what can
    with written_whole(folder, "the vector set") as place:
        for name, content in files.items():
            (place / name).write_bytes(content)
    return folder


def refuse_foreign(folder: Path) -> None:
    """Raise OutputError where saving to `folder` could not work, or would delete something else than a vector set.

    To be called before the work that makes the set, too.
    """
    refuse_standing(folder)
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
    """The traits that were fitted to labelled replies, also where the pack's own vector was then kept as the better one."""
    return [name for name, entry in vectors.traits.items() if {ADAPTED, TRIED} & entry.reading.metadata.keys()]


def load(folder: Path) -> Contents:
    """Read and check what a vector set is made of.

    Raises:
        VectorSetError: there is none, or it cannot be read.
        FormatVersionError: written by a newer Demeanor.
        DamagedVectorSetError: torn, edited, or holding what no vector set holds.
    """
    try:
        if not (folder / MANIFEST).is_file():
            raise VectorSetError(f"no vector set in {folder} (no {MANIFEST}); make one with `demeanor extract --output {folder}`")
        files = {MANIFEST: (folder / MANIFEST).read_bytes()}
        for name in _HASHED:
            if (folder / name).is_file():
                files[name] = (folder / name).read_bytes()
    except OSError as error:
        raise VectorSetError(f"{folder} cannot be read: {error.strerror}; check its permissions") from error
    return _parse(files, folder)


def _parse(files: Mapping[str, bytes], folder: Path) -> Contents:
    """What a vector set is made of, from the bytes of its files; `folder` is where an error places them."""
    manifest = _read_manifest(files[MANIFEST], folder)
    for name in _HASHED:
        if name not in files:
            raise DamagedVectorSetError(f"{folder / name} is missing; restore the folder or extract again")
        if not isinstance(manifest.get("files"), dict) or _sha256(files[name]) != manifest["files"].get(name):
            raise DamagedVectorSetError(
                f"{folder / name} is damaged or was edited (its hash differs from the manifest's); restore it or extract again"
            )
    try:
        tensors = safetensors.torch.load(files["vectors.safetensors"])
        calibrations = parse_json(files["calibration.json"].decode())
        checked = check_manifest(manifest, calibrations, str(folder))
        return Contents(
            model=ModelIdentity(**manifest["model"]),
            traits={name: _entry(name, manifest, checked, tensors) for name in checked.order},
            pooling=checked.pooling,
            neutral_norm=_neutral(tensors, "neutral.norm", (checked.model.layers,)),
            neutral_scale=_neutral(tensors, "neutral.scale", (checked.model.layers, checked.model.hidden_size)),
            created=checked.created,
            versions=checked.versions,
            made_from=checked.made_from,
            dtypes=checked.dtypes,
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, VectorSetError):
            raise
        raise DamagedVectorSetError(f"{folder}: the vector set is inconsistent ({error}); extract it again") from error


def _entry(name: str, manifest: dict[str, Any], checked: SetManifest, tensors: dict[str, torch.Tensor]) -> TraitEntry:
    record, trait, model = manifest["traits"][name], checked.traits[name], checked.model
    vectors = {}
    for use in ("reading", "steering", "own"):
        kept: VectorRecord | None = getattr(trait, use)
        if kept is None:
            continue
        tensor = tensors[f"{use}.{name}"]
        rows = tensor if tensor.ndim == 2 else tensor[None]
        if tuple(rows.shape) != (len(kept.layers), model.hidden_size):
            raise DamagedVectorSetError(
                f"{name}: the {use} direction has the shape {tuple(tensor.shape)}, the model is {model.hidden_size} wide; extract it again"
            )
        if not all(0 <= layer < model.layers for layer in [*kept.layers, kept.layer_idx]):
            raise DamagedVectorSetError(f"{name}: layers {kept.layers} are not among the model's {model.layers}; extract it again")
        check_direction(tensor, f"{name}: the {use} direction", may_be_zero=use == "steering" and kept.metadata.method == "none")
        about = record[use]
        vectors[use] = PersonaVector(name, tensor.float(), about["layer_idx"], float(about["strength"]), about["metadata"])
    own = OwnVector(vectors["own"], trait.own.calibration, trait.own.metrics) if trait.own is not None else None
    return TraitEntry(
        own=own,
        reading=vectors["reading"],
        steering=vectors["steering"],
        calibration=checked.calibrations[name],
        proof=trait.metrics,
        applies_when=trait.applies_when,
        language=trait.language,
        **{key: getattr(trait, key) for key in _ENTRY_TEXT},
    )


def _neutral(tensors: dict[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A statistic of neutral replies, all of it or none; older sets and those made by hand have none."""
    found = tensors[name]
    if tuple(found.shape) != shape and found.numel():
        raise DamagedVectorSetError(f"{name} has the shape {tuple(found.shape)}, and {shape} is wanted; extract it again")
    if found.ndim != len(shape) or not found.is_floating_point() or not torch.isfinite(found).all() or (found < 0).any():
        raise DamagedVectorSetError(f"{name} holds an invalid norm or spread (not finite, or below 0); extract it again")
    return found


def _read_manifest(content: bytes, folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = parse_json(content.decode())
        version = manifest["format_version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"format_version is {version!r}"[:60])
        if version > FORMAT_VERSION:
            raise FormatVersionError(
                f"{folder} has format version {version}, this Demeanor reads up to {FORMAT_VERSION}; upgrade: pip install -U demeanor"
            )
        checksum = manifest.pop("checksum", None)
        signed = _sha256(_json(manifest))
        if version == 1 and isinstance(manifest.get("traits"), dict):
            manifest["traits"] = upgraded(manifest["traits"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, VectorSetError):
            raise
        raise DamagedVectorSetError(f"{path} is damaged or incomplete ({error}); restore it or extract again") from error
    if checksum != signed:
        raise DamagedVectorSetError(f"{path} was edited (its checksum does not match); restore it or extract again")
    return manifest  # type: ignore[no-any-return]


def _files(vectors: VectorSet) -> dict[str, bytes]:
    tensors = {
        "neutral.norm": _own(vectors.neutral_norm),
        "neutral.scale": _own(vectors.neutral_scale),
    }
    records: dict[str, Any] = {}
    for name, entry in vectors.traits.items():
        record: dict[str, Any] = {key: getattr(entry, key) for key in _ENTRY_TEXT}
        record["metrics"] = entry.proof.to_record() if entry.proof is not None else {}
        if entry.applies_when:
            record["applies_when"] = [when.model_dump(exclude_unset=True) for when in entry.applies_when]
        if entry.language != ENGLISH:
            record["language"] = entry.language
        named = {"reading": entry.reading, "steering": entry.steering} | ({"own": entry.own.reading} if entry.own else {})
        for use, vector in named.items():
            tensors[f"{use}.{name}"] = _own(vector.direction)
            about = {k: v for k, v in vector.metadata.items() if use == "steering" or k != "centre"}  # the calibration has it
            record[use] = {"layer_idx": vector.layer_idx, "strength": vector.strength, "metadata": about}
        if entry.own is not None:
            record["own"] |= {
                "calibration": entry.own.calibration.to_record(),
                "metrics": entry.own.proof.to_record() if entry.own.proof is not None else None,
            }
        records[name] = record
    files = {
        "vectors.safetensors": safetensors.torch.save(tensors),
        "calibration.json": _json({name: entry.calibration.to_record() for name, entry in vectors.traits.items()}),
    }
    manifest = {
        "format_version": FORMAT_VERSION,
        "created": vectors.created,
        "model": vectors.model.to_record(),
        "pooling": vectors.pooling,
        "versions": vectors.versions,
        "made_from": vectors.made_from,
        "dtypes": vectors.dtypes,
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


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in memory of its own: safetensors refuses tensors that share theirs, as two traits with one direction may."""
    return tensor.detach().cpu().float().contiguous().clone()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
