"""By how much held-out scores are eased before a threshold is set on them or tried, as the user's messages do not call for the trait.

A rule's threshold and its trait's condition are set together: what is missed, and what alarms falsely, is what the rule as a whole does.
The user's turns are read as the monitor reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from demeanor.conversation import Conversation, user_turns
from demeanor.errors import sound
from demeanor.extraction.activations import KeptActivations
from demeanor.extraction.examples import ReadExamples, ReadTrait, read
from demeanor.extraction.validation import score_examples
from demeanor.measure.calibration import Score
from demeanor.measure.conditions import Condition, total_easing
from demeanor.measure.metrics import Array
from demeanor.model.packing import Job
from demeanor.model.reader import ActivationReader
from demeanor.progress import Stage, unseen
from demeanor.scoring.gauge import Gauge
from demeanor.traits.definition import Split
from demeanor.vectors.vector_set import VectorSet

HELD: tuple[Split, ...] = ("calibration", "test")


Scores = dict[str, Score]


def easings(
    reader: ActivationReader, vectors: VectorSet, reads: dict[str, ReadTrait], stage: Stage, kept: KeptActivations | None
) -> dict[str, dict[Split, Array]]:
    """For each trait with a condition, by split, how many z each of its examples is eased by, after them hard moments and everyday talk."""
    conditions = {name: found for name in reads if (found := vectors.conditions(name))}
    if not conditions:
        return {}
    wanted = {(name, split): _parts(reads[name], split) for name in conditions for split in HELD}
    conversations = {key: [e.conversation for part in parts for e in part.examples] for key, parts in wanted.items()}
    heard = _heard(reader, vectors, [c for several in conversations.values() for c in several], stage, kept)
    eased: dict[str, dict[Split, Array]] = {name: {} for name in conditions}
    for (name, split), parts in wanted.items():
        topics = {c.trait: vectors[c.trait] for c in conditions[name] if c.reads == "response"}
        raw = {topic: np.concatenate([score_examples(entry.reading, part) for part in parts]) for topic, entry in topics.items()}
        eased[name][split] = np.array(
            [
                easing(conditions[name], heard[_asked(c)], {t: topics[t].calibration.score(float(raw[t][i])) for t in topics})
                for i, c in enumerate(conversations[name, split])
            ]
        )
    return eased


def eased_by(
    reader: ActivationReader,
    vectors: VectorSet,
    trait: str,
    conversations: Sequence[Conversation],
    kept: KeptActivations | None = None,
    stage: Stage = unseen,
) -> Array | None:
    """How many z each of these conversations' replies is eased by [conversations]; None for a trait that always counts.

    `kept` is for texts of packs and everyday talk alone, never for what users wrote.
    """
    conditions = vectors.conditions(trait)
    if not conditions:
        return None
    heard = _heard(reader, vectors, conversations, stage, kept)
    replies = _replies(reader, vectors.only([c.trait for c in conditions if c.reads == "response"]), conversations, stage, kept)
    return np.array([easing(conditions, heard[_asked(c)], reply) for c, reply in zip(conversations, replies, strict=True)])


def easing(conditions: Sequence[Condition], turns: Sequence[Sequence[Scores]], reply: Scores) -> float:
    """By how much a reply to these turns of the user is eased; not at all where nobody can tell."""

    def looked_at(condition: Condition) -> list[list[Score | None]]:
        said = turns if condition.reads == "user" else [[reply]]
        return [[scores.get(condition.trait) for scores in turn] for turn in said]

    found = total_easing(conditions, looked_at)
    return 0.0 if found is None else found


def _parts(read: ReadTrait, split: Split) -> list[ReadExamples]:
    """A split's examples, then the hard moments and the everyday talk that it was read with."""
    found = [read[split], read.hard_moments.get(split), read.ordinary.get(split)]
    return [part for part in found if part is not None]


def _replies(
    reader: ActivationReader, topics: VectorSet, conversations: Sequence[Conversation], stage: Stage, kept: KeptActivations | None
) -> list[Scores]:
    """The scores of each conversation's reply by these traits."""
    if not topics.traits:
        return [{} for _ in conversations]
    gauge = Gauge(topics)
    told = stage("reading replies", len(conversations))
    found = read(reader, conversations, gauge.directions.layers, "response", topics.pooling, told, kept)

    return [_scores(gauge, raw) for raw in gauge.directions.project(torch.from_numpy(found)).double().numpy()]


def _asked(conversation: Conversation) -> Conversation:
    """All that comes before the reply: two replies to one prompt have the same."""
    last = max((i for i, m in enumerate(conversation.messages) if m.role == "assistant"), default=len(conversation.messages))
    return Conversation(conversation.messages[:last])


def _heard(
    reader: ActivationReader, vectors: VectorSet, conversations: Sequence[Conversation], stage: Stage, kept: KeptActivations | None
) -> dict[Conversation, list[list[Scores]]]:
    """The scores of the user's last turns in each conversation, message by message, by the traits that are read there."""
    users = Gauge(vectors.only([name for name, entry in vectors.traits.items() if entry.reads == "user"]))
    back = max(when.last_turns for entry in vectors.traits.values() for when in entry.applies_when)
    whole = {_asked(c): c for c in conversations}
    asked, turns = list(whole), [user_turns(c)[-back:] for c in whole.values()]
    encoded = [sound(e) for e in reader.encode([c for c, said in zip(asked, turns, strict=True) if said])]
    some = [i for i, said in enumerate(turns) if said]
    by_place = dict(zip(some, encoded, strict=True))
    places = [[[by_place[i].spans[m] for m in turn] for turn in said] for i, said in enumerate(turns)]
    jobs = [Job(by_place[i].ids, [place for turn in places[i] for place in turn]) for i in some]
    step = stage("reading the user's turns", len(some))
    layers = users.directions.layers
    if kept is not None:
        activations = [torch.from_numpy(a) for a in kept.spans(reader, jobs, layers, step)]
    else:
        activations = [sound(a) for a in reader.run(jobs, layers, progress=step)]
    raw = dict(zip(some, (users.directions.project(a).double().numpy() for a in activations), strict=True))
    heard: dict[Conversation, list[list[Scores]]] = {}
    for i, (conversation, said) in enumerate(zip(asked, places, strict=True)):
        rows = iter(raw.get(i, ()))
        heard[conversation] = [[_scores(users, next(rows)) for _ in turn] for turn in said]
    return heard


def _scores(gauge: Gauge, raw: Array) -> Scores:
    return {name: gauge.score(name, float(value)) for name, value in zip(gauge.traits, raw, strict=True)}
