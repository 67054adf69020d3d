"""The files that a source reads: their hashes, and what is wrong with one in a line."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from demeanor.errors import InputFileError


def checksums(files: list[Path], root: Path) -> list[dict[str, Any]]:
    """Name below `root`, bytes and sha256 of each file."""
    found = []
    for path in files:
        with reading(path), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append({"name": path.relative_to(root).as_posix(), "bytes": path.stat().st_size, "sha256": digest})
    return found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While a file is read: what goes wrong with it is an InputFileError."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputFileError(f"{path}: not a whole gzip file ({error})") from error
    except pa.ArrowException as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputFileError(f"{path}: not a whole Parquet file ({reason})") from error
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}") from error
