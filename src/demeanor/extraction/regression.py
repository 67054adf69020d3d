"""The regression behind an adaptation: labels as the evidence, a trait's direction as the prior.

The pack's direction is the prior, the labels are the evidence. With z a reply's activations at the vector's layers,
each dimension in units of its neutral spread and divided by the root of their number, and s the reply's z-score by the pack's vector,
each row counting by its weight w (1 by default, and 1 on average: how many replies of the traffic it stands for),

    logit P(high) = alpha s + u.z + b,     penalty  lambda/2 |u|^2 + (alpha - 1)^2 / 2,     alpha > 0

lambda is chosen by cross-validated log loss over prompts, the stronger prior in a tie; at lambda = infinity the
direction is the pack's, at small lambda it is a supervised probe. Graded labels are soft targets between 0 and 1.

Folds are compared on logits less their own midpoint between the poles: b follows how many of a fold's own rows are high, so
that logits with b would rank rows by the fold that they fell in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from demeanor.data.labelled import Labelled
from demeanor.errors import ExtractionError
from demeanor.extraction.folds import folds
from demeanor.measure.metrics import Array, weighted_auroc
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.vector_set import VectorSet

PENALTIES = (np.inf, 3.0, 1.0, 0.3, 0.1)
CURVE = (10, 20, 40, 80, 160, 320)
FEWEST = 6  # labelled rows under which nothing is fitted


@dataclass(frozen=True)
class Problem:
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
    weights: Array | None = None
    """For how much each row counts [rows]; None: all alike."""

    @classmethod
    def of(cls, vectors: VectorSet, entry: TraitEntry, activations: Array, labelled: Labelled) -> Problem:
        """Of activations [rows, k, hidden] with their labels. Raises ExtractionError where these cannot be learnt from."""
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
            labelled.weights,
        )

    def rows(self, keep: NDArray[Any]) -> Problem:
        """The same problem on some rows."""
        weights = None if self.weights is None else self.weights[keep]
        return replace(self, z=self.z[keep], s=self.s[keep], y=self.y[keep], high=self.high[keep], group=self.group[keep], weights=weights)


def fit(problem: Problem, penalty: float) -> tuple[float, Array, float]:
    """alpha, u [f] and b of the penalised logistic regression, fitted where the rows lie (in n dimensions, not f)."""
    s, y = problem.s, problem.y
    w = np.ones(len(y)) if problem.weights is None else problem.weights
    if np.isinf(penalty):
        coordinates, basis = np.zeros((len(y), 0)), np.zeros((0, problem.z.shape[1]))
    else:
        left, values, basis = np.linalg.svd(problem.z, full_matrices=False)
        coordinates = left * values

    def loss(theta: Array) -> tuple[float, Array]:
        alpha, bias, v = theta[0], theta[1], theta[2:]
        logit = alpha * s + bias + coordinates @ v
        value = w @ np.logaddexp(0, logit) - (w * y) @ logit + (alpha - 1) ** 2 / 2
        gap = w * (1 / (1 + np.exp(-np.clip(logit, -30, 30))) - y)
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


def midpoint(problem: Problem, alpha: float, u: Array) -> float:
    """Half-way between the poles' mean logits without b; the mean of all where one pole is missing."""
    logits = alpha * problem.s + problem.z @ u
    high, w = problem.high, problem.weights
    if high.all() or not high.any():
        return float(np.average(logits, weights=w))
    of_high, of_low = (None, None) if w is None else (w[high], w[~high])
    return float((np.average(logits[high], weights=of_high) + np.average(logits[~high], weights=of_low)) / 2)


def _out_of_fold(problem: Problem, penalty: float) -> tuple[Array, Array]:
    """Of each row by a fit without its group: its logit, and its logit less b and the fold's midpoint [rows]."""
    logits, scores = np.zeros(len(problem.y)), np.zeros(len(problem.y))
    for inside, outside in folds(problem.high, problem.group):
        part = problem.rows(inside)
        alpha, u, bias = fit(part, penalty)
        plain = alpha * problem.s[outside] + problem.z[outside] @ u
        logits[outside], scores[outside] = plain + bias, plain - midpoint(part, alpha, u)
    return logits, scores


def choose_penalty(problem: Problem) -> tuple[float, Array]:
    """The penalty with the lowest cross-validated log loss, the larger one in a tie, and its out-of-fold scores."""
    losses, scores = {}, {}
    for penalty in PENALTIES if problem.has_prior else PENALTIES[1:]:
        logits, scores[penalty] = _out_of_fold(problem, penalty)
        losses[penalty] = float(np.average(np.logaddexp(0, logits) - problem.y * logits, weights=problem.weights))
    best = min(losses, key=lambda p: (round(losses[p], 3), -p))
    return best, scores[best]


def learning_curve(problem: Problem, penalty: float, folded: Array, draws: int = 4) -> dict[int, float]:
    """Mean out-of-fold AUROC when only so many rows (whole groups) are there to learn from; `folded` are the scores with all."""
    total = len(problem.y)
    curve = {}
    for size in [n for n in CURVE if n < 0.8 * total]:
        values = []
        for draw in range(draws):
            rng = np.random.default_rng(draw)
            scores, seen, heavy = [], [], []
            for inside, outside in folds(problem.high, problem.group, draw):
                order = rng.permutation(inside)
                first = {g: i for i, g in enumerate(dict.fromkeys(problem.group[order].tolist()))}
                chosen = np.array(sorted(order.tolist(), key=lambda i: first[problem.group[i]])[:size])
                part = problem.rows(chosen)
                if part.high.all() or not part.high.any():
                    continue
                alpha, u, _ = fit(part, penalty)
                scores.append(alpha * problem.s[outside] + problem.z[outside] @ u - midpoint(part, alpha, u))
                seen.append(problem.high[outside])
                heavy.append(np.ones(len(outside)) if problem.weights is None else problem.weights[outside])
            if scores:
                s, h = np.concatenate(scores), np.concatenate(seen)
                if h.any() and not h.all():
                    values.append(weighted_auroc(s, h, None if problem.weights is None else np.concatenate(heavy)))
        if values:
            curve[size] = float(np.mean(values))
    curve[total] = weighted_auroc(folded, problem.high, problem.weights)
    return curve
