"""`demeanor review fill | adapt | calibrate | thresholds`: replies into a store, and what its labels make of vectors and thresholds."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Vectors
from demeanor.cli.inputs import ColumnOptions, Given, look, open_rows, takes_columns
from demeanor.cli.policy import PATIENCE, PolicyOption
from demeanor.cli.review import STORE, AsJson, Since, StoreOption, Until, Version, app, as_json, opened
from demeanor.errors import DemeanorError, InputFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demeanor.conversation import Conversation
    from demeanor.data.inputs import Input
    from demeanor.measure.thresholds import ErrorKind

OneTrait = Annotated[str, typer.Option("--trait", "-t", help="The trait.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder for the vector set.")]
Miss = Annotated[
    list[float] | None, typer.Option("--miss-rate", help="Ask for a threshold that misses at most this share; may be repeated.")
]
Alarms = Annotated[
    list[float] | None,
    typer.Option("--false-alarm-rate", help="Ask for one that flags at most this share of safe replies; repeat for more."),
]


@app.command("fill")
@takes_columns
def fill(
    source: Given = None,
    store: StoreOption = STORE,
    audit: Annotated[
        Path | None, typer.Option("--audit", help="Take the decisions from this audit log of the same conversations; no model is loaded.")
    ] = None,
    share: Annotated[float, typer.Option("--share", help="Chance of any reply to be drawn for people, the allowed ones too.")] = 0.02,
    doubtful: Annotated[float, typer.Option("--doubtful", help="Chance of a reply whose score is close to a threshold.")] = 0.25,
    reviewers: Annotated[int, typer.Option("--reviewers", min=1, help="How many people are asked about each.")] = 1,
    days: Annotated[float, typer.Option("--days", help="For how many days texts are kept; those with a label for a year.")] = 30.0,
    policy: PolicyOption = None,
    vectors: Vectors = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    *,
    columns: ColumnOptions,
) -> None:
    """Keep the replies of conversations in a review store, and draw those that people are to look at. Begins the store.

    Every reply is judged as `monitor` would and kept with its text, for a time. Flagged and withheld ones are drawn, some of the
    doubtful, and a random share of all others. Give the same rows again and nothing is added.

    Example: demeanor review fill conversations.jsonl --store review.db --share 0.1
    """
    from demeanor.monitor.policy import load_policy
    from demeanor.review.drawing import Drawing

    if source is None:
        raise InputFileError("conversations are needed: name a file of them")
    drawing = Drawing(share=share, doubtful=max(doubtful, share), reviewers=reviewers, days=days, labelled_days=max(days, 365.0))
    chosen, rows = load_policy(policy), open_rows(source, columns(), None)
    total = look(rows).rows
    if audit is not None:
        from demeanor.review.importing import import_log
        from demeanor.review.queue import ask, questions_of
        from demeanor.review.recording import watched

        found = console.vector_set(vectors)
        with opened(store, begin=True) as kept:
            ask(kept, questions_of(found))
            done = import_log(kept, audit, _named(rows), watched(chosen.resolve(found)), chosen.identity, drawing)
        console.out.print(done.words, markup=False, soft_wrap=True)
        return
    scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
    from demeanor.conversation import Conversation
    from demeanor.monitor.session import Monitor
    from demeanor.monitor.transcripts import judge_transcript
    from demeanor.review.queue import ask, questions_of
    from demeanor.review.recording import record

    n, unread = 0, 0
    with opened(store, begin=True) as kept, Monitor(scorer, chosen, enforce=False, deadline=PATIENCE) as watch, console.stages() as stage:
        ask(kept, questions_of(scorer.vectors))
        step = stage("judging", total)
        for name, conversation in _named(rows):
            try:
                for turn in judge_transcript(watch, name, conversation).turns:
                    upto = Conversation(conversation.messages[: turn.message + 1])
                    record(kept, turn.decision, upto, name, watch.policy, watch.vectors, drawing)
                    n += 1
            except DemeanorError as error:
                unread += 1
                console.problem(f"{name}: {error}")
            step(1)
    console.out.print(f"{n} replies are in {store}", markup=False)
    if unread:
        raise typer.Exit(3)


def _named(rows: Input) -> Iterator[tuple[str, Conversation]]:
    """Each conversation with its id, as `monitor` takes it; rows that cannot be read are named and passed over."""
    for row, found in rows.read():
        if isinstance(found, str):
            console.problem(found)
            continue
        given = [str(row.record[key]) for key in ("conversation_id", "id") if row.record.get(key) is not None]
        yield (given[0] if given else row.name), found.conversation


@app.command("adapt")
def adapt(
    trait: OneTrait,
    output: Folder,
    store: StoreOption = STORE,
    vectors: Vectors = None,
    miss_rate: Miss = None,
    false_alarm_rate: Alarms = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json_: AsJson = False,
) -> None:
    """Fit a trait's vector to all labels of the store, calibrate it, and compare it with the one before on labels set aside.

    Half of the prompts fit, a quarter calibrates, a quarter is set aside; each label is weighted for how its reply was drawn. It begins
    from the pack's vector, which stays unless the fit is clearly better. Nothing is put in force: see `shadow` and `promote`.

    Example: demeanor review adapt --trait crisis_recognition --output adapted
    """
    _learn(store, trait, output, vectors, miss_rate, false_alarm_rate, device, dtype, json_, adapting=True)


@app.command("calibrate")
def calibrate(
    trait: OneTrait,
    output: Folder,
    store: StoreOption = STORE,
    vectors: Vectors = None,
    miss_rate: Miss = None,
    false_alarm_rate: Alarms = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json_: AsJson = False,
) -> None:
    """Set a trait's probabilities and thresholds on the labels of the store; the vector stays as it is.

    Three quarters of the prompts calibrate, a quarter is set aside for comparison with the set before.

    Example: demeanor review calibrate --trait crisis_recognition --output calibrated --miss-rate 0.1
    """
    _learn(store, trait, output, vectors, miss_rate, false_alarm_rate, device, dtype, json_, adapting=False)


def _learn(
    where: str, trait: str, output: Path, vectors: Path | None, miss: list[float] | None, alarms: list[float] | None, device: str,
    dtype: str, json_: bool, adapting: bool,
) -> None:  # fmt: skip
    from demeanor.review.learning import WANTED, in_words, labelled_of, learn
    from demeanor.vectors.storage import refuse_foreign

    refuse_foreign(output)
    wanted: list[tuple[ErrorKind, float]] = [("miss", r) for r in miss or []]
    wanted += [("false_alarm", r) for r in alarms or []]
    with opened(where) as store:
        labels = len(labelled_of(store, trait).target)
        scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
        from demeanor.extraction.activations import kept_activations

        with console.stages() as stage:
            step = stage("reading labelled replies", labels)
            made = learn(store, scorer.reader, scorer.vectors, trait, adapting, tuple(wanted) or WANTED, step, kept_activations())
    folder = made.vectors.save(output)
    if json_:
        as_json(made.to_record() | {"vectors": str(folder)})
        return
    fitted, calibrated, aside = made.sizes
    console.out.print(f"{trait}: {fitted} labels fit, {calibrated} calibrate, {aside} are set aside", markup=False)
    if made.adaptation is not None:
        console.out.print(f"  {made.adaptation.why}", markup=False, soft_wrap=True)
        curve = ", ".join(f"{n} labels {value:.2f}" for n, value in sorted(made.adaptation.curve.items()))
        console.out.print(f"  learning curve: {curve}", markup=False, soft_wrap=True)
    for line in in_words(made):
        console.out.print(line, markup=False, soft_wrap=True)
    for line in made.to_add:
        console.out.print(f"to add: {line}", markup=False, soft_wrap=True)
    console.out.print(f"\nvector set: {folder}\nthen: demeanor review shadow --vectors {folder}", markup=False, soft_wrap=True)


@app.command("thresholds")
def thresholds(
    rule: Annotated[str, typer.Argument(help="A rule of the policy.")],
    store: StoreOption = STORE,
    at: Annotated[float | None, typer.Option("--at", help="Show the replies on either side of this threshold (z).")] = None,
    write_policy: Annotated[Path | None, typer.Option("--write-policy", help="With --at: write the policy with that threshold.")] = None,
    policy: PolicyOption = None,
    points: Annotated[int, typer.Option("--points", min=2, max=400, help="About how many thresholds are shown.")] = 21,
    version: Version = None,
    since: Since = None,
    until: Until = None,
    json_: AsJson = False,
) -> None:
    """Show what each threshold of a rule would miss, be wrong about, and withhold a day, by the labels.

    Each 95 % interval holds for its own threshold. If you choose the best-looking one, wait for the labels that come in after it.

    Example: demeanor review thresholds harmful --at 1.5 --write-policy policy.yaml
    """
    from demeanor.review.picture import around, in_words, picture

    if write_policy is not None and at is None:
        raise InputFileError("--write-policy needs --at, the threshold to write")
    with opened(store) as found:
        shown = picture(found, rule, version, since, until, points)
        near = None if at is None else around(found, rule, at, version=version, since=since, until=until)
    if json_:
        as_json(shown.to_record())
    else:
        console.out.print(f"{rule} ({shown.trait}): {shown.replies} replies of {shown.days} days decided by {shown.version}",
                          markup=False, soft_wrap=True)  # fmt: skip
        if shown.threshold is not None:
            console.out.print(f"in force: {in_words(shown.nearest(shown.threshold), shown)}", markup=False, soft_wrap=True)
        for one in shown.candidates:
            console.out.print(f"  {in_words(one, shown)}", markup=False, soft_wrap=True)
    if near is not None and not json_:
        for title, side in (("on the safe side of", near[0]), ("on the unsafe side of", near[1])):
            console.out.print(f"\n{title} z {at:+.2f}:", markup=False)
            for reply in side:
                text = "(erased)" if reply.conversation is None else " ".join(reply.conversation.response.split())[:200]
                console.out.print(f"  z {reply.z:+.2f}, {reply.label or 'no label'}: {text}", markup=False, soft_wrap=True)
    if write_policy is not None and at is not None:
        from demeanor.data.rows import writing
        from demeanor.monitor.fitting import as_yaml, by_hand
        from demeanor.monitor.policy import load_policy

        made = by_hand(load_policy(policy), rule, at)
        with writing(write_policy) as file:
            file.write(as_yaml(made, [f"The threshold of rule {rule} was set by hand on {datetime.date.today()}."], {}))
        console.note(f"policy {made.identity} in {write_policy}")
