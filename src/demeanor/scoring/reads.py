"""The seam to a model: what scoring asks of it. `ActivationReader` gives it, and so may another engine, or a fake in a test.

A reader turns conversations into token ids, says where each message stands among them, and gives raw scores of spans of ids. What
becomes of raw scores needs no model: see gauge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

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
