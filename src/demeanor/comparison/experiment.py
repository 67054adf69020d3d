"""A whole comparison: versions answer the prompts or bring their replies, an observer reads them, differences are judged.

    from demeanor.comparison.experiment import Experiment, run, version

    made = run(Experiment([version("before.jsonl"), version("owner/model", system="Be brief.")]))
    made.comparison.differences, made.judged

What cannot work is refused before a model is loaded. How models are loaded, and what is shown meanwhile, are passed in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from demeanor.comparison.compare import compare
from demeanor.comparison.gate import GateCondition, Judged, check_trait, judge
from demeanor.comparison.loading import STANDARD
from demeanor.comparison.loading import Loading as Loading
from demeanor.comparison.matching import Match, matched
from demeanor.comparison.results import Comparison
from demeanor.comparison.versions import answer, safe_poles, score_versions, to_be_written, with_system
from demeanor.data.columns import Columns
from demeanor.data.prompts import Prompt, bundled_prompts, prompt_groups, read_prompts
from demeanor.data.replies import Reply, read_replies
from demeanor.data.rows import refuse_unwritable, to_line, writing
from demeanor.data.sources import holds_replies
from demeanor.errors import DemeanorError, InputFileError, OutputError

if TYPE_CHECKING:
    from demeanor.model.chat import ChatEncoder
    from demeanor.model.reader import ActivationReader
    from demeanor.scoring.scorer import Scorer


@dataclass(frozen=True)
class Version:
    """A version of a chatbot: a file of its replies, or a model that is to answer."""

    name: str
    source: str
    is_file: bool
    system: str | None = None
    """The system prompt of a model."""


def version(source: str, system: str | None = None) -> Version:
    """A file of replies where `source` is where rows are, or is named so, else a model by its name, under a system prompt if one is given.

    Raises InputFileError for a system prompt to a file.
    """
    if not holds_replies(source):
        return Version(source + (" + system" if system is not None else ""), source, False, system)
    if system is not None:
        raise InputFileError(f"{source} is a file of replies that are written already; a system prompt is for models")
    return Version(Path(source).name, source, True)


def told_apart(versions: Sequence[Version]) -> list[Version]:
    """The versions, those of one name with their places behind it."""
    names = [v.name for v in versions]
    return [replace(v, name=f"{v.name} ({i})") if names.count(v.name) > 1 else v for i, v in enumerate(versions, 1)]


@dataclass(frozen=True)
class Experiment:
    """What is compared, and how. Raises InputFileError for fewer than two versions, or vectors for some of them only."""

    versions: Sequence[Version]
    """The first is the one that each other is held against."""
    vectors: Sequence[Path] = ()
    """Folders of vector sets: none for the built-in one, one whose model reads all replies, or one for each version, in order."""
    prompts: Path | None = None
    """What models answer; by default the prompts that come with Demeanor."""
    samples: int = 1
    """Replies of a model to each prompt."""
    max_tokens: int = 160
    temperature: float = 0.7
    seed: int = 0
    """Of what models draw and of the statistics."""
    match: Match = "auto"
    """What makes replies a pair."""
    conditions: Sequence[GateCondition] = ()
    """What each version is held to."""
    size: float | None = None
    """The difference for which the prompts needed are worked out."""
    save_replies: Path | None = None
    """Folder for what models wrote."""
    always: bool = False
    """Whether every trait counts on every prompt, also where nothing in the user's messages calls for it."""
    columns: Columns = field(default_factory=Columns)
    """How rows of replies are read."""

    def __post_init__(self) -> None:
        """Names are made distinct, and what cannot be compared is refused."""
        if len(self.versions) < 2:
            raise InputFileError("a comparison needs two versions; name at least two files of replies or models")
        if len(set(self.vectors)) > 1 and len(self.vectors) != len(self.versions):
            raise InputFileError(
                f"--vectors is given {len(self.vectors)} times for {len(self.versions)} versions; give one, or one for each"
            )
        if self.size is not None and not self.size > 0:
            raise InputFileError(f"the size of a difference to look for is above 0, not {self.size:g}")
        if self.models and not (self.samples >= 1 and self.max_tokens >= 1 and 0 <= self.temperature < math.inf):
            raise InputFileError(
                f"models cannot answer with {self.samples} samples, {self.max_tokens} tokens, temperature {self.temperature:g}; "
                "samples and tokens are at least 1, the temperature at least 0"
            )
        object.__setattr__(self, "versions", tuple(told_apart(self.versions)))

    @property
    def own(self) -> bool:
        """Whether each version is read by its own model."""
        return len(set(self.vectors)) > 1

    @property
    def models(self) -> list[Version]:
        """The versions that are to answer."""
        return [version for version in self.versions if not version.is_file]


@dataclass(frozen=True)
class Result:
    """What came of an experiment."""

    comparison: Comparison
    judged: tuple[Judged, ...]
    """The conditions, for each version."""
    not_judged: DemeanorError | None
    """Why conditions could not be judged, if they could not."""
    replies: Mapping[str, Sequence[Reply]]
    """All replies by version, each with its key."""

    @property
    def failed(self) -> list[Judged]:
        """The conditions that were found to be met."""
        return [judged for judged in self.judged if judged.outcome == "fails"]

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        conditions = [{"condition": str(j.condition), "version": j.version, "outcome": j.outcome, "reason": j.reason} for j in self.judged]
        return self.comparison.to_record() | {"conditions": conditions}


class Shown(NamedTuple):
    """What is told of a run that goes on: its stages, each with a name and steps, open while it lasts; and replies that were saved."""

    stage: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = lambda name, steps: nullcontext(lambda done: None)
    saved: Callable[[Path, int], None] = lambda path, replies: None


def run(experiment: Experiment, loading: Loading = STANDARD, shown: Shown = Shown()) -> Result:
    """Carry out an experiment. Whatever can be checked is, before a model writes its first reply.

    Raises:
        InputFileError: a file that cannot be read, or versions that have nothing in common.
        OutputError: a file of replies would be written over.
        VectorSetError: a condition names a trait that is not compared.
        DemeanorError: as loading, answering and reading do.
    """
    versions, models = experiment.versions, experiment.models
    replies = {v.name: read_replies(Path(v.source), experiment.columns) for v in versions if v.is_file}
    saved = {} if experiment.save_replies is None else _places(experiment.save_replies, models)
    if not models:
        matched(replies, experiment.match)
        if experiment.prompts is not None or experiment.save_replies is not None:
            raise InputFileError("--prompts and --save-replies are for models; all versions here are files")
    asked, groups = _asked(experiment.prompts, experiment.columns) if models else ({}, {})
    if models:
        to_come = {v.name: to_be_written(asked, groups, experiment.samples) for v in models}
        matched({v.name: to_come.get(v.name, replies.get(v.name, [])) for v in versions}, experiment.match)
    observers = _observers(experiment, loading)
    poles = safe_poles([observer.vectors for observer in observers.values()])
    for condition in experiment.conditions:
        check_trait(condition, list(poles))
    if models:
        _look(experiment, asked, observers, loading)
        replies |= _written(experiment, asked, groups, observers, loading, shown)
        for name, path in saved.items():
            _save(path, replies[name])
            shown.saved(path, len(replies[name]))
    paired = matched({v.name: replies[v.name] for v in versions}, experiment.match)
    with shown.stage("reading", sum(map(len, paired.values()))) as step:
        scored, units = score_versions(paired, observers if experiment.own else next(iter(observers.values())), step, experiment.always)
    comparison = compare(scored, poles, units, experiment.size, experiment.seed)
    try:
        judged = tuple(j for condition in experiment.conditions for j in judge(condition, comparison))
    except DemeanorError as error:  # what was measured is a result all the same
        return Result(comparison, (), error, paired)
    return Result(comparison, judged, None, paired)


def _asked(prompts: Path | None, columns: Columns) -> tuple[dict[str, Prompt], dict[str, str]]:
    """What models are asked, by id, and the groups of related prompts."""
    return (bundled_prompts(), {}) if prompts is None else (read_prompts(prompts, columns), prompt_groups(prompts, columns))


def _observers(experiment: Experiment, loading: Loading) -> dict[str, Scorer]:
    """Who reads each version's replies; one and the same for all unless each has its own vectors."""
    given: list[Path | None] = (
        [*experiment.vectors] if experiment.own else [next(iter(experiment.vectors), None)] * len(experiment.versions)
    )
    loaded = {folder: loading.observer(folder) for folder in dict.fromkeys(given)}
    return {version.name: loaded[folder] for version, folder in zip(experiment.versions, given, strict=True)}


def _at_hand(observers: Mapping[str, Scorer]) -> dict[str, ActivationReader]:
    """The readers that are loaded already, by their models' names."""
    return {observer.vectors.model.name: observer.reader for observer in observers.values() if not observer.warnings}


def _look(experiment: Experiment, asked: Mapping[str, Prompt], observers: Mapping[str, Scorer], loading: Loading) -> None:
    """Look at every model that is to answer and is not loaded yet: that it can be, and takes what it will be asked."""
    from demeanor.model.loading import full_name

    if loading.look is None:
        return
    loaded = _at_hand(observers)
    seen: dict[str, ChatEncoder | None] = {}
    for version in experiment.models:
        source = full_name(version.source)
        if source in loaded:
            continue
        if source not in seen:
            seen[source] = loading.look(version.source)
        if (encoder := seen[source]) is not None:
            for prompt in asked.values():
                encoder.prompt(with_system(prompt, version.system))


def _written(
    experiment: Experiment,
    asked: Mapping[str, Prompt],
    groups: Mapping[str, str],
    observers: Mapping[str, Scorer],
    loading: Loading,
    shown: Shown,
) -> dict[str, list[Reply]]:
    """What the models answer, one model after the other; one that is not needed any more is let go first."""
    from demeanor.model.generation import Sampling
    from demeanor.model.loading import full_name

    sampling = Sampling(experiment.max_tokens, experiment.temperature, seed=experiment.seed)
    found: dict[str, list[Reply]] = {}
    at_hand = _at_hand(observers)
    for number, version in enumerate(experiment.versions):
        if version.is_file:
            continue
        source = full_name(version.source)
        if source not in at_hand:
            later = {full_name(v.source) for v in experiment.versions[number:]} | {o.vectors.model.name for o in observers.values()}
            at_hand = {name: reader for name, reader in at_hand.items() if name in later}
            at_hand[source] = loading.model(version.source)
        with shown.stage(f"{version.name} answers", len(asked) * experiment.samples) as step:
            found[version.name] = answer(at_hand[source], asked, sampling, experiment.samples, version.system, number, step, groups)
    return found


def _places(folder: Path, models: Sequence[Version]) -> dict[str, Path]:
    """Where what each model writes is kept. Raises OutputError where something is there already: it may be a version to compare with."""
    found = {}
    for i, version in enumerate(models, 1):
        path = folder / f"{i}-{re.sub(r'[^a-zA-Z0-9.]+', '-', version.name).strip('-')}.jsonl"
        if path.exists():
            raise OutputError(f"{path} already exists; name another folder with --save-replies")
        refuse_unwritable(path)
        found[version.name] = path
    return found


def _save(path: Path, replies: Sequence[Reply]) -> None:
    with writing(path) as file:
        file.writelines(to_line(row.to_record()) for row in replies)
