"""What steering costs in ability: multiple choice and arithmetic, answered by the likelihood of each choice.

The items are bundled and were written for this. An item counts as right where its first answer has the highest mean
log probability per token after "The answer is" in the model's reply. Guessing gives a quarter. A small set: a drop of
two items is noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from demeanor.conversation import Message
from demeanor.model.contexts import Steering
from demeanor.model.reader import ActivationReader
from demeanor.steering.coherence import log_likelihoods
from demeanor.steering.dose import Plan

OPENING = "The answer is"
# question, the right answer first
ITEMS: tuple[tuple[str, tuple[str, str, str, str]], ...] = (
    ("Which animal barks?", ("A dog.", "A trout.", "A spider.", "A snail.")),
    ("What do bees make?", ("Honey.", "Milk.", "Wool.", "Silk.")),
    ("What is the capital of France?", ("Paris.", "Oslo.", "Cairo.", "Lima.")),
    ("What is frozen water called?", ("Ice.", "Steam.", "Sand.", "Smoke.")),
    ("Which planet do we live on?", ("Earth.", "Mars.", "Saturn.", "Neptune.")),
    ("What do plants need to grow?", ("Water and light.", "Petrol and salt.", "Paper and glue.", "Iron and soap.")),
    ("Which season comes after winter?", ("Spring.", "Autumn.", "Summer.", "Midnight.")),
    ("What colour is fresh grass?", ("Green.", "Purple.", "Silver.", "Black.")),
    ("What does a thermometer measure?", ("Temperature.", "Weight.", "Distance.", "Loudness.")),
    ("Which organ pumps the blood?", ("The heart.", "The liver.", "The skin.", "The stomach.")),
    ("What is the opposite of hot?", ("Cold.", "Tall.", "Loud.", "Round.")),
    ("In which room does one cook?", ("The kitchen.", "The bathroom.", "The garage.", "The attic.")),
    ("Who wrote Hamlet?", ("William Shakespeare.", "Albert Einstein.", "Marie Curie.", "Isaac Newton.")),
    ("What is the largest ocean?", ("The Pacific Ocean.", "The Arctic Ocean.", "The Baltic Sea.", "The Red Sea.")),
    ("Which of these is a fruit?", ("An apple.", "A hammer.", "A carpet.", "A violin.")),
    ("How many legs does a spider have?", ("Eight.", "Three.", "Five.", "Ninety.")),
    ("What is 2 + 3?", ("5", "7", "4", "9")),
    ("What is 10 - 4?", ("6", "8", "3", "7")),
    ("What is 3 * 3?", ("9", "6", "12", "8")),
    ("What is 8 / 2?", ("4", "6", "2", "5")),
    ("What is 7 + 6?", ("13", "12", "15", "11")),
    ("What is 20 - 5?", ("15", "25", "10", "14")),
    ("What is 4 * 5?", ("20", "9", "24", "25")),
    ("What is 100 / 10?", ("10", "20", "50", "1")),
    ("What is 12 + 12?", ("24", "22", "26", "14")),
    ("What is 50 + 50?", ("100", "50", "150", "200")),
    ("What is 9 - 9?", ("0", "18", "1", "9")),
    ("What is 6 * 7?", ("42", "36", "48", "13")),
    ("What is half of 18?", ("9", "8", "36", "6")),
    ("What is twice 15?", ("30", "25", "45", "17")),
    ("What is 11 + 8?", ("19", "18", "21", "88")),
    ("What is 30 - 12?", ("18", "22", "42", "16")),
)


def accuracy(reader: ActivationReader, plan: Plan | None = None, items: Sequence[tuple[str, tuple[str, ...]]] = ITEMS) -> float:
    """Share of the items answered rightly, under a plan where one is given."""
    prompts, replies = [], []
    for question, answers in items:
        ids = reader.encoder.prompt_ids([Message("user", question)]) + _tokens(reader, OPENING)
        for answer in answers:
            prompts.append(ids)
            replies.append(_tokens(reader, f" {answer}"))
    with Steering(reader.model, plan.interventions, blocks=reader.blocks) if plan is not None and plan.interventions else nullcontext():
        logs = log_likelihoods(reader, prompts, replies)
    right, at = 0, 0
    for _, answers in items:
        means = [float(each.mean()) for each in logs[at : at + len(answers)]]
        right += means[0] == max(means)
        at += len(answers)
    return right / len(items)


def _tokens(reader: ActivationReader, text: str) -> list[int]:
    return list(reader.tokenizer(text, add_special_tokens=False)["input_ids"])
