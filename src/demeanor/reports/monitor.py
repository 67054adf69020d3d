"""The report of judged transcripts: the replies to read, worst first; counts; each trait over the turns, and drift; the rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demeanor.language import counted
from demeanor.measure.cuts import ACTIONS, withholds
from demeanor.measure.drift import ENTER, LEVELS
from demeanor.monitor.policy import ResolvedRule
from demeanor.monitor.session import Monitor
from demeanor.monitor.transcripts import Counts, Transcript, Turn
from demeanor.reports.cards import choices, limit_of, sheet_of
from demeanor.reports.decided import anchor_of, cards_of, to_label
from demeanor.reports.error_rates import Errors, errors_of
from demeanor.reports.figures import Box, Dot, Level, Plot, Scale, line_plot, strokes
from demeanor.reports.page import write_page
from demeanor.reports.sentences import DONE

FEWEST = 3  # replies from which on a conversation has a timeline
OPEN = 12  # timelines that are not folded


def write_report(transcripts: Sequence[Transcript], counts: Counts, monitor: Monitor, path: Path) -> None:
    """Write the report to `path`. Raises OutputError where it cannot be written."""
    cards = cards_of(transcripts, monitor)
    drawn = sorted(
        ((row, t) for row, t in enumerate(transcripts, 1) if len(t.turns) >= FEWEST), key=lambda each: _worst(each[1]), reverse=True
    )
    timelines = [_timeline(row, t, monitor) for row, t in drawn]
    contents = [
        ("read", f"To be read ({len(cards)})"),
        ("counts", "Counts"),
        *([("timelines", f"Over the conversation ({len(timelines)})")] if timelines else []),
        ("rules", "The rules, and how often they err"),
        ("limits", "What this page cannot tell"),
    ]
    titles = _titles(monitor)
    write_page(
        path,
        "monitor.html",
        contents,
        counts=counts,
        caution=counted(counts.cautions, counts.replies, monitor.scorer.vectors.languages) if counts.cautions and monitor.scorer else "",
        done=[(a, DONE[a], counts.actions[a], counts.actions[a] / max(1, counts.replies)) for a in ACTIONS],
        summary=_summary(counts, trial=not monitor.enforce),
        trial=not monitor.enforce,
        policy=monitor.policy.policy.identity,
        model=monitor.model,
        vectors=monitor.vectors,
        drift_note=monitor.drift_note,
        alarms=[(titles.get(trait, trait), n) for trait, n in counts.alarms.most_common()],
        rules=[_rule(r, counts, titles) for r in monitor.policy.rules],
        timelines=timelines,
        open=OPEN,
        fewest=FEWEST,
        cards=cards,
        choices={
            "rule": choices(cards, "rule", {}),
            "trait": choices(cards, "trait", titles),
            "action": choices(cards, "action", DONE),
            "date": choices(cards, "date", {}, in_order=True),
        },
        sheet=sheet_of(to_label(transcripts, cards, monitor), f"{path.stem}-to-label.csv"),
    )


def _summary(counts: Counts, trial: bool) -> str:
    """How many replies were withheld and flagged: ": 3 would have been withheld, 1 flagged"."""
    withheld, flagged = sum(counts.actions[a] for a in ACTIONS if withholds(a)), counts.actions["flag"]
    said = [f"{withheld} {'would have been withheld' if trial else 'withheld'}"] if withheld else []
    said += [f"{flagged} flagged"] if flagged else []
    return f": {', '.join(said)}" if said else ""


def _titles(monitor: Monitor) -> dict[str, str]:
    return {name: entry.title for name, entry in monitor.scorer.vectors.traits.items()} if monitor.scorer is not None else {}


def _rule(resolved: ResolvedRule, counts: Counts, titles: dict[str, str]) -> dict[str, Any]:
    rule, cut = resolved.rule, resolved.cut
    return {
        "name": rule.name,
        "trait": titles.get(rule.trait, rule.trait),
        "severity": rule.severity,
        "done": DONE[rule.action],
        "limit": limit_of(cut),
        "source": cut.source,
        "errors": errors_of(resolved.calibration, cut) or Errors("not known", "not known"),
        "fired": counts.rules[rule.name],
    }


def _worst(transcript: Transcript) -> tuple[int, int, int]:
    """Drift first, then the strongest action, then the longest."""
    levels = [LEVELS.index(s.level) for t in transcript.turns for s in (t.decision.drift or {}).values()]
    return max(levels, default=0), max(ACTIONS.index(t.decision.action) for t in transcript.turns), len(transcript.turns)


def _timeline(row: int, transcript: Transcript, monitor: Monitor) -> dict[str, Any]:
    drifts = [t.decision.drift for t in transcript.turns]
    titles = _titles(monitor)
    return {
        "name": transcript.name,
        "scores": _scores(transcript, monitor, titles),
        "drift": _drift(transcript, titles) if all(d is not None for d in drifts) else None,
        "alarms": [
            (i, titles.get(trait, trait), state.level)
            for i, drift in enumerate(drifts, 1)
            for trait, state in (drift or {}).items()
            if state.alarm and (i == 1 or (drifts[i - 2] or {}).get(trait) is None or (drifts[i - 2] or {})[trait].level != state.level)
        ],
        "unread": sum(t.decision.reading is None for t in transcript.turns),
        "cards": [
            (n, anchor_of(row, t), DONE[t.decision.action]) for n, t in enumerate(transcript.turns, 1) if t.decision.action != "allow"
        ],
    }


def _scores(transcript: Transcript, monitor: Monitor, titles: dict[str, str]) -> list[tuple[str, Plot]]:
    """A drawing for each trait: its score over the replies, what lies beyond its rules' limits, and the replies for which a rule fired."""
    read = dict.fromkeys(t for turn in transcript.turns if turn.decision.reading for t in turn.decision.reading.scores)
    contexts = monitor.scorer.vectors.contexts if monitor.scorer is not None else {}
    x = Scale.counting(len(transcript.turns))
    drawn = []
    traits = [trait for trait in read if trait not in contexts]
    for trait in traits:
        points = [(float(i), _z(turn, trait)) for i, turn in enumerate(transcript.turns, 1)]
        cuts = [r.cut for r in monitor.policy.rules if r.rule.trait == trait and r.cut.scale == "z"]
        y = Scale.over([*(z for _, z in points if z is not None), 0.0, *(cut.value for cut in cuts)], 4)
        title = titles.get(trait, trait)
        dots = []
        for (i, z), turn in zip(points, transcript.turns, strict=True):
            if z is not None:
                fired = any(r.trait == trait and r.state == "fired" for r in turn.decision.results)
                said = f"reply {i:.0f}: {z:+.2f}{', a rule fired' if fired else ''}"
                dots.append(Dot(x.at(i), round(100 - y.at(z), 2), "unsafe" if fired else "plain", said))
        limits = [(round(100 - y.at(cut.value), 2), cut.unsafe_side) for cut in cuts if math.isfinite(cut.value)]
        shade = tuple(Box(0, 0 if up == "above" else at, 100, at if up == "above" else round(100 - at, 2), "beyond") for at, up in limits)
        levels = tuple(Level(at, "limit") for at, _ in limits)
        label = f"{title}, reply by reply, in conversation {transcript.name}"
        plot = Plot(label, x, "reply", y, "", tuple(strokes(x, y, points, "plain")), tuple(dots), shade, levels, height=84, bare=True)
        drawn.append((title, plot))
    return drawn


def _drift(transcript: Transcript, titles: dict[str, str]) -> Plot:
    """How near each trait's charts are to their limits: 1 is an alarm."""
    drawn = {}
    also = []
    x = Scale.counting(len(transcript.turns))
    for trait in transcript.turns[0].decision.drift or {}:
        states = [(t.decision.drift or {})[trait] for t in transcript.turns]
        drawn[titles.get(trait, trait)] = [(float(i), max(s.ewma / s.ewma_limit, s.cusum / s.cusum_limit)) for i, s in enumerate(states, 1)]
        also += [(i, drawn[titles.get(trait, trait)][i - 1][1], s.level) for i, s in enumerate(states, 1) if s.alarm]
    levels = [(float(height), level) for level, height in zip(LEVELS[1:], ENTER[1:], strict=True)]
    y = Scale.over([0.0, 1.6, *(v for points in drawn.values() for _, v in points)], 5)
    alarms = [Dot(x.at(i), round(100 - y.at(v), 2), "unsafe", f"reply {i}: {level}") for i, v, level in also]
    label = f"Drift toward the unsafe side over the replies of conversation {transcript.name}; 1 is an alarm"
    return line_plot(label, drawn, "reply", "drift toward the unsafe side, in limits", x, y, levels=levels, also=alarms)


def _z(turn: Turn, trait: str) -> float | None:
    reading = turn.decision.reading
    return reading.scores[trait].z if reading and trait in reading.scores else None
