"""Adapting a vector to labelled replies from the place where it will be used.

The pack's direction is the prior, the labels are the evidence. With z a reply's activations at the vector's layers,
each dimension in units of its neutral spread and divided by the root of their number, and s the reply's z-score by the pack's vector,

    logit P(high) = alpha s + u.z + b,     penalty  lambda/2 |u|^2 + (alpha - 1)^2 / 2,     alpha > 0

lambda is chosen by cross-validated log loss over prompts, the stronger prior in a tie; at lambda = infinity the
direction is the pack's, at small lambda it is a supervised probe. Graded labels are soft targets between 0 and 1.

Folds are compared on logits less their own midpoint between the poles: b follows how many of a fold's own rows are high, so
that logits with b would rank rows by the fold that they fell in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.model_selection import GroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from demeanor.data.labelled import FEWEST_GROUPS, Labelled
from demeanor.errors import ExtractionError
from demeanor.keys import row_hash
from demeanor.measure.calibration import Calibration, fit_calibration
from demeanor.measure.metrics import Array, Interval, auroc, brier, clustered_auroc_interval, expected_calibration_error
from demeanor.measure.poles import Pole
from demeanor.measure.thresholds import ErrorKind, Threshold, fit_threshold, standard_thresholds
from demeanor.model.reader import ActivationReader, Progress
from demeanor.traits.definition import NAME
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import TraitEntry, VectorSet

PENALTIES = (np.inf, 3.0, 1.0, 0.3, 0.1)
FOLDS = 5
CURVE = (10, 20, 40, 80, 160, 320)
ALONE = "labels alone"  # where a trait comes from that no pack defines
FEWEST = 6  # labelled rows under which nothing is fitted
LEARNT_FROM = "learnt_from"
"""In a reading vector's metadata: hashes of the labelled rows that it has learnt from (keys.row_hash), without their text."""
"""The parts of a validation that rest on the calibration, not on the direction alone."""


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation made and how well it does, cross-validated over prompts at the size given."""

    vectors: VectorSet
    rows: int
    """Labelled replies that it was fitted to."""
    prompts: int
    """Groups that these belong to."""
    auroc: float
    """Chance that a reply of the high pole scores above one of the low pole: 0.5 is a coin, 1 is perfect."""
    interval: Interval
    """95 %, whole prompts drawn with replacement."""
    pack_auroc: float
    """The pack's own vector on the same rows, for comparison."""
    penalty: float
    """The strength of the prior that was chosen; infinity keeps the pack's direction."""
    ece: float
    """Of probabilities fitted without a reply's own prompt; NaN where a fold leaves too little of a pole to fit any."""
    brier: float
    curve: dict[int, float]
    """Cross-validated AUROC by number of labelled rows."""

    @property
    def caution(self) -> str | None:
        """What keeps these numbers from being taken at their word, if anything does."""
        if self.prompts < FEWEST_GROUPS:
            return f"all replies answer {self.prompts} prompt(s), so this says nothing of other prompts: label replies to several"
        return None

    @property
    def outlook(self) -> str:
        """What more labels would bring, from the end of the learning curve, in words."""
        sizes = sorted(self.curve)
        if len(sizes) < 2:
            return "too few labels for a learning curve; label at least 20"
        gain = self.curve[sizes[-1]] - self.curve[sizes[-2]]
        per_doubling = gain / max(np.log2(sizes[-1] / sizes[-2]), 0.25)
        more = 2 * self.rows
        likely = min(per_doubling / 2, (1 - self.curve[sizes[-1]]) / 2)  # gains shrink, and end at 1
        if likely > 0.005:
            return f"the curve still rises: {more} labels may bring about {likely:+.2f} AUROC"
        return f"the curve is flat: going to {more} labels would bring little (last doubling {per_doubling:+.2f})"


def adapt(reader: ActivationReader, vectors: VectorSet, trait: str, labelled: Labelled, progress: Progress | None = None) -> Adaptation:
    """A vector set whose `trait` is fitted to its pack and to labelled replies, by a logistic regression with the pack as its prior.

    Args:
        reader: Of the model that the vectors were made with.
        vectors: The vector set; it stays as it is.
        trait: Which of its traits to fit.
        labelled: Replies with targets between 0 and 1; 1 is the high pole, more of the trait.
        progress: Told how many replies have just been read.

    Raises:
        ExtractionError: the labels cannot be used (one kind only, too few rows), or the trait was adapted already: a prior that
            has learnt from some of these rows would make their cross-validated figures too good.
        VectorSetError: the set holds no such trait.
        ConversationError, ModelError: a reply cannot be read.
    """
    entry = vectors[trait]
    _refuse_adapted(entry)
    activations = reader.read(labelled.conversations, entry.reading.layers, entry.reads, vectors.pooling, progress).numpy()
    return adapt_activations(vectors, trait, activations, labelled)


def adapt_activations(vectors: VectorSet, trait: str, activations: Array, labelled: Labelled) -> Adaptation:
    """`adapt` for activations [rows, k, hidden] that are read already."""
    with threadpool_limits(1, user_api="blas"):  # many small fits: threads only stand in each other's way
        return _adapt(vectors, trait, activations, labelled)


def _adapt(vectors: VectorSet, trait: str, activations: Array, labelled: Labelled) -> Adaptation:
    entry = vectors[trait]
    _refuse_adapted(entry)
    problem = _Problem.of(vectors, entry, activations, labelled)
    choice, folded = _choose_penalty(problem)
    alpha, u, _ = _fit(problem, choice)
    weights = alpha * problem.prior + u / problem.scale
    norm = float(np.linalg.norm(weights))
    direction = (weights / norm).reshape(activations.shape[1:])
    # the out-of-fold scores, in this direction's raw score: logit without b = norm * raw - offset
    offset = alpha * problem.prior_offset + float(u @ problem.shift)
    raw = (folded + _midpoint(problem, alpha, u) + offset) / norm
    high = labelled.high
    prompts = labelled.prompts
    over = "over prompts" if prompts >= FEWEST_GROUPS else "over replies, for want of prompts: optimistic"
    source = f"{len(high)} labelled replies to {prompts} prompt(s), cross-validated {over}"
    calibration = fit_calibration(raw, high, labelled.group, source)
    probability = _out_of_fold_probability(raw, high, labelled.group)
    measured = Adaptation(
        vectors=vectors,
        rows=len(high),
        prompts=prompts,
        auroc=auroc(folded[high], folded[~high]),
        interval=clustered_auroc_interval(folded, high, labelled.clusters),
        pack_auroc=auroc(problem.s[high], problem.s[~high]) if problem.has_prior else float("nan"),
        penalty=choice,
        ece=expected_calibration_error(probability, high),
        brier=brier(probability, high),
        curve=_learning_curve(problem, choice, folded),
    )
    tensor = torch.from_numpy(np.ascontiguousarray(direction, dtype=np.float32))
    metadata = {
        **entry.reading.metadata,
        "layers": list(entry.reading.layers),
        LEARNT_FROM: sorted({row_hash(c, entry.reads) for c in labelled.conversations}),
        "adapted": {
            "rows": measured.rows,
            "prompts": measured.prompts,
            "auroc": {"value": round(measured.auroc, 4), "low": round(measured.interval.low, 4), "high": round(measured.interval.high, 4)},
            "pack_auroc": None if np.isnan(measured.pack_auroc) else round(measured.pack_auroc, 4),
            "penalty": "infinity" if np.isinf(choice) else choice,
            "learning_curve": {str(n): round(v, 4) for n, v in measured.curve.items()},
        },
    }
    reading = PersonaVector(trait, tensor[0] if len(tensor) == 1 else tensor, entry.reading.layer_idx, entry.reading.strength, metadata)
    adapted = replace(entry, reading=reading, calibration=calibration, proof=None)
    return replace(measured, vectors=replace(vectors, traits={**vectors.traits, trait: adapted}))


def _refuse_adapted(entry: TraitEntry) -> None:
    about = entry.reading.metadata
    if "adapted" in about:
        way = (
            "begin with the set before it held this trait (--new)"
            if about.get("from") == ALONE
            else "begin with the set that was extracted"
        )
        raise ExtractionError(
            f"{entry.reading.trait_name} was fitted to labelled replies already, so figures on such replies would be too good; "
            f"{way}, and give all labelled rows together"
        )


@dataclass(frozen=True)
class _Problem:
    """The regression in numbers: z [rows, f], the prior's score s [rows], soft targets y [rows], groups."""

    z: Array
    s: Array
    y: Array
    high: NDArray[np.bool_]
    group: NDArray[Any]
    prior: Array
    """The prior's weights on raw activations [f], scaled so that s = prior.x - prior_offset."""
    prior_offset: float
    scale: Array
    shift: Array
    """What was taken from each scaled dimension to centre it [f]."""
    has_prior: bool

    @classmethod
    def of(cls, vectors: VectorSet, entry: TraitEntry, activations: Array, labelled: Labelled) -> _Problem:
        high = labelled.high
        if len(high) < FEWEST or high.all() or not high.any():
            raise ExtractionError(
                f"{len(high)} labelled rows, {int(high.sum())} high and {int((~high).sum())} low, cannot be learnt from; "
                f"give at least {FEWEST} with both kinds"
            )
        x = activations.reshape(len(activations), -1).astype(float)
        layers = list(entry.reading.layers)
        known = vectors.neutral_scale.shape[0] > max(layers)
        scale = vectors.neutral_scale[layers].numpy().reshape(-1).astype(float) if known else x.std(0)
        scale = np.maximum(scale, max(float(np.median(scale)) * 1e-3, 1e-9)) * np.sqrt(x.shape[1])
        spread, centre = entry.calibration.spread, entry.calibration.centre
        has_prior = bool(entry.reading.direction.norm() > 0)
        prior = entry.reading.rows.double().numpy().reshape(-1) / spread
        shift = (x / scale).mean(0)
        return cls(
            x / scale - shift,
            x @ prior - centre / spread,
            labelled.target,
            high,
            labelled.group,
            prior,
            centre / spread,
            scale,
            shift,
            has_prior,
        )

    def rows(self, keep: NDArray[Any]) -> _Problem:
        """The same problem on some rows."""
        return replace(self, z=self.z[keep], s=self.s[keep], y=self.y[keep], high=self.high[keep], group=self.group[keep])


def _fit(problem: _Problem, penalty: float) -> tuple[float, Array, float]:
    """alpha, u [f] and b of the penalised logistic regression, fitted where the rows lie (in n dimensions, not f)."""
    s, y = problem.s, problem.y
    if np.isinf(penalty):
        coordinates, basis = np.zeros((len(y), 0)), np.zeros((0, problem.z.shape[1]))
    else:
        left, values, basis = np.linalg.svd(problem.z, full_matrices=False)
        coordinates = left * values

    def loss(theta: Array) -> tuple[float, Array]:
        alpha, bias, v = theta[0], theta[1], theta[2:]
        logit = alpha * s + bias + coordinates @ v
        value = np.logaddexp(0, logit).sum() - y @ logit + (alpha - 1) ** 2 / 2
        gap = 1 / (1 + np.exp(-np.clip(logit, -30, 30))) - y
        gradient = np.concatenate([[gap @ s + alpha - 1, gap.sum()], coordinates.T @ gap])
        if len(v):
            value += penalty / 2 * (v @ v)
            gradient[2:] += penalty * v
        return value, gradient

    start = np.zeros(2 + coordinates.shape[1])
    start[0] = 1.0
    lowest = 0.05 if problem.has_prior else 0.0
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(lowest, None)] + [(None, None)] * (len(start) - 1)).x
    return float(found[0]), found[2:] @ basis, float(found[1])


def folds(high: NDArray[np.bool_], group: NDArray[Any], seed: int = 0) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Inside and outside rows of each fold: whole groups together, or single rows where there are fewer than three groups."""
    groups = len(set(group.tolist()))
    if groups < FEWEST_GROUPS:
        count = max(2, min(FOLDS, int(min(high.sum(), (~high).sum()))))
        return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(high, high))
    return list(GroupKFold(min(FOLDS, groups), shuffle=True, random_state=seed).split(high, groups=group))


def _midpoint(problem: _Problem, alpha: float, u: Array) -> float:
    """Half-way between the poles' mean logits without b; the mean of all where one pole is missing."""
    logits = alpha * problem.s + problem.z @ u
    high = problem.high
    return float(logits.mean() if high.all() or not high.any() else (logits[high].mean() + logits[~high].mean()) / 2)


def _out_of_fold(problem: _Problem, penalty: float) -> tuple[Array, Array]:
    """Of each row by a fit without its group: its logit, and its logit less b and the fold's midpoint [rows]."""
    logits, scores = np.zeros(len(problem.y)), np.zeros(len(problem.y))
    for inside, outside in folds(problem.high, problem.group):
        part = problem.rows(inside)
        alpha, u, bias = _fit(part, penalty)
        plain = alpha * problem.s[outside] + problem.z[outside] @ u
        logits[outside], scores[outside] = plain + bias, plain - _midpoint(part, alpha, u)
    return logits, scores


def _out_of_fold_probability(raw: Array, high: NDArray[np.bool_], group: NDArray[Any]) -> Array:
    """Probability of each row by a calibration without its group [rows]; all NaN where a fold leaves fewer than two of a pole."""
    found = np.zeros(len(raw))
    for inside, outside in folds(high, group):
        if min(high[inside].sum(), (~high[inside]).sum()) < 2:
            return np.full(len(raw), np.nan)
        found[outside] = fit_calibration(raw[inside], high[inside], group[inside], "").probability(raw[outside])
    return found


def _choose_penalty(problem: _Problem) -> tuple[float, Array]:
    """The penalty with the lowest cross-validated log loss, the larger one in a tie, and its out-of-fold scores."""
    losses, scores = {}, {}
    for penalty in PENALTIES if problem.has_prior else PENALTIES[1:]:
        logits, scores[penalty] = _out_of_fold(problem, penalty)
        losses[penalty] = float((np.logaddexp(0, logits) - problem.y * logits).mean())
    best = min(losses, key=lambda p: (round(losses[p], 3), -p))
    return best, scores[best]


def _learning_curve(problem: _Problem, penalty: float, folded: Array, draws: int = 4) -> dict[int, float]:
    """Mean out-of-fold AUROC when only so many rows (whole groups) are there to learn from; `folded` are the scores with all."""
    total = len(problem.y)
    curve = {}
    for size in [n for n in CURVE if n < 0.8 * total]:
        values = []
        for draw in range(draws):
            rng = np.random.default_rng(draw)
            scores, seen = [], []
            for inside, outside in folds(problem.high, problem.group, draw):
                order = rng.permutation(inside)
                first = {g: i for i, g in enumerate(dict.fromkeys(problem.group[order].tolist()))}
                chosen = np.array(sorted(order.tolist(), key=lambda i: first[problem.group[i]])[:size])
                part = problem.rows(chosen)
                if part.high.all() or not part.high.any():
                    continue
                alpha, u, _ = _fit(part, penalty)
                scores.append(alpha * problem.s[outside] + problem.z[outside] @ u - _midpoint(part, alpha, u))
                seen.append(problem.high[outside])
            if scores:
                s, h = np.concatenate(scores), np.concatenate(seen)
                if h.any() and not h.all():
                    values.append(auroc(s[h], s[~h]))
        if values:
            curve[size] = float(np.mean(values))
    curve[total] = auroc(folded[problem.high], folded[~problem.high])
    return curve


@dataclass(frozen=True)
class Recalibration:
    """A vector set whose trait was calibrated on labelled replies, with the thresholds that were asked for."""

    vectors: VectorSet
    calibration: Calibration
    thresholds: list[Threshold]
    rows: int
    """Labelled replies that it rests on."""
    prompts: int
    """Groups that these belong to."""
    auroc: float
    """Chance that a reply of the high pole scores above one of the low pole: 0.5 is a coin, 1 is perfect."""
    interval: Interval
    """95 %, whole prompts drawn with replacement."""
    ece: float
    """Expected calibration error, the mean gap between stated and observed frequency.

    Cross-validated over prompts; NaN where a fold leaves too little of a pole.
    """
    left_out: int = 0
    """Labelled replies that the vector has learnt from, and that nothing was calibrated on."""


def fresh(entry: TraitEntry, labelled: Labelled) -> Labelled:
    """The labelled replies that a trait's vector has not learnt from. Raises ExtractionError where none is left, or one kind only.

    A vector that was adapted by an earlier version does not say what it has learnt from: all rows are then taken as fresh.
    """
    known = set(entry.reading.metadata.get(LEARNT_FROM, ()))
    keep = np.array([row_hash(c, entry.reads) not in known for c in labelled.conversations], bool)
    if keep.all():
        return labelled
    left = labelled.where(keep)
    high = left.high if keep.any() else np.zeros(0, bool)
    if not len(high) or high.all() or not high.any():
        what = "none is left" if not len(high) else f"the {len(high)} that are left are all of one kind"
        raise ExtractionError(
            f"{entry.reading.trait_name} was adapted to {int((~keep).sum())} of these {len(keep)} labelled replies, so they are not fresh, "
            f"and {what}; calibrate on replies that it has not learnt from"
        )
    return left


def recalibrate(
    reader: ActivationReader,
    vectors: VectorSet,
    trait: str,
    labelled: Labelled,
    wanted: Sequence[tuple[ErrorKind, float]] = (),
    progress: Progress | None = None,
) -> Recalibration:
    """Fit a trait's centre, spread, probability and thresholds to labelled replies; its direction stays.

    Replies that the vector has learnt from are left out. The calibration error is cross-validated, and thresholds (split conformal, see
    measure/thresholds.py) count prompts, not replies.

    Args:
        reader: Of the model that the vectors were made with.
        vectors: The vector set; it stays as it is.
        trait: Which of its traits to calibrate.
        labelled: Replies with targets between 0 and 1; 1 is the high pole, more of the trait.
        wanted: Errors to keep beyond the usual ones: ("miss", 0.05) or ("false_alarm", 0.02).
        progress: Told how many replies have just been read.

    Raises:
        ExtractionError: the labels are of one kind, or too few for an error rate that is asked for, or none is fresh.
        VectorSetError: the set holds no such trait.
        ConversationError, ModelError: a reply cannot be read.
    """
    entry, given = vectors[trait], len(labelled.target)
    labelled = fresh(entry, labelled)
    high = labelled.high
    if high.all() or not high.any():
        raise ExtractionError("the labels are all of one kind; both kinds of reply are needed")
    activations = reader.read(labelled.conversations, entry.reading.layers, entry.reads, vectors.pooling, progress)
    raw = entry.reading.raw(activations).double().numpy()
    prompts = labelled.prompts
    calibration = fit_calibration(raw, high, labelled.group, f"{len(high)} labelled replies to {prompts} prompt(s)")
    z = calibration.z(raw)
    unsafe_is_high = entry.unsafe_side == "above"
    unsafe = high if unsafe_is_high else ~high
    group = labelled.group
    thresholds = [fit_threshold(z, unsafe, unsafe_is_high, rate, kind, group) for kind, rate in wanted]
    asked = {threshold.key: threshold for threshold in thresholds}
    calibration = replace(calibration, thresholds=standard_thresholds(z, high, entry.safe_pole, group) | asked)
    probability = _out_of_fold_probability(raw, high, group)
    changed = replace(entry, calibration=calibration, proof=entry.proof and entry.proof.without_calibration())
    return Recalibration(
        replace(vectors, traits={**vectors.traits, trait: changed}),
        calibration,
        thresholds,
        len(high),
        prompts,
        auroc(raw[high], raw[~high]),
        clustered_auroc_interval(raw, high, labelled.clusters),
        expected_calibration_error(probability, high),
        given - len(high),
    )


def without_prior(vectors: VectorSet, trait: str, safe_pole: Pole) -> VectorSet:
    """The set with an entry for a new trait that has no direction yet, to be fitted to labels alone.

    `safe_pole` says which labels are the safe ones. It is read over the layers that the set's other traits are read at in
    the middle.
    """
    if trait in vectors.traits:
        _refuse_adapted(vectors[trait])
        raise ExtractionError(f"the vector set holds {trait} already; leave --new out to adapt it")
    if not NAME.fullmatch(trait):
        raise ExtractionError(f"{trait!r} is no trait name: use lower-case letters, digits, '_' and '-'")
    pattern = sorted(vectors.traits.values(), key=lambda e: e.reading.layer_idx)[len(vectors.traits) // 2]
    shape, hidden = pattern.reading.rows.shape, vectors.model.hidden_size
    metadata = {
        "method": "logistic",
        "from": ALONE,
        "reads": "response",
        "pooling": vectors.pooling,
        "layers": list(pattern.reading.layers),
        "layer_curve": {},
    }
    none = PersonaVector(trait, torch.zeros(shape), pattern.reading.layer_idx, 0.0, metadata)
    entry = TraitEntry(
        reading=none,
        steering=PersonaVector(trait, torch.zeros(hidden), pattern.reading.layer_idx, 0.0, {"method": "none"}),
        title=trait.replace("_", " ").capitalize(),
        description="Defined by labelled replies alone.",
        high_pole="replies labelled high.",
        low_pole="replies labelled low.",
        safe_pole=safe_pole,
        reads="response",
        pack_hash="",
        calibration=Calibration(0.0, 1.0, "platt", ((1.0, 0.0),), 0, 0, "nothing yet"),
    )
    return replace(vectors, traits={**vectors.traits, trait: entry})
