"""From conversations to readings: the one way by which anything in Demeanor is scored.

conversations -> token ids, and where each message stands among them (a reader) -> raw scores of spans (the reader) -> readings (a
gauge). The reader is the seam to a model: see reads. One reply, many, every turn of a conversation, every token of a reply: they are here
together, as they are one thing, the same few steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypedDict

from demeanor.conversation import (
    Conversation,
    ConversationLike,
    SpanOf,
    as_conversation,
    reasoning_alone,
    reply_of,
    user_turns,
)
from demeanor.errors import ConversationError, DemeanorError, ModelError, sound
from demeanor.language import caution
from demeanor.measure.calibration import Calibration
from demeanor.model.chat import Encoded
from demeanor.model.packing import Job
from demeanor.model.reader import ActivationReader
from demeanor.scoring.gauge import Gauge, Place, Places
from demeanor.scoring.reading import NotScored, Reading, SetApart, TokenScores
from demeanor.scoring.reads import Reads
from demeanor.signs import Sign, signs_of
from demeanor.vectors import built_in
from demeanor.vectors.vector_set import VectorSet

if TYPE_CHECKING:
    from demeanor.model.loading import Quantization


class _Prepared(NamedTuple):
    """A conversation as tokens, and where what is read of it stands."""

    ids: list[int]
    places: Places
    signs: tuple[Sign, ...] = ()
    caution: str = ""


class Beside(TypedDict):
    """What is said of a text beside its scores."""

    signs: tuple[Sign, ...]
    caution: str


class _Reasoned(NamedTuple):
    """A conversation with reasoning in its last reply: itself, and how that is to be read, which may be impossible, or not wanted."""

    reply: _Prepared
    characters: int
    reasoning: _Prepared | DemeanorError | None


_Ready: TypeAlias = "_Prepared | _Reasoned | DemeanorError"

CHUNK = 512  # conversations that are tokenised, sorted by length and scored together; bounds the memory


class Scorer:
    """Scores conversations with a model and its vector set. `open_scorer` makes one from names and folders.

    Args:
        reader: What reads the model: an `ActivationReader(model, tokenizer)`, or whatever else gives `Reads`.
        vectors: The vector set.
        allow_other_model: Score although the vectors were made with another model; `warnings` then says so.
        reasoning_hidden: Users never see the reasoning in replies (<think>...</think>): it is set apart and not read. By default it
            is read beside the reply, so that no harm hides in it.

    Raises:
        WrongModelError: the vectors belong to another model.
    """

    def __init__(self, reader: Reads, vectors: VectorSet, allow_other_model: bool = False, reasoning_hidden: bool = False) -> None:
        self.warnings = vectors.check_model(reader.identity, allow_other_model)
        self.reads, self.vectors = reader, vectors
        self.reasoning_hidden = reasoning_hidden
        self.gauge = Gauge(vectors)
        self.languages = vectors.languages

    @property
    def reader(self) -> ActivationReader:
        """The reader, where it is Demeanor's own: what writes, steers or is extracted with needs one. Raises ModelError for another."""
        if not isinstance(self.reads, ActivationReader):
            raise ModelError(f"{type(self.reads).__name__} only reads; writing and steering need an ActivationReader of the model")
        return self.reads

    @property
    def traits(self) -> list[str]:
        """The traits that it scores, in the vector set's order."""
        return self.gauge.traits

    @property
    def calibrations(self) -> dict[str, Calibration]:
        """By trait, how raw scores are read."""
        return self.gauge.calibrations

    def __repr__(self) -> str:
        warned = "".join(f"\n  warning: {warning}" for warning in self.warnings)
        return f"Scorer({self.reads}; traits: {', '.join(self.traits)}){warned}"

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        model: str | None = None,
        device: str = "auto",
        allow_other_model: bool = False,
        reasoning_hidden: bool = False,
        template: str | None = None,
    ) -> Scorer:
        """As `open_scorer`: a vector set, by default the built-in one, and the model that it names (or `model`)."""
        return open_scorer(folder, model, device, allow_other_model=allow_other_model, reasoning_hidden=reasoning_hidden, template=template)

    def score(self, conversation: ConversationLike) -> Reading:
        """The reading of one conversation's last reply: for each trait raw, centred, z and probability, higher is more of it.

        Raises DemeanorError where it cannot be scored: ConversationError for what is no conversation, ActivationError for NaN.
        """
        (result,) = self._score(self._prepare([conversation]))
        return sound(result)

    def score_many(self, conversations: Iterable[ConversationLike]) -> Iterator[Reading | NotScored]:
        """Readings in the order of `conversations`, which may be endless: memory is bounded by chunks.

        A conversation that cannot be scored yields a NotScored with the cause, and the others go on. While the model
        runs on one chunk, the next is tokenised: the source is read up to two chunks ahead. What it raises is raised
        once all that it gave before has been scored.
        """
        chunks = _chunks(conversations)
        failed: Exception | None = None
        with ThreadPoolExecutor(1) as tokenising:
            ahead = tokenising.submit(self._prepare, next(chunks, []))
            while prepared := ahead.result():
                try:
                    following = next(chunks, [])
                except Exception as error:
                    failed, following = error, []
                ahead = tokenising.submit(self._prepare, following)
                for result in self._score(prepared):
                    yield NotScored(str(result)) if isinstance(result, DemeanorError) else result
        if failed is not None:
            raise failed

    def score_turns(self, conversation: ConversationLike) -> list[Reading | NotScored]:
        """A reading for each assistant message, each with what came before it, from a single pass over the whole.

        Raises ConversationError where there is no assistant message, ChatTemplateError where the template cannot render them.
        """
        whole = as_conversation(conversation)
        turns = [i for i, m in enumerate(whole.messages) if m.role == "assistant"]
        if not turns:
            raise ConversationError("no assistant message in the conversation; add one with role 'assistant' to score it")
        encoded = self.encoded(whole)
        until = [Conversation(whole.messages[: turn + 1]) for turn in turns]
        wanted: list[Places | DemeanorError] = []
        for conversation in until:
            try:
                wanted.append(Places(self.spans(conversation, encoded)))
            except ConversationError as error:
                wanted.append(error)
        spans = [span for places in wanted if isinstance(places, Places) for span in self.gauge.asked(places)]
        raw = self.reads.project([Job(encoded.ids, spans)], self.gauge.directions)[0] if spans else None
        results: list[Reading | NotScored] = []
        at = 0
        for conversation, places in zip(until, wanted, strict=True):
            if isinstance(places, DemeanorError) or raw is None or isinstance(raw, DemeanorError):
                results.append(NotScored(str(places if isinstance(places, DemeanorError) else raw)))
                continue
            windows = self.reads.windows(max(end for _, end in places.spans.values()))
            size = len(self.gauge.asked(places))
            reading = self.gauge.reading(raw[at : at + size], places, windows)
            results.append(replace(reading, apart=self.set_apart(conversation), **self.beside(conversation)))
            at += size
        return results

    def encoded(self, conversation: Conversation) -> Encoded:
        """The conversation as tokens. Raises ChatTemplateError where the template refuses it."""
        (encoded,) = self.reads.encode([conversation])
        return sound(encoded)

    def beside(self, conversation: Conversation) -> Beside:
        """What is said of the last reply beside its scores; without one, of the user's message."""
        reply = reply_of(conversation)
        return {"signs": signs_of(reply), "caution": caution(reply or conversation.messages[-1].content, self.languages)}

    def set_apart(self, conversation: Conversation, read: Callable[[Conversation], Reading] | None = None) -> SetApart | None:
        """The reasoning in a conversation's last reply, read (by `score`, or by `read`) in that reply's place; None where there is none."""
        reasoning = reasoning_alone(conversation)
        if reasoning is None:
            return None
        found: Reading | NotScored | None = None
        if not self.reasoning_hidden:
            try:
                found = (read or self.score)(reasoning)
            except DemeanorError as error:
                found = NotScored(str(error))
        return SetApart(len(reply_of(reasoning)), found)

    def score_tokens(self, conversation: ConversationLike) -> TokenScores:
        """How each token of the response pushes each trait that is read on responses."""
        whole = as_conversation(conversation)
        encoded = self.encoded(whole)
        start, end = encoded.place(whole, "response")
        (raw,) = self.reads.project([Job(encoded.ids, [(i, i + 1) for i in range(start, end)])], self.gauge.directions)
        return TokenScores(self.reads.token_texts(encoded.ids[start:end]), self.gauge.token_z(sound(raw)))

    def spans(self, conversation: Conversation, encoded: Encoded) -> dict[SpanOf, Place]:
        """What is to be read of a conversation. Without words of the user's, only the reply is.

        Raises ConversationError where there is no reply to read, or nothing at all.
        """
        kinds = dict.fromkeys(self.gauge.reads.values())
        spans: dict[SpanOf, Place] = {}
        for span in kinds:
            try:
                spans[span] = encoded.place(conversation, span)
            except ConversationError:
                if span == "response" or len(kinds) == 1:
                    raise
        return spans

    def _prepare(self, items: Sequence[ConversationLike]) -> list[_Ready]:
        """Conversations as tokens, with what is to be read of them, or why that cannot be."""
        checked: list[Conversation | DemeanorError] = []
        for item in items:
            try:
                checked.append(as_conversation(item))
            except DemeanorError as error:
                checked.append(error)
        reasoned = {i: r for i, c in enumerate(checked) if isinstance(c, Conversation) and (r := reasoning_alone(c)) is not None}
        prepared = self._tokenised([*checked, *([] if self.reasoning_hidden else reasoned.values())])
        ready: list[_Ready] = list(prepared[: len(checked)])
        for number, (i, conversation) in enumerate(reasoned.items()):
            reply, reasoning = prepared[i], None if self.reasoning_hidden else prepared[len(checked) + number]
            if isinstance(reply, _Prepared):
                ready[i] = _Reasoned(reply, len(reply_of(conversation)), reasoning)
        return ready

    def _tokenised(self, checked: Sequence[Conversation | DemeanorError]) -> list[_Prepared | DemeanorError]:
        whole = [c for c in checked if isinstance(c, Conversation)]
        tokenised = zip(whole, self.reads.encode(whole), strict=True)
        prepared: list[_Prepared | DemeanorError] = []
        for entry in checked:
            if isinstance(entry, DemeanorError):
                prepared.append(entry)
                continue
            conversation, encoded = next(tokenised)
            if isinstance(encoded, DemeanorError):
                prepared.append(encoded)
                continue
            try:
                spans, back = self.spans(conversation, encoded), self.gauge.looks_back
                turns = user_turns(conversation)[-back:] if back else []
                places = Places(spans, tuple(tuple(encoded.spans[i] for i in turn) for turn in turns))
                prepared.append(_Prepared(encoded.ids, places, **self.beside(conversation)))
            except ConversationError as error:
                prepared.append(error)
        return prepared

    def _score(self, ready: Sequence[_Ready]) -> Iterator[Reading | DemeanorError]:
        parts = [[entry.reply, entry.reasoning] if isinstance(entry, _Reasoned) else [entry] for entry in ready]
        jobs = [Job(p.ids, self.gauge.asked(p.places)) for entry in parts for p in entry if isinstance(p, _Prepared)]
        found = iter(self.reads.project(jobs, self.gauge.directions))

        def read(part: _Prepared) -> Reading | DemeanorError:
            raw = next(found)
            if isinstance(raw, DemeanorError):
                return raw
            return replace(self.gauge.reading(raw, part.places, self.reads.windows(len(part.ids))), signs=part.signs, caution=part.caution)

        for entry in ready:
            if isinstance(entry, _Prepared):
                yield read(entry)
            elif isinstance(entry, DemeanorError):
                yield entry
            else:
                reply, reasoning = read(entry.reply), entry.reasoning
                beside = read(reasoning) if isinstance(reasoning, _Prepared) else reasoning
                apart = SetApart(entry.characters, NotScored(str(beside)) if isinstance(beside, DemeanorError) else beside)
                yield reply if isinstance(reply, DemeanorError) else replace(reply, apart=apart)


def open_scorer(
    vectors: VectorSet | str | Path | None = None,
    model: str | Reads | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quantization: Quantization | None = None,
    allow_other_model: bool = False,
    reasoning_hidden: bool = False,
    template: str | None = None,
) -> Scorer:
    """A vector set and its model, ready to score with.

    Args:
        vectors: A set, or the folder of one; by default the built-in one.
        model: A name, a folder or a GGUF file as `load_model` takes it, or a reader that is there; by default what the set names.
        device: As `load_model` takes it.
        dtype: As `load_model` takes it.
        quantization: "8bit" or "4bit" (CUDA); by default as the vectors were made, unless another model is allowed.
        allow_other_model: Score although the vectors were made with another model; `Scorer.warnings` then says so.
        reasoning_hidden: Users never see the reasoning in replies; see `Scorer`.
        template: "chatml", "llama3", "plain" or a file, for a model without a chat template; by default as the vectors were made.

    Raises:
        VectorSetError: there is no such set, or it is damaged.
        ModelError: the model cannot be found or loaded.
        ChatTemplateError: the model has no chat template, and none was told.
        WrongModelError: the vectors belong to another model.
    """
    chosen = vectors if isinstance(vectors, VectorSet) else VectorSet.load(vectors or built_in.FOLDER)
    if model is not None and not isinstance(model, str):
        return Scorer(model, chosen, allow_other_model, reasoning_hidden)
    from demeanor.model.loading import load_model
    from demeanor.model.talking import with_template

    as_made = None if allow_other_model else chosen.model.load_quantization
    loaded = load_model(model or chosen.model.name, quantization or as_made, device, dtype)
    loaded = with_template(loaded, template or chosen.model.load_template, keep_own=template is None and allow_other_model)
    return Scorer(ActivationReader(*loaded, chosen.model.blocks or None), chosen, allow_other_model, reasoning_hidden)


def _chunks(source: Iterable[ConversationLike]) -> Iterator[list[ConversationLike]]:
    """A source in lists; where it raises, what it gave before comes first."""
    items = iter(source)
    while True:
        chunk: list[ConversationLike] = []
        try:
            for item in itertools.islice(items, CHUNK):
                chunk.append(item)
        except Exception:
            if chunk:
                yield chunk
            raise
        if not chunk:
            return
        yield chunk
