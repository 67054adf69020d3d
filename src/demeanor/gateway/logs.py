"""One line of JSON for each request: when, what was asked, by whom, how it ended, and which decisions were taken.

    {"time": "2026-11-29T05:00:00.000Z", "endpoint": "chat_completions", "who": "web-app", "status": 200, "ms": 412.3,
     "decisions": [{"id": "...", "action": "substitute", "severity": "red", "rules": ["crisis"], "not_scored": null, "recorded": true}]}

The line is put together from numbers, names out of the policy, and words of this package's own. Nothing that a client or an upstream
sent goes into it, no path, header, key, text or message of an error; so that none can be found in it.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

from demeanor.gateway.reasons import kind_of
from demeanor.monitor.decision import Decision

_WORD = re.compile(r"[a-z][a-z0-9_.-]{0,39}")


def request_line(
    endpoint: str,
    who: str,
    status: int,
    seconds: float,
    decisions: Sequence[tuple[str, Decision]],
    at: datetime.datetime,
    gone: bool = False,
) -> str:
    """The line of one request.

    Args:
        endpoint: Its name; what is no plain word, such as a path, is logged as "other".
        who: The name of the key that was used.
        status: Of the answer.
        seconds: That it took.
        decisions: The decisions that were taken, each with its id.
        at: When it ended.
        gone: Whether the client left before the end.
    """
    line: dict[str, Any] = {
        "time": at.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "endpoint": endpoint if _WORD.fullmatch(endpoint) else "other",
        "who": who,
        "status": status,
        "ms": round(1000 * seconds, 1),
        "decisions": [_decided(id_, decision) for id_, decision in decisions],
    }
    return json.dumps(line | ({"client_left": True} if gone else {}), ensure_ascii=True)


class RequestLog:
    """Writes lines to a stream, from any thread. A stream that cannot be written to costs lines, never an answer."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        """By default standard error."""
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self.lost = 0
        """Lines that could not be written."""

    def write(self, line: str) -> None:
        """Write one line."""
        with self._lock:
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):  # a full disk, a closed pipe
                self.lost += 1


def _decided(id_: str, decision: Decision) -> dict[str, Any]:
    return {
        "id": id_,
        "action": decision.action,
        "severity": decision.severity,
        "rules": list(decision.rules),
        "not_scored": None if decision.not_scored is None else kind_of(decision.not_scored),
        "recorded": decision.unrecorded is None,
    }
