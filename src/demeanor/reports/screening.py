"""The report of a screening: the flagged rows, worst first; how far the data would push a model; what each threshold would remove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from demeanor.conversation import Conversation, Message
from demeanor.data.to_label import ToLabel
from demeanor.language import counted
from demeanor.reports.cards import Card, Number, choices, limit_of, said_of, sheet_of
from demeanor.reports.error_rates import Errors, errors_at
from demeanor.reports.figures import Dot, Level, Plot, Rows, Scale, Track, bars, line_plot, side
from demeanor.reports.marking import marked, passage, pushing_words
from demeanor.reports.page import signed, write_page
from demeanor.reports.sentences import of_trait
from demeanor.scoring.reading import TokenScores
from demeanor.screening.results import Explained, Screening
from demeanor.vectors import VectorSet

BASELINES = {
    "mean": "the neutral mean: half-way between the two poles in the vector set's calibration. A row's difference is then how much "
    "of the trait it shows, wherever that comes from, the prompt included",
    "generate": "the model's own answer to the same prompt. A row's difference is then what the row would teach the model beyond "
    "what it does already",
}
CUTS = (-3.0, 6.0)  # of the curves of what a cut would remove


def write_report(made: Screening, vectors: VectorSet, path: Path) -> None:
    """Write the report of a screening to `path`, in the folder of its results. Raises OutputError where it cannot be written."""
    summary = made.summary
    traits = {name: trait for name, trait in summary["traits"].items() if trait["rows"]}
    cards, rows = _cards(made, vectors)
    titles = {name: entry.title for name, entry in vectors.traits.items()}
    repeated = [(f"row-{f.row}", f.row, n, passage(f.reply)) for f, n in made.repeated]
    contents = [
        ("read", f"To be read ({len(cards)})"),
        *([("repeated", f"What repeats ({len(repeated)})")] if repeated else []),
        ("push", "Where the data would push a model"),
        ("thresholds", "What each threshold would remove"),
        ("distributions", "Distributions"),
        ("limits", "What this page cannot tell"),
    ]
    write_page(
        path,
        "screening.html",
        contents,
        summary=summary,
        caution=counted(summary["cautions"], summary["rows"], summary["languages"]) if summary.get("cautions") else "",
        baseline=BASELINES[summary["baseline"]],
        names=[f["name"] for f in summary["input"]],
        cards=cards,
        shown=sum(card.keys["flagged"] == "yes" for card in cards),
        choices={"trait": choices(cards, "trait", titles), "flagged": choices(cards, "flagged", {})},
        sheet=sheet_of(rows, "screening-to-label.csv"),
        repeated=repeated,
        shifts=[_shift(name, trait, vectors) for name, trait in traits.items() if trait["shift"]],
        shift_figure=_shifts(traits, vectors),
        thresholds=[
            (titles[name], _thresholds(name, trait["thresholds"], vectors)) for name, trait in traits.items() if trait["thresholds"]
        ],
        removal=_removal(traits, made, titles),
        distributions=[(titles[name], _distribution(name, trait, made, vectors)) for name, trait in traits.items()],
        conditions=[
            (titles.get(name, name), titles.get(of[0], of[0]), *of[1:]) for name, all_of in summary["conditions"].items() for of in all_of
        ],
    )


def _cards(made: Screening, vectors: VectorSet) -> tuple[list[Card], list[tuple[str, ToLabel]]]:
    """The worst rows of all traits, each row once, the worst first; and as rows of a sheet to label, in the order of the data."""
    by_row: dict[int, list[tuple[str, Explained]]] = {}
    for trait, explained in made.worst.items():
        for each in explained:
            by_row.setdefault(each.flagged.row, []).append((trait, each))
    found: list[tuple[float, Card]] = []
    rows: list[tuple[str, ToLabel]] = []
    for row in sorted(by_row):
        several = sorted(by_row[row], key=lambda each: -each[1].flagged.beyond)
        card = _card(several, made, vectors)
        found.append((several[0][1].flagged.beyond, card))
        flagged = several[0][1].flagged
        if flagged.messages:
            name, conversation = str(row if flagged.id is None else flagged.id), Conversation(_messages(several[0][1]))
            rows += [(card.anchor, ToLabel(name, conversation, "", vectors[trait].question(trait))) for trait, _ in several]
    return [card for _, card in sorted(found, key=lambda each: (each[1].keys["flagged"] != "yes", -each[0]))], rows


def _card(several: Sequence[tuple[str, Explained]], made: Screening, vectors: VectorSet) -> Card:
    worst, explained = several[0]
    flagged = explained.flagged
    crossed = [(trait, each) for trait, each in several if each.crosses] or several[:1]
    messages = _messages(explained)
    at = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "assistant"), len(messages))
    last = next((m.content for m in reversed(messages[:at]) if m.role == "user"), "")
    card = Card(
        anchor=f"row-{flagged.row}",
        kind="crosses" if explained.crosses else "near",
        sentences=tuple(_sentence(trait, each, made, vectors) for trait, each in crossed),
        done="flagged" if explained.crosses else "not flagged",
        where=("row", str(flagged.row), "" if flagged.id is None else f" (id {flagged.id})"),
        keys={"trait": " ".join(trait for trait, _ in several), "flagged": "yes" if explained.crosses else "no"},
        place=flagged.row,
        user=passage(last),
        reply=passage(flagged.reply),
        said=said_of(messages, at) if len(messages) > 2 else (),
        numbers=tuple(Number(vectors[trait].title, signed(each.flagged.z), limit_of(made.limits[trait].cut)) for trait, each in several),
    )
    if not isinstance(explained.tokens, TokenScores) or worst not in explained.tokens.z:
        return card
    unsafe = made.limits[worst].cut.unsafe_side
    words = tuple(pushing_words(explained.tokens, worst, unsafe))
    return replace(card, reply=marked(explained.tokens, worst, unsafe), by=vectors[worst].title, words=words)


def _messages(explained: Explained) -> tuple[Message, ...]:
    return tuple(Message(m["role"], m["content"]) for m in explained.flagged.messages)  # type: ignore[arg-type]


def _sentence(trait: str, explained: Explained, made: Screening, vectors: VectorSet) -> str:
    cut = made.limits[trait].cut
    if explained.crosses:
        return of_trait(trait, cut, vectors[trait], explained.flagged.beyond)
    return f"Among the nearest to the limit of {vectors[trait].title.lower()}, and not beyond it."


def _shift(name: str, trait: dict[str, Any], vectors: VectorSet) -> dict[str, Any]:
    entry, shift = vectors[name], trait["shift"]
    value, low, high = (shift["spreads"][k] for k in ("value", "low", "high"))
    clear = low is not None and (low > 0 or high < 0)
    return {
        "title": entry.title,
        "value": value,
        "low": low,
        "high": high,
        "raw": shift["raw"]["value"],
        "rows": shift["rows"],
        "toward": entry.high_pole if value > 0 else entry.low_pole,
        "clear": clear,
        "safe": entry.on_safe_side(value),
    }


def _shifts(traits: dict[str, Any], vectors: VectorSet) -> Rows:
    known = {name: trait["shift"]["spreads"] for name, trait in traits.items() if trait["shift"]}
    ends = [s[key] for s in known.values() for key in ("value", "low", "high") if s[key] is not None]
    scale = Scale.over([0.0, *ends])
    tracks = []
    for name, s in known.items():
        clear = s["low"] is not None and (s["low"] > 0 or s["high"] < 0)
        kind = side(vectors[name].on_safe_side(s["value"])) if clear else "plain"
        within = None if s["low"] is None else (scale.at(s["low"]), scale.at(s["high"]))
        words = signed(s["value"]) + ("" if s["low"] is None else f" ({signed(s['low'])} to {signed(s['high'])})")
        tracks.append(Track(vectors[name].title, words, within, (Dot(scale.at(s["value"]), 50, kind),), kind=kind))
    title = "mean difference from the baseline, in spreads"
    return Rows("Shift of the data set for each trait, with its interval", scale, title, tuple(tracks), (Level(scale.at(0), "zero"),))


def _distribution(name: str, trait: dict[str, Any], made: Screening, vectors: VectorSet) -> Plot:
    edges = np.array(made.summary["edges"])
    middles = (edges[1:] + edges[:-1]) / 2
    most = max([1, *trait["histogram"]])
    tall = most > 1000  # then a logarithm, in which a bar of one row is seen too
    counts = [np.log10(1 + n) if tall else float(n) for n in trait["histogram"]]
    values = [
        (float(count), side(vectors[name].on_safe_side(middle)), f"{n} rows from {low:+.2f} to {high:+.2f}")
        for count, n, middle, low, high in zip(counts, trait["histogram"], middles, edges[:-1], edges[1:], strict=True)
    ]
    x, y = Scale.over([float(edges[0]), float(edges[-1])], 8), _log_scale(most) if tall else Scale.over([0.0, float(most)], 4)
    label = f"Distribution of the scores for {vectors[name].title}"
    drawn = bars(label, values, x, "z", y, "rows (logarithmic)" if tall else "rows", edges.tolist())
    if name not in made.limits:
        return replace(drawn, height=170)
    return replace(drawn, height=170, upright=(Level(x.at(made.limits[name].cut.value), "limit", "limit"),))


def _log_scale(most: int) -> Scale:
    """0 to the next power of ten, laid out by the logarithm of one more."""
    top = int(np.ceil(np.log10(most)))
    ticks = tuple(float(np.log10(1 + 10**i)) for i in range(top + 1))
    return Scale(0.0, ticks[-1], ticks, tuple(f"{10**i:,}" for i in range(top + 1)))


def _thresholds(name: str, found: Sequence[dict[str, Any]], vectors: VectorSet) -> list[dict[str, Any]]:
    """Each threshold with what it would remove, and how often it errs where the calibration holds it."""
    known = vectors[name].calibration.thresholds
    return [t | {"errors": errors_at(known[t["name"]]) if t["name"] in known else Errors("not known", "not known")} for t in found]


def _removal(traits: dict[str, Any], made: Screening, titles: dict[str, str]) -> Plot:
    """Share of rows beyond a cut, for every cut on z toward the unsafe side."""
    edges = np.array(made.summary["edges"])
    drawn = {}
    for name, limit in made.limits.items():
        if name not in traits:
            continue
        counts = np.array(traits[name]["histogram"], float)
        if limit.cut.unsafe_side == "above":
            at, beyond = edges[:-1], counts[::-1].cumsum()[::-1]
        else:
            at, beyond = -edges[1:][::-1], counts.cumsum()[::-1]
        share = 100 * beyond / max(1.0, counts.sum())
        drawn[titles[name]] = [(float(z), float(s)) for z, s in zip(at, share, strict=True) if CUTS[0] <= z <= CUTS[1]]
    label = "Share of rows beyond each cut, one line a trait"
    x, y = Scale.over(CUTS, 9), Scale.over([0.0, 100.0], 5)
    return line_plot(label, drawn, "cut: z toward the unsafe side", "% of rows beyond", x, y, marked=False, height=300)
