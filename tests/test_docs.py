"""The README and the docs: what they show runs, what they name exists."""

import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from demeanor.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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
    assert command("demo").returncode == 0
    (block,) = (b for b in re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if "activate" in b)
    lines = block.splitlines()
    assert lines[0] == "source .venv/bin/activate"
    for line in lines[1:]:
        name, *arguments = subprocess.check_output(["bash", "-c", f"printf '%s\\0' {line}"], text=True).split("\0")[:-1]
        assert name == "demeanor", line
        done = command(*arguments)
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout or "--output" in line, line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_options_that_are_shown_exist(page):
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
    for line in re.findall(r"^(?:\$ )?demeanor (.+)$", page.read_text(), re.MULTILINE):
        words = line.split()
        below = {"traits", "models", "audit", "cache"} | ({"steer"} if len(words) > 1 and re.fullmatch("[a-z]+", words[1]) else set())
        command = words[:2] if words[0] in below else words[:1]
        shown = runner.invoke(app, [*command, "--help"])
        assert shown.exit_code == 0, line
        for option in re.findall(r"--[a-z-]+", line):
            assert option in shown.output, line
