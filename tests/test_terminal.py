"""Texts of strangers in a terminal: they are shown, and order nothing."""

import io

import pytest
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from demeanor.cli.terminal import TextConsole, shown

ORDERS = [
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x1b]8;;http://evil.example\x1b\\\\link",
    "a\rb",
    "a\x08b",
    "\x9b31m",
    "\x7f",
    "\x00",
    "\u202ecod",
]


def printed(*things, **options):
    file = io.StringIO()
    TextConsole(file=file, width=200, **options).print(*things)
    return file.getvalue()


@pytest.mark.parametrize("text", ORDERS)
def test_no_order_in_a_text_reaches_the_terminal(text):
    for thing in (escape(text), Text(text), table(text)):
        assert not set("\x1b\x07\x08\x7f\x9b\x00\r\u202e") & set(printed(thing))


@pytest.mark.parametrize("text", ORDERS)
def test_the_consoles_own_colours_are_kept(text):
    out = printed(Text.assemble((text, "bold red"), " after"), force_terminal=True, color_system="standard")
    assert "\x1b[1;31m" in out
    assert out.replace("\x1b[1;31m", "").replace("\x1b[0m", "").count("\x1b") == 0


def table(text):
    made = Table()
    made.add_column(text)
    made.add_row(text)
    return made


def test_what_is_no_order_is_shown_as_it_is():
    text = "caf\u00e9 \u65e5\u672c \U0001f600\tand\nlines"
    assert shown(text) == text
    assert shown("a\x1bb") == "a\u241bb"


def test_commands_print_through_it(capsys, monkeypatch):
    from demeanor.cli import console

    for stream in (console.out, console.err):
        assert isinstance(stream, TextConsole)
    console.problem("a pack is named \x1b[2J")
    console.note("so is a reply \x1b[2J")
    assert "\x1b" not in "".join(capsys.readouterr())
