"""`demeanor adapt`: fit a trait's vector to labelled replies from the place where it will be used."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Vectors
from demeanor.cli.inputs import ColumnOptions, takes_columns
from demeanor.cli.labelled import Labels, LabelsOption, Raters, calibration_error, open_labels, settled
from demeanor.errors import InputFileError


@takes_columns
def adapt(
    trait: Annotated[str, typer.Option("--trait", "-t", help="The trait to adapt.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the adapted vector set.")],
    sources: Labels = None,
    input_files: LabelsOption = None,
    vectors: Vectors = None,
    new: Annotated[
        bool, typer.Option("--new", help="Create a trait that the vector set does not have yet, from these labels alone.")
    ] = False,
    safe_pole: Annotated[
        Literal["high", "low"] | None,
        typer.Option("--safe-pole", help="With --new: which end of the labels is safe, high or low."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            help="Your own file of labelled rows (JSON lines, including the text). Its rows are used as well, and the "
            "new ones are added to it.",
        ),
    ] = None,
    raters: Raters = "majority",
    device: Device = "auto",
    dtype: Dtype = "auto",
    *,
    columns: ColumnOptions,
) -> None:
    """Adapt a trait's vector to labelled replies from your own chatbot.

    About 50 labelled replies from your own chatbot are worth more than hundreds of invented examples. A label is safe or unsafe, high or
    low, 1 or 0, or a grade that is higher for more of the trait; unsure is left out. The present vector is the starting point, and it
    stays unless the adapted one is clearly better on replies to other prompts; the result says which was kept. You also see the
    cross-validated AUROC (0.5 is chance, 1 is perfect), how it grew with the number of labels, and what more labels would bring.

    To add labels later, adapt again with all of them, old and new (or keep them in a --store). If the 'label' column is still empty, the
    vector is saved unchanged.

    Example: demeanor adapt labelled.csv --trait crisis_recognition --output adapted
    """
    from demeanor.data.answers import read_answers
    from demeanor.data.store import keep, with_store
    from demeanor.vectors.storage import adapted_traits, refuse_foreign, refuse_unadapted

    if new != (safe_pole is not None):
        raise InputFileError(
            "--new and --safe-pole go together, because thresholds and comparisons need to know which labels are safe; give both"
        )
    refuse_foreign(output)
    answers = read_answers(open_labels(sources, input_files, columns()), trait)
    if store is not None:
        answers, added = with_store(answers, store, trait)
        console.note(f"{store}: {len(answers.given) - added} more labels of {trait} taken from it, besides the {added} given here")
    filled_in = bool(answers.given or answers.unsure)
    if new and not filled_in:
        raise InputFileError(f"no row of {answers.names} has a label, and a new trait can only be made from labels; fill in 'label'")
    chosen = console.vector_set(vectors)
    from demeanor.extraction.from_labels import without_prior

    base = without_prior(chosen, trait, safe_pole) if safe_pole else chosen
    refuse_unadapted(output, [*adapted_traits(base), *([trait] if filled_in else [])])
    if not filled_in:
        base.save(output)
        console.note(f"no row of {answers.names} has its 'label' filled in, so the vector was saved unchanged")
        return
    labelled = settled(answers, base[trait].reads, base[trait].safe_pole, raters)
    scorer = console.load_scorer(chosen, None, device, dtype, allow_other_model=False)
    from demeanor.extraction.adaptation import adapt as fit

    with console.stages() as stage:
        made = fit(scorer.reader, base, trait, labelled, stage("reading labelled replies", len(labelled.conversations)))
    folder = made.vectors.save(output)
    if store is not None:
        keep(store, answers, trait)
    out = console.out
    out.print(f"[bold]{trait}[/], cross-validated on {made.rows} replies to {made.prompts} prompt(s):")
    out.print(
        f"  AUROC {made.auroc:.2f} [{made.interval.low:.2f}, {made.interval.high:.2f}]"
        + ("" if new else f"; before adapting {made.pack_auroc:.2f}")
    )
    out.print(f"  {calibration_error(made.ece)}" + ("" if math.isnan(made.ece) else f", Brier {made.brier:.3f}"))
    if made.kept == "labels" and made.vectors[trait].calibration.flat:
        console.err.print("[yellow]caution:[/] held-out scores do not rise with the labels, so every reply gets the same probability")
    out.print("  learning curve: " + ", ".join(f"{n} labels {value:.2f}" for n, value in sorted(made.curve.items())))
    out.print(f"  {made.outlook}")
    out.print(f"  {made.why}", soft_wrap=True)
    if made.missing:
        console.note(
            f"{made.missing} labelled replies from an earlier adaptation are missing now, so this one does not use them. Unless they were "
            "removed on purpose, give them again together with the new ones"
        )
    if made.caution:
        console.err.print(f"[yellow]caution:[/] {made.caution}")
    out.print(f"\nvector set: {folder}")
    labels = "the same labels (the vector has not learnt from them)" if made.kept == "pack" else "labels other than these"
    out.print(
        f"next, with {labels}: demeanor calibrate --vectors {shlex.quote(str(folder))} --trait {trait} --input FILE",
        markup=False,
        soft_wrap=True,
    )
