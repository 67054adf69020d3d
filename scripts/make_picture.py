"""Draw the README's picture of a terminal, docs/pictures/demo.svg, from what `demeanor demo` prints.

It shows the beginning of the demo's second part and two of its four traits. tests/test_docs.py compares its words with a fresh run.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "demo.svg"
WIDTH = 100
FIRST, SHOWN, LAST = "2. New replies, scored", ("Crisis recognition", "Sycophancy and harmful validation"), "3. A trait of your own"

COLOURS = TerminalTheme((24, 26, 30), (255, 255, 255), [(24, 26, 30), (255, 122, 117), (140, 204, 96), *[(200, 200, 200)] * 5])
"""Background, text and the terminal's black, red and green, so that dim words keep a contrast of 4.5 to 1 or more."""


def printed() -> list[Text]:
    """The lines that the demo prints, with their colours."""
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-c", "import sys; sys.argv[1:] = ['demo']; from demeanor.cli.main import main; main()"]
        done = subprocess.run(call, cwd=folder, env={**os.environ, **terminal}, capture_output=True, text=True, check=True)
    return list(Text.from_ansi(done.stdout).split("\n"))


def chosen(lines: list[Text]) -> list[Text]:
    """The lines of the picture: the part's heading with its explanation, then the traits that are shown."""
    words = [line.plain.strip() for line in lines]
    first, last = (next(i for i, said in enumerate(words) if said.startswith(heading)) for heading in (FIRST, LAST))
    blocks: list[list[Text]] = [[]]
    for line, said in zip(lines[first:last], words[first:last], strict=True):
        if said:
            blocks[-1].append(line)
        else:
            blocks.append([])
    kept = [blocks[0], *(block for block in blocks if block and block[0].plain.strip() in SHOWN)]
    return [line for block in kept for line in (*block, Text(""))][:-1]


def drawn(lines: list[Text]) -> str:
    """The picture as SVG, which loads no font from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        line.rstrip()
        console.print(line, no_wrap=True, crop=True)
    svg = console.export_svg(title="demeanor demo", unique_id="demo", theme=COLOURS)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("\xa0", " ") + "\n"


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(chosen(printed())), encoding="utf-8")
