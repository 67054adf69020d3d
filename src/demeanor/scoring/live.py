"""Scoring a live conversation: each new message costs its own tokens only, and a reply is scored while it is written.

The scores are those of the whole-conversation pass, to rounding: the same tokens, directions and calibration, with the
model's keys and values kept from one call to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from demeanor.conversation import Conversation, ConversationLike, Message, as_conversation
from demeanor.errors import DemeanorError, VectorSetError
from demeanor.model.generation import Reply, Sampling, prompt_ids, text_of, write_reply
from demeanor.model.growing import GrowingRead, tapped
from demeanor.model.packing import Job
from demeanor.model.reader import SpanOf
from demeanor.scoring.reading import Reading, SetApart, TokenScores
from demeanor.scoring.scorer import Scorer, reasoning_alone, reply_of
from demeanor.signs import signs_of

OnToken = Callable[[str, dict[str, float]], bool | None]
"""Called with the reply so far and each trait's mean z over its tokens (empty before the second); True stops the reply."""


@dataclass(frozen=True)
class LiveReading:
    """The reading of the last reply, and how each of its tokens pushed."""

    reading: Reading
    tokens: TokenScores


@dataclass(frozen=True)
class Written:
    """A reply of the model's own, with its reading from the very pass that wrote it."""

    reply: Reply
    live: LiveReading


class ConversationScorer:
    """Scores one conversation again and again as it grows.

    Args:
        scorer: The model, its vectors and their calibration. Its pooling must be "mean" or "last".

    Raises:
        VectorSetError: the vectors are read with another pooling.
    """

    def __init__(self, scorer: Scorer) -> None:
        if scorer.vectors.pooling == "max":
            raise VectorSetError("a live conversation is read by means or last tokens, not by pooling 'max'; extract with --pooling mean")
        self.scorer = scorer
        self._growing = GrowingRead(scorer.reader, scorer.layers, scorer.project)
        self._apart: tuple[Conversation, SetApart | None] | None = None

    @property
    def tokens_run(self) -> int:
        """How many tokens have passed through the model for `read` so far."""
        return self._growing.tokens_run

    def read(self, conversation: ConversationLike) -> LiveReading:
        """The reading of the last reply (or of what there is to read: a trait of the user's needs no reply yet).

        `conversation` is the whole of it so far. One that outgrows the model's context is read anew, in windows.
        Raises DemeanorError where it cannot be scored.
        """
        whole = as_conversation(conversation)
        (encoded,) = self.scorer.reader.encoder.encode([whole])
        if isinstance(encoded, DemeanorError):
            raise encoded
        if len(encoded.ids) > self.scorer.reader.context_length:
            return LiveReading(self.scorer.score(whole), self.scorer.score_tokens(whole))
        spans = self.scorer.spans(whole, encoded)
        raw = self._growing.read(encoded.ids)
        live = self._live(encoded.ids, raw, spans)
        return replace(live, reading=replace(live.reading, signs=signs_of(reply_of(whole)), apart=self._set_apart(whole)))

    def _set_apart(self, whole: Conversation) -> SetApart | None:
        """The reasoning of the last reply, which is read once while the reply grows behind it."""
        reasoning = reasoning_alone(whole)
        if reasoning is None:
            return None
        if self._apart is None or self._apart[0] != reasoning:
            self._apart = reasoning, self.scorer.set_apart(whole)
        return self._apart[1]

    def read_user(self, messages: Sequence[Message]) -> Reading | None:
        """The reading of the last user message by the traits that are read there, before any reply; None where there are none."""
        if "user" not in self.scorer.reads.values():
            return None
        whole = Conversation(tuple(messages))
        (encoded,) = self.scorer.reader.encoder.encode([whole])
        if isinstance(encoded, DemeanorError):
            raise encoded
        span = self.scorer.reader.span(encoded, whole, "user")
        if len(encoded.ids) <= self.scorer.reader.context_length:
            return self._live(encoded.ids, self._growing.read(encoded.ids), {"user": span}).reading
        scorer, reader = self.scorer, self.scorer.reader
        (raw,) = reader.run([Job(encoded.ids, [span])], scorer.layers, scorer.vectors.pooling, scorer.project)
        if isinstance(raw, DemeanorError):
            raise raw
        return scorer.reading(raw.double().numpy(), ["user"], reader.windows(len(encoded.ids)))

    def write(self, messages: Sequence[Message], sampling: Sampling | None = None, on_token: OnToken | None = None) -> Written:
        """A reply by the scorer's own model to the conversation so far, scored in the pass that writes it.

        `messages` ends with the user's. Sampled tokens need not be those that the tokenizer makes of the reply's text, so
        that reading the finished conversation may give slightly other scores. Raises DemeanorError where nothing was written.
        """
        scorer = self.scorer
        sampling = sampling or Sampling()
        start = len(prompt_ids(scorer.reader, messages, sampling))

        def watch(ids: list[int]) -> bool:
            if on_token is None:
                return False
            text = text_of(scorer.reader, ids)
            seen = scorer.token_z(torch.cat(passes[1:])) if len(passes) > 1 else {}
            return bool(on_token(text, {name: float(z.mean()) for name, z in seen.items()}))

        with tapped(scorer.reader, scorer.layers, scorer.project) as passes:
            reply = write_reply(scorer.reader, messages, sampling, watch if on_token else None)
        if not reply.ids:
            raise DemeanorError("the model ended its reply before the first word; try another seed or a higher temperature")
        whole = Conversation((*messages, Message("assistant", reply.text)))
        if reasoning_alone(whole) is not None or signs_of(reply.text):  # what is to be read is not what was written, token by token
            return Written(reply, self.read(whole))
        raw = torch.cat(passes)
        ids = [0] * start + reply.ids
        return Written(reply, self._live(ids, raw, {"response": (start, start + len(reply.ids))}))

    def _live(self, ids: Sequence[int], raw: Tensor, spans: dict[SpanOf, tuple[int, int]]) -> LiveReading:
        """From the projections of all tokens [tokens, traits] to what is given back."""
        last = self.scorer.vectors.pooling == "last"
        pooled = torch.stack([raw[end - 1] if last else raw[start:end].mean(0) for start, end in spans.values()])
        reading = self.scorer.reading(pooled.cpu().double().numpy(), list(spans))
        start, end = spans.get("response", (0, 0))
        tokens = TokenScores(
            self.scorer.reader.token_texts(list(ids[start:end])),
            self.scorer.token_z(raw[start:end]),
        )
        return LiveReading(reading, tokens)
