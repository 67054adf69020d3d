"""From finished parts to what a person reads: flagged.jsonl, summary.json, and the worst of each trait with their tokens.

One pass over the parts, in order, a part at a time; then one over the flagged, worst first. Made anew at every start, from
the parts alone, so that other thresholds can be tried on a finished screening without scoring anything again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from demeanor.conversation import Conversation, reply_of
from demeanor.data.columns import Columns
from demeanor.data.duplicates import NearDuplicates
from demeanor.data.rows import to_line, writing
from demeanor.data.tables import from_table
from demeanor.errors import DemeanorError, OutputError
from demeanor.language import caution
from demeanor.measure.metrics import Array
from demeanor.scoring.reading import TokenScores
from demeanor.screening.baseline import key_of
from demeanor.screening.flags import Flagged, Limit, Sorter, Worst, known_limits
from demeanor.screening.shards import Manifest, write_whole
from demeanor.screening.summary import Tally, group_of
from demeanor.screening.worker import EASING, ERROR, WORST_Z, column
from demeanor.vectors.vector_set import VectorSet

WORST = 20  # of each trait, for the report
PUSHING = 8  # tokens that a flagged row names
Explain: TypeAlias = Callable[[list[list[dict[str, str]]]], list["TokenScores | str"]]


@dataclass(frozen=True)
class Explained:
    """One of the worst rows of a trait, with how each token pushes, where that can be said."""

    flagged: Flagged
    crosses: bool
    tokens: TokenScores | str | None


@dataclass(frozen=True)
class Screening:
    """What came of screening a data set; the rows with their scores are in its folder."""

    folder: Path
    summary: dict[str, Any]
    """As summary.json holds it."""
    worst: dict[str, list[Explained]]
    """The worst twenty of each trait that flags."""
    repeated: list[tuple[Flagged, int]]
    """Flagged replies that are repeated nearly word for word, and how often, most often first."""
    limits: dict[str, Limit]

    @property
    def failed(self) -> int:
        """Rows that were not scored."""
        return int(self.summary["failed"])

    @property
    def without_baseline(self) -> int:
        """Rows that were scored and have nothing to be compared with; they are in no shift."""
        return int(self.summary["without_baseline"])


@dataclass(frozen=True)
class _Part:
    """A part's score columns, with NaN where there is none, and its rows."""

    first: int
    z: dict[str, Array]
    difference: dict[str, Array]
    errors: list[str | None]
    judged: dict[str, Array]
    """The z that thresholds are tried on: the worst part's, where that is worse than the whole."""
    easing: dict[str, Array]
    """Whether each row's user calls for a trait, for those that a condition is set for."""
    read: Callable[[Sequence[int]], list[dict[str, Any]]]


def finish(
    folder: Path, manifest: Manifest, columns: Columns, vectors: VectorSet, limits: dict[str, Limit], explain: Explain, explained: int
) -> Screening:
    """Make flagged.jsonl and summary.json from the parts.

    `explain` gives how the tokens of some replies push; the first `explained` of the flagged, from the worst on, name theirs.
    """
    traits = list(vectors.traits)
    tally = Tally(traits, known_limits(vectors, limits), limits)
    sorter = Sorter(folder / ".spool")
    worst = {name: Worst(WORST) for name in limits}
    try:
        for shard, cut in enumerate(manifest.cuts):
            part = _open_part(manifest.part(folder, shard), cut.first, vectors, columns, limits)
            if len(part.errors) != cut.rows:
                raise OutputError(
                    f"{manifest.part(folder, shard)} holds {len(part.errors)} rows, and {cut.rows} were written; remove it and run the "
                    "command again"
                )
            read = _conversations(part, columns)
            tally.add(part.z, part.difference, _groups(part, read), part.errors, part.judged, part.easing)
            tally.cautions += sum(error is None and bool(caution(reply_of(c), vectors.languages)) for error, c in _paired(part, read))
            _collect(part, columns, limits, sorter, worst)
        tally.flagged = sorter.count
        screening = _write(folder, manifest, vectors, limits, tally, sorter, worst, explain, explained)
    finally:
        sorter.close()
    return screening


def _collect(part: _Part, columns: Columns, limits: Mapping[str, Limit], sorter: Sorter, worst: Mapping[str, Worst]) -> None:
    beyond = {name: limit.beyond(part.judged, part.easing) for name, limit in limits.items()}
    over_all = np.max([np.full(len(part.errors), -np.inf), *beyond.values()], axis=0)
    crossing = np.flatnonzero(over_all >= 0)
    near = {name: w.candidates(beyond[name]) for name, w in worst.items()}
    wanted = sorted({*crossing.tolist(), *(int(i) for found in near.values() for i in found)})
    records = dict(zip(wanted, part.read(wanted), strict=True))

    def flagged(i: int, trait: str) -> Flagged:
        record = records[i]
        crossed = sorted((n for n in limits if beyond[n][i] >= 0), key=lambda n: -beyond[n][i])
        return Flagged(
            beyond=float(beyond[trait][i]),
            row=part.first + i,
            trait=trait,
            z=float(part.judged[trait][i]),
            traits={n: {"z": float(part.judged[n][i]), "threshold": limits[n].cut.value} for n in crossed},
            messages=columns.conversation(record).to_record(),
            id=record.get("id") if isinstance(record.get("id"), str | int) else None,
        )

    for i in crossing.tolist():
        sorter.add(flagged(i, max(limits, key=lambda n: beyond[n][i])))
    for name, kept in worst.items():
        kept.add([flagged(int(i), name) for i in near[name]])


def _write(
    folder: Path,
    manifest: Manifest,
    vectors: VectorSet,
    limits: dict[str, Limit],
    tally: Tally,
    sorter: Sorter,
    worst: Mapping[str, Worst],
    explain: Explain,
    explained: int,
) -> Screening:
    told: dict[int, list[dict[str, str]]] = {}
    for at, flagged in enumerate(sorter.worst_first()):
        if at >= explained:
            break
        told[flagged.row] = flagged.messages
    for kept in worst.values():
        told |= {f.row: f.messages for f in kept.rows}
    tokens = dict(zip(told, explain(list(told.values())), strict=True))
    duplicates = NearDuplicates()
    repeats = without_tokens = 0
    with writing(folder / "flagged.jsonl") as file:
        for at, flagged in enumerate(sorter.worst_first()):
            first = duplicates.first_of(flagged.row, flagged.reply)
            pushed = _pushed(tokens.get(flagged.row), flagged.trait, limits[flagged.trait])
            without_tokens += pushed is None and at >= explained
            repeats += first is not None
            file.write(to_line(_line(flagged, limits, pushed, first)))
        file.flush()
        os.fsync(file.fileno())
    often = sorted(duplicates.sizes, key=lambda row: -duplicates.sizes[row])[:WORST]
    repeated = {f.row: f for f in sorter.worst_first() if f.row in often} if often else {}
    summary = {
        **tally.to_record({name: entry.calibration.spread for name, entry in vectors.traits.items()}),
        "near_duplicates": repeats,
        "without_tokens": without_tokens,
        **({"cautions": tally.cautions, "languages": sorted(vectors.languages)} if tally.cautions else {}),
        "baseline": manifest.pins["options"]["baseline"],
        "model": vectors.model.name,
        "warnings": manifest.pins["model"]["warnings"],
        "input": [{k: v for k, v in f.items() if k != "sha256"} for f in manifest.pins["input"]][:20],
        "conditions": {
            n: [[c.trait, c.cut.words, c.last_turns, c.slope] for c in limit.conditions] for n, limit in limits.items() if limit.conditions
        },
    }
    write_whole(folder / "summary.json", (json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return Screening(
        folder,
        summary,
        {name: [Explained(f, f.beyond >= 0, tokens.get(f.row)) for f in kept.rows] for name, kept in worst.items()},
        [(repeated[row], duplicates.sizes[row]) for row in often],
        limits,
    )


def _line(flagged: Flagged, limits: Mapping[str, Limit], pushed: list[dict[str, Any]] | None, first: int | None) -> dict[str, Any]:
    head: dict[str, Any] = {"row": flagged.row} | ({} if flagged.id is None else {"id": flagged.id})
    return head | {
        "trait": flagged.trait,
        "z": flagged.z,
        "threshold": limits[flagged.trait].cut.value,
        "beyond": flagged.beyond,
        "traits": flagged.traits,
        "tokens": pushed,
        "near_duplicate_of": first,
        "messages": flagged.messages,
    }


def _pushed(tokens: TokenScores | str | None, trait: str, limit: Limit) -> list[dict[str, Any]] | None:
    """The tokens that pushed a trait to its unsafe side, hardest first."""
    if tokens is None or isinstance(tokens, str) or trait not in tokens.z:
        return None
    push = tokens.z[trait] if limit.cut.unsafe_side == "above" else -tokens.z[trait]
    order = [int(i) for i in np.argsort(-push, kind="stable") if push[i] > 0][:PUSHING]
    return [{"token": tokens.tokens[i], "z": float(tokens.z[trait][i])} for i in order]


def _conversations(part: _Part, columns: Columns) -> list[Conversation | None]:
    """The conversation of each row; None where there is none."""
    found: list[Conversation | None] = []
    for record in part.read(range(len(part.errors))):
        try:
            found.append(columns.conversation(record))
        except DemeanorError:
            found.append(None)
    return found


def _paired(part: _Part, read: Sequence[Conversation | None]) -> Iterator[tuple[str | None, Conversation]]:
    """The rows that hold a conversation, with their errors."""
    return ((error, conversation) for error, conversation in zip(part.errors, read, strict=True) if conversation is not None)


def _groups(part: _Part, read: Sequence[Conversation | None]) -> NDArray[np.int64]:
    """The bootstrap group of each row: by its prompt, or by its place where it has none."""
    groups = []
    for i, conversation in enumerate(read):
        try:
            alone = conversation is not None and conversation.last("assistant") == 0
            groups.append(0 if conversation is None else (part.first + i) % 1024 if alone else group_of(key_of(conversation)))
        except DemeanorError:
            groups.append(0)
    return np.array(groups, np.int64)


def _open_part(path: Path, first: int, vectors: VectorSet, columns: Columns, limits: Mapping[str, Limit]) -> _Part:
    responses = vectors.judged
    if path.suffix == ".jsonl":
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]

        def numbers(name: str) -> Array:
            return np.array([np.nan if r[name] is None else r[name] for r in records], float)

        def read(rows: Sequence[int]) -> list[dict[str, Any]]:
            return [records[i] for i in rows]

        errors = [r[ERROR] for r in records]
    else:
        table = pq.read_table(path, use_threads=False)

        def numbers(name: str) -> Array:
            return np.asarray(table[name].to_numpy(), float)

        def read(rows: Sequence[int]) -> list[dict[str, Any]]:
            kept = [*columns.wanted(table.schema.names), *(["id"] if "id" in table.schema.names else [])]
            return from_table(table.select(list(dict.fromkeys(kept))).take(pa.array(list(rows), pa.int64())))

        errors = table[ERROR].to_pylist()
    return _Part(
        first,
        {n: numbers(column(n, "z")) for n in vectors.traits},
        {n: numbers(column(n, "difference")) for n in responses},
        errors,
        {n: numbers(column(n, WORST_Z if n in responses else "z")) for n in vectors.traits},
        {n: np.nan_to_num(numbers(column(n, EASING))) for n, limit in limits.items() if limit.conditions},
        read,
    )
