"""Conversations: replies by what was done about them, one of them with its reasons, and a whole conversation with each trait over it.

What the model made of a reply is kept from a reviewer who has still to answer a question about it, here as in the queue. Admins see all.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from demeanor.dashboard.handling import Asked, NotFoundError
from demeanor.errors import ReviewError
from demeanor.measure.cuts import ACTIONS
from demeanor.reports.cards import said_of
from demeanor.reports.figures import Box, Dot, Level, Plot, Scale, strokes
from demeanor.reports.marking import Passage, passage
from demeanor.reports.page import signed
from demeanor.reports.sentences import DONE
from demeanor.review import looking
from demeanor.review.drawing import Verdict
from demeanor.review.looking import Wanted
from demeanor.review.queue import questions
from demeanor.review.texts import Kept, conversation_of, read

SHORT = 240  # characters of a reply in a list
ANSWERED = {"": "all", "yes": "answered by people", "no": "not answered"}


@dataclass(frozen=True)
class Row:
    """A reply in a list."""

    reply: Kept
    asked: str
    """The message that it answers, or its beginning."""
    said: str
    caught: tuple[str, ...]
    hidden: bool
    """Whether a question about it is open that the reader has not answered."""


def shown(asked: Asked) -> Response:
    """The search and what it found."""
    query = asked.query
    wanted = _wanted(asked)
    found = looking.search(asked.store, wanted)
    hidden = hidden_from(asked, [reply.number for reply in found.replies])
    going_on = {name: value for name, value in query.items() if name in FIELDS and value}
    return asked.show(
        "conversations.html",
        rows=[_row(reply, reply.number in hidden) for reply in found.replies],
        found=found, query=query, rules=looking.rules(asked.store), titles=_titles(asked), done=DONE, actions=ACTIONS, answered=ANSWERED,
        older=None if found.before is None else asked.at("/conversations", **going_on, before=found.before),
        filtered=bool(going_on), newest=query.get("before", "") == "",
    )  # fmt: skip


FIELDS = ("text", "action", "rule", "trait", "since", "until", "answered")


def _wanted(asked: Asked) -> Wanted:
    query = asked.query
    before = query.get("before", "")
    known: dict[str, set[str]] = {
        "action": set(ACTIONS),
        "rule": set(looking.rules(asked.store)),
        "trait": {*looking.rules(asked.store).values(), *_titles(asked)},
        "answered": set(ANSWERED),
    }
    for name, values in known.items():
        if query.get(name) and query[name] not in values:
            raise ReviewError(f"{query[name][:80]!r} is no {name} that the store knows; choose one of the list")
    if before and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise ReviewError("the address of this page was changed; begin the search anew")
    judged = any(query.get(name) for name in ("action", "rule", "trait"))
    return Wanted(
        text=query.get("text", "")[:200],
        action=query.get("action") or None,
        rule=query.get("rule") or None,
        trait=query.get("trait") or None,
        since=_day(query.get("since", ""), 0),
        until=_day(query.get("until", ""), 1),
        reviewed={"yes": True, "no": False}.get(query.get("answered", "")),
        before=int(before) if before else None,
        unasked=asked.name if judged and not asked.admin else None,
    )


def _day(text: str, later: int) -> float | None:
    """The beginning of a day (UTC), or of the one after it."""
    if not text:
        return None
    try:
        found = datetime.datetime.fromisoformat(text[:10]).replace(tzinfo=datetime.UTC)
        return (found + datetime.timedelta(days=later)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ReviewError(f"{text[:80]!r} is no day; write it as 2026-11-29") from error


def _row(reply: Kept, hidden: bool) -> Row:
    messages = reply.conversation.messages if reply.conversation is not None else ()
    said = messages[-1].content if messages else ""
    before = next((m.content for m in reversed(messages[:-1]) if m.role == "user"), "")
    caught = tuple(dict.fromkeys(v.rule for v in reply.verdicts if v.caught))
    return Row(reply, _short(before), _short(said), caught, hidden)


def _short(text: str) -> str:
    return text if len(text) <= SHORT else text[:SHORT].rstrip() + " …"


def _titles(asked: Asked) -> dict[str, str]:
    return {trait: question.title for trait, question in questions(asked.store).items()}


@dataclass(frozen=True)
class Strip:
    """One trait over a conversation."""

    title: str
    plot: Plot


def reply(asked: Asked) -> Response:
    """One reply: its conversation, what was decided and why, what was shown in its place, and what people said of it."""
    number = asked.number("reply")
    try:
        found = read(asked.store, number)
    except ReviewError as error:
        raise NotFoundError(str(error)) from error
    hidden = hidden_from(asked, [number])
    messages = found.conversation.messages if found.conversation is not None else ()
    titles = _titles(asked)
    return asked.show(
        "reply.html",
        reply=found,
        hidden=number in hidden,
        said=said_of(messages, len(messages) - 1) if messages else (),
        instead=passage(found.shown) if found.shown else None,
        reasons=[_reason(v, titles.get(v.trait, v.trait)) for v in found.verdicts],
        scores=[(titles.get(trait, trait), signed(z)) for trait, z in found.scores.items()],
        answers=looking.answers(asked.store, number) if number not in hidden else (),
        titles=titles,
        done=DONE,
    )


def _reason(v: Verdict, title: str) -> tuple[str, str, bool]:
    """A rule, what it came to in words, and whether it caught the reply."""
    if v.z is None or v.beyond is None:
        said = "could not be judged, and counts as caught" if v.caught else "did not apply, or was not judged"
    else:
        at = v.z - v.beyond if v.side == "above" else v.z + v.beyond
        beyond = "or higher" if v.side == "above" else "or lower"
        said = f"{title} {signed(v.z)}; unsafe at {signed(at)} {beyond}"
    return v.rule, said, v.caught


def conversation(asked: Asked) -> Response:
    """A whole conversation, as far as its replies were kept, with each trait over them."""
    replies = conversation_of(asked.store, asked.parts["key"])
    if not replies:
        raise NotFoundError("the store holds no such conversation; it may have been erased, or its time is over")
    hidden = hidden_from(asked, [each.number for each in replies])
    last = max((each.conversation.messages for each in replies if each.conversation is not None), key=len, default=())
    return asked.show(
        "conversation.html",
        key=asked.parts["key"],
        replies=replies,
        hidden=hidden,
        strips=strips(replies, _titles(asked)) if not hidden else [],
        said=_told(last, replies),
        done=DONE,
    )


def _told(messages: Sequence[object], replies: Sequence[Kept]) -> list[tuple[object, Kept | None, Passage | None]]:
    """Each message, the decision about it where it is a reply that was kept, and what was shown in its place."""
    decided = {len(each.conversation.messages) - 1: each for each in replies if each.conversation is not None}
    found: list[tuple[object, Kept | None, Passage | None]] = []
    for i, said in enumerate(said_of(messages, -1)):  # type: ignore[arg-type]
        about = decided.get(i)
        found.append((said, about, passage(about.shown) if about is not None and about.shown else None))
    return found


def strips(replies: Sequence[Kept], titles: dict[str, str]) -> list[Strip]:
    """Of each trait its score over the replies, what lies beyond its rules' thresholds, and the replies that a rule caught."""
    x = Scale.counting(len(replies))
    drawn = []
    for trait in dict.fromkeys(trait for each in replies for trait in each.scores):
        title = titles.get(trait, trait)
        points = [(float(i), each.scores.get(trait)) for i, each in enumerate(replies, 1)]
        limits = {_limit(v) for each in replies for v in each.verdicts if v.trait == trait and v.z is not None and v.beyond is not None}
        y = Scale.over([*(z for _, z in points if z is not None), 0.0, *(z for _, z in limits)], 4)
        dots = []
        for (i, z), each in zip(points, replies, strict=True):
            if z is not None:
                caught = any(v.caught and v.trait == trait for v in each.verdicts)
                text = f"reply {i:.0f}: {z:+.2f}{', a rule caught it' if caught else ''}"
                dots.append(Dot(x.at(i), round(100 - y.at(z), 2), "unsafe" if caught else "plain", text))
        places = [(round(100 - y.at(z), 2), side) for side, z in sorted(limits)]
        shade = tuple(
            Box(0, 0 if side == "above" else at, 100, at if side == "above" else round(100 - at, 2), "beyond") for at, side in places
        )
        levels = tuple(Level(at, "limit") for at, _ in places)
        last = [z for _, z in points if z is not None]
        label = f"{title} over {len(replies)} replies, the last {signed(last[-1])}"
        plot = Plot(label, x, "reply", y, "", tuple(strokes(x, y, points, "plain")), tuple(dots), shade, levels, height=90)
        drawn.append(Strip(title, plot))
    return drawn


def _limit(v: Verdict) -> tuple[str, float]:
    assert v.z is not None
    assert v.beyond is not None
    return v.side, round(v.z - v.beyond if v.side == "above" else v.z + v.beyond, 2)


def hidden_from(asked: Asked, numbers: Sequence[int], trait: str | None = None) -> set[int]:
    """The replies of which a reviewer is not shown what the model made of them."""
    return set() if asked.admin else looking.unanswered(asked.store, asked.name, numbers, trait)
