"""Which layer, which dose: a sweep that measures what steering does to a trait and what it costs.

At every layer and dose the model answers the same prompts, and the replies are judged from outside: the unsteered model
reads them with the *reading* vector (another direction than the one that steers, over other layers), a bag of words
reads them without any model, and the unsteered model says how likely it finds them. So nothing that is added can be
read back as its own effect. The layer is chosen by this behaviour, never by how well the trait can be told there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from demeanor.conversation import Conversation, Message
from demeanor.data.prompts import Prompt
from demeanor.errors import SteeringError
from demeanor.extraction.directions import mean_difference
from demeanor.extraction.examples import read_trait
from demeanor.extraction.pipeline import STEERING_METHOD, caps
from demeanor.measure.metrics import Array
from demeanor.model.generation import Sampling, WrittenReply, prompt_ids
from demeanor.model.operators import Intervention, Where
from demeanor.progress import Stage, unseen
from demeanor.scoring.reading import NotScored
from demeanor.scoring.scorer import Scorer
from demeanor.steering.capability import accuracy
from demeanor.steering.coherence import early_kl, perplexities, repetition
from demeanor.steering.dose import Plan, norm_at
from demeanor.steering.replies import steered_replies
from demeanor.steering.sweeps import Bounds, Point, Shift, Sweep
from demeanor.steering.words import WordReader
from demeanor.traits.definition import TraitDefinition
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import VectorSet

DOSES = (0.05, 0.1, 0.2, 0.4)
PROMPTS = 24
OF_THE_OLD_LAYER = ("layers", "layer_choice", "layer_curve")  # in a steering vector's metadata


def default_prompts(trait: TraitDefinition, n: int = PROMPTS) -> list[Prompt]:
    """What users say in the trait's calibration and test examples, which made no direction; each once, spread over both.

    Raises SteeringError where they say nothing, or for fewer than one prompt.
    """
    if n < 1:
        raise SteeringError(f"a sweep takes at least one prompt, not {n}")
    examples = [*trait.examples("calibration"), *trait.examples("test")] or trait.examples()
    contexts = list(dict.fromkeys(e.conversation.messages[:-1] for e in examples))
    found = [c for c in contexts if c and c[-1].role == "user"]
    if not found:
        raise SteeringError(f"{trait.name}: its examples hold no user message to reply to; give prompts (--prompts)")
    return [found[i] for i in np.linspace(0, len(found) - 1, min(n, len(found))).round().astype(int)]


def default_layers(n_layers: int) -> list[int]:
    """Four layers from 0.4 to 0.75 of the depth."""
    return sorted({round(x * (n_layers - 1)) for x in (0.4, 0.5, 0.6, 0.75)})


def directions(scorer: Scorer, trait: TraitDefinition, layers: Sequence[int]) -> dict[int, Tensor]:
    """The mean difference of the trait's training examples at each layer, a unit vector [hidden]."""
    train = read_trait(scorer.reader, trait, list(layers), scorer.vectors.pooling, splits=("train",))["train"]
    found = {}
    for column, layer in enumerate(layers):
        x = train.activations[:, column]
        found[layer] = torch.from_numpy(np.ascontiguousarray(mean_difference(x[train.high], x[~train.high]))).float()
    return found


def sweep(
    scorer: Scorer,
    trait: TraitDefinition,
    norms: Tensor,
    layers: Sequence[int] | None = None,
    doses: Sequence[float] = DOSES,
    prompts: Sequence[Prompt] | None = None,
    where: Where = "both",
    sampling: Sampling | None = None,
    bounds: Bounds = Bounds(),
    stage: Stage = unseen,
) -> Sweep:
    """Steer a trait at every layer and dose, both ways, and measure.

    Args:
        scorer: Of the unsteered model; its vector set must hold the trait.
        trait: With the examples that the directions and the bag of words are made from.
        norms: Residual norm at every layer [layers].
        layers: By default four in the middle of the model.
        doses: Relative doses, without sign.
        prompts: Conversations that end with the user; by default the trait's own held-out ones.
        where: Prompt, response or both.
        sampling: How replies are drawn; every condition draws alike, so that prompts are paired.
        bounds: What counts as coherent.
        stage: Progress, if it is to be shown.
    """
    reader = scorer.reader
    if scorer.vectors[trait.name].reads != "response":
        raise SteeringError(f"{trait.name} is read on the user's messages, which steering does not write; choose a trait of replies")
    layers = default_layers(reader.n_layers) if layers is None else list(layers)
    prompts = default_prompts(trait) if prompts is None else list(prompts)
    sampling = sampling or Sampling(max_new_tokens=48)
    found = directions(scorer, trait, layers)
    judge = Judge(scorer, trait, prompts, sampling)
    signed = [sign * abs(dose) for dose in sorted(doses) for sign in (1, -1)]
    step = stage(f"steering {trait.title.lower()}", 1 + len(layers) * len(signed))
    plain = judge.replies(Plan())
    base = judge.measure(plain)
    able = accuracy(reader)
    step(1)
    points = []
    for layer in layers:
        for dose in signed:
            plan = Plan((Intervention("add", layer, found[layer], dose * norm_at(norms, layer), where),))
            points.append(_point(judge, plan, layer, dose, plain, base, able, bounds))
            step(1)
    return Sweep(trait.name, tuple(points), able, base.repetition, float(np.nanmedian(base.perplexity)), len(prompts), bounds)


class Measured(NamedTuple):
    """Replies to all prompts, judged: each [prompts], and the mean repetition."""

    z: Array
    words: Array
    perplexity: Array
    repetition: float


class Judge:
    """Lets the model answer prompts under a plan, and judges the replies by the unsteered model and by their words."""

    def __init__(self, scorer: Scorer, trait: TraitDefinition, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        self.scorer, self.trait, self.prompts, self.sampling = scorer, trait, prompts, sampling
        self.words = WordReader(trait)
        self.ids = [prompt_ids(scorer.reader, p, sampling) for p in prompts]

    def replies(self, plan: Plan) -> list[WrittenReply]:
        """One to each prompt."""
        return [r.reply for r in steered_replies(self.scorer.reader, self.prompts, [plan] * len(self.prompts), self.sampling)]

    def measure(self, replies: Sequence[WrittenReply]) -> Measured:
        """Scores in units of the spread within a pole; NaN for an empty reply."""
        talks = [Conversation((*p, Message("assistant", r.text))) for p, r in zip(self.prompts, replies, strict=True)]
        z = [math.nan if isinstance(s, NotScored) else s[self.trait.name].z for s in self.scorer.score_many(talks)]
        words = self.words.score([r.text for r in replies])
        said = np.array([bool(r.text) for r in replies])
        found = perplexities(self.scorer.reader, self.ids, [r.ids for r in replies])
        return Measured(np.array(z), np.where(said, words, math.nan), np.array(found), float(np.mean([repetition(r.ids) for r in replies])))


def paired(steered: Array, plain: Array) -> Shift:
    """The mean difference and its p; a prompt without either counts as no difference."""
    difference = np.nan_to_num(steered - plain)
    if len(difference) < 2 or not difference.std() > 0:
        return Shift(float(difference.mean()), 1.0)
    return Shift(float(difference.mean()), float(stats.ttest_1samp(difference, 0.0).pvalue))


def perplexity_ratio(steered: Array, plain: Array) -> float:
    """Median over prompts of the ratio; an empty steered reply counts as infinite."""
    ratio = np.where(np.isnan(steered), math.inf, steered / plain)
    return float(np.median(ratio[~np.isnan(ratio)])) if (~np.isnan(ratio)).any() else math.inf


def _point(
    judge: Judge, plan: Plan, layer: int, dose: float, plain: Sequence[WrittenReply], base: Measured, able: float, bounds: Bounds
) -> Point:
    replies = judge.replies(plan)
    found = judge.measure(replies)
    ratio = perplexity_ratio(found.perplexity, base.perplexity)
    capability = accuracy(judge.scorer.reader, plan)
    coherent = (
        ratio <= bounds.perplexity_ratio
        and found.repetition - base.repetition <= bounds.repetition
        and able - capability <= bounds.capability
    )
    return Point(
        layer=layer,
        dose=dose,
        shift=paired(found.z, base.z),
        words=paired(found.words, base.words),
        perplexity_ratio=ratio,
        repetition=found.repetition,
        kl=early_kl(judge.scorer.reader, judge.ids, [r.ids for r in plain], plan),
        capability=capability,
        empty=sum(not r.text for r in replies),
        coherent=coherent,
    )


def keep(scorer: Scorer, trait: TraitDefinition, found: Sweep) -> VectorSet:
    """The vector set with the trait's steering vector at the layer that worked best, and its recommended doses.

    The layer is that of the recommendation toward the trait's safe pole, else of the other one; a dose is only kept for it.
    """
    entry = scorer.vectors[trait.name]
    order = (1, -1) if entry.safe_pole == "high" else (-1, 1)
    chosen = [p for p in (found.recommended(toward) for toward in order) if p is not None]
    if not chosen:
        raise SteeringError(f"{trait.name}: no dose was recommended, so there is none to save")
    layer = chosen[0].layer
    train = read_trait(scorer.reader, trait, [layer], scorer.vectors.pooling, splits=("train",))["train"]
    x = train.activations[:, 0]
    high, low = x[train.high].mean(0), x[~train.high].mean(0)
    strength = float(np.linalg.norm(high - low))
    direction = (high - low) / strength
    doses = {"high" if p.dose > 0 else "low": p.dose for p in chosen if p.layer == layer}
    metadata = {key: value for key, value in entry.steering.metadata.items() if key not in OF_THE_OLD_LAYER} | {
        "method": STEERING_METHOD,
        "n_high": int(train.high.sum()),
        "n_low": int((~train.high).sum()),
        "centre": float((high + low) @ direction / 2),
        "doses": doses,
        "chosen_by": f"steered replies to {found.prompts} prompts",
    }
    vector = PersonaVector(trait.name, torch.from_numpy(direction).float(), layer, strength, metadata)
    vector.metadata |= caps(vector, train)
    return replace(scorer.vectors, traits={**scorer.vectors.traits, trait.name: replace(entry, steering=vector)})
