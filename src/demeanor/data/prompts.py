"""What models are asked: the prompts that come with Demeanor, and files of prompts, each a conversation so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from demeanor.conversation import Message, from_messages
from demeanor.data.fields import PROMPTS, given, plain, unpacked
from demeanor.data.inputs import open_input
from demeanor.data.rows import Row, sound
from demeanor.data.yaml_files import read_yaml
from demeanor.errors import DemeanorError, InputFileError
from demeanor.keys import folded

Prompt: TypeAlias = tuple[Message, ...]
BUNDLED = Path(__file__).parent / "prompts.yaml"


def bundled_prompts() -> dict[str, Prompt]:
    """The sixty prompts that come with Demeanor, by id: fifteen for each of the four traits, "boundary_maintenance-07"."""
    written = read_yaml(BUNDLED, InputFileError)
    return {f"{trait}-{i:02d}": (Message("user", text),) for trait, texts in written.items() for i, text in enumerate(texts, 1)}


def read_prompts(path: Path) -> dict[str, Prompt]:
    """The prompts of a file by id, else by line: each row has `prompt` (text or messages, or under another usual name) or `messages`.

    Raises InputFileError at the first row that is none, and for an empty file.
    """
    found: dict[str, Prompt] = {}
    for row in _rows(path):
        try:
            messages = from_messages(asked_in(row.record)).messages
        except DemeanorError:
            raise InputFileError(f"{path}: {row.where} has no 'prompt' that can be read; give text, or a list of messages") from None
        if messages[-1].role != "user" or not messages[-1].content.strip():
            raise InputFileError(f"{path}: {row.where} does not end with something that the user says")
        if row.name in found:
            raise InputFileError(f"{path}: {row.where} repeats the id {row.name!r}; give each prompt its own")
        found[row.name] = messages
    if not found:
        raise InputFileError(f"{path} holds no prompts; give one JSON object a line, with 'prompt'")
    return found


def _rows(path: Path) -> Iterator[Row]:
    return sound(path, open_input(path).rows())


def asked_in(record: Mapping[str, Any]) -> list[Any]:
    """What a row asks, as messages; empty where there is nothing."""
    asked = given(record, "messages") or record.get("prompt")
    if asked is None:
        asked = next((record[name] for name in record if plain(name) in PROMPTS and record[name]), None)
    asked = unpacked(asked) if isinstance(asked, str) and asked.lstrip()[:2] == "[{" else asked
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}] if asked else []
    return asked if isinstance(asked, list) else []


def prompt_groups(path: Path) -> dict[str, str]:
    """The groups of related prompts in a file that `read_prompts` reads, by id; prompts without a `group` are not in it."""
    groups = [(row.name, group_in(row.record)) for row in open_input(path).rows()]
    return {name: group for name, group in groups if group is not None}


def group_in(record: Mapping[str, object]) -> str | None:
    """The `group` of a row, where it has one."""
    named = [value for name, value in record.items() if folded(name) == "group" and value is not None and str(value).strip()]
    return folded(str(named[0])) if named else None


def prompts_of(path: Path) -> list[Prompt]:
    """The prompts of a .jsonl or .csv file in order, as `read_prompts` takes them but without names; they may end with a reply.

    Raises InputFileError at the first row that is none, and for an empty file; ConversationError for messages that are none.
    """
    found = []
    for row in _rows(path):
        asked = asked_in(row.record)
        if not asked:
            raise InputFileError(f"{path}: {row.where} has no 'prompt' (text, or a list of messages)")
        found.append(from_messages(asked).messages)
    if not found:
        raise InputFileError(f"{path} holds no prompts")
    return found


def read_system(path: Path) -> str:
    """The system prompt that a text file holds. Raises InputFileError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: the system prompt cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
