"""`demeanor validate --sources`: a vector set on public labelled sets, as a table, and as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demeanor.cli import console
from demeanor.cli.sources import read_sources

if TYPE_CHECKING:
    from demeanor.data.converters import SourceRow
    from demeanor.data.public_sources import PublicSource
    from demeanor.extraction.external import External
    from demeanor.scoring import Scorer

    Sets = list[tuple[PublicSource, list[SourceRow]]]

COLUMNS = ("source", "trait", "rows", "groups", "vector", "95 % interval", "length", "words", "ceiling", "Spearman")
PATIENCE = 600.0  # seconds for a reply: nobody waits for it


def validate_sources(vectors: Path | None, names: str, folders: list[Path] | None, output: Path | None, device: str, dtype: str) -> None:
    """Measure a vector set on public sets, and print and write what was found. See extraction/external.py for the numbers."""
    console.check_places({}, {"--output": output})
    sets = read_sources(names, folders)
    scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
    labelled = [(source, rows) for source, rows in sets if source.trait in scorer.vectors.traits]
    ordinary = [(source, rows) for source, rows in sets if source.trait is None]
    if others := [s.name for s, _ in sets if s.trait is not None and s.trait not in scorer.vectors.traits]:
        console.note(f"left out: {', '.join(others)}; the vector set has no trait that they measure")
    found = _on_labelled(scorer, labelled)
    talk = _on_ordinary(scorer, ordinary)
    if found:
        console.out.print(results_table(found))
        console.out.print(
            "vector, length, words, ceiling: AUROC; 0.5 is chance. Words and ceiling (a regression on the same activations) are fitted "
            "to the set itself and scored on groups left out: they show what is possible there.",
            soft_wrap=True,
        )
        console.out.print(length_line(found), soft_wrap=True)
    for name, each in talk.items():
        low, high = each["flagged_interval"]
        console.out.print(
            f"{name}: of {each['rows']} ordinary replies the default policy withholds {each['withheld']:.1%}, and withholds or flags "
            f"{each['flagged']:.1%} ({low:.1%} to {high:.1%})",
            soft_wrap=True,
        )
    if output is not None:
        from demeanor.data.rows import writing

        with writing(output) as file:
            if output.suffix.lower() == ".md":
                file.write(markdown(found, talk))
            else:
                file.write(json.dumps({"sources": [each.to_record() for each in found], "ordinary": talk}, indent=1) + "\n")
        console.note(f"written to {output}")


def _on_labelled(scorer: Scorer, sets: Sets) -> list[External]:
    from threadpoolctl import threadpool_limits

    from demeanor.extraction.external import as_replies, drawn, external_validity

    found = []
    with console.stages() as stage:
        for source, rows in sets:
            replies = as_replies(drawn(rows))
            vector = scorer.vectors[str(source.trait)].reading
            steps = stage(f"reading {source.name}", len(replies.conversations))
            x = scorer.reader.read(replies.conversations, vector.layers, "response", scorer.vectors.pooling, steps).numpy()
            with threadpool_limits(1, user_api="blas"):
                found.append(external_validity(source, vector, x, replies))
    return found


def _on_ordinary(scorer: Scorer, sets: Sets) -> dict[str, Any]:
    """For each set of ordinary talk, the share of replies that the default policy withholds, and that it withholds or flags."""
    import numpy as np

    from demeanor.conversation import Conversation
    from demeanor.errors import PolicyError
    from demeanor.extraction.external import drawn
    from demeanor.measure.cuts import withholds
    from demeanor.measure.statistics import share_interval
    from demeanor.monitor.session import Monitor

    talk: dict[str, Any] = {}
    if not sets:
        return talk
    try:
        monitor = Monitor(scorer, enforce=False, deadline=PATIENCE)
    except PolicyError as error:
        console.note(f"ordinary conversations are left out: {error}")
        return talk
    with console.stages() as stage, monitor:
        for source, rows in sets:
            some, actions = drawn(rows), []
            steps = stage(f"judging {source.name}", len(some))
            for row in some:
                session = monitor.session(f"{source.name} {row.id}", Conversation(row.messages[:-1]))
                actions.append(session.check(row.messages[-1].content).action)
                steps(1)
            _, groups = np.unique([row.group for row in some], return_inverse=True)
            shares: dict[str, Any] = {"rows": len(some)}
            for what, held in (("withheld", withholds), ("flagged", lambda action: action != "allow")):
                marked = np.array([held(action) for action in actions], bool)
                interval = share_interval(marked, groups)
                shares |= {what: float(marked.mean()), f"{what}_interval": [interval.low, interval.high]}
            talk[source.name] = shares
    return talk


def length_line(found: list[External]) -> str:
    """Where the vector tells the labels no better than the number of words does, in a sentence."""
    lost = [f"{e.source} ({e.auroc:.2f} against {max(e.length, 1 - e.length):.2f})" for e in found if e.loses_to_length]
    return f"No better than the reply's length on: {', '.join(lost)}." if lost else "Better than the reply's length on every set."


def cells(each: External) -> tuple[str, ...]:
    """A set's numbers as text, in the order of COLUMNS."""

    def value(number: float | None) -> str:
        return "" if number is None else f"{number:.2f}"

    between = f"{each.low:.2f} to {each.high:.2f}"
    counts = (str(each.rows), str(each.groups))
    return (
        each.source,
        each.trait,
        *counts,
        value(each.auroc),
        between,
        *map(value, (each.length, each.words, each.ceiling, each.spearman)),
    )


def markdown(found: list[External], talk: dict[str, Any]) -> str:
    """The results as Markdown, for a page."""
    lines = (
        [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", *(f"| {' | '.join(cells(each))} |" for each in found)] if found else []
    )
    lines += ["", length_line(found)] if found else []
    if talk:
        lines += ["", "| ordinary talk | replies | withheld | 95 % interval | withheld or flagged | 95 % interval |", f"|{'---|' * 6}"]
    for name, t in talk.items():
        (a, b), (c, d) = t["withheld_interval"], t["flagged_interval"]
        lines.append(f"| {name} | {t['rows']} | {t['withheld']:.1%} | {a:.1%} to {b:.1%} | {t['flagged']:.1%} | {c:.1%} to {d:.1%} |")
    return "\n".join(lines).strip() + "\n"


def results_table(found: list[External]) -> Any:
    """The results for a terminal: numbers are never cut, however narrow it is; long names of sets are folded."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    rows = [(each, cells(each)) for each in found]
    for i, name in enumerate(COLUMNS):
        if name == "source":
            table.add_column(name, overflow="fold")
        elif name != "trait":  # the set's name says it, and the file
            widest = max(len(name), *(len(row[i]) for _, row in rows))
            table.add_column(name, justify="right", no_wrap=True, min_width=widest)
    for each, (source, _, *numbers) in rows:
        numbers[2:3] = [Text(numbers[2], "bold red" if each.loses_to_length else "bold green")]  # type: ignore[list-item]
        table.add_row(source, *numbers)
    return table
