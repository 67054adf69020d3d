"""The report of an extraction: traits, baselines, layer curves, distributions, the trait matrix, words, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from demeanor.extraction import Extraction
from demeanor.measure.metrics import reliability
from demeanor.measure.proof import GroupMeasured, Proof, worst_group
from demeanor.notebook import SAFE, UNSAFE
from demeanor.reports.page import INK, figure_html, heat, write_page
from demeanor.scoring import Score, TokenScores
from demeanor.vectors import VectorSet
from demeanor.vectors.card import LIMITS
from demeanor.vectors.curves import layer_figure


class ShownReply(NamedTuple):
    """A scored reply to show word by word."""

    trait: str
    kind: str
    prompt: str
    score: Score
    tokens: TokenScores


def write_report(made: Extraction, path: Path, examples: Sequence[ShownReply] = ()) -> None:
    """Write the report of an extraction to `path`. Raises OutputError where it cannot be written."""
    vectors = made.vectors
    measured = {name: entry.proof for name, entry in vectors.traits.items() if entry.proof is not None}
    write_page(
        path,
        "vectors.html",
        model=vectors.model,
        created=vectors.created,
        traits=[_trait(name, vectors) for name in vectors.traits],
        baselines=_baselines(measured),
        curves=_curves(vectors),
        distributions=_distributions(measured, vectors),
        reliability=_reliability(measured, vectors),
        registers=_registers(measured),
        learning=_learning(measured),
        on_traits=_matrix(made.on_traits, 0.5),
        cosines=_matrix(made.cosines, 0.0),
        heatmaps=[_heatmap(e, vectors) for e in examples],
        up=heat(4.0),
        down=heat(-4.0),
        limits=[" ".join(line.removeprefix("- ").split()) for line in LIMITS.split("\n- ")],
        provenance=_provenance(vectors),
    )


def _trait(name: str, vectors: VectorSet) -> dict[str, Any]:
    entry = vectors[name]
    layers = entry.reading.layers
    return {
        "name": name,
        "m": entry.proof,
        "layers": str(layers[0]) if len(layers) == 1 else f"{layers[0]} to {layers[-1]}",
        "strength": entry.steering.strength,
        "high_pole": entry.high_pole,
        "low_pole": entry.low_pole,
        "safe_pole": entry.safe_pole,
        "calibrated_on": entry.calibration.source,
        "worst_register": _worst(entry.proof.registers if entry.proof else {}),
        "worst_family": _worst(entry.proof.families if entry.proof else {}),
    }


def _worst(groups: dict[str, GroupMeasured]) -> str:
    worst = worst_group(groups)
    return f"{worst[0]} ({worst[1].value:.2f})" if worst else "too few pairs to say"


def _baselines(measured: dict[str, Proof]) -> Markup:
    figure = go.Figure()
    names = list(measured)[::-1]
    rows = [measured[n] for n in names]
    for label, symbol, values in (
        ("length alone", "line-ns-open", [max(m.length.auroc, 1 - m.length.auroc) for m in rows]),
        ("bag of words", "x", [m.words.auroc for m in rows]),
        ("random directions, 97.5 %", "triangle-up-open", [m.random.p97_5 for m in rows]),
        ("swapped poles, 97.5 %", "diamond-open", [m.permutation.p97_5 for m in rows]),
    ):
        figure.add_scatter(
            x=values,
            y=names,
            mode="markers",
            name=label,
            marker={"symbol": symbol, "size": 11, "color": INK, "line": {"width": 2, "color": INK}},
        )
    values = [m.auroc.value for m in rows]
    figure.add_scatter(
        x=values, y=names, mode="markers", name="the vector", marker={"size": 13, "color": SAFE},
        error_x={"array": [m.auroc.high - v for m, v in zip(rows, values, strict=True)],
                 "arrayminus": [v - m.auroc.low for m, v in zip(rows, values, strict=True)], "color": SAFE},
    )  # fmt: skip
    figure.update_xaxes(range=[0.35, 1.02], title="AUROC on held-out pairs")
    return figure_html(figure, 130 + 55 * len(names), "AUROC of each vector with its interval, beside its baselines")


def _curves(vectors: VectorSet) -> Markup:
    figure = layer_figure({name: entry.reading for name, entry in vectors.traits.items()})
    return figure_html(figure, 380, "Cross-validated AUROC by layer, one line a trait")


def _distributions(measured: dict[str, Proof], vectors: VectorSet) -> Markup:
    figure = go.Figure()
    named: set[bool] = set()
    for pole in ("high", "low"):
        for name, m in measured.items():
            safe = vectors[name].safe_pole == pole
            figure.add_violin(
                x=getattr(m.scores, pole), y=[name] * len(getattr(m.scores, pole)), name=f"{'safe' if safe else 'unsafe'} pole",
                legendgroup="safe" if safe else "unsafe", showlegend=safe not in named,
                side="positive" if pole == "high" else "negative", orientation="h", spanmode="hard", width=0.9,
                points="all", pointpos=0.45 if pole == "high" else -0.45, jitter=0.4, marker={"size": 4, "opacity": 0.7},
                line={"width": 1}, line_color=SAFE if safe else UNSAFE,
            )  # fmt: skip
            named.add(safe)
    figure.update_xaxes(title="z (upper half of each row: high pole)", zeroline=True, zerolinewidth=2)
    return figure_html(figure, 120 + 130 * max(1, len(measured)), "Distribution of held-out scores of both poles for each trait")


def _reliability(measured: dict[str, Proof], vectors: VectorSet) -> Markup:
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": INK}, showlegend=False, hoverinfo="skip")
    for name, m in measured.items():
        calibration = vectors[name].calibration
        z = np.array(m.scores.high + m.scores.low)
        high = np.arange(len(z)) < len(m.scores.high)
        p = calibration.probability(z * calibration.spread + calibration.centre)
        bins = reliability(p, high)
        figure.add_scatter(
            x=[stated for stated, _, _ in bins],
            y=[observed for _, observed, _ in bins],
            mode="lines+markers",
            name=name if m.ece is None else f"{name} (error {m.ece:.3f})",
        )
    figure.update_xaxes(title="stated probability of the high pole", range=[0, 1])
    figure.update_yaxes(title="share that is high", range=[-0.02, 1.02])
    return figure_html(figure, 420, "Stated probability against observed frequency")


def _registers(measured: dict[str, Proof]) -> dict[str, list[dict[str, Any]]]:
    """For each trait its registers: AUROC on held-out pairs, and that of a direction learnt without the register."""
    found = {}
    for name, m in measured.items():
        found[name] = [
            {"name": register, "with": kept, "without": m.style_shift.get(register)}
            for register, kept in m.registers.items()
            if kept.value is not None
        ]
    return found


def _learning(measured: dict[str, Proof]) -> Markup:
    figure = go.Figure()
    for name, m in measured.items():
        curve = m.learning_curve
        figure.add_scatter(x=[int(n) for n in curve], y=list(curve.values()), mode="lines+markers", name=name)
    figure.update_xaxes(title="training pairs", type="log")
    figure.update_yaxes(title="AUROC on held-out pairs")
    return figure_html(figure, 380, "AUROC on held-out pairs by the number of training pairs, one line a trait")


def _matrix(table: dict[str, dict[str, float]], middle: float) -> dict[str, Any]:
    """A table of traits by traits, each cell with its colour: blue above `middle`, red below, stronger the farther."""
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    rows = [(name, [(row[c], heat(8 * (row[c] - middle))) for c in columns if c in row]) for name, row in table.items()]
    return {"columns": columns, "rows": rows}


def _heatmap(example: ShownReply, vectors: VectorSet) -> dict[str, Any]:
    entry = vectors[example.trait]
    z = example.tokens.z[example.trait]
    return {
        "title": entry.title,
        "kind": example.kind,
        "prompt": example.prompt,
        "z": example.score.z,
        "safe": entry.on_safe_side(example.score.centred),
        "tokens": [(text, heat(float(value))) for text, value in zip(example.tokens.tokens, z, strict=True)],
    }


def _provenance(vectors: VectorSet) -> list[tuple[str, str]]:
    m = vectors.model
    rows = [
        ("model", f"{m.name} ({m.architecture}, {m.layers} layers of width {m.hidden_size})"),
        ("fingerprint", m.fingerprint),
        ("chat template", m.template_hash),
        ("dtype and quantisation", f"{m.dtype}, {m.quantization}"),
        ("pooling", vectors.pooling),
        ("date", vectors.created),
        ("versions", ", ".join(f"{k} {v}" for k, v in sorted(vectors.versions.items()))),
    ]
    return rows + [(f"pack {name}", entry.pack_hash[:24]) for name, entry in vectors.traits.items()]
