"""Chat templates that a model can be told, if its tokenizer has none: by name, or from a file.

What was told is kept on the tokenizer, so that a vector set can record it and read the same way again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from demeanor.errors import ChatTemplateError, nearest

PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
PLAIN_STOP = "\nUser:"  # where a base model under the plain template goes on to speak for the user
PLAIN = "plain"
LONGEST = 100_000  # characters; the longest templates in use have a fifth of that
_TOLD = "_demeanor_template"  # the attribute of a tokenizer that holds what it was told


class Known(NamedTuple):
    """A template that has a name, and the text that ends a turn in it."""

    text: str
    stop: str


NAMED = {
    "chatml": Known(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_end|>",
    ),
    "llama3": Known(
        "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        "<|eot_id|>",
    ),
    PLAIN: Known(PLAIN_TEMPLATE, PLAIN_STOP),
}


def template_hash(template: object) -> str:
    """Identifies a chat template: 16 hexadecimal digits."""
    return hashlib.sha256(str(template).encode()).hexdigest()[:16]


PLAIN_HASH = template_hash(PLAIN_TEMPLATE)


def as_recorded(given: str) -> str:
    """What a vector set keeps of --template: a name, or the text that the file holds. A text is itself. Raises ChatTemplateError."""
    if given in NAMED or "{" in given:
        return given
    path = Path(given)
    if not path.is_file():
        raise ChatTemplateError(f"no chat template {given!r}; {nearest(given, NAMED)} Or name a file with one, such as template.jinja")
    try:
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            text = json.loads(text)["chat_template"]
        if not isinstance(text, str) or "{" not in text:
            raise ValueError("it holds no template")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ChatTemplateError(f"{given} cannot be read as a chat template: {reason}") from error
    if len(text) > LONGEST:
        raise ChatTemplateError(f"{given} is too long for a chat template ({len(text)} characters)")
    return text


def tell(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Let a tokenizer render conversations with a template, as `as_recorded` gives it, instead of its own.

    A named one begins with what the tokenizer puts before every text, if it does: a template's text gets nothing of itself.
    """
    if template == PLAIN:
        tokenizer.chat_template = None
    elif template in NAMED:
        first = list(tokenizer("a", verbose=False)["input_ids"])[:1]
        begins = "{{ bos_token }}" if tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id] else ""
        tokenizer.chat_template = begins + NAMED[template].text
    else:
        tokenizer.chat_template = template
    setattr(tokenizer, _TOLD, template)


def told(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer was told, "" for one that renders with its own template; without any it is the plain one."""
    return getattr(tokenizer, _TOLD, "" if tokenizer.chat_template else PLAIN)


def has_one(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has a template of its own, or was told one."""
    return bool(tokenizer.chat_template) or hasattr(tokenizer, _TOLD)


def stop_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text that ends a reply under a template that was told by name; None where the tokenizer's own tokens do."""
    known = NAMED.get(told(tokenizer))
    return known.stop if known is not None else None
