"""Tokens and spans to pooled activations: the one place where a model is run to be read.

The activation of layer k is the output of decoder block k, before the final norm. It is taken by our own hooks; the
forward pass stops after the deepest layer that is needed, so that neither the blocks above nor the LM head run.
Causal attention lets no token see a later one, so rows are padded on the right without a mask, and padding cannot
change what is read; a model that has shown on a few tokens to be otherwise is refused. What several conversations begin with is
run once (see packing), on models that have shown that they read alike that way. Pooling is done in float32, and no pass
has dropout, whatever mode the model is in.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from demeanor.conversation import Conversation, ConversationLike, SpanOf, as_conversation
from demeanor.errors import ActivationError, ConversationError, DemeanorError, ModelError
from demeanor.model.blocks import decoder_blocks, text_config
from demeanor.model.chat import ChatEncoder, Encoded
from demeanor.model.packing import Job, Row, plan, windows
from demeanor.model.pooling import ROLLING, Pooling, combine, pieces, pooler

Progress: TypeAlias = Callable[[int], None]
Project: TypeAlias = Callable[[Tensor], Tensor]
ALIKE = 0.999  # cosine from which on activations read by a shared beginning count as the same


class _EnoughError(Exception):
    """Ends a forward pass after the deepest layer that is needed."""


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
        self.token_budget = token_budget or (1024 if self.device.type == "cpu" else 32768)
        self.context_length = _context_length(model, tokenizer)
        self.turns_at = _turns_at(model)
        """Tokens from beyond which a conversation is read with other rotary frequencies, for all its tokens."""

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
        found = []
        for result in self.run(self.jobs(conversations, span), layers, pooling, progress=progress):
            if isinstance(result, DemeanorError):
                raise result
            found.append(result[0])
        return torch.stack(found) if found else torch.zeros(0, len(layers), self.hidden_size)

    def jobs(self, conversations: Sequence[ConversationLike], span: SpanOf = "response") -> list[Job]:
        """Each conversation as tokens with the one span that is to be read. Raises the first error of any conversation."""
        return [Job(e.ids, [self.span(e, conversation, span)]) for e, conversation in zip(*self._encode(conversations), strict=True)]

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
        texts: list[str] = []
        before, shown = 0, 0  # a token's text can depend on the one before it, so each is decoded with that
        for i in range(len(ids)):
            known, now = (str(self.tokenizer.decode(list(ids[before:end]), clean_up_tokenization_spaces=False)) for end in (shown, i + 1))
            if now.endswith("\ufffd") and i + 1 < len(ids):
                texts.append("")
                continue
            texts.append(now[len(known) :])
            before, shown = shown, i + 1
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
        long = [i for i, job in enumerate(jobs) if len(job.ids) > self.context_length]
        results: dict[int, Tensor | ActivationError] = {}
        for i in long:
            results[i] = self._run_windows(jobs[i], layers, pooling, project)
            if progress is not None:
                progress(1)
        fitting = [i for i in range(len(jobs)) if i not in results]
        work = [jobs[i] for i in fitting]
        for batch in self._launch(plan(work, self.token_budget, self.shares_up_to, turns_at=self.turns_at), work, layers, pooling, project):
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

    def _launch(
        self, batches: Iterator[list[Row]], jobs: Sequence[Job], layers: Sequence[int], pooling: Pooling, project: Project | None
    ) -> Iterator[dict[int, Tensor | ActivationError]]:
        """Results by job, a batch at a time; each is taken from the device only once the next one runs there."""
        heads: dict[int, list[tuple[Tensor, Tensor]]] = {}
        running: tuple[list[Row], Tensor, Tensor] | None = None
        for rows in batches:
            launched = self._try_batch(jobs, rows, layers, pooling, project, heads)
            if running is not None:
                yield self._settled(jobs, *running, layers, pooling, project)
                running = None
            if launched is not None:
                running = (rows, *launched)
            elif smaller := _smaller(rows):
                yield from self._launch(iter(smaller), jobs, layers, pooling, project)
            else:
                error = ActivationError(f"out of memory on a single conversation ({rows[0].length} tokens a window)")
                yield {rows[0].jobs[0]: error}
        if running is not None:
            yield self._settled(jobs, *running, layers, pooling, project)

    def _settled(
        self,
        jobs: Sequence[Job],
        rows: list[Row],
        values: Tensor,
        finite: Tensor,
        layers: Sequence[int],
        pooling: Pooling,
        project: Project | None,
    ) -> dict[int, Tensor | ActivationError]:
        """A batch's results by job. NaN times a weight of 0 is NaN, so one job can spoil the others of its row: they run again, alone."""
        found = _collected(jobs, rows, values, finite)
        for row in rows:
            if len(row.jobs) > 1 and any(isinstance(found[job], ActivationError) for job in row.jobs):
                for results in self._launch(iter([[one] for one in row.alone()]), jobs, layers, pooling, project):
                    found.update(results)
        return found

    def _try_batch(
        self,
        jobs: Sequence[Job],
        rows: list[Row],
        layers: Sequence[int],
        pooling: Pooling,
        project: Project | None,
        heads: dict[int, list[tuple[Tensor, Tensor]]],
    ) -> tuple[Tensor, Tensor] | None:
        """The results [spans, ...] of a batch and which spans are finite, on the device; None where memory ran out.

        On None the failed pass's tensors are free again: they hung on the error, which ends with this function.
        """
        try:
            pooled = self._pooled(jobs, rows, layers, pooling, heads)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
        else:
            return (pooled if project is None else project(pooled)), torch.isfinite(pooled).flatten(1).all(1)
        heads.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _pooled(
        self, jobs: Sequence[Job], rows: list[Row], layers: Sequence[int], pooling: Pooling, heads: dict[int, list[tuple[Tensor, Tensor]]]
    ) -> Tensor:
        """Pooled activations of all spans of a batch [spans, layers, hidden], float32 on the device."""
        head, width = rows[0].head, max(row.length for row in rows)
        ids, position, branch = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
        for at, row in enumerate(rows):
            first = jobs[row.jobs[0]].ids
            ids[at, : row.trunk] = torch.tensor(first[head : head + row.trunk])
            position[at, : row.trunk] = torch.arange(head, head + row.trunk)
            for number, (job, start, end) in enumerate(row.branches(), 1):
                ids[at, start:end] = torch.tensor(jobs[job].ids[head + row.trunk :])
                position[at, start:end] = torch.arange(head + row.trunk, head + row.trunk + end - start)
                branch[at, start:end] = number
        spans = sum(len(jobs[job].spans) for row in rows for job in row.jobs)
        pool = pooler(pooling, pieces(jobs, rows), spans, (len(rows), width), self._to_device)
        found: dict[int, Tensor] = {}

        def take(layer: int, hidden: Tensor) -> None:
            found[layer] = pool(hidden)

        options: dict[str, Any] = {}
        if rows[0].masked:
            options = {
                "position_ids": self._to_device(position),
                "attention_mask": _mask(self._to_device(branch), head, self.model.dtype),
            }
        if head:
            if head not in heads:
                heads[head] = self._head(jobs[rows[0].jobs[0]].ids[:head], max(layers))
            kept = [(k.expand(len(rows), -1, -1, -1), v.expand(len(rows), -1, -1, -1)) for k, v in heads[head]]
            options |= {"past_key_values": DynamicCache(kept)}
        with self.passes(layers, take):
            self.model(input_ids=self._to_device(ids), use_cache=bool(head), **options)
        return torch.stack([found[layer].to(self.device) for layer in layers], dim=1)

    def _head(self, ids: list[int], deepest: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of a common beginning in the layers up to the deepest that is needed, for one row."""
        cache = DynamicCache()
        with self.passes([deepest], lambda _layer, _hidden: None):
            self.model(input_ids=self._to_device(torch.tensor([ids])), past_key_values=cache, use_cache=True)
        return keys_and_values(cache)

    @contextmanager
    def passes(self, layers: Sequence[int], take: Callable[[int, Tensor], None], whole: bool = False) -> Iterator[None]:
        """As `capture`; a model in training mode is in evaluation mode meanwhile, and each of its modules then in its own again."""
        training = [module for module in self.model.modules() if module.training] if self.model.training else []
        try:
            for module in training:
                module.training = False
            with capture(self.blocks, layers, take, whole):
                yield
        finally:
            for module in training:
                module.training = True

    @cached_property
    def shares_up_to(self) -> int:
        """The longest conversation, in tokens, whose beginning may be shared with others; 0 where this model cannot.

        Not every architecture takes a mask of one's own, keys and values of an earlier pass, or positions that jump back;
        so it is tried on a few tokens. Attention that reaches back only so far bounds the length. Raises ModelError
        where the model is no causal one, which cannot be read at all.
        """
        self._check_causal()
        config = text_config(self.model)
        reach = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        longest = min([self.context_length, self.turns_at, *(int(r) for r in reach if r)])
        return longest if longest >= 64 and self._shares() else 0

    def _check_causal(self) -> None:
        """Raises ModelError where tokens' activations depend on what comes after them, and so on the padding of their batch.

        The same few tokens are read before two different continuations. Most of them must move: a mixture of experts in
        low precision may send one token another way.
        """
        some = [(7 * i) % 83 + 3 for i in range(24)]
        jobs = [Job([*some[:8], *rest], [(i, i + 1) for i in range(8)]) for rest in (some[8:16], some[16:])]
        found = {i: r for batch in self._launch(plan(jobs, 32), jobs, [self.n_layers - 1], "mean", None) for i, r in batch.items()}
        one, other = found[0], found[1]
        if isinstance(one, Tensor) and isinstance(other, Tensor) and torch.cosine_similarity(one, other, dim=-1).median() < ALIKE:
            raise ModelError(
                f"{type(self.model).__name__} is no causal model: its tokens see later ones, so that a reading would depend "
                "on its neighbours in a batch; use a decoder-only chat model"
            )

    def _shares(self) -> bool:
        some = [(7 * i) % 83 + 3 for i in range(32)]
        texts = [[*some[:14], *some[14:27] * (i % 2), *some[i : i + 6]] for i in range(6)]
        jobs = [Job(ids, [(14, 16), (len(ids) - 2, len(ids))]) for ids in texts]
        layers = [self.n_layers - 1]
        apart = list(self._launch(plan(jobs, 1), jobs, layers, "mean", None))
        try:
            together = list(self._launch(plan(jobs, 10_000, 64, worth=0), jobs, layers, "mean", None))
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError, NotImplementedError):
            return False
        one, other = ({i: r for batch in found for i, r in batch.items()} for found in (apart, together))
        return all(
            isinstance(a, Tensor) and isinstance(b, Tensor) and bool((torch.cosine_similarity(a, b, dim=-1) > ALIKE).all())
            for a, b in ((one[i], other[i]) for i in range(len(jobs)))
        )

    def _to_device(self, tensor: Tensor) -> Tensor:
        """Without waiting for what the device is doing."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor.to(self.device)


def keys_and_values(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """What a cache holds of each layer that has run [rows, heads, tokens, width of a head]."""
    found = (layer for layer in cache.layers if isinstance(layer, DynamicLayer))
    return [(layer.keys, layer.values) for layer in found if layer.keys is not None and layer.values is not None]


def _collected(jobs: Sequence[Job], rows: list[Row], values: Tensor, finite: Tensor) -> dict[int, Tensor | ActivationError]:
    """Each job's results [its spans, ...] on the CPU, or the error where one is not finite."""
    on_cpu, sound = values.cpu(), finite.tolist()
    found: dict[int, Tensor | ActivationError] = {}
    at = 0
    for row in rows:
        for job in row.jobs:
            count = len(jobs[job].spans)
            if all(sound[at : at + count]):
                found[job] = on_cpu[at : at + count]
            else:
                found[job] = ActivationError("the activations are not finite numbers (NaN or infinity); try --dtype float32")
            at += count
    return found


def _smaller(rows: list[Row]) -> list[list[Row]]:
    """What to try instead of a batch that was too large: its halves, or one row's jobs each alone; nothing below that."""
    if len(rows) > 1:
        return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return [[row] for row in rows[0].alone()] if len(rows[0].jobs) > 1 or rows[0].head else []


def _mask(branch: Tensor, head: int, dtype: torch.dtype) -> Tensor:
    """Who sees whom, as numbers added to the attention scores [rows, 1, tokens, head + tokens].

    A token sees the head, the trunk (branch 0) and its own branch, as far as they lie before it.
    """
    rows, width = branch.shape
    order = torch.arange(width, device=branch.device)
    sees = (order[:, None] >= order) & ((branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None]))
    mask = torch.zeros(rows, 1, width, head + width, device=branch.device, dtype=dtype)
    mask[..., head:].masked_fill_(~sees[:, None], torch.finfo(dtype).min)
    return mask


@contextmanager
def capture(blocks: nn.ModuleList, layers: Sequence[int], take: Callable[[int, Tensor], None], whole: bool = False) -> Iterator[None]:
    """While it is open, `take(layer, hidden)` gets each layer's output [batch, tokens, hidden].

    Then the pass ends, and with it what is inside the context; with `whole` every pass goes on to its end. Passes of
    other threads through the same model are not touched.
    """
    deepest, own = max(layers), threading.get_ident()
    handles = []

    def hook(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def after(_module: nn.Module, _args: Any, output: Any) -> None:
            if threading.get_ident() != own:
                return
            take(layer, output[0] if isinstance(output, tuple) else output)
            if layer == deepest and not whole:
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


def _context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    from_config = getattr(text_config(model), "max_position_embeddings", None) or 1 << 20
    return int(min(from_config, tokenizer.model_max_length))


def _turns_at(model: PreTrainedModel) -> int:
    """The length beyond which LongRoPE takes its long factors, for every row of a batch that holds one such; else no length."""
    rope = getattr(text_config(model), "rope_parameters", None) or {}
    kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict)]  # one, or one for each type of layer
    return min((int(k["original_max_position_embeddings"]) for k in kinds if k.get("rope_type") == "longrope"), default=sys.maxsize)


def _out_of_memory(error: Exception) -> bool:
    """CUDA, MPS, and a CPU on Windows and on Linux each say it in their own words."""
    return any(said in str(error) for said in ("out of memory", "not enough memory", "can't allocate memory"))
