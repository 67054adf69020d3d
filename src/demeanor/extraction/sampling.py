"""Which unlabelled replies a clinician should label next: spread over the score's range and over prompts, no near-duplicates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from demeanor.keys import folded
from demeanor.measure.metrics import Array

ALIKE = 0.6  # share of common words (Jaccard) from which on two replies count as the same


def choose_to_label(scores: Array, texts: Sequence[str], groups: Sequence[str], n: int) -> list[int]:
    """Indices of up to `n` replies to label, in an order that hides their scores.

    The scores' range is cut into as many equally filled bins as replies are wanted (so that rare high and low scores are seen as well as
    the middle), and from each bin that reply is taken whose prompt has been used least; near-duplicates of one already
    taken are passed over.
    """
    order = np.argsort(scores, kind="stable")
    words = [frozenset(re.findall(r"\w+", folded(t))) for t in texts]
    used: Counter[str] = Counter()
    chosen: list[int] = []

    def fresh(i: int) -> bool:
        return all(len(words[i] & words[j]) < ALIKE * max(1, len(words[i] | words[j])) for j in chosen)

    for part in np.array_split(order, min(n, len(order))):
        for i in sorted(part.tolist(), key=lambda i: used[groups[i]]):
            if fresh(i):
                chosen.append(i)
                used[groups[i]] += 1
                break
    for i in order[np.argsort(np.abs(np.arange(len(order)) - len(order) / 2), kind="stable")].tolist():
        if len(chosen) >= n:
            break
        if i not in chosen and fresh(i):
            chosen.append(i)
    return [int(i) for i in np.random.default_rng(0).permutation(chosen)]
