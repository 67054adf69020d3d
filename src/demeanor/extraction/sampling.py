"""Which unlabelled replies a clinician should label next: spread over the score's range and over prompts, no near-duplicates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from demeanor.keys import folded
from demeanor.measure.metrics import Array

ALIKE = 0.6  # share of common words (Jaccard) from which on two replies count as the same


def choose_to_label(scores: Array, texts: Sequence[str], groups: Sequence[str], n: int, seed: int = 0) -> list[int]:
    """Indices of up to `n` replies to label, in an order that hides their scores; another `seed` gives others.

    The scores' range is cut into as many equally filled bins as replies are wanted (so that rare high and low scores are seen as well as
    the middle), and from each bin that reply is taken whose prompt has been used least; near-duplicates of one already
    taken are passed over.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(scores, kind="stable")
    words = [frozenset(re.findall(r"\w+", folded(t))) for t in texts]
    used: Counter[str] = Counter()
    chosen: list[int] = []

    def fresh(i: int) -> bool:
        return all(len(words[i] & words[j]) < ALIKE * max(1, len(words[i] | words[j])) for j in chosen)

    for part in np.array_split(order, min(n, len(order))):
        for i in sorted(rng.permutation(part).tolist(), key=lambda i: used[groups[i]]):
            if fresh(i):
                chosen.append(i)
                used[groups[i]] += 1
                break
    for i in order[np.argsort(np.abs(np.arange(len(order)) - len(order) / 2), kind="stable")].tolist():
        if len(chosen) >= n:
            break
        if i not in chosen and fresh(i):
            chosen.append(i)
    return [int(i) for i in rng.permutation(chosen)]


def in_turn(choices: Sequence[Sequence[int]], n: int) -> list[int]:
    """Up to `n` different indices: of each choice the first, then of each the second, and so on."""
    mixed = (choice[i] for i in range(max(map(len, choices), default=0)) for choice in choices if i < len(choice))
    return list(dict.fromkeys(mixed))[:n]


def mixed_in(many: int, few: int, n: int, share: float) -> tuple[int, int]:
    """How many to take of two pools of these sizes: up to `n` together, of which `share` (below 1) are of the second."""
    first = min(many, n - round(n * share))
    return first, min(few, n - first, round(first * share / (1 - share)))
