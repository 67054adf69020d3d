"""What one session has the engine read: the reply and, with it, what else is not read yet.

Nothing is read ahead, so that no session waits for the messages of one that has gone: the pass over a reply runs over what the user
said before it anyway, and gives the readings of the messages that a condition looks at. The first pass of a conversation that began
before gives the scores of its earlier replies too, as far as they stand in the part that it runs; drift then goes on from them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from demeanor.conversation import Conversation, Message
from demeanor.errors import ConversationError
from demeanor.measure.drift import DriftWatch
from demeanor.monitor.listener import Listener
from demeanor.monitor.worker import Deadline, reason
from demeanor.scoring.engine import Shared
from demeanor.scoring.live import ConversationScorer, Heard, LiveReading
from demeanor.scoring.reading import NotScored, Reading


class Passes:
    """What reads for one session. Without a scorer nothing is read, and `problem` says why.

    `earlier` names the replies that were there before, by place, each with its number among the replies.
    """

    def __init__(
        self,
        scorer: ConversationScorer | None,
        shared: Shared | None,
        problem: str,
        listener: Listener,
        drift: DriftWatch | None,
        earlier: dict[int, int],
    ) -> None:
        self.scorer, self.shared, self.problem = scorer, shared, problem
        self.listener, self.drift = listener, drift
        self._earlier = earlier if drift is not None else {}

    @property
    def asked(self) -> tuple[int, ...]:
        """Places of all messages that are still to be read."""
        return (*self.listener.unread, *self._earlier)

    def read(
        self, before: Sequence[Message], reply: str, deadline: Deadline, anew: bool = False
    ) -> tuple[LiveReading | NotScored, dict[str, float]]:
        """A reply from elsewhere, read within the deadline, and the milliseconds by stage; `anew` also where it was read before."""
        scorer, shared = self.scorer, self.shared
        if scorer is None or shared is None:
            return NotScored(self.problem), {}
        unread, earlier = self.listener.unread, list(self._earlier)
        shared.deadline, asked = deadline, time.perf_counter()
        found: LiveReading | NotScored
        try:
            try:
                found = scorer.read(Conversation((*before, Message("assistant", reply))), unread, earlier, anew)
                heard = found.others
            except ConversationError as error:  # there is nothing to read in the reply; a disclosure before it still counts
                found, heard = NotScored(str(error)), scorer.listen(before, unread)
        except TimeoutError:
            return NotScored(f"no score within the deadline of {deadline.seconds:g} s"), {}
        except Exception as error:  # whatever it is, the reply is not scored, and the policy says what follows
            return NotScored(reason(error)), {}
        finally:
            shared.deadline = None
        self.hear(heard)
        waited, took = 1000 * shared.waited, 1000 * (time.perf_counter() - asked)
        return found, {"queue": waited, "score": took - waited}

    def hear(self, heard: Heard) -> None:
        """Take in what a pass has read beside the reply."""
        self.listener.take({place: found for place, found in heard.items() if place not in self._earlier})
        scores = {n: z_of(heard[place]) for place, n in self._earlier.items() if place in heard}
        if scores and self.drift is not None:
            self.drift.read(scores)
            self._earlier = {}

    def users(self, problem: str = "the user's message was not read") -> list[list[Reading | NotScored]]:
        """What is known of what the user said, turn by turn; `problem` says why something is not."""
        return self.listener.turns(problem if self.scorer is not None else self.problem)


def z_of(read: Reading | NotScored) -> dict[str, float]:
    """Each trait's z; nothing where it was not scored."""
    return {trait: score.z for trait, score in read.scores.items()} if isinstance(read, Reading) else {}
