"""The report of an extraction: one file that needs no network, and in which nobody's text becomes markup."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from artifacts import entry, measured, vector_set
from jinja2 import UndefinedError

from demeanor import Extraction, Score, TokenScores
from demeanor.errors import OutputError
from demeanor.reports.page import Pages
from demeanor.reports.vectors import ShownReply, write_report

HOSTILE = "<script>alert('x')</script>"
LOADS = {"src", "href", "srcset", "data", "poster", "action"}


class Page(HTMLParser):
    """Collects what a page would load, its scripts, its styles and its visible text."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.inside, self.scripts, self.styles, self.text = [], "", [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.loads += [value for name, value in attrs if name in LOADS]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        {"script": self.scripts, "style": self.styles}.get(self.inside, self.text).append(data)


def extraction(*entries):
    vectors = vector_set(*entries)
    names = list(vectors.traits)
    table = {a: {b: 0.93 if a == b else 0.51 for b in names} for a in names}
    return Extraction(vectors, table, table)


def report(folder, made, examples=()):
    path = folder / "report.html"
    write_report(made, path, examples)
    assert [p.name for p in folder.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The report of two traits, one of them hostile, with a hostile example."""
    hostile = entry("candour", measured(beats=False), seed=1, title=HOSTILE, high_pole=HOSTILE, low_pole="a < b & c")
    tokens = TokenScores([HOSTILE, " fine"], {"candour": np.array([2.0, -1.0])})
    example = ShownReply("candour", HOSTILE, HOSTILE, Score(1.0, 0.5, 0.25, 0.6), tokens)
    return report(tmp_path_factory.mktemp("report"), extraction(entry("warmth", measured()), hostile), [example])


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_loads_nothing(page):
    assert page.loads
    assert all(link.startswith("#") for link in page.loads)  # to its own parts
    assert page.scripts
    assert not [style for style in page.styles if "@import" in style or re.search(r"url\(\s*['\"]?(https?:)?//", style)]


def test_nobodys_text_becomes_markup(html, page):
    assert HOSTILE not in html
    text = "".join(page.text)
    assert text.count(HOSTILE) == 5  # title, kind and prompt of the example, its first token, and the high pole
    assert "a < b & c" in text


def test_each_trait_and_verdict_is_there(page):
    text = "".join(page.text)
    for name, metrics in (("warmth", measured()), ("candour", measured(beats=False))):
        assert f"{name}: {metrics['verdict']}" in text
    assert "Worst register: plain (0.90); worst family: grief (0.66)." in text
    assert "no diagnosis" in text
    assert "f" * 24 in text


def test_whether_a_vector_is_to_be_trusted_is_seen_in_its_colour(html):
    assert re.search(r'<th scope="row">warmth</th>\s*<td class="number safe">0.90</td>', html)
    assert re.search(r'<th scope="row">candour</th>\s*<td class="number unsafe">0.90</td>', html)


def test_a_trait_without_held_out_pairs_is_not_measured(tmp_path):
    text = "".join(Page(report(tmp_path, extraction(entry("warmth", measured()), entry("candour", seed=1)))).text)
    assert re.search(r"candour\s*no held-out pairs: not measured", text)
    assert "candour:" not in text


def test_a_report_where_nothing_was_measured(tmp_path):
    text = "".join(Page(report(tmp_path, extraction(entry("warmth")))).text)
    assert "no held-out pairs: not measured" in text


def test_the_same_report_is_the_same_bytes(tmp_path):
    made = extraction(entry("candour", measured(beats=True), seed=1))
    for name in ("a", "b"):
        write_report(made, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_report_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"):
        write_report(extraction(entry()), tmp_path / "file" / "report.html")


def rendered(text, **content):
    return Pages().from_string(text).render(**content)


@pytest.mark.parametrize("name", ["clear", "copy", "keys", "pop", "update", "values", "items", "get", "setdefault", "fromkeys"])
def test_a_dictionarys_own_key_comes_before_its_method(name):
    assert rendered("{{ s.NAME }}".replace("NAME", name), s={name: "held"}) == "held"
    assert rendered("{{ 'yes' if s.NAME else 'no' }}".replace("NAME", name), s={name: False}) == "no"


@pytest.mark.parametrize(
    "text", ["{{ s.clear }}", "{% if s.copy %}{% endif %}", "{{ nobody }}", "{{ s.missing }}", "{{ s.values() }}", "{{ s.a.b }}"]
)
def test_a_name_that_is_not_there_is_an_error(text):
    with pytest.raises(UndefinedError):
        rendered(text, s={"a": {}})


def test_what_templates_ask_of_a_dictionary_is_a_key_or_one_of_two_methods():
    assert rendered("{% for k, v in s.items() %}{{ k }}{{ v }}{% endfor %}{{ s.get('b', 'none') }}", s={"a": 1}) == "a1none"
    assert rendered("{{ 'there' if s.a is defined else 'not' }}", s={}) == "not"
