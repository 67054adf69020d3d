"""The forty conversations, and how the library reads each on the real model in float32: the one reading that every path must give."""

from __future__ import annotations

from typing import Any

import pytest
from contracts_tools import BUILT_IN, conversations

from demeanor import Scorer, VectorSet, load_model


@pytest.fixture(scope="session")
def talks() -> list[dict[str, Any]]:
    return conversations()


@pytest.fixture(scope="session")
def exact_scorer() -> Any:
    """The embedded model in float32, in which paths that pack or cut differently still agree to about six digits."""
    return Scorer(*load_model(dtype="float32"), VectorSet.load(BUILT_IN))


@pytest.fixture(scope="session")
def readings(exact_scorer: Any, talks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each conversation's reading by `Scorer.score`, as plain data, by name."""
    return {talk["name"]: exact_scorer.score({"messages": talk["messages"]}).to_record() for talk in talks}
