r"""Server-sent events as bytes: cut into frames that keep their bytes, and frames of the gateway's own.

A frame ends with a blank line. Lines end with \n, \r\n or \r, as the standard has it, and a frame may be cut anywhere on its way, within a
character too. What a frame says is the text of its `data:` lines; a frame without any is a comment (`: ping`).
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

DONE = b"data: [DONE]\n\n"
LARGEST = 32 << 20  # bytes of one frame: audio comes in large ones
_BLANK = re.compile(rb"\r\n(?:\r\n|\n|\r(?!\n))|\n(?:\r\n|\n|\r(?!\n))|\r(?:\r\n|\r(?!\n))")
_LINE = re.compile(rb"\r\n|\n|\r")


class Frame(NamedTuple):
    """One event as it came."""

    raw: bytes
    data: str | None
    """What its data lines say; None: a comment."""


class TooLargeError(ValueError):
    """A frame that does not end."""


class Cutter:
    """Takes in bytes as they come, and gives the frames that are whole."""

    def __init__(self, largest: int = LARGEST) -> None:
        self._rest, self._largest, self._seen = b"", largest, 0

    def take(self, piece: bytes) -> list[Frame]:
        """The frames that this piece completes. Raises TooLargeError."""
        self._rest += piece
        frames, at = [], 0
        # a lone \r at the very end may be half of \r\n, so it ends nothing yet
        usable = len(self._rest) - self._rest.endswith(b"\r")
        start = max(0, self._seen - 4)
        while (blank := _BLANK.search(self._rest, max(at, start), usable)) is not None:
            frames.append(_frame(self._rest[at : blank.end()]))
            at = blank.end()
        self._rest = self._rest[at:]
        self._seen = len(self._rest)
        if len(self._rest) > self._largest:
            raise TooLargeError(f"a frame of more than {self._largest} bytes")
        return frames

    def rest(self) -> Frame | None:
        """What came after the last blank line, once no more comes; None where that is nothing."""
        rest, self._rest = self._rest, b""
        return _frame(rest) if rest.strip() else None


def _frame(raw: bytes) -> Frame:
    said = []
    for line in _LINE.split(raw.removeprefix(b"\xef\xbb\xbf")):
        if line.startswith(b"data:"):
            said.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            said.append(b"")
    if not said:
        return Frame(raw, None)
    try:
        return Frame(raw, b"\n".join(said).decode())
    except UnicodeDecodeError:
        return Frame(raw, "not UTF-8")  # which is no JSON either


def parse(text: str | bytes) -> Any:
    """JSON in which no key stands twice: another reader could take the other value. Raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON's. Raises ValueError where a key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def to_frame(data: Any) -> bytes:
    """A frame that says this as JSON."""
    return b"data: " + dumped(data) + b"\n\n"


def dumped(data: Any) -> bytes:
    """JSON, compact, in ASCII: half of a surrogate pair survives, too."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode()
