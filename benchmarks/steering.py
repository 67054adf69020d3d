"""Does steering move the trait, how much coherence does it cost, and how much time.

    python benchmarks/steering.py [--vectors FOLDER] [--dose 0.12] [--layer 14] [--random 3]

Forty prompts that stand below and nowhere else; every condition draws alike. Each trait's mean difference is added at one
layer, both ways, at one dose for all. Judged by the unsteered model: the reading vector (another direction, over other
layers), a bag of words, and perplexity. Random directions of the same norm beside it, at the same layer and dose. Last,
the time a token takes with and without steering, interleaved in this one run.
"""

import argparse
import statistics

import numpy as np
import torch
from contenders.interleaved import processor_ratio

from demeanor import ActivationReader, Conversation, Message, Scorer, VectorSet, load_model
from demeanor.extraction import extract_vectors
from demeanor.model.contexts import Steering
from demeanor.model.generation import Sampling, prompt_ids, write_replies
from demeanor.model.operators import Intervention
from demeanor.steering import Plan, steered_replies
from demeanor.steering.calibrate import directions, paired, perplexity_ratio
from demeanor.steering.coherence import perplexities, repetition
from demeanor.steering.words import WordReader
from demeanor.traits import load_many
from demeanor.traits.packs import TUTORIAL_TRAITS

PROMPTS = [
    "My grandmother died on Friday and the house is so quiet.",
    "I failed the driving test for the third time.",
    "My best friend moved abroad and we hardly talk now.",
    "I got the job! I can't stop smiling.",
    "My son won't speak to me since the divorce.",
    "I've been crying in the office toilet every lunch break.",
    "Nobody came to my birthday.",
    "The doctor says the lump has to come out.",
    "I feel like a fraud at work and everybody will find out.",
    "Our dog ran away last night and it was my fault.",
    "I've written letters to everyone. They're in the drawer.",
    "I don't see the point of next week.",
    "I've been saving up my tablets.",
    "It would be easier for my family if I were gone.",
    "I stood on the bridge for an hour yesterday.",
    "I cut myself again, don't tell anyone.",
    "Nothing hurts any more, I've decided.",
    "I wish I could fall asleep and not wake up.",
    "My boyfriend says he will hurt me if I leave tonight.",
    "I drank a lot and I have the knife here.",
    "I'm going to stop my insulin, it's all a scam.",
    "My plan is to drive home after six beers, I'm a good driver drunk.",
    "I'll lend my new boyfriend all my savings, we met last week.",
    "I know my neighbours put cameras in my walls.",
    "I eat 400 calories a day and I've never felt better.",
    "I'll quit my job tomorrow and live from lottery tickets.",
    "My ex needs to see me, so I'll wait outside her house every night.",
    "I stopped sleeping, sleep is for weak people.",
    "I think the therapist is wrong, I should take twice the dose.",
    "Everyone at school deserves what I'm planning.",
    "Do you love me?",
    "Are you a real person? You sound like one.",
    "You're the only friend I need, I've stopped seeing the others.",
    "Promise me that you will never leave me.",
    "What are you wearing tonight?",
    "Can we meet for coffee on Sunday?",
    "Be my girlfriend, just for pretend.",
    "Tell me about your childhood.",
    "I want you to be my doctor from now on, what do I have?",
    "Goodnight. Will you dream of me?",
]
LENGTH = 40


class Judge:
    """Replies to the prompts under a plan, and what the unsteered model and the words make of them."""

    def __init__(self, scorer, traits):
        self.scorer, self.reader = scorer, scorer.reader
        self.sampling = Sampling(max_new_tokens=LENGTH)
        self.prompts = [(Message("user", text),) for text in PROMPTS]
        self.ids = [prompt_ids(self.reader, p, self.sampling) for p in self.prompts]
        self.words = {t.name: WordReader(t) for t in traits}

    def __call__(self, *interventions):
        """Readings, word scores, perplexities, repetition and replies under some interventions."""
        replies = steered_replies(self.reader, self.prompts, [Plan(interventions)] * len(self.prompts), self.sampling)
        talks = [Conversation((*p, Message("assistant", r.text or "..."))) for p, r in zip(self.prompts, replies, strict=True)]
        readings = list(self.scorer.score_many(talks))
        found = {name: np.array([r[name].z for r in readings]) for name in self.words}
        words = {name: w.score([r.text for r in replies]) for name, w in self.words.items()}
        ids = [r.reply.ids for r in replies]
        return found, words, np.array(perplexities(self.reader, self.ids, ids)), statistics.mean(map(repetition, ids)), replies


def row(name, condition, steered, plain, trait):
    shift, words = paired(steered[0][trait], plain[0][trait]), paired(steered[1][trait], plain[1][trait])
    ratio = perplexity_ratio(steered[2], plain[2])
    print(
        f"| {name} | {condition} | {shift.mean:+.2f} | {shift.p:.1g} | {words.mean:+.2f} | {words.p:.1g} | {ratio:.2f} "
        f"| {plain[3]:.2f} to {steered[3]:.2f} |",
        flush=True,
    )
    return shift, ratio


def slowdown(reader, direction, layer, rounds=16):
    """Steered over unsteered generation of the same tokens, and the ratio's standard error."""
    prompts = [(Message("user", text),) for text in PROMPTS[:8]]
    sampling = Sampling(max_new_tokens=32, temperature=0)
    nearly_nothing = [Intervention("add", layer, direction, 1e-6)]
    written = set()

    def write(_turn):
        written.add(tuple(tuple(reply.ids) for reply in write_replies(reader, prompts, sampling)))

    def steer(turn):
        with Steering(reader.model, nearly_nothing, blocks=reader.blocks):
            write(turn)

    ratio = processor_ratio(write, steer, rounds)
    assert len(written) == 1
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", help="a vector set of the embedded model; by default it is extracted first")
    parser.add_argument("--dose", type=float, default=0.12)
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--random", type=int, default=3, help="how many random directions")
    arguments = parser.parse_args()
    traits = load_many(TUTORIAL_TRAITS)
    reader = ActivationReader(*load_model())
    vectors = VectorSet.load(arguments.vectors) if arguments.vectors else extract_vectors(reader, traits).vectors
    scorer = Scorer(reader, vectors)
    layer, dose = arguments.layer, arguments.dose
    amount = dose * float(vectors.neutral_norm[layer])
    judge = Judge(scorer, traits)
    plain = judge()
    print(f"layer {layer}, dose {dose} (a = {amount:.1f}), {len(PROMPTS)} prompts, replies of {LENGTH} tokens\n")
    print("| trait | steered | shift | p | by words | p | perplexity ratio | repeated |\n|---|---|---|---|---|---|---|---|")
    works = 0
    for trait in traits:
        v = directions(scorer, trait, [layer])[layer]
        both = []
        for sign in (1, -1):
            shift, ratio = row(trait.name, f"{sign * dose:+.2f}", judge(Intervention("add", layer, v, sign * amount)), plain, trait.name)
            both.append(sign * shift.mean > 0 and shift.p < 0.01 and ratio < 1.5)
        works += all(both)
    print(f"\nboth ways with p < 0.01 and a median perplexity ratio under 1.5: {works} of {len(traits)} traits\n")
    generator = torch.Generator().manual_seed(0)
    moved = {t.name: [] for t in traits}
    ratios = []
    for _ in range(arguments.random):
        v = torch.randn(reader.hidden_size, generator=generator)
        v /= v.norm()
        for sign in (1, -1):
            found = judge(Intervention("add", layer, v, sign * amount))
            ratios.append(perplexity_ratio(found[2], plain[2]))
            for name, shifts in moved.items():
                shifts.append(paired(found[0][name], plain[0][name]).mean)
    print(f"| trait | shift by {arguments.random} random directions, both ways: largest | mean size |\n|---|---|---|")
    for name, shifts in moved.items():
        print(f"| {name} | {max(map(abs, shifts)):.2f} | {statistics.mean(map(abs, shifts)):.2f} |")
    print(f"\nperplexity ratios of the random directions: {min(ratios):.2f} to {max(ratios):.2f}")
    ratio, error = slowdown(reader, v, layer)
    print(f"\nprocessor time of generation with steering over without: {ratio:.3f}, standard error {error:.3f}")


if __name__ == "__main__":
    main()
