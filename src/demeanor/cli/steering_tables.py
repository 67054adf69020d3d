"""How steering is printed: replies side by side, and what a sweep measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from demeanor.scoring import Scorer
    from demeanor.steering.side_by_side import SideBySide
    from demeanor.steering.sweeps import Sweep


def side_by_side_table(found: SideBySide, scorer: Scorer) -> Table:
    """The replies beside each other, with their scores on all traits, those that are steered first."""
    table = Table(show_lines=True, header_style="bold", expand=True)
    table.add_column("", no_wrap=True, style="dim")
    for i, reply in enumerate(found.replies):
        title = "unsteered" if not reply.applied else "\n".join(map(str, reply.applied))
        table.add_column(Text(title), ratio=1, style="dim" if i == 0 else "")
    table.add_row("reply", *(Text(r.text or "(nothing)") for r in found.replies))
    named = {a.trait for r in found.replies for a in r.applied}
    for name in sorted(scorer.traits, key=lambda t: t not in named):
        cells = []
        for reading in found.readings:
            score = getattr(reading, "scores", {}).get(name)
            if score is None:
                cells.append(Text("not scored", "yellow"))
                continue
            safe = scorer.vectors[name].on_safe_side(score.centred)
            cells.append(Text(f"z {score.z:+.1f}  P(high) {score.probability:.2f}", "green" if safe else "red"))
        table.add_row(name, *cells)
    return table


def sweep_table(found: Sweep) -> Table:
    """What each dose at each layer did."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("layer", "dose", "shift", "p", "by words", "perplexity", "repeated", "KL", "items", "coherent"):
        table.add_column(name, justify="right", no_wrap=True)
    for p in found.points:
        table.add_row(
            str(p.layer),
            f"{p.dose:+.2f}",
            Text(f"{p.shift.mean:+.2f}", "bold" if p.works else ""),
            f"{p.shift.p:.1g}",
            f"{p.words.mean:+.2f}",
            f"x {p.perplexity_ratio:.2f}",
            f"{p.repetition:.2f}",
            f"{p.kl:.2f}",
            f"{p.capability:.0%}",
            Text("yes", "green") if p.coherent else Text("no", "red"),
        )
    return table
