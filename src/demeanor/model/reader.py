"""Conversations to spans to pooled activations.

The activation of layer k is the output of decoder block k, before the final norm. How it is taken stands in hooks, how
batches run in batches. A model that has shown on a few tokens that they see later ones is refused. What several
conversations begin with is run once (see packing), on models that have shown that they read alike that way (see probes).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.conversation import Conversation, ConversationLike, SpanOf, as_conversation
from demeanor.errors import ActivationError, ChatTemplateError, ConversationError, sound
from demeanor.model.batches import Project, Results, Work, read_batches
from demeanor.model.blocks import decoder_blocks, text_config
from demeanor.model.chat import ChatEncoder, Encoded
from demeanor.model.directions import Directions
from demeanor.model.growing import Budget, GrowingRead
from demeanor.model.hooks import Stack
from demeanor.model.identity import ModelIdentity, identify, in_words
from demeanor.model.packing import Job, PackedRow, plan, windows
from demeanor.model.pooling import ROLLING, Pooling, combine
from demeanor.model.probes import context_length, may_share_up_to, refuse_encoder, shares_beginnings, turns_at
from demeanor.model.together import Together
from demeanor.progress import Progress


class ActivationReader:
    """Reads pooled activations of conversations from one model.

    Args:
        model: A transformers causal language model.
        tokenizer: Its fast tokenizer.
        blocks: Dotted name of the model's list of decoder blocks, where it is not found by itself.
        token_budget: Tokens a batch, padding included; by default 1024 on a CPU and 32768 elsewhere.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        blocks: str | None = None,
        token_budget: int | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.encoder = ChatEncoder(tokenizer)
        self.blocks = decoder_blocks(model, blocks)
        self.blocks_path = blocks
        self.n_layers = len(self.blocks)
        self.hidden_size = int(text_config(model).hidden_size)
        self.device: torch.device = next(model.get_input_embeddings().parameters()).device
        self.stack = Stack(model, self.blocks, self.device)
        self.token_budget = token_budget or (1024 if self.device.type == "cpu" else 32768)
        self.context_length = context_length(model, tokenizer)
        self.turns_at = turns_at(model)
        """Tokens from beyond which a conversation is read with other rotary frequencies, for all its tokens."""
        self._directions: tuple[Directions, Directions] | None = None
        self._texts: dict[int, str] = {}
        self._may_share_up_to = may_share_up_to(model, min(self.context_length, self.turns_at))

    def read(
        self,
        conversations: Sequence[ConversationLike],
        layers: Sequence[int] | None = None,
        span: SpanOf = "response",
        pooling: Pooling = "mean",
        progress: Progress | None = None,
    ) -> Tensor:
        """Pooled activations of one span of each conversation, [conversations, layers, hidden], float32 on the CPU.

        Args:
            conversations: In any of the forms that a conversation is taken in.
            layers: 0-based decoder blocks, whose output is read; by default all.
            span: "response" (the last reply) or "user" (the user's last message).
            pooling: How a span's tokens become one activation: "mean", "last" or "max" (of rolling means).
            progress: Told how many conversations have just been read.

        Raises the first error of any conversation (ConversationError, ModelError); `run` returns them instead.
        """
        layers = list(range(self.n_layers)) if layers is None else list(layers)
        found = [sound(result)[0] for result in self.run(self.jobs(conversations, span), layers, pooling, progress=progress)]
        return torch.stack(found) if found else torch.zeros(0, len(layers), self.hidden_size)

    def jobs(self, conversations: Sequence[ConversationLike], span: SpanOf = "response") -> list[Job]:
        """Each conversation as tokens with the one span that is to be read. Raises the first error of any conversation."""
        return [Job(e.ids, [e.place(conversation, span)]) for e, conversation in zip(*self._encode(conversations), strict=True)]

    def read_tokens(self, conversation: ConversationLike, layers: Sequence[int], span: SpanOf = "response") -> tuple[list[str], Tensor]:
        """Each token of the span as text, and its activations [tokens, layers, hidden], float32 on the CPU."""
        (encoded,), (checked,) = self._encode([conversation])
        start, end = encoded.place(checked, span)
        (result,) = self.run([Job(encoded.ids, [(i, i + 1) for i in range(start, end)])], layers, "mean")
        return self.token_texts(encoded.ids[start:end]), sound(result)

    def read_turns(
        self, conversation: ConversationLike, layers: Sequence[int], role: str = "assistant", pooling: Pooling = "mean"
    ) -> Tensor:
        """Pooled activations of every non-empty message of `role`, [messages, layers, hidden], from a single pass."""
        (encoded,), (checked,) = self._encode([conversation])
        spans = [s for s, m in zip(encoded.spans, checked.messages, strict=True) if m.role == role and s[0] < s[1]]
        if not spans:
            raise ConversationError(f"no {role} message in the conversation; add one to read it")
        (result,) = self.run([Job(encoded.ids, spans)], layers, pooling)
        return sound(result)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Tokens as text that joins to the whole: bytes of a character that spans tokens show with its last one."""
        texts: list[str] = []
        before, shown = 0, 0  # a token's text can depend on the one before it, so each is decoded with that
        for i in range(len(ids)):
            known, now = self._text(tuple(ids[before:shown])), self._text(tuple(ids[before : i + 1]))
            if now.endswith("\ufffd") and i + 1 < len(ids):
                texts.append("")
                continue
            texts.append(now[len(known) :])
            before, shown = shown, i + 1
        return texts

    def _text(self, ids: tuple[int, ...]) -> str:
        """Some tokens as text; that of single ones is remembered."""
        if len(ids) == 1 and (known := self._texts.get(ids[0])) is not None:
            return known
        text = str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
        if len(ids) == 1:
            self._texts[ids[0]] = text
        return text

    @cached_property
    def identity(self) -> ModelIdentity:
        """Which model this is."""
        return replace(identify(self.model, self.tokenizer), blocks=self.blocks_path or "")

    def __str__(self) -> str:
        return in_words(self.model)

    def __repr__(self) -> str:
        return f"ActivationReader({self})"

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded | ChatTemplateError]:
        """Each conversation as token ids, with the place of each message, or why the chat template refuses it."""
        return self.encoder.encode(conversations)

    def project(
        self, jobs: Sequence[Job], directions: Directions, progress: Progress | None = None
    ) -> list[NDArray[np.float64] | ActivationError]:
        """Raw scores of each job's spans [spans, traits], or the error that kept it from being read; see `run`."""
        here = self._here(directions)
        found = self.run(jobs, here.layers, here.pooling, here.project, progress)
        return [raw if isinstance(raw, ActivationError) else raw.double().numpy() for raw in found]

    def growing(self, directions: Directions, budget: Budget | None = None) -> GrowingRead:
        """A conversation that is read as it grows, each token once."""
        return GrowingRead(self, self._here(directions), budget)

    def together(self, directions: Directions, limit: int | None = None) -> Together:
        """Several conversations, in shared passes; at most so many bytes are kept of what was read."""
        return Together(self, self._here(directions), limit)

    def _here(self, directions: Directions) -> Directions:
        """The directions on the model's device; the last ones are kept there."""
        if self._directions is None or self._directions[0] is not directions:
            self._directions = directions, directions.to(self.device)
        return self._directions[1]

    def _encode(self, conversations: Sequence[ConversationLike]) -> tuple[list[Encoded], list[Conversation]]:
        checked = [as_conversation(c) for c in conversations]
        return [sound(encoded) for encoded in self.encoder.encode(checked)], checked

    @torch.inference_mode()
    def run(
        self,
        jobs: Sequence[Job],
        layers: Sequence[int],
        pooling: Pooling = "mean",
        project: Project | None = None,
        progress: Progress | None = None,
    ) -> list[Tensor | ActivationError]:
        """Run the model over all jobs and pool each job's spans.

        Args:
            jobs: Tokens and spans; they may come in any order and length.
            layers: 0-based layers to read; k of them.
            pooling: How a span's tokens become one activation.
            project: Applied to a batch's pooled activations [spans, k, hidden] on the device, so that only its
                result leaves it; by default the activations themselves do.
            progress: Called with the number of jobs that have just been finished.

        Returns:
            For each job, in the order given, a CPU tensor [spans, ...], or the error that kept it from being read.

        Raises:
            ActivationError: the model has no such layer.
            ModelError: the model is no causal one.
        """
        if not layers or min(layers) < 0 or max(layers) >= self.n_layers:
            raise ActivationError(f"layers {list(layers)} are not within 0 to {self.n_layers - 1}, the layers of this model")
        if jobs:
            refuse_encoder(self.stack)
        long = [i for i, job in enumerate(jobs) if len(job.ids) > self.context_length]
        results: Results = {}
        for i in long:
            results[i] = self._run_windows(jobs[i], layers, pooling, project)
            if progress is not None:
                progress(1)
        fitting = [i for i in range(len(jobs)) if i not in results]
        work = [jobs[i] for i in fitting]
        for batch in read_batches(self.stack, Work(work, layers, pooling, project), self._plan(work)):
            results.update({fitting[i]: result for i, result in batch.items()})
            if progress is not None:
                progress(len(batch))
        return [results[i] for i in range(len(jobs))]

    def windows(self, length: int) -> int:
        """How many overlapping windows a conversation of this many tokens is read in; 1 where it fits the context."""
        return len(windows(Job([0] * length, ()), self.context_length))

    def _run_windows(self, job: Job, layers: Sequence[int], pooling: Pooling, project: Project | None) -> Tensor | ActivationError:
        """A conversation longer than the context, in overlapping windows, each read where it is new."""
        parts = windows(job, self.context_length, ROLLING - 1 if pooling == "max" else 0)
        found = self.run(parts, layers, pooling)
        for result in found:
            if isinstance(result, ActivationError):
                return result
        held = [[end - start for start, end in part.spans] for part in parts]
        pooled = combine(pooling, [r for r in found if isinstance(r, Tensor)], held)
        return pooled if project is None else project(pooled.to(self.device)).cpu()

    @cached_property
    def shares_up_to(self) -> int:
        """The longest conversation, in tokens, whose beginning may be shared with others; 0 where this model cannot.

        It is tried on a few tokens, in several passes. Raises ModelError where the model is no causal one, which cannot
        be read at all.
        """
        refuse_encoder(self.stack)
        longest = self._may_share_up_to
        return longest if longest and shares_beginnings(self.stack) else 0

    def _plan(self, jobs: Sequence[Job]) -> Iterable[list[PackedRow]]:
        """Batches; only where some have a common beginning that is worth sharing is it found out whether the model can."""
        batches = list(plan(jobs, self.token_budget, self._may_share_up_to, turns_at=self.turns_at))
        if any(rows[0].masked for rows in batches) and not self.shares_up_to:
            return plan(jobs, self.token_budget, turns_at=self.turns_at)
        return batches
