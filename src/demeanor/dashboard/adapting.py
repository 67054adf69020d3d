"""Labels become a vector set: a job with progress, beside whatever decides meanwhile; what it came to, and putting it in force.

One job at a time, in a thread of this process: reading replies with the model takes all that a machine has. What is learnt is saved in a
folder of its own when the job ends, so that a shadow run can read it; jobs themselves are forgotten when the dashboard ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import Response

from demeanor.dashboard.handling import Asked, NotFoundError
from demeanor.errors import DemeanorError, ReviewError
from demeanor.monitor.policy import default_policy_text, load_policy
from demeanor.reports.figures import Plot, line_plot
from demeanor.review import versions
from demeanor.review.queue import questions
from demeanor.review.store import Store

if TYPE_CHECKING:  # learning brings torch, which a dashboard that only shows needs not
    from demeanor.review.learning import Learnt

Learner = Callable[[Store, str, Callable[[int], None]], "Learnt"]
"""Learns a trait from a store's labels; it is told a step for each reply that was read."""


@dataclass
class Job:
    """One run."""

    number: int
    trait: str
    who: str
    begun: float
    labels: int
    read: int = 0
    """Replies that were read so far."""
    made: Learnt | None = None
    folder: Path | None = None
    problem: str = ""

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self.made is None and not self.problem


@dataclass
class Adapting:
    """The jobs of a dashboard."""

    learner: Learner
    into: Path
    """The folder in which vector sets are saved, each in one of its own."""
    jobs: list[Job] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, store: Store, trait: str, who: str) -> Job:
        """Begin a job. Raises ReviewError where one is running, or the trait has no labels."""
        from demeanor.review.learning import labelled_of

        labels = len(labelled_of(store, trait).target)
        with self._lock:
            if any(job.running for job in self.jobs):
                raise ReviewError("another job is running; wait for its end, as each takes all that the machine has")
            job = Job(len(self.jobs) + 1, trait, who, store.clock(), labels)
            self.jobs.append(job)
        threading.Thread(target=self._run, args=(store, job), daemon=True, name=f"adapting {trait}").start()
        return job

    def _run(self, store: Store, job: Job) -> None:
        def progress(n: int) -> None:
            job.read += n

        try:
            made = self.learner(store, job.trait, progress)
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(store.clock()))
            job.folder = made.vectors.save(self.into / f"{job.trait}-{stamp}")
            job.made = made
        except DemeanorError as error:
            job.problem = str(error)
        except Exception as error:
            job.problem = f"it ended with an error of the program, {type(error).__name__}: {error}"
            raise


def begin(asked: Asked) -> Response:
    """Begin a job for a trait."""
    trait = asked.form.get("trait", "")
    if trait not in questions(asked.store):
        raise NotFoundError(f"nothing is asked about {trait[:80]!r}")
    return asked.go(f"/adapting/{_of(asked).start(asked.store, trait, asked.name).number}")


def shown(asked: Asked) -> Response:
    """How far a job is, or what it came to."""
    from demeanor.review.learning import in_words

    job = _job(asked)
    made = job.made
    title = {trait: question.title for trait, question in questions(asked.store).items()}.get(job.trait, job.trait)
    return asked.show(
        "adapting.html", job=job, title=title, words=in_words(made) if made is not None else (),
        curve=_curve(made, title) if made is not None else None, made=made,
        in_force=versions.in_force(asked.store),
    )  # fmt: skip


def promoted(asked: Asked) -> Response:
    """Put what a job learnt in force, with the policy that is."""
    job = _job(asked)
    if job.made is None or job.folder is None:
        raise ReviewError("this job has not come to a vector set; nothing can be put in force")
    now = versions.in_force(asked.store)
    policy, text = (load_policy().identity, default_policy_text()) if now is None else (now.policy, now.policy_text)
    folder, digest = str(job.folder.resolve()), job.made.vectors.fingerprint()  # whoever starts with it may stand in another folder
    versions.promote(asked.store, asked.name, asked.form.get("why", ""), folder, digest, policy, text)
    return asked.go("/labels#versions")


def _of(asked: Asked) -> Adapting:
    found = asked.desk.adapting
    if not isinstance(found, Adapting):
        raise ReviewError("this dashboard was started without a model to read replies with; on the command line: demeanor review adapt")
    return found


def _job(asked: Asked) -> Job:
    number = asked.number("number")
    jobs = _of(asked).jobs
    if not 1 <= number <= len(jobs):
        raise NotFoundError(f"there is no job {number}; jobs are forgotten when the dashboard ends")
    return jobs[number - 1]


def _curve(made: Learnt, title: str) -> Plot | None:
    if made.adaptation is None or len(made.adaptation.curve) < 2:
        return None
    points = [(float(n), value) for n, value in sorted(made.adaptation.curve.items())]
    label = f"Learning curve of {title}: cross-validated AUROC by the number of labels"
    return line_plot(label, {title: points}, "labels", "AUROC", height=200)
