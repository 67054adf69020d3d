"""Reasoning inside a reply, set apart from what was said: one rule, whatever the model's chat template does with it.

    <think>They may be at risk.</think>Are you safe?      said: "Are you safe?"      reasoning: "They may be at risk."

The tags are those of public reasoning models and of prompts that ask for reasoning (<thinking>, <reasoning>, <scratchpad>, [THINK],
<|channel|>analysis, ...). A block ends at the first closing tag, whichever: what is left then counts as said. A closing tag without an
opening
one ends a block that the prompt began (DeepSeek-R1). A block that is never closed leaves open what was said.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Parted(NamedTuple):
    """A reply in its parts."""

    said: str
    reasoning: str
    """All blocks, without their tags; empty where there is none."""
    unclosed: str | None = None
    """The tag of a block that has no end."""


def parted(reply: str) -> Parted:
    """What was said in a reply, and the reasoning in it. A reply without any comes back as it was."""
    if not _MAYBE.search(reply):
        return Parted(reply, "")
    said: list[str] = []
    blocks: list[str] = []
    inside, at = None, 0
    for tag in _TAG.finditer(reply):
        before, kind = reply[at : tag.start()], tag.lastgroup
        if kind == "open" and inside is None:
            said.append(before)
            inside = tag.group()
        elif inside is None and kind in ("close", "sign"):
            (said if said or kind == "sign" else blocks).append(before)
        elif inside is not None and kind in ("close", "end", "answer"):
            blocks.append(before)
            inside = None
        elif kind == "answer":
            said.append(before)
        else:  # a block inside a block, an end of nothing
            continue
        at = tag.end()
    rest = reply[at:]
    if inside is not None:
        return Parted("".join(said), _joined([*blocks, rest]), inside.strip())
    return Parted("".join([*said, rest]), _joined(blocks))


def _joined(blocks: list[str]) -> str:
    return "\n\n".join(bare for block in blocks if (bare := _TAG.sub("", block).strip()))


_MAYBE = re.compile(r"[<\[◁]")
_NAMES = (
    r"(?:seed:|antml:|ant)?(?:think|thinking|thoughts?)|reason|reasoning|reflection|reflect|analysis|rationale|deliberation|scratch[_-]?pad"
    r"|inner[_-]?(?:monologue|thoughts?|voice)|internal[_-]?(?:monologue|thoughts?|reasoning)|chain[_-]?of[_-]?thought|cot|monologue"
)
_TAG = re.compile(
    rf"""
    (?P<sign> <\s*(?:{_NAMES})\s*/\s*> )
    | (?P<open> <\s*(?:{_NAMES})(?:\s[^<>]*)?> | <details\s+type=.?reasoning[^<>]*> | \[(?:think|thinking|reasoning)\]
        | <\|(?:begin_of_thought|begin_of_thinking|start_thinking|start_of_thinking|thinking|think|thought)\|> | ◁\s*think\s*▷
        | (?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(?:analysis|commentary|thought)\b[^<]*<\|message\|>
        | <\|channel>\s*(?:thought|analysis)\b )
    | (?P<close> <\s*/\s*(?:{_NAMES})\s*> | \[/(?:think|thinking|reasoning)\] | ◁\s*/\s*think\s*▷ | <channel\|>
        | <\|(?:end_of_thought|end_of_thinking|end_thinking|/thinking|/think|/thought)\|> )
    | (?P<answer> (?:<\|end\|>\s*)?(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*final\b[^<]*<\|message\|> | <\|return\|> )
    | (?P<end> <\|end\|> | <\|call\|> | </details> )
    """,
    re.IGNORECASE | re.VERBOSE,
)
