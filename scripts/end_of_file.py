"""Mend the ends of texts: one line break at the end of a file, no white space at the end of a line.

    python scripts/end_of_file.py FILE ...     exits with 1 if a file was changed

Markdown files keep the ends of their lines, as two spaces there are a line break.
"""

import sys
from pathlib import Path


def mended(text: str, keep_lines: bool = False) -> str:
    """The text with its ends in order; an empty one stays empty."""
    lines = text.split("\n") if keep_lines else [line.rstrip() for line in text.split("\n")]
    body = "\n".join(lines).rstrip("\n")
    return f"{body}\n" if body else ""


def main() -> None:
    """Mend the files that are named."""
    changed = []
    for path in map(Path, sys.argv[1:]):
        text = path.read_text(encoding="utf-8")
        if (better := mended(text, path.suffix == ".md")) != text:
            path.write_text(better, encoding="utf-8")
            changed.append(str(path))
    if changed:
        sys.exit(f"mended: {', '.join(changed)}")


if __name__ == "__main__":
    main()
