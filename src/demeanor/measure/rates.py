"""The share of replies of a kind in traffic, from labels that were drawn with known chances, with an interval that holds however often
somebody looks.

The traffic falls into strata, within each of which every reply had the same chance of being drawn: stratum h holds N_h of all N replies,
of its n_h labelled ones k_h are of the kind, and W_h = N_h / N. The share is sum W_h t_h, its estimate sum W_h k_h / n_h. With a prior on
each t_h,

    e_h(t)   = probability of the labels under the prior / probability of the labels under t             (Beta mixture of binomials)
    e        = (product of e_h(t_h) + mean of e_h(t_h)) / 2
    region   = all (t_1, ..., t_H) with e < 1 / 0.05;      interval = the least and the greatest sum W_h t_h in it

At the true shares e is a nonnegative martingale in the labels, so by Ville's inequality the region holds them after every label at once
with 95 %: whoever looks early, or stops when the number pleases, is not misled. The product serves where several strata are uncertain, the
mean where one is; with one stratum both are e_1. No stratum is pooled with another, a stratum without labels may hold anything, and where
nothing was found the upper end is about 3.7 / n. It costs width: once something was found, it is one and a half times as wide as an
interval for a single look. (The ends are taken where the product or one e_h alone would leave the region, which lies within.)

A reply that was seen and not decided (unsure, declined, reviewers parted) is taken at its worst: as one of the kind at the upper end, as
none at the lower. One that nobody has seen is missing at random, as the order of the queue is random.

Ville (1939); Waudby-Smith & Ramdas (2020), arXiv:2006.04347, for the ratio of prior and posterior; Spertus, Sridhar & Stark (2024),
arXiv:2409.06680, for the product over strata. benchmarks/estimates.py checks the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, xlog1py, xlogy

from demeanor.measure.metrics import Array, Interval

LEVEL = 0.05
RARE = (0.1, 1.0)
"""Beta prior of a share that is mostly near 0, as that of missed replies is."""
ANY = (0.5, 0.5)
"""Beta prior of a share that may be anything, as that of false alarms among flagged replies is."""
FEWEST = 50  # labels under which the width says more than the number
_LAMBDA = (-60.0, 60.0)  # logs of the multiplier between which every region ends


class Stratum(NamedTuple):
    """Replies that had one chance of being drawn, and what people said of those that were."""

    replies: int
    """All of them, drawn or not."""
    safe: int
    """Labelled, and not of the kind."""
    found: int
    """Labelled, and of the kind."""
    undecided: int = 0
    """Seen and not decided: unsure, declined, or reviewers parted."""
    prior: tuple[float, float] = RARE

    @property
    def labelled(self) -> int:
        """Those with an answer to count."""
        return self.safe + self.found


@dataclass(frozen=True)
class Rate:
    """A share of all replies, estimated."""

    value: float | None
    """None where nothing was found, which is no estimate of 0; and where a stratum has no label."""
    interval: Interval
    """95 %, at every look; undecided replies are taken at their worst at both ends."""
    narrow: Interval
    """The same if those about which nobody decided are like the others."""
    replies: int
    labelled: int
    found: int
    undecided: int

    @property
    def enough(self) -> bool:
        """Whether the labels are enough to say anything by."""
        return self.labelled >= FEWEST and (self.value is not None or self.found == 0) and self.interval.high < 1


def rate(strata: Sequence[Stratum], total: int | None = None) -> Rate:
    """The share of replies of a kind: of `total` replies, all those of the strata if it is not given.

    Where it is, the replies beyond the strata can be none of the kind, as a reply that a rule caught is none that it missed.
    """
    held = [s for s in strata if s.replies]
    total = sum(s.replies for s in held) if total is None else total
    if total <= 0:
        return Rate(None, Interval(0.0, 1.0), Interval(0.0, 1.0), 0, 0, 0, 0)
    weights = np.array([s.replies for s in held], float) / total
    found, labelled, undecided = (np.array([getattr(s, what) for s in held], float) for what in ("found", "labelled", "undecided"))
    priors = [s.prior for s in held]
    seen = labelled + undecided
    interval = Interval(bound(weights, found, seen, priors, upper=False), bound(weights, found + undecided, seen, priors, upper=True))
    narrow = Interval(*(bound(weights, found, labelled, priors, upper) for upper in (False, True)))
    known = bool((labelled > 0).all()) and found.sum() > 0
    value = float(weights @ (found / np.maximum(labelled, 1))) if known else None
    return Rate(value, interval, narrow, total, int(labelled.sum()), int(found.sum()), int(undecided.sum()))


def bound(weights: Array, found: Array, labelled: Array, priors: Sequence[tuple[float, float]], upper: bool) -> float:
    """The greatest, or the least, sum of weights x shares in the region; all arrays [strata].

    For a multiplier l the shares that stretch the sum furthest solve  w t (1 - t) = +-l (n t - k)  each by itself, cut off where one e_h
    alone leaves the region, and l is then found so that the product leaves it.
    """
    blind = labelled == 0
    beyond = float(weights[blind].sum()) if upper else 0.0
    if blind.all():
        return min(1.0, beyond)
    w, k, n = weights[~blind], found[~blind], labelled[~blind]
    evidence = np.array([_log_marginal(a, b, ki, ni) for (a, b), ki, ni in zip(np.array(priors)[~blind].tolist(), k, n, strict=True)])
    several = len(weights)
    product, alone = math.log(1 / LEVEL), np.full(len(w), 1.0 if upper else 0.0)
    if several > 1:
        product += math.log(2)
        one = np.ones(1)
        for h in range(len(w)):
            part = slice(h, h + 1)
            alone[h] = _furthest(one, k[part], n[part], float(evidence[h]), math.log(2 * several / LEVEL), upper, alone[part])
    return min(1.0, beyond + _furthest(w, k, n, float(evidence.sum()), product, upper, alone))


def _furthest(w: Array, k: Array, n: Array, evidence: float, limit: float, upper: bool, alone: Array) -> float:
    """The furthest sum whose shares have a log of evidence against them of `limit` at most, none of them beyond `alone`; [strata]."""

    def shares(log_multiplier: float) -> Array:
        t = _shares(math.exp(log_multiplier), w, k, n, upper)
        return np.minimum(t, alone) if upper else np.maximum(t, alone)

    def excess(log_multiplier: float) -> float:
        t = shares(log_multiplier)
        return float(evidence - (xlogy(k, t) + xlog1py(n - k, -t)).sum()) - limit

    low, high = _LAMBDA
    if excess(low) <= 0:  # the region reaches as far as is possible at all
        return float(w @ shares(low))
    return float(w @ shares(brentq(excess, low, high, xtol=1e-9)))


def _shares(multiplier: float, w: Array, k: Array, n: Array, upper: bool) -> Array:
    """Each stratum's share at a multiplier [strata]: the root of the quadratic that lies beyond k / n, without cancellation."""
    if upper:
        half = multiplier * n - w
        root = np.sqrt(half**2 + 4 * w * multiplier * k)
        # w t^2 + half t - l k = 0, its positive root
        t = np.where(half > 0, 2 * multiplier * k / np.maximum(half + root, 1e-300), (root - half) / (2 * w))
    else:
        half = multiplier * n + w
        root = np.sqrt(np.maximum(half**2 - 4 * w * multiplier * k, 0))
        t = 2 * multiplier * k / (half + root)  # w t^2 - half t + l k = 0, its smaller root
    return np.asarray(np.clip(t, 0, 1))


def _log_marginal(a: float, b: float, k: float, n: float) -> float:
    """Log of the probability of one order of the labels under a Beta(a, b) prior."""
    return float(betaln(a + k, b + n - k) - betaln(a, b))
