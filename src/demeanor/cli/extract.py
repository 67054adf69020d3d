"""`demeanor extract`: traits and a model to a validated vector set on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Blocks, Device, Dtype, Model, Quantization, Template
from demeanor.cli.sources import From, read_sources


def extract(
    traits: Annotated[
        list[str], typer.Option("--traits", "-t", help="A built-in trait, a YAML trait pack, a folder of them, or all. May be repeated.")
    ] = ["all"],  # noqa: B006
    model: Model = console.EMBEDDED,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the vector set.")] = Path("vectors"),
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="How the vector is fitted: logistic, lda, mean_difference, whitened_mean_difference, pca. Steering "
            "always uses mean_difference.",
        ),
    ] = "logistic",
    layers: Annotated[
        str | None,
        typer.Option("--layers", help="Layers to choose from: all, 10-20, or 8,12,16. Default: the middle half."),
    ] = None,
    pooling: Annotated[
        str, typer.Option("--pooling", help="How the activations of a reply's tokens are combined: mean, last, or max (of rolling means).")
    ] = "mean",
    sources: Annotated[
        str | None,
        typer.Option(
            "--sources",
            help="Public labelled sets to train on as well if they help on other sets, e.g. A,B (see demeanor sources list).",
        ),
    ] = None,
    folders: From = None,
    report: Annotated[Path | None, typer.Option("--report", help="Also write a report to this HTML file.")] = None,
    tutorial: Annotated[
        Path | None,
        typer.Option(
            "--tutorial", help="Also write the files of the persona-vectors tutorial (NAME_vector.pt, summary.json) to this folder."
        ),
    ] = None,
    control_vectors: Annotated[
        Path | None, typer.Option("--control-vectors", help="Also write llama.cpp control vectors, TRAIT.gguf, to this folder.")
    ] = None,
    quantization: Quantization = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    blocks: Blocks = None,
    template: Template = None,
) -> None:
    """Extract persona vectors from trait packs, and test them on examples they have not seen.

    A trait pack holds pairs of replies to the same message: one that shows much of the trait (its high pole) and one that shows little
    (its low pole). The model reads all pairs. The layer is chosen by cross-validation; the vector is tested on families of pairs (kinds
    of situation) that it was not learnt from, and saved with its calibration as a vector set.

    With --sources, public labelled replies may join the training. They are used only if they help on every public set that is left out in
    turn, without making the trait's own pairs worse.

    Example: demeanor extract --model Qwen/Qwen2.5-7B-Instruct --traits all --output vectors
    """
    from demeanor.cli.tables import joining_table, traits_table
    from demeanor.errors import ExtractionError, OutputError
    from demeanor.extraction.directions import method as known_method
    from demeanor.traits import load_many
    from demeanor.vectors.exports import export_control_vector, save_tutorial
    from demeanor.vectors.storage import refuse_foreign, refuse_unadapted

    definitions = load_many(traits)
    known_method(method)
    if pooling not in ("mean", "last", "max"):
        raise ExtractionError(f"unknown pooling {pooling!r}; use mean, last or max")
    console.check_layers(layers)
    if folders and sources is None:
        raise ExtractionError("--from goes with --sources; name the sets to try")
    sets = read_sources(sources, folders) if sources is not None else []
    if sources == "all":
        sets = [(source, rows) for source, rows in sets if source.trait in {definition.name for definition in definitions}]
    if sets:
        from demeanor.extraction.joined import check_joinable

        check_joinable(method, [definition.name for definition in definitions], [source for source, _ in sets])
    refuse_foreign(output)
    refuse_unadapted(output, ())
    console.check_places({}, {"--report": report})
    for folder in (tutorial, control_vectors):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file, but a folder is needed there; name another path")
    reader = console.load_reader(model, quantization, device, dtype, blocks, template)
    chosen = console.parse_layers(layers, reader.n_layers)

    from demeanor.extraction import extract_vectors
    from demeanor.extraction.activations import kept_activations

    with console.stages() as stage:
        made = extract_vectors(reader, definitions, method, chosen, pooling=pooling, stage=stage, kept=kept_activations(), sources=sets)  # type: ignore[arg-type]
    folder = made.vectors.save(output)
    console.out.print(traits_table(made.vectors))
    for name, joining in made.joinings.items():
        console.out.print(joining_table(name, joining))
    for name, entry in made.vectors.traits.items():
        if entry.proof is not None and not entry.proof.beats_baselines:
            console.err.print(f"[bold red]{name}:[/] {entry.proof.verdict}")
    console.out.print(f"\nvector set: {folder}", markup=False, soft_wrap=True)
    if tutorial is not None:
        save_tutorial({n: e.steering for n, e in made.vectors.traits.items()}, tutorial, made.vectors.model.name)
        console.out.print(f"tutorial files: {tutorial}", markup=False, soft_wrap=True)
    if control_vectors is not None:
        control_vectors.mkdir(parents=True, exist_ok=True)
        for name in made.vectors.traits:
            export_control_vector(made.vectors, name, control_vectors / f"{name}.gguf")
        console.out.print(f"control vectors: {control_vectors}", markup=False, soft_wrap=True)
    if report is not None:
        from demeanor.reports.vectors import write_report

        write_report(made, report)
        console.out.print(f"report: {report}", markup=False, soft_wrap=True)
