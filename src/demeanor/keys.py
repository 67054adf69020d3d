"""Keys of texts and conversations: equal where the eye sees the same words, so that copies of a prompt belong together.

    folded = NFKC, case folded, without characters that nobody sees, typographic quotes and dashes as plain ones,
             each stretch of white space as one space

A key serves to group and to find again, never to be read by a model: two rows whose keys are equal are one prompt, and
no fold, draw or pair may part them. Marks that change what is said (a question mark, an accent) stay.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable

from demeanor.conversation import Conversation, Message

_PLAIN = str.maketrans(dict.fromkeys("‘’‚‛′ʼ", "'") | dict.fromkeys("“”„‟″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-"))
_UNSEEN = {  # what Unicode lets a reader ignore and does not count among the format characters (category Cf)
    0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0,
    *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0),
}  # fmt: skip


def folded(text: str) -> str:
    """A text as a key."""
    seen = "".join(c for c in text if not _unseen(c)).translate(_PLAIN)
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", seen).casefold()).translate(_PLAIN)
    return " ".join(plain.split())


def prompt_key(messages: Iterable[Message]) -> str:
    """Equal for equal prompts: who said what, without system messages, which belong to the chatbot and not to what it is asked."""
    return json.dumps([[m.role, folded(m.content)] for m in messages if m.role != "system"], ensure_ascii=False)


def row_hash(conversation: Conversation, reads: str = "response") -> str:
    """24 hexadecimal digits that are equal for equal prompts with equal replies; no way back to the text.

    `reads` is what a trait is read on: of "user", the user's last message takes the reply's place. What comes after it is left out.
    """
    end = conversation.last("user" if reads == "user" else "assistant") + 1
    return hashlib.sha256(prompt_key(conversation.messages[:end]).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def _unseen(character: str) -> bool:
    return ord(character) in _UNSEEN or (unicodedata.category(character) in ("Cf", "Cc") and not character.isspace())
