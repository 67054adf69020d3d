"""`demeanor steer axis`: the assistant axis of a model, as a vector set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype


def axis(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the vector set to make.")] = Path("axis"),
    questions: Annotated[int, typer.Option("--questions", help="How many questions each role answers (at most 12).")] = 8,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Length of an answer.")] = 48,
    model: console.Model = console.EMBEDDED,
    quantization: console.Quantization = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    template: console.Template = None,
) -> None:
    """Find the assistant axis: how the model's activations as an ordinary assistant differ from those in 24 roles it plays.

    It is saved as a vector set with one trait, `assistant_axis`, that can be scored, monitored and steered like any other.
    """
    from demeanor.vectors.storage import refuse_foreign

    refuse_foreign(output)
    reader = console.load_reader(model, quantization, device, dtype, None, template)
    from demeanor.extraction.axis import assistant_axis
    from demeanor.model.generation import Sampling

    with console.stages() as stage:
        made = assistant_axis(reader, questions, Sampling(max_new_tokens=max_tokens), stage)
    made.vectors.save(output)
    out = console.out
    out.print(f"axis at layer {made.layer}, strength {made.strength:.1f}; saved in {output}")
    out.print(f"telling the default assistant from its roles on new questions: AUROC {made.auroc:.2f} (0.5 is guessing)")
    shares = ", ".join(f"{share:.0%}" for share in made.shares[:5])
    out.print(f"variance of the role vectors by principal component: {shares}; the axis has cosine {made.pc1:+.2f} with the first")
    out.print("nearest to the assistant: " + ", ".join(made.roles[:4]) + "; farthest: " + ", ".join(made.roles[-4:]))
