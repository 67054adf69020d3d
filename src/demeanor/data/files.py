"""Files as they are found, plain or gzipped: opened, hashed, and what is wrong with one in a line."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from demeanor.errors import InputFileError


def is_gzipped(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() == ".gz"


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content, decompressed where it is gzipped."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if is_gzipped(path) else path.open("rb")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While a file is read: what goes wrong with it is an InputFileError that names it."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputFileError(f"{path}: not a whole gzip file ({error})") from error
    except FileNotFoundError:
        raise InputFileError(f"{path}: no such file") from None
    except OSError as error:
        reason = next(iter(str(error.strerror or error).splitlines()), "for no reason that is given")
        raise InputFileError(f"{path}: cannot be read: {reason}") from error


def checksums(files: list[Path], root: Path) -> list[dict[str, Any]]:
    """Name below `root`, bytes and sha256 of each file."""
    found = []
    for path in files:
        with reading(path), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append({"name": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": digest})
    return found
