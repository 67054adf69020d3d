"""The same work on several processes or machines: Ray Data with a fixed pool of scorer actors.

Shards are numbers; an actor reads its shard from the input itself, scores it and sends the finished part back, which only
the process that was started by the user writes. So the input must be readable under the same path wherever actors run (and
the output folder too, for `--baseline generate`: the answers stand there), and nothing else is shared. An actor that dies is
started again and its shard given out again; as nothing was written, nothing is double.

No errored block is tolerated (`max_errored_blocks` stays 0): what cannot be scored is a row with its error, and all else
is an error of the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demeanor.errors import DemeanorError, MissingExtraError, ModelError
from demeanor.progress import Progress
from demeanor.screening.screen import model_pins
from demeanor.screening.worker import Assignment, Load, ShardWorker, Task, thread_count

if TYPE_CHECKING:
    from demeanor.scoring.scorer import Scorer
    from demeanor.vectors.vector_set import VectorSet

EACH = 50  # replies for which it is worth to start one more actor, when only tokens are read


@dataclass(frozen=True)
class LoadScorer:
    """Loads the scorer in another process."""

    vectors: VectorSet
    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    allow_other_model: bool = False
    template: str | None = None

    def __call__(self) -> Scorer:
        """The scorer."""
        from demeanor.scoring.scorer import open_scorer

        return open_scorer(
            self.vectors, self.model, self.device, self.dtype, allow_other_model=self.allow_other_model, template=self.template
        )


class Actor:
    """One scorer of the pool; Ray Data calls it with one item at a time."""

    def __init__(self, load: Load, job: Assignment, task: Task) -> None:
        self._threads = thread_count(job.threads)
        self._threads.__enter__()  # for as long as the process lives
        self.worker = ShardWorker(job, load())
        self.task = task

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The item's result, pickled. A known error is a result too, for whoever asked to raise."""
        try:
            result = self.worker.do(self.task, pickle.loads(batch["item"][0]))  # noqa: S301 - written by `run` below
        except DemeanorError as error:
            result = error
        return {"at": batch["at"], "result": [pickle.dumps(result)]}


class RayEngine:
    """Runs work on a pool of actors.

    Args:
        load: Loads the scorer; called in each actor.
        actors: How many; by default one for each GPU, else as many as fit the CPUs with the model's threads.
        address: Of a running cluster; by default Ray is started on this machine and stopped again.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, load: Load, actors: int | None = None, address: str | None = None) -> None:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its own lines about actors that it starts again
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("--engine ray needs Ray: pip install 'demeanor[ray]'") from error
        if actors is not None and actors < 1:
            raise ModelError("--actors is at least 1")
        self.load, self.actors, self.address = load, actors, address
        self._mine = False

    def model(self, threads: int) -> dict[str, Any]:
        """What the manifest holds of the model, as one of the actors sees it."""
        import ray

        _, needs = self._started(threads)
        describe = ray.remote(**needs)(_describe)
        with _plainly():
            found: dict[str, Any] = ray.get(describe.remote(self.load))
        return found

    def run(self, job: Assignment, task: Task, items: Sequence[Any], progress: Progress) -> Iterator[tuple[int, Any]]:
        """Results as actors finish them."""
        if not items:
            return
        import ray.data

        actors, needs = self._started(job.threads)
        with _quiet_data():
            data = ray.data.from_items(
                [{"at": at, "item": pickle.dumps(item)} for at, item in enumerate(items)], override_num_blocks=len(items)
            ).map_batches(
                Actor,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(actors, -(-len(items) // (EACH if task == "explain" else 1)))),
                fn_constructor_kwargs={"load": self.load, "job": job, "task": task},
                **needs,
            )  # Ray Data restarts the actors of a pool and gives their items out again, without limit
            with _plainly():
                for row in data.iter_rows():
                    result = pickle.loads(row["result"])  # noqa: S301 - written by our own actor
                    if isinstance(result, DemeanorError):
                        raise result
                    at = int(row["at"])
                    progress(job.size(task, items[at]))
                    yield at, result

    def close(self) -> None:
        """Stop Ray where this engine has started it."""
        if self._mine:
            import ray

            ray.shutdown()
            self._mine = False

    def _started(self, threads: int) -> tuple[int, dict[str, Any]]:
        """How many actors there are to be, and what each of them takes; Ray runs. Raises ModelError where they do not fit."""
        import ray

        if not ray.is_initialized():
            here: dict[str, Any] = (
                {} if self.address else {"num_cpus": max(os.cpu_count() or 1, self.actors or 1), "include_dashboard": False}
            )
            try:
                ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR, **here)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ModelError(f"no Ray cluster at {self.address or 'this machine'}: {reason}") from error
            self._mine = True
        there = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 0))
        actors = self.actors or gpus or max(1, cpus // threads)
        if actors > (gpus or cpus):
            kind = "GPUs" if gpus else "CPUs"
            raise ModelError(f"{actors} actors do not fit the cluster's {gpus or cpus} {kind}; give fewer --actors")
        return actors, {"num_gpus": 1} if gpus else {"num_cpus": 1}


def _describe(load: Load) -> dict[str, Any]:
    return model_pins(load())


@contextmanager
def _plainly() -> Iterator[None]:
    """A known error of an actor as itself; any other failure of Ray's in one line."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, DemeanorError):
            raise cause from error
        raise ModelError(f"a scorer actor failed: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"Ray gave up: {reason}; the finished parts are kept; run it again to continue") from error


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Ray Data without its own bars and lines: progress is the command's."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.enable_progress_bars, context.print_on_execution_start
    context.enable_progress_bars = context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        with contextlib.suppress(AttributeError):
            context.enable_progress_bars, context.print_on_execution_start = before
