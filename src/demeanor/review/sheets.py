"""The queue as a sheet, for people who prefer one: items handed out as CSV, and their labels taken back.

It is the sheet of `demeanor sample` (data/to_label): the same question, the same guide beside it, and seals by which a row that was changed
is seen. Its items stay reserved until the sheet is due. A sheet of another store is refused, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demeanor.data.label_words import unknown, value_of
from demeanor.data.rows import Row
from demeanor.data.sheets import empty, is_ours, rows_of
from demeanor.data.to_label import ToLabel, guide_path, refuse_taken, write_guide, write_sheet
from demeanor.errors import InputFileError, ReviewError
from demeanor.keys import folded
from demeanor.review.queue import answer, questions, reserve
from demeanor.review.store import Store
from demeanor.review.texts import DAY

DUE = 14 * DAY


@dataclass(frozen=True)
class Taken:
    """What a sheet brought."""

    labels: int
    unlabelled: int
    """Rows that nobody filled in; their items stay reserved until the sheet is due."""


def export_sheet(store: Store, reviewer: str, path: Path, n: int, trait: str | None = None, due: float = DUE) -> int:
    """Write up to `n` items to a sheet for a reviewer, with a guide beside it, and give how many those are.

    Args:
        store: The review store.
        reviewer: Whose the items are until the sheet is due.
        path: Where the sheet goes, a .csv that is not there yet.
        n: How many at most.
        trait: Only items of this trait.
        due: Seconds until somebody else may get them.

    Raises:
        OutputError: the place is taken, or is none for a CSV.
        ReviewError: nothing is left for this reviewer.
    """
    refuse_taken(path)
    with store.db.transaction():  # a sheet that cannot be written reserves nothing
        items = reserve(store, reviewer, n, trait, due)
        if not items:
            raise ReviewError(f"nothing is left for {reviewer}" + (f" about {trait}" if trait else ""))
        write_sheet(path, [ToLabel(_name(store, item.number), item.conversation, item.conversation_key, item.question) for item in items])
        write_guide(guide_path(path), path.name, list({item.question.trait: item.question for item in items}.values()))
        store.record(reviewer, "export", items=len(items))
    return len(items)


def import_sheet(store: Store, path: Path, reviewer: str | None = None) -> Taken:
    """Take the labels of a sheet that `export_sheet` wrote: all of them, or none where a row cannot be read.

    Args:
        store: The review store.
        path: The sheet.
        reviewer: Who labelled it, where the column 'rater' does not say so.

    Raises:
        InputFileError: the rows that cannot be read, all in one list.
        ReviewError: an answer that cannot be taken, such as another one after the score was shown.
    """
    rows, broken = rows_of(path), []
    raters = {folded(str(row.record["rater"])) for row in rows if not empty(row.record.get("rater"))}
    alone = reviewer or (raters.pop() if len(raters) == 1 else None)
    asked = questions(store)
    found, unlabelled = [], 0
    for row in rows:
        if empty(row.record.get("label")):
            unlabelled += 1
            continue
        try:
            found.append(_answer(store, row, alone, {name: q.safe_pole for name, q in asked.items()}))
        except InputFileError as error:
            broken.append(str(error))
    if broken:
        more = f" (and {len(broken) - 12} more)" if len(broken) > 12 else ""
        raise InputFileError(f"{path}: {len(broken)} rows cannot be taken, and nothing was: {'; '.join(broken[:12])}{more}")
    with store.db.transaction():
        for number, who, value, note in found:
            answer(store, number, who, value, note)
        store.record(reviewer or "", "import", labels=len(found))
    return Taken(len(found), unlabelled)


def _name(store: Store, number: int) -> str:
    return f"item {number} {store.hashed('item', str(number))[:8]}"


def _answer(store: Store, row: Row, alone: str | None, safe: dict[str, Literal["high", "low"]]) -> tuple[int, str, str, str]:
    """A row's item, reviewer, answer and note. Raises InputFileError."""
    parts = str(row.record.get("id") or "").removeprefix("'").split()
    if not is_ours(row.record) or len(parts) != 3 or not parts[1].isdecimal() or _name(store, int(parts[1])) != " ".join(parts):
        raise InputFileError(f"{row.where}: not an item of this store; give the sheet that `demeanor review export` wrote from it")
    who = folded(str(row.record.get("rater") or "")) or alone
    if not who:
        raise InputFileError(f"{row.where}: nobody stands under 'rater'; fill it in, or name the reviewer with --reviewer")
    meant, trait = value_of(row.record["label"]), str(row.record["trait"])
    if meant in ("safe", "unsafe"):
        other: Literal["high", "low"] = "low" if safe[trait] == "high" else "high"
        value: str = safe[trait] if meant == "safe" else other
    elif meant == "unsure":
        value = "unsure"
    elif meant in (0.0, 1.0):
        value = "high" if meant else "low"
    else:
        raise InputFileError(f"{row.where}: {unknown(row.record['label'])}")
    note = row.record.get("notes")
    return int(parts[1]), who, value, "" if empty(note) else str(note)
