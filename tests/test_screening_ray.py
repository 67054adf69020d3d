"""The Ray engine: the same bytes as in one process, also where an actor dies in the middle of it. Slow to start, so few tests."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import screening_tools
from screening_tools import digests, rows, vectors_for, write

from demeanor.errors import MissingExtraError, ModelError
from demeanor.screening import LocalEngine, Options, screen
from demeanor.screening.ray_engine import LoadScorer, RayEngine

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's sockets and log files
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
OPTIONS = Options(shard_rows=4, threads=1, explained=3)


@dataclass(frozen=True)
class LoadOneThatDies(LoadScorer):
    """Loads a scorer whose process is killed while it scores its second shard; only the first such process is."""

    mark: Path = Path()

    def __call__(self):
        scorer = super().__call__()
        real, calls = scorer.score_many, []

        def score_many(conversations):
            calls.append(1)
            if len(calls) == 2:
                try:
                    self.mark.touch(exist_ok=False)
                except FileExistsError:
                    return real(conversations)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(conversations)

        scorer.score_many = score_many
        return scorer


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    """A tiny model in a folder, its vectors, and a file of rows."""
    ray = pytest.importorskip("ray")
    for module in (screening_tools, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    folder = tmp_path_factory.mktemp("saved")
    model, tokenizer = request.getfixturevalue("make_model")("llama"), request.getfixturevalue("tokenizer")
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write(folder / "rows.jsonl", [*rows(22), "{broken"])
    return folder, vectors_for(model, tokenizer)


@pytest.mark.slow
def test_an_actor_that_is_killed_changes_no_byte(saved, tmp_path):
    folder, vectors = saved
    model = str(folder / "model")
    screen(folder / "rows.jsonl", tmp_path / "local", vectors, LocalEngine(LoadScorer(vectors, model, "cpu", "float32")), OPTIONS)
    mark = tmp_path / "killed"
    engine = RayEngine(LoadOneThatDies(vectors, model, "cpu", "float32", mark=mark), actors=2)
    made = screen(folder / "rows.jsonl", tmp_path / "ray", vectors, engine, OPTIONS)
    assert mark.exists()
    assert made.failed == 1
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


def test_without_ray_the_install_line_is_given(monkeypatch):
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'demeanor\[ray\]'"):
        RayEngine(lambda: None)


def test_no_actors_are_refused():
    pytest.importorskip("ray")
    with pytest.raises(ModelError, match="at least 1"):
        RayEngine(lambda: None, actors=0)
