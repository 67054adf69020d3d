"""How what reads and what answers in a comparison is loaded, and looked at before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from demeanor.model.chat import ChatEncoder
    from demeanor.model.reader import ActivationReader
    from demeanor.scoring.scorer import Scorer


def load_observer(folder: Path | None) -> Scorer:
    """The scorer of a vector set, by default of the built-in one."""
    from demeanor.scoring.scorer import Scorer

    return Scorer.load(folder)


def load_model(name: str) -> ActivationReader:
    """A model that is to answer."""
    from demeanor.model.loading import load_model as load
    from demeanor.model.reader import ActivationReader
    from demeanor.model.talking import with_template

    return ActivationReader(*with_template(load(name)))


def look_at(name: str) -> ChatEncoder | None:
    """What can be said of a model that is to answer before its weights are loaded: that it is there, and how it is talked to."""
    from demeanor.model.talking import encoder_of

    return encoder_of(name)


class Loading(NamedTuple):
    """How what reads and what answers is loaded."""

    observer: Callable[[Path | None], Scorer] = load_observer
    model: Callable[[str], ActivationReader] = load_model
    look: Callable[[str], ChatEncoder | None] | None = None
    """Looks at a model that is to answer, before any does: it raises for one that could not, and gives how conversations are written."""


STANDARD = Loading(look=look_at)
