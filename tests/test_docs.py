"""The README and the docs: what they show runs, what they name exists. What their blocks do is tried by run_docs.py (`make docs`)."""

import importlib
import re
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path

import pytest
import yaml
from docs_tools import PAGES, ROOT, Block, blocks_of, kind_of, run_page, shows
from typer.testing import CliRunner

import demeanor
from demeanor import VectorSet
from demeanor.cli.main import app
from demeanor.monitor.policy import load_policy
from demeanor.traits import load as load_trait
from demeanor.vectors import built_in

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = {target for line in re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE) for target in line.split()}
MARKERS = {marker.partition(":")[0] for marker in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
PACKAGE = Path(demeanor.__file__).parent
ROOMS = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__"}


@pytest.mark.model
@pytest.mark.usefixtures("loaded_once", "smaller_packs")
def test_the_readme_s_python_runs(capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(snippet, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert float(printed.rsplit("score", 1)[1]) > 0  # the reply shown is on the empathetic side


@pytest.mark.model
@pytest.mark.usefixtures("loaded_once")
def test_the_readme_s_commands_work_as_pasted_in_the_demo_s_folder(command):
    demo = command("demo")
    assert demo.returncode == 0
    for block in blocks_of((ROOT / "README.md").read_text()):
        if block.notes.get("shows") == "demeanor demo":
            shows(block.text, demo.stdout, "README.md")
    picture = (ROOT / "docs" / "pictures" / "demo.svg").read_text()
    assert [line for line in lines_drawn(picture) if line not in "".join(demo.stdout.split())] == []  # else: python scripts/make_picture.py
    (text,) = (b.text for b in blocks_of((ROOT / "README.md").read_text()) if "activate" in b.text)
    lines = text.splitlines()
    assert lines[0] == "source .venv/bin/activate"
    for line in lines[1:]:
        name, *arguments = subprocess.check_output(["bash", "-c", f"printf '%s\\0' {line}"], text=True).split("\0")[:-1]
        assert name == "demeanor", line
        done = command(*arguments)
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout or "--output" in line, line


def lines_drawn(svg):
    """The words of each line of a terminal that rich has drawn, without white space."""
    drawn: dict[str, str] = {}
    for line, text in re.findall(r'clip-path="url\(#demo-line-(\d+)\)">(.*?)</text>', svg):
        drawn[line] = drawn.get(line, "") + "".join(unescape(text).split())
    return [text for text in drawn.values() if text]


def test_the_picture_holds_lines_and_loads_nothing():
    picture = (ROOT / "docs" / "pictures" / "demo.svg").read_text()
    assert len(lines_drawn(picture)) > 15
    assert "@font-face" not in picture
    assert "href" not in picture


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_that_are_shown_exist(page):
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    for line in re.findall(r"^(?:\$ )?demeanor (.+)$", page.read_text().replace("\\\n", " "), re.MULTILINE):
        words = line.split()
        below = {"traits", "models", "audit", "cache", "vectors", "sources", "policy", "keys", "review"} | (
            {"steer"} if len(words) > 1 and re.fullmatch("[a-z]+", words[1]) else set()
        )
        command = words[: 3 if words[:2] == ["review", "users"] else 2] if words[0] in below else words[:1]
        shown = runner.invoke(app, [*command, "--help"])
        assert shown.exit_code == 0, line
        for option in re.findall(r"--[a-z-]+", line):
            assert option in shown.output, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_is_something_that_can_be_checked(page):
    for block in blocks_of(page.read_text()):
        kind = kind_of(block)
        if kind == "python":
            compile(block.text, page.name, "exec")
        if kind == "toml":
            tomllib.loads(block.text)
        if kind == "file" and block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict)
        if "setup" in block.notes:
            compile(block.notes["setup"], page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_comment_for_the_tests_stands_apart_from_its_block(page):
    text = page.read_text()
    assert len(notes_in(text)) == sum(len(block.notes) for block in blocks_of(text))


def notes_in(text):
    """The comments of a page that say what a block is, wherever they stand; what a block itself shows is none."""
    outside = re.sub(
        r"^```.*?^```$",
        "",
        re.sub(r"^<!-- setup:.*?^-->$", "<!-- setup -->", text, flags=re.DOTALL | re.MULTILINE),
        flags=re.DOTALL | re.MULTILINE,
    )
    return re.findall(r"^<!-- (?:setup|file|shows|not run here|exits with|drawing)\b", outside, re.MULTILINE)


SHOWN = [
    (page.name, block) for page in PAGES for block in blocks_of(page.read_text()) if kind_of(block) == "file" and block.language == "yaml"
]


@pytest.mark.parametrize(("page", "block"), SHOWN, ids=lambda said: said if isinstance(said, str) else said.notes["file"])
def test_packs_policies_and_workflows_that_are_shown_are_what_they_say(page, block, tmp_path):
    path = tmp_path / block.notes["file"]
    path.write_text(block.text)
    if "jobs" in yaml.safe_load(block.text):  # its commands are those that the page runs
        steps = [step["run"] for job in yaml.safe_load(block.text)["jobs"].values() for step in job["steps"] if "run" in step]
        (text,) = (page_.read_text() for page_ in PAGES if page_.name == page)
        run = [line for other in blocks_of(text) if kind_of(other) == "shell" for line in other.commands]
        assert {step for step in steps if step.startswith("demeanor")} - {"demeanor models pull"} <= set(run)
    elif "rules" in yaml.safe_load(block.text):
        assert load_policy(path).resolve(VectorSet.load(built_in.FOLDER)).rules
    else:
        assert load_trait(path).pairs


def test_the_generated_page_is_what_the_commands_say():
    done = subprocess.run([sys.executable, ROOT / "scripts" / "make_docs.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def targets_named(text):
    """The targets that a text tells to make, in a block or between backticks."""
    blocks = [line for block in blocks_of(text) for line in block.text.splitlines() if line.startswith("make ")]
    return {word for said in [*blocks, *re.findall(r"`(make [^`]+)`", text)] for word in said.split()[1:2] if "=" not in word}


def markers_named(text):
    """The pytest markers that a text names."""
    selected = re.findall(r"""-m ["']([^"']+)["']""", text)
    words = {word for said in selected for word in re.findall(r"\w+", said)} - {"not", "and", "or"}
    return words | set(re.findall(r"marked `(\w+)`", text)) | set(re.findall(r"pytest\.mark\.(\w+)", text))


PROSE = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run", ROOT / ".pre-commit-config.yaml"]


@pytest.mark.parametrize("page", PROSE, ids=lambda p: p.name)
def test_make_targets_and_markers_that_are_named_exist(page):
    text = page.read_text()
    lines = re.findall(r"^make (\S+)", text, re.MULTILINE) if page.name == "run" else []
    assert targets_named(text) | set(lines) <= TARGETS
    assert markers_named(text) <= MARKERS


def test_targets_are_one_word_each_and_all_of_them_are_there():
    assert set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE)) == TARGETS


def resolved(dotted):
    """What a dotted name below demeanor stands for. Raises AttributeError or ModuleNotFoundError."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["demeanor", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            fields = getattr(found, "__dataclass_fields__", {}) | getattr(found, "model_fields", {})
            found = fields[part] if part in fields else getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


def named_in_code(text):
    """The dotted names between backticks that begin with a room or a module of the package."""
    return [
        name for name in re.findall(r"`((?:demeanor\.)?[a-z_]+(?:\.\w+)+)`", text) if name.removeprefix("demeanor.").split(".")[0] in ROOMS
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_function_and_module_that_is_named_exists(page):
    for name in named_in_code(page.read_text()):
        if not re.search(r"\.(py|md|yaml|jsonl?|db|html)$", name):
            resolved(name.removeprefix("demeanor."))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_of_the_repository_that_are_named_exist(page):
    """All but those in a table's column of what used to be."""
    text = "\n".join(
        line.split("|")[1] + line.split("|")[-2] if line.startswith("|") and "design" in page.name else line
        for line in page.read_text().splitlines()
    )
    for name in re.findall(r"`(?:python )?((?:src|tests|benchmarks|examples|scripts|docs|demeanor)/[\w./-]+)", text):
        assert any((above / name).exists() for above in (ROOT, ROOT / "src")), name
    for name in re.findall(r"`(test_\w+)(?:\.py)?`", text):
        assert (ROOT / "tests" / f"{name}.py").exists(), name


def test_the_design_names_every_room_and_the_order_of_imports():
    text = (ROOT / "docs" / "design.md").read_text()
    table = text.partition("## The rooms")[2].partition("**Imports point")[0]
    rows = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`(\w+)`", rows)) == ROOMS
    (layers,) = (c["layers"] for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    (drawn,) = (b.text.splitlines() for b in blocks_of(text) if b.text.startswith("cli |"))
    assert drawn == [layer.replace("demeanor.", "") for layer in layers]


def test_the_conversation_that_is_followed_names_a_function_for_each_step():
    text = (ROOT / "docs" / "design.md").read_text()
    told = text.partition("## One conversation through the rooms")[2].partition("\n## ")[0]
    steps = [line for line in told.splitlines() if line.startswith("|") and "---" not in line and "| function |" not in line]
    assert len(steps) > 20
    assert all(named_in_code(step) for step in steps)


def test_the_citation_says_what_the_package_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(cited)
    assert cited["version"] == demeanor.__version__
    assert cited["license"] == PROJECT["project"]["license"]
    assert all({"type", "title", "authors", "year", "url"} <= set(reference) for reference in cited["references"])
    # a comma that is not quoted makes a key of what follows it
    assert all(set(found) == {"type", "value", "description"} for r in cited["references"] for found in r["identifiers"])
    assert all(set(author) == {"family-names", "given-names"} for r in cited["references"] for author in r["authors"])


def test_hooks_before_a_commit_run_what_is_there():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = {package.split("==")[0] for package in (ROOT / "constraints.txt").read_text().splitlines()}
    for hook in local["hooks"]:
        program, *arguments = hook["entry"].split()
        script = arguments[0] if program.endswith("python") else None
        assert (ROOT / script).is_file() if script else {"ruff": "ruff", "lint-imports": "import-linter"}[Path(program).name] in tools


# --- the tools themselves


def test_blocks_are_found_with_what_the_comments_above_them_say():
    page = """Text.
<!-- not run here: too long -->
```bash
demeanor chat
```

<!-- setup:
x = 1
-->
<!-- exits with 3 -->
```
$ demeanor score \\
    --json  # a comment
# nothing
```
<!-- far away -->

```python
y = 2
```
"""
    one, two, three = blocks_of(page)
    assert (kind_of(one), one.notes, one.line) == ("not run here", {"not run here": "too long"}, 3)
    assert (kind_of(two), two.notes) == ("shell", {"setup": "x = 1", "exits with": "3"})
    assert [line.split("#")[0].split() for line in two.commands] == [["demeanor", "score", "--json"]]
    assert (kind_of(three), three.notes) == ("python", {})


@pytest.mark.parametrize(
    "block",
    [
        Block(1, "", "pip install demeanor\n"),
        Block(1, "yaml", "a: 1\n"),
        Block(1, "text", "trait  z\n"),
        Block(1, "bash", "demeanor demo\nrm -r x\n"),
        Block(1, "bash", "pip install demeanor\n", {"not run": "no network"}),
        Block(1, "bash", "pip install demeanor\n", {"not run here": " "}),
    ],
    ids=lambda block: block.text.split()[0] + str(block.notes),
)
def test_a_block_of_which_nobody_says_what_it_is_fails(block):
    with pytest.raises(ValueError, match="line 1"):
        kind_of(block)


def test_a_page_is_run_from_its_top_in_one_folder(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    good = """<!-- file: a.txt -->
```yaml
a: 1
```
<!-- setup:
word = "x"
-->
```python
from pathlib import Path
assert Path("a.txt").read_text() == "a: 1\\n"
assert word == "x"
```
```python
other = word * 2
```
<!-- shows: demeanor traits list -->
```text
%s
```
<!-- exits with 2 -->
```
demeanor traits show nobody
```
"""
    line = command("traits", "list").stdout.splitlines()[1]
    page.write_text(good % line)
    run_page(page, tmp_path, command)
    for broken in (
        good % "something else",
        good.replace("exits with 2", "exits with 0") % line,
        good.replace("word * 2", "worse * 2") % line,
    ):
        page.write_text(broken)
        with pytest.raises((AssertionError, NameError)):
            run_page(page, tmp_path, command)


def test_the_end_of_a_file_is_mended_and_nothing_else(tmp_path):
    script = ROOT / "scripts" / "end_of_file.py"
    good, bad, page = tmp_path / "a.py", tmp_path / "b.py", tmp_path / "c.md"
    good.write_text("x = 1\n\ny = 2\n")
    bad.write_text("x = 1  \n\n\n")
    page.write_text("a line  \nbroken")
    done = subprocess.run([sys.executable, script, good, bad, page], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"mended: {bad}, {page}\n"
    assert [f.read_text() for f in (good, bad, page)] == ["x = 1\n\ny = 2\n", "x = 1\n", "a line  \nbroken\n"]
    assert subprocess.run([sys.executable, script, good, bad, page], check=False).returncode == 0


def test_what_is_not_there_is_noticed():
    assert targets_named("`make tidy` and\n```\nmake quick\n```\n, make sure; `make PYTHON=python3.11`") == {"tidy", "quick"}
    assert len(notes_in("<!-- setup:\nx = 1\n-->\nSome words.\n```\nmake quick\n```\n```\n<!-- file: shown.txt -->\n```\n")) == 1
    assert markers_named("marked `huge`, pytest -m 'not gpu and slow'") == {"huge", "gpu", "slow"}
    assert named_in_code("`scoring.scorer.Scorer.score`, `other.thing`, `demeanor.measure.cuts`") == [
        "scoring.scorer.Scorer.score",
        "demeanor.measure.cuts",
    ]
    for gone in ("scoring.thresholds.reached", "measure.cuts.Cut.gone", "monitor.audit"):
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            resolved(gone)
