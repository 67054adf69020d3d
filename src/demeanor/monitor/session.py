"""The monitor beside a chatbot: a session for each conversation, and for each reply a decision within the deadline.

    session.user(text)       what the user says; it is read for risk while the chatbot thinks
    session.check(reply)     a reply from elsewhere, whole                   -> Decision
    session.stream(chunks)   a reply from elsewhere, while it is written     -> ReplyStream, then its decision
    session.write()          a reply of the loaded model's own, likewise     -> ReplyStream, then its decision

Every failure of the scorer (any exception, memory, NaN, the deadline) makes a reply "not scored", and the policy says what
is done about it; only mistakes of the caller raise. What a conversation goes on with is what was shown: after a
substitution, the reviewed text.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from demeanor.conversation import Conversation, ConversationLike, Message, as_conversation
from demeanor.errors import ConversationError, DemeanorError, ModelError
from demeanor.model.generation import Sampling, write_reply
from demeanor.model.intervention import Steering
from demeanor.monitor.audit import AuditLog, AuditRecord
from demeanor.monitor.decision import Decision, Outcome, Source, also, at_least, decide, marked, top_pushes
from demeanor.monitor.drift import Baseline, DriftMonitor, DriftState
from demeanor.monitor.policy import Action, Policy, PolicyLike, ResolvedPolicy, Situation, load_policy, unresolved, withholds
from demeanor.monitor.replies import DEFAULT_COUNTRY, Replies, load_replies
from demeanor.monitor.stream import Look, ReplyStream
from demeanor.monitor.window import RunningWindow, read_window
from demeanor.monitor.worker import Deadline, Worker, reason
from demeanor.monitor.writing import WrittenStream
from demeanor.scoring.live import ConversationScorer, LiveReading, OnToken, Written
from demeanor.scoring.reading import NotScored, Reading
from demeanor.scoring.scorer import Scorer
from demeanor.signs import signs_of
from demeanor.spelling import is_blank


class Monitor:
    """What all conversations with one chatbot share: scorer, policy, reviewed replies, audit log.

    Its sessions may be used from several threads; their passes take turns. So make one Monitor for a model: what else runs
    through it at the same time slows both down.
    """

    def __init__(
        self,
        scorer: Scorer | DemeanorError,
        policy: PolicyLike = None,
        country: str = DEFAULT_COUNTRY,
        audit: AuditLog | str | Path | None = None,
        baseline: Mapping[str, Baseline] | None = None,
        replies: Replies | None = None,
        enforce: bool = True,
        deadline: float | None = None,
    ) -> None:
        """Bind a policy to a scorer.

        Args:
            scorer: What reads the replies. An error in its place: nothing can be scored, for that reason (see `load`).
            policy: One, the path of a YAML file, or None for the default.
            country: Whose crisis resources are named: an ISO 3166 code, or "none".
            audit: Where every decision is recorded: a log, or the path of one; it is then closed with the monitor.
            baseline: How each trait scores in ordinary conversations; without it no drift is watched.
            replies: The reviewed replies. Default: the built-in ones.
            enforce: False: decisions are made and recorded, and every reply is shown all the same (a transcript, a trial run);
                `Decision.instead` is then what would have been shown in its place.
            deadline: Seconds for a check, where they are not to be the policy's.

        Raises:
            PolicyError: the policy cannot be read or does not fit the vector set; no resources for the country.
            AuditError: the log cannot be opened.
            VectorSetError: the vector set is read by pooling "max", or the baseline is for a trait that it lacks.
        """
        chosen = policy if isinstance(policy, Policy) else load_policy(policy)
        self.replies = replies or load_replies()
        self.country = self.replies.check_country(country)
        self.scorer = scorer if isinstance(scorer, Scorer) else None
        self.problem = str(scorer) if isinstance(scorer, DemeanorError) else None
        """Why nothing can be scored; None where it can."""
        if self.scorer is not None:
            ConversationScorer(self.scorer)  # refuses what no session could be read with
        self.policy: ResolvedPolicy = chosen.resolve(self.scorer.vectors) if self.scorer else unresolved(chosen)
        self.enforce, self.deadline = enforce, deadline or chosen.deadline_seconds
        self.baseline: dict[str, Baseline] | None = None
        if baseline:
            self.watch_drift(baseline)
        self.worker = Worker("demeanor-scorer")
        self.model = self.vectors = "none"
        if self.scorer is not None:
            model = self.scorer.vectors.model
            self.model, self.vectors = f"{model.name} ({model.fingerprint[:8]})", self.scorer.vectors.fingerprint()
        self._closes_audit = isinstance(audit, str | Path)
        self.audit = AuditLog(audit) if isinstance(audit, str | Path) else audit
        self._audit_worker = Worker("demeanor-audit")

    @classmethod
    def load(cls, folder: str | Path, model: str | None = None, device: str = "auto", **options: Any) -> Monitor:
        """A monitor with the vector set in `folder` and the model that it names (or `model`); `options` as above.

        Where they cannot be used (damaged files, another model, pooling "max") the monitor is made all the same, for a service that has
        to answer: every reply is then not scored, and `problem` says why. Look at it before you open the service.
        """
        try:
            scorer: Scorer | DemeanorError = (loaded := Scorer.load(folder, model, device))
            ConversationScorer(loaded)
        except DemeanorError as error:
            scorer = error
        return cls(scorer, **options)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the audit log, where the monitor opened it."""
        if self.audit is not None and self._closes_audit:
            self.audit.close()

    def watch_drift(self, baseline: Mapping[str, Baseline]) -> None:
        """Watch these traits for drift in the sessions that begin from now on. Raises VectorSetError: an unknown trait."""
        if self.scorer is not None:
            for trait in baseline:
                self.scorer.vectors[trait]
            self.baseline = dict(baseline)

    @property
    def drift_note(self) -> str:
        """What is watched for drift, in words."""
        if self.baseline is None:
            return "drift is not watched: there is no baseline of ordinary conversations"
        return f"drift is watched for {', '.join(self.baseline)}"

    def session(self, conversation_id: str, history: ConversationLike | None = None, country: str | None = None) -> Session:
        """A new conversation, or one that goes on.

        Args:
            conversation_id: The audit log holds its salted hash.
            history: What was said before, a system message included; its replies are not judged.
            country: The user's, where it is not the monitor's.
        """
        known = self.replies.check_country(country) if country is not None else self.country
        return Session(self, conversation_id, as_conversation(history).messages if history else (), known)

    def record(self, record: AuditRecord) -> str | None:
        """Write to the audit log, within the deadline; gives why it could not be written, or None.

        A record that is given up at the deadline is not written later, unless the disk is at it just then.
        """
        if self.audit is None:
            return None
        deadline = Deadline(self.deadline)
        append = self.audit.append
        leave: Future[None] = Future()  # to write it: whoever comes first, the log or the deadline, decides
        try:
            deadline.wait(self._audit_worker.submit(lambda: append(record, leave.set_running_or_notify_cancel)))
        except TimeoutError:
            if leave.cancel():
                return f"{self.audit.path}: the log did not answer within {deadline.seconds:g} s"
            return f"{self.audit.path}: the record was still being written after {deadline.seconds:g} s; the log may come to hold it"
        except Exception as error:  # whatever it is, the user is owed an answer
            return reason(error)
        return None


class Session:
    """One conversation under watch. Not for several threads at once."""

    def __init__(self, monitor: Monitor, conversation_id: str, history: tuple[Message, ...], country: str) -> None:
        """Made by `Monitor.session`."""
        self.monitor, self.conversation_id, self.country = monitor, conversation_id, country
        self.messages: list[Message] = []
        """The conversation as it was shown."""
        self.reading: LiveReading | None = None
        """How the reply that was judged last was read, token by token; None where it could not be."""
        self._scorer = ConversationScorer(monitor.scorer) if monitor.scorer else None
        self._user: list[Future[Reading | None]] = []
        self._substituted: Counter[Situation] = Counter()
        vectors = monitor.scorer.vectors if monitor.scorer else None
        self._drift = {
            trait: DriftMonitor(baseline, "below" if vectors[trait].safe_pole == "high" else "above")
            for trait, baseline in (monitor.baseline or {}).items()
            if vectors is not None
        }
        for message in history:
            self.add(message)

    def user(self, text: str) -> None:
        """What the user says. It does not wait for its reading."""
        self.add(Message("user", _text(text, "user message")))

    def check(self, reply: str) -> Decision:
        """Judge a reply from elsewhere, as a whole."""
        decision = self._judge(_text(reply, "reply"), None)
        self.messages.append(Message("assistant", decision.text))
        return decision

    def stream(self, chunks: Iterable[str] = ()) -> ReplyStream:
        """Watch a reply from elsewhere while it is written; without `chunks`, feed them one by one.

        How many words are held back, and how many tokens a window has, stands in the policy.
        """
        return ReplyStream(
            self._look,
            lambda stream: self._judge(stream.text, stream.stopped),
            self._end,
            self.monitor.policy.policy.stream.hold_back_tokens,
            chunks,
            self.monitor.enforce,
        )

    def write(self, sampling: Sampling | None = None, steering: Steering | None = None) -> WrittenStream:
        """Have the loaded model answer, under watch; the decision's source is then "generated".

        Args:
            sampling: How tokens are drawn.
            steering: What acts on the model while it writes. The reply is then read whole by the model without it, and
                shown after that.

        Raises:
            ModelError: there is no model that could answer.
        """
        scorer, monitor = self._scorer, self.monitor
        if scorer is None or monitor.scorer is None:
            raise ModelError(f"there is no model to answer with: {monitor.problem}")
        messages = tuple(self.messages)
        window = RunningWindow(monitor.scorer, monitor.policy.policy.stream.window_tokens)

        def write(on_token: OnToken) -> Written:
            if steering is None:
                return scorer.write(messages, sampling, on_token)
            with steering:
                reply = write_reply(scorer.scorer.reader, messages, sampling, lambda _: bool(on_token("", {})))
            return Written(reply, scorer.read(Conversation((*messages, Message("assistant", reply.text)))))

        begun = time.perf_counter()

        def judge(stream: ReplyStream) -> Decision:
            ms = {"write": 1000 * (time.perf_counter() - begun)}
            found: LiveReading | NotScored
            try:
                written = stream.written()  # type: ignore[attr-defined]
            except Exception as error:  # whatever it is, the user is owed an answer
                found = NotScored(reason(error))
            else:
                found = written.live
                if stream.stopped is None and written.reply.text.startswith(stream.shown):
                    stream.text = written.reply.text
            return self._conclude(stream.text, found, "generated", stream.stopped, ms)

        return WrittenStream(
            write,
            monitor.worker,
            monitor.deadline,
            window.add,
            lambda _: self._looked(window.reading(), {}),
            judge,
            self._end,
            monitor.policy.policy.stream.hold_back_tokens,
            monitor.enforce,
        )

    def add(self, message: Message) -> None:
        """Put a message into the conversation that is not to be judged; one of the user's, unless blank, is read in the background."""
        self.messages.append(message)
        scorer, so_far = self._scorer, tuple(self.messages)
        if _says(message) and scorer is not None:
            self._user.append(self.monitor.worker.submit(lambda: scorer.read_user(so_far)))

    def _judge(self, reply: str, stopped: Look | None) -> Decision:
        """Read a reply from elsewhere within the deadline, and decide."""
        ms: dict[str, float] = {}
        found = self._read(reply, Deadline(self.monitor.deadline), ms)
        return self._conclude(reply, found, "observed", stopped, ms)

    def _read(self, reply: str, deadline: Deadline, ms: dict[str, float]) -> LiveReading | NotScored:
        scorer = self._scorer
        if scorer is None:
            return NotScored(str(self.monitor.problem))
        whole = Conversation((*self.messages, Message("assistant", reply)))

        def read() -> tuple[float, LiveReading]:
            begun = time.perf_counter()
            return begun, scorer.read(whole)

        asked = time.perf_counter()
        try:
            begun, live = deadline.wait(self.monitor.worker.submit(read))
        except TimeoutError:
            return NotScored(f"no score within the deadline of {deadline.seconds:g} s")
        except Exception as error:  # whatever it is, the reply is not scored, and the policy says what follows
            return NotScored(reason(error))
        ms |= {"queue": 1000 * (begun - asked), "score": 1000 * (time.perf_counter() - begun)}
        return live

    def _look(self, text: str) -> Look:
        """What the policy says of the newest window of a reply from elsewhere."""
        deadline = Deadline(self.monitor.deadline)
        found = self._read(text, deadline, {})
        if isinstance(found, NotScored):
            if not deadline.left:
                raise TimeoutError(found.error)
            return Look(None, (), {})
        assert self.monitor.scorer is not None
        window = read_window(self.monitor.scorer, found.tokens, self.monitor.policy.policy.stream.window_tokens)
        if window is not None:
            window = replace(window, apart=found.reading.apart)
        return self._looked(window, {t: s.z for t, s in found.reading.scores.items() if t in found.tokens.z})

    def _looked(self, window: Reading | None, z: Mapping[str, float]) -> Look:
        if window is None:
            return Look(None, (), z)
        policy = self.monitor.policy
        outcome = decide(policy, window, self._users())
        stops = tuple(
            rule.name
            for rule, result in zip((r.rule for r in policy.rules), outcome.results, strict=True)
            if result.state == "fired" and rule.severity == "red" and withholds(rule.action) and rule.while_writing == "stop"
        )
        size = policy.policy.stream.window_tokens
        results = tuple(
            replace(r, explanation=f"{r.explanation[:-1]} (in a window of {size} tokens, where the reply was stopped).")
            if r.rule in stops
            else r
            for r in outcome.results
        )
        return Look(replace(outcome, results=results), stops, z)

    def _users(self) -> list[Reading | NotScored]:
        """Readings of the user's messages, oldest first. Those that are not there by now are not scored, for now."""
        found: list[Reading | NotScored] = []
        if self._scorer is None:
            return [NotScored(str(self.monitor.problem)) for m in self.messages if _says(m)]
        for future in self._user:
            # whoever comes here has waited for a later call of the same thread, or has waited long enough
            try:
                found.append(future.result(0) or NotScored("no trait of the vector set is read on the user's messages"))
            except TimeoutError:
                found.append(NotScored("the user's message was not read within the deadline"))
            except Exception as error:
                found.append(NotScored(reason(error)))
        return found

    def _conclude(self, reply: str, found: LiveReading | NotScored, source: Source, stopped: Look | None, ms: dict[str, float]) -> Decision:
        """The decision about a reply, recorded."""
        monitor = self.monitor
        with _timed(ms, "decide"):
            users = self._users()
            if isinstance(found, LiveReading) and users and isinstance(users[-1], Reading):
                # the pass that writes a reply reads only that
                found = replace(found, reading=replace(found.reading, scores=users[-1].scores | found.reading.scores))
            self.reading = None if isinstance(found, NotScored) else found
            read = found if isinstance(found, NotScored) else found.reading
            outcome = decide(monitor.policy, read, users)
            if stopped is not None and stopped.outcome is not None:
                outcome = also(outcome, stopped.outcome, stopped.stops)
            outcome = marked(outcome, signs_of(reply))
            if source == "generated" and not reply.strip():
                outcome = at_least(outcome, "substitute", "the model gave no reply to show", "writing")
            drift = {t: watch.update(read.scores[t].z if isinstance(read, Reading) and t in read.scores else None)
                     for t, watch in self._drift.items()}  # fmt: skip
            decision = self._decision(outcome, reply, source, drift, ms)
        if monitor.audit is not None:
            with _timed(ms, "audit"):
                unrecorded = monitor.record(self._record(decision, reply))
            if unrecorded is not None:
                outcome = at_least(outcome, monitor.policy.policy.audit_failure, unrecorded)
                decision = replace(self._decision(outcome, reply, source, drift, ms), unrecorded=unrecorded)
        if decision.situation is not None and not decision.shown:
            self._substituted[decision.situation] += 1
        return replace(decision, latency_ms=ms)

    def _decision(self, outcome: Outcome, reply: str, source: Source, drift: Mapping[str, DriftState], ms: dict[str, float]) -> Decision:
        text, referral, instead = reply, False, None
        if outcome.situation is not None:
            safe = self.monitor.replies.reply(outcome.situation, self.country, self._substituted[outcome.situation])
            if self.monitor.enforce:
                text, referral = safe.text, safe.referral
            else:
                instead = safe.text
        return Decision.of(
            outcome,
            self.reading.reading if self.reading else None,
            text,
            source,
            referral,
            top_pushes(self.reading.tokens, outcome.results) if self.reading else {},
            dict(ms),
            drift if self.monitor.baseline is not None else None,
            instead=instead,
        )

    def _record(self, decision: Decision, reply: str) -> AuditRecord:
        taken: Action = decision.action if decision.instead is None else "flag"
        return AuditRecord.of(
            decision,
            self.conversation_id,
            self.monitor.model,
            self.monitor.vectors,
            self.monitor.policy.policy.identity,
            taken,
            reply,
        )

    def _end(self, stream: ReplyStream) -> None:
        if stream.shown:
            self.messages.append(Message("assistant", stream.shown))


def _says(message: Message) -> bool:
    """Whether the message is one of the user's with words in it, and not only a picture, say."""
    return message.role == "user" and not is_blank(message.content)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ConversationError(f"a {what} is text, not {type(value).__name__}")
    return value


@contextmanager
def _timed(ms: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.perf_counter()
    try:
        yield
    finally:
        ms[stage] = 1000 * (time.perf_counter() - begun)
