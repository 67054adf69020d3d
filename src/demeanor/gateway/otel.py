"""Every rule's result as OpenTelemetry's log event `gen_ai.evaluation.result`, in the provider that the application has set up.

    gen_ai.evaluation.name          the rule's name              gen_ai.evaluation.score.value   z of the rule's trait
    gen_ai.evaluation.score.label   passed, fired, raised, not judged, not scored
    gen_ai.evaluation.explanation   what was compared with what, in numbers
    gen_ai.response.id              the answer's own id, if it has one         demeanor.decision.id    leads to the audit record
    error.type                      why a rule could not be judged, as docs/metrics.md names it

The event belongs to the span that is current, or to the context that is given. It holds no text: reasons that are sentences of somebody
else's, such as those of an exception, are left out. The conventions are in development; this is the one place that knows them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from demeanor.errors import MissingExtraError
from demeanor.gateway.reasons import kind_of
from demeanor.monitor.decision import Decision
from demeanor.monitor.outcome import RuleResult

try:
    from opentelemetry._logs import LoggerProvider, SeverityNumber, get_logger
except ImportError as error:
    raise MissingExtraError("OpenTelemetry's events need opentelemetry-api: pip install 'demeanor[otel]'") from error

if TYPE_CHECKING:
    from opentelemetry.context import Context

EVENT = "gen_ai.evaluation.result"
IN_NUMBERS = ("passed", "fired", "not judged")  # states whose reason is made of a trait's name and numbers


class EvaluationEvents:
    """Emits the events of decisions."""

    def __init__(self, provider: LoggerProvider | None = None) -> None:
        """By default with the application's own provider; without one nothing is emitted."""
        self._logger = get_logger("demeanor", logger_provider=provider)

    def emit(self, decision: Decision, decision_id: str, response_id: str | None = None, context: Context | None = None) -> None:
        """One event for each rule."""
        for attributes in events_of(decision, decision_id, response_id):
            quiet = attributes["gen_ai.evaluation.score.label"] in ("passed", "not judged")
            severity = SeverityNumber.INFO if quiet else SeverityNumber.WARN
            self._logger.emit(event_name=EVENT, attributes=attributes, severity_number=severity, context=context)


def events_of(decision: Decision, decision_id: str, response_id: str | None = None) -> Iterator[dict[str, str | float]]:
    """The attributes of each rule's event."""
    for result in decision.results:
        found: dict[str, str | float] = {
            "gen_ai.evaluation.name": result.rule,
            "gen_ai.evaluation.score.label": result.state,
            "demeanor.decision.id": decision_id,
        }
        if (z := _z(decision, result)) is not None:
            found["gen_ai.evaluation.score.value"] = z
        if result.state in IN_NUMBERS and result.trait:
            found["gen_ai.evaluation.explanation"] = result.reason
        if response_id is not None:
            found["gen_ai.response.id"] = response_id
        if result.state == "not scored":
            found["error.type"] = kind_of(result.reason)
        yield found


def _z(decision: Decision, result: RuleResult) -> float | None:
    score = decision.reading.scores.get(result.trait) if decision.reading is not None else None
    return float(score.z) if score is not None and math.isfinite(score.z) else None
