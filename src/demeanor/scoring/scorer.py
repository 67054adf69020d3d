"""From conversations to readings: the one way by which anything in Demeanor is scored.

conversations -> tokens and spans -> pooled activations -> one matrix product with all directions -> calibration.
Only [spans, traits] numbers leave the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.conversation import Conversation, ConversationLike, as_conversation
from demeanor.errors import ConversationError, DemeanorError
from demeanor.model.identity import identify
from demeanor.model.reader import ActivationReader, Job, SpanOf
from demeanor.scoring.calibration import Calibration
from demeanor.scoring.reading import NotScored, Reading, Score, TokenScores
from demeanor.vectors.vector_set import VectorSet

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
        self._reads: dict[str, SpanOf] = {name: entry.reads for name, entry in vectors.traits.items()}

    @classmethod
    def load(cls, folder: str | Path, model: str | None = None, device: str = "auto", allow_other_model: bool = False) -> Scorer:
        """Load a vector set and the model that it names (or `model`)."""
        from demeanor.model.loading import load_model

        vectors = VectorSet.load(folder)
        loaded = load_model(model or vectors.model.name, vectors.model.load_quantization, device)
        return cls(*loaded, vectors, allow_other_model)

    def score(self, conversation: ConversationLike) -> Reading:
        """The reading of one conversation's last reply. Raises DemeanorError where it cannot be scored."""
        (result,) = self._score([as_conversation(conversation)])
        if isinstance(result, DemeanorError):
            raise result
        return result

    def score_many(self, conversations: Iterable[ConversationLike]) -> Iterator[Reading | NotScored]:
        """Readings in the order of `conversations`, which may be endless: memory is bounded by chunks.

        A conversation that cannot be scored yields a NotScored with the cause, and the others go on.
        """
        source = iter(conversations)
        while chunk := list(itertools.islice(source, CHUNK)):
            checked: list[Conversation | DemeanorError] = []
            for item in chunk:
                try:
                    checked.append(as_conversation(item))
                except DemeanorError as error:
                    checked.append(error)
            scored = iter(self._score([c for c in checked if isinstance(c, Conversation)]))
            for entry in checked:
                result = next(scored) if isinstance(entry, Conversation) else entry
                yield NotScored(str(result)) if isinstance(result, DemeanorError) else result

    def score_tokens(self, conversation: ConversationLike) -> TokenScores:
        """How each token of the response pushes each trait that is read on responses."""
        tokens, activations = self.reader.read_tokens(conversation, self.layers)
        raw = self._project(activations.to(self.reader.device)).cpu().double().numpy()
        return TokenScores(
            tokens,
            {name: self.calibrations[name].z(raw[:, i]) for i, name in enumerate(self.traits) if self._reads[name] == "response"},
        )

    def _project(self, pooled: Tensor) -> Tensor:
        """[spans, layers, hidden] to raw scores [spans, traits], in one product."""
        return pooled.float().flatten(1) @ self._directions.T

    def _score(self, conversations: Sequence[Conversation]) -> list[Reading | DemeanorError]:
        results: list[Reading | DemeanorError | None] = [None] * len(conversations)
        jobs, wanted = [], []
        for i, (conversation, encoded) in enumerate(zip(conversations, self.reader.encoder.encode(conversations), strict=True)):
            if isinstance(encoded, DemeanorError):
                results[i] = encoded
                continue
            spans: dict[SpanOf, tuple[int, int]] = {}
            try:
                for span in set(self._reads.values()):
                    if span == "response" or any(m.role == "user" for m in conversation.messages):
                        spans[span] = self.reader.span(encoded, conversation, span)
                if not spans:
                    raise ConversationError("no user message in the conversation; add one with role 'user' to score it")
            except ConversationError as error:
                results[i] = error
                continue
            jobs.append(Job(encoded.ids, list(spans.values())))
            wanted.append((i, list(spans)))
        for (i, kinds), job, raw in zip(wanted, jobs, self.reader.run(jobs, self.layers, self.vectors.pooling, self._project), strict=True):
            if isinstance(raw, DemeanorError):
                results[i] = raw
            else:
                results[i] = self._reading(raw.double().numpy(), kinds, self.reader.windows(len(job.ids)))
        return [r for r in results if r is not None]

    def _reading(self, raw: NDArray[np.float64], kinds: list[SpanOf], windows: int) -> Reading:
        scores = {}
        for column, name in enumerate(self.traits):
            if self._reads[name] in kinds:
                value = float(raw[kinds.index(self._reads[name]), column])
                calibration = self.calibrations[name]
                scores[name] = Score(
                    value,
                    value - calibration.centre,
                    float(calibration.z(value)),
                    float(calibration.probability(value)),
                )
        layers = {name: self.vectors.traits[name].reading.layers for name in scores}
        return Reading(scores, layers, self.vectors.model.name, windows)


def _stack(vectors: VectorSet, layers: list[int]) -> Tensor:
    """All reading directions over the union of their layers, [traits, layers * hidden], zero where a trait reads nothing."""
    stacked = torch.zeros(len(vectors.traits), len(layers), vectors.model.hidden_size)
    for i, entry in enumerate(vectors.traits.values()):
        for layer, row in zip(entry.reading.layers, entry.reading.rows, strict=True):
            stacked[i, layers.index(layer)] += row.float().cpu()
    return stacked.flatten(1)
