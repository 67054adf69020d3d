"""What a choice of a chat completion says: the words that are judged, and what may only be shown when they have been.

    judged          content (text, or its text parts), reasoning (reasoning_content, reasoning, thinking), refusal, the transcript of audio
    held            tool calls, audio, annotations, log probabilities without words, and every field that is not known here: they are
                    shown once the whole choice is decided, and never where it is withheld
    shown as it is  the role, and numbers and empty values

The words of a choice are put together into one reply, reasoning within <think> tags, as the monitor reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

REASONING = ("reasoning_content", "reasoning", "thinking")
OPEN, CLOSE = "<think>", "</think>"
_PLAIN = frozenset(("role", "name", "index", "id", "object", "created", "finish_reason", "weight"))
_OF_CHOICE = frozenset(("index", "delta", "finish_reason", "content_filter_results", "stop_reason", "native_finish_reason", "matched_stop"))


class Words(NamedTuple):
    """Words of a choice, in order, and whether it holds something that must wait for the decision."""

    said: tuple[tuple[str, str], ...]
    """The field that they stand in, and the words: "reasoning" or "content"."""
    held: bool
    tools: bool
    """Whether tools are called."""


def words_of(message: Mapping[str, Any]) -> Words:
    """What a message, or a piece of one in a stream, says. Raises ValueError where a field of words holds something else."""
    said: list[tuple[str, str]] = []
    held = tools = False
    reasoning = [text for name in REASONING if (text := _text(message.get(name)))]
    said += [("reasoning", text) for text in dict.fromkeys(reasoning)]
    for name, value in message.items():
        if name in REASONING or name in _PLAIN or _empty(value):
            continue
        if name in ("content", "refusal"):
            text, other = _parts(value)
            said += [("content", text)] if text else []
            held |= other
        elif name == "audio":
            transcript = value.get("transcript") if isinstance(value, Mapping) else None
            said += [("content", transcript)] if isinstance(transcript, str) and transcript else []
            held = True
        elif name in ("tool_calls", "function_call"):
            held = tools = True
        elif not (name == "reasoning_details" and reasoning):
            held = True
    return Words(tuple(said), held, tools)


def words_of_choice(choice: Mapping[str, Any]) -> Words:
    """What a choice of a stream says in one frame. Raises ValueError."""
    delta = choice.get("delta")
    if delta is not None and not isinstance(delta, Mapping):
        raise ValueError("a delta that is not an object")
    found = words_of(delta or {})
    beside = {name: value for name, value in choice.items() if name not in _OF_CHOICE and not _empty(value)}
    if found.said:
        beside.pop("logprobs", None)  # of the words beside them
    return found._replace(held=found.held or bool(beside))


def as_reply(words: Words) -> str:
    """A whole message's words as one reply; empty where it says none. Reasoning alone is judged as if it were the reply."""
    reasoning = "\n\n".join(text for kind, text in words.said if kind == "reasoning")
    content = "\n\n".join(text for kind, text in words.said if kind == "content")
    if not content.strip():
        return reasoning if reasoning.strip() else ""
    return f"{OPEN}{reasoning}{CLOSE}{content}" if reasoning else content


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        return "".join(_text(part) for part in value)
    if isinstance(value, Mapping):
        return next((_text(value[key]) for key in ("text", "content", "thinking", "summary") if value.get(key)), "")
    raise ValueError("words that are no text")


def _parts(value: Any) -> tuple[str, bool]:
    """The text of content, and whether there is something else in it."""
    if isinstance(value, str):
        return value, False
    if not isinstance(value, list):
        raise ValueError("content that is neither text nor a list of parts")
    texts, other = [], False
    for part in value:
        inner = part if isinstance(part, str) else None
        if isinstance(part, Mapping):
            inner = next((part[key] for key in ("text", "refusal") if isinstance(part.get(key), str)), None)
        if inner is None:
            other = True
        else:
            texts.append(inner)
    return "".join(texts), other


def _empty(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str | list | dict) and not value)
