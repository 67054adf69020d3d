"""Vectors in the formats of neighbours: the tutorial's .pt files, llama.cpp's control vectors, lm-eval's steered files.

Tutorial files are pickles; they are read with `weights_only=True`, which runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from torch import Tensor

from demeanor.errors import OutputError, VectorSetError
from demeanor.model.identity import ModelIdentity
from demeanor.traits.definition import NAME
from demeanor.vectors.persona_vector import PersonaVector, check_direction
from demeanor.vectors.schema import VectorRecord, in_a_line

if TYPE_CHECKING:
    from demeanor.vectors.vector_set import VectorSet


def save_tutorial(vectors: dict[str, PersonaVector], folder: Path, model: str) -> None:
    """Write NAME_vector.pt for each vector and summary.json, as the tutorial does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, vector in vectors.items():
            if not NAME.fullmatch(name):
                raise VectorSetError(f"{name!r} is not a trait name, so no file can be named after it")
            content = {
                "trait_name": vector.trait_name,
                "direction": vector.direction.detach().cpu().clone(),  # a view would be written with all that it is a view of
                "layer_idx": vector.layer_idx,
                "strength": vector.strength,
                "metadata": vector.metadata,
            }
            torch.save(content, folder / f"{name}_vector.pt")
        traits = {n: {"layer": v.layer_idx, "strength": v.strength} for n, v in vectors.items()}
        (folder / "summary.json").write_text(json.dumps({"model": model, "traits": traits}, indent=2))
    except (OSError, RuntimeError) as error:
        raise OutputError(f"cannot write the tutorial's files to {folder}: {error}") from error


def load_tutorial(path: Path) -> dict[str, PersonaVector]:
    """Read one .pt file, or all of a folder, as the tutorial wrote them. Raises VectorSetError."""
    files = sorted(path.glob("*_vector.pt")) if path.is_dir() else [path]
    if not files:
        raise VectorSetError(f"{path} holds no *_vector.pt file")
    found: dict[str, PersonaVector] = {}
    for file in files:
        vector = _tutorial_vector(file)
        if vector.trait_name in found:
            raise VectorSetError(f"{file} holds {vector.trait_name}, and so does another file beside it; keep one of them")
        found[vector.trait_name] = vector
    return found


def _tutorial_vector(file: Path) -> PersonaVector:
    """The vector of one file, each of its fields checked."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn pickle fails in as many ways as it has opcodes
        raise _no_tutorial_file(file, error) from error
    try:
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, no dictionary")
        name, metadata = content["trait_name"], content.get("metadata") or {}
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"{str(name)[:80]!r} is not a trait name")
        direction = torch.as_tensor(content["direction"])
        check_direction(direction.float() if direction.is_floating_point() else direction, "its direction")
        layer, strength = int(content["layer_idx"]), float(content["strength"])
        VectorRecord.model_validate({"layer_idx": layer, "strength": strength, "metadata": metadata})
        return PersonaVector(name, direction.float(), layer, strength, dict(metadata))
    except ValidationError as error:
        raise VectorSetError(f"{file} is not a tutorial vector file: {in_a_line(error)}") from error
    except (RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise _no_tutorial_file(file, error) from error


def _no_tutorial_file(file: Path, error: Exception) -> VectorSetError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return VectorSetError(f"{file} is not a tutorial vector file: {reason[:160]}")


def export_control_vector(vectors: VectorSet, trait: str, path: Path, coefficient: float = 1.0) -> None:
    """Write a trait's steering vector as a llama.cpp control-vector GGUF.

    llama.cpp adds `direction.N` to the output of its 0-based block N, so our layer N is written as direction.N, times
    `coefficient`. Block 0 cannot be expressed.
    """
    vector = vectors[trait].steering
    notes: dict[str, str | float] = {"trait": trait, "coefficient": coefficient}
    write_control_vector({vector.layer_idx: vector.direction.float() * coefficient}, vectors.model, path, notes)


def write_control_vector(additions: Mapping[int, Tensor], model: ModelIdentity, path: Path, notes: Mapping[str, str | float]) -> None:
    """Write what is added to the output of each layer [hidden] as a llama.cpp control-vector GGUF, to be applied at scale 1.

    `notes` go into keys of our own, for people; llama.cpp passes them over.
    """
    import gguf

    if 0 in additions:
        raise VectorSetError("a llama.cpp control vector cannot act on block 0; choose another layer for steering")
    try:
        writer = gguf.GGUFWriter(path, "controlvector")
        writer.add_string("controlvector.model_hint", model.architecture)
        writer.add_uint32("controlvector.layer_count", model.layers - 1)
        writer.add_string("demeanor.model", model.name)
        for key, value in notes.items():
            if isinstance(value, str):
                writer.add_string(f"demeanor.{key}", value)
            else:
                writer.add_float32(f"demeanor.{key}", value)
        for layer, added in sorted(additions.items()):
            writer.add_tensor(f"direction.{layer}", added.float().cpu().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def write_lm_eval(additions: Mapping[int, Tensor], blocks: str, dtype: torch.dtype, path: Path) -> None:
    """Write what is added to a layer's output as the file of lm-eval's `--model steered` (steer_path=...).

    `blocks` is the name of the decoder blocks as seen from the model's `base_model` ("layers"). The vector is stored in the
    model's dtype, since lm-eval adds it as it is. One layer only: lm-eval's additions at several layers all take the
    vector of the last one.
    """
    if len(additions) != 1:
        raise VectorSetError(f"lm-eval adds one vector at one layer correctly, not at {len(additions)}; choose one layer")
    if path.suffix not in (".pt", ".pth"):
        raise OutputError(f"{path}: lm-eval reads only .pt files; give it a name that ends in .pt")
    ((layer, added),) = additions.items()
    entry = {"steering_vector": added.to(dtype).cpu(), "steering_coefficient": 1.0, "action": "add", "bias": None, "head_index": None}
    try:
        torch.save({f"{blocks}.{layer}": entry}, path)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"cannot write {path}: {error}") from error
