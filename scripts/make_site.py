"""Build the documentation site into build/site.

The pages are written to be read in the repository, and the site shows the same files. They are copied to build/pages first:
README.md is the site's first page, links between files of the repository follow their files, comments that tell the tests what a block is
are left out, and a list gets the empty line before it that the site's Markdown needs. The build stops on any warning, such as a link or
an anchor that leads nowhere.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "build" / "pages"
FRONT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "deployment.md",
}
"""Files beside the folder docs, and what they are called on the site."""

FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
LIST = re.compile(r"^(?![ \t]|[-*] |\d+\. |\n|#|\|)(.+)\n(?=(?:[-*]|1\.) )", re.MULTILINE)


def place(path: str) -> str:
    """Where a file of the repository is on the site. Raises ValueError for one that is not there."""
    if path in FRONT:
        return FRONT[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("examples/"):
        return path
    raise ValueError(f"the site has no {path}; link to a file in docs or examples, or add it to FRONT in scripts/make_site.py")


def page(text: str, path: str) -> str:
    """The text of a page as the site takes it; `path` is its place in the repository."""

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if re.match(r"[a-z]+:", target):
            return found[0]
        there = place(os.path.normpath(os.path.join(os.path.dirname(path), target)))
        return f"]({os.path.relpath(there, os.path.dirname(place(path)) or '.')}{anchor})"

    def prose(said: str) -> str:
        return LIST.sub(r"\1\n\n", LINK.sub(link, said))

    parts, end = [], 0
    text = _without_comments(text)
    for fence in FENCED.finditer(text):
        parts += [prose(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, prose(text[end:])])


def _without_comments(text: str) -> str:
    """Comments that begin a line outside of blocks; a block may show one, and a comment may hold a block's marks."""
    return re.sub(r"(^```.*?^```$)|^<!-- .*?-->\n", lambda found: found[1] or "", text, flags=re.DOTALL | re.MULTILINE)


def copy_pages() -> None:
    """Write the pages and what they show and link to into build/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for name in [*FRONT, *(str(p.relative_to(ROOT)) for folder in ("docs", "examples") for p in sorted((ROOT / folder).rglob("*")))]:
        source, target = ROOT / name, PAGES / place(name)
        if source.is_dir() or "__pycache__" in name or "checkpoint" in name:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(page(source.read_text(encoding="utf-8"), name), encoding="utf-8")
        else:
            shutil.copyfile(source, target)


def main() -> int:
    """Copy the pages and build the site; gives the exit code."""
    copy_pages()
    return subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
