"""`demeanor steer`: replies with and without steering, side by side; and calibrate, export, bake and axis below it.

The command is one thing: a third of the file is the help of its options.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from demeanor.cli import console
from demeanor.cli.axis import axis
from demeanor.cli.console import Device, Dtype, OtherModel, OwnModel, Template, Vectors
from demeanor.cli.doses import numbers, parse_doses, parse_sweep
from demeanor.cli.inputs import PROMPTS_IN, ColumnOptions, place_of, takes_columns
from demeanor.errors import SteeringError

if TYPE_CHECKING:
    from demeanor.model.reader import ActivationReader
    from demeanor.steering import Plan
    from demeanor.steering.sweeps import Sweep

WORDS = "demeanor.steer.words"


class _Steer(TyperGroup):
    """`steer calibrate ...` is a command; `steer "a prompt" ...` is a prompt, whose options may stand anywhere."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] in self.commands:
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = True
        super().parse_args(ctx, args)
        ctx.meta[WORDS] = words = [*ctx._protected_args, *ctx.args]
        if words and words[0] in self.commands:
            raise SteeringError(
                f"{words[0]} is a command and must come before its options: demeanor steer {words[0]} ...; put a "
                f"prompt that begins with it in quotes"
            )
        ctx._protected_args, ctx.args = [], []
        return []


app = typer.Typer(cls=_Steer, invoke_without_command=True, no_args_is_help=True, subcommand_metavar="[PROMPT | COMMAND [ARGS]...]")

Trait = Annotated[list[str] | None, typer.Option("--trait", "-t", help="The trait to steer, NAME or NAME=DOSE. May be repeated.")]
Dose = Annotated[
    float | None,
    typer.Option(
        "--dose",
        help="Steering strength as a fraction of the activation norm, e.g. 0.1. Positive increases the trait; negative decreases it.",
    ),
]
Layers = Annotated[
    str | None, typer.Option("--layers", help="Layers to steer: 14, or 12,14,16, or 12-16, or all. Default: those of the vector.")
]
WhereOption = Annotated[
    Literal["both", "prompt", "response"],
    typer.Option("--where", help="Steer while the model reads the prompt, while it writes the response, or both."),
]
Raw = Annotated[bool, typer.Option("--raw", help="Doses are absolute lengths in activation units, not fractions of the norm.")]
Force = Annotated[bool, typer.Option("--force", help="Allow doses at which replies are known to become incoherent.")]


@app.callback()
def steer(
    ctx: typer.Context,
    trait: Trait = None,
    dose: Dose = None,
    sweep: Annotated[str | None, typer.Option("--sweep", help="Show one reply for each of these doses: -0.2,-0.1,0.1,0.2")] = None,
    operation: Annotated[
        Literal["add", "ablate", "floor", "ceiling"],
        typer.Option(
            "--operation", help="Add the vector, remove its direction (project out), or cap how far the activations reach along it."
        ),
    ] = "add",
    tau: Annotated[float | None, typer.Option("--tau", help="Where to cap, in activation units. Default: as measured.")] = None,
    layers: Layers = None,
    where: WhereOption = "both",
    while_wrong: Annotated[
        bool, typer.Option("--while-wrong", help="Steer only while the reply is on the wrong side of the trait.")
    ] = False,
    raw: Raw = False,
    force: Force = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Length of a reply.")] = 80,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token each time.")] = 0.7,
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal replies.")] = 0,
    vectors: Vectors = None,
    model: OwnModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print replies, scores and what was applied as JSON.")] = False,
    allow_other_model: OtherModel = False,
    template: Template = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Answer a prompt with and without steering, side by side. The unsteered model scores both replies.

    Example: demeanor steer --trait empathetic_responsiveness --dose 0.1 "My exam is tomorrow and I can't sleep."
    """
    if ctx.invoked_subcommand is not None:
        return
    prompt = " ".join(ctx.meta.get(WORDS, [])).strip()
    if not prompt:
        raise SteeringError('no prompt to answer; give one: demeanor steer --trait NAME --dose 0.1 "I feel alone."')
    _refuse_contradictions(trait or [], dose, sweep, operation, tau, while_wrong, raw, force)
    doses = parse_doses(trait or [], dose if operation == "add" else 0.0, needed=sweep is None)
    steps = parse_sweep(sweep, doses)
    console.check_layers(layers)
    scorer = console.load_scorer(vectors, model, device, dtype, allow_other_model, template)
    from demeanor.cli.steering_tables import side_by_side_table
    from demeanor.model.generation import Sampling
    from demeanor.steering import plan_doses, plan_projection
    from demeanor.steering.side_by_side import side_by_side

    for name in doses:
        scorer.vectors[name]
    at = console.parse_layers(layers, scorer.reader.n_layers)
    norms = scorer.vectors.neutral_norm
    if operation == "add":
        chosen = [plan_doses(scorer.vectors, d, norms, at, where, raw, while_wrong, force) for d in steps]
    else:
        chosen = [plan_projection(scorer.vectors, name, operation, norms, tau, at, where) for name in doses]
    _warn(chosen)
    with console.err.status("writing"):
        found = side_by_side(scorer, prompt, chosen, Sampling(max_tokens, temperature, seed=seed))
    if as_json:
        typer.echo(json.dumps(found.to_record(), indent=1, ensure_ascii=False))
    else:
        console.out.print(side_by_side_table(found, scorer))
    if found.not_scored:
        console.problem(f"{found.not_scored} of {len(found.readings)} replies could not be scored")
        raise typer.Exit(3)


@app.command()
@takes_columns
def calibrate(
    trait: Annotated[str, typer.Option("--trait", "-t", help="A built-in trait, or the file of a trait pack.")],
    layers: Annotated[str | None, typer.Option("--layers", help="Layers to try. Default: four in the middle.")] = None,
    doses: Annotated[str, typer.Option("--doses", help="Doses to try, each in both directions.")] = "0.05,0.1,0.2,0.4",
    prompts: Annotated[
        str | None,
        typer.Option("--prompts", help=f"{PROMPTS_IN} Default: the trait pack's test prompts."),
    ] = None,
    n: Annotated[int, typer.Option("--n", help="How many of the pack's prompts to use.")] = 24,
    max_ratio: Annotated[
        float, typer.Option("--max-perplexity-ratio", help="A dose is coherent if it raises perplexity by at most this factor.")
    ] = 1.5,
    where: WhereOption = "both",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Length of a reply.")] = 48,
    report: Annotated[Path | None, typer.Option("--report", help="Write the curves to this HTML file.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the curves to this JSON file.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Save the recommended layer and doses in the vector set (--vectors).")] = False,
    vectors: Vectors = None,
    model: OwnModel = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    *,
    columns: ColumnOptions,
) -> None:
    """Measure what steering a trait does and what it costs, at several layers and strengths.

    Recommends the largest strength at which replies stay coherent, toward either side. Exits with 1 if there is none.
    """
    from demeanor.data.prompts import prompts_of
    from demeanor.data.rows import writing
    from demeanor.traits import load
    from demeanor.vectors.storage import refuse_foreign

    console.check_layers(layers)
    console.check_places({} if prompts is None else {"--prompts": Path(prompts)}, {"--report": report})
    if n < 1:
        raise SteeringError(f"--n {n} leaves no prompt to answer; give at least 1")
    strengths = numbers(doses, "--doses")
    pack = load(trait)
    asked = prompts_of(place_of(prompts), columns()) if prompts is not None else None
    if save and vectors is None:
        raise SteeringError("--save needs the folder of the vector set; name it with --vectors")
    if save and vectors is not None:
        refuse_foreign(vectors)
    scorer = console.load_scorer(vectors, model, device, dtype, False)
    from demeanor.cli.steering_tables import sweep_table
    from demeanor.model.generation import Sampling
    from demeanor.steering import calibrate as measuring
    from demeanor.steering.sweeps import Bounds

    with console.stages() as stage:
        found = measuring.sweep(
            scorer,
            pack,
            scorer.vectors.neutral_norm,
            console.parse_layers(layers, scorer.reader.n_layers),
            strengths,
            asked if asked is not None else measuring.default_prompts(pack, n),
            where,
            Sampling(max_new_tokens=max_tokens),
            Bounds(perplexity_ratio=max_ratio),
            stage,
        )
    console.out.print(sweep_table(found))
    if output is not None:
        with writing(output) as file:
            json.dump(found.to_record(), file, indent=1)
    if report is not None:
        from demeanor.reports.steering import write_report

        write_report([found], report)
        console.note(f"curves in {report}")
    usable = any([_recommend(found, "high", 1), _recommend(found, "low", -1)])
    if save and vectors is not None and usable:
        measuring.keep(scorer, pack, found).save(vectors)
        console.note(f"layer and doses kept in {vectors}")
    if not usable:
        raise typer.Exit(1)


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: .gguf or .pt.")],
    to: Annotated[
        Literal["llama.cpp", "lm-eval"], typer.Option("--to", help="A control vector for llama.cpp, or a steering file for lm-eval.")
    ],
    trait: Trait = None,
    dose: Dose = None,
    layers: Layers = None,
    raw: Raw = False,
    force: Force = False,
    vectors: Vectors = None,
    model: OwnModel = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Export a steering vector for llama.cpp or lm-eval."""
    reader, plan = _planned(parse_doses(trait or [], dose), layers, raw, force, vectors, model, device, dtype)
    from demeanor.steering.engines import write_control_vector, write_lm_eval

    (write_control_vector if to == "llama.cpp" else write_lm_eval)(reader, plan, output)
    for applied in plan.applied:
        console.note(f"{applied} in {output}")


@app.command()
def bake(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new model.")],
    trait: Trait = None,
    dose: Dose = None,
    layers: Layers = None,
    raw: Raw = False,
    force: Force = False,
    vectors: Vectors = None,
    model: OwnModel = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Save a copy of the model with the steering built in as a bias, so that plain transformers can load it."""
    reader, plan = _planned(parse_doses(trait or [], dose), layers, raw, force, vectors, model, device, dtype)
    from demeanor.steering.bake import save_baked

    save_baked(reader, plan, output)
    for applied in plan.applied:
        console.note(f"{applied} baked into {output}")


app.command()(axis)


def _planned(
    doses: dict[str, float], layers: str | None, raw: bool, force: bool, vectors: Path | None, model: str | None, device: str, dtype: str
) -> tuple[ActivationReader, Plan]:
    """The model, and what these doses add to it; for what is written to be used elsewhere."""
    console.check_layers(layers)
    scorer = console.load_scorer(vectors, model, device, dtype, False)
    from demeanor.steering import plan_doses

    at = console.parse_layers(layers, scorer.reader.n_layers)
    plan = plan_doses(scorer.vectors, doses, scorer.vectors.neutral_norm, at, raw=raw, force=force)
    _warn([plan])
    return scorer.reader, plan


def _warn(plans: list[Plan]) -> None:
    for warning in dict.fromkeys(w for plan in plans for w in plan.warnings):
        console.err.print(f"[yellow]warning:[/] {warning}")


def _refuse_contradictions(
    traits: list[str], dose: float | None, sweep: str | None, operation: str, tau: float | None, while_wrong: bool, raw: bool, force: bool
) -> None:
    """Raise SteeringError for options of which one would go unheard beside another."""
    doses = {"--dose": dose is not None, "--trait NAME=DOSE": any("=" in text for text in traits)}
    of_adding = {**doses, "--sweep": sweep is not None, "--while-wrong": while_wrong, "--raw": raw, "--force": force}
    if operation != "add" and (idle := [name for name, given in of_adding.items() if given]):
        raise SteeringError(f"{idle[0]} has no effect with --operation {operation}, which adds no dose; leave one of them out")
    if operation in ("add", "ablate") and tau is not None:
        raise SteeringError(f"--tau has no effect with --operation {operation}; use it with --operation floor or ceiling")
    if sweep is not None and (idle := [name for name, given in doses.items() if given]):
        raise SteeringError(f"--sweep already gives the doses, so {idle[0]} cannot be used with it; leave one of them out")


def _recommend(found: Sweep, pole: str, toward: int) -> bool:
    """Say which dose is recommended toward a pole, and whether one is."""
    best = found.recommended(toward)
    if best is None:
        console.out.print(
            f"[yellow]toward the {pole} pole: none of these doses moves {found.trait} and keeps perplexity within "
            f"x {found.bounds.perplexity_ratio:g}[/]"
        )
    else:
        console.out.print(
            f"toward the {pole} pole: dose [bold]{best.dose:+.2f}[/] at layer [bold]{best.layer}[/] moves {found.trait} by "
            f"{best.shift.mean:+.2f} (p {best.shift.p:.1g}, {found.prompts} prompts) at perplexity x {best.perplexity_ratio:.2f}"
        )
    return best is not None
