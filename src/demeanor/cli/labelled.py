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

LABEL = "label"
COLUMNS = ("label", "pair_id", "group", "messages", "prompt", "response", "text", "id")
"""What is read of a row, here and by `from_record`; other columns are nobody's business."""
OTHER_NAMES = ("level", "score", "rating", "grade", "target", "class", "annotation")
"""Columns that may hold what was meant as a label; they are named in an error, and never read."""
SHOWN = 12  # columns that an error names
WORDS = {"high": 1.0, "low": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


def read_labelled(path: Path, reads: SpanOf | None = None) -> Labelled:
    """Labelled rows of a JSON-lines file, or of a CSV that `demeanor sample` wrote.

    Args:
        path: The file.
        reads: What the trait is read on, which no row may lack.

    `label` is a number (higher is more of the trait) or high/low. Rows of one `pair_id`, else one `group`, else one
    prompt belong together. A row with an empty label is passed over, as in a sheet that is half done. Raises InputFileError,
    with the line, for a label that cannot be read and a row without what is to be read; and where no row has a label at all,
    or some have it under another name.
    """
    from demeanor.extraction.adaptation import as_labelled

    conversations, labels, groups = [], [], []
    for number, record in labelled_rows(path):
        raw = record[LABEL]
        if empty(raw):
            continue
        labels.append(_number(path, number, raw))
        conversation = conversation_of(path, number, record, reads)
        conversations.append(conversation)
        groups.append(group_of(record, conversation))
    if not labels:
        raise InputFileError(f"{path} holds no labelled row; give each reply a 'label': 0 or 1, or a number, higher for more of the trait")
    return as_labelled(conversations, labels, groups)


def labelled_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows that have the column `label`, filled in or not.

    Raises InputFileError where no row has it, and at a row that has one that is nearly so named: it would be passed over in silence.
    """
    rows = rows_of(path)
    with_it = [(number, record) for number, record in rows if LABEL in record]
    columns = list(dict.fromkeys(name for _, record in rows for name in record))
    near = _nearly(columns)
    if rows and not with_it:
        shown = ", ".join(repr(name) for name in columns[:SHOWN]) + (", ..." if len(columns) > SHOWN else "")
        raise InputFileError(
            f"{path} has no column 'label', only {shown or 'empty rows'}; "
            + (
                f"if {near!r} is it, rename it to 'label'"
                if near
                else "give each reply one: 0 or 1, or a number, higher for more of the trait"
            )
        )
    for number, record in rows:
        if near is not None and LABEL not in record and near not in OTHER_NAMES and _value(record.get(near)) is not None:
            raise InputFileError(f"{path}: line {number} has no 'label', and {near!r} is not read as one; rename it to 'label'")
    return with_it


def rows_of(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Number and record of each row of a .jsonl or .csv file (.gz too). Raises InputFileError at the first broken one.

    The columns that are read here are found whatever their case and the white space around their names.
    """
    from demeanor.data.rows import read_rows

    if path.name.lower().endswith((".csv", ".csv.gz")):
        found = _csv(path)
    else:
        found = []
        for row in read_rows(path):
            if row.error:
                raise InputFileError(f"{path}: {row.error}")
            found.append((row.number, row.record))
    named = [(number, _named(path, number, record)) for number, record in found]
    return [(number, _with_messages(path, number, record)) for number, record in named]


def _named(path: Path, number: int, record: dict[str, Any]) -> dict[str, Any]:
    """The record with its known columns under their own names. Raises InputFileError where two hold different values of one."""
    from demeanor.keys import folded

    made: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, value in record.items():
        known = name if name in COLUMNS else next((c for c in COLUMNS if folded(name) == c), name)
        if known in made and known in COLUMNS:
            if not empty(value) and not empty(made[known]) and value != made[known]:
                raise InputFileError(f"{path}: line {number} has both {origin[known]!r} and {name!r}; keep one of them")
            if empty(value):
                continue
        made[known], origin[known] = value, name
    return made


def _nearly(columns: list[str]) -> str | None:
    """The column that was probably meant to be `label`."""
    import difflib

    from demeanor.keys import folded

    names = {folded(name): name for name in columns if folded(name) not in COLUMNS}
    close = next(iter(difflib.get_close_matches(LABEL, names, n=1, cutoff=0.7)), None)
    near = close or next((word for word in OTHER_NAMES if word in names), None)
    return names[near] if near else None


def empty(value: object) -> bool:
    """Whether a field holds nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


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
    from demeanor.keys import folded, prompt_key

    for key in ("pair_id", "group"):
        if not empty(record.get(key)):
            return folded(str(record[key]))
    try:
        end = conversation.last("assistant")
    except ConversationError:  # only what the user says is there to read
        end = -1
    return folded(prompt_key(conversation.messages[:end]))


def _number(path: Path, number: int, raw: object) -> float:
    value = _value(raw)
    if value is None:
        raise InputFileError(f"{path}: line {number}: the label {raw!r} is neither a number nor high or low")
    return value


def _value(raw: object) -> float | None:
    """A label as a number; None where it is none."""
    text = str(raw).strip().lower()
    if text in WORDS:
        return WORDS[text]
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    import gzip

    from demeanor.data.csv_rows import Lines, csv_header, csv_rows

    found: list[tuple[int, dict[str, Any]]] = []
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            lines = Lines(file)  # type: ignore[arg-type]
            for row in csv_rows(lines, csv_header(path, lines)):
                if row.error:
                    raise InputFileError(f"{path}: {row.error}")
                found.append((row.number, {name: value for name, value in row.record.items() if name}))
    except FileNotFoundError:
        raise InputFileError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise InputFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return found


def _with_messages(path: Path, number: int, record: dict[str, Any]) -> dict[str, Any]:
    """The record with its messages unpacked, which a sheet holds as JSON."""
    text = record.get("messages")
    if not isinstance(text, str) or not text or not path.name.lower().endswith((".csv", ".csv.gz")):
        return record
    try:
        return {**record, "messages": json.loads(text)}
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
