r"""Conversation to tokens, and where each message stands among them.

The chat template is rendered once and the text tokenised once. To know where the messages stand in the rendered
text, the template is also rendered, once for each pattern of roles, with marker words in place of the messages; what
lies between the markers is the template's own text. Real messages are then located between these pieces exactly.

A tokenizer without a template (a base model) gets a plain one, "User: ...\nAssistant: ...\n".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import BatchEncoding, PreTrainedTokenizerBase

from demeanor.conversation import Conversation, Message
from demeanor.errors import ChatTemplateError

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
PLAIN_STOP = "\nUser:"  # where a base model under the plain template goes on to speak for the user
_MARK = "demeanormarker{}z"
_NO_THINKING = re.compile(r"<think>\s*</think>")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as tokens. `spans[i]` is the token range (start, end) of message i; `text` what was tokenised."""

    ids: list[int]
    spans: list[tuple[int, int]]
    text: str


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
        self._pieces: dict[tuple[str, ...], list[str]] = {}

    @cached_property
    def template_hash(self) -> str:
        """Identifies the chat template; scores depend on it."""
        return hashlib.sha256(str(self.template).encode()).hexdigest()[:16]

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
        return self._apply(_acceptable(self._defused(messages), self._apply)[0], add_generation_prompt=True)

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
        messages, inside = _acceptable(self._defused(conversation.messages), self._apply)
        try:
            text, places = self._placed(messages)
        except ChatTemplateError:
            if self._pieces.pop(tuple(m.role for m in messages), None) is None:
                raise
            text, places = self._placed(messages)  # a template that writes today's date has other pieces tomorrow
        if inside == list(range(len(messages))):
            return text, places
        # messages were joined for a template that does not take them apart: find each within its joined message, in order
        found = []
        read_to = 0
        for message, target in zip(self._defused(conversation.messages), inside, strict=True):
            start, end = places[target]
            at = text.find(message.content, max(start, read_to), end)
            if at >= 0:
                read_to = at + len(message.content)
            found.append((at, read_to) if at >= 0 else (start, end))
        return text, found

    def _placed(self, messages: Sequence[Message]) -> tuple[str, list[tuple[int, int]]]:
        text = self._apply(messages)
        pieces = self._template_pieces(tuple(m.role for m in messages))
        return text, _locate(text, pieces, [m.content for m in messages])

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

    def _template_pieces(self, roles: tuple[str, ...]) -> list[str]:
        """The template's own text before, between and after the messages of such a pattern of roles."""
        if roles not in self._pieces:
            marks = [_MARK.format(i) for i in range(len(roles))]
            text = self._apply([Message(role, mark) for role, mark in zip(roles, marks, strict=True)])  # type: ignore[arg-type]
            pieces = re.split("|".join(marks), text)
            if len(pieces) != len(roles) + 1:
                raise ChatTemplateError("the model's chat template drops or repeats messages, so they cannot be located in it")
            self._pieces[roles] = pieces
        return self._pieces[roles]

    @cached_property
    def _control(self) -> re.Pattern[str] | None:
        """Matches the tokenizer's control tokens where they are written out in a message."""
        added = {t.content for t in self.tokenizer.added_tokens_decoder.values()} | set(self.tokenizer.all_special_tokens)
        # thinking's tags end no turn, and templates look for them in replies
        words = sorted((re.escape(t) for t in added - {"<think>", "</think>"} if len(t.strip()) > 1), key=len, reverse=True)
        return re.compile("|".join(words)) if words else None

    def _defused(self, messages: Sequence[Message]) -> list[Message]:
        """Messages without outer white space, with written-out control tokens broken by a zero-width space.

        Otherwise a message that holds, say, an end-of-turn token could end its turn and speak as somebody else. Half of a
        surrogate pair (an emoji that was cut in two), which tokenizers refuse, becomes the replacement character.
        """

        def text(content: str) -> str:
            content = _SURROGATE.sub("\ufffd", content.strip())
            if self._control is None:
                return content
            return self._control.sub(lambda m: m.group()[0] + "\u200b" + m.group()[1:], content)

        return [Message(m.role, text(m.content)) for m in messages]


def _acceptable(messages: list[Message], render: Any) -> tuple[list[Message], list[int]]:
    """The messages in a form that the template takes, and for each message the index of the one that now holds it.

    Many templates know no system role, or insist on user and assistant taking turns. Only where a template refuses, or leaves a
    system message out, the system message joins the first user message, neighbours of one role are joined, and a conversation that opens
    with the assistant gets a one-word user message before it.
    """
    try:
        text = render(messages)
        if all(m.content in text for m in messages if m.role == "system"):
            return messages, list(range(len(messages)))
    except ChatTemplateError:
        pass
    joined: list[Message] = []
    inside: list[int] = []
    for message in messages:
        role = "user" if message.role == "system" else message.role
        if not joined and role == "assistant":
            joined.append(Message("user", "Hello."))
        if joined and joined[-1].role == role:
            joined[-1] = Message(role, f"{joined[-1].content}\n\n{message.content}")
        else:
            joined.append(Message(role, message.content))
        inside.append(len(joined) - 1)
    return joined, inside


def _locate(text: str, pieces: list[str], contents: list[str]) -> list[tuple[int, int]]:
    """Character ranges of the messages in the rendered text."""
    at = len(pieces[0])
    found = []
    for content, piece in zip(contents, pieces[1:], strict=True):
        found.append((at, at + len(content)))
        at += len(content) + len(piece)
    if at == len(text) and all(text[s:e] == c for (s, e), c in zip(found, contents, strict=True)):
        return found
    # the template changes what messages say (it may strip earlier thinking, or set the last one apart): match its own pieces around them
    match = re.fullmatch("(.*?)".join(map(_piece, pieces)), text, re.DOTALL)
    if match is None:
        raise ChatTemplateError("the model's chat template rewrites this conversation, so its messages cannot be located in it")
    return [match.span(i + 1) for i in range(len(contents))]


def _piece(text: str) -> str:
    """A pattern for the template's own text; where that holds an empty block of thinking, a reply's own may stand."""
    return "<think>.*?</think>".join(re.escape(part) for part in _NO_THINKING.split(text))


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
