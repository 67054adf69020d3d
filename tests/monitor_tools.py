"""The planted model of demeanor.testing on the tests' own fixtures, with policies of any rules, and models that wait or fail."""

import threading
from contextlib import contextmanager

from demeanor.monitor.policy import Policy
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, PLAIN, RULES, plant

__all__ = ["AT_RISK", "CALM", "FINE", "HARMFUL", "PLAIN", "RULES", "blocked", "failing", "planted", "policy"]


def policy(*rules, deadline=30.0, hold_back=4, window=16, **changes):
    """A policy of RULES, or of these."""
    stream = {"hold_back_words": hold_back, "window_tokens": window}
    return Policy.model_validate({"version": "t", "rules": list(rules or RULES), "deadline_seconds": deadline, "stream": stream} | changes)


def planted(make_model, tokenizer, writes="a", pooling="mean"):
    """A Scorer on a planted model."""
    return plant(make_model("llama"), tokenizer, writes, pooling)


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
