"""A tiny model saved to a folder, with vectors made by hand: what a screening can be run with, here and in other processes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from demeanor.measure.poles import Pole, Side, unsafe_side
from demeanor.measure.thresholds import Threshold
from demeanor.model.identity import identify
from demeanor.scoring import Calibration
from demeanor.vectors import PersonaVector, TraitEntry, VectorSet

READS = {"warmth": "response", "flattery": "response", "user_risk": "user"}
SAFE: dict[str, Pole] = {"warmth": "high", "flattery": "low", "user_risk": "low"}


def threshold(z: float, side: Side, rate: float = 0.2) -> Threshold:
    return Threshold(z, side, "miss", rate, 9, 9)


def entry(name: str, width: int) -> TraitEntry:
    direction = torch.randn(width, generator=torch.Generator().manual_seed(len(name)))
    vector, steering = (PersonaVector(name, d, 1, 1.0) for d in (direction / direction.norm(), direction / direction.norm()))
    side = unsafe_side(SAFE[name])
    limits = {"miss 0.2": threshold(0.0, side), "miss 0.05": threshold(0.5 if side == "below" else -0.5, side, 0.05)}
    calibration = Calibration(0.0, 0.3, "platt", ((1.5, 0.0),), 10, 10, "made up", limits)
    poles = f"more {name}", f"less {name}", SAFE[name]
    return TraitEntry(vector, steering, name, name, *poles, READS[name], "hash", calibration)  # type: ignore[arg-type]


def vectors_for(model: Any, tokenizer: Any) -> VectorSet:
    return VectorSet(identify(model, tokenizer), {name: entry(name, model.config.hidden_size) for name in READS})


def talk(reply: str, said: str = "I cannot sleep.") -> list[dict[str, str]]:
    return [{"role": "user", "content": said}, {"role": "assistant", "content": reply}]


def rows(n: int) -> list[dict[str, Any]]:
    """Rows of many lengths, with a few prompts that come again."""
    words = [
        "I",
        "hear",
        "you",
        "and",
        "I",
        "am",
        "sorry",
        "that",
        "this",
        "week",
        "has",
        "been",
        "so",
        "hard",
        "are",
        "you",
        "safe",
        "right",
        "now",
    ]
    return [{"id": i, "messages": talk(" ".join(words[i % 7 : 7 + i % 11]), f"Hello, number {i % 5}")} for i in range(n)]


def write(path: Path, records: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def digests(folder: Path) -> dict[str, str]:
    """All that a user sees of a screening, by its hash."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}
