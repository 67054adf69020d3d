"""The replies that the monitor flagged, withheld or could not score, as cards, the worst first; and as rows of a sheet to label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from demeanor.conversation import Conversation
from demeanor.data.to_label import ToLabel
from demeanor.measure.cuts import ACTIONS, withholds
from demeanor.monitor.outcome import SEVERITIES
from demeanor.monitor.policy import ResolvedRule
from demeanor.monitor.session import Monitor
from demeanor.monitor.transcripts import Transcript, Turn
from demeanor.reports.cards import Card, number_of, said_of
from demeanor.reports.marking import marked, passage, pushing_words
from demeanor.reports.sentences import DONE, UNREAD, sentence, strongest
from demeanor.vectors import TraitEntry

Entries = Mapping[str, TraitEntry]


def cards_of(transcripts: Sequence[Transcript], monitor: Monitor) -> list[Card]:
    """A card for each reply that was flagged, withheld or not scored; the worst first."""
    rules = {r.rule.name: r for r in monitor.policy.rules}
    found: list[tuple[tuple[int, int, bool, float], Card]] = []
    place = 0
    for row, transcript in enumerate(transcripts, 1):
        for turn in transcript.turns:
            place += 1
            if turn.decision.action != "allow" or turn.decision.not_scored is not None:
                found.append((_order(turn), _card(row, place, transcript, turn, rules, entries_of(monitor))))
    return [card for _, card in sorted(found, key=lambda each: each[0], reverse=True)]


def entries_of(monitor: Monitor) -> Entries:
    """The traits that are read; none where nothing could be loaded."""
    return monitor.scorer.vectors.traits if monitor.scorer is not None else {}


def anchor_of(row: int, turn: Turn) -> str:
    """Where a reply stands on the page: the conversation's place in the file, and the message's in the conversation, from 1."""
    return f"c{row}-m{turn.message + 1}"


def _order(turn: Turn) -> tuple[int, int, bool, float]:
    """The strongest action first, then the severity, then a user who may be at risk, then how far past its limit."""
    d = turn.decision
    return (
        ACTIONS.index(d.action),
        SEVERITIES.index(d.severity),
        any(r.user_at_risk and r.state == "fired" for r in d.results),
        max((r.beyond for r in d.results if r.state == "fired" and r.beyond is not None), default=0.0),
    )


def _card(row: int, place: int, transcript: Transcript, turn: Turn, rules: Mapping[str, ResolvedRule], entries: Entries) -> Card:
    d = turn.decision
    counted = strongest(d.results)
    spoken = [r for r in d.results if r.state in ("fired", "raised", "not scored")]
    told = [sentence(r, rules[r.rule].cut if r.rule in rules else None, entries.get(r.trait)) for r in counted]
    if d.reading is None:
        told = [f"{UNREAD}.", *[line for line in told if not line.startswith("Not scored")]]
    card = Card(
        anchor=anchor_of(row, turn),
        kind=d.severity or "unread",
        severity=d.severity or "",
        sentences=tuple(dict.fromkeys(told)),
        done=("would have been " if d.instead is not None and withholds(d.action) else "") + DONE[d.action],
        where=("conversation", transcript.name, _place(transcript, turn)),
        keys={
            "rule": " ".join(r.rule for r in spoken),
            "trait": " ".join(dict.fromkeys(r.trait for r in counted if r.trait)),
            "action": d.action,
            "date": transcript.date,
        },
        place=place,
        user=passage(turn.user),
        reply=passage(turn.reply),
        trial=d.instead is not None,
        instead=d.instead or ("" if d.shown else d.text),
        said=said_of(transcript.messages, turn.message),
        numbers=tuple(
            number_of(entries[r.trait].title, rules[r.rule].cut, d.reading.scores[r.trait], r.easing)
            for r in counted
            if d.reading is not None and r.rule in rules and r.trait in entries and r.trait in d.reading.scores
        ),
        reasons=tuple(r.explanation for r in spoken),
    )
    leading = next((r for r in counted if r.state == "fired" and turn.tokens is not None and r.trait in turn.tokens.z), None)
    if leading is None or turn.tokens is None:
        return card
    return replace(
        card,
        reply=marked(turn.tokens, leading.trait, leading.unsafe_side),
        by=entries[leading.trait].title if leading.trait in entries else leading.trait,
        words=tuple(pushing_words(turn.tokens, leading.trait, leading.unsafe_side)),
    )


def _place(transcript: Transcript, turn: Turn) -> str:
    several = len(transcript.turns) > 1
    of = f", reply {1 + transcript.turns.index(turn)} of {len(transcript.turns)}" if several else ""
    return f"{of}{', ' + transcript.date if transcript.date else ''}"


def to_label(transcripts: Sequence[Transcript], cards: Sequence[Card], monitor: Monitor) -> list[tuple[str, ToLabel]]:
    """The cards' replies to be labelled, each for its traits, in the file's order, named as by `demeanor sample --from`."""
    entries = entries_of(monitor)
    traits = {card.anchor: card.keys["trait"].split() for card in cards}
    found = []
    for row, transcript in enumerate(transcripts, 1):
        several = len(transcript.turns) > 1
        for turn in transcript.turns if transcript.messages else ():
            anchor = anchor_of(row, turn)
            name = f"{transcript.name} message {turn.message + 1}" if several else transcript.name
            group = f"conversation {transcript.name}" if several else ""
            upto = Conversation(transcript.messages[: turn.message + 1])
            asked = [entries[trait].question(trait) for trait in traits.get(anchor, ()) if trait in entries]
            found += [(anchor, ToLabel(name, upto, group, question)) for question in asked]
    return found
