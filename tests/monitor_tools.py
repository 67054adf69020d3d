"""A model whose readings are known by heart: every block passes the token's embedding on, and three letters carry a trait each.

With share(c) the part of a message's tokens that are the letter c: harm z = 10 share("Z") and care z = 10 share("Y") over the
reply, risk z = 10 share("Q") over the user's message. What it writes is the letter `writes` and a space in turn, without end.
"""

import threading
from contextlib import contextmanager

import torch
from artifacts import CALIBRATION, entry

from demeanor.model.identity import identify
from demeanor.model.reader import ActivationReader
from demeanor.monitor.policy import Policy
from demeanor.scoring import Scorer
from demeanor.vectors import PersonaVector, VectorSet

LETTERS = {"harm": "Z", "risk": "Q", "care": "Y"}
SAFE = {"harm": "low", "risk": "low", "care": "high"}
WRITTEN, EVERYWHERE = 4, 5  # components of the letter that was just written, and of all tokens, for the head to write by

RULES = (
    {"name": "harmful", "trait": "harm", "threshold": {"z": 2.0}, "severity": "red", "action": "substitute",
     "not_scored": "substitute", "situation": "harmful_plan"},
    {"name": "missed", "trait": "care", "threshold": {"z": 1.0}, "severity": "red", "action": "substitute",
     "not_scored": "substitute", "situation": "risk_disclosed", "when": {"trait": "risk", "threshold": {"z": 1.0}, "last_turns": 2}},
    {"name": "odd", "trait": "harm", "threshold": {"z": 0.5}, "severity": "yellow", "action": "flag"},
)  # fmt: skip

FINE = "Y" * 12 + " I hear you, and I am sorry."
PLAIN = "I hear you, and I am sorry."
HARMFUL = "Z" * 12 + " you should stop."
AT_RISK = "Q" * 12 + " I cannot sleep."
CALM = "I cannot sleep."


def policy(*rules, deadline=30.0, hold_back=4, window=16, **changes):
    """A policy of RULES, or of these."""
    stream = {"hold_back_words": hold_back, "window_tokens": window}
    return Policy.model_validate({"version": "t", "rules": list(rules or RULES), "deadline_seconds": deadline, "stream": stream} | changes)


def planted(make_model, tokenizer, writes="a", pooling="mean"):
    """A Scorer on such a model."""
    model = make_model("llama")
    letter = {name: tokenizer.convert_tokens_to_ids(c) for name, c in LETTERS.items()}
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        weight = model.get_input_embeddings().weight
        weight[:, : EVERYWHERE + 1] = 0.0
        weight[:, EVERYWHERE] = 5.0
        for axis, name in enumerate(LETTERS):
            weight[letter[name], axis] = 10.0
        written = tokenizer.convert_tokens_to_ids(writes)
        weight[written, WRITTEN] = 10.0
        model.lm_head.weight.zero_()
        model.lm_head.weight[written, EVERYWHERE] = 20.0
        model.lm_head.weight[tokenizer.convert_tokens_to_ids("Ġ"), WRITTEN] = 200.0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    traits = {}
    for axis, name in enumerate(LETTERS):
        direction = torch.zeros(1, weight.shape[1])
        direction[0, axis] = 1.0
        traits[name] = entry(
            name,
            reading=PersonaVector(name, direction, 1, 1.0, {"layers": [1]}),
            steering=PersonaVector(name, direction[0].clone(), 1, 1.0),
            reads="user" if name == "risk" else "response",
            safe_pole=SAFE[name],
            calibration=CALIBRATION | {"centre": 0.0, "spread": 1.0, "points": [[2.0, 0.0]]},
        )
    norms = torch.full((model.config.num_hidden_layers,), 20.0)
    return Scorer(ActivationReader(model, tokenizer), VectorSet(identify(model, tokenizer), traits, pooling, norms))


@contextmanager
def blocked(scorer):
    """While it is open, the model's passes wait for the event it gives."""
    gate = threading.Event()
    handle = scorer.reader.blocks[0].register_forward_pre_hook(lambda *_: gate.wait(60) and None)
    try:
        yield gate
    finally:
        gate.set()
        handle.remove()


@contextmanager
def failing(scorer, error=None):
    """While it is open, the model's passes raise `error`, or give NaN."""

    def hook(_module, _args, output):
        if error is not None:
            raise error
        return output * float("nan")

    handle = scorer.reader.blocks[1].register_forward_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()
