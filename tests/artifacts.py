"""Small vector sets made by hand, with no model: what storage, exports, reports and the command line are tested with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from demeanor import Calibration, PersonaVector, VectorSet
from demeanor.measure.proof import Proof
from demeanor.model.identity import ModelIdentity
from demeanor.vectors import TraitEntry

LAYERS, WIDTH = 4, 8

MODEL = ModelIdentity(
    name="tiny-chat",
    architecture="llama",
    layers=LAYERS,
    hidden_size=WIDTH,
    fingerprint="f" * 24,
    template_hash="t" * 24,
    dtype="float32",
    quantization="none",
)

CALIBRATION: dict[str, Any] = {
    "centre": 0.5,
    "spread": 2.0,
    "method": "platt",
    "points": [[1.5, 0.1]],
    "n_high": 12,
    "n_low": 12,
    "source": "calibration split, 12 pairs",
    "thresholds": {},
}


def unit(seed: int, rows: int | None = None) -> torch.Tensor:
    """A random unit vector [WIDTH], or [rows, WIDTH] of unit length as a whole."""
    shape = (WIDTH,) if rows is None else (rows, WIDTH)
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return made / made.norm()


def vector(name: str = "warmth", layer: int = 2, seed: int = 0, strength: float = 3.25) -> PersonaVector:
    """A vector that is read at one layer."""
    return PersonaVector(
        name, unit(seed), layer, strength, {"method": "mean_difference", "centre": 0.5, "layer_curve": {"1": 0.6, "2": 0.8}}
    )


def measured(beats: bool = True) -> dict[str, Any]:
    """Held-out results in the shape that validation gives."""
    interval = {"value": 0.9, "low": 0.8, "high": 0.97, "pairs": 6}
    none = {"value": None, "low": None, "high": None, "pairs": 2}
    verdict = "AUROC 0.90 on 6 held-out pairs beats every baseline clearly." if beats else "AUROC 0.90 does NOT beat reply length 0.95."
    return {
        "auroc": interval,
        "paired_accuracy": interval,
        "cohens_d": 1.9,
        "length": {"auroc": 0.5 if beats else 0.95},
        "words": {"auroc": 0.6},
        "random": {"mean": 0.5, "p97_5": 0.7, "n": 500},
        "permutation": {"mean": 0.5, "p97_5": 0.72, "p": 0.01, "n": 100},
        "hard": none,
        "registers": {"plain": interval, "oblique": none},
        "families": {"grief": {**interval, "value": 0.66}, "work": interval},
        "scores": {"high": [0.5, 1.0, 1.5, 2.0, 2.5, -0.2], "low": [-0.5, -1.0, -1.5, -2.0, 0.3, -0.1]},
        "ece": 0.08,
        "brier": 0.12,
        "beats_baselines": beats,
        "verdict": verdict,
    }


def entry(name: str = "warmth", metrics: dict[str, Any] | None = None, seed: int = 0, **changes: Any) -> TraitEntry:
    """A trait read at layers 1 and 2 together, and steered at layer 2; `metrics` and a `calibration` may be plain data."""
    metadata = {"method": "lda", "layers": [1, 2], "layer_curve": {"0": 0.5, "1": 0.7, "2": 0.8, "3": 0.75}}
    fields: dict[str, Any] = {
        "reading": PersonaVector(name, unit(seed + 100, rows=2), 2, 3.25, metadata),
        "steering": vector(name, seed=seed),
        "title": name.capitalize(),
        "description": f"How much {name} a reply shows.",
        "high_pole": f"the reply shows {name}.",
        "low_pole": f"the reply shows no {name}.",
        "safe_pole": "high",
        "reads": "response",
        "pack_hash": "a" * 64,
        "calibration": CALIBRATION,
        "proof": Proof.model_validate(metrics) if metrics else None,
    }
    fields |= changes
    if isinstance(fields["calibration"], dict):
        fields["calibration"] = Calibration.from_record(fields["calibration"])
    return TraitEntry(**fields)


def vector_set(*entries: TraitEntry, **changes: Any) -> VectorSet:
    """A set with these traits; by default "warmth", measured, and "candour", without held-out results."""
    chosen = entries or (entry("warmth", measured()), entry("candour", seed=1))
    fields: dict[str, Any] = {
        "model": MODEL,
        "traits": {e.reading.trait_name: e for e in chosen},
        "neutral_norm": torch.arange(1.0, LAYERS + 1),
        "created": "2026-01-31",
        "versions": {"demeanor": "0.1.0", "torch": "2.6"},
    }
    return VectorSet(**fields | changes)


def edit_manifest(folder: Path, **changes: Any) -> None:
    """Change a saved manifest and sign it anew, together with the files that it vouches for."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("checksum")
    manifest |= changes
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    text = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
