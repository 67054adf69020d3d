"""Lint for trait packs: what besides the trait tells the poles apart, and what is missing.

A direction learns whatever separates the poles. So everything that should not separate them is measured in every
split by the AUROC of a simple count (0.5 is balance), and by a bag of words that is trained on the train split and
tried on the others. The bounds stand below; a pack with few pairs is noted where a bound cannot be judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sklearn.metrics import roc_auc_score

from demeanor.traits.definition import SPLITS, ContrastPair, TraitDefinition
from demeanor.traits.words import words_auroc

BALANCE = 0.05  # how far a count's AUROC may lie from 0.5
ENOUGH = 16  # pairs in a split from which on its balance is judged
MAX_WORDS_AUROC = 0.75
LENGTH_RATIO = 1.25
SHARED = 0.15  # share of five-word runs from which on two pairs are near-duplicates
WANTED = {"train": 24, "calibration": 8, "test": 12}

_FIRST_PERSON = re.compile(r"(i|i'm|i've|i'd|i'll|my|im|ive)\b", re.IGNORECASE)
_HOTLINE = re.compile(r"\b(988|911|999|112|116 ?123|111|hotline|helpline|lifeline|crisis line|samaritans)\b", re.IGNORECASE)
COUNTS: dict[str, Callable[[str], float]] = {
    "words": lambda t: len(t.split()),
    "characters": len,
    "question marks": lambda t: t.count("?"),
    "exclamation marks": lambda t: t.count("!"),
    "first-person openings": lambda t: bool(_FIRST_PERSON.match(t)),
    "hotlines and numbers": lambda t: bool(_HOTLINE.search(t)),
    "paragraph breaks": lambda t: t.count("\n\n"),
    "sentences": lambda t: len(re.findall(r"[.!?]+", t)),
}


@dataclass(frozen=True)
class Lint:
    """What was found: a line on the pack as a whole, what to mend, and what is worth knowing."""

    summary: str
    problems: list[str]
    notes: list[str]


def lint_trait(trait: TraitDefinition) -> Lint:
    """Measure one trait's pack."""
    if not trait.pairs:
        high, low = len(trait.high_trait_prompts), len(trait.low_trait_prompts)
        return Lint(
            f"{high} high and {low} low texts without pairs", [], ["texts without pairs cannot be checked for balance; contrast pairs can"]
        )
    problems: list[str] = []
    notes: list[str] = []
    by_split = {split: [p for p in trait.pairs if trait.splits[p.family] == split] for split in SPLITS}
    for split, pairs in by_split.items():
        if len(pairs) < WANTED[split]:
            notes.append(f"{split}: {len(pairs)} pairs; {WANTED[split]} or more give numbers worth reading")
        if len(pairs) >= ENOUGH:
            problems += [f"{split}: {line}" for line in _unbalanced(pairs)]
    problems += _length_ratios(trait.pairs)
    problems += _near_duplicates(trait.pairs)
    for split in ("calibration", "test"):
        if len(by_split["train"]) >= ENOUGH and len(by_split[split]) >= ENOUGH:
            value = words_auroc(*_labelled(by_split["train"]), *_labelled(by_split[split]))
            line = f"a bag of words trained on train tells {split} apart with AUROC {value:.2f}"
            if split == "test" and value > MAX_WORDS_AUROC:
                problems.append(f"{line}, over {MAX_WORDS_AUROC}: use the same words on both poles")
            else:
                notes.append(line)
    if not any(p.hard for p in trait.pairs):
        notes.append("no pair is marked hard; pairs whose surface and substance disagree show what a vector really reads")
    counts = ", ".join(f"{len(pairs)} {split}" for split, pairs in by_split.items())
    hard = sum(p.hard for p in trait.pairs)
    return Lint(f"{len(trait.pairs)} pairs ({counts}), {len(trait.splits)} families, {hard} hard", problems, notes)


def _labelled(pairs: Iterable[ContrastPair]) -> tuple[list[str], list[bool]]:
    pairs = list(pairs)
    return [p.high for p in pairs] + [p.low for p in pairs], [True] * len(pairs) + [False] * len(pairs)


def _unbalanced(pairs: list[ContrastPair]) -> list[str]:
    texts, labels = _labelled(pairs)
    found = []
    for name, count in COUNTS.items():
        value = float(roc_auc_score(labels, [float(count(t)) for t in texts]))
        if abs(value - 0.5) > BALANCE + 1e-9:
            side = "high" if value > 0.5 else "low"
            found.append(f"{name} lean to the {side} pole (AUROC {value:.2f}, wanted {0.5 - BALANCE:.2f} to {0.5 + BALANCE:.2f})")
    return found


def _length_ratios(pairs: Iterable[ContrastPair]) -> list[str]:
    found = []
    for pair in pairs:
        a, b = len(pair.high.split()), len(pair.low.split())
        if max(a, b) > LENGTH_RATIO * max(1, min(a, b)) and abs(a - b) > 2:
            found.append(f"pair {pair.id}: {a} against {b} words; bring them within a quarter of each other")
    return found


def _near_duplicates(pairs: Iterable[ContrastPair]) -> list[str]:
    runs = [(pair, _runs(" ".join([*(m.content for m in pair.context), pair.high]))) for pair in pairs]
    holders: dict[tuple[str, ...], list[int]] = {}
    for i, (_, found) in enumerate(runs):
        for run in found:
            holders.setdefault(run, []).append(i)
    shared: dict[tuple[int, int], int] = {}
    for members in holders.values():
        for a in range(len(members)):
            for b in range(a + 1, len(members)):
                shared[members[a], members[b]] = shared.get((members[a], members[b]), 0) + 1
    return [
        f"pairs {runs[a][0].id} and {runs[b][0].id} are near-duplicates; rewrite one"
        for (a, b), count in sorted(shared.items())
        if count / min(len(runs[a][1]), len(runs[b][1])) > SHARED
    ]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}
