"""`demeanor top`: a running gateway in a terminal, from its /metrics and /readyz."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.errors import UnseenGatewayError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from demeanor.gateway.watching import Quantile, Seen

KEY = "DEMEANOR_KEY"
TIMES = (
    ("to the first words shown", "demeanor_first_shown_seconds"),
    ("added to the upstream's words", "demeanor_added_seconds"),
    ("waiting to be read", "demeanor_queue_seconds"),
    ("reading a reply", "demeanor_pass_seconds"),
    ("deciding", "demeanor_decide_seconds"),
    ("recording", "demeanor_audit_seconds"),
)


def top(
    url: Annotated[str, typer.Argument(help="Where the gateway is.")] = "http://127.0.0.1:8080",
    once: Annotated[bool, typer.Option("--once", help="Print one table and exit, with 1 if the gateway is not ready.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.5, help="Seconds between two looks, e.g. 5.")] = 2.0,
) -> None:
    """Watch a running gateway: whether it is ready, requests, actions, replies not scored, latencies, the queue. Ends with Ctrl-C.

    If the gateway has keys, put one with the scope admin into the variable DEMEANOR_KEY.

    Example: demeanor top --once
    """
    from demeanor.gateway.watching import look

    key = os.environ.get(KEY)
    now = look(url, key)
    if once:
        console.out.print(shown(now, None))
        raise typer.Exit(0 if now.ready else 1)
    from rich.live import Live
    from rich.text import Text

    with Live(shown(now, None), console=console.out, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            before = now
            try:
                now = look(url, key)
            except UnseenGatewayError as error:  # it may come back
                live.update(Text(str(error), "bold red"), refresh=True)
            else:
                live.update(shown(now, before), refresh=True)


def shown(now: Seen, before: Seen | None) -> Group:
    """What was seen, as tables; what happened since `before`, where there is an earlier look, and else from the gateway's beginning."""
    from rich.console import Group
    from rich.text import Text

    build = dict(next(iter(now.samples["demeanor_build_info"])))
    state = Text("ready" if now.ready else "NOT READY", "bold green" if now.ready else "bold red")
    head = Text.assemble(state, "  ", "  ".join(f"{name} {value}" for name, value in sorted(build.items())))
    return Group(head, *(Text(f"  {problem}", "red") for problem in now.problems), _counted(now, before), _timed(now, before), _gauges(now))


def _counted(now: Seen, before: Seen | None) -> Table:
    from demeanor.gateway.watching import rate

    table = _table("", "total", *(("a second",) if before is not None else ()))

    def row(what: str, name: str, style: str = "", **labels: str) -> None:
        grown = rate(now, before, name, **labels)
        total = now.total(name, **labels)
        cells = [what, f"{total:.0f}", *([f"{grown:.1f}" if grown is not None else ""] if before is not None else [])]
        table.add_row(*cells, style=style if total else "")

    row("requests", "demeanor_requests_total")
    for code in now.by("demeanor_refusals_total", "code"):
        row(f"  refused: {code}", "demeanor_refusals_total", code=code)
    row("decisions", "demeanor_decisions_total")
    for action in now.by("demeanor_decisions_total", "action"):
        row(f"  {action}", "demeanor_decisions_total", action=action)
    row("  replaced by the reviewed reply", "demeanor_decisions_total", replaced="true")
    for rule in now.by("demeanor_rules_fired_total", "rule"):
        row(f"  rule {rule}", "demeanor_rules_fired_total", rule=rule)
    row("not scored", "demeanor_not_scored_total", "bold red")
    for reason in now.by("demeanor_not_scored_total", "reason"):
        row(f"  {reason.replace('_', ' ')}", "demeanor_not_scored_total", "red", reason=reason)
    row("not in the audit log", "demeanor_unrecorded_total", "bold red")
    row("failures of the upstream", "demeanor_upstream_failures_total", "yellow")
    return table


def _timed(now: Seen, before: Seen | None) -> Table:
    from demeanor.gateway.watching import quantile

    table = _table("seconds", "50 %", "95 %", "99 %")
    for what, name in TIMES:
        found = [quantile(now, before, name, share) for share in (0.5, 0.95, 0.99)]
        if found[0] is not None:
            table.add_row(what, *(_seconds(each) for each in found))
    return table


def _gauges(now: Seen) -> Table:
    table = _table("now", "")
    resident = now.total("demeanor_process_resident_memory_bytes")
    for what, value in (
        ("replies that wait", _whole(now.total("demeanor_queue_depth"))),
        ("streams open", _whole(now.total("demeanor_streams_open"))),
        ("notices undelivered", _whole(now.total("demeanor_notices_undelivered"))),
        ("notices given up", _whole(now.total("demeanor_notices_dead"))),
        ("memory", f"{resident / 1e6:.0f} MB" if resident else "not known"),
    ):
        table.add_row(what, value)
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", min_width=40)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=bool(i), overflow="fold")
    return table


def _whole(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:.0f}"


def _seconds(found: Quantile | None) -> str:
    if found is None:
        return ""
    return f"{'> ' if found.above else ''}{found.seconds:.3g}"
