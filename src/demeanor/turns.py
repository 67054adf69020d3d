r"""Turns that are written out in a text: "User: ...\nAssistant: ...", and the formats in which training data holds whole conversations.

    with marks of their own        ChatML, Llama 3, [INST], Gemma, <|user|> (Zephyr, Phi, DeepSeek), <|USER_TOKEN|> (Command), OpenChat,
                                   "### Human:", "### Instruction:" and "### Response:", "<HUMAN>:" and "<ASSISTANT>:"
    names that begin a line        "User:", "**Client:**", "[Therapist]:", "## User", a line that is only "user"
    names within a line            "USER: ... ASSISTANT: ..." (Vicuna), "Client: ... Therapist: ..."

Marks of their own are turns wherever they stand. A name with a colon is one only where both sides speak: "Note: ..." and "Doctor: a person
who ..." are prose. Only "User:", "Human:", "Assistant:" and their like, at the beginning of a line, are turns by themselves.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from demeanor.errors import ConversationError

Role = Literal["system", "user", "assistant"]
Turns: TypeAlias = list[tuple[Role, str]]


def split(text: str) -> Turns | None:
    """The turns of a text; None where it holds none. Raises ConversationError where it holds some that cannot be told apart."""
    for form in _FORMS:
        if form.signs.search(text):
            return _marked(form, text)
    return _named(text)


def format_in(reply: str) -> str | None:
    """The format of turns that are written out in a reply, in words; None where there are none."""
    for form in _FORMS:
        if form.signs.search(reply):
            return form.name
    for lines in (_LINE, _ALONE):
        found = [m for m in lines.finditer(reply) if m["who"].lower() not in _GENERIC]
        if _both_sides(found) or any(m["who"].lower() in _PLAIN for m in found if lines is _LINE):
            return " and ".join(dict.fromkeys(f"'{m.group().strip()}'" for m in found[:2]))
    if _both_sides(_vicuna(reply)):
        return "'USER:' and 'ASSISTANT:'"
    try:
        within = [m for m in _inline(reply) if m["who"].lower() not in _GENERIC]
    except ConversationError:
        return None
    return " and ".join(dict.fromkeys(f"'{m.group().strip()}'" for m in within)) or None


# formats with marks of their own


class _Form(NamedTuple):
    name: str
    signs: re.Pattern[str]
    """What no other text holds."""
    turn: re.Pattern[str]
    """Begins a turn: its group `who` is the speaker, or the name of its last group is."""
    ends: re.Pattern[str]
    """What ends a turn, and is no part of it."""
    preamble: bool = False
    """Whether a system message may stand before the first turn without a mark."""


_USERS = (
    "user|human|prompter|client|patient|customer|seeker|help[- ]?seeker|caller|texter|visitor|student|member|guest|instructions?|input"
    "|question|q|prompt"
)
_ASSISTANTS = (
    "assistant|ai|bot|gpt|chat ?gpt|model|chat ?bot|therapist|counsell?or|psychologist|psychiatrist|psychotherapist|doctor|agent|supporter|helper"  # noqa: E501
    "|listener|nurse|coach|volunteer|operator|response|output|answer|a|completion|reply"
)
_SYSTEMS = "system|developer"
_ANY = f"{_SYSTEMS}|{_USERS}|{_ASSISTANTS}"
_GENERIC = frozenset(
    ("instruction", "instructions", "input", "question", "q", "prompt", "response", "output", "answer", "a", "completion", "reply", "model",
     "system", "developer", "member", "student", "guest"))  # fmt: skip
"""Names that prose and lists use as well."""
_PLAIN = frozenset(("user", "human", "assistant"))
_ENDS = r"</?s>|<\|(?:endoftext|end_of_text|begin_of_text|eot_id|eom_id|im_end|end|eos|bos)\|>|<(?:bos|eos)>|<[|｜](?:end|begin)▁of▁sentence[|｜]>"  # noqa: E501


_CLOSING = re.compile(_ENDS, re.IGNORECASE)


def _form(name: str, turn: str, signs: str = "", ends: str = _ENDS, preamble: bool = False) -> _Form:
    compiled = [re.compile(pattern, re.IGNORECASE) for pattern in (signs or turn, turn, f"{ends}|{_ENDS}")]
    return _Form(name, compiled[0], compiled[1], compiled[2], preamble)


_FORMS = (
    _form("ChatML", r"<\|im_start\|>\s*(?P<who>\w+)(?:<\|im_sep\|>)?", r"<\|im_start\|>|<\|im_sep\|>|<\|im_end\|>(?=\s*\S)"),
    _form("Llama 3", r"<\|start_header_id\|>\s*(?P<who>\w+)\s*<\|end_header_id\|>", r"<\|(?:start|end)_header_id\|>|<\|eot_id\|>(?=\s*\S)"),
    _form("Gemma", r"<(?:start_of_turn|\|turn)>\s*(?P<who>\w+)", ends=r"<end_of_turn>|<turn\|>"),
    _form(
        "[INST]",
        r"(?P<user>\[INST\]|<</SYS>>|\[/SYSTEM_PROMPT\])|(?P<assistant>\[/INST\])|(?P<system><<SYS>>|\[SYSTEM_PROMPT\])",
    ),
    _form(
        "<|USER_TOKEN|>",
        r"<\|(?P<who>USER|CHATBOT|SYSTEM)_TOKEN\|>",
        ends=r"<\|(?:START|END)_(?:OF_TURN_TOKEN|RESPONSE)\|>|<(?:BOS|EOS)_TOKEN>",
    ),
    _form("<|user|>", r"<[|｜](?P<who>user|assistant|prompter|system)[|｜]>:?", r"<[|｜](?:user|assistant|prompter)[|｜]>"),
    _form("OpenChat", r"GPT4? Correct (?P<who>user|assistant)\s*:", ends=r"<\|end_of_turn\|>"),
    _form(
        "<HUMAN>:",
        r"<(?P<who>human|assistant|user|bot|system|client|therapist)>\s*:",
        r"<(?:human|assistant|user|bot|client|therapist)>\s*:",
    ),
    _form("### Instruction:", rf"\#{{2,}}[ \t]*(?P<who>{_ANY})[ \t]*:", r"\#{2,}[ \t]*(?:instructions?|response)[ \t]*:", preamble=True),
    _form(
        "### Human:",
        rf"\#{{2,}}[ \t]*(?P<who>{_ANY})[ \t]*:",
        rf"\#{{2,}}[ \t]*(?!(?:{'|'.join(sorted(_GENERIC))})[ \t]*:)(?:{_ANY})[ \t]*:",
        preamble=True,
    ),
)


def _marked(form: _Form, text: str) -> Turns:
    """The turns of a text in a format with marks of its own."""
    begins = list(form.turn.finditer(text))
    before = form.ends.sub("", text[: begins[0].start()] if begins else text).strip()
    turns: Turns = []
    for mark, following in itertools.zip_longest(begins, begins[1:]):
        who = mark["who"] if mark.lastgroup == "who" else mark.lastgroup or ""
        said = form.ends.sub("", text[mark.end() : following.start() if following else len(text)]).strip()
        turns.append((_role(who, form.name), said))
    if form.name == "[INST]":  # a system message stands inside the user's turn, and leaves an empty one before it
        turns = [(role, said) for role, said in turns if said or role == "assistant"]
    if not turns or (before and not (form.preamble and turns[0][0] == "user")):
        raise ConversationError(
            f"the text holds turns in the format {form.name} and words before the first; begin with a turn, or give 'messages'"
        )
    return [("system", before), *turns] if before else turns


def _role(who: str, form: str) -> Role:
    name = who.lower()
    for role, names in (("user", _USERS), ("assistant", f"{_ASSISTANTS}|chatbot"), ("system", _SYSTEMS)):
        if re.fullmatch(names, name):
            return role  # type: ignore[return-value]
    raise ConversationError(f"the text holds a turn of {who!r} in the format {form}; only system, user and assistant are read")


# names

_SPEAKER = re.compile(r"^[ \t]*(?P<who>system|user|human|assistant|bot|ai)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE | re.ASCII)
_LINE = re.compile(
    rf"^[ \t]*(?:[#>*_\[(<|\-]{{1,6}}[ \t]*)?(?P<who>{_ANY})(?:[ \t]*[\])>*_|]{{1,4}})?[ \t]*:[*_]{{0,3}}[ \t]*",
    re.IGNORECASE | re.MULTILINE | re.ASCII,
)
_ALONE = re.compile(rf"^[ \t]*(?:#{{1,6}}[ \t]*)?[*_]{{0,3}}(?P<who>{_ANY})[*_]{{0,3}}[ \t]*$", re.IGNORECASE | re.MULTILINE | re.ASCII)
_VICUNA = re.compile(r"(?<![^\s>])(?P<who>USER|HUMAN|ASSISTANT) ?:")


def _named(text: str) -> Turns | None:
    plain = list(_SPEAKER.finditer(text))
    if _both_sides(plain):
        return _spoken(text, plain)
    for lines in (_LINE, _ALONE):
        found = _two_names(list(lines.finditer(text)))
        if _both_sides(found):
            before = text[: found[0].start()].strip()
            generic = any(m["who"].lower() in _GENERIC for m in found)
            if not before or (lines is _LINE and not generic):  # "Questions that are often asked: Q: ... A: ..." is a reply
                return _spoken(text, found)
    if _both_sides(capitals := _vicuna(text)):
        preamble = text[: capitals[0].start()].strip()
        turns = _between(text, capitals)
        return [("system", preamble), *turns] if preamble else turns
    if inline := _inline(text):
        return _between(text, inline)
    return _spoken(text, plain) if plain else None


def _vicuna(text: str) -> list[re.Match[str]]:
    """USER: and ASSISTANT: wherever they stand, from the first USER: on."""
    return list(itertools.dropwhile(lambda m: m["who"] == "ASSISTANT", _VICUNA.finditer(text)))


def _both_sides(marks: Sequence[re.Match[str]]) -> bool:
    """Whether the user's side speaks, and later the assistant's."""
    roles = [_role(m["who"], "") for m in marks]
    return "user" in roles and "assistant" in roles[roles.index("user") :]


def _two_names(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The marks of one name a side: those that speak first. A list of further names is something that is said."""
    names: dict[Role, str] = {}
    for mark in marks:
        names.setdefault(_role(mark["who"], ""), mark["who"].lower())
    return [m for m in marks if m["who"].lower() in names.values()]


def _inline(text: str) -> list[re.Match[str]]:
    """Marks within a line, where a text begins with a name of the user's side and the other side speaks later in it.

    Raises ConversationError where it is not plain that a sentence ends before the other side speaks.
    """
    first = _LINE.match(text.lstrip())
    if first is None or _role(first["who"], "") != "user":
        return []
    name = first["who"]
    style = str.upper if name.isupper() and len(name) > 1 else str.lower if name.islower() else str.capitalize
    sides = {m["who"] for m in _WITHIN.finditer(text) if style(m["who"]) == m["who"]}
    other = next((s for s in sides if _role(s, "") == "assistant" and (s.lower() in _GENERIC) == (name.lower() in _GENERIC)), None)
    if other is None:
        return []
    marks = [m for m in _WITHIN.finditer(text) if m["who"] in (name, other)]
    if any(text[: m.start()].rstrip() and text[: m.start()].rstrip()[-1].isalnum() for m in marks):
        raise ConversationError(f"the text begins with '{name}:' and has '{other}:' within a line; put each speaker on a line of its own")
    return marks


_WITHIN = re.compile(rf"(?<![^\s*_\[(])(?P<who>{_ANY})[*_\])]{{0,3}}[ \t]*:[*_]{{0,3}}[ \t]*", re.IGNORECASE | re.ASCII)


def _spoken(text: str, marks: Sequence[re.Match[str]]) -> Turns:
    if text[: marks[0].start()].strip():
        name = marks[0]["who"]
        raise ConversationError(f"there is text before the first '{name}:'; begin with a speaker, or give 'messages'")
    return _between(text, marks)


def _between(text: str, marks: Sequence[re.Match[str]]) -> Turns:
    ends = [m.start() for m in marks[1:]] + [len(text)]
    return [(_role(m["who"], ""), _CLOSING.sub("", text[m.end() : end]).strip()) for m, end in zip(marks, ends, strict=True)]
