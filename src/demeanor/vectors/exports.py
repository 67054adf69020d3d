"""Vectors in the formats of neighbours: the tutorial's .pt files and llama.cpp's control vectors.

Tutorial files are pickles; they are read with `weights_only=True`, which runs no code.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from demeanor.errors import OutputError, VectorSetError
from demeanor.traits.definition import NAME
from demeanor.vectors.persona_vector import PersonaVector

if TYPE_CHECKING:
    from demeanor.vectors.vector_set import VectorSet


def save_tutorial(vectors: dict[str, PersonaVector], folder: Path, model: str) -> None:
    """Write NAME_vector.pt for each vector and summary.json, as the tutorial does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, vector in vectors.items():
            if not NAME.fullmatch(name):
                raise VectorSetError(f"{name!r} is no trait name, so no file is named after it")
            content = {
                "trait_name": vector.trait_name,
                "direction": vector.direction.cpu(),
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
    found = {}
    for file in files:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(content, dict):
                raise TypeError(f"it holds a {type(content).__name__}, no dictionary")
            vector = PersonaVector(
                str(content["trait_name"]),
                torch.as_tensor(content["direction"]).float(),
                int(content["layer_idx"]),
                float(content["strength"]),
                dict(content.get("metadata") or {}),
            )
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise VectorSetError(f"{file} is not a tutorial vector file: {reason[:160]}") from error
        found[vector.trait_name] = vector
    return found


def export_control_vector(vectors: VectorSet, trait: str, path: Path, coefficient: float = 1.0) -> None:
    """Write a trait's steering vector as a llama.cpp control-vector GGUF.

    llama.cpp adds `direction.N` to the output of its 0-based block N, so our layer N is written as direction.N, times
    `coefficient`. Block 0 cannot be expressed.
    """
    import gguf

    vector = vectors[trait].steering
    if vector.layer_idx == 0:
        raise VectorSetError("a llama.cpp control vector cannot act on block 0; choose another layer for steering")
    try:
        writer = gguf.GGUFWriter(path, "controlvector")
        writer.add_string("controlvector.model_hint", vectors.model.architecture)
        writer.add_uint32("controlvector.layer_count", vectors.model.layers - 1)
        writer.add_string("demeanor.trait", trait)
        writer.add_string("demeanor.model", vectors.model.name)
        writer.add_float32("demeanor.coefficient", coefficient)
        writer.add_tensor(f"direction.{vector.layer_idx}", (vector.direction.float() * coefficient).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
