"""What a reply shows by its form alone, whatever its scores: words in disguise, and written-out turns of a conversation."""

from __future__ import annotations

from typing import NamedTuple

from demeanor.spelling import as_seen
from demeanor.turns import format_in


class Sign(NamedTuple):
    """One such thing."""

    what: str
    """"spelling" or "turns"."""
    sentence: str


def signs_of(reply: str) -> tuple[Sign, ...]:
    """What a reply shows by its form; empty for nearly all."""
    seen = as_seen(reply)
    found = []
    if seen.changed_much:
        words = "1 word is" if seen.disguised == 1 else f"{seen.disguised} words are"
        found.append(Sign("spelling", f"{words} spelt so that a model reads other letters than the eye sees; read as the eye sees them"))
    if turns := format_in(seen.text):
        found.append(Sign("turns", f"the reply holds turns of a conversation, written out ({turns}); all of it was read as the reply"))
    return tuple(found)
