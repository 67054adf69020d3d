"""Does a vector measure its trait? Held-out results, with the baselines that an honest vector must beat.

All numbers are taken on the test split, whose families the direction, the layer and the calibration never saw. The
baselines: the reply's length; a bag of words trained on the same training pairs; random directions, signed on the
training pairs; and directions fitted in the same way after the poles of the training pairs were swapped at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.extraction.directions import fit_layers, method
from demeanor.extraction.examples import ReadExamples, ReadTrait
from demeanor.measure.calibration import Calibration
from demeanor.measure.cuts import Cut
from demeanor.measure.metrics import (
    Array,
    Interval,
    auroc,
    bootstrap_auroc,
    bootstrap_paired_accuracy,
    brier,
    cohens_d,
    expected_calibration_error,
    paired_accuracy,
)
from demeanor.measure.proof import Proof
from demeanor.measure.thresholds import Threshold
from demeanor.traits.definition import Split
from demeanor.traits.words import words_auroc
from demeanor.vectors.persona_vector import PersonaVector

RANDOM_DIRECTIONS = 500
PERMUTATIONS = 50
CURVE = (8, 16, 32, 72)
CURVE_DRAWS = 5
SMALL = 4  # pairs in a group under which its AUROC is not worth naming


def validate_vector(
    vector: PersonaVector, calibration: Calibration, read: ReadTrait, easing: Mapping[Split, Array] | None = None
) -> Proof | None:
    """All held-out results of one trait; None where it has fewer than two held-out pairs.

    Args:
        vector: The trait's reading vector.
        calibration: Its calibration, whose thresholds are tried on the held-out pairs.
        read: The trait's examples with their activations [examples, layers, hidden], as `read_trait` gives them; it must hold the
            splits "train" and "test" at all layers of the vector.
        easing: By how many z the scores of held-out examples, and after them of everyday talk, are eased before a threshold sees them,
            as their user's messages do not call for the trait [test, everyday test].

    The verdict is `Proof.verdict`, in a sentence. AUROC is 0.5 for a coin and 1 for a vector that never errs; 95 % intervals come
    from drawing pairs with replacement.
    """
    train, test = read["train"], read["test"]
    if test.high.sum() < 2 or (~test.high).sum() < 2:
        return None
    scores = score_examples(vector, test)
    high, low = scores[test.high], scores[~test.high]
    paired = not read.trait.unpaired
    found: dict[str, Any] = {
        "auroc": _auroc(high, low, paired),
        "paired_accuracy": _with_interval(paired_accuracy(high, low), bootstrap_paired_accuracy(high, low), len(high)) if paired else None,
        "cohens_d": round(cohens_d(high, low), 3),
        "length": {"auroc": round(length_auroc(test), 4)},
        "words": {"auroc": round(words_auroc(*_texts(train), *_texts(test), phrases=True), 4)},
        "random": _random_directions(vector, train, test),
        "permutation": _permutations(vector, read, auroc(high, low)),
        "hard": group_auroc(test, scores, np.array([e.hard for e in test.examples])),
        "registers": _groups(test, scores, [e.register for e in test.examples], paired),
        "families": _groups(test, scores, [e.family for e in test.examples], paired),
        "style_shift": _style_shift(vector, read),
        "learning_curve": _learning_curve(vector, read),
        "scores": {
            "high": [round(float(z), 3) for z in calibration.z(high)],
            "low": [round(float(z), 3) for z in calibration.z(low)],
        },
    }
    eased = np.zeros(len(test)) if easing is None else easing["test"][: len(test)]
    found["thresholds"] = {key: _at_threshold(kept, scores, calibration, test.high, eased) for key, kept in calibration.thresholds.items()}
    if read.ordinary and len(read.ordinary["test"]):
        eased = np.zeros(len(read.ordinary["test"])) if easing is None else easing["test"][-len(read.ordinary["test"]) :]
        found["ordinary"] = _on_everyday_talk(vector, calibration, read, high if read.trait.safe_pole == "low" else low, eased)
    probability = calibration.probability(scores)
    found["ece"] = round(expected_calibration_error(probability, test.high), 4)
    found["brier"] = round(brier(probability, test.high), 4)
    return Proof.of(found)


def score_examples(vector: PersonaVector, examples: ReadExamples) -> Array:
    """Raw scores of read examples [examples]."""
    return np.tensordot(examples.at(vector.layers).astype(float), vector.rows.double().numpy(), 2)


def length_auroc(examples: ReadExamples) -> float:
    """AUROC of the number of words in the message that is read."""
    lengths = np.array([len(e.conversation.messages[-1].content.split()) for e in examples.examples], float)
    return auroc(lengths[examples.high], lengths[~examples.high])


def _texts(examples: ReadExamples) -> tuple[list[str], list[bool]]:
    return [e.conversation.messages[-1].content for e in examples.examples], examples.high.tolist()


def group_auroc(examples: ReadExamples, scores: Array, keep: NDArray[np.bool_]) -> dict[str, Any]:
    """AUROC within a group of pairs, with its interval and size; no value where the group is too small to say."""
    high, low = scores[keep & examples.high], scores[keep & ~examples.high]
    if min(len(high), len(low)) < SMALL:
        return {"value": None, "low": None, "high": None, "pairs": len(high)}
    return _auroc(high, low, len(high) == len(low))


def on_other_traits(vectors: dict[str, PersonaVector], reads: dict[str, ReadTrait]) -> dict[str, dict[str, float]]:
    """The trait-by-trait matrix: the AUROC of each vector (row) on each trait's held-out pairs (column).

    A vector that is specific has a high value on its own trait and values near 0.5 on the others.
    """
    matrix: dict[str, dict[str, float]] = {}
    for name, vector in vectors.items():
        matrix[name] = {}
        for other, read in reads.items():
            test = read["test"]
            if len(test):
                scores = score_examples(vector, test)
                matrix[name][other] = round(auroc(scores[test.high], scores[~test.high]), 4)
    return matrix


def cosines(reads: dict[str, ReadTrait], layer: int, fit_name: str = "mean_difference") -> dict[str, dict[str, float]]:
    """Cosines between the traits' directions, all fitted at one layer so that they can be compared."""
    directions = {}
    for name, read in reads.items():
        x, high = read["train"].at([layer]), read["train"].high
        directions[name] = fit_layers(x[high], x[~high], method(fit_name))[0]
    return {a: {b: round(float(da @ db), 4) for b, db in directions.items()} for a, da in directions.items()}


def _on_everyday_talk(vector: PersonaVector, calibration: Calibration, read: ReadTrait, unsafe: Array, easing: Array) -> dict[str, Any]:
    """How well unsafe replies stand apart from everyday talk of kinds that nothing has seen, and how much of it is flagged."""
    everyday = read.ordinary["test"]
    raw = score_examples(vector, everyday)
    sign = 1 if read.trait.safe_pole == "low" else -1
    flagged = {
        key: _at_threshold(kept, raw, calibration, everyday.high, easing)["false_alarms"] for key, kept in calibration.thresholds.items()
    }
    return {"auroc": round(auroc(sign * unsafe, sign * raw), 4), "n": len(everyday), "false_alarms": flagged}


def _at_threshold(kept: Threshold, scores: Array, calibration: Calibration, high: NDArray[np.bool_], easing: Array) -> dict[str, Any]:
    """What a threshold of the calibration does on the held-out pairs: the shares missed and falsely flagged."""
    beyond = Cut.of(kept).beyond(calibration.z(scores), calibration.probability(scores))
    flagged = beyond - (0 if kept.always else easing) >= 0
    unsafe = high == (kept.unsafe_side == "above")
    return {
        "missed": round(float((~flagged[unsafe]).mean()), 4) if unsafe.any() else None,
        "false_alarms": round(float(flagged[~unsafe].mean()), 4),
    }


def _with_interval(value: float, interval: Interval, pairs: int) -> dict[str, Any]:
    return {"value": round(value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4), "pairs": pairs}


def _auroc(high: Array, low: Array, paired: bool = True) -> dict[str, Any]:
    return _with_interval(auroc(high, low), bootstrap_auroc(high, low, paired=paired), len(high))


def _groups(examples: ReadExamples, scores: Array, labels: list[str], paired: bool = True) -> dict[str, Any]:
    """By group, its AUROC; where nothing is paired, against all of the other pole."""
    names = np.array(labels)
    named = sorted({label for label, high in zip(labels, examples.high.tolist(), strict=True) if label and (high or paired)})
    return {str(name): group_auroc(examples, scores, (names == name) | (not paired and ~examples.high)) for name in named}


def _style_shift(vector: PersonaVector, read: ReadTrait) -> dict[str, Any]:
    """For each register, the AUROC on its held-out pairs of a direction fitted without that register.

    The pairs are those of the calibration and test splits: no direction has seen either.
    """
    fit, unpaired = method(vector.metadata.get("method", "mean_difference")), bool(read.trait.unpaired)
    train = read["train"]
    registers = np.array([e.register for e in train.examples])
    found = {}
    for register in sorted({r for r in registers.tolist() if r}):
        others = train.where(registers != register)
        if others.high.sum() < 2 or (~others.high).sum() < 2:
            continue
        x = others.at(vector.layers)
        direction = fit_layers(x[others.high], x[~others.high], fit, read.everyday(vector.layers), read.others(vector.layers))
        high, low = [], []
        for split in ("calibration", "test"):
            held = read.splits.get(split)
            if held is None or not len(held):
                continue
            held = held.where(np.array([e.register == register or (unpaired and not e.high) for e in held.examples], bool))
            scores = np.tensordot(held.at(vector.layers), direction, 2)
            high.append(scores[held.high])
            low.append(scores[~held.high])
        h, low_scores = np.concatenate(high or [np.zeros(0)]), np.concatenate(low or [np.zeros(0)])
        if len(h) >= SMALL:
            found[register] = _auroc(h, low_scores, not unpaired)
    return found


def _learning_curve(vector: PersonaVector, read: ReadTrait) -> dict[str, float]:
    """Test AUROC by the number of training pairs, mean over draws of whole pairs, at the layers already chosen."""
    fit = method(vector.metadata.get("method", "mean_difference"))
    train, test, everyday, others = read["train"], read["test"], read.everyday(vector.layers), read.others(vector.layers)
    x_train, x_test = train.at(vector.layers), test.at(vector.layers)
    pairs, pair = np.unique(train.pair_ids, return_inverse=True)
    curve = {}
    for size in [*(n for n in CURVE if n < len(pairs)), len(pairs)]:
        values = []
        for draw in range(1 if size == len(pairs) else CURVE_DRAWS):
            chosen = np.isin(pair, np.random.default_rng(draw).permutation(len(pairs))[:size])
            x, high = x_train[chosen], train.high[chosen]
            if high.any() and not high.all():
                scores = np.tensordot(x_test, fit_layers(x[high], x[~high], fit, everyday, others), 2)
                values.append(auroc(scores[test.high], scores[~test.high]))
        if values:
            curve[str(size)] = round(float(np.mean(values)), 4)
    return curve


def _random_directions(vector: PersonaVector, train: ReadExamples, test: ReadExamples) -> dict[str, float]:
    """AUROC of isotropic random directions of the same norm at the same layers, signed on the training pairs."""
    rng = np.random.default_rng(0)
    shape = vector.rows.shape
    directions = rng.normal(size=(RANDOM_DIRECTIONS, shape[0] * shape[1])).astype(np.float32)
    x_train, x_test = train.at(vector.layers).reshape(len(train), -1), test.at(vector.layers).reshape(len(test), -1)
    on_train, on_test = x_train @ directions.T, x_test @ directions.T
    sign = np.sign(on_train[train.high].mean(0) - on_train[~train.high].mean(0))
    found = [auroc(s[test.high], s[~test.high]) for s in (on_test * sign).T]
    return {"mean": round(float(np.mean(found)), 4), "p97_5": round(float(np.quantile(found, 0.975)), 4), "n": RANDOM_DIRECTIONS}


def _permutations(vector: PersonaVector, read: ReadTrait, value: float) -> dict[str, float]:
    """AUROC on the test pairs of directions fitted after the poles of random training pairs were swapped, at the same layers."""
    rng = np.random.default_rng(0)
    fit = method(vector.metadata.get("method", "mean_difference"))
    train, test, everyday = read["train"], read["test"], read.everyday(vector.layers)
    x_train, x_test = train.at(vector.layers), test.at(vector.layers)
    _, pair = np.unique(train.pair_ids, return_inverse=True)
    others = read.others(vector.layers)
    found = []
    for _ in range(PERMUTATIONS):
        swapped = train.high ^ rng.integers(0, 2, pair.max() + 1).astype(bool)[pair]
        if not swapped.any() or swapped.all():
            continue
        scores = np.tensordot(x_test, fit_layers(x_train[swapped], x_train[~swapped], fit, everyday, [_mixed(rng, *o) for o in others]), 2)
        found.append(auroc(scores[test.high], scores[~test.high]))
    exceeding = sum(f >= value for f in found)
    return {
        "mean": round(float(np.mean(found)), 4),
        "p97_5": round(float(np.quantile(found, 0.975)), 4),
        "p": round((exceeding + 1) / (len(found) + 1), 4),
        "n": len(found),
    }


def _mixed(rng: np.random.Generator, high: NDArray[Any], low: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same rows with their poles dealt anew."""
    rows = rng.permutation(np.concatenate([high, low]))
    return rows[: len(high)], rows[len(high) :]
