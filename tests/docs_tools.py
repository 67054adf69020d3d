"""The blocks of the README and the docs: what each is, and running a page's from first to last.

Comments right above a block say what a reader need not see:

    <!-- not run here: why -->      what needs a network, another model, or minutes
    <!-- file: trait.yaml -->       the block is this file, for the blocks below it
    <!-- shows: demeanor demo -->   the block is part of what this command prints
    <!-- setup: ...python... -->    run before the block, in the page's folder: the names and files that the block takes for granted
    <!-- exits with 1 -->           what the block's commands end with, if that is not 0
    <!-- drawing -->                a figure in characters

Without one, a block is Python that runs, or commands that run and end with 0. All blocks of a page run in one folder, in order.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = ("", "bash", "console")
NOTES = ("not run here", "file", "shows", "setup")
COMMENT = re.compile(r"<!-- (.*?)\s*-->\n\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block, with what the comments above it say."""

    line: int
    language: str
    text: str
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block that do something; a line that ends with a backslash goes on."""
        joined = self.text.replace("\\\n", " ")
        lines = (line.removeprefix("$ ").strip() for line in joined.splitlines())
        return [line for line in lines if line and not line.startswith(("#", "source "))]


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = []
    for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        notes, above = {}, text[: fence.start()]
        while comment := COMMENT.search(above, max(above.rfind("<!-- "), 0)):
            name, said = comment[1], ""
            if told := re.fullmatch(r"([a-z ]+):\s(.*)", comment[1], re.DOTALL):
                name, said = told.groups()
            elif exits := re.fullmatch(r"(exits with) (\d+)", comment[1]):
                name, said = exits.groups()
            notes[name] = said
            above = above[: comment.start()]
        found.append(Block(text[: fence.start()].count("\n") + 1, fence[1], fence[2], notes))
    return found


def kind_of(block: Block) -> str:
    """What is done with a block. Raises ValueError for one of which nobody has said what it is."""
    unknown = set(block.notes) - {*NOTES, "exits with", "drawing"}
    if unknown:
        raise ValueError(f"line {block.line}: nothing is known of a comment {unknown.pop()!r}")
    if "drawing" in block.notes:
        return "drawing"
    for name in ("not run here", "file", "shows"):
        if name in block.notes:
            if not block.notes[name].strip():
                raise ValueError(f"line {block.line}: '{name}' says nothing")
            return name
    if block.language in ("python", "toml"):
        return block.language
    if block.language in SHELL and all(re.match(r"(demeanor|make) ", line + " ") for line in block.commands):
        return "shell"
    raise ValueError(f"line {block.line}: this block is neither Python nor commands of demeanor; say what it is in a comment above it")


def words_of(line: str) -> list[str]:
    """A command line as the shell takes it apart; a comment at its end is none of it."""
    return subprocess.check_output(["bash", "-c", f"printf '%s\\0' {line}"], text=True).split("\0")[:-1]


def run_page(page: Path, folder: Path, command: Callable[..., Any]) -> None:
    """Run a page's blocks in `folder`, which is the working folder. `command` runs `demeanor ARGS`, as the fixture does."""
    names: dict[str, Any] = {"folder": folder, "rows": _rows}
    for block in blocks_of(page.read_text(encoding="utf-8")):
        kind, where = kind_of(block), f"{page.name}, line {block.line}"
        if kind == "not run here":
            continue
        if "setup" in block.notes:
            exec(compile(block.notes["setup"], f"{where}, setup", "exec"), names)
        if kind == "file":
            (folder / block.notes["file"]).write_text(block.text, encoding="utf-8")
        elif kind == "python":
            exec(compile(block.text, where, "exec"), names)
        elif kind == "shows":
            _, *arguments = words_of(block.notes["shows"])
            shows(block.text, command(*arguments, cwd=folder).stdout, where)
        elif kind == "shell":
            for line in block.commands:
                if line.startswith("demeanor"):
                    done = command(*words_of(line)[1:], cwd=folder)
                    assert done.returncode == int(block.notes.get("exits with", 0)), (where, line, done.stderr)


def shows(text: str, printed: str, where: str) -> None:
    """Every line stands in what was printed, but for white space."""
    lines = {" ".join(line.split()) for line in printed.splitlines()}
    for line in text.splitlines():
        assert " ".join(line.split()) in lines, f"{where}: not printed: {line!r}"


def _rows(name: str, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
    """Write JSON lines, for setups."""
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
