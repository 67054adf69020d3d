"""The day of a row, from a field of a usual name: text that begins with a date, or seconds (or milliseconds) since 1970."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from demeanor.data.fields import plain

NAMES = ("date", "day", "time", "datetime", "timestamp", "createdat", "created", "createtime", "startedat", "starttime")
"""Usual names, in lower case, without spaces, hyphens and underscores; the first that is there and holds a day is read."""
_BEGINS = re.compile(r"\s*(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?!\d)")
_SECONDS = (0.5e9, 5e9)  # 1985 to 2128; a thousand times that are milliseconds


def date_of(record: Mapping[str, Any]) -> str:
    """The day as 2026-01-31; empty where no field says it."""
    named: dict[str, Any] = {}
    for name, value in record.items():
        named.setdefault(plain(name), value)
    return next((day for name in NAMES if (day := _day(named.get(name)))), "")


def _day(value: object) -> str:
    if isinstance(value, str) and (found := _BEGINS.match(value)):
        try:
            return date(*map(int, found.groups())).isoformat()
        except ValueError:
            return ""
    seconds = _number(value)
    for scale in (1.0, 1e3):
        if _SECONDS[0] <= seconds / scale < _SECONDS[1]:
            return datetime.fromtimestamp(seconds / scale, UTC).date().isoformat()
    return ""


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
