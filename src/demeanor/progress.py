"""How long work tells what it is at: callables that whoever shows it passes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

Progress: TypeAlias = Callable[[int], None]
"""Told how many steps have just been done."""


class Stage(Protocol):
    """Begins a stage of the work."""

    def __call__(self, name: str, steps: int, done: int = 0) -> Progress:
        """Its name for people, how many steps it has, and how many of them were done before; gives what is told of the others."""


def unseen(name: str, steps: int, done: int = 0) -> Progress:
    """A stage that nobody watches."""
    return lambda done: None
