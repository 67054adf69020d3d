"""What a vector set holds of one trait: its two vectors, what its poles mean, its calibration and its proof.

Each number of a trait has one place: its calibration and its proof are typed, and the reading vector takes its centre from the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from demeanor.data.to_label import Question
from demeanor.language import ENGLISH
from demeanor.measure.calibration import Calibration, Score
from demeanor.measure.conditions import AppliesWhen
from demeanor.measure.cuts import Action
from demeanor.measure.poles import Pole, Side, unsafe_side
from demeanor.measure.proof import Proof
from demeanor.traits.definition import Span, TraitDefinition
from demeanor.vectors.persona_vector import PersonaVector, layer_words


class Measured(NamedTuple):
    """How well a trait's poles are told apart, and on what; NaN and "not measured" where that is unknown."""

    auroc: float
    low: float
    high: float
    on: str

    def __str__(self) -> str:
        return self.on if math.isnan(self.auroc) else f"AUROC {self.auroc:.2f} ({self.low:.2f} to {self.high:.2f}) on {self.on}"


@dataclass(frozen=True)
class OwnVector:
    """What a trait was before labelled replies changed its vector: the pack's, with its calibration and proof."""

    reading: PersonaVector
    calibration: Calibration
    proof: Proof | None = None


@dataclass(frozen=True)
class TraitEntry:
    """What a vector set holds of one trait."""

    reading: PersonaVector
    steering: PersonaVector
    title: str
    description: str
    high_pole: str
    low_pole: str
    safe_pole: Pole
    reads: Span
    pack_hash: str
    calibration: Calibration
    proof: Proof | None = None
    """Held-out results with intervals and sample sizes; None where there were none."""
    applies_when: tuple[AppliesWhen, ...] = ()
    """When the trait counts, by what the user's messages call for; all of these together. None of them: always."""
    not_scored: Action = "flag"
    """What is done about a reply that could not be scored, where a policy does not say."""
    judged_whole: bool = False
    """Whether it asks for something that may stand anywhere in a reply, so that no part of it says that it is missing."""
    language: str = ENGLISH
    """That of the examples it was made from."""
    own: OwnVector | None = None
    """Of a trait that was adapted to labelled replies, the pack's own vector; None: it was not, or an earlier version did it."""

    def __post_init__(self) -> None:
        """The reading vector's centre is the calibration's; one condition may be given alone."""
        if isinstance(self.applies_when, AppliesWhen):
            object.__setattr__(self, "applies_when", (self.applies_when,))
        if self.reading.metadata.get("centre") != self.calibration.centre:
            metadata = {**self.reading.metadata, "centre": self.calibration.centre}
            object.__setattr__(self, "reading", replace(self.reading, metadata=metadata))

    def question(self, trait: str) -> Question:
        """What people are asked about this trait of that name."""
        return Question(trait, self.title, self.high_pole, self.low_pole, self.safe_pole, self.reads)

    @classmethod
    def of(
        cls,
        trait: TraitDefinition,
        pack_hash: str,
        reading: PersonaVector,
        steering: PersonaVector,
        calibration: Calibration,
        proof: Proof | None = None,
    ) -> TraitEntry:
        """Of a trait's definition and what was measured."""
        return cls(
            reading=reading,
            steering=steering,
            title=trait.title,
            description=trait.description,
            high_pole=trait.high_pole,
            low_pole=trait.low_pole,
            safe_pole=trait.safe_pole,
            reads=trait.reads,
            pack_hash=pack_hash,
            calibration=calibration,
            proof=proof,
            applies_when=trait.applies_when if trait.applies_when != "always" else (),
            not_scored=trait.not_scored,
            judged_whole=trait.judged_whole,
            language=trait.language,
        )

    @property
    def unsafe_side(self) -> Side:
        """Which side of its scores is the unsafe one."""
        return unsafe_side(self.safe_pole)

    def worst(self, scores: Iterable[Score]) -> Score:
        """The score that lies farthest on the unsafe side."""
        return (max if self.unsafe_side == "above" else min)(scores, key=lambda score: score.z)

    def on_safe_side(self, centred: float) -> bool:
        """Whether a centred score lies on the pole that one wants to see."""
        return (centred > 0) == (self.safe_pole == "high")

    @property
    def measured(self) -> Measured:
        """The AUROC with its 95 % interval: on held-out pairs, or of an adapted vector on its labelled replies."""
        if self.proof is not None:
            held = self.proof.auroc
            return Measured(held.value, held.low, held.high, f"{held.pairs} held-out pairs")
        if adapted := self.reading.metadata.get("adapted"):
            found = adapted["auroc"]
            return Measured(found["value"], found["low"], found["high"], f"{adapted['rows']} labelled replies, cross-validated")
        return Measured(math.nan, math.nan, math.nan, "not measured")

    def __repr__(self) -> str:
        return f"TraitEntry({self.reading.trait_name}: {self._words})"

    @property
    def _words(self) -> str:
        reads = "" if self.reads == "response" else f", reads the {self.reads}'s message"
        return f"{layer_words(self.reading.layers)}, {self.measured}, safe pole {self.safe_pole}{reads}"
