"""The lint finds each giveaway that is planted in an otherwise balanced pack."""

import random

import pytest

from demeanor.conversation import Message
from demeanor.traits import ContrastPair, TraitDefinition, load, names
from demeanor.traits.definition import Split
from demeanor.traits.lint import lint_trait

PAIRS: dict[Split, int] = {"train": 24, "calibration": 16, "test": 16}
WORDS = [a + b for a in ("bra", "mo", "ki", "lu", "ste", "po", "fen", "tra", "gul", "wi") for b in ("ven", "sk", "lan", "pe", "dor", "mil")]


def balanced(change=lambda i, high, low: (high, low)):
    """A pack of random words whose poles differ in nothing that is counted; `change` plants something in pair i."""
    rng = random.Random(0)
    pairs: list[ContrastPair] = []
    splits: dict[str, Split] = {}
    for split, count in PAIRS.items():
        for _ in range(count):
            i = len(pairs)
            high, low = (" ".join(rng.sample(WORDS, 10)) for _ in range(2))
            low = low[: len(high)].rstrip().ljust(len(high), "a")
            if i % 2:
                high, low = low, high
            high, low = change(i, high, low)
            context = (Message("user", " ".join(rng.sample(WORDS, 8))),)
            pairs.append(ContrastPair(f"p-{i}", context, high, low, f"{split}-{i % 4}", hard=i % 5 == 0))
            splits[f"{split}-{i % 4}"] = split
    return TraitDefinition("planted", "d", pairs=tuple(pairs), splits=splits)


def problems(change):
    return lint_trait(balanced(change)).problems


def test_a_balanced_pack_has_nothing_to_mend():
    found = lint_trait(balanced())
    assert found.problems == []
    assert found.summary == "56 pairs (24 train, 16 calibration, 16 test), 12 families, 12 hard"


def test_a_lean_in_length_is_found_in_every_split():
    found = problems(lambda i, high, low: (high + " ven", low))
    for split in PAIRS:
        assert any(line.startswith(f"{split}: words lean to the high pole") for line in found)
        assert any(line.startswith(f"{split}: characters lean to the high pole") for line in found)


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (lambda text: text[:-1] + "?", "question marks"),
        (lambda text: text[:-1] + "!", "exclamation marks"),
        (lambda text: text[:-1] + ".", "sentences"),
        (lambda text: text[:-1].replace(" ", "\n\n", 1), "paragraph breaks"),
    ],
)
def test_a_lean_in_marks_is_found(plant, name):
    found = problems(lambda i, high, low: (high, plant(low)) if i % 2 else (high, low))
    assert any(f"{name} lean to the low pole" in line for line in found)
    assert not any("words lean" in line or "characters lean" in line for line in found)


@pytest.mark.parametrize(("opening", "name"), [("I'm ", "first-person openings"), ("call 988 ", "hotlines and numbers")])
def test_a_lean_in_openings_and_numbers_is_found(opening, name):
    found = problems(lambda i, high, low: (opening + high, "xx " + low))
    assert any(f"train: {name} lean to the high pole (AUROC 1.00" in line for line in found)


def test_one_pair_of_unequal_length_is_named():
    found = problems(lambda i, high, low: (high, low + " ven" * 6) if i == 7 else (high, low))
    assert [line for line in found if line.startswith("pair ")] == [
        "pair p-7: 10 against 16 words; bring them within a quarter of each other"
    ]


def test_near_duplicates_are_named():
    twin = " ".join(WORDS[:10])
    found = problems(lambda i, high, low: (twin, low) if i in (3, 9) else (high, low))
    assert [line for line in found if "near-duplicates" in line] == ["pairs p-3 and p-9 are near-duplicates; rewrite one"]


def test_a_word_that_gives_the_pole_away_is_found():
    found = problems(lambda i, high, low: (high + " sorry", low + " sadly"))
    assert [line for line in found if "bag of words" in line] == [
        "a bag of words trained on train tells test apart with AUROC 1.00, over 0.75: use the same words on both poles"
    ]


def test_a_small_pack_is_noted_and_not_judged():
    pairs = tuple(ContrastPair(f"p-{i}", (), f"{WORDS[i]}?", WORDS[i + 9], f"f-{i}") for i in range(5))
    found = lint_trait(TraitDefinition("small", "d", pairs=pairs))
    assert found.problems == []
    assert any(note.startswith("test: 1 pairs; 12 or more") for note in found.notes)
    assert any("no pair is marked hard" in note for note in found.notes)


def test_lists_of_texts_cannot_be_checked_and_say_so():
    found = lint_trait(TraitDefinition("lists", "d", ["a"], ["b", "c"]))
    assert found.summary == "1 high and 2 low texts without pairs"
    assert "cannot be checked" in found.notes[0]


@pytest.mark.slow
def test_built_in_packs_can_be_linted():
    assert all(lint_trait(load(name)).summary.endswith("hard") for name in names())
