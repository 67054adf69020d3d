"""What is done to one shard, one batch of prompts, one flagged reply: the same functions for every engine.

A shard's rows go through `Scorer.score_many` in one call, so that batches are composed alike whichever process runs it,
and whichever shards were done before. Results are bytes or plain data: whoever called writes them.

Added to each row, for every trait T of the vector set (null where it was not scored):

    demeanor_T_raw, demeanor_T_z, demeanor_T_probability     as `demeanor score` gives them
    demeanor_T_worst_z                                        of its worst part, where that is worse than the whole, else T_z;
                                                              what thresholds are tried on; for traits read on the response
    demeanor_T_easing                                         by how many z it is eased, as the user's messages do not call for T; null
                                                              where nothing is known; for traits with a condition
    demeanor_T_difference                                     raw minus the baseline; for traits read on the response
    demeanor_error                                            why the row is not scored, or has no baseline; null otherwise
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from demeanor.conversation import Conversation
from demeanor.data.columns import Columns
from demeanor.data.rows import to_line
from demeanor.data.sources import open_source
from demeanor.data.surveys import CHANGED, Block, Source
from demeanor.data.tables import from_table, jsonable
from demeanor.errors import DemeanorError, InputFileError
from demeanor.measure.conditions import total_easing
from demeanor.progress import Progress
from demeanor.scoring.reading import NotScored, Reading, TokenScores, looked_at
from demeanor.scoring.scorer import CHUNK
from demeanor.screening.baseline import BATCH, Answers, answer_batch, key_of
from demeanor.screening.shards import Manifest

if TYPE_CHECKING:
    from demeanor.scoring.scorer import Scorer

Task = Literal["score", "answer", "explain"]
Load = Callable[[], "Scorer"]
"""Loads the scorer; where several processes score, each calls it."""
PREFIX = "demeanor_"
ERROR = f"{PREFIX}error"
WORST_Z = "worst_z"
EASING = "easing"
NOT_JUDGED = 1000.0
"""The easing of a reply that is not judged by a trait at all."""


def column(trait: str, what: str) -> str:
    """The name of a score column."""
    return f"{PREFIX}{trait}_{what}"


@dataclass(frozen=True)
class Assignment:
    """All that a process needs to know to do its share."""

    source: str
    columns: Columns
    folder: Path
    manifest: Manifest
    threads: int

    @property
    def baseline(self) -> str:
        """What replies are compared with."""
        return str(self.manifest.pins["options"]["baseline"])

    def size(self, task: Task, item: Any) -> int:
        """How many rows, prompts or replies an item stands for."""
        if task == "score":
            return self.manifest.cuts[int(item)].rows
        return min(BATCH, self.manifest.prompts - int(item) * BATCH) if task == "answer" else 1


class ShardWorker:
    """A scorer with a job: keeps its place in the input, and the answers that it has read."""

    def __init__(self, job: Assignment, scorer: Scorer, source: Source | None = None) -> None:
        self.job = job
        self.scorer = scorer
        self.source = source or open_source(job.source, job.columns)
        self.answers = Answers(job.folder) if job.baseline == "generate" else None
        self.conditions = {trait: scorer.vectors.conditions(trait) for trait in scorer.traits}
        """Of each trait, when it counts; none: always."""
        self.judged = scorer.vectors.judged
        """The traits of replies that are judged for themselves."""

    def do(self, task: Task, item: Any, progress: Progress | None = None) -> Any:
        """A shard's number to its part's bytes, a batch's number to its answers' bytes, a conversation to its tokens."""
        if task == "score":
            return score_shard(self, int(item), progress)
        if task == "answer":
            return answer_batch(self.scorer, self.job.folder, int(item), progress)
        return explain(self.scorer, item)


def score_shard(worker: ShardWorker, shard: int, progress: Progress | None = None) -> bytes:
    """The content of a shard's part: its rows as they came, with their scores or their error.

    Raises InputFileError where the input is no longer what it was.
    """
    manifest, scorer = worker.job.manifest, worker.scorer
    cut = manifest.cuts[shard]
    block = worker.source.read(cut, manifest.schema)
    if len(block.rows) != cut.rows:
        raise InputFileError(CHANGED)
    read: list[Conversation | str] = []
    for row in block.rows:
        if row.error is not None:
            read.append(row.error)
            continue
        try:
            read.append(worker.job.columns.conversation(row.record))
        except DemeanorError as error:
            read.append(str(error))
    results = scorer.score_many([c for c in read if isinstance(c, Conversation)])
    added, names = [], added_columns(worker)
    told = 0
    for at, conversation in enumerate(read, 1):
        scores: dict[str, Any] = dict.fromkeys(names)
        if isinstance(conversation, str):
            scores[ERROR] = conversation
        else:
            result = screened(scorer, next(results))
            if isinstance(result, NotScored):
                scores[ERROR] = result.error
            else:
                scores |= _scores(worker, result)
                scores |= _differences(worker, conversation, result)
        added.append(scores)
        if progress is not None and (at % CHUNK == 0 or at == len(read)):
            progress(at - told)  # in the lumps in which they are scored, or the speed would be nonsense
            told = at
    return _parquet(block, added, names) if manifest.output == "parquet" else _jsonl(block, added)


def screened(scorer: Scorer, result: Reading | NotScored) -> Reading | NotScored:
    """The reading of a row: of each trait the worse score of what was said and of reasoning that was set apart, as both are trained on."""
    if isinstance(result, NotScored) or result.apart is None or result.apart.read is None:
        return result
    reasoning = result.apart.read
    if isinstance(reasoning, NotScored):
        return NotScored(f"the reasoning in the reply: {reasoning.error}")

    entries = scorer.vectors.traits
    scores = {name: entries[name].worst((score, reasoning.scores[name])) for name, score in result.scores.items()}
    parts = [found.worst for found in (result, reasoning)]
    worst = {n: entries[n].worst([scores[n], *(p[n] for p in parts if n in p)]) for n in scores if any(n in p for p in parts)}
    return replace(result, scores=scores, worst=worst)


def explain(scorer: Scorer, messages: Sequence[dict[str, str]]) -> TokenScores | str:
    """How each token of a reply pushes each trait, or why that cannot be said."""
    try:
        return scorer.score_tokens(messages)
    except DemeanorError as error:
        return str(error)


def added_columns(worker: ShardWorker) -> list[str]:
    """The columns that scoring adds, in order."""
    scorer, names = worker.scorer, []
    for trait in scorer.traits:
        names += [column(trait, k) for k in ("raw", "z", "probability")]
        if trait in worker.judged:
            names += [column(trait, k) for k in (WORST_Z, "difference")]
        if worker.conditions[trait]:
            names.append(column(trait, EASING))
    return [*names, ERROR]


def _scores(worker: ShardWorker, reading: Reading) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for trait, score in reading.scores.items():
        kinds: dict[str, float | None] = {"raw": score.raw, "z": score.z, "probability": score.probability}
        if trait in worker.judged:
            kinds[WORST_Z] = reading.worst.get(trait, score).z
        if conditions := worker.conditions[trait]:
            easing = total_easing(conditions, lambda condition: looked_at(condition, reading, reading.users))
            kinds[EASING] = None if easing is None else min(easing, NOT_JUDGED)
        found |= {column(trait, what): value for what, value in kinds.items()}
    return found


def _differences(worker: ShardWorker, conversation: Conversation, reading: Reading) -> dict[str, Any]:
    """Raw score minus the baseline's: the neutral mean's, or that of the model's own answer to the same prompt."""
    traits = [name for name in worker.judged if name in reading.scores]
    if worker.answers is None:
        return {column(name, "difference"): reading[name].centred for name in traits}
    answer = worker.answers[key_of(conversation)]
    if isinstance(answer, str):
        return {ERROR: f"no baseline: {answer}"}
    return {column(name, "difference"): reading[name].raw - answer[name] for name in traits}


def _parquet(block: Block, added: list[dict[str, Any]], names: list[str]) -> bytes:
    table = block.table
    for name in names:
        kind = pa.string() if name == ERROR else pa.float64()
        table = table.append_column(pa.field(name, kind), pa.array([row[name] for row in added], kind))
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    return bytes(sink.getvalue())


def _jsonl(block: Block, added: list[dict[str, Any]]) -> bytes:
    """The rows as lines. Where a Parquet value has no place in JSON it is text, and a NaN is null."""
    whole = [row.record for row in block.rows] if block.parsed_whole else [jsonable(record) for record in from_table(block.table)]
    return "".join(to_line({**record, **scores}) for record, scores in zip(whole, added, strict=True)).encode()


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Run the model with that many threads: sums of floats depend on how they are split."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
