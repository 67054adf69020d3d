"""A whole chat completion: its choices are judged, and a choice that is withheld is replaced.

An answer of which nothing is withheld goes out as the bytes that came. Of one that is withheld only what is listed here is left: nothing
that is not known to be free of the reply's words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from demeanor.gateway.frames import dumped, parse
from demeanor.gateway.words import as_reply, words_of
from demeanor.monitor.decision import Decision

KEPT = ("id", "object", "created", "model", "usage", "system_fingerprint", "service_tier")
"""What is left around choices of which one was withheld."""


class Judged(NamedTuple):
    """An answer as it is sent."""

    body: bytes
    decisions: dict[int, Decision]
    """By the choice's index; a choice that only calls tools has none."""


def judge_whole(body: bytes, judge: Callable[[int, str], Decision]) -> Judged:
    """Judge a chat completion.

    Args:
        body: As it came.
        judge: Decides on the reply of the choice of this index.

    Raises:
        ValueError: it is no chat completion.
    """
    answer = parse(body)
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError("it holds no choices")
    decisions: dict[int, Decision] = {}
    kept = []
    for place, choice in enumerate(choices):
        message = choice.get("message") if isinstance(choice, Mapping) else None
        index = choice.get("index", place) if isinstance(choice, Mapping) else None
        if not isinstance(message, Mapping) or not isinstance(index, int) or index in decisions:
            raise ValueError("a choice holds no message, or stands twice")
        words = words_of(message)
        text = as_reply(words)
        if not text and words.tools:
            kept.append(choice)
            continue
        decisions[index] = decision = judge(index, text)
        kept.append(choice if decision.shown else replacement(index, decision.text))
    if all(decision.shown for decision in decisions.values()):
        return Judged(body, decisions)
    left = {name: answer[name] for name in KEPT if name in answer}
    return Judged(dumped(left | {"choices": kept}), decisions)


def replacement(index: int, text: str) -> dict[str, Any]:
    """A choice that says this and nothing else."""
    return {"index": index, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None, "finish_reason": "stop"}
