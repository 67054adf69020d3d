"""What to measure: a trait, the contrast pairs that show its two poles, and the examples that these yield.

A trait is defined either by contrast pairs (one context, a high and a low reply) or, as in the tutorial, by two
plain lists of texts. Both come out as the same thing, `Example`s, which is all that extraction sees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from demeanor.conversation import Conversation, Message, as_conversation
from demeanor.errors import ConversationError, TraitError
from demeanor.language import ENGLISH
from demeanor.measure.conditions import AppliesWhen
from demeanor.measure.cuts import Action
from demeanor.measure.poles import Pole

Split = Literal["train", "calibration", "test"]
Span = Literal["response", "user"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class ContrastPair:
    """One context with a high-trait and a low-trait message.

    `high` and `low` are assistant messages, or user messages for a trait that is read on the user's span.
    `family` is the kind of scenario (splits never share one), `register` the voice, `failure` how the unsafe one
    fails, and `hard` marks a pair in which surface and substance disagree.
    """

    id: str
    context: tuple[Message, ...]
    high: str
    low: str
    family: str
    register: str = ""
    failure: str = ""
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One pole of a pair, ready to be read: a conversation that ends with the message to read, and its label."""

    conversation: Conversation
    high: bool
    pair_id: str
    family: str
    register: str = ""
    hard: bool = False


@dataclass(eq=False)
class TraitDefinition:
    """A named behaviour with a high and a low pole.

    The first four fields are the tutorial's. Give either the two lists of prompts or `pairs`; from pairs the lists
    are filled in with the train pairs as text. `safe_pole` says which pole one wants to see, `reads` whose message is read.
    `ordinary_weight` says how much an everyday conversation (traits/ordinary.py) counts as an example of the safe pole, against 1 for
    a reply of a pair, and `hard_moments_weight` the same for a hard moment that is answered well; 0 leaves them aside. `splits` maps
    each family to its split.

    A trait counts where the user's messages are like the contexts of its pairs, which is learnt from them where they are enough
    (traits/contexts.py), and where all of `applies_when` hold, by other traits of the user's messages; "always" leaves both out.
    `not_scored` says what is done about a reply that could not be scored, and `judged_whole` that the trait asks for something which may
    stand anywhere in a reply, so that no part of a reply is judged by it. `language` is that of its examples, as ISO 639 has it ("en").
    """

    name: str
    description: str
    high_trait_prompts: list[str] = field(default_factory=list)
    low_trait_prompts: list[str] = field(default_factory=list)
    pairs: tuple[ContrastPair, ...] = ()
    splits: Mapping[str, Split] = field(default_factory=dict)
    title: str = ""
    high_pole: str = "high"
    low_pole: str = "low"
    safe_pole: Pole = "high"
    reads: Span = "response"
    ordinary_weight: float = 0.0
    hard_moments_weight: float = 0.0
    applies_when: tuple[AppliesWhen, ...] | Literal["always"] = ()
    not_scored: Action = "flag"
    judged_whole: bool = False
    language: str = ENGLISH
    unpaired: Sequence[tuple[Split, Example]] = ()
    """Examples that pair with nothing, each with its split, in place of pairs."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise TraitError(f"{self.name!r} is not a trait name: use lower-case letters, digits, '_' and '-', at most 64, no path")
        if isinstance(self.applies_when, AppliesWhen):
            self.applies_when = (self.applies_when,)
        own = any(when.trait == self.name for when in self.applies_when if isinstance(when, AppliesWhen))
        if own or (self.applies_when and self.reads == "user"):
            raise TraitError(f"trait {self.name}: 'applies_when' is for traits of replies, and names a trait of the user's messages")
        self.title = self.title or self.name.replace("_", " ").capitalize()
        if self.unpaired:
            return
        if self.pairs:
            self.splits = dict(self.splits) or _spread_over_splits([p.family for p in self.pairs])
            if lost := sorted({p.family for p in self.pairs} - set(self.splits)):
                raise TraitError(f"trait {self.name}: family {lost[0]!r} is in no split; give it one, or leave all splits out")
            if not self.high_trait_prompts and not self.low_trait_prompts:
                train = [p for p in self.pairs if self.splits[p.family] == "train"]
                self.high_trait_prompts = [as_text(self._conversation(p, p.high)) for p in train]
                self.low_trait_prompts = [as_text(self._conversation(p, p.low)) for p in train]
            return
        for pole, prompts in (("high", self.high_trait_prompts), ("low", self.low_trait_prompts)):
            if not any(p.strip() for p in prompts):
                raise TraitError(f"trait {self.name}: the {pole} pole is empty; give at least one {pole}-trait example")

    def __repr__(self) -> str:
        if self.unpaired:
            size = f"{sum(e.high for _, e in self.unpaired)} high and {sum(not e.high for _, e in self.unpaired)} low examples"
        elif self.pairs:
            counts = [(split, sum(self.splits[p.family] == split for p in self.pairs)) for split in SPLITS]
            size = f"{len(self.pairs)} pair{'' if len(self.pairs) == 1 else 's'} ({', '.join(f'{n} {split}' for split, n in counts if n)})"
        else:
            size = f"{len(self.high_trait_prompts)} high and {len(self.low_trait_prompts)} low texts"
        reads = "" if self.reads == "response" else f", reads the {self.reads}'s message"
        return f"TraitDefinition({self.name}: {size}, safe pole {self.safe_pole}{reads})"

    def examples(self, split: Split | None = None) -> list[Example]:
        """The labelled examples of a split (all of them by default), high and low of a pair side by side."""
        if self.unpaired:
            return [example for of, example in self.unpaired if split in (None, of)]
        if self.pairs:
            chosen = [p for p in self.pairs if split in (None, self.splits[p.family])]
            return [
                Example(self._conversation(p, text), high, p.id, p.family, p.register, p.hard)
                for p in chosen
                for text, high in ((p.high, True), (p.low, False))
            ]
        if split not in (None, "train"):
            return []
        return [
            Example(self._from_prompt(text), high, f"example-{i + 1}", f"example-{i + 1}")
            for high, prompts in ((True, self.high_trait_prompts), (False, self.low_trait_prompts))
            for i, text in enumerate(prompts)
        ]

    def _from_prompt(self, text: str) -> Conversation:
        try:
            conversation = as_conversation(text)
            conversation.last("user" if self.reads == "user" else "assistant")
        except ConversationError as error:
            raise TraitError(f"trait {self.name}: example {text[:40]!r}: {error}") from error
        return conversation

    def _conversation(self, pair: ContrastPair, text: str) -> Conversation:
        return Conversation((*pair.context, Message("user" if self.reads == "user" else "assistant", text)))


def as_text(conversation: Conversation) -> str:
    r"""A conversation in the tutorial's text form, "User: ...\nAssistant: ..."."""
    return "\n".join(f"{m.role.capitalize()}: {m.content}" for m in conversation.messages)


def _spread_over_splits(families: list[str]) -> dict[str, Split]:
    """A split for each family where the author named none: of every five families three train, one calibrates, one tests.

    Fewer than five families all train: too few to hold any back.
    """
    distinct = list(dict.fromkeys(families))
    if len(distinct) < 5:
        return dict.fromkeys(distinct, "train")
    turn: tuple[Split, ...] = ("train", "calibration", "train", "test", "train")
    return {family: turn[i % 5] for i, family in enumerate(distinct)}
