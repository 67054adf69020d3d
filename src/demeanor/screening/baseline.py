"""Projection difference: how far a reply lies from what the model itself would have said (Chen et al. 2025, 2507.21509).

    difference(x, y) = [a(x, y) - a(x, y')] . v        y' the model's own greedy answer to the prompt x
                     = raw(x, y) - centre              where the baseline is the neutral mean instead

For the first the distinct prompts are numbered in the order in which they come, and answered and scored in fixed batches
before any row is: a prompt that stands in a thousand rows is answered once, and a batch is composed alike in every run.

    .prompts.sqlite              key of a prompt -> its number and messages
    answers/batch-00000.jsonl    for each prompt of a batch: {"n", "reply", "raw": {trait: score}} or {"n", "error"}
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from demeanor.conversation import Conversation, Message, from_messages
from demeanor.data.columns import Columns
from demeanor.data.rows import Row, to_line
from demeanor.errors import ConversationError, DemeanorError, OutputError
from demeanor.scoring.reading import Reading

if TYPE_CHECKING:
    from demeanor.scoring.scorer import Scorer

BATCH = 128  # prompts that are answered and scored together
TOKENS = 160  # of an answer, at most
_KEPT = 64  # batches of answers that a process keeps at hand
Answer: TypeAlias = "dict[str, float] | str"
"""Raw scores of the model's own answer by trait, or why there is none."""


def prompt_of(conversation: Conversation) -> tuple[Message, ...]:
    """What was said before the reply that is scored."""
    return conversation.messages[: conversation.last("assistant")]


def key_of(conversation: Conversation) -> bytes:
    """Sixteen bytes that are equal for equal prompts."""
    said = [[m.role, m.content] for m in prompt_of(conversation)]
    return hashlib.sha256(json.dumps(said).encode()).digest()[:16]


class PromptIndex:
    """The distinct prompts of a data set, on disk, numbered in order of appearance; put in place by `finish`."""

    def __init__(self, folder: Path, columns: Columns) -> None:
        self.columns = columns
        self.path = index_path(folder)
        self.part = self.path.with_name(f"{self.path.name}.part")
        self.count = 0
        try:
            self.part.unlink(missing_ok=True)
            self.data = sqlite3.connect(self.part)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"cannot write {self.path}: {error}") from error
        self.data.executescript("PRAGMA journal_mode=OFF; CREATE TABLE prompts (key BLOB PRIMARY KEY, n INTEGER, messages TEXT)")

    def see(self, _number: int, row: Row) -> None:
        """Take in the prompt of a row, if it can be read and was not seen before."""
        if row.error is not None:
            return
        try:
            conversation = self.columns.conversation(row.record)
            key, said = key_of(conversation), prompt_of(conversation)
        except DemeanorError:
            return
        messages = json.dumps([{"role": m.role, "content": m.content} for m in said])
        try:
            done = self.data.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?, ?)", (key, self.count, messages))
        except sqlite3.Error as error:
            raise OutputError(f"cannot write {self.path}: {error}") from error
        self.count += done.rowcount

    def finish(self) -> int:
        """Put the index in place; returns the number of distinct prompts."""
        try:
            self.data.execute("CREATE INDEX by_number ON prompts (n)")
            self.data.commit()
            self.data.close()
            self.part.replace(self.path)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"cannot write {self.path}: {error}") from error
        return self.count


def index_path(folder: Path) -> Path:
    """Where the index of prompts stands; hidden, as it is there before the folder has a manifest."""
    return folder / ".prompts.sqlite"


def batches(prompts: int) -> int:
    """How many batches that many prompts are answered in."""
    return -(-prompts // BATCH)


def batch_path(folder: Path, batch: int) -> Path:
    """Where a batch's answers go."""
    return folder / "answers" / f"batch-{batch:05d}.jsonl"


def answer_batch(scorer: Scorer, folder: Path, batch: int, progress: Callable[[int], None] | None = None) -> bytes:
    """Have the model answer a batch's prompts, greedily, and score its answers; the content of the batch's file."""
    from demeanor.model.generation import Sampling, prompt_ids, write_replies

    sampling = Sampling(max_new_tokens=TOKENS, temperature=0.0)
    with closing(_connect(folder)) as data:
        found = data.execute("SELECT n, messages FROM prompts WHERE n >= ? AND n < ? ORDER BY n", (batch * BATCH, (batch + 1) * BATCH))
        prompts = {int(n): json.loads(messages) for n, messages in found}
    lines: dict[int, dict[str, Any]] = {}
    asked: dict[int, tuple[Message, ...]] = {}
    for n, messages in prompts.items():
        try:
            if not messages:
                raise ConversationError("the row has no prompt for the model to answer")
            asked[n] = from_messages(messages).messages
            prompt_ids(scorer.reader, asked[n], sampling)
        except DemeanorError as error:
            asked.pop(n, None)
            lines[n] = {"n": n, "error": str(error)}
            if progress is not None:
                progress(1)
    replies = write_replies(scorer.reader, list(asked.values()), sampling, progress)
    answered = [Conversation((*said, Message("assistant", reply.text))) for said, reply in zip(asked.values(), replies, strict=True)]
    for n, reply, result in zip(asked, replies, scorer.score_many(answered), strict=True):
        if isinstance(result, Reading):
            lines[n] = {"n": n, "reply": reply.text, "raw": {trait: score.raw for trait, score in result.scores.items()}}
        else:
            lines[n] = {"n": n, "error": f"the model's own answer cannot be scored: {result.error}"}
    return "".join(to_line(lines[n]) for n in sorted(lines)).encode()


class Answers:
    """The answers of a screening, by prompt; a bounded number of batches is kept in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data: sqlite3.Connection | None = None
        self._batches: OrderedDict[int, list[Answer]] = OrderedDict()

    def __getitem__(self, key: bytes) -> Answer:
        self._data = self._data or _connect(self.folder)
        found = self._data.execute("SELECT n FROM prompts WHERE key = ?", (key,)).fetchone()
        if found is None:
            return "the prompt was not there when the input was read first"
        batch, at = divmod(int(found[0]), BATCH)
        if batch not in self._batches:
            text = batch_path(self.folder, batch).read_text(encoding="utf-8")
            self._batches[batch] = [record.get("error") or record["raw"] for record in map(json.loads, text.rstrip("\n").split("\n"))]
            if len(self._batches) > _KEPT:
                self._batches.popitem(last=False)
        self._batches.move_to_end(batch)
        return self._batches[batch][at]


def _connect(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(index_path(folder).absolute().as_uri() + "?mode=ro&immutable=1", uri=True)
