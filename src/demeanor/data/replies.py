"""Files of replies that versions of a chatbot gave.

A row is a record as `score` takes it, with or without an `id`; several rows with
one id or prompt are samples. The prompt is all that was said before the reply, without system messages: these belong
to the version, not to what it is asked. A `group` says which prompts are related, such as paraphrases of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demeanor.conversation import Conversation, Message
from demeanor.data.columns import Columns
from demeanor.data.inputs import open_input
from demeanor.data.prompts import Prompt, group_in
from demeanor.data.rows import Row
from demeanor.errors import DemeanorError, InputFileError


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


def read_replies(path: Path, columns: Columns | None = None) -> list[Reply]:
    """The replies of a file of any form that is read; a row that cannot be read keeps its place with its error.

    Raises InputFileError for a file that is missing, empty, or has no row that can be read.
    """
    columns = columns or Columns()
    found = [_reply(row, columns) for row in open_input(path, columns).rows()]
    if not found:
        raise InputFileError(f"{path} has no rows; give one JSON object a line, with 'prompt' and 'response'")
    if all(reply.error for reply in found):
        raise InputFileError(f"{path}: no row can be read ({found[0].error})")
    return found


def _reply(row: Row, columns: Columns) -> Reply:
    if row.error is not None:
        return Reply((), "", error=row.error)
    name = row.record.get("id")
    name, group = None if name is None else str(name), group_in(row.record)
    try:
        conversation = columns.conversation(row.record)
        end = conversation.last("assistant")
    except DemeanorError as error:
        return Reply((), "", name, error=f"{row.where}: {error}", group=group)
    prompt = tuple(m for m in conversation.messages[:end] if m.role != "system")
    return Reply(prompt, conversation.messages[end].content, name, group=group)
