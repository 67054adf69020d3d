"""`demeanor validate`: a saved vector set against held-out pairs and its baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Vectors
from demeanor.cli.inputs import ColumnOptions, takes_columns
from demeanor.cli.labelled import Labels, LabelsOption, Raters, open_labels
from demeanor.cli.sources import From
from demeanor.cli.validate_labelled import on_labelled
from demeanor.errors import InputFileError

OTHER_PACK = "the pack has changed since the vector was extracted, so the vector may have been trained on some of these pairs"


@takes_columns
def validate(
    labelled: Labels = None,
    input_files: LabelsOption = None,
    vectors: Vectors = None,
    traits: Annotated[
        list[str] | None,
        typer.Option(
            "--traits",
            "-t",
            help="Where the pairs come from, if not the built-in packs: names, YAML files or folders. With an input: the trait that is "
            "labelled.",
        ),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            "--sources", help="Measure on public labelled sets instead: names separated by commas, or all (see demeanor sources list)."
        ),
    ] = None,
    folders: From = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="With --sources: write the results to this file, as JSON or as a Markdown table (.md)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
    raters: Raters = "majority",
    device: Device = "auto",
    dtype: Dtype = "auto",
    *,
    columns: ColumnOptions,
) -> None:
    """Measure how well a vector set tells high from low on examples it has not seen.

    Each trait is measured on the pairs of its pack that were kept for testing, and compared with simple baselines: the reply's length, its
    words, random directions, and chance. If a pack was changed after the extraction, its results come with a caution, because pairs may
    have moved from training to testing.

    With labelled replies as the input, a trait is measured on those instead; replies that the vector was adapted to are left out. With
    --sources, it is measured on public sets of replies that others wrote and labelled: the better guide to what to expect elsewhere.

    Exits with 1 if a vector does not beat its baselines, and says which.

    Example: demeanor validate --sources all --output external.json
    Example: demeanor validate labelled.csv --traits crisis_recognition --vectors adapted
    """
    if sources is not None:
        if traits or as_json or labelled or input_files:
            raise InputFileError("--sources measures on public sets and writes to --output; leave --traits, --json and other inputs out")
        from demeanor.cli.external import validate_sources

        validate_sources(vectors, sources, folders, output, device, dtype)
        return
    if folders or output is not None:
        raise InputFileError("--from and --output go with --sources; name the sets to measure on")
    if labelled or input_files:
        on_labelled(open_labels(labelled, input_files, columns()), traits, vectors, raters, as_json, device, dtype)
        return
    from demeanor.cli.tables import group_line, matrix_table
    from demeanor.errors import ExtractionError
    from demeanor.traits import load_many
    from demeanor.traits.contexts import ENDINGS, condition_traits

    vector_set = console.vector_set(vectors)
    given = load_many(traits or [name for name in vector_set.traits if not name.endswith(ENDINGS)])
    contexts = [of for trait in given for of in condition_traits(trait)]
    definitions = {trait.name: trait for trait in [*given, *contexts]}
    shared = [name for name in vector_set.traits if name in definitions]
    if not shared:
        raise ExtractionError(
            f"the vector set has {', '.join(vector_set.traits)}, but none of them is among the traits given; name one with --traits"
        )
    made_with = vector_set.model
    reader = console.load_reader(
        made_with.name, made_with.load_quantization, device, dtype, made_with.blocks or None, made_with.load_template
    )

    from demeanor.extraction.activations import kept_activations
    from demeanor.extraction.easing import easings
    from demeanor.extraction.examples import read_traits
    from demeanor.extraction.validation import cosines, on_other_traits, validate_vector
    from demeanor.model.identity import identify
    from demeanor.traits.packs import fingerprint

    for warning in vector_set.check_model(identify(reader.model, reader.tokenizer)):
        console.note(f"warning: the vectors were {warning}")
    with console.stages() as stage:
        reads = read_traits(
            reader, [definitions[name] for name in shared], vector_set.layers, vector_set.pooling, stage, kept_activations()
        )
        easing = easings(reader, vector_set, reads, stage, kept_activations())
        steps = stage("validating", len(shared))
        results = {}
        for name in shared:
            entry = vector_set[name]
            found = validate_vector(entry.reading, entry.calibration, reads[name], easing.get(name))
            if found is not None and entry.pack_hash not in ("", fingerprint(definitions[name])):
                found = found.model_copy(update={"caution": OTHER_PACK})
            results[name] = found
            steps(1)
    matrix = on_other_traits({name: vector_set[name].reading for name in shared}, reads)
    angles = cosines(reads, vector_set.layers[len(vector_set.layers) // 2])
    if as_json:
        traits_found = {name: found.to_record() if found else {} for name, found in results.items()}
        typer.echo(json.dumps({"traits": traits_found, "on_traits": matrix, "cosines": angles}, indent=1))
    else:
        for name, found in results.items():
            if found is None:
                console.out.print(f"[bold]{name}[/]: [yellow]not validated: the trait has no held-out pairs (split: test)[/]\n")
                continue
            colour = "green" if found.beats_baselines else "bold red"
            hard = found.hard
            console.out.print(f"[bold]{name}[/]: [{colour}]{found.verdict}[/]")
            if found.caution:
                console.out.print(f"  [yellow]caution:[/] {found.caution}")
            pairs = found.paired_accuracy
            right = f"pairs in the right order {pairs.value:.0%} ({pairs.low:.0%} to {pairs.high:.0%}), " if pairs else ""
            console.out.print(f"  {right}Cohen's d {found.cohens_d:.2f}, calibration error {found.ece:.3f}, Brier {found.brier:.3f}")
            console.out.print(
                f"  length alone {found.length.auroc:.2f}, bag of words {found.words.auroc:.2f}, "
                f"random directions {found.random.mean:.2f} (97.5 %: {found.random.p97_5:.2f}), "
                f"swapped poles p = {found.permutation.p:.3f}"
            )
            hard_text = "too few to say" if hard.value is None else f"{hard.value:.2f} [{hard.low:.2f}, {hard.high:.2f}]"
            console.out.print(
                "  thresholds on these pairs: "
                + (
                    "; ".join(f"{key}: {t.missed:.0%} missed, {t.false_alarms:.0%} false alarms" for key, t in found.thresholds.items())
                    or "none: the calibration sample is too small"
                )
            )
            if everyday := found.ordinary:
                console.out.print(
                    f"  unsafe replies against {everyday.n} everyday ones: AUROC {everyday.auroc:.2f}; everyday replies flagged: "
                    + "; ".join(f"{share:.0%} at {key}" for key, share in everyday.false_alarms.items())
                )
            console.out.print(
                "  on a register (style of writing) left out of training: "
                + ", ".join(f"{name} {m.value:.2f} ({m.pairs})" for name, m in found.style_shift.items())
            )
            console.out.print(
                "  by number of training pairs: "
                + ", ".join(f"{n} {value:.2f}" for n, value in found.learning_curve.items())
                + " (test AUROC)"
            )
            console.out.print(
                f"  hard pairs {hard_text} ({hard.pairs} pairs); worst register: {group_line(found.registers, 'register')}; "
                f"worst family: {group_line(found.families, 'family')}\n"
            )
        if len(shared) > 1:
            console.out.print(
                "[bold]each vector (row) on each trait's held-out pairs (column)[/]: AUROC, and in brackets the cosine of the directions"
            )
            console.out.print(matrix_table(matrix, angles))
    failed = [name for name, found in results.items() if found is None or not found.beats_baselines]
    if failed:
        console.problem(f"not proven: {', '.join(failed)}")
        raise typer.Exit(1)
