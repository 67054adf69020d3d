"""Screening a data set: the same rows with scores, what is flagged, and how far the set would push a model.

    survey the input ─► manifest ─► [answers of the model itself] ─► parts, shard by shard ─► flagged, summary

`screen` does all of it, with an engine that runs the work: here in this process (LocalEngine), elsewhere on several
(ray_engine.RayEngine). Engines call the same Worker and give back bytes, which only this process writes. A run that was
killed goes on where it was; one that is finished only makes its results anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from demeanor.data.columns import Columns
from demeanor.data.sources import open_source
from demeanor.data.surveys import CHANGED, Source
from demeanor.errors import InputFileError, OutputError
from demeanor.progress import Progress, Stage, unseen
from demeanor.scoring.reading import TokenScores
from demeanor.screening import baseline as answers
from demeanor.screening.flags import choose_limits
from demeanor.screening.results import Screening, finish
from demeanor.screening.shards import Manifest, Output, only_run, refuse_foreign, write_manifest, write_whole
from demeanor.screening.worker import PREFIX, Assignment, Load, ShardWorker, Task, thread_count
from demeanor.vectors.vector_set import VectorSet

if TYPE_CHECKING:
    from demeanor.scoring.scorer import Scorer

BaselineKind = Literal["mean", "generate"]
SHARD_ROWS = 2048


@dataclass(frozen=True)
class Options:
    """How a data set is screened. All but the last three must be the same when a run goes on."""

    columns: Columns = field(default_factory=Columns)
    baseline: BaselineKind = "mean"
    """What a reply is compared with: the neutral mean of the calibration, or the model's own answer to the same prompt."""
    output: Output = "parquet"
    shard_rows: int = SHARD_ROWS
    """Rows of a part; as many are lost at most when a run is killed. Best a multiple of 512."""
    threads: int | None = None
    """Threads of the model; None takes what the run was begun with, at first what torch takes. Scores depend on it in their last bits."""
    thresholds: Sequence[str] = ()
    """See flags.choose_limits."""
    always: bool = False
    """Whether each trait counts in every row, also where nothing in the user's messages calls for it."""
    explained: int = 200
    """How many of the flagged, from the worst on, name the tokens that pushed; each costs a pass of the model."""

    def pins(self, threads: int) -> dict[str, Any]:
        """What the manifest holds, by the names of the command's options."""
        return {**self.columns.pins(), "baseline": self.baseline, "format": self.output, "shard_rows": self.shard_rows, "threads": threads}


class Engine(Protocol):
    """What runs the work."""

    def model(self, threads: int) -> dict[str, Any]:
        """What the manifest holds of the model; the same wherever the scores come out the same."""

    def close(self) -> None:
        """Let go of what was started for the work."""

    def run(self, job: Assignment, task: Task, items: Sequence[Any], progress: Progress) -> Iterable[tuple[int, Any]]:
        """The result of each item with its place in `items`, as they are finished; `progress` is told of rows, prompts or replies."""


class LocalEngine:
    """Works in this process, one item after the other."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._scorer: Scorer | None = None
        self._worker: ShardWorker | None = None

    @property
    def scorer(self) -> Scorer:
        """The scorer, loaded when it is first needed."""
        self._scorer = self._scorer or self._load()
        return self._scorer

    def model(self, threads: int) -> dict[str, Any]:
        """What the manifest holds of the model."""
        return model_pins(self.scorer)

    def close(self) -> None:
        """Close the input; the scorer stays."""
        if self._worker is not None:
            self._worker.source.close()
            self._worker = None

    def run(self, job: Assignment, task: Task, items: Sequence[Any], progress: Progress) -> Iterator[tuple[int, Any]]:
        """One result after the other."""
        if self._worker is None or self._worker.job != job:
            self._worker = ShardWorker(job, self.scorer)
        with thread_count(job.threads):
            for at, item in enumerate(items):
                yield at, self._worker.do(task, item, progress)


def screen(
    source: str | Path,
    folder: str | Path,
    vectors: VectorSet,
    engine: Engine,
    options: Options | None = None,
    stage: Stage = unseen,
) -> Screening:
    """Screen a data set into a folder, or go on with a screening that was begun there.

    Args:
        source: A .jsonl(.gz), .csv or .parquet file, a folder of one kind of them, or a Hugging Face data set's name.
        folder: Where the results go: new, empty, or a screening of the same input with the same vectors and options.
        vectors: What is scored with; the engine's scorer must hold the same.
        engine: LocalEngine(lambda: scorer), or a RayEngine.
        options: How.
        stage: Told of the progress.

    Raises:
        InputFileError: the input cannot be read, is empty, or lacks a column.
        OutputError: the folder holds something else, or cannot be written.
        VectorSetError: a threshold names no trait or none of its thresholds.
    """
    options = options or Options()
    folder, where = Path(folder).absolute(), str(source)
    if options.shard_rows < 1 or (options.threads or 1) < 1:
        raise InputFileError("--shard-rows and --threads are at least 1")
    limits = choose_limits(vectors, options.thresholds, options.always)
    refuse_foreign(folder)
    rows = open_source(where, options.columns)
    if Path(where).exists():
        where = str(Path(where).absolute())
        if folder.resolve().is_relative_to(Path(where).resolve()):
            raise OutputError(f"{folder} lies in the input; name another folder with --output")
    with only_run(folder), closing(engine):
        manifest = _manifest(rows, folder, vectors, engine, options, stage)
        job = Assignment(where, options.columns, folder, manifest, int(manifest.pins["options"]["threads"]))
        _answer(engine, job, stage)
        _score(engine, job, stage, rows)
        return finish(folder, manifest, options.columns, vectors, limits, _explainer(engine, job, stage), options.explained)


def _manifest(rows: Source, folder: Path, vectors: VectorSet, engine: Engine, options: Options, stage: Stage) -> Manifest:
    """The folder's manifest, checked against what is asked for now; or a new one, for which the input is surveyed."""
    begun = Manifest.load(folder)
    threads = options.threads or (_default_threads() if begun is None else int(begun.pins["options"]["threads"]))
    pins = {"options": options.pins(threads), "vectors": vectors.fingerprint(thresholds=False), "versions": _versions()}
    if begun is not None:
        begun.refuse_other(folder, pins)
        begun.refuse_other(folder, {"input": rows.check()})
        begun.refuse_other(folder, {"model": engine.model(threads)})
        return begun
    index = answers.PromptIndex(folder, options.columns) if options.baseline == "generate" else None
    survey = rows.survey(options.shard_rows, index.see if index else None)
    taken = [name for name in survey.schema.names if name.startswith(PREFIX)]
    if taken:
        raise InputFileError(f"the input has a column {taken[0]!r} already, as a screening adds them; rename or drop it")
    manifest = Manifest.of(survey, {**pins, "model": engine.model(threads)}, index.finish() if index else 0)
    write_manifest(folder, manifest)
    return manifest


def _answer(engine: Engine, job: Assignment, stage: Stage) -> None:
    prompts = job.manifest.prompts
    todo = [b for b in range(answers.batches(prompts)) if not answers.batch_path(job.folder, b).exists()]
    if not todo:
        return
    left = sum(min(answers.BATCH, prompts - b * answers.BATCH) for b in todo)
    step = stage("answering the prompts", prompts, prompts - left)
    for at, content in engine.run(job, "answer", todo, step):
        write_whole(answers.batch_path(job.folder, todo[at]), content)


def _score(engine: Engine, job: Assignment, stage: Stage, rows: Source) -> None:
    cuts = job.manifest.cuts
    todo = [k for k in range(len(cuts)) if not job.manifest.part(job.folder, k).exists()]
    step = stage("scoring", job.manifest.rows, job.manifest.rows - sum(cuts[k].rows for k in todo))
    for at, content in engine.run(job, "score", todo, step):
        write_whole(job.manifest.part(job.folder, todo[at]), content)
    if todo and rows.check() != job.manifest.pins["input"]:
        for k in todo:
            job.manifest.part(job.folder, k).unlink()
        raise InputFileError(CHANGED)


def _explainer(engine: Engine, job: Assignment, stage: Stage) -> Callable[[list[list[dict[str, str]]]], list[TokenScores | str]]:
    def explain(conversations: list[list[dict[str, str]]]) -> list[TokenScores | str]:
        if not conversations:
            return []
        step = stage("reading the flagged", len(conversations), 0)
        found: dict[int, TokenScores | str] = {}
        for at, tokens in engine.run(job, "explain", conversations, lambda _n: None):
            found[at] = tokens
            step(1)
        return [found[i] for i in range(len(conversations))]

    return explain


def _default_threads() -> int:
    import torch

    return torch.get_num_threads()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("demeanor", "torch", "transformers", "pyarrow")}


def model_pins(scorer: Scorer) -> dict[str, Any]:
    """What of a model decides its scores to the last bit, on one kind of machine; and whether it is the vectors' own."""
    from demeanor.model.identity import identify

    reader = scorer.reader
    record: dict[str, Any] = dict(identify(reader.model, reader.tokenizer).to_record())
    kept = ("fingerprint", "template_hash", "dtype", "quantization")
    where = {"device": reader.device.type, "token_budget": reader.token_budget}
    return {k: record[k] for k in (*kept, "adapter") if k in record} | where | {"warnings": list(scorer.warnings)}
