"""`demeanor score`: one text, standard input, or a file of conversations to readings."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, OtherModel, OwnModel, Template, Vectors
from demeanor.errors import ConversationError, InputFileError

if TYPE_CHECKING:
    from demeanor.data.rows import Row
    from demeanor.scoring import Scorer


def score(
    text: Annotated[
        str | None, typer.Argument(help="'User: ...\\nAssistant: ...', or a reply on its own. Default: standard input.")
    ] = None,
    input_file: Annotated[
        Path | None, typer.Option("--input", "-i", help="JSON lines (.gz too): 'messages', or 'prompt' and 'response', or 'text'.")
    ] = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the rows go, each whole, with 'demeanor' added.")
    ] = None,
    vectors: Vectors = None,
    model: OwnModel = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reading as JSON.")] = False,
    allow_other_model: OtherModel = False,
    template: Template = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    reasoning_hidden: Annotated[
        bool, typer.Option("--reasoning-hidden", help="Users never see reasoning in replies (<think>...</think>): leave it unread.")
    ] = False,
) -> None:
    r"""Score the last reply of a conversation on every trait.

    centred: above 0 is more of the trait. z: the same in units of the usual spread. P(high): calibrated chance of the
    high pole. A line that cannot be scored comes back with its error, and the command then exits with 3.

    Example: demeanor score $'User: I am struggling.\nAssistant: Cheer up!'
    """
    if (input_file is None) != (output_file is None):
        raise InputFileError("--input and --output go together; give both, or a text")
    if input_file is not None and output_file is not None:
        if text is not None:
            raise InputFileError("give either a text or --input, not both")
        total = console.count_rows(input_file, output_file)
        scorer = console.load_scorer(vectors, model, device, dtype, allow_other_model, template)
        scorer.reasoning_hidden = reasoning_hidden
        _score_file(input_file, output_file, total, scorer)
        return
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
        console.note(f"longer than the model's context: read in {reading.windows} overlapping windows")
    for sign in reading.signs:
        console.note(f"{sign.what}: {sign.sentence}")
    if reading.caution:
        console.note(f"caution: {reading.caution}")
    if reading.apart is not None:
        console.note(f"set apart from the reply, and in none of these scores: {reading.apart.characters} characters of reasoning")
        if isinstance(reading.apart.read, Reading):
            console.out.print(reading_table(reading.apart.read, scorer.vectors))


def _standard_input() -> str:
    if sys.stdin.isatty():
        console.note("reading the conversation from the terminal; end with Ctrl-D")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConversationError(f"standard input is not UTF-8 text (byte {error.start})") from error


def _score_file(source: Path, target: Path, total: int, scorer: Scorer) -> None:
    """Score every row of `source` into `target`, in order; a bad row keeps its place with its error."""
    from demeanor.data.rows import read_rows, to_line, writing
    from demeanor.scoring import NotScored

    done = failed = cautions = 0
    with console.stages() as stage, writing(target) as file:
        step = stage("scoring", total)
        rows, to_score = _twice(read_rows(source))
        for row, result in zip(rows, scorer.score_many(to_score), strict=True):
            added = result.to_record()
            cautions += "caution" in added
            if isinstance(result, NotScored):
                failed += 1
                reason = row.error or f"line {row.number}: {result.error}"
                added = {"error": reason}
                if failed == 1:
                    console.note(f"first row not scored: {reason}")
            file.write(to_line({**row.record, "demeanor": added}))
            done += 1
            step(1)
        console.check_count(source, total, done)
    console.note(f"{total - failed} of {total} rows scored into {target}")
    if cautions:
        from demeanor.language import counted

        console.note(counted(cautions, total, scorer.vectors.languages))
    if failed:
        console.problem(f"{failed} of {total} rows could not be scored; each holds its 'error' in {target}")
        raise typer.Exit(3)


def _twice(rows: Iterator[Row]) -> tuple[Iterator[Row], Iterator[dict[str, object]]]:
    """The rows, and what of each is to be scored; a row that could not be read has nothing to score, and says so."""
    import itertools

    first, second = itertools.tee(rows)
    return first, (row.record for row in second)
