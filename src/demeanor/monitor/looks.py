"""The looks at one reply that is being written: the rules tried on it as it grows, so that every token is looked at.

A trait whose parts were measured (measure/parts.py) is judged by the reply so far, counted as one of several looks, and by its worst new
part, as `check` judges a whole reply. For the others a look judges the window of the newest tokens, and where more than a window has
come since the last look (long words, scripts without spaces, a scorer that failed for a while), as many windows before it. The last
look is at the end of the reply, whatever its length; where there were none before, it judges all windows of the reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demeanor.measure.calibration import Score
from demeanor.measure.cuts import ACTIONS, withholds
from demeanor.measure.parts import part_spans
from demeanor.monitor.outcome import Outcome, decide
from demeanor.monitor.policy import ResolvedPolicy
from demeanor.monitor.window import read_windows
from demeanor.scoring.gauge import Gauge
from demeanor.scoring.reading import Reading, Said, SetApart


class Look(NamedTuple):
    """What one look found."""

    outcome: Outcome | None
    """What the policy says of the newest windows; None where that is not to be had yet, or not at all."""
    stops: tuple[str, ...]
    """The rules by which the reply is to stop here."""
    z: Mapping[str, float]
    """z of each trait over the reply so far, for whoever watches."""


class Looks:
    """What has been looked at of one reply."""

    def __init__(self, gauge: Gauge, policy: ResolvedPolicy) -> None:
        self.gauge, self.policy = gauge, policy
        self._seen = 0

    def look(
        self,
        z: Mapping[str, ArrayLike],
        tokens: int,
        users: Sequence[Said],
        means: Mapping[str, float],
        apart: SetApart | None = None,
        end: bool = False,
    ) -> Look:
        """Try the rules on what has come since the last look.

        Args:
            z: Of each trait, for each token of the reply so far.
            tokens: How many these are.
            users: What the user has said, as `decide` takes it.
            means: z of each trait over the reply so far.
            apart: The reasoning that was set apart from the reply so far; it is judged beside each window.
            end: Whether the reply ends here.
        """
        size = self.policy.policy.stream.window_tokens
        windows = read_windows(self.gauge, z, tokens, size, self._seen)
        if not windows:
            return Look(None, (), means)
        whole, worst = self._whole_and_parts(z, tokens, end)
        self._seen = tokens
        where = "at the end of the reply" if end else "where the reply was stopped"
        readings = [replace(window, scores=window.scores | whole, apart=apart) for window in windows]
        readings[-1] = replace(readings[-1], worst=worst)
        found = [self._judged(reading, users, where) for reading in readings]
        stops, outcome = max(found, key=lambda judged: (bool(judged[0]), ACTIONS.index(judged[1].action)))
        return Look(outcome, stops, means)

    def _judged(self, window: Reading, users: Sequence[Said], where: str) -> tuple[tuple[str, ...], Outcome]:
        outcome = decide(self.policy, window, users)
        stops = tuple(
            rule.name
            for rule, result in zip((r.rule for r in self.policy.rules), outcome.results, strict=True)
            if result.state == "fired" and rule.severity == "red" and withholds(rule.action) and rule.while_writing == "stop"
        )
        size = self.policy.policy.stream.window_tokens
        results = []
        for r in outcome.results:
            place = where if r.trait in self.gauge.by_parts else f"in a window of {size} tokens, {where}"
            results.append(replace(r, where=(*r.where, place)) if r.rule in stops else r)
        return stops, replace(outcome, results=tuple(results))

    def _whole_and_parts(self, z: Mapping[str, ArrayLike], tokens: int, end: bool) -> tuple[dict[str, Score], dict[str, Score]]:
        """The reply so far by what it speaks of and by the traits that are judged by parts, and their worst part that no look has seen."""
        score = self.gauge.score if end else self.gauge.so_far
        raw = {}
        whole = {topic: self.gauge.score(topic, self._raw(topic, z, tokens).mean()) for topic in self.gauge.topics}
        for trait in self.gauge.by_parts:
            values = self._raw(trait, z, tokens)
            whole[trait] = score(trait, float(values.mean()))
            raw[trait] = [values[start:end].mean() for start, end in part_spans(0, tokens) if end > self._seen]
        return whole, self.gauge.worst({trait: parts for trait, parts in raw.items() if parts}, whole, tokens)

    def _raw(self, trait: str, z: Mapping[str, ArrayLike], tokens: int) -> NDArray[np.float64]:
        calibration = self.gauge.calibrations[trait]
        return calibration.centre + np.asarray(z[trait], float)[:tokens] * calibration.spread
