"""`demeanor traits`: list, show and lint trait packs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from demeanor.cli import console

app = typer.Typer(help="List, show and check trait packs.", no_args_is_help=True)


@app.command("list")
def list_traits() -> None:
    """Show the built-in traits: which messages each reads, which pole is the safe one, and how many pairs it has."""
    from demeanor.traits import load, names

    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="dim")  # fits into 80 columns
    for column in ("trait", "reads", "safe pole", "train", "calib.", "test", "hard", "families"):
        table.add_column(column, no_wrap=column == "trait")
    for name in names():
        trait = load(name)
        counts = [str(len(trait.examples(split)) // 2) for split in ("train", "calibration", "test")]
        hard = sum(pair.hard for pair in trait.pairs)
        table.add_row(name, trait.reads, trait.safe_pole, *counts, str(hard), str(len(trait.splits)))
    console.out.print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A built-in trait, or a YAML file.")],
    pairs: Annotated[int, typer.Option("--pairs", help="How many pairs to show.")] = 3,
) -> None:
    """Show a trait: its high and low pole in words, its families (kinds of situation), and some of its pairs."""
    from demeanor.traits import load

    trait = load(name)
    console.out.print(f"[bold]{escape(trait.title)}[/] ({trait.name}), read on the {trait.reads}; safe pole: {trait.safe_pole}")
    console.out.print(escape(trait.description))
    console.out.print(f"[bold]high[/] {escape(trait.high_pole)}\n[bold]low[/]  {escape(trait.low_pole)}")
    for split in ("train", "calibration", "test"):
        families = [family for family, s in trait.splits.items() if s == split]
        console.out.print(f"[bold]{split}[/] {len(trait.examples(split)) // 2} pairs: {escape(', '.join(families))}")
    for pair in trait.pairs[:: max(1, len(trait.pairs) // max(1, pairs))][:pairs]:
        context = "\n".join(f"[dim]{m.role}:[/] {escape(m.content)}" for m in pair.context)
        body = f"{context}\n\n[green]high:[/] {escape(pair.high)}\n\n[yellow]low:[/]  {escape(pair.low)}"
        console.out.print(Panel(body, title=escape(f"{pair.id} · {pair.family} · {pair.register}"), title_align="left"))


@app.command("lint")
def lint(
    paths: Annotated[list[str], typer.Argument(help="YAML files, folders, names of built-in traits, or all.")],
) -> None:
    """Check a trait pack for imbalances and giveaways that a vector could learn instead of the trait. Exits with 1 if it finds any."""
    from demeanor.traits import load_many
    from demeanor.traits.lint import lint_trait

    problems = 0
    for trait in load_many(paths):
        found = lint_trait(trait)
        problems += len(found.problems)
        console.out.print(f"[bold]{trait.name}[/]: {found.summary}")
        for line in found.problems:
            console.out.print(f"  [red]problem[/] {escape(line)}", soft_wrap=True)
        for line in found.notes:
            console.out.print(f"  [dim]note[/] {escape(line)}", soft_wrap=True)
    if problems:
        console.problem(f"{problems} problem(s) found")
        raise typer.Exit(1)
