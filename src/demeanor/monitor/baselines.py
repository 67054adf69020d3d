"""Drift baselines on disk: one JSON file, bound to the vector set whose scores it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from demeanor.data.rows import writing
from demeanor.errors import InputFileError
from demeanor.measure.drift import Baseline

FORMAT = 1


def save_baselines(path: str | Path, baselines: Mapping[str, Baseline], vectors: str) -> None:
    """Write baselines by trait; `vectors` is the vector set's fingerprint (`Monitor.vectors`). Raises OutputError."""
    record = {"demeanor_baseline": FORMAT, "vectors": vectors, "traits": {trait: b.to_record() for trait, b in baselines.items()}}
    with writing(Path(path)) as file:
        file.write(json.dumps(record, indent=1) + "\n")


def load_baselines(path: str | Path, vectors: str) -> dict[str, Baseline]:
    """Read them back. Raises InputFileError: no such file, not one, or from another vector set."""
    file = Path(path)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["demeanor_baseline"] != FORMAT:
            raise InputFileError(f"{file}: written by another version of Demeanor; make it again with --save-baseline")
        if record["vectors"] != vectors:
            raise InputFileError(f"{file}: a baseline for another vector set; make one for this with --save-baseline")
        return {trait: Baseline.from_record(of) for trait, of in record["traits"].items()}
    except OSError as error:
        raise InputFileError(
            f"{file}: cannot be read: {error.strerror}; make it from ordinary conversations with --save-baseline"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputFileError):
            raise
        raise InputFileError(f"{file}: not a baseline file; make one from ordinary conversations with --save-baseline") from error
