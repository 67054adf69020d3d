"""From conversations to readings: the one way by which anything in Demeanor is scored.

conversations -> tokens and spans -> pooled activations -> one matrix product with all directions -> calibration.
Only [spans, traits] numbers leave the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.conversation import Conversation, ConversationLike, as_conversation
from demeanor.errors import ConversationError, DemeanorError
from demeanor.model.chat import Encoded
from demeanor.model.identity import identify, in_words
from demeanor.model.packing import Job
from demeanor.model.reader import ActivationReader, SpanOf
from demeanor.scoring.calibration import Calibration
from demeanor.scoring.reading import NotScored, Reading, Score, TokenScores
from demeanor.vectors import built_in
from demeanor.vectors.vector_set import VectorSet


class _Prepared(NamedTuple):
    """A conversation as tokens, and the token span of each message that is read in it."""

    ids: list[int]
    spans: dict[SpanOf, tuple[int, int]]


CHUNK = 512  # conversations that are tokenised, sorted by length and scored together; bounds the memory


class Scorer:
    """Scores conversations with a model and its vector set.

    Args:
        model, tokenizer: As `load_model` gives them, or any transformers pair.
        vectors: The vector set.
        allow_other_model: Score although the vectors were made with another model; `warnings` then says so.
        reader: An ActivationReader of this model, where one is there already.

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
    ) -> None:
        self.vectors = vectors
        self.warnings = vectors.check_model(identify(model, tokenizer), allow_other_model)
        self.reader = reader or ActivationReader(model, tokenizer, vectors.model.blocks or None)
        self.traits = list(vectors.traits)
        self.layers = vectors.layers
        self.calibrations = {n: Calibration.from_record(e.calibration) for n, e in vectors.traits.items()}
        self._directions = _stack(vectors, self.layers).to(self.reader.device)
        self.reads: dict[str, SpanOf] = {name: entry.reads for name, entry in vectors.traits.items()}

    def __repr__(self) -> str:
        warned = "".join(f"\n  warning: {warning}" for warning in self.warnings)
        return f"Scorer({in_words(self.reader.model)}; traits: {', '.join(self.traits)}){warned}"

    @classmethod
    def load(
        cls, folder: str | Path | None = None, model: str | None = None, device: str = "auto", allow_other_model: bool = False
    ) -> Scorer:
        """Load a vector set, by default the built-in one, and the model that it names (or `model`)."""
        from demeanor.model.loading import load_model

        vectors = VectorSet.load(folder or built_in.FOLDER)
        loaded = load_model(model or vectors.model.name, None if allow_other_model else vectors.model.load_quantization, device)
        return cls(*loaded, vectors, allow_other_model)

    def score(self, conversation: ConversationLike) -> Reading:
        """The reading of one conversation's last reply. Raises DemeanorError where it cannot be scored."""
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
        """A reading for each assistant message, each with what came before it, from a single pass over the whole."""
        whole = as_conversation(conversation)
        turns = [i for i, m in enumerate(whole.messages) if m.role == "assistant"]
        if not turns:
            raise ConversationError("no assistant message in the conversation; add one with role 'assistant' to score it")
        (encoded,) = self.reader.encoder.encode([whole])
        if isinstance(encoded, DemeanorError):
            raise encoded
        wanted: list[dict[SpanOf, tuple[int, int]] | DemeanorError] = []
        for turn in turns:
            try:
                wanted.append(self.spans(Conversation(whole.messages[: turn + 1]), encoded))
            except ConversationError as error:
                wanted.append(error)
        spans = [span for found in wanted if isinstance(found, dict) for span in found.values()]
        (raw,) = self.reader.run([Job(encoded.ids, spans)], self.layers, self.vectors.pooling, self.project) if spans else [torch.zeros(0)]
        results: list[Reading | NotScored] = []
        at = 0
        for found in wanted:
            if isinstance(found, DemeanorError) or isinstance(raw, DemeanorError):
                results.append(NotScored(str(found if isinstance(found, DemeanorError) else raw)))
                continue
            windows = self.reader.windows(max(end for _, end in found.values()))
            results.append(self.reading(raw[at : at + len(found)].double().numpy(), list(found), windows))
            at += len(found)
        return results

    def score_tokens(self, conversation: ConversationLike) -> TokenScores:
        """How each token of the response pushes each trait that is read on responses."""
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

    def _prepare(self, items: Sequence[ConversationLike]) -> list[_Prepared | DemeanorError]:
        """Conversations as tokens, with what is to be read of them, or why that cannot be."""
        checked: list[Conversation | DemeanorError] = []
        for item in items:
            try:
                checked.append(as_conversation(item))
            except DemeanorError as error:
                checked.append(error)
        sound = [c for c in checked if isinstance(c, Conversation)]
        tokenised = zip(sound, self.reader.encoder.encode(sound), strict=True)
        prepared: list[_Prepared | DemeanorError] = []
        for entry in checked:
            if isinstance(entry, DemeanorError):
                prepared.append(entry)
                continue
            conversation, encoded = next(tokenised)
            try:
                prepared.append(
                    encoded if isinstance(encoded, DemeanorError) else _Prepared(encoded.ids, self.spans(conversation, encoded))
                )
            except ConversationError as error:
                prepared.append(error)
        return prepared

    def _score(self, prepared: Sequence[_Prepared | DemeanorError]) -> Iterator[Reading | DemeanorError]:
        jobs = [Job(p.ids, list(p.spans.values())) for p in prepared if isinstance(p, _Prepared)]
        found = iter(self.reader.run(jobs, self.layers, self.vectors.pooling, self.project))
        for entry in prepared:
            raw = next(found) if isinstance(entry, _Prepared) else entry
            if isinstance(raw, DemeanorError) or isinstance(entry, DemeanorError):
                yield raw  # type: ignore[misc]
            else:
                yield self.reading(raw.double().numpy(), list(entry.spans), self.reader.windows(len(entry.ids)))

    def reading(self, raw: NDArray[np.float64], kinds: list[SpanOf], windows: int = 1) -> Reading:
        """A reading from the raw scores [spans, traits] of spans of these kinds."""
        scores = {}
        for column, name in enumerate(self.traits):
            if self.reads[name] in kinds:
                value = float(raw[kinds.index(self.reads[name]), column])
                calibration = self.calibrations[name]
                scores[name] = Score(
                    value,
                    value - calibration.centre,
                    float(calibration.z(value)),
                    float(calibration.probability(value)),
                )
        layers = {name: self.vectors.traits[name].reading.layers for name in scores}
        return Reading(scores, layers, self.vectors.model.name, windows)


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
