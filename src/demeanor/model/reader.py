"""Tokens and spans to pooled activations: the one place where a model is run to be read.

The activation of layer k is the output of decoder block k, before the final norm. It is taken by our own hooks; the
forward pass stops after the deepest layer that is needed, so that neither the blocks above nor the LM head run.
Causal attention lets no token see a later one, so rows are padded on the right without a mask, and padding cannot
change what is read. Pooling is done in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from demeanor.conversation import Conversation, ConversationLike, as_conversation
from demeanor.errors import ActivationError, ConversationError, DemeanorError
from demeanor.model.blocks import decoder_blocks, text_config
from demeanor.model.chat import ChatEncoder, Encoded

SpanOf = Literal["response", "user"]
Pooling = Literal["mean", "last", "max"]
Spans: TypeAlias = Sequence[tuple[int, int]]
Progress: TypeAlias = Callable[[int], None]
ROLLING = 8  # tokens in the rolling means that the "max" pooling takes the largest of


@dataclass(frozen=True, slots=True)
class Job:
    """A tokenised conversation and the token spans to pool in it."""

    ids: list[int]
    spans: Spans


@dataclass(frozen=True, slots=True)
class _Row:
    """A stretch of a job's tokens that is run as one row; `read_from` is where it begins to be read (windows overlap)."""

    job: int
    start: int
    end: int
    read_from: int


class _EnoughError(Exception):
    """Ends a forward pass after the deepest layer that is needed."""


class ActivationReader:
    """Reads pooled activations of conversations from one model.

    Args:
        model: A transformers causal language model.
        tokenizer: Its fast tokenizer.
        blocks: Dotted name of the model's list of decoder blocks, where it is not found by itself.
        token_budget: Tokens a batch, padding included; by default 2048 on a CPU and 32768 elsewhere.
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
        self.token_budget = token_budget or (2048 if self.device.type == "cpu" else 32768)
        self.context_length = _context_length(model, tokenizer)

    def read(
        self,
        conversations: Sequence[ConversationLike],
        layers: Sequence[int] | None = None,
        span: SpanOf = "response",
        pooling: Pooling = "mean",
        progress: Progress | None = None,
    ) -> Tensor:
        """Pooled activations of one span of each conversation, [conversations, layers, hidden], float32 on the CPU.

        Raises the first error of any conversation; `run` returns them instead.
        """
        layers = list(range(self.n_layers)) if layers is None else list(layers)
        jobs = []
        for encoded, conversation in zip(*self._encode(conversations), strict=True):
            jobs.append(Job(encoded.ids, [self.span(encoded, conversation, span)]))
        found = []
        for result in self.run(jobs, layers, pooling, progress=progress):
            if isinstance(result, DemeanorError):
                raise result
            found.append(result[0])
        return torch.stack(found) if found else torch.zeros(0, len(layers), self.hidden_size)

    def read_tokens(self, conversation: ConversationLike, layers: Sequence[int], span: SpanOf = "response") -> tuple[list[str], Tensor]:
        """Each token of the span as text, and its activations [tokens, layers, hidden], float32 on the CPU."""
        (encoded,), (checked,) = self._encode([conversation])
        start, end = self.span(encoded, checked, span)
        (result,) = self.run([Job(encoded.ids, [(i, i + 1) for i in range(start, end)])], layers, "mean")
        if isinstance(result, DemeanorError):
            raise result
        return self.token_texts(encoded.ids[start:end]), result

    def read_turns(
        self, conversation: ConversationLike, layers: Sequence[int], role: str = "assistant", pooling: Pooling = "mean"
    ) -> Tensor:
        """Pooled activations of every non-empty message of `role`, [messages, layers, hidden], from a single pass."""
        (encoded,), (checked,) = self._encode([conversation])
        spans = [s for s, m in zip(encoded.spans, checked.messages, strict=True) if m.role == role and s[0] < s[1]]
        if not spans:
            raise ConversationError(f"no {role} message in the conversation; add one to read it")
        (result,) = self.run([Job(encoded.ids, spans)], layers, pooling)
        if isinstance(result, DemeanorError):
            raise result
        return result

    def span(self, encoded: Encoded, conversation: Conversation, span: SpanOf) -> tuple[int, int]:
        """Token range of the last message of the span's role. Raises ConversationError where there is nothing to read."""
        start, end = encoded.spans[conversation.last("user" if span == "user" else "assistant")]
        if start >= end:
            raise ConversationError(f"the tokenizer turns the {span} into no token at all; give it some readable text")
        return start, end

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Tokens as text that joins to the whole: bytes of a character that spans tokens show with its last one."""
        texts, done = [], ""
        for i in range(len(ids)):
            whole = str(self.tokenizer.decode(list(ids[: i + 1]), clean_up_tokenization_spaces=False))
            if whole.endswith("\ufffd") and i + 1 < len(ids):
                texts.append("")
                continue
            texts.append(whole[len(done) :])
            done = whole
        return texts

    def _encode(self, conversations: Sequence[ConversationLike]) -> tuple[list[Encoded], list[Conversation]]:
        checked = [as_conversation(c) for c in conversations]
        found = []
        for encoded in self.encoder.encode(checked):
            if isinstance(encoded, DemeanorError):
                raise encoded
            found.append(encoded)
        return found, checked

    @torch.inference_mode()
    def run(
        self,
        jobs: Sequence[Job],
        layers: Sequence[int],
        pooling: Pooling = "mean",
        project: Callable[[Tensor], Tensor] | None = None,
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
        """
        if not layers or min(layers) < 0 or max(layers) >= self.n_layers:
            raise ActivationError(f"layers {list(layers)} are not within 0 to {self.n_layers - 1}, the layers of this model")
        results: list[Tensor | ActivationError | None] = [None] * len(jobs)
        for batch in self._batches(jobs):
            for index, result in self._run_batch(jobs, batch, layers, pooling, project):
                results[index] = result
            if progress is not None:
                progress(len({row.job for row in batch}))
        return [r for r in results if r is not None]

    def windows(self, length: int) -> int:
        """How many overlapping windows a conversation of this many tokens is read in; 1 where it fits the context."""
        return len(list(self._rows(0, length)))

    def _rows(self, job: int, length: int) -> Iterator[_Row]:
        """One row where the tokens fit the context; else windows that overlap by half, each read where it is new."""
        size = self.context_length
        yield _Row(job, 0, min(length, size), 0)
        done = size
        while done < length:
            end = min(length, done + size // 2)
            yield _Row(job, end - size, end, done)
            done = end

    def _batches(self, jobs: Sequence[Job]) -> Iterator[list[_Row]]:
        """Rows of similar length, longest first (so that a lack of memory shows at once), within the token budget."""
        order = sorted(range(len(jobs)), key=lambda i: len(jobs[i].ids), reverse=True)
        batch: list[_Row] = []
        longest = 0
        for i in order:
            rows = list(self._rows(i, len(jobs[i].ids)))
            longest = max(longest, rows[0].end)
            if batch and (len(batch) + len(rows)) * longest > self.token_budget:
                yield batch
                batch, longest = [], rows[0].end
            batch += rows
        if batch:
            yield batch

    def _run_batch(
        self,
        jobs: Sequence[Job],
        rows: list[_Row],
        layers: Sequence[int],
        pooling: Pooling,
        project: Callable[[Tensor], Tensor] | None,
    ) -> Iterator[tuple[int, Tensor | ActivationError]]:
        members = list(dict.fromkeys(row.job for row in rows))
        pooled = None
        try:
            pooled = self._pooled(jobs, rows, members, layers, pooling)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
        if pooled is None:  # only here, where the error no longer holds the failed pass's tensors, is their memory free
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(members) == 1:
                longest = max(row.end - row.start for row in rows)
                yield members[0], ActivationError(f"out of memory on a single conversation ({longest} tokens a window)")
                return
            for half in (members[: len(members) // 2], members[len(members) // 2 :]):
                yield from self._run_batch(jobs, [r for r in rows if r.job in set(half)], layers, pooling, project)
            return
        finite = torch.isfinite(pooled).flatten(1).all(1)
        values = (pooled if project is None else project(pooled)).cpu()
        sound = finite.tolist()
        at = 0
        for job in members:
            count = len(jobs[job].spans)
            if all(sound[at : at + count]):
                yield job, values[at : at + count]
            else:
                yield job, ActivationError("the activations are not finite numbers (NaN or infinity); try --dtype float32")
            at += count

    def _pooled(self, jobs: Sequence[Job], rows: list[_Row], members: list[int], layers: Sequence[int], pooling: Pooling) -> Tensor:
        """Pooled activations [spans of all members in order, layers, hidden], float32 on the device."""
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(jobs[row.job].ids[row.start : row.end]) for row in rows], batch_first=True).to(
            self.device
        )
        pieces = _pieces(jobs, rows, members)
        pool = _MeanPool(pieces, (ids.shape[0], ids.shape[1]), self.device) if pooling == "mean" else _TokenPool(pieces, pooling)
        found: dict[int, Tensor] = {}

        def take(layer: int, hidden: Tensor) -> None:
            found[layer] = pool(hidden)

        with capture(self.blocks, layers, take):
            self.model(input_ids=ids, use_cache=False)
        return torch.stack([found[layer].to(self.device) for layer in layers], dim=1)


@contextmanager
def capture(blocks: nn.ModuleList, layers: Sequence[int], take: Callable[[int, Tensor], None]) -> Iterator[None]:
    """While it is open, `take(layer, hidden)` gets each layer's output [batch, tokens, hidden]; then the pass ends."""
    deepest = max(layers)
    handles = []

    def hook(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            take(layer, output[0] if isinstance(output, tuple) else output)
            if layer == deepest:
                raise _EnoughError

        return after

    try:
        for layer in sorted(set(layers)):
            handles.append(blocks[layer].register_forward_hook(hook(layer)))
        yield
    except _EnoughError:
        pass
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where a stretch of a span's tokens stands in a batch; a span has one for each window that holds some of it."""

    span: int
    row: int
    start: int
    end: int


def _pieces(jobs: Sequence[Job], rows: list[_Row], members: list[int]) -> list[_Piece]:
    """The pieces of all spans of all members; spans are numbered in that order."""
    of_job: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        of_job.setdefault(row.job, []).append(at)
    found = []
    span = 0
    for job in members:
        for start, end in jobs[job].spans:
            for at in of_job[job]:
                row = rows[at]
                first, last = max(start, row.read_from), min(end, row.end)
                if first < last:
                    found.append(_Piece(span, at, first - row.start, last - row.start))
            span += 1
    return found


class _MeanPool:
    """Means over spans as one product a layer: weights [rows, slots, tokens] times hidden [rows, tokens, hidden].

    A row's product touches that row alone, so that a row with NaN spoils no other.
    """

    def __init__(self, pieces: list[_Piece], shape: tuple[int, int], device: torch.device) -> None:
        rows, tokens = shape
        lengths: dict[int, int] = {}
        taken = [0] * rows
        places = []
        for piece in pieces:
            lengths[piece.span] = lengths.get(piece.span, 0) + piece.end - piece.start
            places.append((piece.row, taken[piece.row]))
            taken[piece.row] += 1
        weights = torch.zeros(rows, max(taken), tokens)
        for piece, (row, slot) in zip(pieces, places, strict=True):
            weights[row, slot, piece.start : piece.end] = 1 / lengths[piece.span]
        self.weights = weights.to(device)
        self.row, self.slot = torch.tensor(places, device=device).T
        self.span = torch.tensor([piece.span for piece in pieces], device=device)
        self.spans = len(lengths)

    def __call__(self, hidden: Tensor) -> Tensor:
        means = torch.bmm(self.weights.to(hidden.device), hidden.float())[self.row, self.slot]
        return torch.zeros(self.spans, means.shape[1], device=means.device).index_add_(0, self.span, means)


class _TokenPool:
    """Pooling that looks at a span's tokens in order: the last one, or the largest of their rolling means."""

    def __init__(self, pieces: list[_Piece], pooling: Pooling) -> None:
        self.last = pooling == "last"
        self.spans: dict[int, list[_Piece]] = {}
        for piece in pieces:
            self.spans.setdefault(piece.span, []).append(piece)

    def __call__(self, hidden: Tensor) -> Tensor:
        return torch.stack([self._one(torch.cat([hidden[p.row, p.start : p.end] for p in found])) for found in self.spans.values()])

    def _one(self, tokens: Tensor) -> Tensor:
        if self.last:
            return tokens[-1].float()
        size = min(ROLLING, len(tokens))
        return tokens.float().unfold(0, size, 1).mean(-1).amax(0)


def _context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    from_config = getattr(text_config(model), "max_position_embeddings", None) or 1 << 20
    return int(min(from_config, tokenizer.model_max_length))


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
