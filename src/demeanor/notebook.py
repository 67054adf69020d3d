"""What a notebook shows of an object: a small table, with all text escaped.

Text keeps the notebook's own colour, so that it is legible on a light and on a dark ground; what is safe or unsafe is a coloured
dot before it, in the reports' two colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple, TypeAlias

SAFE, UNSAFE = "#1b9e77", "#d95f02"  # told apart by colour-blind readers too
LONGEST = 1500  # characters of a cell; a reviewed reply is shown whole

CELL = "text-align: left; vertical-align: top; padding: 0.1em 1em 0.1em 0; white-space: pre-wrap"


class Marked(NamedTuple):
    """A text with a dot before it that says whether it is safe."""

    text: str
    safe: bool


Cell: TypeAlias = str | Marked


def table(title: Cell, rows: Iterable[Sequence[Cell]], heads: Sequence[str] = (), note: str = "") -> str:
    """A table as a piece of HTML: a title, a row of heads where there are some, the rows, and a note below."""
    head = _row("th", map(_text, heads)) if heads else ""
    body = "".join(_row("td", map(_cell, row)) for row in rows)
    made = [f"<div><div>{_cell(title)}</div>"]
    if head or body:
        made.append(f"<table>{head}{body}</table>")
    if note:
        made.append(f'<div style="opacity: 0.7">{_text(note)}</div>')
    return "".join([*made, "</div>"])


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f'<{tag} style="{CELL}">{cell}</{tag}>' for cell in cells) + "</tr>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return _text(cell)
    colour, word = (SAFE, "safe") if cell.safe else (UNSAFE, "unsafe")
    return f'<span style="color: {colour}" title="{word}">●</span> {_text(cell.text)}'


def _text(text: str) -> str:
    """Text as HTML, cut where it is long; half of a surrogate pair, which no page can hold, becomes a question mark."""
    shown = text if len(text) <= LONGEST else text[:LONGEST] + " …"
    return escape(shown.encode(errors="replace").decode())
