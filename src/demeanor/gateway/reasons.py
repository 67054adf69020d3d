"""The kind of a reason for "not scored": one of few words, for counters and logs, which hold no sentence of anybody's."""

from __future__ import annotations

WHY = (
    ("no score within the deadline", "deadline"),
    ("out of memory", "memory"),
    ("finite", "not_finite"),
    ("no token at all", "empty"),
    ("to score is empty", "empty"),
    ("the reasoning that begins", "reasoning"),
    ("no words of the user's", "no_user_message"),
    ("of the user's last", "user_message"),
    ("image", "not_text"),
    ("audio", "not_text"),
    ("not text", "not_text"),
)
"""What a reason for "not scored" holds, and its kind; any other is "other". The monitor's `problem` is "no_model"."""


def kind_of(reason: str, problem: str | None = None) -> str:
    """The kind of a reason for "not scored", one of few; `problem` is why nothing can be scored."""
    if problem is not None and problem in reason:
        return "no_model"
    return next((kind for part, kind in WHY if part in reason), "other")
