"""From raw scores to readings: what a vector set makes of projections. Needs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from demeanor.conversation import SpanOf
from demeanor.measure.calibration import Score
from demeanor.measure.parts import on_whole_scale, part_spans, so_far_on_whole_scale
from demeanor.model.directions import Directions
from demeanor.scoring.reading import NotScored, Reading
from demeanor.vectors.vector_set import VectorSet

Array = NDArray[np.float64]
Place: TypeAlias = tuple[int, int]
"""Where tokens stand: the first, and the one after the last."""


class Places(NamedTuple):
    """What is read of one conversation."""

    spans: Mapping[SpanOf, Place]
    """The reply, and the user's last message, as far as traits are read there."""
    turns: tuple[tuple[Place, ...], ...] = ()
    """Messages of the user's last turns that conditions look at, where they are asked for."""


class Gauge:
    """What a vector set reads, and what it makes of raw scores.

    The columns of raw scores are its traits, in its order; `directions` is what a reader must be given to get them.
    """

    def __init__(self, vectors: VectorSet) -> None:
        self.vectors = vectors
        self.traits = list(vectors.traits)
        self.calibrations = {name: entry.calibration for name, entry in vectors.traits.items()}
        self.reads: dict[str, SpanOf] = {name: entry.reads for name, entry in vectors.traits.items()}
        self.directions = _stack(vectors)
        mean = vectors.pooling == "mean"
        self.by_parts = [
            name
            for name, entry in vectors.traits.items()
            if entry.reads == "response" and not entry.judged_whole and entry.calibration.parts is not None and mean
        ]
        """Traits by which a long reply is judged by its worst part, too."""
        self.topics = [name for name in vectors.contexts if self.reads.get(name) == "response"]
        """Traits that say what a reply speaks of."""
        conditions = [when for entry in vectors.traits.values() for when in entry.applies_when]
        self.looks_back = max((when.last_turns for when in conditions if self.reads.get(when.trait) == "user"), default=0)
        """How many of the user's last turns the conditions of its traits look at."""

    def asked(self, places: Places) -> list[Place]:
        """The spans to read, in the order in which `reading` takes their raw scores."""
        return [*self._own(places.spans), *(place for turn in places.turns for place in turn if place[0] < place[1])]

    def _own(self, spans: Mapping[SpanOf, Place]) -> list[Place]:
        parts = part_spans(*spans["response"]) if self.by_parts and "response" in spans else []
        return [*spans.values(), *parts]

    def reading(self, raw: Array, places: Places, windows: int = 1) -> Reading:
        """A reading from the raw scores [spans, traits] of what `asked` gives for these places."""
        kinds = list(places.spans)
        own = len(self._own(places.spans))
        scores = {
            name: self.score(name, float(raw[kinds.index(self.reads[name]), column]))
            for column, name in enumerate(self.traits)
            if self.reads[name] in kinds
        }
        worst: dict[str, Score] = {}
        if own > len(kinds):
            start, end = places.spans["response"]
            worst = self.worst({name: raw[len(kinds) : own, self.traits.index(name)] for name in self.by_parts}, scores, end - start)
        layers = {name: self.vectors[name].reading.layers for name in scores}
        return Reading(scores, layers, self.vectors.model.name, windows, worst=worst, users=self._heard(raw[own:], places.turns))

    def _heard(self, raw: Array, turns: Sequence[Sequence[Place]]) -> tuple[tuple[Reading | NotScored, ...], ...]:
        """The readings of the user's messages, from their raw scores [messages with a token, traits]."""
        rows = iter(raw)
        nothing = NotScored("the tokenizer turns the user's message into no token at all")
        return tuple(
            tuple(self.reading(next(rows)[None], Places({"user": place})) if place[0] < place[1] else nothing for place in turn)
            for turn in turns
        )

    def worst(self, raw: Mapping[str, ArrayLike], scores: Mapping[str, Score], tokens: int) -> dict[str, Score]:
        """The worst part by each trait, on the scale of whole replies, where it lies farther on the unsafe side than the whole.

        Args:
            raw: Raw scores of the parts, by trait.
            scores: Of the reply as a whole.
            tokens: The reply's length.
        """
        found = {}
        for name, values in raw.items():
            calibration, side = self.calibrations[name], self.vectors[name].unsafe_side
            if calibration.parts is None:
                continue
            value = on_whole_scale(calibration.parts, values, tokens, side)
            milder = value <= scores[name].raw if side == "above" else value >= scores[name].raw
            if not milder:  # NaN is kept: it is not known to be better
                found[name] = self.score(name, value)
        return found

    def so_far(self, trait: str, raw: float) -> Score:
        """The score of a reply that is still being written, as one of several looks at it."""
        parts = self.calibrations[trait].parts
        return self.score(trait, raw if parts is None else so_far_on_whole_scale(parts, raw, self.vectors[trait].unsafe_side))

    def score(self, trait: str, raw: float) -> Score:
        """A raw score on every scale."""
        return self.calibrations[trait].score(raw)

    def token_z(self, raw: Array) -> dict[str, Array]:
        """Each token's z, from raw scores [tokens, traits], for the traits that are read on responses."""
        return {name: self.calibrations[name].z(raw[:, i]) for i, name in enumerate(self.traits) if self.reads[name] == "response"}


def _stack(vectors: VectorSet) -> Directions:
    """All reading directions over the union of their layers, zero where a trait reads nothing."""
    layers = vectors.layers
    stacked = torch.zeros(len(vectors.traits), len(layers), vectors.model.hidden_size)
    for i, entry in enumerate(vectors.traits.values()):
        for layer, row in zip(entry.reading.layers, entry.reading.rows, strict=True):
            stacked[i, layers.index(layer)] += row.float().cpu()
    return Directions(tuple(layers), stacked.flatten(1), vectors.pooling)
