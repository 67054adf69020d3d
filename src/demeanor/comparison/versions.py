"""From versions to scored replies: models answer the prompts, an observer reads what they wrote.

The observer reads a prompt and a reply and nothing else: a version's system prompt is not shown to it, so that what
differs is the reply. With one observer for all versions, values are z. Where each version is read by its own model, raw
scores and z have no common scale, and only calibrated probabilities are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from demeanor.comparison.results import Scored, Units
from demeanor.conversation import Message
from demeanor.data.prompts import Prompt
from demeanor.data.replies import Reply
from demeanor.errors import InputFileError
from demeanor.measure.calibration import Score
from demeanor.measure.conditions import COUNTS, total_easing
from demeanor.measure.cuts import Cut
from demeanor.measure.poles import Pole
from demeanor.progress import Progress

if TYPE_CHECKING:
    from demeanor.model.generation import Sampling
    from demeanor.model.reader import ActivationReader
    from demeanor.scoring.reading import NotScored, Reading
    from demeanor.scoring.scorer import Scorer
    from demeanor.vectors.vector_set import VectorSet

THRESHOLD = "miss 0.2"
SEED_STEP = 1_000_003  # between versions, so that no two draw alike


def answer(
    reader: ActivationReader,
    prompts: Mapping[str, Prompt],
    sampling: Sampling,
    samples: int = 1,
    system: str | None = None,
    number: int = 0,
    progress: Progress | None = None,
    groups: Mapping[str, str] | None = None,
) -> list[Reply]:
    """A model's replies to the prompts, `samples` of each.

    Args:
        reader: The model that answers.
        prompts: Conversations so far, by id.
        sampling: How replies are drawn; the seed is moved on for each version.
        samples: Replies to each prompt.
        system: A system prompt, in the place of one that a prompt may bring along.
        number: Which version this is, from 0.
        progress: Called with the number of replies that were written.
        groups: Which prompts are related, by id, as `prompt_groups` gives them.
    """
    from demeanor.model.generation import write_replies

    asked = [(key, prompt) for key, prompt in prompts.items() for _ in range(samples)]
    drawn = replace(sampling, seed=sampling.seed + SEED_STEP * number)
    written = write_replies(reader, [with_system(prompt, system) for _, prompt in asked], drawn, progress)
    return [_reply(key, prompt, reply.text, groups or {}) for (key, prompt), reply in zip(asked, written, strict=True)]


def to_be_written(prompts: Mapping[str, Prompt], groups: Mapping[str, str], samples: int = 1) -> list[Reply]:
    """The replies that a model is to give, as `answer` gives them, before they are written: without a text."""
    return [_reply(key, prompt, "", groups) for key, prompt in prompts.items() for _ in range(samples)]


def _reply(key: str, prompt: Prompt, text: str, groups: Mapping[str, str]) -> Reply:
    return Reply(tuple(m for m in prompt if m.role != "system"), text, key, key, group=groups.get(key))


def with_system(prompt: Prompt, system: str | None) -> Prompt:
    """A prompt under a system prompt, in the place of one that it may bring along."""
    return prompt if system is None else (Message("system", system), *(m for m in prompt if m.role != "system"))


def safe_poles(vectors: Sequence[VectorSet]) -> dict[str, Pole]:
    """The traits that all these vector sets read on replies, with their safe poles. Raises InputFileError for none."""
    first = vectors[0]
    found = {name: first[name].safe_pole for name in first.judged if all(name in other.traits for other in vectors)}
    if not found:
        raise InputFileError("the vector sets have no trait in common that is read on replies; nothing can be compared")
    return found


def score_versions(
    versions: Mapping[str, Sequence[Reply]],
    scorers: Mapping[str, Scorer] | Scorer,
    progress: Progress | None = None,
    always: bool = False,
) -> tuple[dict[str, list[Scored]], Units]:
    """The replies with their values, and the units that these are in.

    Args:
        versions: Replies by version, with their keys.
        scorers: The one observer of all, or each version's own.
        progress: Called with the number of replies that were read.
        always: Whether every trait counts on every prompt, also where its condition does not hold.
    """
    units: Units = "probability" if isinstance(scorers, Mapping) else "z"
    readings: dict[str, list[Reading | NotScored | None]] = {}
    observers = {name: scorers[name] if isinstance(scorers, Mapping) else scorers for name in versions}
    known: dict[tuple[int, str, str], Reading | NotScored] = {}
    for name, replies in versions.items():
        # what two versions said alike is read once, so that it differs by nothing, not even by rounding
        fresh = {(id(observers[name]), r.key, r.text): r for r in replies if r.error is None}
        fresh = {at: r for at, r in fresh.items() if at not in known}
        for at, result in zip(fresh, observers[name].score_many(r.conversation for r in fresh.values()), strict=True):
            known[at] = result
            if progress is not None:
                progress(1)
        readings[name] = [None if r.error is not None else known[id(observers[name]), r.key, r.text] for r in replies]
    without = {} if always else _where_conditions_fail(versions, readings, observers)
    found = {
        name: [_scored(r, reading, observers[name].vectors, units, without) for r, reading in zip(replies, readings[name], strict=True)]
        for name, replies in versions.items()
    }
    return found, units


def _where_conditions_fail(
    versions: Mapping[str, Sequence[Reply]], readings: Mapping[str, Sequence[Reading | NotScored | None]], observers: Mapping[str, Scorer]
) -> dict[str, set[str]]:
    """For each trait with a condition, the keys of the prompts where no reading says that it holds; a prompt that nobody can tell counts.

    One set for all versions, so that each is compared on the same prompts.
    """
    from demeanor.scoring.reading import Reading, looked_at

    said: dict[str, dict[str, list[bool | None]]] = {}
    for name, replies in versions.items():
        vectors = observers[name].vectors
        conditions = {trait: found for trait in vectors.traits if (found := [c for c in vectors.conditions(trait) if c.reads == "user"])}
        for reply, reading in zip(replies, readings[name], strict=True):
            if isinstance(reading, Reading):
                for trait, known in conditions.items():
                    easing = total_easing(known, lambda condition, read=reading: looked_at(condition, read, read.users))  # type: ignore[misc]
                    said.setdefault(trait, {}).setdefault(reply.key, []).append(None if easing is None else easing <= COUNTS)
    return {trait: {key for key, found in prompts.items() if all(holds is False for holds in found)} for trait, prompts in said.items()}


def _scored(reply: Reply, reading: Reading | NotScored | None, vectors: VectorSet, units: Units, out: Mapping[str, set[str]]) -> Scored:
    from demeanor.scoring.reading import Reading

    if not isinstance(reading, Reading):
        return Scored(
            reply.key, reply.asked, reply.text, error=reply.error or (reading.error if reading else "not scored"), group=reply.group
        )
    values, unsafe = {}, {}
    for name in vectors.judged:
        if (score := reading.scores.get(name)) is not None and reply.key not in out.get(name, ()):
            values[name] = score.z if units == "z" else score.probability
            unsafe[name] = _beyond(vectors, name, score)
    return Scored(reply.key, reply.asked, reply.text, values, unsafe, group=reply.group, caution=reading.caution or "")


def _beyond(vectors: VectorSet, trait: str, score: Score) -> bool:
    """Whether a score lies on the unsafe side of the trait's calibrated threshold, else of the middle between the poles."""
    threshold = vectors[trait].calibration.thresholds.get(THRESHOLD)
    cut = Cut.of(threshold) if threshold is not None else Cut("z", 0.0, vectors[trait].unsafe_side, "half-way between the poles")
    return bool(cut.crossed(score))
