"""Write what in the docs is generated: docs/cli.md, the help of every command.

python scripts/make_docs.py            writes it
python scripts/make_docs.py --check    exits with 1 if it is not what would be written
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.testing import CliRunner

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
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


def page() -> str:
    """The page's text."""
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


def main() -> None:
    """Write the page, or compare."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{os.path.relpath(PAGE)} is not what the commands say now; write it anew: python scripts/make_docs.py")


if __name__ == "__main__":
    main()
