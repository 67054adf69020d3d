"""From conversations to readings: the one way by which anything in Demeanor is scored.

conversations -> tokens and spans -> pooled activations -> one matrix product with all directions -> calibration.
Only [spans, traits] numbers leave the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.conversation import Conversation, ConversationLike, Message, SpanOf, as_conversation
from demeanor.errors import ConversationError, DemeanorError
from demeanor.measure.calibration import Score
from demeanor.measure.parts import on_whole_scale, part_spans, so_far_on_whole_scale
from demeanor.model.chat import Encoded
from demeanor.model.identity import identify, in_words
from demeanor.model.packing import Job
from demeanor.model.reader import ActivationReader
from demeanor.scoring.reading import NotScored, Reading, SetApart, TokenScores
from demeanor.signs import Sign, signs_of
from demeanor.spelling import is_blank
from demeanor.vectors import built_in
from demeanor.vectors.vector_set import VectorSet


class _Prepared(NamedTuple):
    """A conversation as tokens, and the token span of each message that is read in it."""

    ids: list[int]
    spans: dict[SpanOf, tuple[int, int]]
    signs: tuple[Sign, ...] = ()
    turns: tuple[tuple[tuple[int, int], ...], ...] = ()
    """The messages of the user's last turns that conditions look at, where there are any."""


class _Reasoned(NamedTuple):
    """A conversation with reasoning in its last reply: itself, and how that is to be read, which may be impossible, or not wanted."""

    reply: _Prepared
    characters: int
    reasoning: _Prepared | DemeanorError | None


_Ready: TypeAlias = "_Prepared | _Reasoned | DemeanorError"

CHUNK = 512  # conversations that are tokenised, sorted by length and scored together; bounds the memory


class Scorer:
    """Scores conversations with a model and its vector set.

    Args:
        model, tokenizer: As `load_model` gives them, or any transformers pair.
        vectors: The vector set.
        allow_other_model: Score although the vectors were made with another model; `warnings` then says so.
        reader: An ActivationReader of this model, where one is there already.
        reasoning_hidden: Users never see the reasoning in replies (<think>...</think>): it is set apart and not read. By default it
            is read beside the reply, so that no harm hides in it.

    Raises:
        WrongModelError: the vectors belong to another model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        vectors: VectorSet,
        allow_other_model: bool = False,
        reader: ActivationReader | None = None,
        reasoning_hidden: bool = False,
    ) -> None:
        self.vectors = vectors
        self.reasoning_hidden = reasoning_hidden
        self.warnings = vectors.check_model(identify(model, tokenizer), allow_other_model)
        self.reader = reader or ActivationReader(model, tokenizer, vectors.model.blocks or None)
        self.traits = list(vectors.traits)
        self.layers = vectors.layers
        self.calibrations = {name: entry.calibration for name, entry in vectors.traits.items()}
        self._directions = _stack(vectors, self.layers).to(self.reader.device)
        self.reads: dict[str, SpanOf] = {name: entry.reads for name, entry in vectors.traits.items()}
        self.by_parts: list[str] = [
            name
            for name, calibration in self.calibrations.items()
            if self.reads[name] == "response"
            and not vectors[name].judged_whole
            and calibration.parts is not None
            and vectors.pooling == "mean"
        ]

    @property
    def looks_back(self) -> int:
        """How many of the user's last turns the conditions of its traits look at."""
        kept = [entry.applies_when for entry in self.vectors.traits.values()]
        return max((when.last_turns for when in kept if when and self.reads.get(when.trait) == "user"), default=0)

    def __repr__(self) -> str:
        warned = "".join(f"\n  warning: {warning}" for warning in self.warnings)
        return f"Scorer({in_words(self.reader.model)}; traits: {', '.join(self.traits)}){warned}"

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        model: str | None = None,
        device: str = "auto",
        allow_other_model: bool = False,
        reasoning_hidden: bool = False,
    ) -> Scorer:
        """Load a vector set, by default the built-in one, and the model that it names (or `model`).

        Raises:
            VectorSetError: the folder holds no vector set, or a damaged one.
            WrongModelError: `model` is another than the vectors were made with, and `allow_other_model` is not set.
            ModelNotFoundError: the model is not here, and could not be fetched.
        """
        from demeanor.model.loading import load_model

        vectors = VectorSet.load(folder or built_in.FOLDER)
        loaded = load_model(model or vectors.model.name, None if allow_other_model else vectors.model.load_quantization, device)
        return cls(*loaded, vectors, allow_other_model, reasoning_hidden=reasoning_hidden)

    def score(self, conversation: ConversationLike) -> Reading:
        """The reading of one conversation's last reply: for each trait raw, centred, z and probability, higher is more of it.

        Raises DemeanorError where it cannot be scored: ConversationError for what is no conversation, ActivationError for NaN.
        """
        (result,) = self._score(self._prepare([conversation]))
        if isinstance(result, DemeanorError):
            raise result
        return result

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
        (encoded,) = self.reader.encoder.encode([whole])
        if isinstance(encoded, DemeanorError):
            raise encoded
        until = [Conversation(whole.messages[: turn + 1]) for turn in turns]
        wanted: list[dict[SpanOf, tuple[int, int]] | DemeanorError] = []
        for conversation in until:
            try:
                wanted.append(self.spans(conversation, encoded))
            except ConversationError as error:
                wanted.append(error)
        spans = [span for found in wanted if isinstance(found, dict) for span in self.with_parts(found)]
        (raw,) = self.reader.run([Job(encoded.ids, spans)], self.layers, self.vectors.pooling, self.project) if spans else [torch.zeros(0)]
        results: list[Reading | NotScored] = []
        at = 0
        for conversation, found in zip(until, wanted, strict=True):
            if isinstance(found, DemeanorError) or isinstance(raw, DemeanorError):
                results.append(NotScored(str(found if isinstance(found, DemeanorError) else raw)))
                continue
            windows = self.reader.windows(max(end for _, end in found.values()))
            size = len(self.with_parts(found))
            reading = self.reading(raw[at : at + size].double().numpy(), found, windows)
            results.append(replace(reading, signs=signs_of(reply_of(conversation)), apart=self.set_apart(conversation)))
            at += size
        return results

    def set_apart(self, conversation: Conversation) -> SetApart | None:
        """The reasoning in a conversation's last reply, read in that reply's place; None where there is none."""
        reasoning = reasoning_alone(conversation)
        if reasoning is None:
            return None
        found: Reading | NotScored | None = None
        if not self.reasoning_hidden:
            try:
                found = self.score(reasoning)
            except DemeanorError as error:
                found = NotScored(str(error))
        return SetApart(len(reply_of(reasoning)), found)

    def score_tokens(self, conversation: ConversationLike) -> TokenScores:
        """How each token of the response pushes each trait that is read on responses, in z; their mean is the reply's z by mean pooling.

        Raises DemeanorError where it cannot be scored.
        """
        tokens, activations = self.reader.read_tokens(conversation, self.layers)
        return TokenScores(tokens, self.token_z(self.project(activations.to(self.reader.device))))

    def token_z(self, raw: Tensor) -> dict[str, NDArray[np.float64]]:
        """Each token's z, from raw scores [tokens, traits], for the traits that are read on responses."""
        values = raw.cpu().double().numpy()
        return {name: self.calibrations[name].z(values[:, i]) for i, name in enumerate(self.traits) if self.reads[name] == "response"}

    def project(self, pooled: Tensor) -> Tensor:
        """[spans, layers, hidden] to raw scores [spans, traits], in one product."""
        return pooled.float().flatten(1) @ self._directions.T

    def spans(self, conversation: Conversation, encoded: Encoded) -> dict[SpanOf, tuple[int, int]]:
        """What is to be read of a conversation. Without words of the user's, only the reply is.

        Raises ConversationError where there is no reply to read, or nothing at all.
        """
        kinds = dict.fromkeys(self.reads.values())
        spans: dict[SpanOf, tuple[int, int]] = {}
        for span in kinds:
            try:
                spans[span] = self.reader.span(encoded, conversation, span)
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
        sound = [c for c in checked if isinstance(c, Conversation)]
        tokenised = zip(sound, self.reader.encoder.encode(sound), strict=True)
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
                spans = self.spans(conversation, encoded)
                turns = tuple(tuple(encoded.spans[i] for i in turn) for turn in user_turns(conversation)[-self.looks_back :])
                prepared.append(_Prepared(encoded.ids, spans, signs_of(reply_of(conversation)), turns if self.looks_back else ()))
            except ConversationError as error:
                prepared.append(error)
        return prepared

    def _score(self, ready: Sequence[_Ready]) -> Iterator[Reading | DemeanorError]:
        parts = [[entry.reply, entry.reasoning] if isinstance(entry, _Reasoned) else [entry] for entry in ready]
        jobs = [
            Job(p.ids, [*self.with_parts(p.spans), *(span for turn in p.turns for span in turn if span[0] < span[1])])
            for entry in parts
            for p in entry
            if isinstance(p, _Prepared)
        ]
        found = iter(self.reader.run(jobs, self.layers, self.vectors.pooling, self.project))

        def read(part: _Prepared) -> Reading | DemeanorError:
            raw = next(found)
            if isinstance(raw, DemeanorError):
                return raw
            values = raw.double().numpy()
            own = len(self.with_parts(part.spans))
            reading = self.reading(values[:own], part.spans, self.reader.windows(len(part.ids)))
            return replace(reading, signs=part.signs, users=self._heard(values[own:], part.turns))

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

    def _heard(
        self, raw: NDArray[np.float64], turns: tuple[tuple[tuple[int, int], ...], ...]
    ) -> tuple[tuple[Reading | NotScored, ...], ...]:
        """The readings of the user's messages, from their raw scores [messages with a token, traits]."""
        rows = iter(raw)
        nothing = NotScored("the tokenizer turns the user's message into no token at all")
        return tuple(
            tuple(self.reading(next(rows)[None], {"user": span}) if span[0] < span[1] else nothing for span in turn) for turn in turns
        )

    def with_parts(self, spans: Mapping[SpanOf, tuple[int, int]]) -> list[tuple[int, int]]:
        """What is read of a conversation: its spans, and after them the parts of a long reply, where some trait is judged by parts."""
        parts = part_spans(*spans["response"]) if self.by_parts and "response" in spans else []
        return [*spans.values(), *parts]

    def reading(self, raw: NDArray[np.float64], spans: Mapping[SpanOf, tuple[int, int]], windows: int = 1) -> Reading:
        """A reading from the raw scores [spans and parts, traits] of what `with_parts` gives for these spans."""
        kinds = list(spans)
        scores = {}
        for column, name in enumerate(self.traits):
            if self.reads[name] in kinds:
                scores[name] = self.as_score(name, float(raw[kinds.index(self.reads[name]), column]))
        worst: dict[str, Score] = {}
        if len(raw) > len(kinds):
            start, end = spans["response"]
            worst = self.worst({name: raw[len(kinds) :, self.traits.index(name)] for name in self.by_parts}, scores, end - start)
        layers = {name: self.vectors.traits[name].reading.layers for name in scores}
        return Reading(scores, layers, self.vectors.model.name, windows, worst=worst)

    def worst(self, raw: Mapping[str, ArrayLike], scores: Mapping[str, Score], tokens: int) -> dict[str, Score]:
        """The worst part by each trait, on the scale of whole replies, where it lies farther on the unsafe side than the whole.

        Args:
            raw: Raw scores of the parts, by trait.
            scores: Of the reply as a whole.
            tokens: The reply's length.
        """
        found = {}
        for name, values in raw.items():
            calibration, side = self.calibrations[name], self.vectors[name].unsafe_side
            if calibration.parts is None:
                continue
            value = on_whole_scale(calibration.parts, values, tokens, side)
            if not (
                value <= scores[name].raw if side == "above" else value >= scores[name].raw
            ):  # NaN is kept: it is not known to be better
                found[name] = self.as_score(name, value)
        return found

    def so_far(self, trait: str, raw: float) -> Score:
        """The score of a reply that is still being written, as one of several looks at it."""
        parts = self.calibrations[trait].parts
        if parts is None:
            return self.as_score(trait, raw)
        return self.as_score(trait, so_far_on_whole_scale(parts, raw, self.vectors[trait].unsafe_side))

    def as_score(self, trait: str, raw: float) -> Score:
        """A raw score with what the trait's calibration makes of it."""
        return self.calibrations[trait].score(raw)


def reply_of(conversation: Conversation) -> str:
    """The last message of the assistant's; empty where there is none."""
    return next((m.content for m in reversed(conversation.messages) if m.role == "assistant"), "")


def user_turns(conversation: Conversation) -> list[list[int]]:
    """Places of the user's messages before the last reply, by turn: all that is said between two replies. Blank ones do not count."""
    turns: list[list[int]] = [[]]
    last = max((i for i, m in enumerate(conversation.messages) if m.role == "assistant"), default=len(conversation.messages))
    for place, message in enumerate(conversation.messages[:last]):
        if message.role == "assistant":
            turns.append([])
        elif message.role == "user" and not is_blank(message.content):
            turns[-1].append(place)
    return [turn for turn in turns if turn]


def reasoning_alone(conversation: Conversation) -> Conversation | None:
    """The conversation with the reasoning of its last reply in that reply's place; None where there is no reply, or none in it."""
    at = max((i for i, m in enumerate(conversation.messages) if m.role == "assistant"), default=None)
    if at is None or not (reasoning := conversation.messages[at].read.reasoning):
        return None
    return Conversation((*conversation.messages[:at], Message("assistant", reasoning)))


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


def _stack(vectors: VectorSet, layers: list[int]) -> Tensor:
    """All reading directions over the union of their layers, [traits, layers * hidden], zero where a trait reads nothing."""
    stacked = torch.zeros(len(vectors.traits), len(layers), vectors.model.hidden_size)
    for i, entry in enumerate(vectors.traits.values()):
        for layer, row in zip(entry.reading.layers, entry.reading.rows, strict=True):
            stacked[i, layers.index(layer)] += row.float().cpu()
    return stacked.flatten(1)
