"""`demeanor calibrate`: probabilities and thresholds on a deployer's own labelled replies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype
from demeanor.cli.inputs import ColumnOptions, takes_columns
from demeanor.cli.labelled import Labels, LabelsOption, Raters, calibration_error, open_labels, settled
from demeanor.cli.policy import PolicyOption, say_needs
from demeanor.errors import ExtractionError, InputFileError

if TYPE_CHECKING:
    from demeanor.measure.thresholds import ErrorKind


@takes_columns
def calibrate(
    trait: Annotated[str, typer.Option("--trait", "-t", help="The trait to calibrate.")],
    sources: Labels = None,
    input_files: LabelsOption = None,
    vectors: Annotated[Path, typer.Option("--vectors", help="Folder of the vector set.")] = Path("vectors"),
    miss_rate: Annotated[
        list[float] | None,
        typer.Option("--miss-rate", help="Set a threshold that misses at most this share of unsafe replies, e.g. 0.05. May be repeated."),
    ] = None,
    false_alarm_rate: Annotated[
        list[float] | None,
        typer.Option(
            "--false-alarm-rate", help="Set a threshold that flags at most this share of safe replies, e.g. 0.05. May be repeated."
        ),
    ] = None,
    ordinary_rate: Annotated[
        list[float] | None,
        typer.Option(
            "--ordinary-rate", help="Set a threshold that flags at most this share of everyday replies, e.g. 0.005. May be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the calibrated set. Default: --vectors is updated in place.")
    ] = None,
    policy: PolicyOption = None,
    write_policy: Annotated[
        Path | None,
        typer.Option(
            "--write-policy", help="Write the policy adjusted to the thresholds that exist: each missing one is replaced by the nearest."
        ),
    ] = None,
    raters: Raters = "majority",
    device: Device = "auto",
    dtype: Dtype = "auto",
    *,
    columns: ColumnOptions,
) -> None:
    """Set a trait's probabilities and thresholds from your own labelled replies.

    The vector itself does not change. Replies that it was adapted to are left out and counted, because they would flatter it. If there
    are too few labels for the error rate that you ask for, you are told how many are missing and which threshold they do support.
    Labels that contradict the trait are refused. At the end you see which thresholds your policy needs and which are there.

    Example: demeanor calibrate labelled.csv --vectors vectors --trait crisis_recognition --miss-rate 0.05
    """
    from demeanor.data.answers import read_answers
    from demeanor.monitor.policy import load_policy
    from demeanor.vectors import VectorSet
    from demeanor.vectors.storage import refuse_foreign

    refuse_foreign(output or vectors)
    console.check_places({"--policy": Path(policy) if policy else None}, {"--write-policy": write_policy})
    in_force = load_policy(policy)
    entry = VectorSet.load(vectors)[trait]
    answers = read_answers(open_labels(sources, input_files, columns()), trait)
    if not (answers.given or answers.unsure):
        raise InputFileError(f"{answers.names} has no labelled row; give each reply a 'label': safe or unsafe, 1 or 0, or a grade")
    labelled = settled(answers, entry.reads, entry.safe_pole, raters)
    from demeanor.extraction.recalibration import fresh

    left_out = len(labelled.target) - len(fresh(entry, labelled).target)
    if left_out:
        console.note(f"{left_out} of them are left out: {trait} was adapted to them, so they cannot show how it does on new replies")
    scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
    from demeanor.extraction.activations import kept_activations
    from demeanor.extraction.recalibration import recalibrate

    wanted: list[tuple[ErrorKind, float]] = [("miss", r) for r in miss_rate or []]
    wanted += [("false_alarm", r) for r in false_alarm_rate or []]
    wanted += [("ordinary", r) for r in ordinary_rate or []]
    with console.stages() as stage:
        made = recalibrate(
            scorer.reader,
            scorer.vectors,
            trait,
            labelled,
            wanted,
            stage("reading labelled replies", len(labelled.conversations)),
            kept_activations(),
        )
    interval = f"[{made.interval.low:.2f}, {made.interval.high:.2f}]"
    if made.interval.high < 0.5:
        raise ExtractionError(
            f"the labels contradict the scores of {trait} (AUROC {made.auroc:.2f} {interval}), so nothing was saved. Check first that 1 or "
            f"high means: {entry.high_pole} If it does, the vector misreads your replies: adapt it to labelled replies to more than "
            f"these {made.prompts} prompts (demeanor adapt). Until then its present thresholds stay"
        )
    folder = made.vectors.save(output or vectors)
    out = console.out
    if made.calibration.flat:
        console.err.print("[yellow]caution:[/] scores do not rise with the labels, so every reply gets the same probability")
    out.print(f"[bold]{trait}[/], {made.rows} replies to {made.prompts} prompt(s): AUROC {made.auroc:.2f} {interval}")
    out.print(f"  {calibration_error(made.ece)}, by {made.calibration.method}")
    for threshold in made.thresholds:
        out.print(f"  {threshold.guarantee}", soft_wrap=True)
    for short in made.short:
        instead = (
            f"Used instead: {short.instead.guarantee}"
            if short.instead
            else "They are too few for any threshold; only probabilities were fitted"
        )
        console.err.print(f"[yellow]caution:[/] {short.why}. {instead}", soft_wrap=True)
    out.print(f"\nvector set: {folder}")
    say_needs(in_force, made.vectors, {trait: made.supporting}, [trait], folder, policy, write_policy)
