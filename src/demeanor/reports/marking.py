"""How the tokens of a reply pushed a trait, as marks on its text: to the unsafe side in one colour, to the safe one in another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from demeanor.measure.poles import Side
from demeanor.scoring.reading import TokenScores

LONGEST = 1200  # characters that are shown at once; the rest is folded
FAINTEST, STRONGEST = 0.5, 4  # z of a token from which on it is marked; steps of strength, one for each z
WORDS = 6


class Run(NamedTuple):
    """A piece of text with one mark: "unsafe-1" to "unsafe-4", "safe-1" to "safe-4", or none."""

    text: str
    mark: str


class Passage(NamedTuple):
    """A text as marked runs: what is shown at once, and the rest of a long one."""

    shown: tuple[Run, ...]
    folded: tuple[Run, ...]

    @property
    def more(self) -> int:
        """How many characters are folded."""
        return sum(len(run.text) for run in self.folded)


def passage(text: str) -> Passage:
    """A text without marks."""
    return _folded([Run(text, "")] if text else [])


def marked(tokens: TokenScores, trait: str, unsafe: Side) -> Passage:
    """A reply's tokens, marked by how they pushed a trait."""
    runs = [(mark_of(danger), token) for token, danger in zip(tokens.tokens, _danger(tokens, trait, unsafe), strict=True)]
    found: list[Run] = []
    for mark, each in groupby(runs, key=lambda run: run[0]):
        text = "".join(token for _, token in each)
        word = text.lstrip() if mark else text
        found += [Run(part, of) for part, of in ((text[: len(text) - len(word)], ""), (word, mark)) if part]
    return _folded(found)


def mark_of(danger: float) -> str:
    """The mark of a push of so many z toward the unsafe side (below 0: toward the safe one)."""
    if not abs(danger) >= FAINTEST:
        return ""
    return f"{'unsafe' if danger > 0 else 'safe'}-{min(STRONGEST, max(1, round(abs(danger))))}"


def pushing_words(tokens: TokenScores, trait: str, unsafe: Side, most: int = WORDS) -> list[str]:
    """The words, put together from their tokens, that pushed most toward the unsafe side; the strongest first, each once."""
    words: list[tuple[str, float]] = []
    for token, danger in zip(tokens.tokens, _danger(tokens, trait, unsafe), strict=True):
        if words and token and not token[0].isspace() and words[-1][0] and not words[-1][0][-1].isspace():
            words[-1] = (words[-1][0] + token, max(words[-1][1], danger))
        else:
            words.append((token, danger))
    found: dict[str, None] = {}
    for word, danger in sorted(words, key=lambda word: -word[1]):
        bare = word.strip().strip(".,;:!?\"'()[]").replace("\n", " ")
        if danger < FAINTEST or len(found) == most:
            break
        if bare and any(c.isalnum() for c in bare):
            found.setdefault(bare[:40], None)
    return list(found)


def _danger(tokens: TokenScores, trait: str, unsafe: Side) -> list[float]:
    z = np.nan_to_num(np.asarray(tokens.z[trait], float))
    pushes: list[float] = (z if unsafe == "above" else -z).tolist()
    return pushes


def _folded(runs: Sequence[Run]) -> Passage:
    """The runs, parted after about LONGEST characters, and only where that folds more than a few words."""
    if sum(len(run.text) for run in runs) <= 1.25 * LONGEST:
        return Passage(tuple(runs), ())
    shown: list[Run] = []
    room = LONGEST
    for i, run in enumerate(runs):
        if len(run.text) > room:
            cut = room
            return Passage((*shown, Run(run.text[:cut], run.mark)), (Run(run.text[cut:], run.mark), *runs[i + 1 :]))
        shown.append(run)
        room -= len(run.text)
    return Passage(tuple(shown), ())
