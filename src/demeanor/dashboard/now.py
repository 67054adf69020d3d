"""Now: how many replies there are, what is done about them, what could not be scored, and how scores lie against their thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from starlette.responses import Response

from demeanor.dashboard.handling import Asked
from demeanor.measure.cuts import ACTIONS
from demeanor.measure.poles import Side
from demeanor.reports.figures import Level, Plot, Rows, Scale, Track, distribution, line_plot
from demeanor.reports.page import signed
from demeanor.reports.sentences import DONE
from demeanor.review import looking, versions
from demeanor.review.estimates import versions_seen
from demeanor.review.queue import questions

HOUR, DAY = 3600.0, 86400.0
WEEK = 7  # days before today that today is held against


@dataclass(frozen=True)
class Spread:
    """How a rule's scores lie today and lay in the week before."""

    rule: str
    figure: Rows
    words: str


def shown(asked: Asked) -> Response:
    """What happens now."""
    store = asked.store
    now = store.clock()
    hour, day = looking.minutes(store, now - HOUR), looking.actions(store, now - DAY)
    seen = versions_seen(store)
    return asked.show(
        "now.html",
        now=now,
        hour=sum(sum(each.values()) for each in hour.values()),
        day=sum(day.values()),
        actions=[(action, DONE[action], day.get(action, 0)) for action in ACTIONS],
        figure=_plot(hour, now) if hour else None,
        unscored=looking.unscored(store, now - DAY),
        spreads=_spreads(asked, seen[0]) if seen else [],
        deciding=seen[0] if seen else None,
        in_force=versions.in_force(store),
    )


def _plot(hour: Mapping[str, Counter[int]], now: float) -> Plot:
    last = int(now // 60)
    minutes = range(last - 59, last + 1)
    drawn = {DONE[action]: [(float(m - last), float(hour[action][m])) for m in minutes] for action in ACTIONS if action in hour}
    x = Scale(-60.0, 0.0, (-60.0, -45.0, -30.0, -15.0, 0.0), ("60 min ago", "45", "30", "15", "now"))
    y = Scale.over([0.0, 4.0, *(n for points in drawn.values() for _, n in points)], 4)
    return line_plot("Replies a minute over the last hour, by what was done", drawn, "", "replies a minute", x, y, marked=False, height=180)


def _spreads(asked: Asked, version: str) -> list[Spread]:
    store = asked.store
    today = looking.spread(store, version, looking.day(store), looking.day(store))
    before = looking.spread(store, version, looking.day(store, WEEK), looking.day(store, 1))
    limits, rules = looking.limits(store, version), looking.rules(store)
    titles = {trait: question.title for trait, question in questions(store).items()}
    found = []
    for rule, trait in rules.items():
        limit = limits.get(rule)
        if limit is not None and (rule in today or rule in before):
            title = titles.get(trait, trait)
            found.append(_spread(rule, title, limit, today.get(rule, Counter()), before.get(rule, Counter())))
    return found


def _spread(rule: str, title: str, limit: looking.Limit, today: Counter[float], before: Counter[float]) -> Spread:
    both = [_z(danger, limit.side) for danger in (*today, *before)]
    scale = Scale.over([*both, limit.z, 0.0])
    tracks = tuple(
        Track(name, _share(counted, limit), boxes=distribution(_values(counted, limit.side), scale, kind))
        for name, kind, counted in (("Today", "today", today), (f"The {WEEK} days before", "before", before))
    )
    side = "or higher" if limit.side == "above" else "or lower"
    words = f"unsafe at {signed(limit.z)} {side}"
    figure = Rows(f"{title}, rule {rule}", scale, f"{title} (z), {words}", tracks, (Level(scale.at(limit.z), "limit"),), tall=True)
    return Spread(rule, figure, words)


def _z(danger: float, side: Side) -> float:
    return danger if side == "above" else -danger


def _values(counted: Counter[float], side: Side) -> np.ndarray:
    """Each score as often as it was there."""
    return np.repeat([_z(danger, side) for danger in counted] or [0.0], list(counted.values()) or [0])


def _share(counted: Counter[float], limit: looking.Limit) -> str:
    total = sum(counted.values())
    if not total:
        return "no replies that it judged"
    beyond = sum(n for danger, n in counted.items() if danger >= (limit.z if limit.side == "above" else -limit.z))
    return f"{total:,} replies, {1000 * beyond / total:.3g} of 1,000 beyond the threshold"
