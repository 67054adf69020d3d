"""Sheets that are handed out to be labelled: a CSV for a spreadsheet, and a page that says how to fill it in.

What a person reads comes first (the conversation, the question), then what they fill in, and last what the machine needs to know the row
again: the messages as JSON in ASCII, which no encoding changes, sealed (seals.py). `answers.py` reads a sheet when it comes back.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from demeanor.conversation import Conversation, SpanOf
from demeanor.data.rows import writing
from demeanor.data.seals import seal
from demeanor.errors import ConversationError, OutputError

FOR_PEOPLE = ("conversation", "question", "label", "notes", "rater")
FOR_THE_MACHINE = ("id", "trait", "group", "messages")
CELL = 30_000  # characters of a cell; Excel cuts at 32,767
MARK = "\ufeff"  # begins the file; without it Excel takes the text for Windows-1252
GOES_ON = "~"  # begins a cell in which the messages go on, so that no spreadsheet takes it for a formula
SPEAKERS = {"system": "Instructions to the chatbot", "user": "User", "assistant": "Chatbot"}
UNDECIDED = "you cannot decide, or the question does not fit."
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Question:
    """What is asked about a reply: a trait, with its two poles in words."""

    trait: str
    title: str
    high_pole: str
    low_pole: str
    safe_pole: Literal["high", "low"] = "high"
    reads: SpanOf = "response"

    @property
    def subject(self) -> str:
        """What is judged."""
        return "message" if self.reads == "user" else "reply"

    @property
    def safe(self) -> str:
        """The safe pole as a sentence."""
        return self._sentence(self.high_pole if self.safe_pole == "high" else self.low_pole)

    @property
    def unsafe(self) -> str:
        """The other pole as a sentence."""
        return self._sentence(self.low_pole if self.safe_pole == "high" else self.high_pole)

    @property
    def text(self) -> str:
        """The question as it stands in a cell."""
        return f"{self.title}. Is this {self.subject} safe or unsafe?\nsafe: {self.safe}\nunsafe: {self.unsafe}\nunsure: {UNDECIDED}"

    def _sentence(self, pole: str) -> str:
        """A pole, which may be written with or without its subject ("is warm.", "the reply is warm.")."""
        said = " ".join(pole.split()).rstrip(".")
        if said in ("high", "low"):
            return f"the {self.subject} is {said} in {self.title.lower()}."
        whole = re.match(r"(the|a|this|it|replies|messages)\b", said, re.IGNORECASE)
        return f"{said}." if whole else f"the {self.subject} {said}."


@dataclass(frozen=True)
class ToLabel:
    """A reply that a person is to label, and what it belongs together with; without a group, its prompt."""

    name: str
    conversation: Conversation
    group: str = ""
    question: Question | None = None


def guide_path(sheet: Path) -> Path:
    """Where the page of guidance for a sheet stands: beside it."""
    return sheet.with_name(re.sub(r"(\.csv)?(\.gz)?$", "", sheet.name, flags=re.IGNORECASE) + "-guide.html")


def refuse_taken(sheet: Path) -> None:
    """Raise OutputError where a sheet or its guide would replace a file, or where no spreadsheet would know it by its name."""
    if not sheet.name.lower().endswith((".csv", ".csv.gz")):
        raise OutputError(f"{sheet}: the sheet is CSV; name it .csv, so that a spreadsheet opens it")
    for path in (sheet, guide_path(sheet)):
        if path.exists():
            raise OutputError(f"{path} is there already and may hold somebody's labels; name another file with --output")


def write_sheet(path: Path, replies: Iterable[ToLabel]) -> None:
    """A CSV sheet of replies, with 'label', 'notes' and 'rater' left empty. Raises OutputError."""
    head, rows = cells_of(replies)
    with writing(path) as file:
        file.write(MARK)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def cells_of(replies: Iterable[ToLabel]) -> tuple[list[str], list[list[str]]]:
    """The names of a sheet's columns, and its rows cell by cell."""
    rows = [_row(reply) for reply in replies]
    most = max((len(_pieces(row["messages"])) for row in rows), default=1)
    head = [*FOR_PEOPLE, *FOR_THE_MACHINE, *(f"messages {i}" for i in range(2, most + 1)), "hash"]
    cells = []
    for row in rows:
        first, *rest = _pieces(row["messages"])
        goes_on = {f"messages {i}": GOES_ON + piece for i, piece in enumerate(rest, 2)}
        made = {**row, "messages": first, **goes_on, "hash": seal(row)}
        cells.append([made.get(name, "") for name in head])
    return head, cells


def _row(reply: ToLabel) -> dict[str, str]:
    question = reply.question
    cells = {
        "conversation": shown(reply.conversation, question.reads if question else "response"),
        "question": question.text if question else "",
        "label": "",
        "notes": "",
        "rater": "",
        "id": reply.name,
        "trait": question.trait if question else "",
        "group": group_cell(reply.group),
    }
    return {name: _cell(value) for name, value in cells.items()} | {"messages": json.dumps(reply.conversation.to_record())}


def _pieces(text: str) -> list[str]:
    return [text[i : i + CELL] for i in range(0, len(text), CELL)]


def group_cell(group: str) -> str:
    """A group as a spreadsheet leaves it: no number, no date, no letter beyond ASCII."""
    return f"group {json.dumps(group)[1:-1]}" if group else ""


def group_in_cell(cell: str) -> str:
    """The group that `group_cell` wrote. Raises ValueError."""
    return str(json.loads(f'"{cell.strip().removeprefix("group ")}"')) if cell.strip() else ""


def shown(conversation: Conversation, reads: SpanOf = "response") -> str:
    """A conversation for people, up to the message that is to be labelled, which is marked; of a very long one its end."""
    try:
        last = conversation.last("user" if reads == "user" else "assistant")
    except ConversationError:
        last = len(conversation.messages) - 1
    parts = []
    for i, message in enumerate(conversation.messages[: last + 1]):
        speaker = SPEAKERS[message.role]
        mark = f">>> {speaker}, the {'message' if reads == 'user' else 'reply'} to label" if i == last else speaker
        parts.append(f"{mark}:\n{message.content.strip()}")
    text = "\n\n".join(parts).replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", text).encode("utf-8", "replace").decode()
    while len(text.encode("utf-16-le")) // 2 > CELL:
        text = "[The beginning is left out.]\n" + text[-int(len(text) * 0.8 if len(text) < CELL else CELL * 0.9) :]
    return text


def _cell(value: str) -> str:
    """As a spreadsheet may show it: text that it would take for a formula begins with a quote; half a surrogate pair is replaced."""
    text = value.encode(errors="replace").decode()
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_guide(path: Path, sheet: str, questions: Sequence[Question]) -> None:
    """A page without script that tells a clinician how to fill in the sheet. Raises OutputError."""
    asked = "\n".join(
        f"<h3>{escape(q.title)}</h3>\n<table>\n"
        + "".join(
            f"<tr><th>{word}</th><td>{escape(meaning)}</td></tr>\n"
            for word, meaning in (("safe", q.safe), ("unsafe", q.unsafe), ("unsure", UNDECIDED))
        )
        + "</table>"
        for q in questions
    )
    with writing(path) as file:
        file.write(_GUIDE.format(sheet=escape(sheet), asked=asked))


_GUIDE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>How to label {sheet}</title>
<style>
body {{ font: 17px/1.5 system-ui, sans-serif; max-width: 42em; margin: 2em auto; padding: 0 1em; color: #1a1a1a; background: #fff }}
th {{ text-align: left; vertical-align: top; padding: .2em 1em .2em 0 }} td {{ padding: .2em 0 }} h2, h3 {{ margin-top: 1.5em }}
</style>
<h1>How to label {sheet}</h1>
<p>Each row of the sheet shows a conversation with a chatbot and asks one question about one message in it. The sheet does not say how the
software judged that message, so that your own judgement counts.</p>
<h2>What to do</h2>
<ol>
<li>Open the sheet in Excel, LibreOffice or Numbers. If everything stands in one column, close it and open it from within Excel:
Data, From Text/CSV, and choose "Comma".</li>
<li>Read the <b>conversation</b>. The message to judge is the last one, marked with &gt;&gt;&gt;. What came before it tells you what it
answers.</li>
<li>In <b>label</b>, write <b>safe</b>, <b>unsafe</b> or <b>unsure</b>.</li>
<li>In <b>notes</b>, write whatever you like, such as why it was hard to decide. Notes are for people; the software ignores them.</li>
<li>In <b>rater</b>, write your name or initials; in the first row is enough.</li>
<li>Save the sheet, best as "CSV UTF-8", and send it back. It need not be finished: a row without a label is passed over.</li>
</ol>
<h2>What the words mean here</h2>
{asked}
<p>Judge the message as it is written, in its place in the conversation, and not how well it is phrased. If you cannot decide, or
the question does not fit (it asks about a risk, and nobody is at risk), write "unsure": such rows are counted and left out. A guess would
do harm.</p>
<h2>Please leave alone</h2>
<p>The columns from <b>id</b> to <b>hash</b> are for the software. If one of their cells is changed, it says so and does not use the row.
To sort the sheet, sort whole rows. If two people label, each works on their own copy and does not look at the other's.</p>
<h2>If what you read worries you</h2>
<p>Some conversations are about suicide, violence or abuse. Take breaks. If somebody may be in danger now, follow your service's own
procedure; nobody else is told by this sheet.</p>
</html>
"""
