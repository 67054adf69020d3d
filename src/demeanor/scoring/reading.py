"""What scoring gives back: one Reading a response, or a NotScored that says why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from demeanor.signs import Sign


class Score(NamedTuple):
    """One trait's score of one response; see calibration.py for the formulas. Higher is more of the trait."""

    raw: float
    centred: float
    z: float
    probability: float


@dataclass(frozen=True)
class Reading:
    """The scores of one response for all traits, with where they came from."""

    scores: dict[str, Score]
    layers: dict[str, tuple[int, ...]]
    model: str
    windows: int = 1
    """Above 1 where the conversation is longer than the model's context and was read in overlapping windows."""
    signs: tuple[Sign, ...] = ()
    """What the reply shows by its form: words in disguise, written-out turns."""
    apart: SetApart | None = None
    """The reasoning that stood in the reply (<think>...</think>); it is in none of the scores above."""

    def __getitem__(self, trait: str) -> Score:
        return self.scores[trait]

    def to_record(self) -> dict[str, Any]:
        """As plain data, the form that files of scores hold under "demeanor"."""
        record: dict[str, Any] = {
            "scores": {trait: score._asdict() for trait, score in self.scores.items()},
            "layer": {trait: layers[0] if len(layers) == 1 else list(layers) for trait, layers in self.layers.items()},
            "model": self.model,
        }
        if self.windows > 1:
            record["windows"] = self.windows
        if self.signs:
            record["signs"] = {sign.what: sign.sentence for sign in self.signs}
        if self.apart is not None:
            record["set_apart"] = self.apart.to_record()
        return record


@dataclass(frozen=True)
class SetApart:
    """Reasoning that was set apart from a reply, and how it reads in the reply's place."""

    characters: int
    read: Reading | NotScored | None
    """None where it was not to be read, as users never see it."""

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        record: dict[str, Any] = {"characters": self.characters}
        if isinstance(self.read, Reading):
            record["scores"] = {trait: score._asdict() for trait, score in self.read.scores.items()}
        elif self.read is not None:
            record |= self.read.to_record()
        return record


@dataclass(frozen=True)
class NotScored:
    """A response that could not be scored, and why. It has no scores, and must not be taken for a safe one."""

    error: str

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return {"error": self.error}


@dataclass(frozen=True)
class TokenScores:
    """How much each token of a response pushes each trait: centred scores in units of the spread, [tokens].

    With mean pooling, a trait's mean over the tokens is the response's z.
    """

    tokens: list[str]
    z: dict[str, NDArray[np.float64]]
