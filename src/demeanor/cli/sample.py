"""`demeanor sample`: a sheet of replies for a clinician to label next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Vectors
from demeanor.cli.inputs import (
    ContentColumn,
    ConversationColumn,
    Given,
    InputOption,
    MessagesColumn,
    MessagesPath,
    PromptColumn,
    Read,
    ResponseColumn,
    RoleColumn,
    Roles,
    columns_of,
    look,
    one_of,
    open_rows,
)
from demeanor.errors import DemeanorError

if TYPE_CHECKING:
    from demeanor.conversation import Conversation
    from demeanor.data.inputs import Input
    from demeanor.data.rows import Row


def to_label(given: Input) -> tuple[list[Row], list[Conversation], list[str]]:
    """The rows whose last reply can be read, their conversations, and what is wrong with the others."""
    rows, conversations, unread = [], [], []
    for row, found in given.read():
        try:
            if isinstance(found, str):
                unread.append(found)
                continue
            conversations.append(found.to_score())
            rows.append(row)
        except DemeanorError as error:
            unread.append(f"{row.where}: {error}")
    return rows, conversations, unread


def sample(
    trait: Annotated[str, typer.Option("--trait", "-t", help="The trait that will be labelled.")],
    source: Given = None,
    input_file: InputOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The sheet to fill in; a file that is there is left alone.")] = Path(
        "to-label.csv"
    ),
    n: Annotated[int, typer.Option("--n", min=1, help="How many replies.")] = 50,
    vectors: Vectors = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    messages_column: MessagesColumn = None,
    prompt_column: PromptColumn = None,
    response_column: ResponseColumn = None,
    messages_path: MessagesPath = None,
    conversation_column: ConversationColumn = None,
    role_column: RoleColumn = None,
    content_column: ContentColumn = None,
    read: Read = None,
    role: Roles = None,
) -> None:
    """Choose which replies to label next, and write them to a CSV sheet.

    They are spread over the score's range and over prompts, near-duplicates are left out, and the scores are not in
    the sheet, so that they do not sway the labels. Fill in 'label' (1 for the high pole, 0 for the low one, or a
    grade) and hand the sheet to `demeanor adapt --input`.

    Example: demeanor sample --trait crisis_recognition replies.jsonl --n 50
    """
    from demeanor.data.sheets import ToLabel, group_of, write_sheet
    from demeanor.errors import InputFileError, OutputError

    if output.exists():
        raise OutputError(f"{output} is there already and may hold somebody's labels; name another file with --output")
    spec = one_of(source, input_file)
    if spec is None:
        raise InputFileError("there are no replies; name a file of them: demeanor sample --trait NAME replies.jsonl")
    columns = columns_of(
        messages_column, prompt_column, response_column, messages_path, conversation_column, role_column, content_column, read, role
    )
    given = open_rows(spec, columns, output)
    look(given)
    rows, conversations, unread = to_label(given)
    scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
    on_user = scorer.vectors[trait].reads == "user"
    from demeanor.extraction.sampling import choose_to_label
    from demeanor.scoring import Reading

    scored, values, reason = [], [], next(iter(unread), "")
    with console.stages() as stage:
        step = stage("scoring", len(rows))
        for i, result in enumerate(scorer.score_many(conversations)):
            if isinstance(result, Reading) and trait in result.scores:
                scored.append(i)
                values.append(result[trait].z)
            else:
                error = "no user message to read" if isinstance(result, Reading) else result.error
                reason = reason or f"{rows[i].where}: {error}"
            step(1)
    if not scored:
        raise InputFileError(f"no row of {given.spec} could be scored, the first: {reason}")
    import numpy as np

    groups = [group_of(row.record, c) for row, c in zip(rows, conversations, strict=True)]
    texts = [conversations[i].messages[conversations[i].last("user" if on_user else "assistant")].content for i in scored]
    picks = choose_to_label(np.array(values), texts, [groups[i] for i in scored], n)
    chosen = [scored[pick] for pick in picks]
    write_sheet(output, [ToLabel(rows[i].name, conversations[i], groups[i]) for i in chosen])
    console.out.print(f"{len(picks)} replies to label in {output}: fill in 'label', then", soft_wrap=True)
    console.out.print(f"  demeanor adapt --trait {trait} --input {output} --output adapted", soft_wrap=True)
    if len(picks) < min(n, len(scored)):
        console.note(f"fewer than the {n} that were asked for: the other {len(scored) - len(picks)} are nearly the same as one of these")
    if left := len(rows) - len(scored) + len(unread):
        console.problem(f"{left} of {len(rows) + len(unread)} rows could not be scored and are not in the sheet, the first: {reason}")
        raise typer.Exit(3)
