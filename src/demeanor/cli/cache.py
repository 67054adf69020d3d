"""`demeanor cache`: what Demeanor keeps on this machine, and how to empty it."""

from __future__ import annotations

import typer

from demeanor.cli import console

app = typer.Typer(help="Show and empty what Demeanor keeps on this machine.", no_args_is_help=True)


@app.command("show")
def show() -> None:
    """What is kept, where, and how large it is: converted models, and activations of trait packs (never of your users' replies)."""
    from rich.table import Table

    from demeanor.extraction.activations import kept_activations
    from demeanor.model import embedded

    kept = kept_activations()
    models = embedded.cache_dir() / "models"
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("what", "size", "where"):
        table.add_column(column, no_wrap=column != "where", overflow="fold", justify="right" if column == "size" else "left")
    table.add_row("models", _megabytes(sum(p.stat().st_size for p in models.rglob("*") if p.is_file())), str(models))
    table.add_row("activations of packs", f"{_megabytes(kept.size())} of {_megabytes(kept.limit)}", str(kept.path))
    console.out.print(table)
    console.out.print("[dim]Activations let `extract` and `validate` read only what is new. Delete them: demeanor cache empty[/]")


@app.command("empty")
def empty() -> None:
    """Delete the kept activations. Models stay; delete their folder by hand (see `demeanor cache show`)."""
    from demeanor.extraction.activations import kept_activations

    kept = kept_activations()
    size = kept.size()
    kept.empty()
    console.out.print(f"{_megabytes(size)} of activations deleted from {kept.path.parent}", soft_wrap=True, markup=False)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
