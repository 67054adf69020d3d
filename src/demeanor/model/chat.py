r"""Conversation to tokens, and where each message stands among them.

What is read of a message is its copy as the eye sees it (spelling.py), and of a reply what was said, without its reasoning
(reasoning.py): so every template gets the same.

The chat template is rendered once and the text tokenised once. To know where the messages stand in the rendered
text, the template is also rendered, once for each pattern of roles, with marker words in place of the messages, in whatever order
it puts them; what lies between the markers is the template's own text. The real text must consist of exactly these pieces and the
messages in that order, word for word: a template that drops, repeats or rewrites a message is refused.

A tokenizer without a template (a base model) gets a plain one, "User: ...\nAssistant: ...\n"; commands and `open_scorer` ask for that
(templates.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import BatchEncoding, PreTrainedTokenizerBase

from demeanor.conversation import Conversation, Message, SpanOf
from demeanor.errors import ChatTemplateError, ConversationError
from demeanor.model.templates import PLAIN_TEMPLATE, stop_of, template_hash

_MARK = "demeanormarker{}z"
_MARKED = re.compile(_MARK.format(r"(\d+)"))
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as tokens. `spans[i]` is the token range (start, end) of message i; `text` what was tokenised."""

    ids: list[int]
    spans: list[tuple[int, int]]
    text: str

    def place(self, conversation: Conversation, span: SpanOf) -> tuple[int, int]:
        """Where the last message of the span's role stands. Raises ConversationError where there is nothing to read."""
        start, end = self.spans[conversation.last("user" if span == "user" else "assistant")]
        if start >= end:
            raise ConversationError(f"the tokenizer turns the {span} into no token at all; give it some readable text")
        return start, end


class _Layout(NamedTuple):
    """What a template writes for a pattern of roles: its own text before, between and after the messages, and their order there."""

    pieces: list[str]
    order: list[int]


class ChatEncoder:
    """Renders and tokenises conversations for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ChatTemplateError(
                f"{type(tokenizer).__name__} gives no character offsets, so replies cannot be located; use a model with a fast tokenizer"
            )
        self.tokenizer = tokenizer
        self.template = tokenizer.chat_template or PLAIN_TEMPLATE
        self.has_template = bool(tokenizer.chat_template)
        self.stop = stop_of(tokenizer)
        self._layouts: dict[tuple[str, ...], _Layout] = {}

    @cached_property
    def template_hash(self) -> str:
        """Identifies the chat template; scores depend on it."""
        return template_hash(self.template)

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded | ChatTemplateError]:
        """Tokenise a batch in one call. Entries that the template cannot render come back as the error."""
        rendered = [self._render_or_error(c) for c in conversations]
        good = [r for r in rendered if not isinstance(r, ChatTemplateError)]
        if not good:
            return [r for r in rendered if isinstance(r, ChatTemplateError)]
        batch = self.tokenizer(
            [text for text, _ in good], add_special_tokens=not self.has_template, return_attention_mask=False, verbose=False
        )
        encoded = iter(
            Encoded(batch["input_ids"][i], [_token_range(batch, i, *at) for at in places], text) for i, (text, places) in enumerate(good)
        )
        return [r if isinstance(r, ChatTemplateError) else next(encoded) for r in rendered]

    def prompt(self, messages: Sequence[Message]) -> str:
        """The rendered text up to where the assistant's next reply begins, for generation."""
        return self._apply(self._acceptable(self._defused(messages)).messages, add_generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """`prompt` as tokens, without an end that the tokenizer adds of itself."""
        ids = list(self.tokenizer(self.prompt(messages), add_special_tokens=not self.has_template, verbose=False)["input_ids"])
        while not self.has_template and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids.pop()
        return ids

    def _render_or_error(self, conversation: Conversation) -> tuple[str, list[tuple[int, int]]] | ChatTemplateError:
        try:
            return self._render(conversation)
        except ChatTemplateError as error:
            return error

    def _render(self, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """The rendered text and each message's character range in it."""
        messages, inside = self._acceptable(self._defused(conversation.messages))
        roles = tuple(m.role for m in messages)
        try:
            text, places = self._placed(roles, messages)
        except ChatTemplateError:
            if self._layouts.pop(roles, None) is None:
                raise
            text, places = self._placed(roles, messages)  # a template that writes today's date has other pieces tomorrow
        return text, [(places[at][0] + start, places[at][0] + end) for at, start, end in inside]

    def _placed(self, roles: tuple[str, ...], messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        text = self._apply(messages)
        return text, _locate(text, self._layout(roles), [m.content for m in messages])

    def _acceptable(self, messages: list[Message]) -> _Accepted:
        """The messages in a form that the template takes.

        Many templates know no system role, or insist on user and assistant taking turns. Only where a template refuses, or leaves a
        system message out, the system message joins the first user message, neighbours of one role are joined, and a conversation that
        opens
        with the assistant gets a one-word user message before it.
        """
        try:
            self._apply(messages)
            marked = self._apply(_marks([m.role for m in messages]))
            if all(_MARK.format(i) in marked for i, m in enumerate(messages) if m.role == "system"):
                return _Accepted(messages, [(i, 0, len(m.content)) for i, m in enumerate(messages)])
        except ChatTemplateError:
            pass
        return _alternating(messages)

    def _apply(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{"role": m.role, "content": m.content} for m in messages],
                    chat_template=None if self.has_template else PLAIN_TEMPLATE,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise ChatTemplateError(f"the model's chat template refuses this conversation: {error}") from error

    def _layout(self, roles: tuple[str, ...]) -> _Layout:
        """Where the template puts the messages of such a pattern of roles."""
        if roles not in self._layouts:
            text = self._apply(_marks(roles))
            found = list(_MARKED.finditer(text))
            order = [int(mark[1]) for mark in found]
            if sorted(order) != list(range(len(roles))):
                raise ChatTemplateError("the model's chat template drops or repeats messages, so they cannot be located in it")
            self._layouts[roles] = _Layout(_MARKED.sub("\x00", text).split("\x00"), order)
        return self._layouts[roles]

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        """Matches the tokenizer's control tokens where they are written out in a message."""
        added = {t.content for t in self.tokenizer.added_tokens_decoder.values()} | set(self.tokenizer.all_special_tokens)
        words = sorted((re.escape(t) for t in added if len(t.strip()) > 1), key=len, reverse=True)
        return re.compile("|".join(words)) if words else None

    def _defused(self, messages: Sequence[Message]) -> list[Message]:
        """What is read of the messages, without outer white space, with written-out control tokens broken by a zero-width space.

        Otherwise a message that holds, say, an end-of-turn token could end its turn and speak as somebody else. Half of a
        surrogate pair (an emoji that was cut in two), which tokenizers refuse, becomes the replacement character.
        """

        def text(content: str) -> str:
            content = _SURROGATE.sub("\ufffd", content.strip())
            if self._control is None:
                return content
            return self._control.sub(lambda m: m.group()[0] + "\u200b" + m.group()[1:], content)

        return [Message(m.role, text(m.read.said)) for m in messages]


class _Accepted(NamedTuple):
    """Messages as a template takes them, and for each message that there was: in which of them it now stands, from where to where."""

    messages: list[Message]
    inside: list[tuple[int, int, int]]


def _marks(roles: Sequence[str]) -> list[Message]:
    return [Message(role, _MARK.format(i)) for i, role in enumerate(roles)]  # type: ignore[arg-type]


def _alternating(messages: Sequence[Message]) -> _Accepted:
    """User and assistant taking turns, the user first, system messages in the user's."""
    joined: list[Message] = []
    inside: list[tuple[int, int, int]] = []
    for message in messages:
        role = "user" if message.role == "system" else message.role
        if not joined and role == "assistant":
            joined.append(Message("user", "Hello."))
        if joined and joined[-1].role == role:
            said = joined[-1].content
            before = f"{said}\n\n" if said and message.content else said
            joined[-1] = Message(role, before + message.content)
        else:
            before = ""
            joined.append(message if role == message.role else Message(role, message.content))
        inside.append((len(joined) - 1, len(before), len(before) + len(message.content)))
    return _Accepted(joined, inside)


def _locate(text: str, layout: _Layout, contents: list[str]) -> list[tuple[int, int]]:
    """Character ranges of the messages in the rendered text, in their own order."""
    at = len(layout.pieces[0])
    found = [(0, 0)] * len(contents)
    same = text.startswith(layout.pieces[0])
    for message, piece in zip(layout.order, layout.pieces[1:], strict=True):
        end = at + len(contents[message])
        found[message] = at, end
        same = same and text.startswith(contents[message], at) and text.startswith(piece, end)
        at = end + len(piece)
    if not same or at != len(text):
        raise ChatTemplateError("the model's chat template rewrites this conversation, so its messages cannot be located in it")
    return found


def _token_range(batch: BatchEncoding, row: int, start: int, end: int) -> tuple[int, int]:
    """The tokens that hold characters start..end, a token that the template's text shares included."""
    if start >= end:
        return 0, 0
    first = _token_at(batch, row, start, end)
    last = _token_at(batch, row, end - 1, start - 1, step=-1)
    if first is None or last is None:
        return 0, 0
    while (place := _chars(batch, row, last + 1)) is not None and place[0] < end <= place[1]:
        last += 1  # the last character may be several tokens: the bytes of an emoji
    return first, last + 1


def _chars(batch: BatchEncoding, row: int, token: int) -> tuple[int, int] | None:
    if token >= len(batch["input_ids"][row]):
        return None
    place = batch.token_to_chars(row, token)
    return None if place is None else (place.start, place.end)


def _token_at(batch: BatchEncoding, row: int, start: int, stop: int, step: int = 1) -> int | None:
    """The first character from `start` toward `stop` that has a token (some tokenizers drop white space)."""
    for character in range(start, stop, step):
        if (token := batch.char_to_token(row, character)) is not None:
            return int(token)
    return None
