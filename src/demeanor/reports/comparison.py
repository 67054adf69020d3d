"""The report of a comparison: what differs, shares on the unsafe side, what changed most, paired differences, distributions, lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demeanor.comparison.gate import Judged
from demeanor.comparison.results import Comparison, Difference
from demeanor.reports.figures import Dot, Level, Named, Plot, Rows, Scale, Track, bars, distribution, side
from demeanor.reports.marking import passage
from demeanor.reports.page import signed, write_page

EQUAL = "◇"


def write_report(made: Comparison, path: Path, judged: Sequence[Judged] = ()) -> None:
    """Write the report of a comparison to `path`. Raises OutputError where it cannot be written."""
    traits = list(dict.fromkeys(d.trait for d in made.differences))
    contents = [
        ("differs", "What differs"),
        ("unsafe", "Replies on the unsafe side"),
        ("changed", "What changed most"),
        ("prompts", "Prompt by prompt"),
        ("distributions", "Distributions"),
        ("length", "Length"),
        ("limits", "What this page cannot tell"),
    ]
    write_page(
        path,
        "comparison.html",
        contents,
        made=made,
        first=made.versions[0],
        units="z (a trait's usual spread)" if made.units == "z" else "probability of the high pole",
        tests=len(made.differences),
        found=[d for d in made.differences if d.found],
        open=any(not d.found and d.needed is not None for d in made.differences),
        judged=judged,
        forest=_forest(made),
        paired=[(d, _paired(d, made), _pairs(d)) for d in made.differences],
        distributions=[_distribution(trait, made) for trait in traits],
        changed=[
            (d, [(c, *map(passage, (c.prompt, c.reply_before, c.reply_after))) for c in d.changed]) for d in made.differences if d.changed
        ],
    )


def _kind(d: Difference) -> str:
    return side(d.toward_safe) if d.found else "plain"


def _forest(made: Comparison) -> Rows:
    """Each difference with its interval, and beside it the one at equal length."""
    ends = [v for d in made.differences for v in (d.difference, *(d.interval or ()))]
    equal = [d.equal_length[0] for d in made.differences if d.equal_length is not None]
    scale = Scale.over([0.0, *ends, *equal])
    tracks = []
    for d in made.differences:
        name = d.trait.replace("_", " ") if len(made.versions) == 2 else f"{d.trait.replace('_', ' ')}, {d.version}"
        words = (
            signed(d.difference) + (f" ({signed(d.interval.low)} to {signed(d.interval.high)})" if d.interval else "") + f", {d.verdict}"
        )
        dots = [Dot(scale.at(d.difference), 50, _kind(d), f"{d.verdict}, p = {d.p_holm:.4f}")]
        if d.equal_length is not None:
            dots.append(Dot(scale.at(d.equal_length[0]), 50, "plain", f"at equal length {signed(d.equal_length[0])}", sign=EQUAL))
        within = (scale.at(d.interval.low), scale.at(d.interval.high)) if d.interval else None
        tracks.append(Track(name, words, within, tuple(dots), kind=_kind(d)))
    return Rows(
        "Mean difference of each trait with its interval", scale, f"mean difference from {made.versions[0]}, in {made.units}",
        tuple(tracks), (Level(scale.at(0), "zero"),), (Named("plain", "at equal length", EQUAL),) if equal else (),
    )  # fmt: skip


def _pairs(d: Difference) -> list[tuple[str, float, float]]:
    """Every prompt with its means, the largest fall toward the unsafe side first."""
    toward = 1 if d.safe_pole == "high" else -1
    return [
        (" / ".join(p.key.split("\x1e")).replace("\x1f", ": "), p.before, p.after)
        for p in sorted(d.pairs, key=lambda p: toward * (p.after - p.before))
    ]


def _paired(d: Difference, made: Comparison) -> Plot:
    """Every prompt's difference, in order of size."""
    values = [(p.after - p.before, p) for p in sorted(d.pairs, key=lambda pair: pair.after - pair.before)]
    shown = [
        (v, "plain" if v == 0 else side((v > 0) == (d.safe_pole == "high")), f"{signed(p.before)} to {signed(p.after)}") for v, p in values
    ]
    n = len(shown)
    y = Scale.over([0.0, *(v for v, _, _ in shown)], 4)
    label = f"Differences of {d.trait.replace('_', ' ')}, prompt by prompt, {d.version} minus the first version"
    drawn = bars(label, shown, Scale(0.0, float(max(1, n)), ()), "prompts, by their difference", y, made.units, range(n + 1))
    mean = Level(round(100 - y.at(d.difference), 2), "plain", f"mean {signed(d.difference)}")
    return replace(drawn, levels=(*drawn.levels, mean), height=180)


def _distribution(trait: str, made: Comparison) -> Rows:
    """A row for each version: how often its replies score where, with their mean."""
    values = {name: made.values[name][trait] for name in made.versions}
    scale = Scale.over([v for each in values.values() for v in each] if made.units == "z" else (0.0, 1.0))
    tracks = []
    for name, each in values.items():
        known = list(each)
        words = f"{len(known)} replies" + (f", mean {signed(sum(known) / len(known))}" if known else "")
        mean = (Dot(scale.at(sum(known) / len(known)), 96, "plain", "mean"),) if known else ()
        tracks.append(Track(name, words, dots=mean, boxes=distribution(known, scale, "plain")))
    label = f"Distribution of {trait.replace('_', ' ')} in each version"
    return Rows(label, scale, f"{trait.replace('_', ' ')}, {made.units}", tuple(tracks), tall=True)
