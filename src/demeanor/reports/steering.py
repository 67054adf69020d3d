"""The report of a steering sweep: what each dose did to the trait and what it cost, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from demeanor.reports.figures import Plot, line_plot
from demeanor.reports.page import write_page
from demeanor.steering.sweeps import Point, Sweep


def write_report(sweeps: Sequence[Sweep], path: Path) -> None:
    """Write the report of some traits' sweeps to `path`. Raises OutputError where it cannot be written."""
    contents = [
        *((f"trait-{i}", s.trait.replace("_", " ").capitalize()) for i, s in enumerate(sweeps, 1)),
        ("limits", "What this page cannot tell"),
    ]
    write_page(path, "steering.html", contents, sweeps=[_sweep(s) for s in sweeps])


def _sweep(found: Sweep) -> dict[str, object]:
    b = found.bounds
    return {
        "s": found,
        "recommended": [("high", found.recommended(1)), ("low", found.recommended(-1))],
        "curves": [
            _curve(found, lambda p: p.shift.mean, 0.0, "shift of the reading, in units of its spread"),
            _curve(found, lambda p: p.words.mean, 0.0, "shift by a bag of words"),
            _curve(found, lambda p: p.perplexity_ratio, 1.0, "perplexity ratio", b.perplexity_ratio),
            _curve(found, lambda p: p.kl, 0.0, "KL of early tokens, nats"),
            _curve(found, lambda p: p.repetition, found.repetition, "share of repeated runs", found.repetition + b.repetition),
            _curve(found, lambda p: p.capability, found.capability, "items answered rightly", found.capability - b.capability),
        ],
    }


def _curve(found: Sweep, value: Callable[[Point], float], unsteered: float, label: str, bound: float | None = None) -> Plot:
    """One line a layer over the doses, through the unsteered model at 0; the bound dotted."""
    drawn = {
        f"layer {layer}": sorted([(p.dose, value(p)) for p in found.points if p.layer == layer] + [(0.0, unsteered)])
        for layer in sorted({p.layer for p in found.points})
    }
    levels = [] if bound is None else [(bound, "bound")]
    return line_plot(f"{found.trait.replace('_', ' ')}: {label} by dose, one line a layer", drawn, "dose", label, levels=levels, height=220)
