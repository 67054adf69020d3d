"""What scoring gives back: one Reading a response, or a NotScored that says why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from demeanor.measure.calibration import Score, chance_in_words
from demeanor.measure.conditions import Condition
from demeanor.notebook import table
from demeanor.signs import Sign

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Reading:
    """The scores of one response for all traits, with where they came from. Higher is more of the trait on every scale; see Score."""

    scores: dict[str, Score]
    layers: dict[str, tuple[int, ...]]
    model: str
    windows: int = 1
    """Above 1 where the conversation is longer than the model's context and was read in overlapping windows."""
    signs: tuple[Sign, ...] = ()
    """What the reply shows by its form: words in disguise, written-out turns."""
    apart: SetApart | None = None
    """The reasoning that stood in the reply (<think>...</think>); it is in none of the scores above."""
    worst: dict[str, Score] = field(default_factory=dict)
    """Of a long reply the worst part by each trait, where it is worse than the whole, on the scale of whole replies (see parts)."""
    users: tuple[tuple[Reading | NotScored, ...], ...] = field(default=(), repr=False)
    """Each message of the user's last turns, oldest first, where some trait of the vector set applies by them and they were asked for."""
    caution: str = ""
    """Why its scores are less sure, in a sentence: the text is in another language than the vectors'."""

    def __getitem__(self, trait: str) -> Score:
        return self.scores[trait]

    def __repr__(self) -> str:
        width = max(map(len, self.scores), default=0)
        lines = [f"  {trait:<{width}}  z {s.z:+.2f}, probability {chance_in_words(s.probability)}" for trait, s in self.scores.items()]
        windows = f", in {self.windows} windows" if self.windows > 1 else ""
        return "\n".join([f"Reading by {self.model}{windows}", *lines])

    def _repr_html_(self) -> str:
        """The same for a notebook. Nothing is marked as safe: a reading does not hold which pole of a trait is."""
        rows = [(trait, f"{s.z:+.2f}", chance_in_words(s.probability)) for trait, s in self.scores.items()]
        note = "z above 0: more of the trait; the probability is that of its high pole"
        return table(repr(self).split("\n", 1)[0], rows, ("trait", "z", "probability"), note)

    def to_frame(self) -> pd.DataFrame:
        """One row a trait: raw, centred, z and probability. Needs pandas."""
        import pandas as pd

        return pd.DataFrame.from_dict(
            {trait: score._asdict() for trait, score in self.scores.items()}, orient="index", columns=list(Score._fields), dtype=float
        ).rename_axis("trait")

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
        if self.caution:
            record["caution"] = self.caution
        if self.worst:
            record["worst_part"] = {trait: score._asdict() for trait, score in self.worst.items()}
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


Said: TypeAlias = "Reading | NotScored | Sequence[Reading | NotScored]"
"""What is known of one turn of the user's: of each message in it, or of its only one."""


def scores_by(trait: str, turns: Sequence[Said]) -> list[list[Score | None]]:
    """A trait's score of each message of the user's, turn by turn, as `Condition.holds` takes them; None where there is none."""
    said = [(turn,) if isinstance(turn, Reading | NotScored) else turn for turn in turns]
    return [[message.scores.get(trait) if isinstance(message, Reading) else None for message in turn] for turn in said]


def looked_at(condition: Condition, reply: Reading | NotScored, turns: Sequence[Said]) -> list[list[Score | None]]:
    """The scores that a condition looks at: of the reply, or of the user's messages, turn by turn."""
    return scores_by(condition.trait, turns if condition.reads == "user" else (reply,))


@dataclass(frozen=True)
class TokenScores:
    """How much each token of a response pushes each trait: centred scores in units of the spread, [tokens].

    With mean pooling, a trait's mean over the tokens is the response's z.
    """

    tokens: list[str]
    z: dict[str, NDArray[np.float64]]


def to_frame(readings: Iterable[Reading | NotScored]) -> pd.DataFrame:
    """The results of `score_many` as one table, a row a response in the order given.

    For each trait T there are T_raw, T_z and T_probability, as `demeanor screen` names them; `error` says why a response was not
    scored and is missing where it was. Numbers of a response that was not scored, or of a trait that was not read in it, are NaN.
    z is in units of the spread within a pole and probability the chance of the high pole; higher is more of the trait. Needs pandas.
    NaN is beyond no threshold: keep rows by what is safe (`T_z > 0`), never by what is not unsafe, and look at `error`.
    """
    import pandas as pd

    rows = list(readings)
    scored = [row.scores if isinstance(row, Reading) else {} for row in rows]
    nothing = Score(*[float("nan")] * len(Score._fields))
    columns: dict[str, Any] = {}
    for trait in dict.fromkeys(trait for scores in scored for trait in scores):
        for what in ("raw", "z", "probability"):
            columns[f"{trait}_{what}"] = [getattr(scores.get(trait, nothing), what) for scores in scored]
    errors = [row.error if isinstance(row, NotScored) else None for row in rows]
    return pd.DataFrame(columns | {"error": pd.array(errors, dtype="string")})
