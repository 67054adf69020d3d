"""What the commands share: the terminal, progress bars, option types, and finding the vectors to score with."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.markup import escape

from demeanor.cli.terminal import TextConsole
from demeanor.errors import ExtractionError, InputFileError, ModelNotFoundError, OutputError

if TYPE_CHECKING:
    from demeanor.model.reader import ActivationReader
    from demeanor.scoring import Scorer
    from demeanor.vectors import VectorSet

out = TextConsole(highlight=False, emoji=False)
err = TextConsole(stderr=True, highlight=False, emoji=False)

CALLED: dict[str, str] = {}
"""What paths that nobody gave are called in messages: the file that standard input was put into."""
EVERY = 10.0  # seconds between two lines of progress outside a terminal
EMBEDDED = "smollm2-135m-instruct"
Model = Annotated[
    str, typer.Option("--model", "-m", help="The built-in model's name, a Hugging Face id, a folder, a .gguf file, or a PEFT adapter.")
]
Quantization = Annotated[
    str | None, typer.Option("--quantization", help="Load the model in 8bit or 4bit (bitsandbytes; needs a CUDA GPU).")
]
Device = Annotated[str, typer.Option("--device", help="Where the model runs: auto, cpu, cuda, mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Number format of the model: auto, bfloat16, float16, float32.")]
Blocks = Annotated[
    str | None,
    typer.Option("--blocks", help="Dotted name of the model's decoder blocks, if they are not found automatically, e.g. model.layers."),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        help="For a model without a chat template: chatml, llama3, plain, or a file. Vectors remember the template they were made with.",
    ),
]
Vectors = Annotated[
    Path | None,
    typer.Option("--vectors", help="Folder of a vector set. Default: ./vectors if it exists, else the built-in vectors."),
]
OwnModel = Annotated[str | None, typer.Option("--model", "-m", help="Default: the model that the vectors were made with.")]
OtherModel = Annotated[
    bool,
    typer.Option("--allow-other-model", help="Continue even if the vectors were made with a different model (scores will be unreliable)."),
]


def problem(message: str) -> None:
    """One line about what went wrong, on standard error."""
    err.print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """One line that is not part of the result, on standard error."""
    err.print(f"[dim]{_escape(message)}[/]", soft_wrap=True)


def _escape(message: str) -> str:
    for path, name in CALLED.items():
        message = message.replace(path, name)
    return escape(" ".join(message.splitlines()))


def check_places(kept: Mapping[str, Path | None], written: Mapping[str, Path | None]) -> None:
    """Refuse, before any work is done, one file for two purposes, and a folder where a file is to be written.

    Args:
        kept: By option, files that are read.
        written: By option, files that are written.

    Raises:
        OutputError: naming the path and the options.
    """
    given: dict[Path, str] = {}
    for option, path in {**kept, **written}.items():
        if path is None:
            continue
        if option in written and path.is_dir():
            raise OutputError(f"{path} is a folder; name a file with {option}")
        first = given.setdefault(path.resolve(), option)
        if first != option and option in written:
            raise OutputError(f"{path} is given with {first} and with {option}; name another file with {option}")


def check_count(source: Path | str, total: int, done: int) -> None:
    """Raise InputFileError where other rows were read than had been counted before."""
    if done != total:
        raise InputFileError(
            f"{source} changed while it was read: {total} rows at first, {done} at the end; run again on a file that does not change"
        )


class StartStage(Protocol):
    """Begins a stage of some steps, of which `done` were done before; gives what is called with the steps that have just been done."""

    def __call__(self, name: str, steps: int, done: int = 0) -> Callable[[int], None]: ...  # noqa: D102


@contextmanager
def stages() -> Iterator[StartStage]:
    """Progress on standard error, with steps a second and the time left: bars in a terminal, elsewhere a line every ten seconds."""
    if not err.is_terminal:
        yield lines
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(TextColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "")

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(""), TimeRemainingColumn())
    with Progress(*columns, console=err, speed_estimate_period=120) as progress:

        def stage(name: str, steps: int, done: int = 0) -> Callable[[int], None]:
            task = progress.add_task(_escape(name), total=steps, completed=done)
            return lambda n: progress.advance(task, n)

        yield stage


def lines(name: str, steps: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> Callable[[int], None]:
    """A line where a stage begins, and one every ten seconds while it goes on."""
    err.print(f"{_escape(name)} ({steps})", soft_wrap=True)
    begun = said = clock()
    at = done

    def step(n: int) -> None:
        nonlocal at, said
        at += n
        now = clock()
        if now - said < EVERY:
            return
        said = now
        speed = (at - done) / (now - begun)
        left = f"{timedelta(seconds=round((steps - at) / speed))} left" if speed else "no step finished yet"
        err.print(f"{_escape(name)}: {at} of {steps}, {speed:.1f}/s, {left}", soft_wrap=True)

    return step


def load_reader(
    model: str,
    quantization: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    blocks: str | None = None,
    template: str | None = None,
    keep_own: bool = False,
) -> ActivationReader:
    """Load a model to be read, saying so; with `keep_own`, the template is only for one that has none."""
    with loading_model(model):
        from demeanor.model.loading import load_model
        from demeanor.model.reader import ActivationReader
        from demeanor.model.talking import with_template

        loaded = load_model(model, quantization, device, dtype)  # type: ignore[arg-type]
        return ActivationReader(*with_template(loaded, template, keep_own), blocks)


@contextmanager
def loading_model(model: str) -> Iterator[None]:
    """Say that a model is being loaded; where the embedded one is missing, offer to fetch it first."""
    from demeanor.model import embedded

    if model == EMBEDDED:
        offer_embedded()
    first_time = model == EMBEDDED and not embedded.converted_path().is_dir()
    with loading(model + (" (first time: converting it once, about 10 seconds)" if first_time else "")):
        yield


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Say at once that something is being loaded, for importing torch alone takes seconds: a spinner, or a line outside a terminal."""
    if not err.is_terminal:
        note(f"loading {what}")
    with err.status(f"loading {_escape(what)}"):
        yield


def offer_embedded() -> None:
    """If the embedded model is missing, ask in a terminal whether to fetch it; raises ModelNotFoundError if it stays missing."""
    from demeanor.model import embedded

    if embedded.converted_path().is_dir() or embedded.gguf_path() is not None:
        return
    hosts = embedded.offered_by() if sys.stdin.isatty() and sys.stderr.isatty() else ""
    if not hosts or not typer.confirm(f"The built-in model (93 MB) is not on this machine. Download it from {hosts} now?", err=True):
        raise ModelNotFoundError(embedded.MISSING)
    pull_embedded()


def pull_embedded(source: Path | None = None) -> None:
    """Fetch the embedded model, or take it from a file, with progress."""
    from demeanor.model import embedded

    with stages() as stage:
        embedded.pull(source, stage)


def given_vectors(vectors: Path | None) -> Path | None:
    """The folder of --vectors, else ./vectors where a set stands there; None: the built-in traits."""
    return vectors or (Path("vectors") if Path("vectors/manifest.json").is_file() else None)


def vector_set(vectors: Path | None, model: str | None = None) -> VectorSet:
    """The set of --vectors, else of ./vectors, else the built-in one. Raises ExtractionError for another model without a set."""
    folder = given_vectors(vectors)
    if folder is None:
        if model not in (None, EMBEDDED):
            raise ExtractionError(f"no vectors for {model}; make them first: demeanor extract --model {model} --output vectors")
        offer_embedded()
    with loading("the vectors"):
        from demeanor.vectors import VectorSet, built_in

        return built_in.load() if folder is None else VectorSet.load(folder)


def load_scorer(
    vectors: VectorSet | Path | None, model: str | None, device: str, dtype: str, allow_other_model: bool, template: str | None = None
) -> Scorer:
    """The scorer for a set, or for the folder of one, as `vector_set` finds it."""
    chosen = vector_set(vectors, model) if vectors is None or isinstance(vectors, Path) else vectors
    with loading_model(model or chosen.model.name):
        from demeanor.scoring.scorer import open_scorer

        scorer = open_scorer(chosen, model, device, dtype, allow_other_model=allow_other_model, template=template)
    warn_of_model(scorer.warnings)
    if bare := [name for name, entry in chosen.traits.items() if not entry.calibration.measured]:
        note(
            f"not calibrated: {', '.join(bare)}. A higher score means more of the trait, but there are no probabilities and no thresholds "
            "until you calibrate on labelled replies (demeanor calibrate)"
        )
    return scorer


def warn_of_model(warnings: Sequence[str]) -> None:
    """A line for each way in which the model is another than the vectors' own."""
    for warning in warnings:
        verb = "were" if warning.startswith("made") else "are for"
        err.print(f"[yellow]warning:[/] the vectors {verb} {_escape(warning)}")


def check_layers(text: str | None) -> None:
    """Raise ExtractionError where --layers cannot be read; needs no model."""
    if text not in (None, "all") and not re.fullmatch(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", str(text)):
        raise ExtractionError(f"cannot read --layers {text!r}; write all, 10-20, or 8,12,16")


def parse_layers(text: str | None, n_layers: int) -> list[int] | None:
    """--layers: "all", "10-20", "8,12,16"; None leaves the choice to the default. Raises ExtractionError."""
    if text is None:
        return None
    check_layers(text)
    if text == "all":
        return list(range(n_layers))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return sorted(found)
