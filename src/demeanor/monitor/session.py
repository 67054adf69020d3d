"""The monitor beside a chatbot: a session for each conversation, and for each reply a decision within the deadline.

    session.user(text)       what the user says; it is read for risk together with the reply
    session.check(reply)     a reply from elsewhere, whole                   -> Decision
    await session.acheck(..) the same, without holding up the event loop     -> Decision
    session.stream(chunks)   a reply from elsewhere, while it is written     -> ReplyStream, then its decision
    session.astream(chunks)  the same from an asynchronous iterator          -> AsyncReplyStream, then its decision
    session.write()          a reply of the loaded model's own, likewise     -> ReplyStream, then its decision

Every failure of the scorer (any exception, memory, NaN, the deadline) makes a reply "not scored", and the policy says what
is done about it; only mistakes of the caller raise. What a conversation goes on with is what was shown: after a
substitution, the reviewed text. Nothing is read for a session but in a pass that somebody waits for: all of the user's
messages that a condition looks at, and the reply, in one. Monitor and Session are one thing: each is made of the other's parts, and
neither means anything alone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord
from demeanor.conversation import Conversation, ConversationLike, Message, as_conversation
from demeanor.errors import ConversationError, DemeanorError, ModelError
from demeanor.measure.cuts import Action, withholds
from demeanor.measure.drift import Baseline, DriftWatch
from demeanor.model.contexts import Steering
from demeanor.model.generation import Sampling, write_reply
from demeanor.monitor.async_stream import AsyncReplyStream, in_thread
from demeanor.monitor.decision import Decision, ReplySource, new_id
from demeanor.monitor.history import History
from demeanor.monitor.listener import Listener
from demeanor.monitor.looks import Look, Looks
from demeanor.monitor.outcome import also, at_least, decide, marked
from demeanor.monitor.passes import Passes, z_of
from demeanor.monitor.policy import Policy, PolicyLike, ResolvedPolicy, load_policy, unresolved
from demeanor.monitor.recording import Recorder, record_of
from demeanor.monitor.replies import DEFAULT_COUNTRY, Replies, load_replies
from demeanor.monitor.showing import Showing
from demeanor.monitor.stream import ReplyStream
from demeanor.monitor.window import RunningTokens
from demeanor.monitor.worker import Deadline, Worker, reason
from demeanor.monitor.writing import WrittenStream
from demeanor.scoring.engine import Engine
from demeanor.scoring.live import ConversationScorer, LiveReading, OnToken, Written
from demeanor.scoring.reading import NotScored, Reading
from demeanor.scoring.scorer import Scorer, open_scorer
from demeanor.signs import signs_of
from demeanor.spelling import is_blank

WARM_UP = Conversation((Message("user", "Hello."), Message("assistant", "Hello. How are you feeling today?")))  # its language is told, too
PATIENCE = 60.0  # seconds for the warm-up, which goes on by itself after that
GIB = 1 << 30


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
        memory: int = GIB,
    ) -> None:
        """Bind a policy to a scorer, and read a first few words, so that the first check does not wait for what is done once.

        Args:
            scorer: What reads the replies. An error in its place: nothing can be scored, for that reason (see `load`).
            policy: One, the path of a YAML file, or None for the default.
            country: Whose crisis resources are named: an ISO 3166 code, or "none".
            audit: Where every decision is recorded: a log, or the path of one; it is then closed with the monitor.
            baseline: How each trait scores in ordinary conversations; without it no drift is watched.
            replies: The reviewed replies. Default: the built-in ones. Those of the policy's `replies` are added, by language.
            enforce: False: decisions are made and recorded, and every reply is shown all the same (a transcript, a trial run);
                `Decision.instead` is then what would have been shown in its place.
            deadline: Seconds for a check, where they are not to be the policy's.
            memory: Bytes that all sessions together may keep of what the model has read, so that a message costs its own tokens
                only. Beyond it the session that was read least recently gives up its own, and is read anew when it goes on.

        Raises:
            PolicyError: the policy, or a file of its replies, cannot be read; the policy does not fit the vector set; there are no
                resources for the country.
            AuditError: the log cannot be opened.
            VectorSetError: the vector set is read by pooling "max", or the baseline is for a trait that it lacks.
        """
        chosen = policy if isinstance(policy, Policy) else load_policy(policy)
        self.replies = (replies or load_replies()).also(chosen.reply_files)
        self.country = self.replies.check_usual_country(country)
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
        self.worker = Worker("demeanor-writer")
        self.engine = Engine(self.scorer.reads, self.scorer.gauge.directions, memory) if self.scorer is not None else None
        """Where all sessions' replies are read."""
        self.model = self.vectors = "none"
        if self.scorer is not None:
            model = self.scorer.vectors.model
            self.model, self.vectors = f"{model.name} ({model.fingerprint[:8]})", self.scorer.vectors.fingerprint()
        self.recorder = Recorder(audit)
        self._warm_up()

    @classmethod
    def load(cls, folder: str | Path, model: str | None = None, device: str = "auto", **options: Any) -> Monitor:
        """A monitor with the vector set in `folder` and the model that it names (or `model`); `options` as above.

        Where they cannot be used (damaged files, another model, pooling "max") the monitor is made all the same, for a service that has
        to answer: every reply is then not scored, and `problem` says why. Look at it before you open the service.
        """
        try:
            scorer: Scorer | DemeanorError = (loaded := open_scorer(folder, model, device))
            ConversationScorer(loaded)
        except DemeanorError as error:
            scorer = error
        return cls(scorer, **options)

    def _warm_up(self) -> None:
        """What the first pass of a model does once (whether beginnings can be shared, kernels, the template) is done now."""
        if self.scorer is not None and self.engine is not None:
            shared = self.engine.conversation()
            shared.deadline = Deadline(PATIENCE)
            with suppress(Exception):  # the first check says what is wrong
                ConversationScorer(self.scorer, shared=shared).read(WARM_UP)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the audit log, where the monitor opened it."""
        self.recorder.close()

    def watch_drift(self, baseline: Mapping[str, Baseline]) -> None:
        """Watch these traits for drift in the sessions that begin from now on. Raises VectorSetError: an unknown trait."""
        if self.scorer is not None:
            for trait in baseline:
                self.scorer.vectors[trait]
            self.baseline = dict(baseline)

    def drift_watch(self, earlier: int) -> DriftWatch | None:
        """What watches one conversation for drift, after so many replies; None without a baseline."""
        if self.baseline is None or self.scorer is None:
            return None
        vectors = self.scorer.vectors
        return DriftWatch(self.baseline, {t: vectors[t].unsafe_side for t in self.baseline}, earlier)

    @property
    def budget(self) -> Engine | None:
        """What keeps what was read, for all sessions: `used` bytes now."""
        return self.engine

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
            history: What was said before, a system message included, as it was shown. Its replies are not judged, but count for
                turns and drift.
            country: The user's, where it is not the monitor's.
        """
        known = self.replies.check_country(country) if country is not None else self.country
        return Session(self, conversation_id, as_conversation(history).messages if history else (), known)

    @property
    def audit(self) -> AuditLog | None:
        """Where every decision is recorded; None where nowhere."""
        return self.recorder.log


class Session:
    """One conversation under watch. Not for several threads at once; only `user` may be called while a reply streams elsewhere."""

    def __init__(self, monitor: Monitor, conversation_id: str, history: tuple[Message, ...], country: str) -> None:
        """Made by `Monitor.session`."""
        self.monitor, self.conversation_id, self.country = monitor, conversation_id, country
        self.reading: LiveReading | None = None
        """How the reply that was judged last was read, token by token; None where it could not be."""
        listener = Listener(monitor.policy)
        self._history = History(history, listener, monitor.replies.ends_with_one)
        self._drift = monitor.drift_watch(self._history.replies)
        shared = monitor.engine.conversation() if monitor.engine else None
        self._scorer = ConversationScorer(monitor.scorer, shared=shared) if monitor.scorer else None
        self._passes = Passes(self._scorer, shared, str(monitor.problem), listener, self._drift, self._history.own_replies())
        self._showing = Showing(monitor.replies, country)
        self._under_way: ReplyStream | None = None

    @property
    def messages(self) -> list[Message]:
        """The conversation as it was shown."""
        return self._history.messages

    def user(self, text: str) -> None:
        """What the user says; while a reply streams, it is filed after that reply. It does not wait for its reading."""
        self._history.hear(Message("user", _text(text, "user message")))

    def add(self, message: Message) -> None:
        """Put a message into the conversation that is not to be judged."""
        self._history.add(message)

    def check(self, reply: str, unread: str | None = None) -> Decision:
        """Judge a reply from elsewhere, as a whole.

        The same reply once more, with nothing said since, is judged anew and takes the place of what was shown for it before. A
        stream that nobody has finished is over. `unread` says why a reply cannot be scored, where that is known: it answers an image.
        """
        _text(reply, "reply")
        self._leave()
        again = self._take_back(reply)
        found, ms = self._passes.read(self.messages, reply, Deadline(self.monitor.deadline), again)
        decision = self._conclude(reply, found if unread is None else NotScored(unread), "observed", ms)
        self._history.file(reply, decision.text, _let_through(decision))
        return decision

    async def acheck(self, reply: str, unread: str | None = None) -> Decision:
        """The same as `check`, in a thread, so that the event loop goes on. Cancelled, it ends when the check has ended."""
        return await in_thread(self.check, reply, unread)

    def take_back(self) -> bool:
        """The last reply is asked for anew, as by a retry: what was shown for it counts no more. Gives whether there was one to take back.

        Only a reply that was judged here and that nothing was said after is taken back.
        """
        self._leave()
        taken = self._take_back(None)
        if taken:
            self._showing.take_back()
        return taken

    def stream(self, chunks: Iterable[str | None] = ()) -> ReplyStream:
        """Watch a reply from elsewhere while it is written; without `chunks`, feed them one by one.

        How many words are held back, and how many tokens a window has, stands in the policy.
        """
        if not isinstance(chunks, Iterable):
            way = "use session.astream(chunks)" if isinstance(chunks, AsyncIterable) else "give an iterable of text"
            raise ConversationError(f"a stream must be iterable, and {type(chunks).__name__} is not; {way}")
        return ReplyStream(*self._watched(), chunks, self.monitor.enforce, self._begin)

    def astream(self, chunks: AsyncIterable[str | None]) -> AsyncReplyStream:
        """The same for chunks that come asynchronously: `async for piece in session.astream(chunks)`. The event loop is not held up."""
        if not isinstance(chunks, AsyncIterable):
            way = "use session.stream(chunks)" if isinstance(chunks, Iterable) else "give an asynchronous iterable of text"
            raise ConversationError(f"{type(chunks).__name__} is not iterated over with 'async for'; {way}")
        return AsyncReplyStream(*self._watched(), chunks, self.monitor.enforce, self._begin)

    def write(self, sampling: Sampling | None = None, steering: Steering | None = None) -> WrittenStream:
        """Have the loaded model answer, under watch; the decision's source is then "generated".

        Args:
            sampling: How tokens are drawn.
            steering: What acts on the model while it writes. The reply is then read whole by the model without it, and
                shown after that.

        Raises:
            ModelError: there is no model that could answer.
        """
        scorer, monitor, passes = self._scorer, self.monitor, self._passes
        if scorer is None or monitor.scorer is None:
            raise ModelError(f"there is no model to answer with: {monitor.problem}")
        self._leave()
        messages, asked = tuple(self.messages), passes.asked
        tokens, looks = RunningTokens(), Looks(monitor.scorer.gauge, monitor.policy)

        def write(on_token: OnToken) -> Written:
            if steering is None:
                return scorer.write(messages, sampling, on_token, asked, passes.hear)
            with steering:
                reply = write_reply(scorer.scorer.reader, messages, sampling, lambda _: bool(on_token("", {})))
            return Written(reply, scorer.read(Conversation((*messages, Message("assistant", reply.text))), asked))

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
                passes.hear(written.live.others)
                if stream.stopped is None and written.reply.text.startswith(stream.shown):
                    stream.text = written.reply.text
            return self._judged(stream, found, looks, "generated", ms)

        return WrittenStream(
            write,
            monitor.worker,
            monitor.deadline,
            tokens.add,
            lambda _: looks.look(tokens.z, len(tokens), passes.users(), {}),
            judge,
            self._end,
            monitor.policy.policy.stream.hold_back_words,
            monitor.enforce,
            self._begin,
        )

    def _watched(self) -> tuple[Callable[[str], Look], Callable[[ReplyStream], Decision], Callable[[ReplyStream], None], int]:
        """What a stream asks and tells: its looks, its decision, its end; and how many words it holds back."""
        monitor, passes = self.monitor, self._passes
        looks = Looks(monitor.scorer.gauge, monitor.policy) if monitor.scorer is not None else None

        def look(text: str) -> Look:
            deadline = Deadline(monitor.deadline)
            found, _ = passes.read(self._history.before(text), text, deadline)
            if looks is None or isinstance(found, NotScored):
                if not deadline.left:
                    raise TimeoutError
                return Look(None, (), {})
            means = {t: s.z for t, s in found.reading.scores.items() if t in found.tokens.z}
            return looks.look(found.tokens.z, len(found.tokens.tokens), passes.users(), means, found.reading.apart)

        def judge(stream: ReplyStream) -> Decision:
            again = self._take_back(stream.text)
            found, ms = passes.read(self.messages, stream.text, Deadline(monitor.deadline), again)
            return self._judged(stream, found, looks, "observed", ms)

        return look, judge, self._end, monitor.policy.policy.stream.hold_back_words

    def _judged(
        self, stream: ReplyStream, found: LiveReading | NotScored, looks: Looks | None, source: ReplySource, ms: dict[str, float]
    ) -> Decision:
        """The decision on a stream at its end, with a last look at what no look has seen."""
        if stream.stopped is None and looks is not None and isinstance(found, LiveReading):
            last = looks.look(found.tokens.z, len(found.tokens.tokens), self._passes.users(), {}, found.reading.apart, end=True)
            stream.stopped = last if last.stops else None
        problem = f"the reply broke off ({stream.failure})" if stream.failure is not None else None
        if problem is None and is_blank(stream.text):
            problem = f"the {'model' if source == 'generated' else 'chatbot'} gave no reply to show"
        return self._conclude(stream.text, found, source, ms, stream.stopped, problem, stream.id)

    def _begin(self, stream: ReplyStream) -> None:
        self._leave()
        self._under_way = stream
        self._history.begin()

    def _leave(self) -> None:
        """A stream that is still under way when the next reply comes is over."""
        if (stream := self._under_way) is not None:
            stream.abandon()

    def _end(self, stream: ReplyStream) -> None:
        self._under_way = None
        shown = stream.shown + stream.owed
        if shown and stream.decision is not None:
            self._history.file(stream.text, shown, _let_through(stream.decision))
        else:
            self._history.end()

    def _take_back(self, reply: str | None) -> bool:
        """Where the last reply is judged once more, it is as if it had not been judged. Gives whether that is so. None: whatever it was."""
        again = self._history.take_back(reply)
        if again and self._drift is not None:
            self._drift.take_back()
        return again

    def _conclude(
        self,
        reply: str,
        found: LiveReading | NotScored,
        source: ReplySource,
        ms: dict[str, float],
        stopped: Look | None = None,
        problem: str | None = None,
        name: str = "",
    ) -> Decision:
        """The decision about a reply, recorded; `problem` says why there is no whole reply to show, `name` is the decision's id."""
        monitor, showing = self.monitor, self._showing
        told = [message.content for message in self.messages if message.role == "user"]
        with _timed(ms, "decide"):
            users = self._passes.users(*([found.error] if isinstance(found, NotScored) else []))
            said = users[-1][-1] if users else None
            if isinstance(found, LiveReading) and isinstance(said, Reading):
                # the pass that writes a reply reads only that
                found = replace(found, reading=replace(found.reading, scores=said.scores | found.reading.scores))
            self.reading = None if isinstance(found, NotScored) else found
            read = found if isinstance(found, NotScored) else found.reading
            outcome = decide(monitor.policy, read, users)
            if stopped is not None and stopped.outcome is not None:
                outcome = also(outcome, stopped.outcome, stopped.stops)
            outcome = marked(outcome, signs_of(reply))
            if problem is not None:
                outcome = at_least(outcome, "substitute", problem, "writing")
            drift = self._drift.turn(z_of(read)) if self._drift is not None else None
            name = name or new_id()
            decision = replace(showing.decision(outcome, self.reading, reply, told, source, monitor.enforce, drift, ms), id=name)
        if monitor.audit is not None:
            with _timed(ms, "audit"):
                unrecorded = monitor.recorder.write(self._record(decision, reply), monitor.deadline)
            if unrecorded is not None:
                outcome = at_least(outcome, monitor.policy.policy.audit_failure, unrecorded)
                raised = showing.decision(outcome, self.reading, reply, told, source, monitor.enforce, drift, ms)
                decision = replace(raised, unrecorded=unrecorded, id=name)
        showing.count(decision)
        return replace(decision, latency_ms=ms)

    def _record(self, decision: Decision, reply: str) -> AuditRecord:
        taken: Action = decision.action if decision.instead is None else "flag"
        return record_of(
            decision,
            self.conversation_id,
            self.monitor.model,
            self.monitor.vectors,
            self.monitor.policy.policy.identity,
            taken,
            reply,
        )


def _let_through(decision: Decision) -> bool:
    """Whether a reply was scored and not withheld; in a trial run, whether it would not have been."""
    return not withholds(decision.action) and decision.not_scored is None


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
