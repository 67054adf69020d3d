"""`demeanor sample`: a sheet of replies for a clinician to label next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Vectors
from demeanor.cli.inputs import ColumnOptions, Given, InputOption, look, one_of, open_rows, takes_columns
from demeanor.errors import DemeanorError, InputFileError, nearest

if TYPE_CHECKING:
    from demeanor.conversation import Conversation
    from demeanor.data.inputs import Input
    from demeanor.vectors import TraitEntry, VectorSet

ANSWERED = "flag,substitute,escalate"
ALLOWED = 0.2


@dataclass(frozen=True)
class Candidate:
    """A reply that may be put on the sheet."""

    name: str
    conversation: Conversation
    group: str
    """What it belongs together with, if it is not its prompt."""
    z: Mapping[str, float]
    """Its scores, by trait."""


@takes_columns
def sample(
    traits: Annotated[list[str], typer.Option("--trait", "-t", help="The trait to label. May be repeated.")],
    source: Given = None,
    input_file: InputOption = None,
    decisions: Annotated[
        Path | None,
        typer.Option("--from", help="Choose from decisions written by `monitor --output`, instead of an input; no model is loaded."),
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", help=f"With --from: which actions to choose from, e.g. flag,substitute. Default: {ANSWERED}.")
    ] = None,
    allowed: Annotated[
        float | None,
        typer.Option("--allowed", min=0, max=0.9, help=f"With --from: share of allowed replies to mix in at random. Default: {ALLOWED}."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The sheet to write; an existing file is never overwritten.")] = Path(
        "to-label.csv"
    ),
    n: Annotated[int, typer.Option("--n", min=1, help="How many replies to choose.")] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed chooses the same replies.")] = 0,
    vectors: Vectors = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    *,
    columns: ColumnOptions,
) -> None:
    """Choose which replies to label next, and write them to a CSV sheet for a spreadsheet.

    The replies are spread over the range of scores and over prompts, without near-duplicates. The sheet does not show the scores, so that
    they do not influence the labels. Each row shows the conversation and asks one question; a page of guidance is written beside the
    sheet. Fill in 'label' (safe, unsafe or unsure), then run `demeanor adapt` on the sheet.

    Example: demeanor sample --trait crisis_recognition replies.jsonl --n 50
    Example: demeanor sample -t crisis_recognition --from decisions.jsonl --action flag,substitute --allowed 0.2
    """
    from demeanor.data.to_label import ToLabel, guide_path, refuse_taken, write_guide, write_sheet

    refuse_taken(output)
    spec = one_of(source, input_file)
    if (spec is None) == (decisions is None):
        raise InputFileError("give either a file of unlabelled replies, or --from with decisions of the monitor")
    if decisions is None and (action is not None or allowed is not None):
        raise InputFileError("--action and --allowed only work with --from, because they go by what the monitor did about a reply")
    names = list(dict.fromkeys(traits))
    if decisions is not None:
        entries, chosen, rows, left = _from_decisions(decisions, names, _actions(action), allowed, n, seed, vectors)
    else:
        assert spec is not None
        given = open_rows(spec, columns(), output)
        look(given)
        entries, chosen, rows, left = _from_replies(given, names, n, seed, vectors, device, dtype)
    questions = {name: entries[name].question(name) for name in names}
    on_sheet = [
        ToLabel(one.name, one.conversation, one.group, questions[name])
        for one in chosen
        for name in names
        if _text_read(one.conversation, entries[name]) is not None
    ]
    write_sheet(output, on_sheet)
    write_guide(guide_path(output), output.name, list(questions.values()))
    asked = "" if len(names) == 1 else f" ({len(on_sheet)} questions)"
    out = console.out
    out.print(f"{len(chosen)} replies to label{asked} in {output}, guidance in {guide_path(output)}: fill in 'label', then", soft_wrap=True)
    for name in names:
        folder = "adapted" if len(names) == 1 else f"adapted-{name}"
        out.print(f"  demeanor adapt --trait {name} --input {output} --output {folder}", soft_wrap=True)
    if left:
        what = f"{len(left)} of {rows} rows could not be scored" if decisions is None else f"{len(left)} of {rows} rows hold no decisions"
        console.problem(f"{what} and are not in the sheet, the first: {left[0]}")
        raise typer.Exit(3)


def _actions(given: str | None) -> list[str]:
    """The actions of --action. Raises InputFileError."""
    from demeanor.measure.cuts import ACTIONS

    wanted = [word.strip() for word in (given or ANSWERED).split(",") if word.strip()]
    for word in wanted:
        if word not in ACTIONS:
            raise InputFileError(f"unknown action {word!r}; {nearest(word, ACTIONS)}")
    return wanted


def _from_replies(
    given: Input, traits: list[str], n: int, seed: int, vectors: Path | None, device: str, dtype: str
) -> tuple[VectorSet, list[Candidate], int, list[str]]:
    """The set, replies of a file that is scored now, how many rows it has, and what is wrong with those that could not be."""
    from demeanor.data.sheets import own_group

    readable, left, rows = [], [], 0
    for row, found in given.read():
        rows += 1
        try:
            if isinstance(found, str):
                left.append(found)
            else:
                readable.append((row, found.to_score()))
        except DemeanorError as error:
            left.append(f"{row.where}: {error}")
    if not rows:
        raise InputFileError(f"{given.spec} has no rows")
    if not readable:
        raise InputFileError(f"no row of {given.spec} can be read, the first: {left[0]}")
    scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
    for trait in traits:
        scorer.vectors[trait]  # said before anything is scored
    from demeanor.scoring import Reading

    candidates = []
    with console.stages() as stage:
        step = stage("scoring", len(readable))
        results = scorer.score_many([conversation for _, conversation in readable])
        for (row, conversation), result in zip(readable, results, strict=True):
            scores = result.scores if isinstance(result, Reading) else {}
            z = {trait: scores[trait].z for trait in traits if trait in scores}
            if z:
                candidates.append(Candidate(row.name, conversation, own_group(row.record), z))
            else:
                why = "no user message to read" if isinstance(result, Reading) else result.error
                left.append(f"{row.where}: {why}")
            step(1)
    if not candidates:
        raise InputFileError(f"no row of {given.spec} could be scored, the first: {left[0]}")
    chosen = _spread(candidates, [scorer.vectors[trait] for trait in traits], traits, n, seed)
    if len(chosen) < min(n, len(candidates)):
        few = len(candidates) - len(chosen)
        console.note(f"fewer than the {n} asked for, because the other {few} are nearly the same as one of these")
    return scorer.vectors, chosen, rows, left


def _from_decisions(
    source: Path, traits: list[str], actions: list[str], allowed: float | None, n: int, seed: int, vectors: Path | None
) -> tuple[VectorSet, list[Candidate], int, list[str]]:
    """The same of a file of decisions, whose scores are in it; replies that were allowed are drawn at random."""
    import numpy as np

    from demeanor.data.decisions import read_decisions

    decided, left, read = read_decisions(source)
    entries = console.vector_set(vectors)
    known = [d for d in decided if any(_text_read(d.conversation, entries[trait]) is not None for trait in traits)]
    wanted, let_by = ([d for d in known if (d.action in actions) == named] for named in (True, False))
    let_by = [d for d in let_by if d.action == "allow"]
    if not wanted:
        raise InputFileError(
            f"{source}: no reply was decided on with {' or '.join(actions)}, of {len(known)} that were decided on; name another --action"
        )
    from demeanor.extraction.sampling import mixed_in

    share = 0.0 if "allow" in actions else ALLOWED if allowed is None else allowed
    most, some = mixed_in(len(wanted), len(let_by), n, share)
    chosen = _spread([Candidate(d.name, d.conversation, d.group, d.z) for d in wanted], [entries[t] for t in traits], traits, most, seed)
    some = min(some, mixed_in(len(chosen), len(let_by), n, share)[1])
    rng = np.random.default_rng(seed)
    drawn = [let_by[i] for i in rng.permutation(len(let_by))[:some].tolist()]
    chosen += [Candidate(d.name, d.conversation, d.group, d.z) for d in drawn]
    console.note(f"{len(chosen) - some} replies with {' or '.join(actions)} and {some} allowed ones, of {len(decided)}")
    return entries, [chosen[i] for i in rng.permutation(len(chosen)).tolist()], read, left


def _spread(pool: Sequence[Candidate], entries: Sequence[TraitEntry], traits: Sequence[str], n: int, seed: int) -> list[Candidate]:
    """Up to `n` of these, spread over each trait's scores in turn; one without a score counts as the middle."""
    import numpy as np

    from demeanor.data.sheets import group_of
    from demeanor.extraction.sampling import choose_to_label, in_turn

    groups = [group_of({"group": one.group}, one.conversation) for one in pool]
    choices = []
    for trait, entry in zip(traits, entries, strict=True):
        texts = {i: text for i, one in enumerate(pool) if (text := _text_read(one.conversation, entry)) is not None}
        middle = float(np.median([one.z[trait] for one in pool if trait in one.z] or [0.0]))
        scores = np.array([pool[i].z.get(trait, middle) for i in texts])
        picks = choose_to_label(scores, list(texts.values()), [groups[i] for i in texts], n, seed) if texts else []
        at = list(texts)
        choices.append([at[pick] for pick in picks])
    return [pool[i] for i in in_turn(choices, n)]


def _text_read(conversation: Conversation, entry: TraitEntry) -> str | None:
    """The message that a trait is read on; None where there is none."""
    from demeanor.errors import ConversationError

    try:
        return conversation.messages[conversation.last("user" if entry.reads == "user" else "assistant")].content
    except ConversationError:
        return None
