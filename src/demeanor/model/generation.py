"""Writing replies with the model: sampling by transformers' own `generate`, batched, seeded, and watched where asked.

The prompt is the conversation so far, rendered by the model's chat template up to where the assistant speaks. Rows of a
batch are padded on the left under an attention mask. The global random state is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from demeanor.conversation import Message
from demeanor.errors import ModelError
from demeanor.model.reader import ActivationReader
from demeanor.progress import Progress

PLAIN: dict[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "min_new_tokens": 0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "guidance_scale": 1.0,
}
"""What a model's own generation config would otherwise set."""
UNCUT: dict[str, Any] = {"top_k": 0, "min_p": 0.0, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
"""Likewise, of which tokens are drawn from."""
ROWS = 32  # replies written side by side


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: by these settings alone, for any model.

    Penalties, least lengths, cuts and beams that a model's own generation config sets are off; tokens that it forbids or forces
    stay so.
    """

    max_new_tokens: int = 160
    temperature: float = 0.7
    """0 takes the likeliest token each time (greedy)."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    seed: int = 0
    """The same seed, prompts and machine give the same replies."""
    stop: tuple[str, ...] = ()
    """A reply ends where it comes to one of these, which is then no part of it."""
    top_logprobs: int | None = None
    """Give the log probabilities of the reply's tokens, and of so many of the likeliest at each; None gives none. The model's own,
    whatever the temperature."""

    def config(self, reader: ActivationReader) -> GenerationConfig:
        """The same as transformers' settings, with the model's own end-of-turn tokens. Raises ModelError."""
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ModelError(f"cannot sample with {self}; tokens at least 1, temperature at least 0, top_p above 0 and at most 1")
        drawn: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            drawn = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, **UNCUT}
        if stops := _stops(reader, self):
            drawn["stop_strings"] = stops
        if self.top_logprobs is not None:
            drawn["output_logits"] = True
        ends = end_tokens(reader)
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            eos_token_id=ends or None,
            pad_token_id=_pad(reader),
            return_dict_in_generate=True,
            **PLAIN,
            **drawn,
        )


class Likely(NamedTuple):
    """A token, and its log probability under the model."""

    text: str
    logprob: float


@dataclass(frozen=True)
class WrittenReply:
    """A reply as written: its text, its tokens without what ends the turn, and whether it came to its own end."""

    text: str
    ids: list[int]
    finished: bool
    logprobs: tuple[tuple[Likely, tuple[Likely, ...]], ...] | None = None
    """For each token itself and the likeliest at its place, where `Sampling.top_logprobs` asked for them."""


Watch = Callable[[list[int]], bool]
"""Called after each token with the reply's tokens so far; True stops the reply."""
Around = Callable[[Sequence[int]], AbstractContextManager[object]]
"""Gives what is open while a batch is written, for the places in `prompts` of its rows, in the order of the rows."""


def write_replies(
    reader: ActivationReader,
    prompts: Sequence[Sequence[Message]],
    sampling: Sampling | None = None,
    progress: Progress | None = None,
    around: Around | None = None,
) -> list[WrittenReply]:
    """A reply to each conversation so far (its last message is normally the user's), in the order given.

    What is drawn does not depend on `around`, only on what it does to the model: steered rows, for one, draw as plain ones do.
    Raises ChatTemplateError for a conversation that the template refuses, ModelError for one that leaves no room.
    """
    sampling = sampling or Sampling()
    ids = [prompt_ids(reader, messages, sampling) for messages in prompts]
    replies: dict[int, WrittenReply] = {}
    for batch in _batches(ids):
        with around(batch) if around else nullcontext():
            written = _generate(reader, [ids[i] for i in batch], sampling, seed=sampling.seed + min(batch))
        replies.update(zip(batch, written, strict=True))
        if progress is not None:
            progress(len(batch))
    return [replies[i] for i in range(len(prompts))]


def write_reply(
    reader: ActivationReader, messages: Sequence[Message], sampling: Sampling | None = None, watch: Watch | None = None
) -> WrittenReply:
    """One reply, watched token by token where `watch` is given.

    All its tokens have passed through the model when it returns, the last one too.
    """
    sampling = sampling or Sampling()
    ids = prompt_ids(reader, messages, sampling)
    return _generate(reader, [ids], sampling, sampling.seed, watch, to_the_last=True)[0]


def prompt_ids(reader: ActivationReader, messages: Sequence[Message], sampling: Sampling) -> list[int]:
    """The tokens that the model is given to reply to. Raises ModelError where they leave no room for a reply."""
    ids = reader.encoder.prompt_ids(messages)
    if len(ids) + sampling.max_new_tokens > reader.context_length:
        raise ModelError(
            f"a prompt of {len(ids)} tokens and a reply of {sampling.max_new_tokens} exceed the model's context of "
            f"{reader.context_length}; shorten the conversation or the reply"
        )
    return ids


def end_tokens(reader: ActivationReader) -> list[int]:
    """The tokens that end a turn."""
    configured = reader.model.generation_config.eos_token_id if reader.model.generation_config else None
    found = configured if isinstance(configured, list) else [configured]
    return sorted({int(i) for i in [*found, reader.tokenizer.eos_token_id] if i is not None})


def _pad(reader: ActivationReader) -> int:
    known = (reader.tokenizer.pad_token_id, *end_tokens(reader), 0)
    return int(next(i for i in known if i is not None))


def _batches(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of similar length together."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    return [order[at : at + ROWS] for at in range(0, len(order), ROWS)]


class _Watching(StoppingCriteria):
    def __init__(self, watch: Watch, prompt: int) -> None:
        self.watch, self.prompt = watch, prompt

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        stop = self.watch(input_ids[0, self.prompt :].tolist())
        return torch.full((1,), stop, dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def _generate(
    reader: ActivationReader,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    seed: int,
    watch: Watch | None = None,
    to_the_last: bool = False,
) -> list[WrittenReply]:
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), _pad(reader))
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    criteria = StoppingCriteriaList([_Watching(watch, longest)] if watch else [])
    with torch.random.fork_rng(devices=[reader.device] if reader.device.type == "cuda" else []):
        torch.manual_seed(seed)
        written = reader.model.generate(  # type: ignore[operator]
            input_ids=ids.to(reader.device),
            attention_mask=mask.to(reader.device),
            generation_config=sampling.config(reader),
            stopping_criteria=criteria,
            tokenizer=reader.tokenizer,
        )
    replies = [_reply(reader, row[longest:].tolist(), sampling.stop) for row in written.sequences]
    if sampling.top_logprobs is not None:
        logits = torch.stack(written.logits, dim=1)
        replies = [replace(r, logprobs=_likely(reader, r.ids, row, sampling.top_logprobs)) for r, row in zip(replies, logits, strict=True)]
    if to_the_last and len(replies[0].ids) == written.sequences.shape[1] - longest:  # no end-of-turn token was drawn after it
        reader.model(input_ids=written.sequences[:, -1:], past_key_values=written.past_key_values, use_cache=True)
    return replies


def _likely(reader: ActivationReader, ids: list[int], logits: Tensor, top: int) -> tuple[tuple[Likely, tuple[Likely, ...]], ...]:
    """Log probabilities of a reply's tokens, from the logits [tokens, vocabulary] that they were drawn by."""
    logs = torch.log_softmax(logits[: len(ids)].float(), dim=-1).cpu()
    best = logs.topk(max(top, 1), dim=-1)
    found = []
    for place, token in enumerate(ids):
        others = tuple(Likely(_decoded(reader, [int(i)]), float(p)) for p, i in zip(best.values[place], best.indices[place], strict=True))
        found.append((Likely(_decoded(reader, [token]), float(logs[place, token])), others[:top]))
    return tuple(found)


def _stops(reader: ActivationReader, sampling: Sampling) -> list[str]:
    """The texts that end a reply: a base model's mark of the next turn, and those that were asked for."""
    return [*([reader.encoder.stop] if reader.encoder.stop is not None else []), *sampling.stop]


def _reply(reader: ActivationReader, ids: list[int], stops: Sequence[str] = ()) -> WrittenReply:
    ends = set(end_tokens(reader))
    end = next((i for i, token in enumerate(ids) if token in ends), None)
    kept = ids if end is None else ids[:end]
    whole, text = _decoded(reader, kept), text_of(reader, kept)
    text = min((text.split(stop)[0] for stop in stops), key=len, default=text)
    finished = end is not None
    if text != whole:
        text, finished = text.rstrip(), True
        while kept and _decoded(reader, kept[:-1]).startswith(text):
            kept = kept[:-1]
    return WrittenReply(text.strip(), kept, finished)


def text_of(reader: ActivationReader, ids: list[int]) -> str:
    """What a reply's tokens say; without a chat template of the model's own, up to where its turn ends."""
    text = _decoded(reader, ids)
    return text if reader.encoder.stop is None else text.split(reader.encoder.stop)[0]


def _decoded(reader: ActivationReader, ids: list[int]) -> str:
    return str(reader.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
