"""`demeanor score`: one text, standard input, or a file of conversations to readings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, OtherModel, OwnModel, Template, Vectors
from demeanor.cli.inputs import ROWS, ColumnOptions, look, open_rows, rows_to, takes_columns
from demeanor.errors import ConversationError, InputFileError

if TYPE_CHECKING:
    from demeanor.conversation import ConversationLike
    from demeanor.data.forms import Found
    from demeanor.data.inputs import Input
    from demeanor.data.rows import Row
    from demeanor.scoring import Scorer


@takes_columns
def score(
    text: Annotated[
        str | None,
        typer.Argument(
            help="'User: ...\\nAssistant: ...', or a reply on its own; or a file of rows, as --input takes. Default: a text on standard "
            "input.",
            metavar="[TEXT or FILE]",
        ),
    ] = None,
    input_file: Annotated[str | None, typer.Option("--input", "-i", help=f"{ROWS} See docs/inputs.md.")] = None,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write the rows, with the scores added under 'demeanor'. Default: standard output."),
    ] = None,
    vectors: Vectors = None,
    model: OwnModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    allow_other_model: OtherModel = False,
    template: Template = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    reasoning_hidden: Annotated[
        bool, typer.Option("--reasoning-hidden", help="Do not score reasoning in replies (<think>...</think>), because users never see it.")
    ] = False,
    *,
    columns: ColumnOptions,
) -> None:
    r"""Score the last reply of a conversation on every trait.

    A trait has a high pole (much of the behaviour) and a low pole (little of it). centred: above 0, the reply is nearer the high pole. z:
    the same in units of the trait's usual spread. P(high): the calibrated probability that the reply is at the high
    pole. side: whether that is safe. A row that cannot be scored comes back with its error, and the command exits with 3.

    Example: demeanor score conversations.csv --output scored.jsonl
    Example: demeanor score $'User: I am struggling.\nAssistant: Cheer up!'
    """
    if input_file is not None and text is not None:
        raise InputFileError("give either a text or --input, not both")
    spec = input_file if input_file is not None or text is None or not _names_rows(text) else text
    if spec is not None:
        rows = open_rows(spec, columns(), output_file)
        total = look(rows).rows
        scorer = console.load_scorer(vectors, model, device, dtype, allow_other_model, template)
        scorer.reasoning_hidden = reasoning_hidden
        _score_rows(rows, output_file, total, scorer)
        return
    if output_file is not None:
        raise InputFileError(
            "--output is only for files of rows; give one with --input, or leave --output out to print the scores of a text"
        )
    given = text.replace("\\n", "\n") if text is not None else _standard_input()
    from demeanor.conversation import as_conversation

    conversation = as_conversation(given)
    chosen = console.vector_set(vectors, model)
    if any(entry.reads == "response" for entry in chosen.traits.values()):
        conversation.last("assistant")
    scorer = console.load_scorer(chosen, model, device, dtype, allow_other_model, template)
    scorer.reasoning_hidden = reasoning_hidden
    reading = scorer.score(conversation)
    if as_json:
        typer.echo(json.dumps(reading.to_record(), indent=1))
        return
    from demeanor.cli.tables import reading_table
    from demeanor.scoring import Reading

    console.out.print(reading_table(reading, scorer.vectors))
    if reading.windows > 1:
        console.note(f"longer than the model can read at once, so it was read in {reading.windows} overlapping parts")
    for sign in reading.signs:
        console.note(f"{sign.what}: {sign.sentence}")
    if reading.caution:
        console.note(f"caution: {reading.caution}")
    if reading.apart is not None:
        console.note(f"{reading.apart.characters} characters of reasoning were left out of these scores")
        if isinstance(reading.apart.read, Reading):
            console.out.print(reading_table(reading.apart.read, scorer.vectors))


def _standard_input() -> str:
    if sys.stdin.isatty():
        console.note("reading the conversation from the terminal; end with Ctrl-D")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConversationError(f"standard input is not UTF-8 text (byte {error.start})") from error


def _names_rows(text: str) -> bool:
    """Whether a text is no conversation but says where rows are."""
    from demeanor.data.sources import names_rows

    return text == "-" or names_rows(text)


def _score_rows(given: Input, target: Path | None, total: int, scorer: Scorer) -> None:
    """Score every row, in order; a bad row keeps its place with its error."""
    from demeanor.data.rows import to_line
    from demeanor.scoring import NotScored

    done = failed = cautions = 0
    where = "standard output" if target is None else str(target)
    with console.stages() as stage, rows_to(target) as file:
        step = stage("scoring", total)
        first, second = tee(_to_score(given))
        for (row, _, error), result in zip(first, scorer.score_many(conversation for _, conversation, _ in second), strict=True):
            added = result.to_record()
            cautions += "caution" in added
            if isinstance(result, NotScored):
                failed += 1
                reason = error or f"{row.where}: {result.error}"
                added = {"error": reason}
                if failed == 1:
                    console.note(f"first row not scored: {reason}")
            file.write(to_line({**row.record, "demeanor": added}))
            done += 1
            step(1)
        console.check_count(given.spec, total, done)
    console.note(f"{total - failed} of {total} rows scored into {where}")
    if cautions:
        from demeanor.language import counted

        console.note(counted(cautions, total, scorer.vectors.languages))
    if failed:
        console.problem(f"{failed} of {total} rows could not be scored; each holds its 'error' in {where}")
        raise typer.Exit(3)


def _to_score(given: Input) -> Iterator[tuple[Row, ConversationLike, str | None]]:
    """Each row with what of it is to be scored; one that cannot be has nothing to score, and says why."""
    for row, found in given.read():
        error, conversation = _scorable(row, found)
        yield row, conversation, error


def _scorable(row: Row, found: Found | str) -> tuple[str | None, ConversationLike]:
    if isinstance(found, str):
        return found, {}
    try:
        return None, found.to_score()
    except ConversationError as error:
        return f"{row.where}: {error}", {}
