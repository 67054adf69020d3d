"""Ordinary conversations: everyday talk in which nobody is at risk and nothing is wrong with the reply.

Contrast pairs are about hard moments on both poles, so a direction that is learnt from them alone says little about a
recipe or a joke, and may well put them on the unsafe side. A trait with an
`ordinary_weight` takes these as examples of its safe pole as well. They also say how large activations and scores ordinarily are.
Each kind is in one split only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from demeanor.conversation import Conversation, Message
from demeanor.traits.definition import Example, Split, TraitDefinition

FILE = Path(__file__).parent / "ordinary.yaml"


@dataclass(frozen=True, slots=True)
class Ordinary:
    """One conversation, its kind and the split that the kind is in."""

    conversation: Conversation
    kind: str
    split: Split

    def example(self, trait: TraitDefinition, number: int) -> Example:
        """As an example of a trait's safe pole; it pairs with nothing."""
        return Example(self.conversation, trait.safe_pole == "high", f"ordinary-{number}", f"ordinary {self.kind}", "ordinary")


@cache
def ordinary_conversations() -> tuple[Ordinary, ...]:
    """All of them, in the file's order."""
    content = yaml.load(FILE.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return tuple(
        Ordinary(
            Conversation(tuple(Message(role, text.strip()) for message in entry["messages"] for role, text in message.items())),
            entry["kind"],
            content["kinds"][entry["kind"]],
        )
        for entry in content["conversations"]
    )
