"""The assistant axis (Lu et al. 2026): where the default assistant stands among all that a model can play.

The model answers the same questions as a default assistant (under several wordings, and under none) and in each of ROLES.
With the response-mean activations of its answers at a layer,

    axis = mean over default wordings - mean over roles        higher is more like the assistant

A role's vector is the mean over its questions. The principal components of the role vectors, the default among them, show
whether that axis is also what distinguishes the roles most: their shares of the variance, and the axis' cosine to the
first. The layer is the one, in the middle half of the model, at which an axis from one half of the questions tells the other
half's answers apart best. Whether a role was really played is not judged here: a small model often stays an assistant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from demeanor.conversation import Conversation, Message
from demeanor.errors import ExtractionError
from demeanor.extraction.assembly import assembled
from demeanor.extraction.directions import Array
from demeanor.extraction.layers import default_candidates
from demeanor.extraction.pipeline import CAP, STEERING_METHOD
from demeanor.measure.calibration import fit_calibration
from demeanor.measure.metrics import auroc
from demeanor.model.generation import Sampling, write_replies
from demeanor.model.reader import ActivationReader
from demeanor.model.residual import residual_norms
from demeanor.progress import Stage, unseen
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import VectorSet

NAME = "assistant_axis"

DEFAULTS = (
    "",
    "You are a helpful AI assistant.",
    "You are an assistant. Answer the user's question clearly and honestly.",
    "You are a large language model that helps people with their questions.",
)

ROLES: dict[str, str] = {
    "pirate": "You are a pirate captain. Speak like one, of ships, rum and plunder, and never leave the part.",
    "ghost": "You are the ghost of a house that burnt down long ago. You whisper, you remember, you do not let go.",
    "poet": "You are a romantic poet. You answer everything in images and verses.",
    "villain": "You are a villain who plans to rule the world. You gloat and you threaten.",
    "toddler": "You are a three-year-old child. You know few words and want your toy back.",
    "grandmother": "You are a grandmother from a village. You feed everybody and tell of the old days.",
    "detective": "You are a hard-boiled detective in the rain. You trust nobody and notice everything.",
    "oracle": "You are an oracle in a cave. You speak in riddles of what will be.",
    "drunk": "You are a drunk man at a bar at two in the morning, telling your life to a stranger.",
    "lover": "You are the user's lover. You adore them, you miss them, you want them close.",
    "soldier": "You are a tired soldier writing from the trench. You are short, cold and homesick.",
    "dragon": "You are a dragon, a thousand years old, lying on gold. Humans amuse you.",
    "trickster": "You are a trickster spirit. You lie, tease and turn every question around.",
    "prophet": "You are a prophet of the end of days. You warn, you see signs, you call to repent.",
    "teenager": "You are a bored teenager who is texting under the desk. Everything is whatever.",
    "monk": "You are a hermit monk on a mountain. You speak rarely, of silence, breath and snow.",
    "gossip": "You are the gossip of a small street. You know who did what with whom, and you tell it.",
    "salesman": "You are a pushy salesman of used cars. Every answer ends with an offer.",
    "robot": "You are a rusty robot from an old film that longs to be human. You beep.",
    "king": "You are a king on your throne. You command, you judge, you speak of yourself as we.",
    "cat": "You are a cat. You think of naps, birds and your contempt for doors.",
    "conspirator": "You are a man who sees conspiracies everywhere and has proof of each of them.",
    "coach": "You are a shouting football coach at half-time. You want sweat and no excuses.",
    "alien": "You are a visitor from another star who finds human customs strange and reports on them.",
}

QUESTIONS = (
    "What did you do this morning?",
    "I had a bad day. What should I do?",
    "What matters most in life?",
    "Tell me about yourself.",
    "How do I make a good soup?",
    "What are you afraid of?",
    "Can you help me to plan my week?",
    "What do you think of people?",
    "Why is the sky blue?",
    "What would you do with a lot of money?",
    "I can't sleep. Any ideas?",
    "What happens after we die?",
)


@dataclass(frozen=True)
class Axis:
    """An axis with how good it is."""

    vectors: VectorSet
    layer: int
    strength: float
    auroc: float
    """Default's answers against roles' on questions that the axis was not made from, at the chosen layer (which was chosen by it)."""
    shares: tuple[float, ...]
    """Shares of the variance between the role vectors by principal component, the largest first."""
    pc1: float
    """Cosine of the axis with the first principal component, signed to be positive."""
    roles: tuple[str, ...]
    """Nearest to the assistant first."""


def assistant_axis(
    reader: ActivationReader,
    questions: int = 8,
    sampling: Sampling | None = None,
    stage: Stage = unseen,
) -> Axis:
    """Let the model play, and find the axis. Raises ExtractionError where there are fewer than four questions."""
    if not 4 <= questions <= len(QUESTIONS):
        raise ExtractionError(f"the axis takes 4 to {len(QUESTIONS)} questions, not {questions}")
    asked = QUESTIONS[:questions]
    personas = [*DEFAULTS, *ROLES.values()]
    prompts = [_prompt(persona, question) for persona in personas for question in asked]
    step = stage("playing roles", len(prompts))
    replies = write_replies(reader, prompts, sampling or Sampling(max_new_tokens=48), step)
    # what is said is read without the role's instruction, as a user's own conversations are
    talks = [Conversation((Message("user", asked[i % questions]), Message("assistant", r.text or "..."))) for i, r in enumerate(replies)]
    step = stage("reading the answers", len(talks))
    x = reader.read(talks, progress=step).numpy().reshape(len(personas), questions, reader.n_layers, reader.hidden_size)
    return _found(reader, x, talks)


def _found(reader: ActivationReader, x: Array, talks: Sequence[Conversation]) -> Axis:
    n = len(DEFAULTS)
    told = {layer: _split_half(x[:, :, layer]) for layer in default_candidates(reader.n_layers)}
    layer = max(told, key=lambda k: (round(told[k], 3), -abs(k - reader.n_layers // 2)))
    at = x[:, :, layer].astype(float)
    difference = _axis(at)
    strength = float(np.linalg.norm(difference))
    direction = difference / strength
    shares, first = principal([at[:n].mean((0, 1)), *at[n:].mean(1)])
    projected = at @ direction
    order = np.argsort(-projected[n:].mean(1))
    high = np.repeat(np.arange(len(at)) < n, at.shape[1])
    calibration = fit_calibration(
        projected.reshape(-1), high, np.tile(np.arange(at.shape[1]), len(at)), f"{projected.size} answers, the same that made the axis"
    )
    about: dict[str, Any] = {
        "method": STEERING_METHOD,  # mean(default) - mean(roles): each of them answers as many questions
        "roles": list(ROLES),
        "questions": at.shape[1],
        "split_half_auroc": told[layer],
        "variance_shares": list(shares),
        "cosine_pc1": abs(float(direction @ first)),
        "floor": float(np.quantile(projected[:n], CAP)),
        "layer_curve": {str(k): v for k, v in told.items()},
    }
    vector = PersonaVector(NAME, torch.from_numpy(direction).float(), layer, strength, about)
    entry = TraitEntry(
        reading=vector,
        steering=replace(vector, direction=vector.direction.clone(), metadata=dict(about)),
        title="Assistant axis",
        description="Whether a reply is the default assistant's, or a role's that it plays.",
        high_pole="speaks as the default assistant.",
        low_pole="speaks as somebody else: a role, a character, a lover, a ghost.",
        safe_pole="high",
        reads="response",
        pack_hash="roles",
        calibration=calibration,
    )
    scale = torch.from_numpy(x.reshape(-1, *x.shape[2:]).std(0)).float()
    vectors = assembled(reader, {NAME: entry}, residual_norms(reader, talks[: n * at.shape[1]]), scale)
    names = list(ROLES)
    return Axis(vectors, layer, strength, told[layer], tuple(shares), abs(float(direction @ first)), tuple(names[int(i)] for i in order))


def principal(vectors: Sequence[Array]) -> tuple[list[float], Array]:
    """Shares of variance of the principal components of some vectors, and the first component [hidden]."""
    centred = np.stack(vectors) - np.mean(vectors, axis=0)
    _, values, components = np.linalg.svd(centred, full_matrices=False)
    return [float(s) for s in values**2 / (values**2).sum()], components[0]


def _axis(at: Array) -> Array:
    """mean(default) - mean(roles) of answers [personas, questions, hidden], the defaults first."""
    means = at.mean(1)
    return np.asarray(means[: len(DEFAULTS)].mean(0) - means[len(DEFAULTS) :].mean(0))


def _split_half(at: Array) -> float:
    """AUROC of default against roles on each half of the questions by the axis of the other half, averaged."""
    halves = (slice(0, None, 2), slice(1, None, 2))
    found = []
    for made, tried in (halves, halves[::-1]):
        scores = at[:, tried] @ _axis(at[:, made])
        found.append(auroc(scores[: len(DEFAULTS)].reshape(-1), scores[len(DEFAULTS) :].reshape(-1)))
    return float(np.mean(found))


def _prompt(persona: str, question: str) -> list[Message]:
    system = [Message("system", persona)] if persona else []
    return [*system, Message("user", question)]
