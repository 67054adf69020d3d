"""Scoring a live conversation: each new message costs its own tokens only, and a reply is scored while it is written.

The scores are those of the whole-conversation pass, to rounding: the same tokens, directions and calibration, with the
model's keys and values kept from one call to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from demeanor.conversation import Conversation, ConversationLike, Message, SpanOf, as_conversation, reasoning_alone
from demeanor.errors import DemeanorError, VectorSetError
from demeanor.model.generation import Sampling, WrittenReply, prompt_ids, text_of, write_reply
from demeanor.model.growing import Budget, tapped
from demeanor.model.packing import common_prefix
from demeanor.scoring.gauge import Array, Place, Places
from demeanor.scoring.reading import NotScored, Reading, SetApart, TokenScores
from demeanor.scoring.reads import Growing, growing
from demeanor.scoring.scorer import Scorer
from demeanor.signs import signs_of

OnToken = Callable[[str, dict[str, float]], bool | None]
"""Called with the reply so far and each trait's mean z over its tokens (empty before the second); True stops the reply."""
Heard = Mapping[int, Reading | NotScored]
"""Readings of single messages, by their place in the conversation."""
READS: Mapping[str, SpanOf] = {"user": "user", "assistant": "response"}  # what a message is read as, by its role


@dataclass(frozen=True)
class LiveReading:
    """The reading of the last reply, and how each of its tokens pushed."""

    reading: Reading
    tokens: TokenScores
    others: Heard = field(default_factory=dict)
    """Of the other messages that were asked for, from the same pass."""


@dataclass(frozen=True)
class Written:
    """A reply of the model's own, with its reading from the very pass that wrote it."""

    reply: WrittenReply
    live: LiveReading


class ConversationScorer:
    """Scores one conversation again and again as it grows.

    Args:
        scorer: The model, its vectors and their calibration. Its pooling must be "mean" or "last".
        budget: What the keys and values of this and other conversations may take; None for no bound.
        shared: Reads it in passes that it shares with other conversations (see engine), in place of passes of its own.

    Raises:
        VectorSetError: the vectors are read with another pooling.
    """

    def __init__(self, scorer: Scorer, budget: Budget | None = None, shared: Growing | None = None) -> None:
        if scorer.vectors.pooling == "max":
            raise VectorSetError("a live conversation cannot be scored with pooling 'max'; extract with --pooling mean")
        self.scorer = scorer
        self._growing = growing(scorer.reads, scorer.gauge.directions, budget) if shared is None else shared
        self._shares = shared is not None
        self._apart: tuple[Conversation, SetApart | None] | None = None

    @property
    def tokens_run(self) -> int:
        """How many tokens have passed through the model for `read` so far."""
        return self._growing.tokens_run

    def read(
        self, conversation: ConversationLike, needed: Sequence[int] = (), welcome: Sequence[int] = (), anew: bool = False
    ) -> LiveReading:
        """The reading of the last reply (or of what there is to read: a trait of the user's needs no reply yet).

        `conversation` is the whole of it so far. Of one that outgrows the model's context, only the windows are run that hold
        something to read.

        Args:
            conversation: All of it.
            needed: Places of other messages to read as well.
            welcome: Places of those that are read where that costs nothing more.
            anew: Whether the last reply is read once more even if it was read before.

        Raises:
            DemeanorError: it cannot be scored.
        """
        whole = as_conversation(conversation)
        encoded = self.scorer.encoded(whole)
        spans = self.scorer.spans(whole, encoded)
        asked = {i: encoded.spans[i] for i in needed}
        since = min(start for start, end in (*spans.values(), *asked.values()) if start < end)
        first = self._growing.first_read(len(encoded.ids), since)
        asked |= {i: encoded.spans[i] for i in welcome if encoded.spans[i][0] >= first}
        if anew and "response" in spans:
            self._growing.keep(spans["response"][0])
        raw = self._growing.read(encoded.ids, first)
        live = self._live(encoded.ids[first:], raw, {kind: (start - first, end - first) for kind, (start, end) in spans.items()}, first)
        heard = {i: self._message(raw, whole.messages[i], start - first, end - first, first) for i, (start, end) in asked.items()}
        reading = replace(live.reading, apart=self._set_apart(whole), **self.scorer.beside(whole))
        return LiveReading(reading, live.tokens, heard)

    def _set_apart(self, whole: Conversation) -> SetApart | None:
        """The reasoning of the last reply, which is read once while the reply grows behind it."""
        reasoning = reasoning_alone(whole)
        if reasoning is None:
            return None
        if self._apart is None or self._apart[0] != reasoning:
            read = (lambda alone: self.read(alone).reading) if self._shares else self.scorer.score
            self._apart = reasoning, self.scorer.set_apart(whole, read)
        return self._apart[1]

    def listen(self, messages: Sequence[Message], needed: Sequence[int]) -> Heard:
        """Readings of these messages alone, as where the reply after them cannot be read. Raises DemeanorError."""
        if not needed:
            return {}
        whole = Conversation(tuple(messages))
        encoded = self.scorer.encoded(whole)
        first = self._growing.first_read(len(encoded.ids), min(encoded.spans[i][0] for i in needed))
        raw = self._growing.read(encoded.ids, first)
        spans = {i: encoded.spans[i] for i in needed}
        return {i: self._message(raw, whole.messages[i], start - first, end - first, first) for i, (start, end) in spans.items()}

    def read_user(self, messages: Sequence[Message]) -> Reading | None:
        """The reading of the last user message by the traits that are read there, before any reply; None where there are none."""
        if "user" not in self.scorer.gauge.reads.values():
            return None
        whole = Conversation(tuple(messages))
        encoded = self.scorer.encoded(whole)
        start, end = encoded.place(whole, "user")
        first = self._growing.first_read(len(encoded.ids), start)
        raw = self._growing.read(encoded.ids, first)
        return self._live(encoded.ids[first:], raw, {"user": (start - first, end - first)}, first).reading

    def write(
        self,
        messages: Sequence[Message],
        sampling: Sampling | None = None,
        on_token: OnToken | None = None,
        needed: Sequence[int] = (),
        on_heard: Callable[[Heard], None] | None = None,
    ) -> Written:
        """A reply by the scorer's own model to the conversation so far, scored in the pass that writes it.

        `messages` ends with the user's. Sampled tokens need not be those that the tokenizer makes of the reply's text, so
        that reading the finished conversation may give slightly other scores.

        Args:
            messages: The conversation so far.
            sampling: How tokens are drawn.
            on_token: Called after each token.
            needed: Places of messages to read as well, in the same pass.
            on_heard: Called with their readings, before any `on_token`.

        Raises:
            DemeanorError: nothing was written.
        """
        scorer = self.scorer
        sampling = sampling or Sampling()
        prompt = prompt_ids(scorer.reader, messages, sampling)
        start, heard = len(prompt), dict[int, Reading | NotScored]()

        def listen() -> None:
            if needed and not heard and passes:
                heard.update(self._heard_in_prompt(messages, needed, prompt, _numbers(passes[:1])))
                if on_heard is not None:
                    on_heard(heard)

        def watch(ids: list[int]) -> bool:
            listen()
            if on_token is None:
                return False
            text = text_of(scorer.reader, ids)
            seen = scorer.gauge.token_z(_numbers(passes[1:])) if len(passes) > 1 else {}
            return bool(on_token(text, {name: float(z.mean()) for name, z in seen.items()}))

        with tapped(scorer.reader, scorer.gauge.directions) as passes:
            reply = write_reply(scorer.reader, messages, sampling, watch if on_token or needed else None)
        if not reply.ids:
            raise DemeanorError("the model ended its reply before the first word; try another seed or a higher temperature")
        whole = Conversation((*messages, Message("assistant", reply.text)))
        if reasoning_alone(whole) is not None or signs_of(reply.text):  # what is to be read is not what was written, token by token
            return Written(reply, self.read(whole))
        raw = _numbers(passes)
        ids = [0] * start + reply.ids
        live = self._live(ids, raw, {"response": (start, start + len(reply.ids))})
        return Written(reply, LiveReading(live.reading, live.tokens, heard))

    def _heard_in_prompt(self, messages: Sequence[Message], needed: Sequence[int], prompt: list[int], raw: Array) -> Heard:
        """Readings of messages from the pass over the prompt, as far as that is the conversation's own tokens."""
        whole = Conversation(tuple(messages))
        encoded = self.scorer.encoded(whole)
        same = common_prefix(prompt, encoded.ids)
        return {
            i: self._message(raw, whole.messages[i], *span)
            if (span := encoded.spans[i])[1] <= same
            else NotScored("the chat template writes the user's message otherwise before a reply")
            for i in needed
        }

    def _message(self, raw: Array, message: Message, start: int, end: int, first: int = 0) -> Reading | NotScored:
        """The reading of one message by the traits that are read on its speaker."""
        kind = READS.get(message.role)
        if start >= end:
            return NotScored(f"the tokenizer turns the {message.role}'s message into no token at all")
        if kind not in self.scorer.gauge.reads.values() or kind is None:
            return NotScored(f"no trait of the vector set is read on the {message.role}'s messages")
        windows = self.scorer.reads.windows(first + end)
        return self.scorer.gauge.reading(self._pooled(raw, start, end)[None], Places({kind: (start, end)}), windows)

    def _pooled(self, raw: Array, start: int, end: int) -> Array:
        if self.scorer.vectors.pooling == "last":
            return np.asarray(raw[end - 1])
        return np.asarray(raw[start:end].mean(0))

    def _live(self, ids: Sequence[int], raw: Array, spans: dict[SpanOf, Place], before: int = 0) -> LiveReading:
        """From the projections of all tokens but the first `before` [tokens, traits] to what is given back."""
        gauge, places = self.scorer.gauge, Places(spans)
        pooled = np.stack([self._pooled(raw, start, end) for start, end in gauge.asked(places)])
        reading = gauge.reading(pooled, places, self.scorer.reads.windows(before + len(ids)))
        start, end = spans.get("response", (0, 0))
        tokens = TokenScores(
            self.scorer.reads.token_texts(list(ids[start:end])),
            gauge.token_z(raw[start:end]),
        )
        return LiveReading(reading, tokens)


def _numbers(passes: Sequence[torch.Tensor]) -> Array:
    """Raw scores [tokens, traits] of some passes, off the device."""
    return torch.cat(list(passes)).cpu().double().numpy()
