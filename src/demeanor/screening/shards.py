"""The folder of a screening: its manifest, its parts, and what makes a killed run go on as if nothing had happened.

    manifest.json         what is screened, with what, and where each shard begins, with a checksum; written once, before any part
    scored/part-00000.parquet ...    the input's rows with score columns, one file a shard, written whole or not at all
    answers/              with `--baseline generate`: the model's own answers to the distinct prompts, batch by batch
    flagged.jsonl, summary.json, report.html   made from the parts once all of them are there

What stands in the folder before the manifest is hidden. A part that exists is finished, so the folder itself is the record
of progress. Nothing in it holds a date.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from filelock import FileLock, Timeout

from demeanor.data.surveys import ShardPlace, Survey
from demeanor.errors import OutputError

FORMAT = "demeanor screening 1"
MANIFEST = "manifest.json"
Output = Literal["parquet", "jsonl"]

_NAMED = {
    "input": "another input (its files, their sizes or their content differ)",
    "vectors": "another vector set",
    "model": "another model",
    "versions": "other versions of its libraries",
}


@dataclass(frozen=True)
class Manifest:
    """What a screening is bound to: `pins` must be the same for it to go on."""

    pins: dict[str, Any]
    rows: int
    schema: pa.Schema
    cuts: list[ShardPlace]
    prompts: int = 0
    """Distinct prompts that the model answers itself, for `--baseline generate`."""

    @classmethod
    def of(cls, survey: Survey, pins: dict[str, Any], prompts: int = 0) -> Manifest:
        """The manifest of a new screening."""
        return cls({"input": survey.files, **pins}, survey.rows, survey.schema, survey.cuts, prompts)

    @property
    def output(self) -> Output:
        """The kind of the parts."""
        return "jsonl" if self.pins["options"]["format"] == "jsonl" else "parquet"

    def part(self, folder: Path, shard: int) -> Path:
        """Where a shard's rows go."""
        return folder / "scored" / f"part-{shard:05d}.{self.output}"

    def to_json(self) -> bytes:
        """As the file holds it."""
        record = {
            "format": FORMAT,
            "rows": self.rows,
            "prompts": self.prompts,
            **self.pins,
            "schema": base64.b64encode(self.schema.serialize()).decode(),
            "shards": [[cut.first, cut.rows, *cut.place] for cut in self.cuts],
        }
        return _text({**record, "checksum": _checksum(record)})

    @classmethod
    def load(cls, folder: Path) -> Manifest | None:
        """The manifest of a folder; None where there is none yet. Raises OutputError for a folder that is not a screening's."""
        refuse_foreign(folder)
        if not (folder / MANIFEST).exists():
            return None
        try:
            record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if record.pop("checksum", None) != _checksum(record):
                raise ValueError("its checksum does not match")
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(record.pop("schema"))))
            cuts = [ShardPlace(first, rows, place) for first, rows, *place in record.pop("shards")]
            known = {key: record.pop(key) for key in ("rows", "prompts")}
            if [cut.first for cut in cuts] != [0, *accumulate(cut.rows for cut in cuts)][:-1] or sum(cut.rows for cut in cuts) != known[
                "rows"
            ]:
                raise ValueError("its shards do not hold each row once")
        except OSError as error:
            raise OutputError(f"{folder / MANIFEST}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
            raise OutputError(
                f"{folder / MANIFEST} was edited, damaged, or written by an earlier version ({error}), so rows could be lost; start "
                "again with another --output"
            ) from error
        record.pop("format")
        return cls(record, schema=schema, cuts=cuts, **known)

    def refuse_other(self, folder: Path, pins: dict[str, Any]) -> None:
        """Raise OutputError where a screening that has begun is asked to go on with something else."""
        for name, value in pins.items():
            if self.pins.get(name) == value:
                continue
            told = _NAMED.get(name)
            if told is None:
                mine = self.pins.get(name, {})
                changed = [_option(k, mine.get(k)) for k in value if mine.get(k) != value[k]]
                told = f"other options (it was begun with {', '.join(changed)})"
            raise OutputError(f"{folder} holds a screening with {told}; continue with the same settings, or name another --output")


def _text(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=None, ensure_ascii=False, separators=(",", ": ")) + "\n").encode()


def _checksum(record: dict[str, Any]) -> str:
    """Shows that the manifest is as it was written; not by whom."""
    return hashlib.sha256(_text(record)).hexdigest()


def _option(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    return f"no {option}" if value is None else f"{option} {value}"


def refuse_foreign(folder: Path) -> None:
    """Raise OutputError where `folder` holds something else than a screening."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a folder with --output")
    try:
        if (folder / MANIFEST).exists():
            ours = json.loads((folder / MANIFEST).read_text(encoding="utf-8")).get("format") == FORMAT
        else:
            ours = not any(not p.name.startswith(".") for p in folder.iterdir())
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise OutputError(f"{folder} is not empty and holds no screening of this version; name another folder with --output")


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder while this one writes to it. Raises OutputError."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutputError(f"another `demeanor screen` is writing to {folder}; wait for it, or name another --output") from None
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place once all of it is on the disk; a kill at any moment leaves it whole or absent. Raises OutputError."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free some space and run again; it continues from here"
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, from where on the folder is a screening's."""
    write_whole(folder / MANIFEST, manifest.to_json())
