"""Write what in the docs is generated.

docs/cli.md, the help of every command; docs/inputs.md, the forms that the tests read; docs/reference/python.md, which public names the
site shows with their docstrings.

python scripts/make_docs.py            writes it
python scripts/make_docs.py --check    exits with 1 if it is not what would be written
"""

import gzip
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
INTRODUCTION = """\
# The command line

Every command with its `--help`. This page is generated (`python scripts/make_docs.py`); edit the commands in `src/demeanor/cli`.

Exit codes: 0, done. 1, a check failed. 2, a mistake in what was asked, or the work could not be done. 3, done, but some rows could
not be scored. 130, interrupted. 141, nobody read the output to its end.
"""


def commands(group: typer.core.TyperGroup, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, each group before what is below it."""
    yield above
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name)


INPUTS = """\
# What goes in

`score`, `monitor`, `screen`, `compare`, `sample`, `adapt`, `calibrate` and `validate` read conversations in any of the forms below; nothing
has to be converted. A file is given as an argument or with `--input`; `-` is standard input. `score` and `monitor` write rows to standard
output unless `--output` names a file. This page is generated from the tests (`python scripts/make_docs.py`); every example is read by
`tests/test_inputs.py`, and goes through each of these commands in `tests/test_every_form.py`.

## Files

JSON lines, a JSON array, a JSON object that holds one, CSV and Parquet; each kind of text also gzipped (`.gz`). A folder is read file by
file, if all are of one kind. `owner/name`, `owner/name:split` and `owner/name@config:split` are data sets on the Hugging Face hub, which
need `pip install 'demeanor[datasets]'`. Commas, semicolons, tabs and bars between the fields of a CSV are told apart by its first line.
UTF-8 is read with or without a BOM; UTF-16, and CSV in Windows-1252, are recognised, read, and named in the summary. An Excel workbook is
not read; save the sheet as CSV UTF-8.

JSON lines, UTF-8 CSV and Parquet are read bit by bit, whatever their size. Everything else is held in memory while it is read.

Rows are numbered from 1: the lines of a text file, else the rows of the document, or the conversations that were put together.

## Labels

`adapt`, `calibrate` and `validate` take several inputs, each row with a `label` ([labelling with a sheet](labelling.md)); `rater` and
`group` are read too. A CSV is read as a spreadsheet saves it, its rows numbered as the spreadsheet numbers them. The CSV files of a
folder are the sheets of several raters unless they name one; files of another kind in a folder are parts of one set. If the rows are one
utterance each, the label of a conversation may stand in any of its rows; two different ones are an error.

## Prompts

`compare --prompts` and `steer calibrate --prompts` take rows with `prompt`, or with `messages` that end with what the user says. Of a
conversation in another form, all before the last reply is asked. `compare` takes a data set of the hub for replies only with its split
(`owner/name:train`), as `owner/name` is a model.

## Which form

The form is told by the shape of each row, and the summary names it: "read as ShareGPT, 120 conversations". If the columns have
other names, say so:

| option | what it names |
|---|---|
| `--messages-column` | the column of a list of messages |
| `--prompt-column`, `--response-column` | the columns of what was asked and answered |
| `--messages-path request.messages` | where nested records hold the messages; digits count in a list |
| `--conversation-column`, `--role-column`, `--content-column` | of rows that are one utterance each |
| `--read chosen` | which of two replies in a row is read: `chosen` or `rejected`, `a` or `b`; without it such rows are refused |
| `--role Maria=user` | who a speaker is: `user`, `assistant`, `system` or `tool`; repeat it |

Mistakes are found before a model is loaded, and the line says what was seen: the columns there are, or what a file looks like.

## Who speaks

These names are read as roles, whatever their case, and the summary says so. Any other name is an error that shows `--role`.

{aliases}

## Turns without text

A turn that holds no text (a tool call, an image alone, a null) is left out of what the model reads, so it changes nothing about the
other turns; the summary counts it. What a tool says is left out too. Only what depends on such a turn is not scored:

- a conversation whose last reply holds no text: there is no reply to score;
- a reply to a message of the user's that holds no text: nobody knows what it answers. `monitor` judges the other replies.

If a message holds text beside an image, the text is read.

## Every form

"From" says where the shape is described. "unverified": no description was found, and the shape is what we have seen.
"""


def inputs() -> str:
    """The text of docs/inputs.md."""
    sys.path.insert(0, str(ROOT / "tests"))
    from input_forms import FORMS

    from demeanor.data.said import ALIASES

    table = ["| role | names |", "|---|---|", *(f"| {role} | {', '.join(sorted((role, *names)))} |" for role, names in ALIASES.items())]
    parts = [INPUTS.replace("{aliases}", "\n".join(table))]
    for form in FORMS:
        options = f" Options: `{' '.join(form.options)}`." if form.options else ""
        how = f"; {form.how}" if form.how else ""
        unscored = f" Not scored: conversation {', '.join(str(i + 1) for i in form.not_scored)}." if form.not_scored else ""
        said = "\n".join(
            f"{i}. " + " · ".join(f"{role}: {' '.join(text.split())}" for role, text in talk) for i, talk in enumerate(form.meant, 1)
        )
        parts.append(
            f"### {form.name[0].upper()}{form.name[1:]}\n\nRead as {form.read_as}{how}. From: {form.upstream}.{options}{unscored}\n\n"
            f"<!-- not run here: {form.file}, an example of the form -->\n```text\n{example(form)}\n```\n\n{said}\n"
        )
    return "\n".join(parts)


def example(form: Any) -> str:
    """The beginning of a file, as text."""
    content: bytes = gzip.decompress(form.content) if form.file.endswith(".gz") else form.content
    if form.file.endswith(".parquet"):
        rows = pq.read_table(io.BytesIO(content)).to_pylist()
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    encoding = "utf-16" if content.startswith(b"\xff\xfe") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("cp1252")
    shown = [line.rstrip().replace("\t", "<tab>") for line in text.strip().splitlines()]
    return "\n".join(shown if len(shown) <= LONGEST else [*shown[: LONGEST - 1], "..."])


LONGEST = 40  # lines of an example

REFERENCE = """\
# The Python reference

Every public name with its signature and its docstring. The site takes them from the code when it is built; in the repository this page
lists only the names, and [the Python API](../api.md) says in a line what each is for. Import them from `demeanor`. This page is generated
(`python scripts/make_docs.py`).
"""
MODULES = {"traits": ("load", "load_many", "names"), "errors": ()}
"""Public names that are modules, and which of their functions are shown; none: all of them."""


def reference() -> str:
    """The text of docs/reference/python.md: a directive of mkdocstrings for each public name."""
    from demeanor import PUBLIC

    parts = [REFERENCE]
    for use, names in PUBLIC.items():
        parts.append(f"## {use}\n")
        for name, home in names.items():
            if name == "ALL_TRAITS":
                parts.append("### ALL_TRAITS\n\nThe four traits of the persona-vectors tutorial, as a list of `TraitDefinition`.\n")
                continue
            members = MODULES.get(name)
            options = f"    options:\n      members: [{', '.join(members)}]\n" if members else ""
            parts.append(f"::: {home}.{name}\n{options}")
    return "\n".join(parts)


def page() -> str:
    """The text of docs/cli.md."""
    from demeanor.cli.main import app

    runner = CliRunner(env={"COLUMNS": "110", "TERM": "dumb", "NO_COLOR": "1"})
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    parts = [INTRODUCTION]
    for words in commands(root):
        shown = runner.invoke(app, [*words, "--help"], prog_name="demeanor")
        assert shown.exit_code == 0, shown.output
        text = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown.output).strip().splitlines())
        name = " ".join(("demeanor", *words))
        parts.append(f"## {name}\n\n<!-- shows: {name} --help -->\n```text\n{text}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the pages, or compare; gives the exit code."""
    for path, text in {DOCS / "cli.md": page(), DOCS / "inputs.md": inputs(), DOCS / "reference" / "python.md": reference()}.items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            told = f"{os.path.relpath(path)} is not what the commands and the tests say now"
            print(f"{told}; write it anew: python scripts/make_docs.py", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the usual way out was once seen to be aborted by a thread of pyarrow's
