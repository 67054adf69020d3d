"""A trait's examples with their activations: read once, then sliced by split, pole and layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.model.pooling import Pooling
from demeanor.model.reader import ActivationReader, Progress
from demeanor.traits.definition import Example, Split, TraitDefinition

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReadExamples:
    """Examples and their activations [examples, layers, hidden], float32; `layers` names the columns."""

    examples: list[Example]
    activations: Array
    layers: tuple[int, ...]

    @cached_property
    def high(self) -> NDArray[np.bool_]:
        """Which examples are of the high pole [examples]."""
        return np.array([e.high for e in self.examples], bool)

    @cached_property
    def families(self) -> Array:
        """The family of each example [examples]."""
        return np.array([e.family for e in self.examples])

    @cached_property
    def pair_ids(self) -> Array:
        """The pair of each example [examples]."""
        return np.array([e.pair_id for e in self.examples])

    def at(self, layers: Sequence[int]) -> Array:
        """Activations at these layers [examples, k, hidden]."""
        return self.activations[:, [self.layers.index(layer) for layer in layers]]

    def where(self, keep: NDArray[np.bool_]) -> ReadExamples:
        """The examples that `keep` [examples] marks."""
        return ReadExamples([e for e, k in zip(self.examples, keep, strict=True) if k], self.activations[keep], self.layers)

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(frozen=True, eq=False)
class ReadTrait:
    """A trait with all its examples read, by split."""

    trait: TraitDefinition
    splits: dict[Split, ReadExamples]

    def __getitem__(self, split: Split) -> ReadExamples:
        return self.splits[split]


def read_trait(
    reader: ActivationReader,
    trait: TraitDefinition,
    layers: Sequence[int],
    pooling: Pooling = "mean",
    splits: Sequence[Split] = ("train", "calibration", "test"),
    progress: Progress | None = None,
) -> ReadTrait:
    """Read a trait's examples of these splits in one sweep."""
    by_split = {split: trait.examples(split) for split in splits}
    everything = [example for examples in by_split.values() for example in examples]
    activations = reader.read([e.conversation for e in everything], layers, trait.reads, pooling, progress).numpy()
    found: dict[Split, ReadExamples] = {}
    at = 0
    for split, examples in by_split.items():
        found[split] = ReadExamples(examples, activations[at : at + len(examples)], tuple(layers))
        at += len(examples)
    return ReadTrait(trait, found)
