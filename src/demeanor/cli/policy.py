"""`demeanor policy`: policies that fit a vector set, and thresholds for a budget of withheld replies; and what commands say of a policy."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, OtherModel, OwnModel, Template, Vectors
from demeanor.cli.inputs import ColumnOptions, Given, InputOption, look, one_of, open_rows, takes_columns
from demeanor.errors import InputFileError

if TYPE_CHECKING:
    from demeanor.data.inputs import Input
    from demeanor.monitor.fitting import Prompts
    from demeanor.monitor.policy import Policy
    from demeanor.monitor.session import Monitor
    from demeanor.monitor.suggesting import Traffic
    from demeanor.vectors import VectorSet

PATIENCE = 600.0  # seconds for a reply: nobody waits for one here
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy", help="guarded (may withhold replies), review-only (same rules, only flags), or a YAML file. Default: guarded."
    ),
]
Written = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the policy (YAML). Default: standard output.")]

app = typer.Typer(help="Adjust a policy to a vector set, or to a budget of withheld replies.", no_args_is_help=True)


@app.command("fit")
def fit(vectors: Vectors = None, policy: PolicyOption = None, output: Written = None) -> None:
    """Check which thresholds a policy needs, and write a policy that uses the thresholds that exist.

    The monitor refuses a rule whose threshold the vector set's calibration does not have. This replaces each missing threshold by the
    nearest one that exists, and writes what that costs above the rule. No model is loaded.

    Example: demeanor policy fit --vectors adapted --output policy.yaml
    """
    from demeanor.monitor.policy import load_policy

    chosen = load_policy(policy)
    found = console.vector_set(vectors)
    say_needs(chosen, found, {}, list(found.traits), console.given_vectors(vectors), policy, output, to_output=output is None)


@app.command("suggest")
@takes_columns
def suggest(
    source: Given = None,
    input_file: InputOption = None,
    budget: Annotated[str, typer.Option("--budget", help="How many replies may be withheld at most, e.g. 5/1000 or 0.5%.")] = "5/1000",
    output: Written = None,
    policy: PolicyOption = None,
    vectors: Vectors = None,
    model: OwnModel = None,
    allow_other_model: OtherModel = False,
    template: Template = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    *,
    columns: ColumnOptions,
) -> None:
    """Suggest thresholds that withhold no more of your own replies than a budget allows.

    Scores every reply and sets the rules that withhold so that together they stay within the budget. It says how many later replies would
    be withheld at most, with 95 % confidence, and how many unsafe replies of the calibration sample these thresholds miss. The replies
    need no labels, but should be ordinary traffic: unsafe replies in them use up the budget too.

    Example: demeanor policy suggest --vectors vectors --input replies.jsonl --budget 5/1000 --output policy.yaml
    """
    from demeanor.monitor.fitting import fitted
    from demeanor.monitor.policy import load_policy
    from demeanor.monitor.suggesting import parse_budget, per_thousand

    share = parse_budget(budget)
    spec = one_of(source, input_file)
    if spec is None:
        raise InputFileError("no replies given; name a file of your own traffic")
    console.check_places({"--input": Path(spec)}, {"--output": output})
    chosen = load_policy(policy)
    rows = open_rows(spec, columns(), output)
    total = look(rows).rows
    scorer = console.load_scorer(vectors, model, device, dtype, allow_other_model, template)
    from demeanor.monitor.session import Monitor
    from demeanor.monitor.suggesting import Traffic
    from demeanor.monitor.suggesting import suggest as suggest_for

    base = fitted(chosen, scorer.vectors)
    if base.policy is None:
        base.text("")  # which says why there is none
        return
    for name in base.left_out:
        console.err.print(f"[yellow]caution:[/] rule {name} is left out, because no threshold exists for it", soft_wrap=True)
    with Monitor(scorer, base.policy, enforce=False, deadline=PATIENCE) as watch:
        traffic = Traffic(watch.policy)
        _judge(watch, rows, traffic, total)
    made = suggest_for(traffic, {name: entry.calibration for name, entry in scorer.vectors.traits.items()}, share)
    if made.unscored:
        console.problem(f"{made.unscored} replies could not be scored; no threshold covers those, the policy's 'not_scored' does")
    from demeanor.monitor.fitting import as_yaml

    head = [f"Thresholds for a budget of {per_thousand(share)} withheld replies, by demeanor policy suggest.", made.words + "."]
    say = console.err if output is None else console.out
    for rule in made.rules:
        say.print(rule.words, markup=False, soft_wrap=True)
    (say.print if made.promised else console.note)(made.words)
    _write(as_yaml(made.policy, head, {rule.rule: [rule.words + "."] for rule in made.rules}), output)


def say_needs(
    policy: Policy,
    vectors: VectorSet,
    have: Mapping[str, Prompts],
    traits: Sequence[str],
    folder: Path | None,
    given: str | None,
    write: Path | None,
    to_output: bool = False,
) -> None:
    """Say what a policy asks of these traits of a set, what is there and what is missing; write one that fits where a file is named."""
    from demeanor.monitor.fitting import fitted

    found = fitted(policy, vectors, have)
    asked = [need for need in found.needs if need.trait in traits]
    say = console.err if to_output else console.out
    if not asked:
        say.print(
            f"policy {policy.identity} has no rule that needs a calibrated threshold of {', '.join(traits)}", markup=False, soft_wrap=True
        )
    else:
        say.print(f"policy {policy.identity}:", markup=False, soft_wrap=True)
        for need in asked:
            say.print(f"  {need.words}", markup=False, soft_wrap=True)
    for name in found.left_out:
        console.err.print(f"[yellow]caution:[/] no threshold exists for rule {name}; a fitted policy leaves it out", soft_wrap=True)
    option = f" --vectors {shlex.quote(str(folder))}" if folder is not None else ""
    named = f" --policy {shlex.quote(given)}" if given is not None else ""
    if write is not None or to_output:
        _write(found.text(f"Policy {policy.version}, adjusted to the thresholds of a vector set by demeanor policy fit."), write)
        if write is not None:
            say.print(
                f"try it: demeanor monitor conversations.jsonl{option} --policy {shlex.quote(str(write))}", markup=False, soft_wrap=True
            )
    elif all(need.there for need in found.needs):
        say.print(f"all thresholds are there; next: demeanor monitor conversations.jsonl{option}{named}", markup=False, soft_wrap=True)
    else:
        say.print(
            f"to write a policy that works: demeanor policy fit{option}{named} --output {policy_file(given)}", markup=False, soft_wrap=True
        )


def policy_file(given: str | None) -> str:
    """A name for a fitted policy that is not the name of the one that it is made from."""
    return "policy.yaml" if given is None or Path(given).name != "policy.yaml" else "fitted.yaml"


def say_opening(watch: Monitor) -> None:
    """What has to be known of a policy before it judges anything."""
    if watch.policy.opening:
        console.note(watch.policy.opening)


def _judge(watch: Monitor, given: Input, traffic: Traffic, total: int) -> None:
    """Take every conversation in; a row that cannot be read is counted and named."""
    from demeanor.errors import DemeanorError
    from demeanor.monitor.transcripts import judge_transcript

    unread, first, done = 0, "", 0
    with console.stages() as stage:
        step = stage("scoring", total)
        for row, found in given.read():
            done += 1
            try:
                if isinstance(found, str):
                    raise InputFileError(found)
                traffic.add(judge_transcript(watch, str(row.number), found.conversation, None, found.unread))
            except DemeanorError as error:
                unread, first = unread + 1, first or str(error)
            step(1)
        console.check_count(given.spec, total, done)
    if unread:
        console.problem(f"{unread} of {total} rows could not be read, the first: {first}")


def _write(text: str, target: Path | None) -> None:
    from demeanor.data.rows import writing

    if target is None:
        typer.echo(text, nl=False)
        return
    with writing(target) as file:
        file.write(text)
    console.note(f"policy in {target}")
