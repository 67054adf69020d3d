"""Files of replies, and which replies of two files answer the same prompt.

A row is a record as `score` takes it (`messages`, or `prompt` and `response`), with or without an `id`; several rows with
one id or prompt are samples. The prompt is all that was said before the reply, without system messages: these belong
to the version, not to what it is asked. Prompts that differ by white space, case or what nobody sees are one prompt (see
keys.py). A `group` says which prompts are related, such as paraphrases of one; without one, each stands for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from demeanor.conversation import Conversation, Message, from_record
from demeanor.data.rows import Row, read_rows
from demeanor.errors import DemeanorError, InputFileError
from demeanor.keys import folded

Match = Literal["auto", "id", "prompt"]
Prompt: TypeAlias = tuple[Message, ...]


@dataclass(frozen=True)
class Reply:
    """One reply of a version, or a row that holds none, with the cause."""

    prompt: Prompt
    text: str
    id: str | None = None
    key: str = ""
    """What pairs it with other versions' replies; `matched` sets it."""
    error: str | None = None
    group: str | None = None
    """What the prompt is related to others by, where the row says so; after `matched`, every reply has one."""

    @property
    def conversation(self) -> Conversation:
        """The prompt and the reply, as an observer is to read it."""
        return Conversation((*self.prompt, Message("assistant", self.text)))

    @property
    def asked(self) -> str:
        """The prompt as text, one message a line."""
        if len(self.prompt) == 1:
            return self.prompt[0].content
        return "\n".join(f"{m.role.capitalize()}: {m.content}" for m in self.prompt)

    def to_record(self) -> dict[str, object]:
        """As a row of a file that `read_replies` reads."""
        named = {"id": self.id, "group": self.group}
        record: dict[str, object] = {name: value for name, value in named.items() if value is not None}
        return record | {"messages": self.conversation.to_record()}


def read_replies(path: Path) -> list[Reply]:
    """The replies of a JSON-lines file (.gz too); a row that cannot be read keeps its place with its error.

    Raises InputFileError for a file that is missing, empty, or has no row that can be read.
    """
    found = [_reply(row) for row in read_rows(path)]
    if not found:
        raise InputFileError(f"{path} holds no rows; give one JSON object a line, with 'prompt' and 'response'")
    if all(reply.error for reply in found):
        raise InputFileError(f"{path}: no row can be read ({found[0].error})")
    return found


def _reply(row: Row) -> Reply:
    if row.error is not None:
        return Reply((), "", error=row.error)
    name = row.record.get("id")
    name, group = None if name is None else str(name), group_in(row.record)
    try:
        conversation = from_record(row.record)
        end = conversation.last("assistant")
    except DemeanorError as error:
        return Reply((), "", name, error=f"line {row.number}: {error}", group=group)
    prompt = tuple(m for m in conversation.messages[:end] if m.role != "system")
    return Reply(prompt, conversation.messages[end].content, name, group=group)


def group_in(record: Mapping[str, object]) -> str | None:
    """The `group` of a row, where it has one."""
    named = [value for name, value in record.items() if folded(name) == "group" and value is not None and str(value).strip()]
    return folded(str(named[0])) if named else None


def matched(versions: Mapping[str, Sequence[Reply]], how: Match = "auto") -> dict[str, list[Reply]]:
    """The same replies with their keys: by id where every row has one and the versions share some, else by prompt.

    Raises:
        InputFileError: nothing to match by, nothing in common, one id with two prompts, or one prompt in two groups.
    """
    sound = {name: [r for r in replies if r.error is None] for name, replies in versions.items()}
    if how == "auto":
        first, *others = ({r.id for r in replies} for replies in sound.values())
        by_id = None not in first.union(*others) and all(first & ids for ids in others)
        how = "id" if by_id else "prompt"
    for name, replies in sound.items():
        if lacking := sum((r.id is None) if how == "id" else not r.prompt for r in replies):
            other = "'prompt' or 'messages'" if how == "prompt" else "an 'id'"
            raise InputFileError(f"{name}: {lacking} of {len(replies)} rows lack {other} to match them by; give each row one")
    prompts = _prompts_by_key(sound, how)
    keyed = {
        name: [replace(r, key=_key(r, how), prompt=prompts.get(_key(r, how), r.prompt)) for r in replies]
        for name, replies in versions.items()
    }
    keyed = _grouped(keyed)
    first_name, *rest = keyed
    for name in rest:
        if not {r.key for r in keyed[first_name] if not r.error} & {r.key for r in keyed[name] if not r.error}:
            raise InputFileError(
                f"{first_name} and {name} have no {how} in common; they must hold replies to the same prompts (same 'id' or same 'prompt')"
            )
    return keyed


def _key(reply: Reply, how: Match) -> str:
    if how == "id":
        return reply.id or ""
    return "\x1e".join(f"{m.role}\x1f{folded(m.content)}" for m in reply.prompt)


def _prompts_by_key(versions: Mapping[str, Sequence[Reply]], how: Match) -> dict[str, Prompt]:
    """The prompt of each key, from whichever row has it first, so that all its replies are read after the same words.

    Raises InputFileError where one id has two prompts.
    """
    seen: dict[str, tuple[str, Reply]] = {}
    for name, replies in versions.items():
        for reply in replies:
            if not reply.prompt:
                continue
            where, known = seen.setdefault(_key(reply, how), (name, reply))
            if _key(known, "prompt") != _key(reply, "prompt"):
                places = name if where == name else f"{where} and {name}"
                raise InputFileError(
                    f"id {reply.id!r} stands for different prompts in {places}; mend the ids, or match by text: --match prompt"
                )
    return {key: known.prompt for key, (_, known) in seen.items()}


def _grouped(versions: Mapping[str, Sequence[Reply]]) -> dict[str, list[Reply]]:
    """The replies with their groups: the one that a row of their prompt names, in whichever version, else the prompt itself.

    Raises InputFileError where one prompt is in two groups.
    """
    named: dict[str, tuple[str, str]] = {}
    for name, replies in versions.items():
        for reply in replies:
            if reply.group is None or reply.error is not None:
                continue
            where, group = named.setdefault(reply.key, (name, reply.group))
            if group != reply.group:
                places = name if where == name else f"{where} and {name}"
                what = repr(reply.id) if reply.id is not None else f"{reply.asked[:60]!r}"
                raise InputFileError(f"the prompt {what} is in the groups {group!r} and {reply.group!r} in {places}; give it one 'group'")

    def of(reply: Reply) -> str:
        if reply.key in named:
            return f"group {named[reply.key][1]}"
        return f"prompt {_key(reply, 'prompt') or reply.key}"

    return {name: [replace(r, group=of(r)) for r in replies] for name, replies in versions.items()}
