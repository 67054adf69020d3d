"""What a log holds in numbers, by year and by month, without identifiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demeanor.audit.verification import Verification, checked


def report(path: str | Path) -> dict[str, Any]:
    """Counts by year and by month, without identifiers: decisions, severity, action taken, rules, referrals, not scored.

    Counts the records that hold; "chain" says whether those are all, "interrupted" how many replies began to be shown and were never
    decided on (or are being written just now). Raises AuditError where the file cannot be read.
    """
    open_ids: set[str] = set()
    years: dict[str, Counter[str]] = {}
    months: dict[str, _Month] = {}
    verification = Verification(0, "")
    for state, record in checked(Path(path)):
        verification = state
        if record is not None and "opened" in record:
            open_ids.add(record["opened"])
        elif record is not None and "event" not in record:
            open_ids.discard(record.get("decision", ""))
            months.setdefault(record["time"][:7], _Month()).count(record)
            years.setdefault(record["time"][:4], Counter()).update(decisions=1, referrals=int(record["referral"]))
    return {
        "records": verification.records,
        "chain": "whole" if verification.whole else verification.problem,
        "interrupted": len(open_ids),
        "years": {year: {"decisions": c["decisions"], "referrals": c["referrals"]} for year, c in sorted(years.items())},
        "months": {month: counts.to_record() for month, counts in sorted(months.items())},
    }


@dataclass
class _Month:
    decisions: int = 0
    referrals: Counter[str] = field(default_factory=Counter)
    severity: Counter[str] = field(default_factory=Counter)
    action: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    not_scored: int = 0
    overridden: int = 0
    only_tried: int = 0
    """Replies that a trial run showed, and the policy would have replaced."""

    def count(self, record: Mapping[str, Any]) -> None:
        self.decisions += 1
        self.severity[record["severity"] or "none"] += 1
        self.action[record["taken"]] += 1
        self.rules.update(record["rules"])
        self.not_scored += record["not_scored"] is not None
        trial = record.get("trial", False)
        self.only_tried += trial
        self.overridden += record["taken"] != record["recommended"] and not trial
        if record["referral"]:
            self.referrals[record["situation"] or "none"] += 1

    def to_record(self) -> dict[str, Any]:
        counters = {name: dict(sorted(getattr(self, name).items())) for name in ("severity", "action", "rules", "referrals")}
        return {
            "decisions": self.decisions,
            **counters,
            "not_scored": self.not_scored,
            "overridden": self.overridden,
            "only_tried": self.only_tried,
        }
