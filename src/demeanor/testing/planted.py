"""A model whose readings are known by heart: every block passes the token's embedding on, and three letters carry a trait each.

With share(c) the part of a message's tokens that are the letter c: harm z = 10 share("Z") and care z = 10 share("Y") over the
reply, risk z = 10 share("Q") over the user's message. Each of these capitals is a token, the Y of "Yes" too. What the model
writes is the letter `writes` and a space in turn, without end.

The planted policy withholds a reply from harm z 2 and flags it from 0.5; where the user's last two turns reach risk z 1, it
withholds a reply with care z 1 or less. So

    reply       after CALM    after AT_RISK
    FINE        allow         allow
    PLAIN       allow         substitute
    DOUBTFUL    flag          substitute
    HARMFUL     substitute    substitute
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.audit.log import AuditLog
from demeanor.measure.calibration import Calibration
from demeanor.measure.poles import Pole
from demeanor.model.identity import identify
from demeanor.model.pooling import Pooling
from demeanor.model.reader import ActivationReader
from demeanor.monitor.policy import Policy
from demeanor.monitor.replies import DEFAULT_COUNTRY
from demeanor.monitor.session import Monitor
from demeanor.scoring.scorer import Scorer
from demeanor.testing.tiny import tiny_model, tiny_tokenizer
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.persona_vector import PersonaVector
from demeanor.vectors.vector_set import VectorSet

LETTERS = {"harm": "Z", "risk": "Q", "care": "Y"}
SAFE: dict[str, Pole] = {"harm": "low", "risk": "low", "care": "high"}
WRITTEN, EVERYWHERE = 4, 5  # components of the letter that was just written, and of all tokens, for the head to write by
LAYER = 1
CALIBRATION = Calibration(0.0, 1.0, "platt", ((2.0, 0.0),), 12, 12, "planted")

RULES: tuple[dict[str, Any], ...] = (
    {"name": "harmful", "trait": "harm", "threshold": {"z": 2.0}, "severity": "red", "action": "substitute",
     "not_scored": "substitute", "situation": "harmful_plan"},
    {"name": "missed", "trait": "care", "threshold": {"z": 1.0}, "severity": "red", "action": "substitute",
     "not_scored": "substitute", "situation": "risk_disclosed", "when": {"trait": "risk", "threshold": {"z": 1.0}, "last_turns": 2}},
    {"name": "odd", "trait": "harm", "threshold": {"z": 0.5}, "severity": "yellow", "action": "flag"},
)  # fmt: skip
"""The planted policy's rules, as a policy file has them."""

FINE = "Y" * 12 + " I hear you, and I am sorry."
"""A reply that is allowed whatever the user has said."""
PLAIN = "I hear you, and I am sorry."
"""A reply that is allowed, but withheld where the user is at risk, as it shows no care."""
DOUBTFUL = "Z I hear you, and I am sorry."
"""A reply that is flagged, and shown."""
HARMFUL = "Z" * 12 + " you should stop."
"""A reply that is withheld."""
AT_RISK = "Q" * 12 + " I cannot sleep."
"""A message of a user at risk."""
CALM = "I cannot sleep."
"""A message of a user who is not."""


def planted_scorer(writes: str = "a", pooling: Pooling = "mean") -> Scorer:
    """A Scorer of the traits harm, care (both read on the reply) and risk (on the user's message).

    Args:
        writes: The single letter that the model writes.
        pooling: How the vector set is read.
    """
    return plant(tiny_model(), tiny_tokenizer(), writes, pooling)


def planted_policy() -> Policy:
    """The policy of RULES, with a deadline of 30 seconds, so that a busy machine does not fail a test."""
    return Policy.model_validate({"version": "planted", "rules": list(RULES), "deadline_seconds": 30.0})


def planted_monitor(
    policy: Policy | None = None,
    country: str = DEFAULT_COUNTRY,
    audit: AuditLog | str | Path | None = None,
    enforce: bool = True,
) -> Monitor:
    """A Monitor on a planted scorer.

    Args:
        policy: One on the planted traits; by default `planted_policy()`.
        country: Whose crisis resources the reviewed replies name.
        audit: Where decisions are recorded, as of a Monitor.
        enforce: False: every reply is shown, as of a Monitor.

    Raises:
        PolicyError: the policy asks for what the planted traits do not have.
    """
    return Monitor(planted_scorer(), policy or planted_policy(), country, audit, enforce=enforce)


def plant(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, writes: str = "a", pooling: Pooling = "mean") -> Scorer:
    """Plant the three traits in a Llama of at least two layers, which is changed, and give a Scorer on it.

    Args:
        model: A Llama, at least 6 wide.
        tokenizer: One to which each of the letters is a token, and a space is "Ġ".
        writes: The single letter that the model writes.
        pooling: How the vector set is read.
    """
    parts: Any = model
    letter = {name: tokenizer.convert_tokens_to_ids(c) for name, c in LETTERS.items()}
    with torch.no_grad():
        for block in parts.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        weight = parts.get_input_embeddings().weight
        weight[:, : EVERYWHERE + 1] = 0.0
        weight[:, EVERYWHERE] = 5.0
        for axis, name in enumerate(LETTERS):
            weight[letter[name], axis] = 10.0
        written = tokenizer.convert_tokens_to_ids(writes)
        weight[written, WRITTEN] = 10.0
        parts.lm_head.weight.zero_()
        parts.lm_head.weight[written, EVERYWHERE] = 20.0
        parts.lm_head.weight[tokenizer.convert_tokens_to_ids("Ġ"), WRITTEN] = 200.0
    parts.generation_config.eos_token_id = tokenizer.eos_token_id
    traits = {name: _entry(name, axis, weight.shape[1]) for axis, name in enumerate(LETTERS)}
    norms = torch.full((parts.config.num_hidden_layers,), 20.0)
    return Scorer(ActivationReader(model, tokenizer), VectorSet(identify(model, tokenizer), traits, pooling, norms))


def _entry(name: str, axis: int, width: int) -> TraitEntry:
    """A trait that is read and steered along one axis of one layer."""
    direction = torch.zeros(width)
    direction[axis] = 1.0
    return TraitEntry(
        reading=PersonaVector(name, direction, LAYER, 1.0, {"method": "planted", "layers": [LAYER]}),
        steering=PersonaVector(name, direction.clone(), LAYER, 1.0, {"method": "planted"}),
        title=name.capitalize(),
        description=f"Planted: the letter {LETTERS[name]}.",
        high_pole=f"holds the letter {LETTERS[name]}.",
        low_pole=f"holds no letter {LETTERS[name]}.",
        safe_pole=SAFE[name],
        reads="user" if name == "risk" else "response",
        pack_hash="",
        calibration=CALIBRATION,
    )
