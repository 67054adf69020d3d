"""What a trait's held-out results amount to: does the vector beat its baselines? Reads plain data, computes nothing."""

from __future__ import annotations

from typing import Any


def baselines(metrics: dict[str, Any]) -> dict[str, float]:
    """The AUROC that each baseline reaches on the held-out pairs; the length's whichever way it leans."""
    return {
        "reply length": max(metrics["length"]["auroc"], 1 - metrics["length"]["auroc"]),
        "a bag of words": metrics["words"]["auroc"],
        "random directions (97.5th percentile)": metrics["random"]["p97_5"],
        "swapped poles (97.5th percentile)": metrics["permutation"]["p97_5"],
    }


def strongest_baseline(metrics: dict[str, Any]) -> tuple[str, float]:
    """The baseline with the highest AUROC."""
    levels = baselines(metrics)
    name = max(levels, key=lambda n: levels[n])
    return name, levels[name]


def verdict(metrics: dict[str, Any]) -> tuple[bool, str]:
    """Whether the vector beats all its baselines, and the sentence that says so or names those that it does not beat."""
    held = metrics["auroc"]
    result = f"AUROC {held['value']:.2f} [{held['low']:.2f}, {held['high']:.2f}] on {held['pairs']} held-out pairs"
    lost = [f"{name} {level:.2f}" for name, level in baselines(metrics).items() if not held["value"] > level]
    if lost:
        return False, f"{result} does NOT beat {' nor '.join(lost)}: do not rely on this vector."
    name, level = strongest_baseline(metrics)
    if held["low"] <= level:
        return True, f"{result} beats every baseline, but the interval reaches down to {name} ({level:.2f})."
    return True, f"{result} beats every baseline clearly; the strongest is {name} ({level:.2f})."
