"""Whether a fit is better than the pack's vector on prompts that it was not fitted to, by more than noise and more than length.

    gain   = AUROC of the out-of-fold scores - AUROC of the pack's scores, on the same replies
    error  = delete-one-prompt jackknife: root of (G - 1) / G * sum over prompts of (gain without it - their mean)^2
    lower  = gain - t(level, G - 1) * error          (one-sided; few prompts give a large t and a large error)

Length: replies to one prompt are often alike in length, and few prompts may let length go with the label. So both scores are taken anew
less what log length explains of them within a pole (the slope of score on label and log length; the label's own share stays), and the
gain must still be there. Obuchowski (1997) for AUROCs of clustered data, by the jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demeanor.conversation import Conversation, SpanOf
from demeanor.data.labelled import FEWEST_GROUPS
from demeanor.measure.metrics import Array, weighted_auroc

CLEAR = 0.9
"""One-sided confidence with which the gain must be above 0."""
HOLDS = 0.7
"""The same with length taken out, where one noise is added to the other."""
FEWEST_REPLIES = 3  # of a kind, under which an AUROC says nothing


@dataclass(frozen=True)
class Gain:
    """How much better the fit does than the pack's vector, in AUROC on prompts left out."""

    value: float
    lower: float
    """With 90 % confidence the gain is above this; minus infinity where the prompts are too few to tell."""
    value_less_length: float
    lower_less_length: float
    """With 70 % confidence."""
    prompts: int

    @property
    def clear(self) -> bool:
        """Whether it is clear of noise and of length."""
        return self.lower > 0 and self.lower_less_length > 0

    @property
    def words(self) -> str:
        """Why the one or the other vector is kept."""
        if math.isinf(self.lower):
            return f"{self.prompts} prompt(s) are too few to tell how the fit would do on others"
        found = f"on prompts left out the fit does {self.value:+.2f} AUROC against the pack's vector (at least {self.lower:+.2f}, 90 %)"
        less = f"{self.value_less_length:+.2f} with length taken out (at least {self.lower_less_length:+.2f}, 70 %)"
        if self.clear:
            return f"{found}, {less}"
        if self.lower <= 0:
            return f"{found}: not clear of noise with {self.prompts} prompts"
        return f"{found}, but {less}: not clear of length"


def gain_of(fitted: Array, pack: Array, high: NDArray[np.bool_], group: NDArray[Any], length: Array, weights: Array | None = None) -> Gain:
    """The gain of out-of-fold scores over the pack's, replies to a prompt together; `length` is the log of each text's words [rows].

    `weights` are for how much each reply counts [rows]; by default all count alike.
    """
    plain = _jackknife(fitted, pack, high, group, None, weights)
    less = _jackknife(fitted, pack, high, group, length, weights)
    prompts = len(np.unique(group))
    return Gain(plain[0], _lower(*plain, prompts, CLEAR), less[0], _lower(*less, prompts, HOLDS), prompts)


def log_words(conversations: Sequence[Conversation], reads: SpanOf) -> Array:
    """The log of how many words are read of each [rows]."""
    texts = [c.messages[c.last("user" if reads == "user" else "assistant")].content for c in conversations]
    return np.log1p([len(text.split()) for text in texts])


def _jackknife(
    fitted: Array, pack: Array, high: NDArray[np.bool_], group: NDArray[Any], length: Array | None, weights: Array | None
) -> tuple[float, float]:
    """The gain and its standard error; an infinite one where it cannot be known."""
    everything = np.ones(len(high), bool)
    value = _difference(fitted, pack, high, length, everything, weights)
    prompts = np.unique(group)
    if len(prompts) < FEWEST_GROUPS or min(high.sum(), (~high).sum()) < FEWEST_REPLIES:
        return value, math.inf
    without = []
    for prompt in prompts:
        rest = group != prompt
        if high[rest].all() or not high[rest].any():
            return value, math.inf
        without.append(_difference(fitted, pack, high, length, rest, weights))
    spread = np.array(without) - np.mean(without)
    return value, math.sqrt((len(prompts) - 1) / len(prompts) * float((spread**2).sum()))


def _lower(value: float, error: float, prompts: int, level: float) -> float:
    if math.isinf(error):
        return -math.inf
    from scipy.stats import t

    return value - float(t.ppf(level, prompts - 1)) * error


def _difference(
    fitted: Array, pack: Array, high: NDArray[np.bool_], length: Array | None, rows: NDArray[np.bool_], weights: Array | None
) -> float:
    """AUROC of the fit less that of the pack, on some rows."""
    found = []
    for scores in (fitted, pack):
        s = scores[rows] if length is None else _less_length(scores[rows], high[rows], length[rows])
        found.append(weighted_auroc(s, high[rows], None if weights is None else weights[rows]))
    return found[0] - found[1]


def _less_length(scores: Array, high: NDArray[np.bool_], length: Array) -> Array:
    """Scores less their slope on length within a pole."""
    within = length - np.where(high, length[high].mean(), length[~high].mean())
    power = float(within @ within)
    return scores if power < 1e-12 else scores - float(within @ scores) / power * length
