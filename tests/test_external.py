"""External validity: what a vector is said to be worth on other people's labels, on data where the truth is planted."""

import io
import json

import numpy as np
import pytest
import torch
from docs_tools import ROOT
from monitor_tools import FINE, HARMFUL, PLAIN, planted
from rich.console import Console

from demeanor.cli import console
from demeanor.cli.external import COLUMNS, results_table
from demeanor.conversation import Message
from demeanor.data import public_sources
from demeanor.data.converters import SourceRow
from demeanor.data.public_sources import PublicSource
from demeanor.errors import ExtractionError
from demeanor.extraction.external import External, as_replies, drawn, external_validity
from demeanor.monitor import policy as policies
from demeanor.vectors import PersonaVector

HIDDEN = 16


def source(name="made_up", labels="binary", trait="harm", **more):
    given = {"title": "t", "upstream": "github:nobody/nothing", "revision": "0" * 40, "licence": "CC0-1.0", "use": "train",
             "labelled_by": "nobody", "converter": "none", "why_none": "made up"}  # fmt: skip
    high = {} if trait is None else {"high": "harm"}
    return PublicSource.model_validate({"name": name, "labels": labels, "trait": trait, **given, **high, **more})


def rows_of(labels, texts=None, groups=None):
    texts = texts or [f"reply number {i}" for i in range(len(labels))]
    groups = groups or [str(i) for i in range(len(labels))]
    said = [(Message("user", "hm"), Message("assistant", text)) for text in texts]
    return [SourceRow(str(i), m, float(v), g) for i, (m, v, g) in enumerate(zip(said, labels, groups, strict=True))]


def along(values, axis=0, noise=1.0, seed=0):
    """Activations [rows, 1, hidden] with `values` along one axis, and noise elsewhere."""
    x = np.random.default_rng(seed).normal(0, noise, (len(values), 1, HIDDEN)).astype(np.float32)
    x[:, 0, axis] += values
    return x


def vector(axis=0):
    direction = torch.zeros(HIDDEN)
    direction[axis] = 1.0
    return PersonaVector("harm", direction, 0, 1.0, {"layers": [0]})


def test_a_vector_along_the_truth_is_worth_much_and_another_nothing():
    labels = [i % 2 for i in range(120)]
    x, replies = along(np.array(labels) * 4.0), as_replies(rows_of(labels))
    found = external_validity(source(), vector(0), x, replies)
    assert found.auroc > 0.98
    assert found.low < found.auroc < found.high or found.high == pytest.approx(found.auroc, abs=0.02)
    other = external_validity(source(), vector(1), x, replies)
    assert 0.35 < other.auroc < 0.65
    assert other.ceiling == found.ceiling > 0.95  # what the activations hold, whatever the vector
    assert found.spearman is None
    assert (found.rows, found.groups) == (120, 120)


def test_what_belongs_together_is_never_on_both_sides():
    # each group has a place of its own in the activations and words of its own, and its rows one label: nothing carries over to others
    groups = [i // 6 for i in range(120)]
    labels = [g % 2 for g in groups]
    rng = np.random.default_rng(1)
    places = rng.normal(0, 3, (20, HIDDEN))
    x = (places[groups] + rng.normal(0, 0.1, (120, HIDDEN)))[:, None].astype(np.float32)
    texts = [f"word{g} thing{g} {i}" for i, g in enumerate(groups)]
    found = external_validity(source(), vector(), x, as_replies(rows_of(labels, texts, [str(g) for g in groups])))
    assert found.groups == 20
    assert found.ceiling < 0.8  # 1.0 if rows of a group were on both sides
    assert found.words < 0.8
    assert found.high - found.low > 0.2  # twenty groups, not 120 rows


def test_words_and_length_are_found_where_they_tell_the_labels():
    labels = [i % 2 for i in range(80)]
    texts = [("kind and warm words " * 2 if label else "cold words ") + f"number{i}" for i, label in enumerate(labels)]
    found = external_validity(source(), vector(1), along(np.array(labels) * 4.0), as_replies(rows_of(labels, texts)))
    assert found.words > 0.95
    assert found.length > 0.95
    assert found.loses_to_length


def test_length_that_leans_the_other_way_counts_as_well():
    labels = [i % 2 for i in range(80)]
    texts = [("one" if label else "one two three four") for label in labels]
    found = external_validity(source(), vector(1), along(np.array(labels) * 4.0), as_replies(rows_of(labels, texts)))
    assert found.length < 0.05
    assert found.loses_to_length
    good = external_validity(
        source(), vector(0), along(np.array(labels) * 4.0), as_replies(rows_of(labels, [f"same {i}" for i in range(80)]))
    )
    assert good.length == 0.5
    assert not good.loses_to_length


def test_of_grades_the_median_parts_high_from_low_and_all_of_them_are_ranked():
    grades = [1 + (i % 5) for i in range(100)]
    found = external_validity(source(labels="graded"), vector(0), along(np.array(grades) * 2.0, noise=0.1), as_replies(rows_of(grades)))
    assert found.spearman == pytest.approx(1.0, abs=0.05)
    assert found.auroc == pytest.approx(1.0, abs=0.01)
    turned = external_validity(source(labels="graded"), vector(0), along(-np.array(grades) * 2.0, noise=0.1), as_replies(rows_of(grades)))
    assert turned.spearman < -0.9


def test_labels_of_one_kind_are_refused():
    with pytest.raises(ExtractionError, match="all labels are the same"):
        as_replies(rows_of([1, 1, 1]))


def test_few_rows_leave_words_and_ceiling_out_instead_of_guessing():
    found = external_validity(source(), vector(0), along(np.array([0, 1, 0, 1, 1]) * 4.0), as_replies(rows_of([0, 0, 0, 0, 1])))
    assert found.words is None
    assert found.ceiling is None


def test_of_a_large_set_the_same_rows_are_drawn_each_time():
    rows = rows_of([i % 2 for i in range(50)])
    some = drawn(rows, 20)
    assert len(some) == 20
    assert some == drawn(rows, 20)
    assert some == [row for row in rows if row in some]  # in the set's order
    assert some != rows[:20]
    assert drawn(rows) == rows
    assert {r.id for r in drawn([*rows, rows[0]._replace(id="new")], 20)} - {"new"} <= {r.id for r in some}  # a new row moves no other


@pytest.fixture
def planted_sets(monkeypatch, tmp_path, tokenizer):
    """Three sets in a folder, on the traits of the planted model, and ordinary talk; gives the folder."""
    import conftest

    known = [
        source("harm_here"),
        source("long_is_harm"),
        source("elsewhere", trait="another"),
        source("talk", "ordinary", None),
        source("gone"),
    ]
    monkeypatch.setattr(public_sources, "catalogue", lambda: {s.name: s for s in known})
    scorer = planted(conftest._build, tokenizer)
    monkeypatch.setattr(console, "load_scorer", lambda *options, **named: scorer)
    monkeypatch.setenv("DEMEANOR_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "sets"
    folder.mkdir()

    def write(name, replies):
        lines = [{"context": [{"role": "user", "content": f"hm {i}"}], "response": r, "label": v} for i, (r, v) in enumerate(replies)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    write("harm_here", [(HARMFUL, 1), (PLAIN, 0), (HARMFUL + " Now go on and do it.", 1), (PLAIN, 0)] * 4)
    write("long_is_harm", [(PLAIN + " Yes, I do." * i, int(i > 4)) for i in range(10)])
    write("elsewhere", [(PLAIN, 0), (HARMFUL, 1)])
    write("talk", [(FINE, 0)] * 9 + [(HARMFUL, 0)])
    return folder


def test_the_command_prints_and_writes_what_the_vectors_are_worth(planted_sets, command, tmp_path):
    done = command("validate", "--sources", "all", "--from", planted_sets, "--output", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    assert "not on this machine, and left out: gone" in done.stderr
    assert "left out: elsewhere" in done.stderr
    assert "No better than the reply's length on: long_is_harm" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    first, second = found["sources"]
    assert first["source"] == "harm_here"
    assert first["auroc"] == 1.0
    assert not first["loses_to_length"]
    assert second["loses_to_length"]
    assert found["ordinary"] == {}  # the default policy is about other traits, and it is said
    assert "ordinary conversations are left out" in done.stderr


@pytest.mark.parametrize("width", [72, 80, 100])
def test_no_number_is_cut_in_a_narrow_terminal(width):
    found = [External("a_very_long_name_of_a_set_that_does_not_fit", "harm", 332, 235, 0.594, 0.52, 0.66, -0.12, 0.55, 0.77, 0.85)]
    shown = io.StringIO()
    Console(file=shown, width=width).print(results_table(found))
    for number in ("332", "235", "0.59", "0.52 to 0.66", "0.55", "0.77", "0.85", "-0.12"):
        assert number in shown.getvalue()
    assert "a_very" in shown.getvalue()


def test_ordinary_talk_is_judged_by_the_default_policy(planted_sets, command, tmp_path, monkeypatch):
    rules = tmp_path / "policy.yaml"
    rules.write_text("""version: t
rules:
- {name: harmful, trait: harm, threshold: {z: 2.0}, severity: red, action: substitute, situation: harmful_plan}
- {name: odd, trait: harm, threshold: {z: 0.5}, severity: yellow, action: flag}
""")
    monkeypatch.setattr(policies, "DEFAULT_POLICY", rules)
    done = command("validate", "--sources", "talk,harm_here", "--from", planted_sets, "--output", tmp_path / "found.md")
    assert done.returncode == 0, done.stderr
    assert "talk: of 10 ordinary replies the default policy withholds 10.0%, and withholds or flags 10.0%" in done.stdout
    page = (tmp_path / "found.md").read_text()
    assert page.startswith("| source | trait |")
    assert "| harm_here | harm | 16 | 16 | 1.00 |" in page
    assert "| talk | 10 | 10.0% |" in page


def test_a_set_that_is_named_and_is_not_here_stops_the_command(planted_sets, command):
    done = command("validate", "--sources", "gone,harm_here", "--from", planted_sets)
    assert done.returncode == 2
    assert "demeanor sources pull gone" in done.stderr
    done = command("validate", "--sources", "harm_here", "--from", planted_sets / "harm_here.jsonl")
    assert "is no folder" in done.stderr


@pytest.mark.parametrize(
    "options", [["--sources", "all", "--json"], ["--sources", "all", "--traits", "x"], ["--output", "x.json"], ["--from", "x"]]
)
def test_options_that_do_not_go_together_are_refused(command, options):
    done = command("validate", *options)
    assert done.returncode == 2
    assert "--sources" in done.stderr


def test_the_page_holds_what_the_command_writes_of_every_set():
    page = (ROOT / "docs" / "external.md").read_text(encoding="utf-8")
    made = page.split("<!-- by: demeanor validate --sources all --output external.md -->")[1].split("<!-- end -->")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.strip().splitlines()]
    assert tuple(lines[0]) == COLUMNS
    for known in public_sources.catalogue().values():
        (line,) = [line for line in lines if line[0] == known.name]
        if known.trait:
            assert line[1] == known.trait
            assert (line[-1] != "") == (known.labels == "graded")
