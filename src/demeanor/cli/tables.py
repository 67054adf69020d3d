"""How readings and vectors are printed: small tables that a person reads without knowing what an activation is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from demeanor.traits.contexts import CALLED_FOR

if TYPE_CHECKING:
    from demeanor.extraction.joined import Joining
    from demeanor.measure.proof import GroupMeasured
    from demeanor.scoring import Reading
    from demeanor.vectors import VectorSet

HALF = 10  # characters of a bar on either side of the middle
FULL = 3.0  # the z at which a bar is full


def bar(z: float, colour: str) -> Text:
    """A bar from the middle: to the right for more of the trait, to the left for less."""
    length = min(HALF, round(abs(z) / FULL * HALF))
    left = " " * (HALF - length) + "━" * length if z < 0 else " " * HALF
    right = "━" * length + " " * (HALF - length) if z >= 0 else " " * HALF
    return Text.assemble((left, colour), ("│", "dim"), (right, colour))


def reading_table(reading: Reading, vectors: VectorSet) -> Table:
    """One reply's scores, coloured by whether they sit on the safe side."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name, justify in (("trait", "left"), ("less · more of it", "center"), ("centred", "right"), ("z", "right"),
                          ("P(high)", "right"), ("side", "left")):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=name != "trait", overflow="fold")  # type: ignore[arg-type]
    contexts = vectors.contexts
    for name, score in reading.scores.items():
        if name in contexts:
            continue
        entry = vectors[name]
        safe = entry.on_safe_side(score.centred)
        known = entry.calibration.measured
        colour = ("green" if safe else "red") if known else "yellow"
        table.add_row(
            name,
            bar(score.z, colour),
            f"{score.centred:+.2f}",
            f"{score.z:+.1f}",
            f"{score.probability:.2f}" if known else "",
            Text(("safe" if safe else "unsafe") if known else "not calibrated", colour),
        )
    read = [name for name in contexts if name in reading.scores and vectors[name].reads == "user"]
    if read:
        called = [contexts[name] for name in read if reading.scores[name].z >= CALLED_FOR]
        table.caption = f"The monitor judges in full: {', '.join(called) or 'none of these'}. For the others it "
        "relaxes its limits, as the user's message does "
        "not call for them."
        table.caption_justify = "left"
    return table


def traits_table(vectors: VectorSet) -> Table:
    """The traits of a vector set with how well they are told apart on held-out pairs, and their strongest baseline."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name, justify in (("trait", "left"), ("layers", "right"), ("strength", "right"), ("AUROC", "right"),
                          ("95 % CI", "center"), ("pairs", "right"), ("baseline", "right")):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=name != "trait", overflow="fold")  # type: ignore[arg-type]
    contexts = vectors.contexts
    for name, entry in vectors.traits.items():
        if name in contexts:
            continue
        proof = entry.proof
        layers = "-".join(str(layer) for layer in dict.fromkeys((entry.reading.layers[0], entry.reading.layers[-1])))
        head = [name, layers, f"{entry.steering.strength:.1f}"]
        if proof is None:
            table.add_row(*head, Text("unproven", "yellow"), "", "0", "")
            continue
        found = proof.auroc
        table.add_row(
            *head,
            Text(f"{found.value:.2f}", "bold green" if proof.beats_baselines else "bold red"),
            f"{found.low:.2f} to {found.high:.2f}",
            str(found.pairs),
            f"{proof.strongest_baseline.auroc:.2f}",
        )
    return table


def joining_table(trait: str, joining: Joining) -> Table:
    """What was left out, and its AUROC without the public sources and with those that were not left out."""
    table = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim", title=f"{trait}: {joining.why}", title_justify="left",
        title_style="",
    )  # fmt: skip
    for name in ("left out", "rows", "pack alone", "with the other sets"):
        table.add_column(name, justify="left" if name == "left out" else "right", no_wrap=name != "left out", overflow="fold")
    for each in joining.left:
        better = "green" if each.joined > each.alone else "red"
        table.add_row(each.what, str(each.rows), f"{each.alone:.2f}", Text(f"{each.joined:.2f}", better))
    return table


def matrix_table(on_traits: dict[str, dict[str, float]], cosines: dict[str, dict[str, float]]) -> Table:
    """Traits by traits: AUROC, and the cosine between the directions at one layer in brackets."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    columns = list(next(iter(on_traits.values())))
    for name in ("", *columns):
        table.add_column(name.split("_")[0], no_wrap=True)
    for row, values in on_traits.items():
        table.add_row(row, *(Text(f"{values[c]:.2f} ({cosines[row][c]:+.2f})", "bold" if c == row else "") for c in columns))
    return table


def group_line(groups: dict[str, GroupMeasured], one: str) -> str:
    """The worst register or family by name, of those large enough to say; `one` is the word for one of them."""
    from demeanor.measure.proof import worst_group

    worst = worst_group(groups)
    return f"{worst[0]} {worst[1].value:.2f} ({worst[1].pairs} pairs)" if worst else f"no {one} has enough held-out pairs to name"
