"""`demeanor screen`: a data set's rows with scores, what is flagged, and how far the set would push a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, OtherModel, OwnModel, Template, Vectors
from demeanor.cli.inputs import ColumnOptions, Given, InputOption, note, one_of, open_rows, takes_columns
from demeanor.errors import InputFileError

if TYPE_CHECKING:
    from rich.table import Table

    from demeanor.screening import Screening
    from demeanor.screening.screen import Engine

EVERY = 30.0  # seconds between lines of progress where there is no terminal to draw a bar on


@takes_columns
def screen(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results: a new one, or that of an "
    "interrupted screening to continue.")],
    source: Given = None,
    input_file: InputOption = None,
    vectors: Vectors = None,
    model: OwnModel = None,
    *,
    columns: ColumnOptions,
    baseline: Annotated[
        Literal["mean", "generate"],
        typer.Option("--baseline", help="What replies are compared with: neutral replies (neutral), or the model's own "
        "answer to each prompt (own)."),
    ] = "mean",
    threshold: Annotated[
        list[str] | None,
        typer.Option("--threshold", "-t", help="For all traits, as 'miss 0.1', or TRAIT=Z for one; repeat it. Default: false_alarm 0.05."),
    ] = None,
    always: Annotated[
        bool, typer.Option("--always", help="Count each trait in every row, also where nothing in the user's messages calls for it, as "
                                            "crisis recognition and empathy are only asked for where the user may be at risk.")
    ] = False,
    output_format: Annotated[Literal["parquet", "jsonl"], typer.Option("--format", help="File format of the scored rows.")] = "parquet",
    explain: Annotated[int, typer.Option("--explain", help="For how many of the worst rows to name the words responsible.")] = 200,
    engine: Annotated[Literal["local", "ray"], typer.Option("--engine", help="Run in this process (local), or on a "
    "pool of Ray actors (ray).")] = "local",
    actors: Annotated[
        int | None, typer.Option("--actors", help="With --engine ray: number of parallel scorers. Default: one for "
        "each GPU, else as many as the CPUs allow.")
    ] = None,
    ray_address: Annotated[str | None, typer.Option("--ray-address", help="With --engine ray: address of a cluster. "
    "Default: one started here.")] = None,
    shard_rows: Annotated[int, typer.Option("--shard-rows", help="Rows in one part; an interrupted run loses at most "
    "one part's work.")] = 2048,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads for each model. Default: as torch "
    "chooses, or as the run was started.")] = None,
    allow_other_model: OtherModel = False,
    template: Template = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:  # fmt: skip
    """Score every row of a data set, flag the unsafe ones, and show how far training on it would shift a model.

    The output folder gets scored/ (your rows, unchanged, with score columns), flagged.jsonl (the worst first, with the trait and the words
    responsible), summary.json and report.html. After an interruption, run the same command again: finished work is kept, and the result
    is the same. Rows that cannot be scored hold their error; the command then exits with 3.

    Example: demeanor screen train.jsonl --output screened
    """
    if engine != "ray" and (actors is not None or ray_address is not None):
        raise InputFileError("--actors and --ray-address only work with --engine ray")
    from demeanor.data.inputs import FEW
    from demeanor.screening.shards import refuse_foreign

    spec = one_of(source, input_file)
    if spec is None:
        raise InputFileError("no input given; name a file, a folder or a data set: demeanor screen data.csv --output screened")
    read_as = columns()
    refuse_foreign(output)
    rows = open_rows(spec, read_as)
    looked = rows.look(FEW)
    if spec == "-":
        spec = str(rows.source.files[0])  # type: ignore[attr-defined]
    from demeanor.screening import LocalEngine, Options
    from demeanor.screening import screen as run

    chosen = console.vector_set(vectors, model)
    options = Options(read_as, baseline, output_format, shard_rows, threads, threshold or (), always, explain)
    if engine == "ray":
        from demeanor.screening.ray_engine import LoadScorer, RayEngine

        runner: Engine = RayEngine(LoadScorer(chosen, model, device, dtype, allow_other_model, template), actors, ray_address)
    else:
        runner = LocalEngine(lambda: console.load_scorer(chosen, model, device, dtype, allow_other_model, template))
    with console.stages() as stage:
        made = run(spec, output, chosen, runner, options, stage)
    from demeanor.reports.screening import write_report

    write_report(made, chosen, output / "report.html")
    _print(made, output)
    note(looked)
    if engine == "ray":  # the actors have no terminal
        console.warn_of_model(made.summary["warnings"])
    if made.failed:
        console.problem(f"{made.failed} of {made.summary['rows']} rows were NOT scored, the first: {made.summary['first_error']}")
    if made.without_baseline:
        first = made.summary["first_without_baseline"]
        console.problem(
            f"{made.without_baseline} rows were scored but have no baseline, so they do not count toward the shift; the first: {first}"
        )
    if made.failed or made.without_baseline:
        raise typer.Exit(3)


def _print(made: Screening, output: Path) -> None:
    summary = made.summary
    console.out.print(_table(made))
    console.out.print("shift: mean difference from the baseline, in units of the usual spread", style="dim")
    console.out.print(
        f"{summary['rows']} rows, {summary['flagged']} flagged ({summary['near_duplicates']} of them repeat another), "
        f"{summary['failed']} not scored: {output}/scored, flagged.jsonl, summary.json, report.html"
    )
    if summary.get("cautions"):
        from demeanor.language import counted

        console.note(counted(summary["cautions"], summary["rows"], summary["languages"]))
    if summary["without_tokens"]:
        console.note(
            f"{summary['without_tokens']} flagged rows do not name the words responsible; to name them for all: "
            f"--explain {summary['flagged']}"
        )


def _table(made: Screening) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("trait", overflow="fold")
    for name in ("shift", "95 % interval", "flags z", "rows"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, trait in made.summary["traits"].items():
        shift = trait["shift"] and trait["shift"]["spreads"]
        limit = made.limits.get(name)
        interval = f"{shift['low']:+.2f} to {shift['high']:+.2f}" if shift and shift["low"] is not None else ""
        beyond = next((t["rows"] for t in trait["thresholds"] if t["chosen"]), None)
        table.add_row(
            name,
            f"{shift['value']:+.2f}" if shift else "",
            interval,
            f"{limit.cut.unsafe_side} {limit.cut.value:+.2f}" if limit else "",
            "" if beyond is None else str(beyond),
        )
    return table
