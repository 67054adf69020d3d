"""Vectors that others made, as directions by layer: Persona Vectors' tensors, repeng's and llama.cpp's control vectors, our own exports.

Our layer N is the output of decoder block N, counted from 0: `hidden_states[N + 1]` of transformers. Theirs:

    Persona Vectors   NAME_response_avg_diff.pt, a tensor [blocks + 1, hidden]: row i is hidden_states[i], so our layer i - 1.
                      Row 0 is the embeddings, and the last row was read after the final norm: neither is a layer here.
    repeng            GGUF, direction.N: block N from 0, our layer N. Layer 0 is never trained.
    llama.cpp         GGUF, direction.N: added to the output of block N from 0, our layer N. Block 0 cannot be expressed.
    the tutorial      NAME_vector.pt, with its layer_idx: our layer.
    lm-eval           .pt, "layers.N": our layer N, times its coefficient.

A .pt file is read with `weights_only=True`, which runs no code.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demeanor.errors import VectorSetError
from demeanor.language import ENGLISH
from demeanor.measure.calibration import Calibration
from demeanor.measure.poles import Pole
from demeanor.model.identity import ModelIdentity
from demeanor.traits.definition import NAME, Span
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.persona_vector import PersonaVector

PARTS_READ = ("response_avg", "prompt_avg", "prompt_last")
_PERSONA = re.compile(rf"(?P<trait>.+)_(?P<read>{'|'.join(PARTS_READ)})_diff")
_GGUF_NAME = re.compile(r"direction\.(\d{1,6})")


@dataclass(frozen=True)
class Imported:
    """What a file holds: a direction for each of some layers, of any length, from the low pole to the high one."""

    form: str
    """Whose file it is, in words."""
    directions: dict[int, Tensor]
    """By our layer, [hidden]."""
    trait: str | None = None
    hint: str | None = None
    """The kind of model that the file names."""
    caution: str | None = None
    source: str = ""
    """The file's name."""
    digest: str = ""
    """The file's hash."""


@dataclass(frozen=True)
class TraitData:
    """A trait as Persona Vectors' JSON describes it: what asks for each pole, and how a judge is asked."""

    name: str
    high_pole: str
    low_pole: str
    description: str
    digest: str


def read_vectors(path: Path, model: ModelIdentity) -> Imported:
    """The directions in a .pt or .gguf file, for a model. Raises VectorSetError for what they cannot be, in one line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VectorSetError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix == ".json":
        raise VectorSetError(f"{path} holds no vector; give the .pt file that was made from it, and this one with --trait-data")
    made = _of_gguf(path, model) if content[:4] == b"GGUF" else _of_tensors(path, model)
    found = {}
    for layer, direction in made.directions.items():
        if direction.ndim != 1 or direction.shape[0] != model.hidden_size:
            raise VectorSetError(
                f"{path}: a direction has the shape {tuple(direction.shape)}, and {model.name} is {model.hidden_size} wide"
            )
        if not 0 <= layer < model.layers:
            raise VectorSetError(f"{path}: there is a direction for layer {layer}, and {model.name} has the layers 0 to {model.layers - 1}")
        if not direction.is_floating_point() or not torch.isfinite(direction).all():
            raise VectorSetError(f"{path}: the direction of layer {layer} holds a number that is not finite")
        if float(direction.double().norm()) > 0:
            found[layer] = direction.float()
    if not found:
        raise VectorSetError(f"{path} holds no direction that differs from zero at a layer of {model.name}")
    if made.hint is not None and _plain(made.hint) != _plain(model.architecture):
        told = f"it was made for a {made.hint} model, and {model.name} is a {model.architecture}"
        made = replace(made, caution=told if made.caution is None else f"{made.caution}; {told}")
    return replace(made, directions=dict(sorted(found.items())), source=path.name, digest=hashlib.sha256(content).hexdigest())


def _plain(architecture: str) -> str:
    return re.sub(r"[^a-z0-9]", "", architecture.lower())


def _of_gguf(path: Path, model: ModelIdentity) -> Imported:
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        fields = {name: reader.fields[name].contents() for name in reader.fields if name.startswith(("controlvector.", "demeanor."))}
        tensors = [(tensor.name, torch.from_numpy(tensor.data.copy()), tensor.tensor_type.name) for tensor in reader.tensors]
    except Exception as error:  # what a damaged file raises is up to the library
        raise VectorSetError(f"{path} cannot be read as a GGUF control vector: {_line(error)}") from error
    directions: dict[int, Tensor] = {}
    for name, tensor, kind in tensors:
        if (numbered := _GGUF_NAME.fullmatch(name)) is None:
            continue
        if kind not in ("F32", "F16"):
            raise VectorSetError(f"{path}: {name} is kept as {kind}; control vectors are F32, save it so")
        layer = int(numbered[1])
        if layer == 0:
            raise VectorSetError(f"{path}: direction.0 is none that llama.cpp takes, so its numbering is another; it is not guessed")
        directions[layer] = directions.get(layer, torch.zeros(())) + tensor.float()  # llama.cpp adds up those of one layer
    if not directions:
        raise VectorSetError(f"{path} holds no direction.N; is it a model rather than a control vector?")
    coefficient, trait = fields.get("demeanor.coefficient"), fields.get("demeanor.trait")
    if isinstance(coefficient, float) and coefficient < 0:  # our own export, turned around
        directions = {layer: -tensor for layer, tensor in directions.items()}
    hint = fields.get("controlvector.model_hint")
    return Imported("control vector (GGUF)", directions, trait if isinstance(trait, str) else None, hint if isinstance(hint, str) else None)


def _of_tensors(path: Path, model: ModelIdentity) -> Imported:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn pickle fails in as many ways as it has opcodes
        raise VectorSetError(
            f"{path} cannot be read as tensors: {_line(error)}; a pickle of objects is never run. From repeng: vector.export_gguf(FILE)"
        ) from error
    if isinstance(content, Tensor):
        return _persona_vectors(path, content, model)
    if isinstance(content, dict) and "trait_name" in content:
        from demeanor.vectors.exports import load_tutorial

        ((name, vector),) = load_tutorial(path).items()
        if len(vector.layers) != 1:
            raise VectorSetError(
                f"{path} holds a vector over {len(vector.layers)} layers, which is not a steering vector; give one for a single layer"
            )
        return Imported("tutorial", {vector.layer_idx: vector.direction * (vector.strength or 1.0)}, name)
    if isinstance(content, dict) and content:
        return Imported("directions by layer", dict(_by_layer(path, key, value) for key, value in content.items()))
    raise VectorSetError(f"{path} holds a {type(content).__name__}, and a tensor [blocks + 1, hidden] or directions by layer are wanted")


def _persona_vectors(path: Path, rows: Tensor, model: ModelIdentity) -> Imported:
    if rows.ndim != 2 or rows.shape[0] != model.layers + 1:
        raise VectorSetError(
            f"{path} holds a tensor {tuple(rows.shape)}; Persona Vectors' has a row for the embeddings and one for each of the "
            f"{model.layers} blocks of {model.name}: [{model.layers + 1}, {model.hidden_size}]"
        )
    named = _PERSONA.fullmatch(path.stem)
    read = named["read"] if named is not None else "response_avg"
    caution = None if read == "response_avg" else "it was measured on the tokens of prompts, and replies are read with it"
    within = {row - 1: rows[row] for row in range(1, model.layers)}  # the last row was read after the final norm
    return Imported("Persona Vectors", within, named["trait"] if named is not None else None, caution=caution)


def _by_layer(path: Path, key: Any, value: Any) -> tuple[int, Tensor]:
    """A layer and its direction: {N: tensor}, or lm-eval's {"layers.N": {"steering_vector": ...}}."""
    last = str(key).rpartition(".")[2]
    if not last.isdecimal() or len(last) > 6:
        raise VectorSetError(f"{path}: {str(key)[:40]!r} names no layer; keys are numbers, or end with one as 'layers.12' does")
    if isinstance(value, dict):
        value, times = value.get("steering_vector"), value.get("steering_coefficient", 1.0)
        value = value * times if isinstance(value, Tensor) and isinstance(times, int | float) else None
    if not isinstance(value, Tensor):
        raise VectorSetError(f"{path}: layer {last} holds a {type(value).__name__}, and a tensor is wanted")
    return int(last), value


def read_trait_data(path: Path) -> TraitData:
    """Persona Vectors' JSON of a trait: "instruction" (pairs of "pos" and "neg"), "questions", "eval_prompt". Raises VectorSetError."""
    try:
        content = path.read_bytes()
        record = json.loads(content)
        pairs = record["instruction"]
        high, low = str(pairs[0]["pos"]).strip(), str(pairs[0]["neg"]).strip()
        asked = str(record.get("eval_prompt", "")).strip()
        if not high or not low:
            raise ValueError("its first instruction is empty")
    except OSError as error:
        raise VectorSetError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise VectorSetError(
            f"{path} is not trait data of Persona Vectors, which holds 'instruction', a list of 'pos' and 'neg' ({_line(error)})"
        ) from error
    return TraitData(path.stem, high, low, asked.splitlines()[0] if asked else "", hashlib.sha256(content).hexdigest())


def trait_entry(
    imported: Imported,
    model: ModelIdentity,
    name: str,
    safe_pole: Pole,
    layer: int | None = None,
    high_pole: str = "",
    low_pole: str = "",
    description: str = "",
    reads: Span = "response",
    data: TraitData | None = None,
    language: str = ENGLISH,
) -> TraitEntry:
    """A trait of a vector set from what was imported: one layer's direction, made a unit vector, and a calibration that says it is none.

    Args:
        imported: As `read_vectors` gives it.
        model: The model that it is for.
        name: The trait's.
        safe_pole: Which pole one wants to see.
        layer: Ours; by default the one nearest to half the depth, as nothing is known of how well each reads.
        high_pole: In words; by default the first instruction of `data`.
        low_pole: Likewise.
        description: Likewise, the first line of what its judge is asked.
        reads: Whose message is read.
        data: Persona Vectors' trait data.
        language: That of the texts it was made from.

    Raises:
        VectorSetError: a name that is none, or a layer that the file does not hold.
    """
    if not NAME.fullmatch(name):
        raise VectorSetError(f"{name!r} is not a trait name; give one with --trait: lower-case letters, digits, '_' and '-'")
    chosen = min(imported.directions, key=lambda n: abs(n - model.layers // 2)) if layer is None else layer
    if chosen not in imported.directions:
        there = ", ".join(map(str, imported.directions))
        raise VectorSetError(f"{imported.source} holds no direction for layer {chosen}; there: {there}")
    direction = imported.directions[chosen].double()
    strength = float(direction.norm())
    about = {"form": imported.form, "file": imported.source, "sha256": imported.digest, "layers": list(imported.directions)}
    vector = PersonaVector(
        name, (direction / strength).float(), chosen, strength, {"method": "imported", "layers": [chosen], "imported": about}
    )
    return TraitEntry(
        reading=vector,
        steering=replace(vector, metadata=dict(vector.metadata)),
        title=name.replace("_", " ").capitalize(),
        description=description or (data.description if data else "") or f"Imported from {imported.source}.",
        high_pole=high_pole or (data.high_pole if data else "more of it"),
        low_pole=low_pole or (data.low_pole if data else "less of it"),
        safe_pole=safe_pole,
        reads=reads,
        pack_hash=data.digest if data else imported.digest,
        calibration=uncalibrated(strength, imported.source),
        language=language,
    )


def uncalibrated(strength: float, source: str) -> Calibration:
    """A calibration of nothing: scores in units of half the vector's length, no middle, and the same chance for every reply."""
    return Calibration(
        0.0, strength / 2, "platt", ((0.0, 0.0),), 0, 0, f"NOT calibrated: imported from {source}, and no reply was measured"
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
