"""What the commands share: the terminal, progress bars, option types, and finding the vectors to score with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from demeanor.cli.terminal import TextConsole
from demeanor.errors import ExtractionError, InputFileError, OutputError

if TYPE_CHECKING:
    from demeanor.model.reader import ActivationReader
    from demeanor.scoring import Scorer

out = TextConsole(highlight=False, emoji=False)
err = TextConsole(stderr=True, highlight=False, emoji=False)

EMBEDDED = "smollm2-135m-instruct"
Model = Annotated[str, typer.Option("--model", "-m", help="The embedded model's name, a hub id, a folder, or a .gguf file.")]
Quantization = Annotated[str | None, typer.Option("--quantization", help="8bit or 4bit (bitsandbytes, CUDA only).")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, bfloat16, float16, float32.")]
Blocks = Annotated[str | None, typer.Option("--blocks", help="Dotted name of the model's decoder blocks, if they are not found.")]
Vectors = Annotated[
    Path | None,
    typer.Option("--vectors", help="Folder of a vector set. Default: ./vectors, else the built-in traits, made once and cached."),
]
OwnModel = Annotated[str | None, typer.Option("--model", "-m", help="Default: the model that the vectors were made with.")]
OtherModel = Annotated[
    bool, typer.Option("--allow-other-model", help="Go on although the vectors belong to another model; the numbers then mean little.")
]


def problem(message: str) -> None:
    """One line about what went wrong, on standard error."""
    err.print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True)


def note(message: str) -> None:
    """One line that is not part of the result, on standard error."""
    err.print(f"[dim]{_escape(message)}[/]", soft_wrap=True)


def _escape(message: str) -> str:
    return escape(" ".join(message.splitlines()))


def count_rows(source: Path, target: Path) -> int:
    """The number of rows in `source`; refuses what cannot work before a model is loaded for it. Raises InputFileError."""
    from demeanor.records import read_rows, refuse_pipe

    refuse_pipe(source)
    if source.resolve() == target.resolve():
        raise InputFileError(f"{target} is the input; name another file with --output")
    total = sum(1 for _ in read_rows(source))
    if total == 0:
        raise InputFileError(f"{source} holds no rows; give one JSON object a line")
    return total


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


def check_count(source: Path, total: int, done: int) -> None:
    """Raise InputFileError where other rows were read than `count_rows` had counted."""
    if done != total:
        raise InputFileError(f"{source} held {total} rows at first and {done} when they were read; run again on a file that stays as it is")


@contextmanager
def stages() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Progress on standard error, as bars in a terminal and a line a stage elsewhere.

    Called with a stage's name and number of steps, gives what advances it.
    """
    if not err.is_terminal:
        yield _line
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:

        def stage(name: str, steps: int) -> Callable[[int], None]:
            task = progress.add_task(_escape(name), total=steps)
            return lambda done: progress.advance(task, done)

        yield stage


def _line(name: str, steps: int) -> Callable[[int], None]:
    err.print(f"{_escape(name)} ({steps})", soft_wrap=True)
    return lambda done: None


def load_reader(
    model: str, quantization: str | None = None, device: str = "auto", dtype: str = "auto", blocks: str | None = None
) -> ActivationReader:
    """Load a model to be read, saying so while it takes a while."""
    from demeanor.model import embedded

    first_time = model == EMBEDDED and not embedded.converted_path().is_dir()
    with err.status(f"loading {_escape(model)}" + (" (first time: converting it once, about 20 seconds)" if first_time else "")):
        from demeanor.model.loading import load_model
        from demeanor.model.reader import ActivationReader

        return ActivationReader(*load_model(model, quantization, device, dtype), blocks)  # type: ignore[arg-type]


def given_vectors(vectors: Path | None) -> Path | None:
    """The folder of --vectors, else ./vectors where a set stands there; None: the built-in traits."""
    return vectors or (Path("vectors") if Path("vectors/manifest.json").is_file() else None)


def load_scorer(vectors: Path | None, model: str | None, device: str, dtype: str, allow_other_model: bool) -> Scorer:
    """The scorer for --vectors, else for ./vectors, else for the built-in traits, extracted once into the cache."""
    folder = given_vectors(vectors)
    if folder is None:
        if model not in (None, EMBEDDED):
            raise ExtractionError(f"no vectors for {model}; make them first: demeanor extract --model {model} --output vectors")
        folder = built_in_vectors()
    from demeanor.scoring import Scorer
    from demeanor.vectors import VectorSet

    chosen = VectorSet.load(folder)
    quantization = None if allow_other_model else chosen.model.load_quantization
    reader = load_reader(model or chosen.model.name, quantization, device, dtype, chosen.model.blocks or None)
    scorer = Scorer(reader.model, reader.tokenizer, chosen, allow_other_model, reader)
    warn_of_model(scorer.warnings)
    return scorer


def warn_of_model(warnings: Sequence[str]) -> None:
    """A line for each way in which the model is another than the vectors' own."""
    for warning in warnings:
        verb = "were" if warning.startswith("made") else "are for"
        err.print(f"[yellow]warning:[/] the vectors {verb} {_escape(warning)}")


def built_in_vectors() -> Path:
    """The built-in traits' vector set for the embedded model: from the cache, or extracted into it now."""
    import hashlib

    from demeanor.model import embedded
    from demeanor.traits import load_many
    from demeanor.traits.packs import fingerprint

    packs = load_many(["all"])
    from demeanor import __version__
    from demeanor.extraction.pipeline import RECIPE
    from demeanor.traits import ordinary

    parts = [__version__, RECIPE, hashlib.sha256(ordinary.FILE.read_bytes()).hexdigest(), *(fingerprint(t) for t in packs)]
    key = hashlib.sha256("".join(parts).encode()).hexdigest()[:12]
    folder = embedded.cache_dir() / "vectors" / f"{EMBEDDED}-{key}"
    if (folder / "manifest.json").is_file():
        note(f"using the built-in vectors in {folder}")
        return folder
    note(f"no --vectors and no ./vectors: extracting the built-in traits for {EMBEDDED} once, into {folder}")
    from demeanor.extraction import extract_vectors

    reader = load_reader(EMBEDDED)
    with stages() as stage:
        extract_vectors(reader, packs, stage=stage).vectors.save(folder)
    return folder


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
