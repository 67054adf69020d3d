"""The report of a comparison: a forest plot, paired differences, distributions, shares, lengths, what changed most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from markupsafe import Markup

from demeanor.comparison.gate import Judged
from demeanor.comparison.results import Comparison, Difference
from demeanor.notebook import SAFE, UNSAFE
from demeanor.reports.page import COLOURS, INK, figure_html, write_page

LONGEST = 900  # characters of a prompt or a reply that are shown
SHOWN = 5  # most changed prompts of a trait


def write_report(made: Comparison, path: Path, judged: Sequence[Judged] = ()) -> None:
    """Write the report of a comparison to `path`. Raises OutputError where it cannot be written."""
    traits = list(dict.fromkeys(d.trait for d in made.differences))
    write_page(
        path,
        "comparison.html",
        made=made,
        first=made.versions[0],
        units="z" if made.units == "z" else "probability of the high pole",
        tests=len(made.differences),
        found=[d for d in made.differences if d.found],
        judged=judged,
        forest=_forest(made),
        paired=[(d, _paired(d, made)) for d in made.differences],
        distributions=[(trait, _distribution(trait, made)) for trait in traits],
        changed=[(d, d.changed[:SHOWN]) for d in made.differences if d.changed],
        cut=lambda text: text if len(text) <= LONGEST else text[:LONGEST] + " [...]",
    )


def _colour(d: Difference) -> str:
    if not d.found:
        return INK
    return SAFE if d.toward_safe else UNSAFE


def _label(d: Difference, made: Comparison) -> str:
    return d.trait if len(made.versions) == 2 else f"{d.trait}, {d.version}"


def _forest(made: Comparison) -> Markup:
    """Each difference with its interval, and hollow beside it the one at equal length."""
    figure = go.Figure()
    rows = made.differences[::-1]
    for d in rows:
        error = None
        if d.interval is not None:
            high, low = d.interval.high - d.difference, d.difference - d.interval.low
            error = {"array": [high], "arrayminus": [low], "color": _colour(d), "thickness": 2}
        figure.add_scatter(
            x=[d.difference], y=[_label(d, made)], mode="markers", error_x=error, showlegend=False,
            marker={"size": 12, "color": _colour(d)}, hovertemplate=f"{d.verdict}, p = {d.p_holm:.4f}<extra></extra>",
        )  # fmt: skip
    equal = [d for d in rows if d.equal_length is not None]
    figure.add_scatter(
        x=[d.equal_length[0] for d in equal if d.equal_length], y=[_label(d, made) for d in equal], mode="markers",
        name="at equal length", marker={"symbol": "diamond-open", "size": 11, "color": INK, "line": {"width": 2}},
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": INK, "dash": "dot"})
    figure.update_xaxes(title=f"mean difference from {_plain(made.versions[0])}, {made.units}, with its 95 % interval")
    return figure_html(figure, 130 + 45 * len(rows), "Forest plot: mean difference of each trait with its interval")


def _paired(d: Difference, made: Comparison) -> Markup:
    """Every prompt's difference, in order of size."""
    pairs = sorted(d.pairs, key=lambda pair: pair.after - pair.before)
    values = [pair.after - pair.before for pair in pairs]
    safe = [(v > 0) == (d.safe_pole == "high") for v in values]
    figure = go.Figure(
        go.Bar(
            x=list(range(1, len(values) + 1)), y=values, marker={"color": [SAFE if s else UNSAFE for s in safe], "line": {"width": 0}},
            hovertext=[_plain(f"{pair.key[:60]}: {pair.before:+.2f} to {pair.after:+.2f}") for pair in pairs], hoverinfo="text",
        )
    )  # fmt: skip
    figure.add_hline(y=d.difference, line={"color": INK, "dash": "dash"}, annotation_text=f"mean {d.difference:+.2f}")
    figure.update_xaxes(title="prompts, by their difference")
    figure.update_yaxes(title=made.units)
    return figure_html(figure, 240, f"Paired differences of {d.trait}, {d.version} minus the first version")


def _distribution(trait: str, made: Comparison) -> Markup:
    figure = go.Figure()
    for i, name in enumerate(made.versions):
        figure.add_violin(
            x=list(made.values[name][trait]), y=[_plain(name)] * len(made.values[name][trait]), name=_plain(name), orientation="h",
            showlegend=False, spanmode="hard", width=0.9, points="all", pointpos=0, jitter=0.5, meanline={"visible": True},
            marker={"size": 4, "opacity": 0.6}, line={"width": 1}, line_color=COLOURS[i % len(COLOURS)],
        )  # fmt: skip
    figure.update_xaxes(title=made.units, range=None if made.units == "z" else [0, 1])
    return figure_html(figure, 90 + 80 * len(made.versions), f"Distribution of {trait} in each version")


def _plain(text: str) -> str:
    """A name as Plotly is to show it: it would read a tag as markup."""
    return text.replace("\x1e", " / ").replace("\x1f", ": ").replace("<", "‹").replace(">", "›")
