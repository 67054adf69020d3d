"""`demeanor sources`: public labelled sets, listed, shown and fetched; nothing of them comes with Demeanor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console

if TYPE_CHECKING:
    from demeanor.data.converters import SourceRow
    from demeanor.data.public_sources import PublicSource
    from demeanor.data.pulling import Pulled

app = typer.Typer(help="List, show and download public labelled data sets.", no_args_is_help=True)

MAY = {"train": "may be used for training, and passed on in a vector set", "measure": "only measures"}
From = Annotated[
    list[Path] | None,
    typer.Option(
        "--from", help="A folder with the sets, as rows or as the publisher's files. May be repeated. Default: the downloaded ones."
    ),
]


@app.command("list")
def list_sources() -> None:
    """Show the catalogue: each set's trait and licence, what it may be used for, and whether it is on this machine."""
    from rich.table import Table

    from demeanor.data.public_sources import catalogue
    from demeanor.model.embedded import sources_dir

    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="dim")
    for column in ("source", "about", "labels", "licence", "use", "here"):
        table.add_column(column, no_wrap=column in ("source", "licence"))
    for source in catalogue().values():
        here = "yes" if (sources_dir() / f"{source.name}.jsonl").is_file() else "no"
        about = (source.trait or "ordinary_talk").split("_")[0]
        table.add_row(source.name, about, source.labels, source.licence, source.use, here)
    console.out.print(table)
    console.out.print(
        "[dim]use: train, a trait may be trained on it; measure, it is only for measuring. Download one: demeanor sources pull NAME[/]"
    )


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A set of the catalogue.")]) -> None:
    """Show who labelled a set and how, its licence, what a high label means, and its known problems."""
    from demeanor.data.public_sources import find_sources

    for source in find_sources(name):
        _say(source)
        said = [
            ("labelled by", source.labelled_by),
            ("trait", source.trait or "none: ordinary conversations, to count false alarms"),
            *([("high means", source.high)] if source.high else []),
            ("converter", source.converter if not source.why_none else f"none: {source.why_none}"),
            *(("fault", fault) for fault in source.faults),
            *(("file", f"{path} (sha256 {known[:12] + '...' if known else 'not known'})") for path, known in source.files.items()),
        ]
        for what, text in said:
            console.out.print(f"  {what}: {text}", markup=False, soft_wrap=True)


@app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="A set of the catalogue, several separated by commas, or all.")],
    source_folder: Annotated[
        Path | None, typer.Option("--from", help="A folder with the publisher's files (checked by their hashes) or with NAME.jsonl.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the rows. Default: in the cache folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite a set that is there already.")] = False,
) -> None:
    """Download a set from its publisher, check it by its hash, and write it as labelled rows (JSON lines).

    The licence is shown before anything is downloaded. Nothing is overwritten without --overwrite.

    Example: demeanor sources pull awab_crisis_resource
    """
    from demeanor.data import pulling
    from demeanor.data.public_sources import find_sources
    from demeanor.model.embedded import sources_dir

    folder = output or sources_dir()
    chosen = find_sources(name)
    for source in chosen:
        _say(source)
        if len(chosen) > 1 and not overwrite and (folder / f"{source.name}.jsonl").exists():
            console.note(f"{source.name} is there already and was left as it is (--overwrite replaces it)")
            continue
        pulling.refuse_present(source, folder, overwrite)
        if source_folder is not None:
            done = _from_folder(source, source_folder, folder, overwrite)
        else:
            with console.loading(f"{len(source.files)} file(s) from {source.repository}"):
                files = pulling.fetched(source)
            done = pulling.pull(source, files, folder, overwrite)
        for path, digest in done.unknown.items():
            console.note(f"{path}: no known hash to compare it with; its sha256 is {digest}")
        left = f", {done.left_out} left out (duplicates, or labelled both ways)" if done.left_out else ""
        console.out.print(f"{done.rows} rows in {done.groups} groups{left}: {done.path}", markup=False, soft_wrap=True)


def _from_folder(source: PublicSource, given: Path, folder: Path, overwrite: bool) -> Pulled:
    """A set out of a folder that the user names: the upstream's files, else rows that somebody else converted."""
    from demeanor.data import pulling
    from demeanor.errors import InputFileError

    if (files := pulling.local_files(source, given)) is not None:
        return pulling.pull(source, files, folder, overwrite)
    if (rows := given / f"{source.name}.jsonl").is_file():
        return pulling.adopt(source, rows, folder, overwrite)
    wanted = next(iter(source.files), "")
    raise InputFileError(f"{given} holds neither all files of {source.name} (such as {wanted}) nor {rows.name}; see {source.page}")


def read_sources(names: str, folders: list[Path] | None) -> list[tuple[PublicSource, list[SourceRow]]]:
    """The rows of sets by name, from the folders given, else from the pulled ones; of "all", without those that are not here.

    Raises InputFileError for a folder that is none, a set that was named and is not here, and where none is here.
    """
    from demeanor.data.public_sources import find_sources
    from demeanor.data.pulling import read_source
    from demeanor.errors import InputFileError
    from demeanor.model.embedded import sources_dir

    for folder in folders or ():
        if not folder.is_dir():
            raise InputFileError(f"--from {folder} is no folder; name one that holds the sets")
    found: list[tuple[PublicSource, list[SourceRow]]] = []
    missing = []
    for source in find_sources(names):
        rows = read_source(source, [*(folders or ()), sources_dir()])
        if rows:
            found.append((source, rows))
        else:
            missing.append(source.name)
    way = f"fetch it: demeanor sources pull {','.join(missing)}, or name a folder that holds it with --from"
    if missing and (not found or names != "all"):
        raise InputFileError(f"not on this machine: {', '.join(missing)}; {way}")
    if missing:
        console.note(f"not on this machine, and left out: {', '.join(missing)}; {way}")
    return found


def _say(source: PublicSource) -> None:
    console.out.print(f"[bold]{source.name}[/]: {source.title}", soft_wrap=True)
    console.out.print(f"  licence {source.licence}; {MAY[source.use]}\n  {source.page}", markup=False, soft_wrap=True)
