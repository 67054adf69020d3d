"""What of a decision goes into the audit log, and how it gets there within a deadline."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord, OpenedRecord
from demeanor.measure.cuts import Action, withholds
from demeanor.monitor.decision import Decision
from demeanor.monitor.worker import Deadline, Worker, reason


class Recorder:
    """Writes to an audit log, and waits no longer for it than a deadline."""

    def __init__(self, audit: AuditLog | str | Path | None) -> None:
        """On a log, the path of one, which is then closed with this, or nowhere. Raises AuditError where it cannot be opened."""
        self._closes = isinstance(audit, str | Path)
        self.log = AuditLog(audit) if isinstance(audit, str | Path) else audit
        self._worker = Worker("demeanor-audit")

    def write(self, record: AuditRecord | OpenedRecord, seconds: float) -> str | None:
        """Write a record; gives why it could not be written, or None.

        A record that is given up at the deadline is not written later, unless the disk is at it just then.
        """
        if self.log is None:
            return None
        deadline = Deadline(seconds)
        append = self.log.append
        leave: Future[None] = Future()  # to write it: whoever comes first, the log or the deadline, decides
        try:
            deadline.wait(self._worker.submit(lambda: append(record, leave.set_running_or_notify_cancel)))
        except TimeoutError:
            if leave.cancel():
                return f"{self.log.path}: the log did not answer within {deadline.seconds:g} s"
            return f"{self.log.path}: the record was still being written after {deadline.seconds:g} s; the log may come to hold it"
        except Exception as error:  # whatever it is, the user is owed an answer
            return reason(error)
        return None

    def close(self) -> None:
        """Close the log, where this opened it."""
        if self.log is not None and self._closes:
            self.log.close()


def record_of(
    decision: Decision,
    conversation_id: str,
    model: str,
    vectors: str,
    policy: str,
    taken: Action | None = None,
    text: str | None = None,
) -> AuditRecord:
    """The record of a decision; `taken` where something else than the recommended was done.

    A reply that a trial run showed is marked, not replaced, whatever the policy would have done: `taken` is then "flag" at most.
    """
    trial = decision.instead is not None
    return AuditRecord(
        conversation_id=conversation_id,
        model=model,
        vectors=vectors,
        policy=policy,
        recommended=decision.action,
        taken="flag" if trial and withholds(taken or decision.action) else taken or decision.action,
        severity=decision.severity,
        rules=decision.rules,
        scores={trait: score.z for trait, score in decision.reading.scores.items()} if decision.reading else {},
        source=decision.source,
        situation=decision.situation,
        referral=decision.referral,
        not_scored=decision.not_scored,
        latency_ms=decision.latency_ms,
        text=text,
        trial=trial,
        decision=decision.id,
    )
