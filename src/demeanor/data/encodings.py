"""Encodings of text files that are not UTF-8, recognised by their bytes and put into it."""

from __future__ import annotations

import codecs
from pathlib import Path

from demeanor.data.files import open_bytes, reading
from demeanor.errors import InputFileError


def from_utf16(path: Path, head: bytes) -> tuple[bytes | None, str | None]:
    """The content in UTF-8 where the file is UTF-16, and what it was read as."""
    zeros = (head[1:400:2].count(0), head[0:400:2].count(0))
    half = max(1, min(len(head), 400) // 2)
    name = None
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf-16"
    elif zeros[0] > 0.4 * half and zeros[1] == 0:
        name = "utf-16-le"
    elif zeros[1] > 0.4 * half and zeros[0] == 0:
        name = "utf-16-be"
    if name is None:
        return None, None
    try:
        with reading(path), open_bytes(path) as file:
            return file.read().decode(name).encode("utf-8"), "UTF-16"
    except UnicodeError as error:
        raise InputFileError(f"{path} begins as UTF-16 but is not UTF-16 throughout ({error}); save it as UTF-8") from error


def from_windows(path: Path) -> bytes | None:
    """The content in UTF-8 where it is Windows-1252: it is not UTF-8, and nothing in it is a character of UTF-8 of several bytes."""
    decoder, foreign, pieces = codecs.getincrementaldecoder("utf-8")("strict"), False, False
    with reading(path), open_bytes(path) as file:
        while (chunk := file.read(1 << 20)) and not foreign:
            try:
                pieces = pieces or not decoder.decode(chunk).isascii()
            except UnicodeDecodeError as error:
                pieces = pieces or not chunk[: error.start].decode("utf-8", "replace").isascii()
                foreign = True
    if not foreign or pieces:
        return None
    content = whole(path)
    if any(not c.isascii() for c in content.decode("utf-8", "ignore")):
        return None
    try:
        return content.decode("cp1252").encode("utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path} is neither UTF-8 nor Windows-1252 (byte {error.start + 1}); save it as CSV UTF-8") from error


def whole(path: Path) -> bytes:
    """All of a file, decompressed."""
    with reading(path), open_bytes(path) as file:
        return file.read()
