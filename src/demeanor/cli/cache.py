"""`demeanor cache`: what Demeanor keeps on this machine, and how to empty it."""

from __future__ import annotations

import typer

from demeanor.cli import console

app = typer.Typer(help="Show and clear what Demeanor keeps on this machine.", no_args_is_help=True)


@app.command("show")
def show() -> None:
    """Show what is kept, where, and how large it is: models, public data sets, activations of trait packs (never of users' replies)."""
    from rich.table import Table

    from demeanor.extraction.kept import kept

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("what", "size", "where"):
        table.add_column(column, no_wrap=column != "where", overflow="fold", justify="right" if column == "size" else "left")
    for each in kept():
        limit = "" if each.limit is None else f" of {_megabytes(each.limit)}"
        table.add_row(each.what, f"{_megabytes(each.size)}{limit}", str(each.path))
    console.out.print(table)
    console.out.print(
        "[dim]Kept activations save `extract` and `validate` from reading the same texts again. Delete them: demeanor cache empty[/]"
    )


@app.command("empty")
def empty() -> None:
    """Delete the kept activations. Models and public data sets stay; to remove them, delete their folders (see `demeanor cache show`)."""
    from demeanor.extraction import kept

    gone = kept.empty()
    console.out.print(f"{_megabytes(gone.size)} of activations deleted from {gone.path.parent}", soft_wrap=True, markup=False)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
