"""Files of replies, and which replies of two files answer the same prompt.

A row is a record as `score` takes it (`messages`, or `prompt` and `response`), with or without an `id`; several rows with
one id or prompt are samples. The prompt is all that was said before the reply, without system messages: these belong
to the version, not to what it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from demeanor.conversation import Conversation, Message, from_record
from demeanor.errors import DemeanorError, InputFileError
from demeanor.records import Row, read_rows

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
        record: dict[str, object] = {} if self.id is None else {"id": self.id}
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
    name = None if name is None else str(name)
    try:
        conversation = from_record(row.record)
        end = conversation.last("assistant")
    except DemeanorError as error:
        return Reply((), "", name, error=f"line {row.number}: {error}")
    prompt = tuple(m for m in conversation.messages[:end] if m.role != "system")
    return Reply(prompt, conversation.messages[end].content, name)


def matched(versions: Mapping[str, Sequence[Reply]], how: Match = "auto") -> dict[str, list[Reply]]:
    """The same replies with their keys: by id where every row has one and the versions share some, else by prompt.

    Raises:
        InputFileError: nothing to match by, nothing in common, or one id with two prompts.
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
    prompts = _prompts_by_id(sound) if how == "id" else {}
    keyed = {
        name: [replace(r, key=_key(r, how), prompt=r.prompt or prompts.get(r.id or "", ())) for r in replies]
        for name, replies in versions.items()
    }
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
    return "\x1e".join(f"{m.role}\x1f{m.content.strip()}" for m in reply.prompt)


def _prompts_by_id(versions: Mapping[str, Sequence[Reply]]) -> dict[str, Prompt]:
    """The prompt of each id, from whichever row has it, so that all its replies are read after the same words.

    Raises InputFileError where one id has two prompts.
    """
    seen: dict[str, tuple[str, Reply]] = {}
    for name, replies in versions.items():
        for reply in replies:
            if not reply.prompt:
                continue
            where, known = seen.setdefault(reply.id or "", (name, reply))
            if _key(known, "prompt") != _key(reply, "prompt"):
                places = name if where == name else f"{where} and {name}"
                raise InputFileError(
                    f"id {reply.id!r} stands for different prompts in {places}; mend the ids, or match by text: --match prompt"
                )
    return {identity: known.prompt for identity, (_, known) in seen.items()}
