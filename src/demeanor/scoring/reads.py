"""The seam to a model: what scoring asks of it. `ActivationReader` gives it, and so may another engine, or a fake in a test.

A reader turns conversations into token ids, says where each message stands among them, and gives raw scores of spans of ids. What
becomes of raw scores needs no model: see gauge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from demeanor.conversation import Conversation
from demeanor.errors import ActivationError, ChatTemplateError, sound
from demeanor.model.chat import Encoded
from demeanor.model.directions import Directions
from demeanor.model.growing import Budget
from demeanor.model.identity import ModelIdentity
from demeanor.model.packing import Job

Array = NDArray[np.float64]
CALL = 1024  # tokens that a reader without shared passes is given at once


class Reads(Protocol):
    """What is needed of a model to score with it."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is; a vector set is bound to one."""

    def encode(self, conversations: Sequence[Conversation]) -> Sequence[Encoded | ChatTemplateError]:
        """Each conversation as token ids, with the place of each message, or why the chat template refuses it."""

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Tokens as text that joins to the whole."""

    def windows(self, length: int) -> int:
        """How many overlapping windows so many tokens are read in; 1 where they fit the model's context."""

    def project(
        self, jobs: Sequence[Job], directions: Directions, progress: Callable[[int], None] | None = None
    ) -> Sequence[Array | ActivationError]:
        """Raw scores of each job's spans [spans, traits], or why it could not be read; a job is ids and (start, end) spans of them."""


class Growing(Protocol):
    """A conversation that is read again and again as it grows."""

    @property
    def tokens_run(self) -> int:
        """How many tokens have passed through the model in all calls."""

    def read(self, ids: Sequence[int], since: int = 0) -> Array:
        """Raw scores of the tokens from `since` on [tokens, traits]. Raises ActivationError."""

    @property
    def bytes_kept(self) -> int:
        """What is kept of the conversation now."""

    def first_read(self, length: int, since: int) -> int:
        """The first token whose scores cost nothing more where those from `since` on are read."""

    def keep(self, n: int) -> None:
        """Keep nothing of the tokens from the n-th on; the next call reads them anew."""


@runtime_checkable
class ReadsGrowing(Protocol):
    """A reader that keeps what it has read of a conversation, so that each token is run once."""

    def growing(self, directions: Directions, budget: Budget | None = None) -> Growing:
        """One conversation's reading; `budget` bounds what all of them keep together."""


class Waiting(Protocol):
    """Tokens that are to be read in one pass."""

    @property
    def new(self) -> int:
        """How many of them must run."""

    @property
    def known(self) -> NDArray[Any]:
        """The raw scores of all [tokens, traits], where none must run."""


class SideBySide(Protocol):
    """What reads the tokens of several conversations in one pass, and may keep what it has read."""

    @property
    def used(self) -> int:
        """Bytes that are kept now."""

    def bounds(self, length: int) -> Sequence[tuple[int, int, int]]:
        """The windows that so many tokens are read in: where each begins, from where on it reads, where it ends."""

    def row(self, ids: list[int], anew: int | None = None) -> Any:
        """What is to be read of a window (see Waiting); tokens from number `anew` on run in any case. Raises DemeanorError."""

    def choose(self, rows: Sequence[Any]) -> list[int]:
        """Which of these rows the next pass takes, by their places: the first in any case."""

    def read(self, rows: Sequence[Any]) -> Sequence[NDArray[Any] | Exception]:
        """Raw scores of each row's tokens [tokens, traits], or why there are none."""


@runtime_checkable
class ReadsSideBySide(Protocol):
    """A reader that reads several conversations in one pass, each going on from what is kept of its beginning."""

    def together(self, directions: Directions, limit: int | None = None) -> SideBySide:
        """What does that, and keeps at most so many bytes."""


class ReadAnew:
    """A growing conversation on a reader that keeps nothing: each call reads the whole."""

    def __init__(self, reader: Reads, directions: Directions) -> None:
        self.reader, self.directions = reader, directions
        self.tokens_run = self.bytes_kept = 0

    def read(self, ids: Sequence[int], since: int = 0) -> Array:
        """Raw scores of the tokens from `since` on [tokens, traits]. Raises ActivationError."""
        self.tokens_run += len(ids)
        (found,) = self.reader.project([Job(list(ids), [(i, i + 1) for i in range(since, len(ids))])], self.directions)
        return sound(found)

    def first_read(self, length: int, since: int) -> int:
        """All tokens are run anyway."""
        return 0

    def keep(self, n: int) -> None:
        """Nothing is kept."""


def growing(reader: Reads, directions: Directions, budget: Budget | None = None) -> Growing:
    """One conversation's reading as it grows, each token run once where the reader can keep what it has read."""
    return reader.growing(directions, budget) if isinstance(reader, ReadsGrowing) else ReadAnew(reader, directions)


class Whole(NamedTuple):
    """A conversation's tokens, all of them to be run."""

    ids: list[int]

    @property
    def new(self) -> int:
        """All."""
        return len(self.ids)

    @property
    def known(self) -> Array:
        """Nothing."""
        return np.zeros((0, 0))


class EachWhole:
    """Several conversations on a reader that keeps nothing: it gets them in one call, and how they run together is its own affair."""

    used = 0

    def __init__(self, reader: Reads, directions: Directions) -> None:
        self.reader, self.directions = reader, directions

    def bounds(self, length: int) -> list[tuple[int, int, int]]:
        """The reader has windows of its own."""
        return [(0, 0, length)]

    def row(self, ids: list[int], anew: int | None = None) -> Whole:
        """All of it is run."""
        return Whole(ids)

    def choose(self, rows: Sequence[Whole]) -> list[int]:
        """The first ones, so many that a call does not take long."""
        tokens = np.cumsum([row.new for row in rows])
        return [i for i in range(len(rows)) if i == 0 or tokens[i] <= CALL]

    def read(self, rows: Sequence[Whole]) -> list[Array | Exception]:
        """Raw scores of each row's tokens [tokens, traits], or why there are none."""
        return list(self.reader.project([Job(row.ids, [(i, i + 1) for i in range(row.new)]) for row in rows], self.directions))


def side_by_side(reader: Reads, directions: Directions, limit: int | None = None) -> SideBySide:
    """Several conversations' reading, in shared passes where the reader has them."""
    return reader.together(directions, limit) if isinstance(reader, ReadsSideBySide) else EachWhole(reader, directions)
