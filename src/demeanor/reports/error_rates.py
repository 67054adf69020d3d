"""How often a limit errs, both ways, as the calibration's own sample says."""

from __future__ import annotations

from typing import NamedTuple

from demeanor.measure.calibration import Calibration
from demeanor.measure.cuts import Cut
from demeanor.measure.thresholds import Threshold
from demeanor.reports.page import percent


class Errors(NamedTuple):
    """Both errors in words."""

    false_alarms: str
    missed: str


def errors_of(calibration: Calibration | None, cut: Cut) -> Errors | None:
    """Of a cut that a calibration holds; None of one that was set by hand, of which nothing is known."""
    if calibration is None or cut.scale != "z" or not cut.halves:
        return None
    found = next((t for t in calibration.thresholds.values() if t.z == cut.value and t.halves == cut.halves), None)
    return None if found is None else errors_at(found)


def errors_at(t: Threshold) -> Errors:
    """Of a threshold: the error that it keeps to, and what was seen of each."""
    alarms = [f"{percent(t.observed_false_alarm)} of safe replies"] if t.observed_false_alarm is not None else []
    alarms += [f"{percent(t.observed_ordinary)} of everyday ones"] if t.observed_ordinary is not None else []
    missed = "unknown: no unsafe replies in the sample" if t.observed_miss is None else f"{percent(t.observed_miss)} of unsafe replies"
    between = f" (95 %: {100 * t.other_low:.0f} to {100 * (t.other_high or 0):.0f} %)" if t.other_low is not None else ""
    if t.kind == "miss":
        return Errors((" and ".join(alarms) or "unknown") + between, f"{missed}; set for at most {percent(t.rate)}")
    of = "everyday" if t.kind == "ordinary" else "safe"
    return Errors(f"{' and '.join(alarms) or 'unknown'}; set for at most {percent(t.rate)} of {of} ones", missed + between)
