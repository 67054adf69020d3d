"""The documentation site: which pages it has, and how a page of the repository becomes one of its own. `make docs` builds it."""

import re
import sys
import tomllib

import pytest
from docs_tools import PAGES, ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from make_site import FRONT, page, place


def entries(nav):
    """The pages that a nav leads to, at any depth."""
    for entry in nav:
        (below,) = entry.values()
        yield from [below] if isinstance(below, str) else entries(below)


def test_every_page_is_in_the_nav_once():
    nav = list(entries(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert sorted(nav) == sorted({*FRONT.values(), *(place(str(p.relative_to(ROOT))) for p in PAGES)})


def test_nothing_is_loaded_from_elsewhere():
    project = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert project["theme"]["font"] is False
    assert not {"extra_css", "extra_javascript"} & set(project)


@pytest.mark.parametrize(
    ("path", "written", "shown"),
    [
        ("README.md", "[a](docs/how-to/x.md#b)", "[a](how-to/x.md#b)"),
        ("README.md", "![a](docs/pictures/x.svg)", "![a](pictures/x.svg)"),
        ("README.md", "[a](examples/x.py)", "[a](examples/x.py)"),
        ("docs/monitor.md", "[a](../SECURITY.md) and [b](drift.md)", "[a](security.md) and [b](drift.md)"),
        ("docs/how-to/x.md", "[a](../../README.md), [b](../cli.md)", "[a](../index.md), [b](../cli.md)"),
        ("docs/a.md", "[a](https://example.org/b.md), [c](#d)", "[a](https://example.org/b.md), [c](#d)"),
    ],
)
def test_links_follow_their_files(path, written, shown):
    assert page(f"{written}\n", path) == f"{shown}\n"


def test_a_link_to_a_file_that_the_site_does_not_have_is_named():
    with pytest.raises(ValueError, match="no Makefile"):
        page("[a](Makefile)\n", "README.md")


def test_comments_go_and_what_a_block_shows_stays():
    text = "Words:\n\n<!-- setup:\nx = [a](b.md)\n-->\n```\ndemeanor demo\n```\n\n```\n<!-- file: shown -->\n[a](../no/such.md)\n```\n"
    assert page(text, "docs/a.md") == "Words:\n\n```\ndemeanor demo\n```\n\n```\n<!-- file: shown -->\n[a](../no/such.md)\n```\n"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Three things:\n- one\n  goes on\n- two\n", "Three things:\n\n- one\n  goes on\n- two\n"),
        ("Steps:\n1. one\n2. two\n", "Steps:\n\n1. one\n2. two\n"),
        ("Words\n\n- one\n- two\n", "Words\n\n- one\n- two\n"),
    ],
)
def test_a_list_gets_the_empty_line_that_the_site_needs(written, shown):
    assert page(written, "docs/a.md") == shown


def test_pages_use_only_markdown_that_the_repository_shows_too():
    for path in PAGES:
        prose = re.sub(r"^```.*?^```$|`[^`]*`", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert not re.search(r"^:   |^!!! |^\?\?\? |^=== ", prose, re.MULTILINE), path.name
