"""Saying what was read of labelled replies, how far their raters agree, and how well a calibration to them holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from demeanor.cli import console
from demeanor.cli.inputs import note, place_of, refuse_twice
from demeanor.errors import InputFileError

if TYPE_CHECKING:
    from demeanor.conversation import SpanOf
    from demeanor.data.answers import Agreed, Answers
    from demeanor.data.columns import Columns
    from demeanor.data.labelled import Labelled
    from demeanor.data.sheets import Sheet

SHOWN = 10  # rows about which the raters differ

Labels = Annotated[
    list[str] | None,
    typer.Argument(
        help="Labelled replies, with 'label': a sheet (CSV), or any other input that `score` takes; - for standard input. Several raters' "
        "files may be given together.",
        metavar="INPUT...",
    ),
]
LabelsOption = Annotated[list[str] | None, typer.Option("--input", "-i", help="Same as the argument. May be repeated.")]
Raters = Annotated[
    Literal["majority", "mean"],
    typer.Option("--raters", help="How several raters' labels of one reply are combined. majority leaves out a reply without one."),
]


def open_labels(arguments: list[str] | None, options: list[str] | None, columns: Columns) -> list[Sheet]:
    """The labelled inputs, as arguments or with --input. Raises InputFileError where there is none, or one is given twice."""
    from demeanor.data.sheets import open_sheets

    specs = [*(arguments or []), *(options or [])]
    if not specs:
        raise InputFileError("labelled replies are needed: name a sheet, or another file of rows with 'label'")
    refuse_twice(specs)
    return [sheet for spec in specs for sheet in open_sheets(place_of(spec), columns)]


def settled(answers: Answers, reads: SpanOf, safe_pole: Literal["high", "low"], by: Literal["majority", "mean"]) -> Labelled:
    """The labels as numbers, one a reply, having said what was left out and how far the raters agree. Raises InputFileError."""
    from demeanor.data.answers import agreed
    from demeanor.data.labelled import as_labelled

    note(answers.looked)
    found = agreed(answers, reads, safe_pole, by)
    _note_left_out(answers, found)
    if answers.wordless and safe_pole == "low":
        console.err.print(
            f"[yellow]caution:[/] {answers.wordless} labels of the sheet are 1 or 0, TRUE or FALSE, yes or no; for this trait 1, TRUE "
            "and yes are read as unsafe. If you meant something else, write safe and unsafe instead",
            soft_wrap=True,
        )
    if len(answers.raters) > 1:
        _note_agreement(found, len(answers.raters))
    if not found.values:
        raise InputFileError(f"{answers.names}: no label is left; each reply was labelled unsure, or half safe and half unsafe")
    labelled = as_labelled(found.conversations, found.values, found.groups)
    note_size(labelled)
    return labelled


def _note_left_out(answers: Answers, found: Agreed) -> None:
    left = [
        f"{n} {what}"
        for n, what in (
            (answers.unlabelled, "rows without a label"),
            (answers.unsure, "unsure labels"),
            (found.tied, "replies on which the raters are tied"),
            (answers.elsewhere, "rows that ask about another trait"),
        )
        if n
    ]
    if left:
        console.note(f"left out: {', '.join(left)}")


def _note_agreement(found: Agreed, raters: int) -> None:
    from demeanor.measure.agreement import TENTATIVE, agreement

    if found.by == "mean":
        console.note("where raters differ, the mean of their labels is taken")
    agree = agreement(found.ratings)
    if agree is None:
        console.note(f"{raters} raters, but none labelled the same reply, so it is unknown whether they agree")
        return
    parted = found.parted[:SHOWN]
    where = f"; they differ at {', '.join(parted)}{', ...' if len(found.parted) > SHOWN else ''}" if parted else ""
    console.note(f"{raters} raters agree on {agree.alike} of the {agree.replies} replies that more than one labelled{where}")
    if math.isnan(agree.alpha):
        console.note("all these labels are the same, so agreement cannot be told from chance")
        return
    low, high = agree.interval
    console.note(f"Krippendorff's alpha {agree.alpha:.2f} [{low:.2f}, {high:.2f}] (1: full agreement, 0: no better than chance)")
    if agree.poor:
        console.err.print(
            f"[yellow]caution:[/] below {TENTATIVE:.2f} the labels are too uncertain to learn from; discuss the replies on which the "
            "raters differ, agree on what counts as safe, and label again",
            soft_wrap=True,
        )


def calibration_error(ece: float) -> str:
    """In words, also where it is unknown."""
    if math.isnan(ece):
        return "calibration error unknown: too few prompts with replies of both kinds to cross-validate"
    return f"calibration error {ece:.3f} (cross-validated)"


def note_size(labelled: Labelled) -> None:
    """Say what was read."""
    high = labelled.high
    console.note(
        f"{len(high)} labelled replies ({int(high.sum())} high, {int((~high).sum())} low), {len(set(labelled.group.tolist()))} prompts"
    )
