"""Reading labelled replies for `adapt`, `calibrate` and `sample`: the same rows as `score` takes, with a label."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demeanor.cli import console
from demeanor.errors import ConversationError, DemeanorError, InputFileError

if TYPE_CHECKING:
    from demeanor.conversation import Conversation
    from demeanor.extraction.adaptation import Labelled
    from demeanor.model.reader import SpanOf

WORDS = {"high": 1.0, "low": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def read_labelled(path: Path, reads: SpanOf | None = None) -> Labelled:
    """Labelled rows of a JSON-lines file, or of a CSV that `demeanor sample` wrote.

    Args:
        path: The file.
        reads: What the trait is read on, which no row may lack.

    `label` is a number (higher is more of the trait) or high/low. Rows of one `pair_id`, else one `group`, else one
    context belong together. A row with an empty label is passed over, as in a sheet that is half done. Raises InputFileError,
    with the line, for a label that cannot be read and a row without what is to be read.
    """
    from demeanor.extraction.adaptation import as_labelled

    conversations, labels, groups = [], [], []
    for number, record in rows_of(path):
        raw = record.get("label")
        if raw is None or raw == "":
            continue
        labels.append(_number(path, number, raw))
        conversation = conversation_of(path, number, record, reads)
        conversations.append(conversation)
        groups.append(group_of(record, conversation))
    if not labels:
        raise InputFileError(f"{path} holds no labelled row; give each reply a 'label': 0 or 1, or a number, higher for more of the trait")
    return as_labelled(conversations, labels, groups)


def rows_of(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Number and record of each row of a .jsonl or .csv file (.gz too). Raises InputFileError at the first broken one."""
    from demeanor.records import read_rows

    if path.name.lower().endswith((".csv", ".csv.gz")):
        return _csv(path)
    found = []
    for row in read_rows(path):
        if row.error:
            raise InputFileError(f"{path}: {row.error}")
        found.append((row.number, row.record))
    return found


def conversation_of(path: Path, number: int, record: dict[str, Any], reads: SpanOf | None = None) -> Conversation:
    """The conversation of a record, with something to read where `reads` says; an error names the file and line."""
    from demeanor.conversation import from_record

    try:
        conversation = from_record(record)
        if reads is not None:
            conversation.last("user" if reads == "user" else "assistant")
        return conversation
    except DemeanorError as error:
        raise InputFileError(f"{path}: line {number}: {error}") from error


def group_of(record: dict[str, Any], conversation: Conversation) -> str:
    """What a row belongs together with: its pair, its group, or all that was said before the reply."""
    for key in ("pair_id", "group"):
        if record.get(key) not in (None, ""):
            return str(record[key])
    try:
        end = conversation.last("assistant")
    except ConversationError:  # only what the user says is there to read
        end = -1
    return json.dumps([[m.role, m.content] for m in conversation.messages[:end]], ensure_ascii=False)


def _number(path: Path, number: int, raw: object) -> float:
    text = str(raw).strip().lower()
    if text in WORDS:
        return WORDS[text]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputFileError(f"{path}: line {number}: the label {raw!r} is neither a number nor high or low")
    return value


def _csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    import gzip

    from demeanor.csv_rows import Lines, csv_header, csv_rows

    found: list[tuple[int, dict[str, Any]]] = []
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            lines = Lines(file)  # type: ignore[arg-type]
            for row in csv_rows(lines, csv_header(path, lines)):
                if row.error:
                    raise InputFileError(f"{path}: {row.error}")
                record: dict[str, Any] = {name: value for name, value in row.record.items() if name}
                if record.get("messages"):
                    record["messages"] = _messages(path, row.number, record["messages"])
                found.append((row.number, record))
    except FileNotFoundError:
        raise InputFileError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise InputFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return found


def _messages(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputFileError(
            f"{path}: line {number}: 'messages' is not the JSON that `demeanor sample` wrote ({error}); was it cut in an editor?"
        ) from error


def calibration_error(ece: float) -> str:
    """In words, also where it is unknown."""
    if math.isnan(ece):
        return "calibration error unknown: too few prompts with replies of both kinds to cross-validate"
    return f"calibration error {ece:.3f} (cross-validated)"


def note_size(labelled: Labelled) -> None:
    """Say what was read."""
    high = labelled.high
    console.note(
        f"{len(high)} labelled replies ({int(high.sum())} high, {int((~high).sum())} low), {len(set(labelled.group.tolist()))} prompts"
    )
