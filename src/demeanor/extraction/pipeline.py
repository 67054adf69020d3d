"""Traits and a model to a validated vector set: read, choose the layer, fit, calibrate, prove.

The training pairs choose the layer and make the direction. The calibration pairs, with the training pairs' cross-validated
scores, make scores into probabilities. The test pairs are used once, for the report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from demeanor.errors import ExtractionError, sound
from demeanor.extraction.activations import KeptActivations
from demeanor.extraction.assembly import assembled
from demeanor.extraction.calibrating import CALIBRATION_PAIRS, calibrate, enough, fit_thresholds
from demeanor.extraction.easing import easings
from demeanor.extraction.examples import ReadExamples, ReadTrait, read_traits
from demeanor.extraction.extractor import fit_vector
from demeanor.extraction.joined import Joining, Sources, check_joinable, from_sources, join, read_source
from demeanor.extraction.layers import AS_GOOD, FOLDS, default_candidates
from demeanor.extraction.validation import cosines, on_other_traits, score_examples, validate_vector
from demeanor.measure.metrics import Array
from demeanor.measure.parts import PART, measure_parts, part_spans
from demeanor.measure.thresholds import STANDARD
from demeanor.model.pooling import Pooling
from demeanor.model.reader import ActivationReader
from demeanor.model.residual import residual_norms
from demeanor.progress import Stage, unseen
from demeanor.scoring.gauge import Gauge
from demeanor.traits.contexts import condition_traits, own_conditions
from demeanor.traits.definition import Split, TraitDefinition
from demeanor.traits.ordinary import FILE, HARD_MOMENTS, hard_moments, ordinary_conversations
from demeanor.traits.packs import fingerprint
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import VectorSet

READING_METHOD = "logistic"
READING_WIDTH = 5  # adjacent layers; see docs/directions.md for the comparison that these defaults rest on
STEERING_METHOD = "mean_difference"
CAP = 0.25  # quantile of a pole's own replies at which a steering cap holds


def made_from(method: str = READING_METHOD, width: int = READING_WIDTH) -> dict[str, str]:
    """What a vector set hangs on beside its packs and its model, as its manifest keeps it."""
    thresholds = ", ".join(f"{kind} {rate}" for kind, rate in STANDARD)
    recipe = (
        f"{method} over {width} of the middle half of the layers, {FOLDS} folds, layers within {AS_GOOD} count as equal; "
        f"steering {STEERING_METHOD}, caps at {CAP}; calibration from {CALIBRATION_PAIRS} pairs, thresholds {thresholds}; "
        f"parts of {PART} tokens"
    )
    talk = {"ordinary": FILE, "hard_moments": HARD_MOMENTS}
    return {"recipe": recipe, **{name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in talk.items()}}


@dataclass(frozen=True)
class Extraction:
    """What an extraction made: the vector set, and how its vectors do on each other's traits."""

    vectors: VectorSet
    on_traits: dict[str, dict[str, float]]
    cosines: dict[str, dict[str, float]]
    joinings: dict[str, Joining] = field(default_factory=dict)
    """Of each trait that public sources were given for, whether they joined its training."""

    def __repr__(self) -> str:
        return f"Extraction of {self.vectors!r}"


def extract_vectors(
    reader: ActivationReader,
    traits: Sequence[TraitDefinition],
    method: str = READING_METHOD,
    layers: Sequence[int] | None = None,
    width: int = READING_WIDTH,
    pooling: Pooling = "mean",
    stage: Stage = unseen,
    kept: KeptActivations | None = None,
    like: VectorSet | None = None,
    sources: Sources = (),
) -> Extraction:
    """Extract, calibrate and validate the vectors of some traits.

    Args:
        reader: Of the model to extract from.
        traits: What to extract; each name once.
        method: How the reading vectors are made; one of extraction.directions.METHODS. Steering vectors are always
            mean differences.
        layers: 0-based candidates; by default the middle half.
        width: How many adjacent layers a reading vector is read over.
        pooling: How a span's tokens become one activation.
        stage: Progress, if it is to be shown.
        kept: Activations of packs that were read before; what is read now is added to them.
        like: A set of this very model, whose norms of everyday activations are taken over instead of being read anew.
        sources: Public labelled sets with their rows; they join the training of the trait that they are about if that helps on
            sets that are left out (see joined).

    Raises:
        ExtractionError: no trait, a layer or a method that there is not, examples that do not support a direction, or sources that
            cannot join.
        ConversationError, ModelError: an example cannot be read.
    """
    if not traits:
        raise ExtractionError("no trait given; name at least one, or 'all'")
    if sources:
        check_joinable(method, [trait.name for trait in traits], [source for source, _ in sources])
    candidates = list(layers) if layers is not None else default_candidates(reader.n_layers)
    if not candidates or min(candidates) < 0 or max(candidates) >= reader.n_layers:
        raise ExtractionError(f"layers {candidates} are not within 0 to {reader.n_layers - 1}, the layers of this model")
    reads = read_traits(reader, _with_contexts(traits), candidates, pooling, stage, kept)
    sets = {source.name: (source, read_source(reader, source, rows, candidates, pooling, stage)) for source, rows in sources}
    entries, joinings = {}, {}
    steps = stage("choosing layers, calibrating", len(reads))
    with threadpool_limits(1, user_api="blas"):  # many small products: threads only stand in each other's way
        for name, read in reads.items():
            about = {each: found for each, (source, found) in sets.items() if source.trait == name}
            if about:
                joinings[name] = join(read, about, {each: sets[each][0] for each in about}, candidates, width)
                reads[name] = joinings[name].read
            entry = _entry(reads[name], method, candidates, width, pooling)
            if about:
                joinings[name].note_in(entry.reading)
            entries[name] = entry if entry.reads == "response" else _with_proof(entry, reads[name])
            steps(1)
    scale = _neutral_scale(reads, reader.n_layers, reader.hidden_size)
    vectors = assembled(reader, entries, torch.zeros(0), scale, pooling, made_from(method, width) | from_sources(joinings))
    easing = easings(reader, vectors, reads, stage, kept)
    replies = [name for name, entry in entries.items() if entry.reads == "response"]
    steps = stage("validating", len(replies))
    with threadpool_limits(1, user_api="blas"):
        for name in replies:
            entries[name] = _with_proof(entries[name], reads[name], easing.get(name))
            steps(1)
    vectors = replace(vectors, traits=entries)
    if pooling == "mean":
        vectors = replace(vectors, traits=_with_parts(reader, vectors, reads, stage, kept))
    same = like is not None and like.model.fingerprint == vectors.model.fingerprint
    vectors = replace(vectors, neutral_norm=_everyday_norms(reader, kept, like if same else None))
    middle = sorted(entry.steering.layer_idx for entry in entries.values())[len(entries) // 2]
    return Extraction(
        vectors,
        on_other_traits({name: entry.reading for name, entry in entries.items()}, reads),
        cosines(reads, middle),
        joinings,
    )


def _with_contexts(traits: Sequence[TraitDefinition]) -> list[TraitDefinition]:
    """The traits, and after them those that say when traits of replies are called for, learnt from their own contexts."""
    return [*traits, *(of for trait in traits for of in condition_traits(trait))]


def _entry(read: ReadTrait, method: str, candidates: list[int], width: int, pooling: Pooling) -> TraitEntry:
    trait = read.trait
    reading = fit_vector(read, method, candidates, width, pooling)
    steering = fit_vector(read, STEERING_METHOD, candidates, 1, pooling)
    steering.metadata |= caps(steering, read["train"])
    entry = TraitEntry.of(trait, fingerprint(trait), reading, steering, calibrate(reading, read))
    return replace(entry, applies_when=(*own_conditions(trait), *entry.applies_when))


def _with_proof(entry: TraitEntry, read: ReadTrait, easing: Mapping[Split, Array] | None = None) -> TraitEntry:
    """With the thresholds that the calibration split supports, and what the test split shows of all of it."""
    calibration = entry.calibration
    if enough(read["calibration"]):
        calibration = replace(calibration, thresholds=fit_thresholds(entry, read, None if easing is None else easing["calibration"]))
    return replace(entry, calibration=calibration, proof=validate_vector(entry.reading, calibration, read, easing))


def caps(steering: PersonaVector, train: ReadExamples) -> dict[str, float]:
    """Where capping holds a reply by default, in activation units, "floor" and "ceiling".

    The floor is a quarter up the high pole's own replies, the ceiling a quarter down the low pole's (Lu et al. 2026 hold
    the assistant axis at that quantile).
    """
    projected = score_examples(steering, train)
    return {
        "floor": float(np.quantile(projected[train.high], CAP)),
        "ceiling": float(np.quantile(projected[~train.high], 1 - CAP)),
    }


def _with_parts(
    reader: ActivationReader,
    vectors: VectorSet,
    reads: dict[str, ReadTrait],
    stage: Stage,
    kept: KeptActivations | None,
) -> dict[str, TraitEntry]:
    """The traits with how parts of safe replies score, measured on the calibration split and everyday talk; see measure/parts.py."""
    entries = vectors.traits
    gauge = Gauge(vectors)
    directions = gauge.directions.to(reader.device)
    everyday = [o.conversation for o in ordinary_conversations() if o.split == "calibration"]
    hard = [o.conversation for o in hard_moments() if o.split == "calibration"]
    safe = {
        name: [e.conversation for e in reads[name]["calibration"].examples if e.high == (reads[name].trait.safe_pole == "high")]
        for name, entry in entries.items()
        if entry.reads == "response" and not entry.judged_whole
    }
    # where the user's side eases everyday talk, it is no measure of what is said in the moments that count
    safe = {name: [*found, *hard, *([] if entries[name].applies_when else everyday)] for name, found in safe.items() if found}
    texts = list(dict.fromkeys(conversation for found in safe.values() for conversation in found))  # everyday talk once for all traits
    if not texts:
        return entries
    jobs = [replace(job, spans=[*job.spans, *part_spans(*job.spans[0])]) for job in reader.jobs(texts)]
    step = stage("reading parts of safe replies", len(jobs))
    if kept is not None:
        activations = [torch.from_numpy(found) for found in kept.spans(reader, jobs, directions.layers, step)]
    else:
        activations = [sound(found) for found in reader.run(jobs, directions.layers, progress=step)]
    raw = {text: directions.project(found.to(reader.device)).cpu().double().numpy() for text, found in zip(texts, activations, strict=True)}
    measured = dict(entries)
    for name, found in safe.items():
        values = [raw[text][:, gauge.traits.index(name)] for text in found]
        parts = measure_parts([v[1:] if len(v) > 1 else v for v in values], [v[0] for v in values])
        measured[name] = replace(entries[name], calibration=replace(entries[name].calibration, parts=parts))
    return measured


def _everyday_norms(reader: ActivationReader, kept: KeptActivations | None, like: VectorSet | None) -> torch.Tensor:
    """Median norm of the activations of everyday replies' tokens [layers], read unless a set of the same model has it."""
    if like is not None and len(like.neutral_norm) == reader.n_layers:
        return like.neutral_norm
    everyday = [o.conversation for o in ordinary_conversations() if o.split == "train"]
    return (kept.residual_norms if kept else residual_norms)(reader, everyday)


def _neutral_scale(reads: dict[str, ReadTrait], n_layers: int, width: int) -> torch.Tensor:
    """Spread of each dimension around its trait's and pole's mean [layers, hidden]; 1 where a layer was not read."""
    found = torch.ones(n_layers, width)
    for i, layer in enumerate(next(iter(reads.values()))["train"].layers):
        residuals = []
        for read in reads.values():
            x, high = read["train"].activations[:, i], read["train"].high
            residuals += [x[pole] - x[pole].mean(0) for pole in (high, ~high)]
        found[layer] = torch.from_numpy(np.concatenate(residuals).std(0))
    return found
