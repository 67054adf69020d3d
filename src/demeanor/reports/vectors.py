"""The report of an extraction: traits, baselines, layer curves, distributions, the trait matrix, words, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from demeanor.extraction import Extraction
from demeanor.measure.metrics import reliability
from demeanor.measure.proof import GroupMeasured, Proof, worst_group
from demeanor.reports.figures import Dot, Line, Named, Plot, Rows, Scale, Track, distribution, line_plot, side
from demeanor.reports.marking import marked, passage, pushing_words
from demeanor.reports.page import write_page
from demeanor.scoring import Score, TokenScores
from demeanor.vectors import VectorSet
from demeanor.vectors.card import LIMITS

BASELINES = ("│", "×", "△", "◇")


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
    ordinary = [(name, proof.ordinary) for name, proof in measured.items() if proof.ordinary is not None]
    registers = {name: rows for name, rows in _registers(measured).items() if rows}
    contents = [
        ("traits", "The traits"),
        ("baselines", "Against the baselines"),
        *([("words", "Word by word")] if examples else []),
        ("layers", "Where in the model"),
        ("scores", "Scores of both poles"),
        ("reliability", "Do the probabilities hold?"),
        *([("registers", "Does it carry over to another style?")] if registers else []),
        ("learning", "Would more pairs help?"),
        *([("ordinary", "On everyday talk")] if ordinary else []),
        *([("specific", "Is each vector specific?")] if made.on_traits else []),
        ("poles", "What the poles mean"),
        ("limits", "Limits"),
        ("provenance", "Where it comes from"),
    ]
    write_page(
        path,
        "vectors.html",
        contents,
        model=vectors.model,
        created=vectors.created,
        traits=[_trait(name, vectors) for name in vectors.traits],
        baselines=_baselines(measured),
        curves=_curves(vectors),
        distributions=_distributions(measured, vectors),
        reliability=_reliability(measured, vectors),
        registers=registers,
        learning=_learning(measured),
        ordinary=ordinary,
        on_traits=_matrix(made.on_traits, 0.5),
        cosines=_matrix(made.cosines, 0.0),
        examples=[_example(e, vectors) for e in examples],
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


def _baselines(measured: dict[str, Proof]) -> Rows:
    values = [v for m in measured.values() for v in (m.auroc.low, m.auroc.high, *(b.auroc for b in m.baselines))]
    scale = Scale.over([0.4, 1.0, *values])
    tracks = []
    for name, m in measured.items():
        kind = side(m.beats_baselines)
        signs = [
            Dot(scale.at(b.auroc), 50, "plain", f"{b.name}: {b.auroc:.2f}", sign=s) for b, s in zip(m.baselines, BASELINES, strict=True)
        ]
        words = f"{m.auroc.value:.2f} ({m.auroc.low:.2f} to {m.auroc.high:.2f})"
        dot = Dot(scale.at(m.auroc.value), 50, kind, f"the vector: {words}")
        tracks.append(Track(_plain(name), words, (scale.at(m.auroc.low), scale.at(m.auroc.high)), (*signs, dot), kind=kind))
    first = next(iter(measured.values()), None)
    legend = [Named("plain", b.name, s) for b, s in zip(first.baselines if first else (), BASELINES, strict=False)]
    return Rows(
        "AUROC of each vector with its interval, beside its baselines",
        scale,
        "AUROC on held-out pairs",
        tuple(tracks),
        legend=tuple(legend),
    )


def _curves(vectors: VectorSet) -> Plot:
    """Cross-validated AUROC by layer; dots at the layers that a vector is read at. A vector without a curve says so by its name."""
    drawn: dict[str, list[tuple[float, float | None]]] = {}
    chosen: list[tuple[float, float]] = []
    for name, entry in vectors.traits.items():
        curve = entry.reading.curve()
        drawn[_plain(name) if curve else f"{_plain(name)} (no layer curve)"] = [(float(layer), value) for layer, value in curve.items()]
        chosen += [(float(layer), curve[layer]) for layer in entry.reading.layers if layer in curve]
    plot = line_plot(
        "Cross-validated AUROC by layer, one line a trait",
        drawn,
        "layer (dots: chosen)",
        "AUROC, cross-validated",
        marked=False,
        height=320,
    )
    return replace(plot, dots=tuple(Dot(plot.x.at(x), round(100 - plot.y.at(y), 2), "plain", f"layer {x:g}: {y:.2f}") for x, y in chosen))


def _distributions(measured: dict[str, Proof], vectors: VectorSet) -> Rows:
    scale = Scale.over([0.0, *(z for m in measured.values() for z in (*m.scores.high, *m.scores.low))], 8)
    tracks = []
    for name, m in measured.items():
        safe = vectors[name].safe_pole
        upper = distribution(m.scores.high, scale, side(safe == "high"), 50, 46)
        lower = distribution(m.scores.low, scale, side(safe == "low"), 50, -46)
        tracks.append(Track(_plain(name), f"{len(m.scores.high)} high above, {len(m.scores.low)} low below", boxes=(*upper, *lower)))
    return Rows("Distribution of held-out scores of both poles for each trait", scale, "z", tuple(tracks), tall=True)


def _reliability(measured: dict[str, Proof], vectors: VectorSet) -> Plot:
    drawn: dict[str, list[tuple[float, float | None]]] = {}
    for name, m in measured.items():
        calibration = vectors[name].calibration
        z = np.array(m.scores.high + m.scores.low)
        high = np.arange(len(z)) < len(m.scores.high)
        p = calibration.probability(z * calibration.spread + calibration.centre)
        label = _plain(name) if m.ece is None else f"{_plain(name)} (error {m.ece:.3f})"
        drawn[label] = [(stated, observed) for stated, observed, _ in reliability(p, high)]
    unit = Scale.over([0.0, 1.0], 5)
    plot = line_plot(
        "Stated probability against observed frequency",
        drawn,
        "stated probability of the high pole",
        "share that is high",
        unit,
        unit,
        height=320,
    )
    return replace(plot, lines=(Line("0,100 100,0", "plain"), *plot.lines))


def _registers(measured: dict[str, Proof]) -> dict[str, list[dict[str, Any]]]:
    """For each trait its registers: AUROC on held-out pairs, and that of a direction learnt without the register."""
    return {
        name: [
            {"name": register, "with": kept, "without": m.style_shift.get(register)}
            for register, kept in m.registers.items()
            if kept.value is not None
        ]
        for name, m in measured.items()
    }


def _learning(measured: dict[str, Proof]) -> Plot:
    """AUROC over the number of pairs, which doubles from tick to tick."""
    curves = {_plain(name): {int(n): v for n, v in m.learning_curve.items()} for name, m in measured.items()}
    sizes = sorted({n for curve in curves.values() for n in curve})
    ticks = tuple(float(np.log2(n)) for n in sizes)
    x = Scale(ticks[0] - 0.2, ticks[-1] + 0.2, ticks, tuple(map(str, sizes))) if sizes else Scale.over(())
    drawn: Mapping[str, list[tuple[float, float | None]]] = {
        name: [(float(np.log2(n)), v) for n, v in curve.items()] for name, curve in curves.items()
    }
    return line_plot(
        "AUROC on held-out pairs by the number of training pairs, one line a trait",
        drawn,
        "training pairs",
        "AUROC on held-out pairs",
        x,
        height=300,
    )


def _matrix(table: dict[str, dict[str, float]], middle: float) -> dict[str, Any]:
    """A table of traits by traits, each cell with how far it lies from `middle`, in steps of shade; no side of it is the safe one."""
    columns = list(dict.fromkeys(name for row in table.values() for name in row))
    rows = [(name, [(row[c], min(4, round(8 * abs(row[c] - middle)))) for c in columns if c in row]) for name, row in table.items()]
    return {"columns": columns, "rows": rows}


def _example(example: ShownReply, vectors: VectorSet) -> dict[str, Any]:
    entry = vectors[example.trait]
    return {
        "title": entry.title,
        "kind": example.kind,
        "prompt": passage(example.prompt),
        "z": example.score.z,
        "safe": entry.on_safe_side(example.score.centred),
        "tokens": marked(example.tokens, example.trait, entry.unsafe_side),
        "words": pushing_words(example.tokens, example.trait, entry.unsafe_side),
    }


def _plain(name: str) -> str:
    return name.replace("_", " ")


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
