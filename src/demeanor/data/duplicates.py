"""Near-duplicates among replies: those that share most of their words with an earlier one.

    alike = words in common / words in either >= 0.7     (Jaccard, case and order aside)

Candidates are found by MinHash with banding (Broder 1997): 24 bands of 4 hashes, so that a pair at 0.7 is looked at with
probability 0.998, and the words themselves decide. The index holds a bounded number of replies, the first ones.
"""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.7
MOST = 20_000
Words = NDArray[np.uint64]
_BANDS, _ROWS = 24, 4
_PRIME = np.uint64(4_294_967_311)  # just above 2 ** 32, so that products fit 64 bits
_DRAWN = np.random.default_rng(0)
_A, _B = (_DRAWN.integers(1, 1 << 31, size=(_BANDS * _ROWS, 1), dtype=np.uint64) for _ in range(2))


def words_of(text: str) -> Words:
    """The different words of a text, hashed and sorted [words]."""
    return np.array(sorted({zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in re.findall(r"\w+", text.lower())}), np.uint64)


def bands(words: Words) -> list[bytes]:
    """What two texts that are alike have at least one of in common; empty where there are no words."""
    if not len(words):
        return []
    signature = ((_A * words + _B) % _PRIME).min(axis=1)
    return [bytes([i]) + signature[i * _ROWS : (i + 1) * _ROWS].tobytes() for i in range(_BANDS)]


def alike(words: Words, others: Words) -> bool:
    """Whether two texts share most of their words."""
    common = len(np.intersect1d(words, others, assume_unique=True))
    return common >= ALIKE * (len(words) + len(others) - common)


class NearDuplicates:
    """Asked about replies one after the other, worst first, names an earlier one that a reply repeats."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._words: dict[int, Words] = {}
        self._bands: dict[bytes, list[int]] = {}
        self.sizes: dict[int, int] = {}
        """Row of the worst of each group, and how many repeat it (itself not counted)."""

    def first_of(self, row: int, text: str) -> int | None:
        """The row that this one repeats; None where there is none, and then later ones may repeat it."""
        words = words_of(text)
        keys = bands(words)
        for other in sorted({c for key in keys for c in self._bands.get(key, ())}):
            if alike(words, self._words[other]):
                self.sizes[other] = self.sizes.get(other, 0) + 1
                return other
        if keys and len(self._words) < self._most:
            self._words[row] = words
            for key in keys:
                self._bands.setdefault(key, []).append(row)
        return None
