"""Reads a model's activations with OpenVINO on a CPU, in float32: the same numbers as ActivationReader's, to rounding.

One graph, traced from the transformers model itself, does everything: the blocks up to the deepest layer that is read, and
the product with the directions.

    in    ids [rows, tokens], positions [rows, tokens], a mask that is added to the attention scores [rows, 1, tokens, past + tokens],
          keys and values of what came before [2 * blocks, rows, heads, past, width of a head], directions [traits, layers * hidden]
    out   each token's raw scores [rows, tokens, traits], its keys and values [2 * blocks, rows, heads, tokens, width of a head]

Pooling by mean or last token is linear, so that spans are pooled after projecting and not before; "max" is not, and is left out.
Also left out: models whose attention or rotary positions depend on the length (sliding windows, LongRoPE), which the trial on a few
tokens cannot show, and quantised ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import openvino  # type: ignore[import-not-found, unused-ignore]
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from demeanor.errors import ActivationError, ModelError
from demeanor.model.blocks import decoder_blocks, text_config
from demeanor.model.hooks import capture
from demeanor.model.packing import Job, PackedRow, plan, window_bounds

ALIKE = 1e-3  # how far a raw score may be from torch's, in norms of the activation times the direction
UNSEEN = float(np.finfo(np.float32).min)


class Passed(NamedTuple):
    """Each token's raw scores [rows, tokens, traits], and its keys and values [2 * blocks, rows, heads, tokens, width of a head]."""

    raw: NDArray[np.float32]
    keys_and_values: NDArray[np.float32]


class OpenVinoReads:
    """Raw scores of token sequences by OpenVINO.

    Args:
        model: A transformers causal language model in float32, on the CPU.
        layers: 0-based layers to read.
        directions: [traits, layers * hidden], the layers in the order given.
        pooling: How a span's tokens become one score.
        token_budget: Tokens a batch, padding included.
        context_length: Tokens that are read at once; by default the model's own length.
        graph: An OpenVINO file (.xml): read where it is there, else made and kept there. It belongs to this model and these layers.
        threads: Threads to use; by default OpenVINO's choice.

    Raises:
        ModelError: the model cannot be converted, or reads otherwise than in torch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Sequence[int],
        directions: NDArray[np.floating[Any]],
        pooling: Literal["mean", "last"] = "mean",
        token_budget: int = 1024,
        context_length: int | None = None,
        graph: Path | None = None,
        threads: int | None = None,
    ) -> None:
        if model.dtype != torch.float32:
            raise ModelError(
                f"the model is in {str(model.dtype).removeprefix('torch.')}, and OpenVINO reads in float32; load it with --dtype float32"
            )
        self.pooling = pooling
        self.token_budget = token_budget
        self.context_length = context_length or int(getattr(text_config(model), "max_position_embeddings", None) or 1 << 20)
        self._directions = np.ascontiguousarray(directions, dtype=np.float32)
        traced = _Graph(model, layers, _keys_and_values_shape(model, max(layers)))
        self._none = np.zeros((*traced.shape[:1], 1, traced.shape[1], 0, traced.shape[2]), dtype=np.float32)
        found = openvino.Core().read_model(graph) if graph is not None and graph.exists() else convert(traced)
        if graph is not None and not graph.exists():
            openvino.save_model(found, graph, compress_to_fp16=False)
        self._request = compiled(found, threads)
        self._check(traced)

    def project(self, jobs: Sequence[Job]) -> list[NDArray[np.float64] | ActivationError]:
        """Raw scores [spans, traits] of each job, in the order given, or the error that kept it from being read."""
        results: dict[int, NDArray[np.float64] | ActivationError] = {}
        for i, job in enumerate(jobs):
            if len(job.ids) > self.context_length:
                results[i] = self._pooled(self.project_tokens(job.ids), job)
        fitting = [i for i in range(len(jobs)) if i not in results]
        work = [jobs[i] for i in fitting]
        heads: dict[int, NDArray[np.float32]] = {}
        for rows in plan(work, self.token_budget, self.context_length):
            results.update({fitting[i]: result for i, result in self._batch(work, rows, heads)})
        return [results[i] for i in range(len(jobs))]

    def project_tokens(self, ids: Sequence[int]) -> NDArray[np.float64]:
        """Raw scores of each token [tokens, traits]; beyond the context in overlapping windows, each read where it is new."""
        found = [self.run(ids[start:end]).raw[0, done - start :] for start, done, end in window_bounds(len(ids), self.context_length)]
        return np.concatenate(found).astype(np.float64) if found else np.zeros((0, len(self._directions)))

    def run(self, ids: Sequence[int], past: NDArray[np.float32] | None = None) -> Passed:
        """One row's tokens, which go on from the keys and values of what came before [2 * blocks, 1, heads, past, width]."""
        past = self._none if past is None else past
        before = past.shape[3]
        position = np.arange(before, before + len(ids))[None]
        return self._pass(np.asarray(ids, dtype=np.int64)[None], position, _mask(np.zeros((1, len(ids)), dtype=np.int64), before), past)

    def _pass(self, ids: NDArray[np.int64], position: NDArray[np.int64], mask: NDArray[np.float32], past: NDArray[np.float32]) -> Passed:
        found = self._request.infer([ids, position, mask, past, self._directions])
        return Passed(found[0], found[1])

    def _batch(
        self, jobs: Sequence[Job], rows: list[PackedRow], heads: dict[int, NDArray[np.float32]]
    ) -> Iterator[tuple[int, NDArray[np.float64] | ActivationError]]:
        """Results by job. A job whose numbers are not finite can spoil the others of its row: they run again, alone."""
        head, width = rows[0].head, max(row.length for row in rows)
        ids, position, branch = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(3))
        for at, row in enumerate(rows):
            ids[at, : row.trunk] = jobs[row.jobs[0]].ids[head : head + row.trunk]
            position[at, : row.trunk] = np.arange(head, head + row.trunk)
            for number, (job, start, end) in enumerate(row.branches(), 1):
                ids[at, start:end] = jobs[job].ids[head + row.trunk :]
                position[at, start:end] = np.arange(head + row.trunk, head + row.trunk + end - start)
                branch[at, start:end] = number
        if head and head not in heads:
            heads[head] = self.run(jobs[rows[0].jobs[0]].ids[:head]).keys_and_values.copy()
        past = np.broadcast_to(
            heads[head] if head else self._none, (self._none.shape[0], len(rows), *(heads[head] if head else self._none).shape[2:])
        )
        raw = self._pass(ids, position, _mask(branch, head), np.ascontiguousarray(past)).raw
        for at, row in enumerate(rows):
            found = []
            for job, start, end in row.branches():
                own = np.concatenate([raw[at, : row.trunk], raw[at, start:end]]).astype(np.float64)
                found.append((job, self._pooled(own, jobs[job], head)))
            if len(row.jobs) > 1 and any(isinstance(result, ActivationError) for _, result in found):
                for one in row.alone():
                    yield from self._batch(jobs, [one], heads)
            else:
                yield from found

    def _pooled(self, raw: NDArray[np.float64], job: Job, before: int = 0) -> NDArray[np.float64] | ActivationError:
        """The spans of a job from its tokens' scores, those of the first `before` tokens left out; a span without a token gives zeros."""
        found = np.zeros((len(job.spans), len(self._directions)))
        for at, (start, end) in enumerate(job.spans):
            if start < end:
                found[at] = raw[end - 1 - before] if self.pooling == "last" else raw[start - before : end - before].mean(0)
        return found if np.isfinite(found).all() else ActivationError("the activations are not finite numbers (NaN or infinity)")

    def _check(self, traced: _Graph) -> None:
        """Raises ModelError unless a few tokens, alone and after others, read as the model itself reads them."""
        ids = [(7 * i) % 83 + 3 for i in range(24)]
        found: dict[int, Tensor] = {}
        with torch.inference_mode(), capture(traced.blocks, traced.layers, found.__setitem__):
            traced.model(input_ids=torch.tensor([ids]), use_cache=False)
        hidden = torch.cat([found[layer][0] for layer in traced.layers], -1).numpy()
        torchs = hidden @ self._directions.T
        size = np.linalg.norm(hidden, axis=1)[:, None] * np.linalg.norm(self._directions, axis=1)
        first = self.run(ids[:9])
        ours = np.concatenate([first.raw[0], self.run(ids[9:], first.keys_and_values.copy()).raw[0]])
        if not (np.abs(ours - torchs) <= ALIKE * size).all():
            raise ModelError(f"{type(traced.model).__name__} reads otherwise in OpenVINO than in torch; read it with torch")


class _Graph(nn.Module):
    """What is converted; see the head of this file."""

    def __init__(self, model: PreTrainedModel, layers: Sequence[int], shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.model, self.layers, self.shape = model, list(layers), shape
        self.blocks = decoder_blocks(model)

    def forward(self, ids: Tensor, position: Tensor, mask: Tensor, past: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        kept = [_Past(past[2 * i], past[2 * i + 1]) for i in range(self.shape[0] // 2)]
        found: dict[int, Tensor] = {}
        with capture(self.blocks, self.layers, found.__setitem__):
            self.model(input_ids=ids, position_ids=position, attention_mask=mask, past_key_values=Cache(layers=list(kept)), use_cache=True)
        hidden = torch.cat([found[layer] for layer in self.layers], -1)
        return hidden @ directions.T, torch.stack([tensor for layer in kept for tensor in layer.new])


class _Past(DynamicLayer):
    """One block's keys and values of earlier tokens, which are joined to the new ones but not kept."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.new: tuple[Tensor, ...] = ()
        self.before = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.new = key_states, value_states
        return torch.cat([self.before[0], key_states], -2), torch.cat([self.before[1], value_states], -2)


def convert(graph: _Graph) -> openvino.Model:
    """Trace the graph on a few tokens after a few others. Raises ModelError."""
    blocks, heads, width = graph.shape
    ids = torch.arange(14).view(2, 7) + 3
    past = torch.zeros(blocks, 2, heads, 5, width)
    mask = torch.from_numpy(_mask(np.zeros((2, 7), dtype=np.int64), 5))
    directions = torch.zeros(3, len(graph.layers) * int(text_config(graph.model).hidden_size))
    example = (ids, torch.arange(5, 12).repeat(2, 1), mask, past, directions)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that what depends on the example is fixed by tracing, which `_check` is about
            return openvino.convert_model(graph.eval(), example_input=example)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, NotImplementedError) as error:
        raise ModelError(
            f"{type(graph.model).__name__} cannot be converted for OpenVINO ({str(error).splitlines()[0]}); read it with torch"
        ) from error


def compiled(graph: openvino.Model, threads: int | None) -> openvino.InferRequest:
    """Ready to run in float32, one batch at a time."""
    options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    return openvino.Core().compile_model(graph, "CPU", options).create_infer_request()


def _keys_and_values_shape(model: PreTrainedModel, deepest: int) -> tuple[int, int, int]:
    """How many tensors of keys and values the blocks have, of how many heads, how wide."""
    config = text_config(model)
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return 2 * (deepest + 1), heads, width


def _mask(branch: NDArray[np.int64], head: int) -> NDArray[np.float32]:
    """Who sees whom, as numbers added to the attention scores [rows, 1, tokens, head + tokens].

    A token sees the head, the trunk (branch 0) and its own branch, as far as they lie before it.
    """
    rows, width = branch.shape
    order = np.arange(width)
    sees = (order[:, None] >= order) & ((branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None]))
    mask = np.zeros((rows, 1, width, head + width), dtype=np.float32)
    mask[..., head:][~sees[:, None]] = UNSEEN
    return mask
