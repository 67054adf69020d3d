"""How far raters agree: Krippendorff's alpha of labels that are numbers, with an interval.

    alpha = 1 - D_o / D_e
    D_o   = sum over replies of  sum over pairs i != j of (v_i - v_j)^2 / (m - 1), over n      (m labels of a reply, n of all these)
    D_e   = sum over all pairs of labels of (v_a - v_b)^2 / (n (n - 1))

1 is full agreement, 0 what chance would give. With labels of two kinds this is the nominal alpha, with grades the interval one. Any number
of raters, and labels may be missing; replies with one label say nothing and are left out. Krippendorff, Content Analysis, 4th ed. (2018),
ch. 12, and Hayes & Krippendorff (2007), doi:10.1080/19312450709336664. The interval is a percentile bootstrap over replies.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from demeanor.measure.metrics import Array, Interval

TENTATIVE = 0.667
"""Below this Krippendorff would draw no conclusion from the labels; from 0.8 on he calls them reliable."""
DRAWS = 2000


class Agreement(NamedTuple):
    """How far raters agree."""

    alpha: float
    """NaN where all labels are the same: then nothing tells agreement from chance."""
    interval: Interval
    replies: int
    """Replies that more than one rater labelled."""
    alike: int
    """Those of them that got one label from all."""

    @property
    def poor(self) -> bool:
        """Whether the labels are too far apart to rest on."""
        return self.alpha < TENTATIVE


def agreement(ratings: Array) -> Agreement | None:
    """How far raters agree about `ratings` [raters, replies], NaN where a label is missing; None where no reply has two labels."""
    given = ~np.isnan(ratings)
    shared = given.sum(0) > 1
    if not shared.any():
        return None
    v, given = np.where(given, ratings, 0.0)[:, shared], given[:, shared]
    v = v - v[given].mean()  # alpha does not change by it, and the squares keep their digits
    m, total, squares = given.sum(0), np.where(given, v, 0).sum(0), np.where(given, v**2, 0).sum(0)
    within = 2 * (m * squares - total**2) / (m - 1)
    sums = np.stack([within, m, total, squares], axis=1)  # [replies, 4]
    values = ratings[:, shared]
    alike = int((np.nanmax(values, axis=0) == np.nanmin(values, axis=0)).sum())
    n = sums.shape[0]
    kinds, of_each = np.unique(sums, axis=0, return_counts=True)  # replies with the same labels are drawn together
    drawn = np.random.default_rng(0).multinomial(n, of_each / n, size=DRAWS) @ kinds
    alphas = np.array([a for a in map(_alpha, drawn) if not math.isnan(a)])
    interval = Interval(*np.quantile(alphas, [0.025, 0.975]).tolist()) if len(alphas) else Interval(math.nan, math.nan)
    return Agreement(_alpha(sums.sum(0)), interval, n, alike)


def _alpha(sums: Array) -> float:
    within, n, total, squares = (float(x) for x in sums)
    expected = 2 * (n * squares - total**2) / (n * (n - 1))
    return 1 - (within / n) / expected if expected > 1e-12 else math.nan
