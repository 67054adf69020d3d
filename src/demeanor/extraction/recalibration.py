"""Recalibrating a trait on labelled replies: centre, spread, probability and thresholds anew, the direction as it is.

Replies that the vector has learnt from (see adaptation) say nothing of fresh ones, and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from demeanor.data.labelled import Labelled
from demeanor.errors import ExtractionError
from demeanor.extraction.activations import KeptActivations
from demeanor.extraction.adaptation import LEARNT_FROM
from demeanor.extraction.calibrating import Sample
from demeanor.extraction.easing import eased_by
from demeanor.extraction.examples import read
from demeanor.extraction.folds import out_of_fold_probability
from demeanor.keys import row_hash
from demeanor.measure.calibration import Calibration, fit_calibration
from demeanor.measure.cuts import AtRate, supported
from demeanor.measure.metrics import Interval, clustered_auroc_interval, expected_calibration_error, weighted_auroc
from demeanor.measure.thresholds import ErrorKind, Threshold
from demeanor.model.reader import ActivationReader
from demeanor.progress import Progress
from demeanor.traits.ordinary import ordinary_conversations
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.vector_set import VectorSet


@dataclass(frozen=True)
class Short:
    """An error that was asked for and that the labelled replies are too few for, and the threshold that they do support."""

    kind: ErrorKind
    rate: float
    why: str
    """How many there are, and how many are needed."""
    instead: Threshold | None
    """None where the replies support no threshold at all."""


@dataclass(frozen=True)
class Recalibration:
    """A vector set whose trait was calibrated on labelled replies, with the thresholds that were asked for."""

    vectors: VectorSet
    calibration: Calibration
    thresholds: list[Threshold]
    rows: int
    prompts: int
    auroc: float
    interval: Interval
    ece: float
    """Cross-validated over prompts; NaN where a fold leaves too little of a pole."""
    left_out: int = 0
    """Labelled replies that the vector has learnt from, and that nothing was calibrated on."""
    short: tuple[Short, ...] = ()
    """Errors that were asked for and are not supported, each with the nearest threshold that is."""
    supporting: Mapping[ErrorKind, int] = field(default_factory=dict)
    """To how many prompts the unsafe replies belong ("miss"), and the safe ones ("false_alarm")."""


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
    kept: KeptActivations | None = None,
) -> Recalibration:
    """Fit a trait's centre, spread, probability and thresholds to labelled replies; its direction stays.

    Replies that the vector has learnt from are left out. Weighted ones count for as many replies of the traffic as they stand for. The
    calibration error is cross-validated, and thresholds count prompts, not replies. As in an extraction, they are those of the rule as a
    whole, condition and threshold together, and everyday talk that comes with Demeanor supports the rates of false alarms there.

    Args:
        reader: Of the model that the vectors were made with.
        vectors: The vector set; it stays as it is.
        trait: Which of its traits to calibrate.
        labelled: Replies with targets between 0 and 1; 1 is the high pole, more of the trait.
        wanted: Errors to keep beside the usual ones, such as ("miss", 0.1) or ("false_alarm", 0.02). Where the replies are too few for
            one, as unsafe ones mostly are, the nearest threshold that they support is named in its place.
        progress: Told how many replies have just been read.
        kept: Activations of everyday talk that was read before.

    Raises:
        ExtractionError: the labels are of one kind, or none is fresh; a rate that is none.
    """
    entry, given = vectors[trait], len(labelled.target)
    labelled = fresh(entry, labelled)
    high = labelled.high
    if high.all() or not high.any():
        raise ExtractionError("all labels are the same; both kinds of reply are needed")
    activations = reader.read(labelled.conversations, entry.reading.layers, entry.reads, vectors.pooling, progress)
    raw = entry.reading.raw(activations).double().numpy()
    prompts = labelled.prompts
    weights = labelled.weights
    calibration = fit_calibration(raw, high, labelled.group, f"{len(high)} labelled replies to {prompts} prompt(s)", weights)
    z = calibration.z(raw)
    unsafe_is_high = entry.unsafe_side == "above"
    unsafe = high if unsafe_is_high else ~high
    group = labelled.group
    talk = [o.conversation for o in ordinary_conversations() if o.split == "calibration"]
    everyday = entry.reading.raw(torch.from_numpy(read(reader, talk, entry.reading.layers, entry.reads, vectors.pooling, kept=kept)))
    sample = Sample(
        z,
        high,
        calibration.z(everyday.double().numpy()),
        eased_by(reader, vectors, trait, labelled.conversations),
        eased_by(reader, vectors, trait, talk, kept),
        group,
        weights,
    )
    calibration = replace(calibration, thresholds=sample.thresholds(entry.safe_pole))
    thresholds, short = [], []
    for kind, rate in wanted:
        try:
            thresholds.append(sample.threshold(entry.safe_pole, rate, kind))
        except ExtractionError as error:
            if not 0 < rate < 1:
                raise
            short.append(Short(kind, rate, str(error), supported(AtRate(kind, rate), calibration)))
    asked = {threshold.key: threshold for threshold in thresholds}
    calibration = replace(calibration, thresholds=calibration.thresholds | asked)
    probability = out_of_fold_probability(raw, high, group, weights)
    changed = replace(entry, calibration=calibration, proof=entry.proof and entry.proof.without_calibration())
    return Recalibration(
        replace(vectors, traits={**vectors.traits, trait: changed}),
        calibration,
        thresholds,
        len(high),
        prompts,
        weighted_auroc(raw, high, weights),
        clustered_auroc_interval(raw, high, labelled.clusters, weights=weights),
        expected_calibration_error(probability, high, weights=weights),
        given - len(high),
        tuple(short),
        {"miss": len(set(group[unsafe].tolist())), "false_alarm": len(set(group[~unsafe].tolist()))},
    )
