"""What models are asked: the prompts that come with Demeanor, and files of prompts, each a conversation so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from demeanor.conversation import Message
from demeanor.data import forms
from demeanor.data.columns import Columns
from demeanor.data.fields import PROMPTS, given, is_turn, listed, plain, unpacked
from demeanor.data.inputs import open_input
from demeanor.data.rows import Row, sound
from demeanor.data.yaml_files import read_yaml
from demeanor.errors import ConversationError, DemeanorError, InputFileError
from demeanor.keys import folded

Prompt: TypeAlias = tuple[Message, ...]
BUNDLED = Path(__file__).parent / "prompts.yaml"


def bundled_prompts() -> dict[str, Prompt]:
    """The sixty prompts that come with Demeanor, by id: fifteen for each of the four traits, "boundary_maintenance-07"."""
    written = read_yaml(BUNDLED, InputFileError)
    return {f"{trait}-{i:02d}": (Message("user", text),) for trait, texts in written.items() for i, text in enumerate(texts, 1)}


def read_prompts(path: Path, columns: Columns | None = None) -> dict[str, Prompt]:
    """The prompts of a file by id, else by line: each row has `prompt` (text or messages, or under another usual name) or `messages`.

    Of a conversation in another form, what was said before its last reply is the prompt. Raises InputFileError at the first row that is
    none, and for an empty file.
    """
    found: dict[str, Prompt] = {}
    for row in _rows(path, columns):
        try:
            messages = asked_in(row.record, columns)
        except DemeanorError:
            raise InputFileError(f"{path}: {row.where} has no 'prompt' that can be read; give text, or a list of messages") from None
        if messages[-1].role != "user" or not messages[-1].content.strip():
            raise InputFileError(f"{path}: {row.where} does not end with something that the user says")
        if row.name in found:
            raise InputFileError(f"{path}: {row.where} repeats the id {row.name!r}; give each prompt its own")
        found[row.name] = messages
    if not found:
        raise InputFileError(f"{path} has no prompts; give one JSON object a line, with 'prompt'")
    return found


def _rows(path: Path, columns: Columns | None) -> Iterator[Row]:
    return sound(path, open_input(path, columns).rows())


def asked_in(record: Mapping[str, Any], columns: Columns | None = None) -> Prompt:
    """What a row asks, as messages. Raises ConversationError where it asks nothing that can be read."""
    columns = columns or Columns()
    roles = dict(columns.roles)
    whole = columns.path is not None or (columns.messages is None and given(record, "messages") is None)
    if whole and (before := _before_reply(record, columns)):
        return before
    named = columns.prompt or columns.messages
    asked = record.get(named) if named else given(record, "messages") or record.get("prompt")
    if asked is None and not named:
        asked = next((record[name] for name in record if plain(name) in PROMPTS and record[name]), None)
    inner = unpacked(asked)
    turns = listed(inner) if isinstance(inner, list) and all(map(is_turn, inner)) else None
    if turns is None and isinstance(asked, str) and asked:
        return (Message("user", asked),)
    if turns is None:
        raise ConversationError("the row asks nothing that can be read; give it a 'prompt': text, or a list of messages")
    return forms.found(turns, "messages", roles).conversation.messages


def _before_reply(record: Mapping[str, Any], columns: Columns) -> Prompt:
    """What was said before the last reply of a conversation; nothing where the row is none."""
    reads = (columns.read,) if columns.read else ("chosen", "a")  # whatever the reply, what was asked is the same
    for read in reads:
        try:
            messages = replace(columns, read=read).find(record).conversation.messages
        except ConversationError:
            continue
        return messages[:-1] if messages[-1].role == "assistant" else messages
    return ()


def prompt_groups(path: Path, columns: Columns | None = None) -> dict[str, str]:
    """The groups of related prompts in a file that `read_prompts` reads, by id; prompts without a `group` are not in it."""
    groups = [(row.name, group_in(row.record)) for row in open_input(path, columns).rows()]
    return {name: group for name, group in groups if group is not None}


def group_in(record: Mapping[str, object]) -> str | None:
    """The `group` of a row, where it has one."""
    named = [value for name, value in record.items() if folded(name) == "group" and value is not None and str(value).strip()]
    return folded(str(named[0])) if named else None


def prompts_of(path: Path, columns: Columns | None = None) -> list[Prompt]:
    """The prompts of a file in order, as `read_prompts` takes them but without names; `messages` may end with a reply.

    Raises InputFileError at the first row that is none, and for an empty file.
    """
    found = []
    for row in _rows(path, columns):
        try:
            found.append(asked_in(row.record, columns))
        except ConversationError as error:
            raise InputFileError(f"{path}: {row.where} has no 'prompt' (text, or a list of messages) that can be read: {error}") from error
    if not found:
        raise InputFileError(f"{path} has no prompts")
    return found


def read_system(path: Path) -> str:
    """The system prompt that a text file holds. Raises InputFileError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: the system prompt cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
