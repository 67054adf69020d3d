"""A folder that is written whole or not at all: a vector set, a baked model.

It is filled under another name beside its place, brought onto the disk, and takes the place in one rename. What is there already is put
aside first and back where that fails; what somebody else put into it, a report say, is carried over. So a failure or a kill at any
moment costs nothing that was there.

Whether the folder is sound when it is read is up to what it holds: a vector set keeps hashes in its manifest (see storage), a baked
model is read by transformers, which knows none. The folder of a screening is another thing: it grows for days, each part in it counts
as done, and so its files are written whole one by one (see screening/shards.py).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demeanor.errors import DemeanorError, OutputError


@contextmanager
def written_whole(folder: Path, what: str) -> Iterator[Path]:
    """An empty folder to write `what` to ("the vector set"), which takes the place of `folder` where the block ends without an error.

    Raises OutputError where it cannot be written, or not all that lay in the old folder could be moved to the new one.
    """
    place = _real(folder)
    staging = place.parent / f".{place.name}-{secrets.token_hex(4)}"  # named before it is made: an interrupt finds it
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        staging.chmod(0o755)
        yield staging
        for path in sorted(staging.rglob("*")):
            if path.is_file():
                _sync(path)
        aside = _put_in_place(staging, place)
    except OSError as error:
        if isinstance(error, DemeanorError):  # of what was to be written, not of this folder
            raise
        raise OutputError(f"cannot write {what} to {folder}: {error.strerror or error}; nothing of it was kept") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if aside is not None:
        _carry_over(aside, place, folder, what)


def refuse_standing(folder: Path) -> None:
    """Raise OutputError for a folder that cannot be replaced by another: the one that one is in, a mount point."""
    place = _real(folder)
    if place == Path.cwd():
        raise OutputError(f"{folder} is the folder that you are in, and saving would replace it; name another folder")
    if place.is_mount():
        raise OutputError(f"{folder} is a mount point, which cannot be replaced; name a folder inside it")


def _real(folder: Path) -> Path:
    """Where `folder` leads: what is replaced is the folder behind a symbolic link, not the link."""
    return Path(os.path.realpath(folder))


def _sync(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _put_in_place(staging: Path, folder: Path) -> Path | None:
    """Rename `staging` to `folder`; one that is there is put aside, and back where that fails. Where it now is, if it was."""
    if not folder.exists():
        os.replace(staging, folder)
        return None
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    try:
        os.replace(folder, aside / "old")
        try:
            os.replace(staging, folder)
        except OSError:
            os.replace(aside / "old", folder)
            raise
    except OSError:
        with contextlib.suppress(OSError):  # not empty: the old one is still in it
            aside.rmdir()
        raise
    return aside


def _carry_over(aside: Path, place: Path, folder: Path, what: str) -> None:
    """What somebody else put beside the old files stays; the old ones go."""
    try:
        for other in (aside / "old").iterdir():
            if not (place / other.name).exists():
                os.replace(other, place / other.name)
    except OSError as error:
        raise OutputError(
            f"{what} is saved in {folder}, but some files beside the old one could not be moved there: {error.strerror}; "
            f"move the rest from {aside / 'old'}"
        ) from error
    shutil.rmtree(aside, ignore_errors=True)
