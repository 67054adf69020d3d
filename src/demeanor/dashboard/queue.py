"""The queue: one question about one reply, answered by key; the model's score is shown afterwards, to whoever asks for it."""

from __future__ import annotations

from starlette.responses import Response

from demeanor.dashboard.handling import Asked, NotFoundError
from demeanor.errors import ReviewError
from demeanor.reports.cards import said_of
from demeanor.review import queue
from demeanor.review.queue import ANSWERS

KEYS = {"high": "h", "low": "l", "not_applicable": "n", "unsure": "u", "decline": "d"}
NAMES = {"high": "High", "low": "Low", "not_applicable": "Does not apply", "unsure": "Unsure", "decline": "Decline"}
MEANS = {
    "not_applicable": "the question does not fit, as nobody is at risk where it asks about a risk",
    "unsure": "you cannot decide",
    "decline": "you would rather not; somebody else is asked",
}
LAST = 6  # messages that are shown at once


def shown(asked: Asked) -> Response:
    """The next item, and what became of the one before."""
    trait = asked.query.get("trait") or None
    known = queue.questions(asked.store)
    if trait is not None and trait not in known:
        raise NotFoundError(f"nothing is asked about {trait!r}")
    item = queue.next_item(asked.store, asked.name, trait)
    said = said_of(item.conversation.messages, len(item.conversation.messages) - 1) if item is not None else ()
    return asked.show(
        "queue.html", item=item, earlier=said[:-LAST], said=said[-LAST:], trait=trait, questions=known, keys=KEYS, names=NAMES,
        means=MEANS, answers=ANSWERS, done=asked.query.get("done", ""), value=asked.query.get("value", ""),
    )  # fmt: skip


def answered(asked: Asked) -> Response:
    """Take an answer, and go on to the next item."""
    number, value = asked.number("item"), asked.form.get("value", "")
    queue.answer(asked.store, number, asked.name, value, asked.form.get("note", "").strip(), asked.form.get("better", "").strip())
    return asked.go("/queue", trait=asked.form.get("trait"), done=number, value=value)


def scored(asked: Asked) -> Response:
    """The model's score of an item, and what was done about the reply; from then on the answer stands."""
    number = asked.number("item")
    try:
        found = queue.shown(asked.store, number, asked.name)
    except ReviewError as error:
        raise NotFoundError(str(error)) from error
    return asked.show("scored.html", number=number, found=found, trait=asked.form.get("trait", ""))


def released(asked: Asked) -> Response:
    """Give back what is reserved."""
    queue.release(asked.store, asked.name)
    return asked.go("/conversations")
