"""Whether the gateway lives, and whether it can do its work: what is wrong is said in words, without any text of a conversation."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from demeanor.gateway.endpoint import Answer, Incoming
from demeanor.gateway.frames import dumped
from demeanor.gateway.refusals import App
from demeanor.monitor.session import Monitor

ROOM = 64 << 20
"""Bytes that must be free where the audit log lies."""
Problems = Callable[[], Sequence[str]]
Undelivered = Mapping[str, float] | None


class Health:
    """`more` says what else is wrong, such as keys that cannot be read; `undelivered` how many notices wait or were given up."""

    def __init__(self, monitor: Monitor, more: Problems = lambda: (), undelivered: Callable[[], Undelivered] = lambda: None) -> None:
        self._monitor, self._more, self._undelivered = monitor, more, undelivered
        self.unrecorded: str | None = None
        """Why the last decision is not in the audit log; None where it is."""
        self.untold: dict[str, str] = {}
        """What could not be told to metrics, logs or notices the last time, and the error's kind."""

    async def live(self, _: Incoming) -> App:
        """Whether the process answers at all."""
        return Answer(200, dumped({"status": "ok"}))

    async def ready(self, _: Incoming) -> App:
        """Whether replies can be judged and recorded: 200, or 503 with what is wrong."""
        problems = self.problems()
        body = {"ready": not problems, "problems": problems, "policy": self._monitor.policy.policy.identity}
        body |= {} if (notices := self._undelivered()) is None else {"notices": notices}
        return Answer(503 if problems else 200, dumped(body | {"model": self._monitor.model, "vectors": self._monitor.vectors}))

    def problems(self) -> list[str]:
        """What is wrong."""
        found = []
        if self._monitor.problem is not None:
            found.append(f"nothing can be scored: {self._monitor.problem}")
        if (log := self._monitor.audit) is not None:
            found += _disk(Path(log.path))
        if self.unrecorded is not None:
            found.append(f"decisions are not recorded: {self.unrecorded}")
        found += [f"telling what was {name} to metrics, logs or notices fails: {kind}" for name, kind in self.untold.items()]
        return [*found, *self._more()]


def _disk(path: Path) -> list[str]:
    try:
        free = shutil.disk_usage(path.absolute().parent).free
    except OSError as error:
        return [f"the audit log's folder cannot be looked at: {error.strerror}"]
    return [f"the disk of the audit log is full: {free >> 20} MB are free, and {ROOM >> 20} are wanted"] if free < ROOM else []
