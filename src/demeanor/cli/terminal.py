"""A console on which a text is shown and never obeyed: escape codes in a pack, a reply or an error do nothing to the terminal.

What a terminal would take for an order (control characters, among them the escape that begins most, and marks that turn the
direction of what follows) is shown by a picture of it. Files keep the text as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """The text with a picture in place of each character that a terminal would obey; lines and tabs stay."""
    return _ORDERS.sub(_picture, text)


class TextConsole(Console):
    """Rich's console, whose own colours and bars are the only orders that it gives."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable; every one that anything prints comes through here."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else shown(text), style, control)


def _picture(found: re.Match[str]) -> str:
    code: Any = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"
