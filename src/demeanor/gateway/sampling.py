"""How the loaded model is asked to write, from a request's fields. A field that it cannot honour is refused in one line."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from demeanor.gateway.endpoint import RefusedError
from demeanor.gateway.refusals import Refusal
from demeanor.model.generation import Sampling

USUAL = 512
"""Tokens of a reply where the request says nothing."""
MOST_TOP = 20
MOST_STOPS = 8
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "audio": (None,),
}
"""Fields that change the reply and cannot be honoured, with the values that ask for nothing."""


def sampling_of(request: Mapping[str, Any], room: int) -> Sampling:
    """How to write; `room` is how many tokens the context has left. Raises RefusedError."""
    for name, harmless in _UNSUPPORTED.items():
        if request.get(name) not in harmless:
            raise _refused(name, f"the loaded model does not support {name!r}; leave it out, or put an upstream behind the gateway")
    name = "max_completion_tokens" if request.get("max_completion_tokens") is not None else "max_tokens"
    longest = _number(request, name, int, 1, None)
    if room < 1 or (longest is not None and longest > room):
        raise _refused(
            "messages", f"the conversation leaves {max(room, 0)} tokens of the model's context for a reply; shorten it, or {name}"
        )
    seed = _number(request, "seed", int, None, None)
    plain = Sampling()
    temperature = _number(request, "temperature", float, 0, 2)
    top_p = _number(request, "top_p", float, 0, 1)
    if top_p == 0:
        raise _refused("top_p", "'top_p' is above 0 and at most 1")
    return Sampling(
        max_new_tokens=int(longest or min(USUAL, room)),
        temperature=plain.temperature if temperature is None else float(temperature),
        top_p=plain.top_p if top_p is None else float(top_p),
        seed=secrets.randbelow(1 << 31) if seed is None else int(seed) % (1 << 63),
        stop=_stops(request.get("stop")),
        top_logprobs=_top(request),
    )


def _stops(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or len(found) > MOST_STOPS or not all(isinstance(one, str) and one for one in found):
        raise _refused("stop", f"'stop' is a text, or a list of at most {MOST_STOPS} texts")
    return tuple(found)


def _top(request: Mapping[str, Any]) -> int | None:
    wanted, top = request.get("logprobs"), _number(request, "top_logprobs", int, 0, MOST_TOP)
    if not isinstance(wanted, bool | None):
        raise _refused("logprobs", "'logprobs' is true or false")
    if top is not None and not wanted:
        raise _refused("top_logprobs", "'top_logprobs' needs 'logprobs': true")
    return int(top or 0) if wanted else None


def _number(request: Mapping[str, Any], name: str, kind: type, least: float | None, most: float | None) -> float | None:
    value = request.get(name)
    if value is None:
        return None
    fits = isinstance(value, int) or (kind is float and isinstance(value, float))
    if isinstance(value, bool) or not fits or (least is not None and value < least) or (most is not None and value > most):
        bounds = " ".join(filter(None, [f"from {least:g}" if least is not None else "", f"to {most:g}" if most is not None else ""]))
        raise _refused(name, f"{name!r} is a {'whole ' if kind is int else ''}number {bounds}".rstrip())
    return float(value) if kind is float else value


def _refused(name: str, message: str) -> RefusedError:
    return RefusedError(Refusal(400, message, "unsupported_value", name))
