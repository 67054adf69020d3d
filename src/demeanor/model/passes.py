"""A forward pass that is running under steering: which of its tokens are steered, and what the reply scores so far.

A token is steered where it is no padding (by the attention mask of the forward pass that is running), and on the side
that `where` names:

    response  every token from which a token of the reply is written: the prompt's last one and the reply's own
    prompt    all tokens before that
    both      all of them

Which is which follows from the cache while text is generated and from `labels` while a model is trained; where neither
is there only "both" can be meant. A four-dimensional mask of one's own names no padding, so that all its tokens are
steered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from demeanor.errors import SteeringError
from demeanor.model.operators import SteeringCondition, Where


@dataclass
class Pass:
    """A forward pass that is running: what is known of its tokens, and which of our layers have run."""

    owners: list[int] = field(default_factory=list)
    ran: set[int] = field(default_factory=set)
    done: bool = False
    attention: Tensor | None = None
    labels: Tensor | None = None
    past: int | None = None
    """Tokens in the cache; None where no cache was given."""
    _masks: dict[str, Tensor] = field(default_factory=dict)

    def learn(self, given: dict[str, Any]) -> None:
        """Note what the arguments of a module tell; the outermost that knows a thing is believed."""
        attention, labels, cache = given.get("attention_mask"), given.get("labels"), given.get("past_key_values")
        if self.attention is None and isinstance(attention, Tensor) and attention.ndim == 2:
            self.attention = attention
        if self.labels is None and isinstance(labels, Tensor):
            self.labels = labels
        if self.past is None and hasattr(cache, "get_seq_length"):
            self.past = int(cache.get_seq_length())  # type: ignore[union-attr]

    def mask(self, where: Where, hidden: Tensor) -> Tensor:
        """1 at the tokens to steer, 0 at the others [batch, tokens], float32."""
        key = f"{where} {hidden.device}"
        if key not in self._masks:
            self._masks[key] = self._mask(where, hidden)
        found = self._masks[key]
        if found.shape != hidden.shape[:2]:
            raise SteeringError(f"a mask for {tuple(found.shape)} tokens and activations of {tuple(hidden.shape[:2])}; they do not fit")
        return found

    def _mask(self, where: Where, hidden: Tensor) -> Tensor:
        batch, tokens = hidden.shape[:2]
        real = (
            torch.ones(batch, tokens, device=hidden.device)
            if self.attention is None
            else self._real(self.attention, tokens).to(hidden.device)
        )
        if where == "both":
            return real
        if self.labels is not None:
            writes = nn.functional.pad(self.labels[:, 1:] != -100, (0, 1)).float().to(hidden.device)
        elif self.past is None or (self.past > 0 and tokens > 1):
            raise SteeringError(
                f"cannot tell the prompt from the response in this forward pass, to steer the {where} only; "
                "generate with a cache, give labels, or steer both"
            )
        elif self.past > 0:
            writes = torch.ones_like(real)
        else:  # the prompt: its last token writes the reply's first
            counted = real.cumsum(1)
            writes = (counted == counted[:, -1:]).float() * real
        return real * (writes if where == "response" else 1 - writes)

    def _real(self, attention: Tensor, tokens: int) -> Tensor:
        """1 at the tokens that run and are no padding; the mask may name those in the cache too, and places yet to come."""
        width, past = attention.shape[1], self.past
        if past is not None and width >= past + tokens:
            return (attention[:, past : past + tokens] != 0).float()
        if width != tokens:
            before = "" if past is None else f" after {past} in the cache"
            raise SteeringError(
                f"an attention mask of {width} tokens does not fit {tokens}{before}, so it cannot say which of them are padding"
            )
        return (attention != 0).float()


class Rolling:
    """A trait's rolling score of each row's reply, and whether it is on the wrong side."""

    def __init__(self, condition: SteeringCondition) -> None:
        self.condition = condition
        self.scores: list[Tensor] = []
        self.partial: Tensor | None = None
        self.newest: tuple[Pass, Tensor] | None = None
        """The score of the token that is running, which counts from the next pass on."""

    def gate(self, current: Pass, hidden: Tensor) -> Tensor:
        """1 for the rows to steer at this token, else 0 [batch]."""
        if current.past is None or current.labels is not None or (current.past > 0 and hidden.shape[1] > 1):
            raise SteeringError(
                "steering on a condition needs a reply that is generated token by token, with a cache that begins with its prompt; "
                "leave the condition out here, or generate without chunks, candidates and kept caches"
            )
        if current.past == 0:
            self.scores, self.newest = [], None
        self._count(current)
        if not self.scores:
            return torch.zeros(len(hidden), device=hidden.device)
        mean = torch.stack([s.to(hidden.device) for s in self.scores]).mean(0)
        return (mean < 0 if self.condition.wrong == "below" else mean > 0).float()

    def read(self, layer: int, hidden: Tensor, current: Pass) -> None:
        """Add a layer's part to the newest token's score; the deepest layer makes it whole."""
        c = self.condition
        if not current.past:
            return  # the prompt
        row = c.directions[c.layers.index(layer)].to(hidden.device, torch.float32)
        part = (hidden[:, -1].detach().float() @ row).to(hidden.device)
        self.partial = part if layer == min(c.layers) or self.partial is None else self.partial.to(part.device) + part
        if layer == max(c.layers):
            self._count(current)
            self.newest, self.partial = (current, self.partial - c.centre), None

    def _count(self, current: Pass) -> None:
        if self.newest is not None and self.newest[0] is not current:
            self.scores = [*self.scores, self.newest[1]][-self.condition.window :]
            self.newest = None
