"""Adapting a vector to labelled replies from the place where it will be used.

The pack's direction is the prior, the labels are the evidence (see regression for the formula). A trait that no pack defines has no
prior (see from_labels). The pack's own vector stays in force unless the fit is clearly better on prompts left out (see gain), and it stays
in the set in any case: adapting again begins from it, with all labelled rows. What a vector has learnt from is kept with it as hashes, so
that nothing is calibrated on it later (see recalibration), and so that rows which are not given again are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from demeanor.data.labelled import FEWEST_GROUPS, Labelled
from demeanor.errors import ExtractionError
from demeanor.extraction.folds import out_of_fold_probability
from demeanor.extraction.gain import Gain, gain_of, log_words
from demeanor.extraction.regression import Problem, choose_penalty, fit, learning_curve, midpoint
from demeanor.keys import row_hash
from demeanor.measure.calibration import Calibration, fit_calibration
from demeanor.measure.metrics import Array, Interval, brier, clustered_auroc_interval, expected_calibration_error, weighted_auroc
from demeanor.model.reader import ActivationReader
from demeanor.progress import Progress
from demeanor.vectors.entry import OwnVector, TraitEntry
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.storage import ADAPTED, TRIED
from demeanor.vectors.vector_set import VectorSet

NOTHING_YET = Calibration(0.0, 1.0, "platt", ((1.0, 0.0),), 0, 0, "nothing yet")
ALONE = "labels alone"  # where a trait comes from that no pack defines
LEARNT_FROM = "learnt_from"
"""In a reading vector's metadata: hashes of the labelled rows that it has learnt from (keys.row_hash), without their text."""
GIVEN = "labels_given"
"""The same of all rows that the last adaptation was given, whichever vector it kept."""


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation made and how well it does, cross-validated over prompts at the size given."""

    vectors: VectorSet
    """With the vector that was kept."""
    fitted: VectorSet
    """With the fit, whether it was kept or not."""
    kept: Literal["labels", "pack"]
    gain: Gain | None
    """Of the fit over the pack's vector; None where there is no pack's."""
    missing: int
    """Rows that an earlier adaptation was given and this one was not: they have no part in it, and the set forgets them."""
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
    def why(self) -> str:
        """Which vector was kept, and why."""
        if self.gain is None:
            return "kept: the vector fitted to the labels, as there is no pack's"
        kept = "the vector fitted to the labels" if self.kept == "labels" else "the pack's own vector"
        return f"kept: {kept}; {self.gain.words}"

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

    The fit is kept only where it is clearly better than the pack's vector on prompts left out. A trait that was adapted before begins
    from the pack's vector again, so all labelled replies have to be given again.

    Args:
        reader: Of the model that the vectors were made with.
        vectors: The vector set; it stays as it is.
        trait: Which of its traits to fit.
        labelled: Replies with targets between 0 and 1; 1 is the high pole, more of the trait.
        progress: Told how many replies have just been read.

    Raises:
        ExtractionError: the labels cannot be used (one kind only, too few rows), or the trait was adapted by an earlier version, which did
            not keep the pack's vector: a prior that has learnt from some of these rows would make their figures too good.
        VectorSetError: the set holds no such trait.
        ConversationError, ModelError: a reply cannot be read.
    """
    entry = beginning(vectors[trait])
    activations = reader.read(labelled.conversations, entry.reading.layers, entry.reads, vectors.pooling, progress).numpy()
    return adapt_activations(vectors, trait, activations, labelled)


def adapt_activations(vectors: VectorSet, trait: str, activations: Array, labelled: Labelled) -> Adaptation:
    """`adapt` for activations [rows, k, hidden] that are read already."""
    with threadpool_limits(1, user_api="blas"):  # many small fits: threads only stand in each other's way
        return _adapt(vectors, trait, activations, labelled)


def _adapt(vectors: VectorSet, trait: str, activations: Array, labelled: Labelled) -> Adaptation:
    entry = beginning(vectors[trait])
    problem = Problem.of(vectors, entry, activations, labelled)
    choice, folded = choose_penalty(problem)
    alpha, u, _ = fit(problem, choice)
    weights = alpha * problem.prior + u / problem.scale
    norm = float(np.linalg.norm(weights))
    direction = (weights / norm).reshape(activations.shape[1:])
    # the out-of-fold scores, in this direction's raw score: logit without b = norm * raw - offset
    offset = alpha * problem.prior_offset + float(u @ problem.shift)
    raw = (folded + midpoint(problem, alpha, u) + offset) / norm
    high = labelled.high
    prompts = labelled.prompts
    over = "over prompts" if prompts >= FEWEST_GROUPS else "over replies, for want of prompts: optimistic"
    source = f"{len(high)} labelled replies to {prompts} prompt(s), cross-validated {over}"
    counts = labelled.weights
    calibration = fit_calibration(raw, high, labelled.group, source, counts)
    probability = out_of_fold_probability(raw, high, labelled.group, counts)
    words = log_words(labelled.conversations, entry.reads)
    gain = gain_of(folded, problem.s, high, labelled.group, words, counts) if problem.has_prior else None
    kept: Literal["labels", "pack"] = "labels" if gain is None or gain.clear else "pack"
    given = sorted({row_hash(c, entry.reads) for c in labelled.conversations})
    missing = len(set(vectors[trait].reading.metadata.get(GIVEN, ())) - set(given))
    found = clustered_auroc_interval(folded, high, labelled.clusters, weights=counts)
    quality, pack_quality = (
        weighted_auroc(folded, high, counts),
        weighted_auroc(problem.s, high, counts) if problem.has_prior else float("nan"),
    )
    curve = learning_curve(problem, choice, folded)
    tensor = torch.from_numpy(np.ascontiguousarray(direction, dtype=np.float32))
    about = {
        "rows": len(high),
        "prompts": prompts,
        "auroc": {"value": round(quality, 4), "low": round(found.low, 4), "high": round(found.high, 4)},
        "pack_auroc": None if np.isnan(pack_quality) else round(pack_quality, 4),
        "penalty": "infinity" if np.isinf(choice) else choice,
        "learning_curve": {str(n): round(v, 4) for n, v in curve.items()},
        "missing": missing,
    }
    metadata = {**entry.reading.metadata, "layers": list(entry.reading.layers), GIVEN: given}
    fitted = replace(
        entry,
        reading=PersonaVector(
            trait,
            tensor[0] if len(tensor) == 1 else tensor,
            entry.reading.layer_idx,
            entry.reading.strength,
            {**metadata, LEARNT_FROM: given, ADAPTED: about},
        ),
        calibration=calibration,
        proof=None,
        own=OwnVector(entry.reading, entry.calibration, entry.proof) if problem.has_prior else None,
    )
    stays = replace(entry, reading=replace(entry.reading, metadata={**metadata, TRIED: about}))
    with_fit, with_pack = (replace(vectors, traits={**vectors.traits, trait: e}) for e in (fitted, stays))
    return Adaptation(
        vectors=with_fit if kept == "labels" else with_pack,
        fitted=with_fit,
        kept=kept,
        gain=gain,
        missing=missing,
        rows=len(high),
        prompts=prompts,
        auroc=quality,
        interval=found,
        pack_auroc=pack_quality,
        penalty=choice,
        ece=expected_calibration_error(probability, high, weights=counts),
        brier=brier(probability, high, counts),
        curve=curve,
    )


def beginning(entry: TraitEntry) -> TraitEntry:
    """The trait as it was before labelled replies changed its vector, which is where an adaptation begins.

    Raises ExtractionError for one that an earlier version adapted, which did not keep the pack's vector.
    """
    about = {k: v for k, v in entry.reading.metadata.items() if k not in (ADAPTED, TRIED, LEARNT_FROM, GIVEN)}
    if ADAPTED not in entry.reading.metadata:
        return replace(entry, reading=replace(entry.reading, metadata=about))
    if entry.own is not None:
        own = entry.own
        return replace(entry, reading=own.reading, calibration=own.calibration, proof=own.proof, own=None)
    if about.get("from") == ALONE:
        none = replace(entry.reading, direction=torch.zeros_like(entry.reading.direction), metadata=about)
        return replace(entry, reading=none, calibration=NOTHING_YET)
    raise ExtractionError(
        f"{entry.reading.trait_name} was fitted to labelled replies by an earlier version, which did not keep the pack's vector, and "
        "figures on such replies would be too good; begin with the set that was extracted, and give all labelled rows together"
    )
