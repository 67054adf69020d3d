"""The statistics of a comparison, on arrays. Every prompt counts once; what is drawn and flipped is a group of related prompts.

    d_i      = mean of the new version's values on prompt i - mean of the first one's      [prompts]
    interval = 95 % bootstrap of mean d, groups drawn with replacement, all replies of a group together (BCa)
    p        = share of sign flips, a group's d_i together, with a mean at least as far from 0 (two-sided paired permutation test)
    effect   = mean d / root of the mean of both versions' variances over replies (Cohen's d of the two versions)

`groups` [prompts] says which prompts belong together, such as paraphrases of one question; left out, every prompt stands
for itself. The test assumes that the groups are unrelated and that, were there no difference, each group's d would be as likely with
the other sign.

Efron (1987) for BCa; Holm (1979); Clopper & Pearson (1934), with the effective sample size of Korn & Graubard (1998)
where a prompt has several replies. scipy and statsmodels do the work; no tensor comes here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from demeanor.measure.metrics import Array, Interval

ALPHA = 0.05
POWER = 0.8
DRAWS = 9999
_CELLS = 4_000_000  # numbers that are held at once while drawing
_JACKKNIFE = 2000  # prompts beyond which the correction of BCa is too small to be worth its n^2 work
_MOST = 10_000_000  # prompts beyond which a difference is as good as out of reach


def bootstrap_interval(d: Array, seed: int = 0, groups: NDArray[Any] | None = None) -> Interval | None:
    """95 % interval of the mean of `d` [prompts], one value a prompt; None for fewer than two groups."""
    sums, sizes = _by_group(d, groups)
    if len(sums) < 2:
        return None
    if np.ptp(d) == 0:
        return Interval(float(d[0]), float(d[0]))
    alone = len(sums) == len(d)
    found = stats.bootstrap(
        (d,) if alone else (sums, sizes), np.mean if alone else _mean_of_sums, paired=not alone, vectorized=True, n_resamples=DRAWS,
        batch=max(1, _CELLS // len(d)), method="BCa" if len(sums) <= _JACKKNIFE else "percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(float(found.low), float(found.high))


def permutation_p(d: Array, seed: int = 0, groups: NDArray[Any] | None = None) -> float:
    """Two-sided p of the sign-flip test on `d` [prompts]: exact for up to 13 groups, else by 9999 flips; 1 for one group."""
    sums, _ = _by_group(d, groups)  # a group's flip turns its sum, and the mean over prompts is these sums' mean but for a factor
    if len(sums) < 2 or not np.any(sums):
        return 1.0
    found = stats.permutation_test(
        (sums,), np.mean, permutation_type="samples", vectorized=True, n_resamples=DRAWS, batch=max(1, _CELLS // len(sums)),
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return min(1.0, float(found.pvalue))


def _by_group(d: Array, groups: NDArray[Any] | None) -> tuple[Array, Array]:
    """The sum of `d` in each group and its number of prompts [groups], in the order in which the groups first come."""
    if groups is None:
        return np.asarray(d, float), np.ones(len(d))
    _, first, at = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return np.asarray(np.bincount(at, d)[order], float), np.asarray(np.bincount(at)[order], float)


def _mean_of_sums(sums: Array, sizes: Array, axis: int = -1) -> Array:
    return np.asarray(sums.sum(axis) / sizes.sum(axis))


def smallest_p(prompts: int) -> float:
    """The smallest p that so many prompts, or groups of them, can give."""
    return max(2.0 ** (1 - prompts), 2 / (DRAWS + 1)) if prompts else 1.0


def fewest_prompts(tests: int) -> int | None:
    """How many prompts it takes before any difference can be found among so many tests; None where no number does."""
    return next((n for n in range(2, 100) if smallest_p(n) * tests < ALPHA), None)


def holm(p: list[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    return [float(x) for x in multipletests(p, method="holm")[1]] if p else []


def effect_size(before: Array, after: Array, difference: float) -> float | None:
    """`difference` in units of the spread of replies within a version; None where there is no spread to see."""
    if len(before) < 2 or len(after) < 2:
        return None
    spread = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / 2)
    return difference / spread if spread > 0 else None


def prompts_needed(d: Array, size: float, tests: int = 1, groups: NDArray[Any] | None = None) -> int | None:
    """Prompts by which a mean difference of `size` is found with 80 % power, in the strictest of Holm's `tests` steps.

    Rests on the spread of `d`, so it holds for prompts, numbers of replies and groups like those at hand. None where `d` does not
    vary, or where more than ten million would be needed.
    """
    sums, sizes = _by_group(d, groups)
    if len(sums) < len(d):  # as many groups as would be needed of their means, and their prompts
        each = float(sizes.mean())
        needed = prompts_needed((sums - sizes * d.mean()) / each, size, tests) if len(sums) > 1 else None
        return None if needed is None else math.ceil(needed * each)
    if len(d) < 2 or np.ptp(d) == 0:
        return None
    standardised, test = abs(size) / float(d.std(ddof=1)), TTestPower()

    def enough(n: int) -> bool:
        power = float(test.power(standardised, n, ALPHA / tests))
        return power >= POWER or math.isnan(power)  # NaN where the effect is so large that its tail cannot be computed

    fewest = fewest_prompts(tests)
    if fewest is None:
        return None
    high = max(4, fewest)
    while not enough(high):
        high *= 2
        if high > _MOST:
            return None
    low = fewest
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def share_interval(flags: NDArray[np.bool_], groups: NDArray[np.int64], weights: Array | None = None) -> Interval:
    """Exact 95 % interval of the share of flagged replies [replies]; `groups` says which prompt each answers, or which group
    of related ones.

    With one reply a group it is Clopper and Pearson's. Replies of one group are alike, so several count for fewer: the
    sample is then taken as n over the design effect, and at least the number of groups. With weights it is the population's share, and
    the sample counts for Kish's (sum of w)^2 / sum of w^2 groups.
    """
    if weights is None:
        share, effective = float(flags.mean()), _effective(flags, groups)
    else:
        heavy = np.bincount(groups, weights)
        share, effective = float(np.average(flags, weights=weights)), float(heavy.sum() ** 2 / (heavy**2).sum())
    low, high = proportion_confint(share * effective, effective, alpha=ALPHA, method="beta")
    return Interval(float(low), float(high))


def share_at_most(flags: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    """The share of flagged replies that is not exceeded with 95 % confidence: the upper end of the exact one-sided interval."""
    share, effective = float(flags.mean()), _effective(flags, groups)
    return float(proportion_confint(share * effective, effective, alpha=2 * ALPHA, method="beta")[1])


def fewest_for(share: float) -> int:
    """How many unrelated replies it takes, none of them flagged, before at most such a share can be promised with 95 % confidence."""
    return math.ceil(math.log(ALPHA) / math.log1p(-share))


def _effective(flags: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    """The number of unrelated replies that these are worth."""
    n, share = len(flags), float(flags.mean())
    sizes = np.bincount(groups)
    prompts = int((sizes > 0).sum())
    effective = float(prompts)
    if 0 < share < 1 and 1 < prompts < n:
        residuals = np.bincount(groups, flags - share)
        clustered = prompts / (prompts - 1) * float((residuals**2).sum()) / n**2
        effective = min(float(n), max(prompts, share * (1 - share) / clustered)) if clustered > 0 else float(n)
    return effective


def at_equal_length(d: Array, log_ratio: Array, groups: NDArray[Any] | None = None) -> tuple[float, Interval] | None:
    """The difference where both replies are equally long: the intercept of d on the log ratio of their lengths [prompts].

    Least squares with HC3 errors, or with errors clustered by group. None for fewer than ten groups, or where the lengths hardly
    differ from prompt to prompt.
    """
    sums, _ = _by_group(d, groups)
    if len(sums) < 10 or log_ratio.std() < 0.02 or np.ptp(d) == 0:
        return None
    errors: dict[str, Any] = {"cov_type": "HC3"}
    if groups is not None and len(sums) < len(d):
        errors = {"cov_type": "cluster", "cov_kwds": {"groups": np.unique(groups, return_inverse=True)[1]}}
    with np.errstate(all="ignore"):
        fitted = sm.OLS(d, sm.add_constant(log_ratio, has_constant="add")).fit(use_t=True, **errors)
        low, high = fitted.conf_int(ALPHA)[0]
    found = [float(x) for x in (fitted.params[0], low, high)]
    return (found[0], Interval(found[1], found[2])) if all(map(math.isfinite, found)) else None
