"""Every block of the docs is run, page by page, in one process with the embedded model loaded once: `make docs`.

Not part of `make test`, as its name does not begin with test_: minutes, and another process than the tests'. What the comments above
blocks mean is told in docs_tools.py.
"""

import pytest
from docs_tools import PAGES, blocks_of, kind_of, run_page

ELSEWHERE = ("README.md", "cli.md")  # test_docs.py runs the one, and compares the other with what the commands say
RUN = [
    page
    for page in PAGES
    if page.name not in ELSEWHERE and any(kind_of(block) in ("python", "shell", "shows") for block in blocks_of(page.read_text()))
]


@pytest.mark.model
@pytest.mark.usefixtures("loaded_once")
@pytest.mark.parametrize("page", RUN, ids=lambda p: p.name)
def test_the_page_runs(page, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path, command)
