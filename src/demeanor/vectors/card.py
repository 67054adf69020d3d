"""The card of a vector set: what it measures, how well, and what it cannot do, for a person who opens the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demeanor.vectors.vector_set import VectorSet

LIMITS = """\
- The contrast pairs are invented, in English, text only; no clinician has rated them yet. Before anything rests on
  these scores, measure them on labelled replies from your own chatbot.
- A score speaks of one reply as one model reads it. It is no diagnosis and no proof that a reply is safe.
- The vectors belong to the model, chat template, dtype and quantisation above, and to no other.
- A probability takes the poles to be as frequent as where it was calibrated: half and half in contrast pairs, the sample's own
  share after `demeanor adapt` or `demeanor calibrate`."""


def card(vectors: VectorSet) -> str:
    """The card as Markdown."""
    m = vectors.model
    lines = [
        "# Persona vectors",
        "",
        f"Model: {m.name} ({m.architecture}, {m.layers} layers of width {m.hidden_size}, {m.dtype}, quantisation {m.quantization}).",
        f"Made on {vectors.created or 'an unknown date'} with {', '.join(f'{k} {v}' for k, v in sorted(vectors.versions.items()))}.",
        f"A response's tokens are pooled by their {vectors.pooling}.",
        *_dtypes(vectors),
        "",
        "| trait | read at layers | method | held-out AUROC | 95 % interval | held-out pairs | safe side |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in vectors.traits.items():
        held = entry.proof.auroc if entry.proof is not None else None
        value, interval, pairs = "not measured", "", "0"
        if held is not None:
            value, pairs = f"{held.value:.2f}", str(held.pairs)
            interval = f"{held.low:.2f} to {held.high:.2f}"
        layers = ", ".join(str(layer) for layer in entry.reading.layers)
        method = entry.reading.metadata.get("method", "unknown")
        if adapted := entry.reading.metadata.get("adapted"):
            method += f", adapted to {adapted['rows']} labelled replies (cross-validated AUROC {adapted['auroc']['value']:.2f})"
        lines.append(f"| {name} | {layers} | {method} | {value} | {interval} | {pairs} | {entry.safe_pole} |")
    lines += ["", "## What the poles mean", ""]
    for name, entry in vectors.traits.items():
        lines += [f"- **{name}**, read on the {entry.reads}. High: {entry.high_pole} Low: {entry.low_pole}"]
    lines += _sources(vectors)
    lines += ["", "## Limits", "", LIMITS, ""]
    return "\n".join(lines)


def _sources(vectors: VectorSet) -> list[str]:
    """The public labelled sets that traits have learnt from, with their licences and a hash over their rows."""
    lines = [
        f"- **{trait}**: {name}, {facts['rows']} rows, licence {facts['licence']}, {facts['upstream']} (rows: sha256 {facts['sha256']})"
        for trait, entry in vectors.traits.items()
        for name, facts in (entry.reading.metadata.get("sources") or {}).get("joined", {}).items()
    ]
    return ["", "## Public sets that joined the training", "", *lines] if lines else []


def _dtypes(vectors: VectorSet) -> list[str]:
    """A sentence for each dtype in which the set was compared with its own."""
    return [
        f"Also compared in {dtype}, as extracted: on {found['replies']:.0f} replies no z moved by more than {found['largest_z']:.2f} "
        f"(half of them by less than {found['median_z']:.3f}), and {found['decisions']:.0f} of the monitor's decisions changed."
        for dtype, found in vectors.dtypes.items()
    ]
