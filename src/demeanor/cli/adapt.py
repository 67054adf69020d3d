"""`demeanor adapt`: fit a trait's vector to labelled replies from the place where it will be used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Vectors


def adapt(
    trait: Annotated[str, typer.Option("--trait", "-t", help="The trait to adapt.")],
    input_file: Annotated[
        Path, typer.Option("--input", "-i", help="Labelled replies: rows as for `score`, with 'label' (0/1, graded, high/low).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the adapted vector set.")],
    vectors: Vectors = None,
    new: Annotated[bool, typer.Option("--new", help="Define a trait that the vector set does not hold, from these labels alone.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Adapt a trait to your own labelled replies: the pack's direction as the prior, the labels as the evidence.

    Twenty to fifty labelled replies from where the vector will be used are worth more than hundreds of invented
    pairs. Prints the cross-validated AUROC at this size, the learning curve, and what more labels would bring. Without
    any label the pack's vector is given back.

    Example: demeanor adapt --trait crisis_recognition --input labelled.jsonl --output adapted
    """
    from demeanor.cli.labelled import note_size, read_labelled, rows_of

    rows = rows_of(input_file)
    labelled = read_labelled(input_file) if any(r.get("label") not in (None, "") for _, r in rows) else None
    scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
    from demeanor.extraction.adaptation import adapt as fit
    from demeanor.extraction.adaptation import without_prior

    base = without_prior(scorer.vectors, trait) if new else scorer.vectors
    base[trait]  # an unknown trait is refused before anything is read
    if labelled is None:
        base.save(output)
        console.note(f"no row of {input_file} has a label: the pack's vector was written unchanged")
        return
    note_size(labelled)
    with console.stages() as stage:
        made = fit(scorer.reader, base, trait, labelled, stage("reading labelled replies", len(labelled.conversations)))
    folder = made.vectors.save(output)
    out = console.out
    out.print(f"[bold]{trait}[/], cross-validated on {made.rows} replies to {made.prompts} prompt(s):")
    out.print(
        f"  AUROC {made.auroc:.2f} [{made.interval.low:.2f}, {made.interval.high:.2f}]"
        + ("" if new else f"; the pack's own vector {made.pack_auroc:.2f}")
    )
    out.print(f"  calibration error {made.ece:.3f}, Brier {made.brier:.3f}")
    out.print("  learning curve: " + ", ".join(f"{n} labels {value:.2f}" for n, value in sorted(made.curve.items())))
    out.print(f"  {made.outlook}")
    if made.caution:
        console.err.print(f"[yellow]caution:[/] {made.caution}")
    out.print(f"\nvector set: {folder}")
