"""The forms in which a record holds a conversation, told apart by their shape: a record (a dict) to a conversation and the form's name.

Every form gives turns, (who, what); the rest is common to all:

    who     a name of a role (`ALIASES`), or what was said with --role; any other is an error
    what    text, or a list of parts of which the text is read, or nothing that is text: a tool call, an image, a null

A turn without text is context that no model of text can read. It is left out of what is rendered, so it changes nothing about the turns
of text, and it is counted. What hangs on it is not scored: a last reply that holds no text, and a reply to a message that holds none.
What a tool says (`tool`, `function`) is left out too; nobody said it to the user.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from demeanor.conversation import Conversation, Message, from_record, from_text
from demeanor.errors import ConversationError, nearest
from demeanor.turns import Role, format_in

ALIASES: dict[str, tuple[str, ...]] = {
    "user": (
        "human", "client", "patient", "customer", "seeker", "help seeker", "prompter", "person", "caller", "texter", "visitor", "member",
        "usr", "end user", "speaker",
    ),
    "assistant": (
        "gpt", "chatgpt", "model", "bot", "chatbot", "ai", "agent", "counselor", "counsellor", "therapist", "supporter", "helper",
        "listener", "psychologist", "doctor", "nurse", "coach", "volunteer", "operator", "claude", "bard", "bing", "llm",
    ),
    "system": ("developer",),
    "tool": ("function", "tool call", "function call", "tool response", "function response", "observation", "ipython", "environment"),
}  # fmt: skip
"""Other names of each role."""
NAMED_ROLES = tuple(ALIASES)
_ROLE_OF = {alias: role for role, names in ALIASES.items() for alias in (role, *names)}
_OWN_NAMES = frozenset((*NAMED_ROLES, "developer", *ALIASES["tool"]))  # not worth telling

TWO = (
    ("chosen", "rejected"), ("preferred_output", "non_preferred_output"), ("conversation_a", "conversation_b"),
    ("response_a", "response_b"),
)  # fmt: skip
"""Columns of which a row has both, and one is to be read."""
READS = ("chosen", "rejected", "a", "b")

PROMPTS = (
    "prompt", "question", "query", "input", "instruction", "user", "human", "usermessage", "userinput", "userprompt", "userquery",
    "questiontext", "context", "patient", "client",
)  # fmt: skip
REPLIES = (
    "response", "answer", "output", "completion", "reply", "assistant", "assistantmessage", "assistantresponse", "bot", "botresponse",
    "answertext", "modeloutput", "modelresponse", "generatedtext", "generation", "responsetext", "therapist", "counselor", "gpt",
)  # fmt: skip
"""Usual names of what was asked and answered, in lower case, without spaces, hyphens and underscores; the first that is there is read."""
LISTS = (
    "messages", "conversations", "conversation", "dialog", "dialogue", "turns", "transcript", "chat", "chat_messages", "history",
    "utterances", "items",
)  # fmt: skip
"""Where a list of turns may stand."""
_WHO = ("role", "from", "speaker", "author", "sender", "name")
_WHAT = ("content", "value", "text", "message", "utterance", "body", "parts", "said")

_OTHERS = (
    "text", "system", "mapping", "currentnode", "request", "choices", "candidates", "result", "body", "params", "outputtext", "chat",
    "observations", "traceid", "sessionid", "projectid", "starttime", "htmlpath", "contents",
)  # fmt: skip


class Turn(NamedTuple):
    """Who speaks, and what: text, parts, or nothing that is text."""

    who: object
    what: object


Turns: TypeAlias = list[Turn]


@dataclass(frozen=True)
class Found:
    """A record's conversation, and how it was read."""

    conversation: Conversation
    form: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names of speakers that were taken for a role, such as human for user."""
    textless: int = 0
    """Turns without text, which were left out."""
    unread: Mapping[int, str] = field(default_factory=dict)
    """Replies, by their place in the conversation, that answer what nobody can read, with the cause."""
    unanswered: str | None = None
    """Why there is no last reply to score, where it holds no text."""

    def to_score(self) -> Conversation:
        """The conversation, where its last reply can be scored. Raises ConversationError where it hangs on a turn without text."""
        if self.unanswered is not None:
            raise ConversationError(self.unanswered)
        last = max((i for i, m in enumerate(self.conversation.messages) if m.role == "assistant"), default=-1)
        if last in self.unread:
            raise ConversationError(self.unread[last])
        return self.conversation


def find(record: Mapping[str, Any], read: str | None = None, roles: Mapping[str, str] | None = None) -> Found:
    """The conversation of a record, by its shape.

    Args:
        record: The record.
        read: Of two replies in a row, which: "chosen", "rejected", "a" or "b".
        roles: What names of speakers stand for, beside `ALIASES`.

    Raises:
        ConversationError: no form fits, or the record breaks the one that does.
    """
    for name, turns_of in _FORMS:
        turns = turns_of(record, read)
        if isinstance(turns, Conversation):
            return Found(turns, name)
        if turns is not None:
            return found(turns, name, roles)
    raise ConversationError(nothing_in(record))


def is_known(record: Mapping[str, Any]) -> bool:
    """Whether a record has a form that is read."""
    try:
        return any(turns_of(record, "chosen") is not None for _, turns_of in _FORMS)
    except ConversationError:
        return True


def known_columns(names: Iterable[str]) -> list[str]:
    """Those of these columns that a conversation may be read from."""
    known = {*PROMPTS, *REPLIES, *_OTHERS, *(plain(n) for n in LISTS), *(plain(n) for pair in TWO for n in pair)}
    return [name for name in names if plain(name) in known]


def may_hold(names: Sequence[str]) -> bool:
    """Whether columns of these names may hold replies."""
    known = {plain(name) for name in names}
    replies = {*REPLIES, *(plain(n) for n in LISTS), "text", "mapping", "request", "choices", "candidates", "result", "outputtext"}
    return bool(known & replies) or two_of(names) is not None


def two_of(names: Iterable[str]) -> tuple[str, str] | None:
    """The two columns of which one is to be read, where there are two."""
    present = set(names)
    return next((pair for pair in TWO if set(pair) <= present), None)


def say_which(pair: tuple[str, str]) -> str:
    """What to do where a row holds two replies."""
    first, second = ("a", "b") if pair[0].endswith("_a") else ("chosen", "rejected")
    return f"each row has two replies, {pair[0]!r} and {pair[1]!r}; say which is read: --read {first} or --read {second}"


def nothing_in(record: Mapping[str, Any]) -> str:
    """Why no conversation was found, with what there is."""
    names = [" ".join(str(name).split()) for name in record]
    shown = ", ".join(names[:20]) or "none"
    return (
        "the record has neither 'messages', nor 'prompt' and 'response', nor 'text', nor another form that is known; name the columns with "
        f"--messages-column, or --prompt-column and --response-column (its columns: {shown}){hint(names)}"
    )


def hint(names: Sequence[str]) -> str:
    """The end of a message, where a column is nearly named as one that is read."""
    for name in (name for name in names if not known_columns([name])):
        near = nearest(name, (*LISTS[:3], "prompt", "response", "question", "answer", "completion"))
        if near.startswith("did you mean"):
            return f"; {name!r}: {near}"
    return ""


# turns to a conversation


def found(turns: Turns, form: str, roles: Mapping[str, str] | None = None) -> Found:
    """Turns as a conversation: names of speakers to roles, parts to text, without what is no text. Raises ConversationError."""
    messages: list[Message] = []
    aliases: dict[str, str] = {}
    unread: dict[int, str] = {}
    textless, blind, unanswered = 0, False, None
    heard = False
    for number, (who, what) in enumerate(turns, 1):
        role = role_of(who, number, roles)
        if str(who) not in _OWN_NAMES and str(who) != role:
            aliases[str(who)] = role
        if role == "tool":
            continue
        text = text_of(what, number)
        if text is None:
            textless += 1
            if role == "user":
                blind = not heard
            elif role == "assistant":
                unanswered = "the last reply holds no text (a tool call, an image, or nothing), so there is nothing to score"
            continue
        if role == "user":
            heard, blind = True, False
        elif role == "assistant":
            if blind:
                unread[len(messages)] = "the reply answers a message that holds no text (an image or a file), so it is not scored"
            heard, blind, unanswered = False, False, None
        messages.append(Message(_as_role(role), text))
    if not messages:
        raise ConversationError("the conversation has no messages with text; give at least the reply to score")
    return Found(Conversation(tuple(messages)), form, aliases, textless, unread, unanswered)


def _as_role(name: str) -> Role:
    return "user" if name == "user" else "assistant" if name == "assistant" else "system"


def role_of(who: object, number: int, roles: Mapping[str, str] | None = None) -> str:
    """user, assistant, system or tool. Raises ConversationError for a name that nobody knows."""
    if isinstance(who, Mapping):  # ChatGPT's author
        who = who.get("role", who.get("name"))
    given = {_name(name): role for name, role in (roles or {}).items()}
    if isinstance(who, bool) or not isinstance(who, str | int):
        raise ConversationError(f"message {number} has the unknown role {who!r}; a role is a name such as user or assistant")
    role = given.get(_name(who)) or _ROLE_OF.get(_name(who))
    if role is None:
        near = nearest(str(who), ("system", "user", "assistant"))
        shown = " ".join(str(who).split()) or "NAME"
        raise ConversationError(
            f"message {number} has the unknown role {who!r}; {near}{'' if near.endswith('?') else '.'} "
            f"If it is right, say what it stands for: --role {shown}=user"
        )
    return role


def _name(who: object) -> str:
    return " ".join(str(who).casefold().replace("_", " ").replace("-", " ").split())


def text_of(what: object, number: int = 1) -> str | None:
    """The text of a message's content; None where there is none in it. Raises ConversationError for what is no content."""
    if what is None or isinstance(what, str):
        return what
    if isinstance(what, Mapping):
        if any(isinstance(kind, str) and kind in _NO_TEXT for kind in (what.get("type"), what.get("content_type"))):
            return None
        inner = next((what[key] for key in ("text", "parts", "value", "content", "refusal") if what.get(key) is not None), None)
        return None if inner is None else text_of(inner, number)
    if isinstance(what, list | tuple):
        texts = [text_of(part, number) for part in what]
        said = [text for text in texts if text is not None]
        return "\n".join(said) if said else None
    raise ConversationError(f"message {number} has content of type {type(what).__name__}; only text is read")


_NO_TEXT = frozenset(
    (
        "image", "image_url", "input_image", "image_file", "image_asset_pointer", "audio", "input_audio", "audio_url",
        "audio_asset_pointer", "real_time_user_audio_video_asset_pointer", "video", "file", "input_file", "document", "tool_use",
        "tool_call", "tool_result",
        "server_tool_use", "function_call", "function_call_output", "thinking", "redacted_thinking", "reasoning", "thoughts",
        "reasoning_recap", "code", "execution_output", "tether_browsing_display", "tether_quote", "system_error",
        "user_editable_context", "model_editable_context",
    )
)  # fmt: skip
"""Kinds of parts that hold nothing that was said in words to the other side."""


def plain(name: object) -> str:
    """A column's name in lower case, without spaces, hyphens and underscores."""
    return "".join(c for c in str(name).casefold() if c not in " _-")


def given(record: Mapping[str, Any], name: str) -> Any:
    """A field's value, JSON text of a list or an object as what it stands for; None where it is absent or empty."""
    value = record.get(name)
    if isinstance(value, str):
        return unpacked(value) if value else None
    return value


def unpacked(value: Any) -> Any:
    """A list or an object that a column of text holds as JSON, as what it stands for."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        inner = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return inner if isinstance(inner, list | dict) else value


def is_turn(value: Any) -> bool:
    """Whether it says who speaks and what, as one turn of a list does."""
    return isinstance(value, Mapping) and any(k in value for k in _WHO) and any(k in value for k in (*_WHAT, "tool_calls", "function_call"))


def listed(value: Any) -> Turns | None:
    """A list of turns; None for anything else."""
    items = value if isinstance(value, list | tuple) else None
    if not items or not all(isinstance(item, Mapping) for item in items) or not is_turn(items[0]):
        return None
    turns = []
    for number, item in enumerate(items, 1):
        if not is_turn(item):
            raise ConversationError(f"message {number} is not an object with 'role' and 'content'")
        turns.append(turn(item))
    return turns


def turn(item: Mapping[str, Any]) -> Turn:
    """One turn of a list."""
    who = next((item[k] for k in _WHO if item.get(k) is not None), None)
    what = next((item[k] for k in _WHAT if item.get(k) is not None), None)
    return Turn(who, None if isinstance(what, Mapping) and not what else what)


def _items(record: Mapping[str, Any], name: str) -> list[Any]:
    """The list in a field; empty where there is none."""
    value = given(record, name)
    return value if isinstance(value, list) else []


def _first(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The record's own name of the first of these columns that holds something."""
    present = {plain(name): name for name in record if record[name] is not None and record[name] != ""}
    return next((present[name] for name in names if name in present), None)


# the forms, each from its own shape; None where the record is another


def _chatgpt(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    nodes = given(record, "mapping")
    if not isinstance(nodes, Mapping) or not all(isinstance(node, Mapping) for node in nodes.values()):
        return None
    turns = []
    for node in _path(nodes, record.get("current_node"), "parent"):
        message = node.get("message")
        if not isinstance(message, Mapping):
            continue
        author, content = message.get("author"), message.get("content")
        role = author.get("role") if isinstance(author, Mapping) else author
        about = message.get("metadata")
        if isinstance(about, Mapping) and about.get("is_visually_hidden_from_conversation"):
            continue
        text = content
        if message.get("recipient") not in (None, "all"):  # said to a tool
            text = None
        if role == "system" and not (text_of(text) or "").strip():
            continue
        turns.append(Turn(role, text))
    return turns


def _open_webui(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    chat = given(record, "chat")
    chat = chat if isinstance(chat, Mapping) else record
    history = chat.get("history")
    nodes = history.get("messages") if isinstance(history, Mapping) else None
    if isinstance(nodes, Mapping) and nodes and isinstance(history, Mapping):
        return [turn(node) for node in _path(nodes, history.get("currentId"), "parentId")]
    return listed(chat.get("messages")) if chat is not record else None


def _path(nodes: Mapping[str, Any], leaf: object, parent: str) -> list[Mapping[str, Any]]:
    """The nodes of a tree of messages from its root to a leaf: the one that was shown, else the last that was written."""
    parents = {node.get(parent) for node in nodes.values() if isinstance(node, Mapping)}
    at = leaf if leaf in nodes else next((name for name in reversed(list(nodes)) if name not in parents), None)
    path: list[Mapping[str, Any]] = []
    while isinstance(at, str) and isinstance(nodes.get(at), Mapping) and len(path) <= len(nodes):
        path.append(nodes[at])
        at = nodes[at].get(parent)
    if len(path) > len(nodes):
        raise ConversationError("the tree of messages leads in a circle")
    return path[::-1]


_TRACED = ("observations", "traceId", "trace_id", "sessionId", "projectId", "htmlPath", "startTime", "start_time")


def _langfuse(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    if not any(name in record for name in _TRACED) or not {"input", "output"} & record.keys():
        return None
    pairs = [record, *reversed([o for o in _items(record, "observations") if isinstance(o, Mapping) and o.get("type") == "GENERATION"])]
    for pair in pairs:
        asked, answered = given(pair, "input"), given(pair, "output")
        before, reply = _asked(asked), _answered(answered)
        if before is not None and reply is not None:
            return [*before, *reply]
    raise ConversationError("the trace holds no input and output that are text or messages; export its generations")


def _asked(value: Any) -> Turns | None:
    """What a model was asked: text, messages, or a request that holds them."""
    if isinstance(value, str):
        return [Turn("user", value)]
    if (turns := listed(value)) is not None:
        return turns
    if not isinstance(value, Mapping):
        return None
    system = [Turn("system", value[k]) for k in ("system", "instructions") if value.get(k)]
    for name in ("messages", "contents", "input", "prompt", "body", "params", "request", "kwargs", "args"):
        if value.get(name) is not None and (inner := _asked(unpacked(value[name]))) is not None:
            return [*system, *inner]
    asked = _first(value, PROMPTS)
    return [*system, Turn("user", value[asked])] if asked is not None and isinstance(value[asked], str) else None


def _answered(value: Any) -> Turns | None:
    """What a model answered: text, a message, or the response of an API."""
    if isinstance(value, str):
        return [Turn("assistant", value)]
    if isinstance(value, list):
        return listed([v for v in value if not isinstance(v, Mapping) or v.get("type", "message") == "message"])
    if not isinstance(value, Mapping):
        return None
    if (reply := _api_reply(value)) is not None:
        return reply
    if is_turn(value):
        return [turn(value)]
    name = _first(value, REPLIES)
    return [Turn("assistant", value[name])] if name is not None and isinstance(value[name], str) else None


def _api_reply(value: Any) -> Turns | None:
    """The reply in the response of an API: chat completions, responses, messages, or content candidates."""
    if not isinstance(value, Mapping):
        return None
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        message = choices[0].get("message")
        return [Turn("assistant", message.get("content") if isinstance(message, Mapping) else choices[0].get("text"))]
    if value.get("object") == "response" and isinstance(value.get("output"), list):
        said = [turn(item) for item in value["output"] if isinstance(item, Mapping) and item.get("type") == "message"]
        return said or [Turn("assistant", None)]
    if value.get("type") == "message" and value.get("role") == "assistant":
        return [Turn("assistant", value.get("content"))]
    candidates = value.get("candidates")
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], Mapping):
        return [Turn("assistant", candidates[0].get("content"))]
    for name in ("body", "message", "result", "response"):
        if (inner := _api_reply(value.get(name))) is not None:
            return inner
    if isinstance(value.get("message"), Mapping) and "role" in value["message"]:
        return [turn(value["message"])]
    return None


def _api_log(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    own = _api_reply(record)
    response = given(record, "response")
    request = next((r for k in ("request", "kwargs", "params", "body") if isinstance(r := given(record, k), Mapping)), None)
    reply = own or _api_reply(response)
    if reply is None and request is not None:
        reply = _answered(response if response is not None else record.get("output"))
        if reply is None and _asked(request) is not None and listed(record.get("messages")) is None:
            raise ConversationError("the record is a request without a response; there is no reply to score")
    if reply is None:
        return None
    asked = _asked(request) if request is not None else None
    if asked is None:
        asked = _asked({k: v for k, v in record.items() if k in ("messages", "system", "instructions", "input", "prompt", "contents")})
    return [*(asked or []), *reply]


def _two(record: Mapping[str, Any], read: str | None) -> Turns | Conversation | None:
    pair = two_of(name for name in record if record[name] is not None)
    if pair is None:
        return None
    arena = pair[0].endswith("_a")
    if read not in (("a", "b") if arena else ("chosen", "rejected")):
        raise ConversationError(say_which(pair))
    value = given(record, pair[0] if read in ("a", "chosen") else pair[1])
    name = _first(record, PROMPTS)
    asked = given(record, name) if name is not None else None
    system = [Turn("system", record["system"])] if isinstance(record.get("system"), str) and record["system"] else []
    if isinstance(value, list) and all(isinstance(v, str | None) for v in value):  # one a turn, as text
        questions = asked if isinstance(asked, list) else [asked]
        return [*system, *(Turn(w, t) for q, a in zip(questions, value, strict=False) for w, t in (("user", q), ("assistant", a)))]
    if isinstance(value, str):
        if asked is None or format_in(value):
            return from_text(value)
        return [*system, *(_asked(asked) or []), Turn("assistant", value)]
    turns = _answered(value)
    if turns is None:
        raise ConversationError(f"{pair[0]!r} and {pair[1]!r} hold neither text nor messages")
    whole = len(turns) > 1 or asked is None
    return turns if whole else [*system, *(_asked(asked) or []), *turns]


def _sharegpt(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    for name in ("conversations", "conversation", "items", "messages"):
        value = given(record, name)
        if isinstance(value, list) and value and isinstance(value[0], Mapping) and "from" in value[0] and "role" not in value[0]:
            system = [Turn("system", record["system"])] if isinstance(record.get("system"), str) and record["system"] else []
            return [*system, *(listed(value) or [])]
    return None


def _messages(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    value = given(record, "messages")
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise ConversationError("'messages' is not a list")
    if not value:
        raise ConversationError("the conversation has no messages; give at least the reply to score")
    turns = listed(value)
    if turns is None:
        raise ConversationError("message 1 is not an object with 'role' and 'content'")
    return turns


def _lists(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    for name in LISTS[1:]:
        turns = listed(given(record, name))
        if turns is not None:
            return turns
    return None


def _alpaca(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    if not isinstance(record.get("instruction"), str) or not isinstance(record.get("output"), str):
        return None
    asked = "\n".join(part for part in (record["instruction"], record.get("input")) if isinstance(part, str) and part)
    before = [Turn("system", record["system"])] if isinstance(record.get("system"), str) and record["system"] else []
    for pair in _items(record, "history"):
        if isinstance(pair, list | tuple) and len(pair) == 2:
            before += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return [*before, Turn("user", asked), Turn("assistant", record["output"])]


def _plain(record: Mapping[str, Any], _read: str | None) -> Conversation | None:
    """`prompt` and `response`, or `text`, as every command has always read them."""
    if record.get("response") is None and (record.get("text") is None or _first(record, REPLIES) is not None):
        return None
    if record.get("prompt") is None and _first(record, PROMPTS) is not None and record.get("response") is not None:
        return None
    if record.get("response") is not None and not isinstance(record["response"], str):
        return None
    said = {name: record[name] for name in ("prompt", "response", "text") if record.get(name) is not None}
    if "prompt" in said:
        prompt = unpacked(said["prompt"])
        turns = listed(prompt) if isinstance(prompt, list) and all(is_turn(m) for m in prompt) else None
        if turns is not None:
            said["prompt"] = found(turns, "").conversation.to_record()
    return from_record(said)


def _pair(record: Mapping[str, Any], _read: str | None) -> Turns | None:
    reply = _first(record, REPLIES)
    if reply is None:
        return None
    answer = given(record, reply)
    if isinstance(answer, list | dict) and not isinstance(record[reply], str):
        turns = _answered(answer)
        if turns is None:
            return [Turn("assistant", answer)]
    else:
        turns = [Turn("assistant", record[reply])]
    asked = _first(record, [name for name in PROMPTS if name != plain(reply)])
    if asked is None:
        return turns
    before = _asked(given(record, asked)) if not isinstance(record[asked], str) else None
    if before is None:
        prompt = unpacked(record[asked])
        before = listed(prompt) if isinstance(prompt, list) and all(is_turn(m) for m in prompt) else [Turn("user", record[asked])]
    return [*(before or []), *turns]


_FORMS: tuple[tuple[str, Callable[[Mapping[str, Any], str | None], Turns | Conversation | None]], ...] = (
    ("an export of ChatGPT", _chatgpt),
    ("an export of Open WebUI", _open_webui),
    ("pairs of replies", _two),
    ("an export of Langfuse", _langfuse),
    ("a log of an API", _api_log),
    ("ShareGPT", _sharegpt),
    ("messages", _messages),
    ("lists of turns", _lists),
    ("Alpaca", _alpaca),
    ("prompt and response", _plain),
    ("prompt and response", _pair),
)
