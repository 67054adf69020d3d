"""A trait's examples with their activations: read once, then sliced by split, pole and layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.conversation import Conversation, SpanOf
from demeanor.extraction.activations import KeptActivations
from demeanor.extraction.directions import Everyday, Poles
from demeanor.model.pooling import Pooling
from demeanor.model.reader import ActivationReader
from demeanor.progress import Progress, Stage
from demeanor.traits.contexts import condition_traits, context_trait, up_to_user
from demeanor.traits.definition import SPLITS, Example, Split, TraitDefinition
from demeanor.traits.ordinary import Ordinary, hard_moments, ordinary_conversations

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
    ordinary: dict[Split, ReadExamples] = field(default_factory=dict)
    """Everyday talk as examples of the safe pole, for a trait that takes it so, or whose thresholds rest on it."""

    hard_moments: dict[Split, ReadExamples] = field(default_factory=dict)
    """Hard moments that are answered well, likewise."""
    sources: dict[str, ReadExamples] = field(default_factory=dict)
    """Public labelled sets that join the training, by name."""

    def everyday(self, layers: Sequence[int]) -> Everyday | None:
        """The training split's everyday talk and hard moments at these layers, for the methods that take them."""
        both = [(self.ordinary, self.trait.ordinary_weight), (self.hard_moments, self.trait.hard_moments_weight)]
        found = [(more["train"].at(layers), weight) for more, weight in both if more and weight]
        if not found:
            return None
        weights = np.concatenate([np.full(len(x), weight) for x, weight in found])
        return Everyday(np.concatenate([x for x, _ in found]), self.trait.safe_pole == "high", weights)

    def others(self, layers: Sequence[int]) -> list[Poles]:
        """The poles of the public sets that join the training, at these layers."""
        found = [(read.at(layers), read.high) for read in self.sources.values()]
        return [(x[high], x[~high]) for x, high in found]

    def __getitem__(self, split: Split) -> ReadExamples:
        return self.splits[split]


def read_trait(
    reader: ActivationReader,
    trait: TraitDefinition,
    layers: Sequence[int],
    pooling: Pooling = "mean",
    splits: Sequence[Split] = ("train", "calibration", "test"),
    progress: Progress | None = None,
    kept: KeptActivations | None = None,
) -> ReadTrait:
    """Read a trait's examples of these splits in one sweep; what is in `kept` is taken from there."""
    by_split = {split: trait.examples(split) for split in splits}
    everything = [example for examples in by_split.values() for example in examples]
    activations = read(reader, [e.conversation for e in everything], layers, trait.reads, pooling, progress, kept)
    found: dict[Split, ReadExamples] = {}
    at = 0
    for split, examples in by_split.items():
        found[split] = ReadExamples(examples, activations[at : at + len(examples)], tuple(layers))
        at += len(examples)
    return ReadTrait(trait, found)


def read(
    reader: ActivationReader,
    conversations: Sequence[Conversation],
    layers: Sequence[int],
    span: SpanOf,
    pooling: Pooling,
    progress: Progress | None = None,
    kept: KeptActivations | None = None,
) -> Array:
    """Pooled activations of a pack's texts [conversations, layers, hidden], through what is kept of earlier readings."""
    if kept is None:
        return reader.read(conversations, layers, span, pooling, progress).numpy()
    return kept.read(reader, conversations, layers, span, pooling, progress)


def read_traits(
    reader: ActivationReader,
    traits: Sequence[TraitDefinition],
    layers: Sequence[int],
    pooling: Pooling,
    stage: Stage,
    kept: KeptActivations | None = None,
) -> dict[str, ReadTrait]:
    """Several traits with their everyday talk, which is read once for all of them."""
    contexts = [trait for trait in traits if trait.unpaired and trait.reads == "user"]
    found = {}
    for trait in traits:
        if not trait.unpaired:
            told = stage(f"reading {trait.title.lower()}", len(trait.examples()))
            found[trait.name] = read_trait(reader, trait, layers, pooling, progress=told, kept=kept)
    found |= _read_contexts(reader, contexts, layers, pooling, stage, kept)
    everyday, hard = ordinary_conversations(), hard_moments()
    taking = [t for t in traits if t.ordinary_weight > 0 or t.hard_moments_weight > 0 or context_trait(t) is not None]
    wanting = sorted({t.reads for t in taking})
    replies = any(t.reads == "response" for t in taking)
    steps = stage("reading everyday talk", len(everyday) * len(wanting) + len(hard) * replies) if taking else None

    def whole(talk: Sequence[Ordinary], activations: Array, trait: TraitDefinition) -> dict[Split, ReadExamples]:
        examples = ReadExamples([o.example(trait, i) for i, o in enumerate(talk)], activations, tuple(layers))
        return {split: examples.where(np.array([o.split == split for o in talk])) for split in SPLITS}

    texts = {"response": [o.conversation for o in everyday], "user": [up_to_user(o.conversation) or o.conversation for o in everyday]}
    plain = {of: read(reader, texts[of], layers, of, pooling, steps, kept) for of in wanting}
    sound = read(reader, [o.conversation for o in hard], layers, "response", pooling, steps, kept) if replies else None
    for trait in taking:
        more = {} if trait.reads == "user" or sound is None else whole(hard, sound, trait)
        found[trait.name] = replace(found[trait.name], ordinary=whole(everyday, plain[trait.reads], trait), hard_moments=more)
    topics = {of.name: (of, found[trait.name]) for trait in taking for of in condition_traits(trait) if of.reads == "response"}
    # in the order of the traits given: a vector set keeps it
    return {t.name: _read_topic(*topics[t.name]) if t.name in topics else found[t.name] for t in traits}


def _read_topic(topic: TraitDefinition, about: ReadTrait) -> ReadTrait:
    """A trait of what replies speak of: the replies of the trait that it is about, and the everyday talk that was read with them."""
    splits: dict[Split, ReadExamples] = {}
    for split in SPLITS:
        parts = [about[split], about.ordinary[split]]
        splits[split] = ReadExamples(topic.examples(split), np.concatenate([part.activations for part in parts]), parts[0].layers)
    return ReadTrait(topic, splits)


def _read_contexts(
    reader: ActivationReader,
    traits: Sequence[TraitDefinition],
    layers: Sequence[int],
    pooling: Pooling,
    stage: Stage,
    kept: KeptActivations | None,
) -> dict[str, ReadTrait]:
    """Traits of the user's messages whose examples pair with nothing; what several of them share, as everyday talk, is read once."""
    texts = list(dict.fromkeys(example.conversation for trait in traits for example in trait.examples()))
    if not texts:
        return {}
    activations = read(reader, texts, layers, "user", pooling, stage("reading what users say", len(texts)), kept)
    place = {text: at for at, text in enumerate(texts)}
    found = {}
    for trait in traits:
        splits: dict[Split, ReadExamples] = {}
        for split in SPLITS:
            examples = trait.examples(split)
            chosen = activations[[place[example.conversation] for example in examples]]
            splits[split] = ReadExamples(examples, chosen, tuple(layers))
        found[trait.name] = ReadTrait(trait, splits)
    return found
