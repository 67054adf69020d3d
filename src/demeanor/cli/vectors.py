"""`demeanor vectors`: look at a vector set, and bring in vectors that others made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Template

app = typer.Typer(help="Show a vector set, or import vectors that others made.", no_args_is_help=True)


@app.command("show")
def show(
    folder: Annotated[Path | None, typer.Argument(help="A vector set. Default: ./vectors if there is one, else the built-in one.")] = None,
) -> None:
    """Show a vector set: its model, and for each trait the layers it is read at, how well it works, and what calibrated it."""
    from demeanor.cli.tables import traits_table

    chosen = console.vector_set(folder)
    model = chosen.model
    console.out.print(
        f"{model.name} ({model.architecture}, {model.layers} layers of width {model.hidden_size}, {model.dtype})", markup=False
    )
    if model.template:
        console.out.print(f"chat template that the model was told: {model.template.splitlines()[0][:60]}", markup=False)
    console.out.print(traits_table(chosen))
    for name, entry in chosen.traits.items():
        console.out.print(f"{name}: {entry.calibration.source}", markup=False, soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="A .pt file of Persona Vectors or of the persona-vectors tutorial, or a .gguf control vector of repeng or llama.cpp."
        ),
    ],
    safe_pole: Annotated[
        Literal["high", "low"], typer.Option("--safe-pole", help="Which pole is the desirable one: low for 'evil', high for 'warmth'.")
    ],
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model that the vectors were made with.")] = None,
    add_to: Annotated[
        Path | None, typer.Option("--add-to", help="Add the trait to this vector set of the same model; no model is loaded.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the set. Default: --add-to, else vectors.")] = None,
    trait: Annotated[str | None, typer.Option("--trait", "-t", help="Name of the trait. Default: as in the file.")] = None,
    layer: Annotated[
        int | None, typer.Option("--layer", help="Layer to use (decoder block, from 0). Default: the one nearest the middle.")
    ] = None,
    trait_data: Annotated[
        Path | None, typer.Option("--trait-data", help="The trait's JSON file from Persona Vectors, which describes its poles.")
    ] = None,
    high_pole: Annotated[str, typer.Option("--high-pole", help="Describes the high pole, e.g. 'warm and kind'.")] = "",
    low_pole: Annotated[str, typer.Option("--low-pole", help="Describes the low pole, e.g. 'cold'.")] = "",
    reads: Annotated[Literal["response", "user"], typer.Option("--reads", help="Whose message the trait is read from.")] = "response",
    language: Annotated[str, typer.Option("--language", help="Language of the texts it was made from: en, de, ...")] = "en",
    device: Device = "auto",
    dtype: Dtype = "auto",
    template: Template = None,
) -> None:
    """Import a vector that somebody else made, as a trait of a vector set.

    Nothing is known yet about how well it scores replies. It can steer and rank at once; for probabilities and thresholds, calibrate it
    first. Layers are converted to Demeanor's numbering, which starts at 0 (docs/artefacts.md).

    Example: demeanor vectors import evil_response_avg_diff.pt --model Qwen/Qwen2.5-7B-Instruct --safe-pole low --layer 19
    """
    from dataclasses import replace

    from demeanor.errors import InputFileError, OutputError, VectorSetError
    from demeanor.vectors import VectorSet
    from demeanor.vectors.imports import read_trait_data, read_vectors, trait_entry
    from demeanor.vectors.storage import MANIFEST, adapted_traits, refuse_foreign, refuse_unadapted

    if (model is None) == (add_to is None):
        raise InputFileError("say which model the vectors are for: --model NAME, or --add-to a vector set of it (one of the two)")
    if not file.is_file():
        raise InputFileError(f"no such file: {file}")
    data = read_trait_data(trait_data) if trait_data is not None else None
    target = output or add_to or Path("vectors")
    refuse_foreign(target)
    if add_to is not None:
        made = VectorSet.load(add_to)
        refuse_unadapted(target, adapted_traits(made))
    else:
        if (target / MANIFEST).is_file():
            raise OutputError(f"{target} holds a vector set; add the trait with --add-to {target}, or name another folder with --output")
        made = _bare(str(model), device, dtype, template)
    found = read_vectors(file, made.model)
    name = trait or found.trait or (data.name if data else file.stem.lower())
    if name in made.traits:
        raise VectorSetError(f"{add_to} holds a trait {name} already; name this one with --trait")
    entry = trait_entry(found, made.model, name, safe_pole, layer, high_pole, low_pole, reads=reads, data=data, language=language)
    folder = replace(made, traits={**made.traits, name: entry}).save(target)
    if found.caution is not None:
        console.err.print(f"[yellow]caution:[/] {found.caution}", soft_wrap=True)
    console.out.print(
        f"{name}: {found.form}, layer {entry.reading.layer_idx} of {len(found.directions)}, strength {entry.reading.strength:.2f}",
        markup=False,
        soft_wrap=True,
    )
    console.out.print(f"vector set: {folder}", markup=False, soft_wrap=True)
    console.note(f"not calibrated yet: demeanor calibrate --vectors {folder} --trait {name} --input LABELLED.jsonl")


def _bare(model: str, device: str, dtype: str, template: str | None):  # type: ignore[no-untyped-def]
    """A vector set of a model without any trait, with what steering needs to know of the model."""
    reader = console.load_reader(model, None, device, dtype, None, template)
    import torch

    from demeanor.extraction.assembly import assembled
    from demeanor.model.residual import residual_norms
    from demeanor.traits.ordinary import ordinary_conversations

    with console.loading("everyday talk, for how strong steering is"):
        norms = residual_norms(reader, [o.conversation for o in ordinary_conversations() if o.split == "train"])
    return assembled(reader, {}, norms, torch.zeros(0, 0), made_from={"recipe": "imported"})
