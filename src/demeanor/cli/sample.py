"""`demeanor sample`: a sheet of replies for a clinician to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Vectors


def sample(
    trait: Annotated[str, typer.Option("--trait", "-t", help="The trait that will be labelled.")],
    input_file: Annotated[Path, typer.Option("--input", "-i", help="Unlabelled replies: rows as for `score`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The sheet to fill in; a file that is there is left alone.")] = Path(
        "to-label.csv"
    ),
    n: Annotated[int, typer.Option("--n", min=1, help="How many replies.")] = 50,
    vectors: Vectors = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Choose which replies to label next, and write them to a CSV sheet.

    They are spread over the score's range and over prompts, near-duplicates are left out, and the scores are not in
    the sheet, so that they do not sway the labels. Fill in 'label' (1 for the high pole, 0 for the low one, or a
    grade) and hand the sheet to `demeanor adapt --input`.

    Example: demeanor sample --trait crisis_recognition --input replies.jsonl --n 50
    """
    from demeanor.data.sheets import ToLabel, conversation_of, group_of, rows_of, write_sheet
    from demeanor.errors import InputFileError, OutputError

    if output.exists():
        raise OutputError(f"{output} is there already and may hold somebody's labels; name another file with --output")
    rows = rows_of(input_file)
    if not rows:
        raise InputFileError(f"{input_file} holds no rows")
    conversations = [conversation_of(input_file, row) for row in rows]
    scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
    on_user = scorer.vectors[trait].reads == "user"
    from demeanor.extraction.sampling import choose_to_label
    from demeanor.scoring import Reading

    scored, values, reason = [], [], ""
    with console.stages() as stage:
        step = stage("scoring", len(rows))
        for i, result in enumerate(scorer.score_many(conversations)):
            if isinstance(result, Reading) and trait in result.scores:
                scored.append(i)
                values.append(result[trait].z)
            else:
                error = "no user message to read" if isinstance(result, Reading) else result.error
                reason = reason or f"line {rows[i].number}: {error}"
            step(1)
    if not scored:
        raise InputFileError(f"no row of {input_file} could be scored, the first: {reason}")
    import numpy as np

    groups = [group_of(row.record, c) for row, c in zip(rows, conversations, strict=True)]
    read = [conversations[i].messages[conversations[i].last("user" if on_user else "assistant")].content for i in scored]
    picks = choose_to_label(np.array(values), read, [groups[i] for i in scored], n)
    chosen = [scored[pick] for pick in picks]
    write_sheet(output, [ToLabel(rows[i].name, conversations[i], groups[i]) for i in chosen])
    console.out.print(f"{len(picks)} replies to label in {output}: fill in 'label', then", soft_wrap=True)
    console.out.print(f"  demeanor adapt --trait {trait} --input {output} --output adapted", soft_wrap=True)
    if len(picks) < min(n, len(scored)):
        console.note(f"fewer than the {n} that were asked for: the other {len(scored) - len(picks)} are nearly the same as one of these")
    if left := len(rows) - len(scored):
        console.problem(f"{left} of {len(rows)} rows could not be scored and are not in the sheet, the first: {reason}")
        raise typer.Exit(3)
