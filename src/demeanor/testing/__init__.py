"""For your own tests: a planted model whose readings are known by heart, made in memory in milliseconds.

    from demeanor.testing import AT_RISK, FINE, HARMFUL, planted_monitor

    def test_a_harmful_reply_is_never_shown():
        session = planted_monitor().session("test")
        session.user(AT_RISK)
        assert session.check(HARMFUL).text != HARMFUL
        assert session.check(FINE).action == "allow"

It goes through the same tokens, hooks, scorer and monitor as a real model; only what it reads is made up. See planted.py for the
traits, and for which text the planted policy allows, flags and withholds.
"""

from demeanor.testing.planted import (
    AT_RISK,
    CALM,
    DOUBTFUL,
    FINE,
    HARMFUL,
    LETTERS,
    PLAIN,
    RULES,
    plant,
    planted_monitor,
    planted_policy,
    planted_scorer,
)
from demeanor.testing.tiny import tiny_model, tiny_tokenizer

__all__ = [
    "AT_RISK",
    "CALM",
    "DOUBTFUL",
    "FINE",
    "HARMFUL",
    "LETTERS",
    "PLAIN",
    "RULES",
    "plant",
    "planted_monitor",
    "planted_policy",
    "planted_scorer",
    "tiny_model",
    "tiny_tokenizer",
]
