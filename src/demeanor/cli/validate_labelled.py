"""`demeanor validate` on labelled replies: one trait, its AUROC beside that of length."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from demeanor.cli import console
from demeanor.cli.labelled import settled
from demeanor.errors import InputFileError

if TYPE_CHECKING:
    from demeanor.data.sheets import Sheet
    from demeanor.vectors import VectorSet


def on_labelled(
    sheets: Sequence[Sheet],
    traits: Sequence[str] | None,
    vectors: Path | None,
    raters: Literal["majority", "mean"],
    as_json: bool,
    device: str,
    dtype: str,
) -> None:
    """Measure a trait on labelled replies and print it; exits with 1 where the vector does no better than length, or than chance."""
    from demeanor.data.answers import read_answers

    chosen = console.vector_set(vectors)
    trait = _one(traits, chosen)
    answers = read_answers(sheets, trait)
    if not answers.given:
        raise InputFileError(f"{answers.names} has no labelled row; give each reply a 'label': safe or unsafe, 1 or 0, or a grade")
    labelled = settled(answers, chosen[trait].reads, chosen[trait].safe_pole, raters)
    scorer = console.load_scorer(chosen, None, device, dtype, allow_other_model=False)
    from demeanor.extraction.on_labels import on_labels

    with console.stages() as stage:
        made = on_labels(scorer.reader, scorer.vectors, trait, labelled, stage("reading labelled replies", len(labelled.conversations)))
    if made.left_out:
        console.note(f"{made.left_out} of them are left out: {trait} was adapted to them, so they cannot show how it does on new replies")
    if as_json:
        typer.echo(json.dumps({"trait": trait, **made.to_record()}, indent=1))
    else:
        verdict = "[green]better than length[/]" if made.holds else "[bold red]not shown to be better than length and chance[/]"
        out = console.out
        out.print(f"[bold]{trait}[/], {made.rows} replies to {made.prompts} prompt(s): {verdict}", soft_wrap=True)
        out.print(f"  AUROC {made.auroc:.2f} [{made.interval.low:.2f}, {made.interval.high:.2f}]; 0.50 is chance")
        out.print(f"  length alone {made.length:.2f} [{made.length_interval.low:.2f}, {made.length_interval.high:.2f}]")
    if not made.holds:
        console.problem(f"not proven on these replies: {trait}")
        raise typer.Exit(1)


def _one(traits: Sequence[str] | None, vectors: VectorSet) -> str:
    """The trait that is labelled. Raises InputFileError where several may be meant, VectorSetError for one that the set does not hold."""
    names = list(traits or vectors.traits)
    if len(names) != 1:
        raise InputFileError(f"which trait do the labels rate? Name it: --traits {' or --traits '.join(names)}")
    vectors[names[0]]
    return names[0]
