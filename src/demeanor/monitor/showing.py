"""What one user is shown for an outcome: the reply, or a reviewed one for their country and language, a different one each time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from demeanor.measure.drift import DriftState
from demeanor.monitor.decision import Decision, ReplySource, top_pushes
from demeanor.monitor.outcome import Outcome
from demeanor.monitor.policy import Situation
from demeanor.monitor.replies import Replies
from demeanor.scoring.live import LiveReading


class Showing:
    """The reviewed replies of one conversation, and how often it was shown one for each situation."""

    def __init__(self, replies: Replies, country: str) -> None:
        self.replies, self.country = replies, country
        self._shown: Counter[Situation] = Counter()
        self._last: Situation | None = None

    def decision(
        self,
        outcome: Outcome,
        found: LiveReading | None,
        reply: str,
        said: Sequence[str],
        source: ReplySource,
        enforce: bool,
        drift: Mapping[str, DriftState] | None,
        ms: Mapping[str, float],
    ) -> Decision:
        """The decision that carries out an outcome; where it is not enforced, with what would have been shown in the reply's place.

        `said` are the user's messages, which tell the language.
        """
        text, referral, instead, note = reply, False, None, ""
        if outcome.situation is not None:
            safe = self.replies.answer(outcome.situation, said, self.country, self._shown[outcome.situation])
            note = safe.note
            if enforce:
                text, referral = safe.text, safe.referral
            else:
                instead = safe.text
        reading, pushes = (found.reading, top_pushes(found.tokens, outcome.results)) if found else (None, None)
        return Decision.of(outcome, reading, text, source, referral, pushes, dict(ms), drift, instead=instead, note=note)

    def count(self, decision: Decision) -> None:
        """Remember what was shown."""
        self._last = decision.situation if not decision.shown else None
        if self._last is not None:
            self._shown[self._last] += 1

    def take_back(self) -> None:
        """The last reply is asked for anew: what was shown for it was not shown."""
        if self._last is not None:
            self._shown[self._last] -= 1
            self._last = None
