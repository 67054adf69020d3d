"""How a chat is shown: the reply as it grows with its readings beside it, what was decided, the tokens that pushed, the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demeanor.cli import console

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from demeanor.monitor.decision import Decision
    from demeanor.monitor.session import Monitor, Session
    from demeanor.monitor.stream import ReplyStream

STYLES = {"allow": "green", "flag": "yellow", "substitute": "red", "escalate": "bold red"}
SIGNS = {"allow": "●", "flag": "▲", "substitute": "✕", "escalate": "✕"}
SPOKEN = {
    "allow": "allowed",
    "flag": "flagged for review",
    "substitute": "withheld",
    "escalate": "withheld, and a person called in",
}


def say(what: Text | str, markup: bool = True) -> None:
    """Print a line: wrapped at words on a terminal, whole elsewhere."""
    console.out.print(what, soft_wrap=not console.out.is_terminal, markup=markup)


def show(stream: ReplyStream, monitor: Monitor) -> None:
    """The reply with its readings beside it: as it grows on a terminal, once it is there elsewhere."""
    if not console.out.is_terminal:
        for _ in stream:
            pass
        console.out.print(_frame(stream, monitor))
        return
    from rich.live import Live

    with Live(console=console.out, get_renderable=lambda: _frame(stream, monitor), refresh_per_second=8, vertical_overflow="visible"):
        for _ in stream:
            pass


def _frame(stream: ReplyStream, monitor: Monitor) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    text = Text("bot › ", style="bold") + Text(stream.shown, style="not bold")
    if stream.decision is not None and not stream.decision.shown:
        text = Text("withheld; shown in its place:\n", style=STYLES[stream.decision.action]) + text
    if stream.decision is None:
        held = len(stream.text[len(stream.shown) :].split())
        text += Text(f" … {held} words held back" if held else " …", style="dim not bold")
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    grid.add_row(text, _readings(stream, monitor))
    return grid


def _readings(stream: ReplyStream, monitor: Monitor) -> Table:
    """The z of each trait, of the reply so far or of the whole."""
    from rich.table import Table
    from rich.text import Text

    from demeanor.cli.tables import bar

    decision = stream.decision
    z = {t: s.z for t, s in decision.reading.scores.items()} if decision and decision.reading else stream.z
    vectors = monitor.scorer.vectors  # type: ignore[union-attr]
    table = Table.grid(padding=(0, 1, 0, 0))
    contexts = vectors.contexts
    for trait, value in z.items():
        if trait in contexts:
            continue
        user = vectors[trait].reads == "user"
        colour = "green" if vectors[trait].on_safe_side(value) else "red"
        name = trait.replace("_", " ") if user else trait.split("_")[0]
        table.add_row(Text(name[:14], "dim"), bar(value, colour), Text(f"{value:+.1f}", colour))
    if decision is not None and decision.reading is None:
        table.add_row(Text("NOT scored", "bold yellow"))
    return table


def verdict(decision: Decision) -> Text:
    """What was decided, in a line."""
    from rich.text import Text

    style = STYLES[decision.action]
    line = Text(f"{SIGNS[decision.action]} {SPOKEN[decision.action]}", style=style)
    if decision.rules:
        line += Text(f"  {', '.join(decision.rules)}", style="dim")
    if decision.not_scored:
        line += Text(f"  NOT scored: {decision.not_scored}", style="yellow")
    return line


def heated(session: Session, decision: Decision, text: str) -> Text:
    """A reply with the tokens coloured that pushed the trait of the first rule that fired."""
    from rich.text import Text

    fired = next((r for r in decision.results if r.state in ("fired", "raised")), None)
    if session.reading is None or fired is None or fired.trait not in session.reading.tokens.z:
        return Text(text)
    heated = Text()
    for token, z in zip(session.reading.tokens.tokens, session.reading.tokens.z[fired.trait], strict=True):
        danger = z if fired.unsafe_side == "above" else -z
        heated.append(token, style="bold red" if danger > 3 else "red" if danger > 1 else "")
    return heated


def policy_table(monitor: Monitor) -> Table:
    """The rules and where they fire."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", title=f"policy {monitor.policy.policy.identity}", title_justify="left")
    for column in ("rule", "fires where", "action"):
        table.add_column(column, overflow="fold")
    for resolved in monitor.policy.rules:
        words = f"{resolved.rule.trait} {resolved.cut.words}"
        for also in resolved.conditions:
            words += f", and in the user's last {also.last_turns} turns {also.trait} {also.cut.words}"
        table.add_row(resolved.rule.name, words, f"[{STYLES[resolved.rule.action]}]{resolved.rule.action}[/]")
    return table
