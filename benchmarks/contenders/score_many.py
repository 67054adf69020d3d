"""Demeanor's `Scorer.score_many`: five traits, seven layers, from messages to calibrated readings."""

try:
    from common import LAYER, serve  # type: ignore[import-not-found]
except ImportError:  # imported by the benchmark rather than run
    from contenders.common import LAYER, serve
from demeanor import ActivationReader, NotScored, Scorer, VectorSet, load_model


def prepare(folder, dtype):
    loaded = load_model(dtype=dtype)
    reader = ActivationReader(*loaded)
    return Scorer(reader, VectorSet.load(folder)), reader


def measure(state, rows):
    scorer, _ = state
    assert not any(isinstance(r, NotScored) for r in scorer.score_many(row["messages"] for row in rows))


def values(state, rows, pooling):
    return state[1].read([row["messages"] for row in rows], [LAYER], pooling=pooling)[:, 0].tolist()


if __name__ == "__main__":
    serve(prepare, measure)
