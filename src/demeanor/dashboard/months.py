"""Reports: the audit log's counts by month, and the HTML reports of a folder.

Counting a log means checking its whole chain, which takes seconds for a long one: it is done beside the pages, and what was counted last is
shown with its time. A report is a file of its own that may hold anything: it is shown without any right on the dashboard.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response

from demeanor.audit.counts import report
from demeanor.dashboard.handling import Asked, NotFoundError
from demeanor.dashboard.look import HEADERS
from demeanor.errors import AuditError

FRESH = 60.0  # seconds for which counts are not made anew
ALONE = "sandbox allow-scripts allow-downloads; frame-ancestors 'none'"
"""With this a report runs its own script, and is a stranger to the dashboard: it has no session and reads no page."""


@dataclass
class Counted:
    """A log's counts, made in a thread when they are asked for."""

    path: Path
    clock: Callable[[], float] = time.time
    _found: dict[str, Any] | None = None
    _problem: str = ""
    _at: float = 0.0
    _thread: threading.Thread | None = None

    def latest(self) -> tuple[dict[str, Any] | None, str, float]:
        """The last counts, or what was wrong, and when they were made; None while the first are being made."""
        if (self._thread is None or not self._thread.is_alive()) and self.clock() - self._at > FRESH:
            self._thread = threading.Thread(target=self._count, daemon=True, name="audit counts")
            self._thread.start()
            self._thread.join(0.05)  # those of a short log are there at once
        return self._found, self._problem, self._at

    def _count(self) -> None:
        try:
            self._found, self._problem = report(self.path), ""
        except AuditError as error:
            self._problem = str(error)
        self._at = self.clock()


def shown(asked: Asked) -> Response:
    """The months of the audit log, and the reports of the folder."""
    counted = asked.desk.counted
    found, problem, at = counted.latest() if counted is not None else (None, "", 0.0)
    months = (
        [
            (month, {**counts, "pointed": sum(counts["referrals"].values())})
            for month, counts in sorted(found["months"].items(), reverse=True)
        ]
        if found
        else []
    )
    rules = sorted({rule for _, counts in months for rule in counts["rules"]})
    return asked.show(
        "months.html", log=counted is not None, found=found, problem=problem, at_time=at, months=months, rules=rules,
        files=[(path.name, path.stat().st_mtime) for path in _files(asked)], folder=asked.desk.reports is not None,
    )  # fmt: skip


def file(asked: Asked) -> Response:
    """One report."""
    wanted = asked.parts["name"]
    for path in _files(asked):
        if path.name == wanted:
            return FileResponse(path, headers={**HEADERS, "Content-Security-Policy": ALONE}, media_type="text/html")
    raise NotFoundError(f"there is no report {wanted[:80]!r}")


def _files(asked: Asked) -> list[Path]:
    folder = asked.desk.reports
    if folder is None or not folder.is_dir():
        return []
    found = [path for path in folder.glob("*.html") if path.is_file() and not path.is_symlink()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
