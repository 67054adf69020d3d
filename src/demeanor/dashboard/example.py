"""A store and an audit log filled with an example, so that a newcomer sees every page in a minute. Nothing in it was said by anybody.

Texts are written (example.yaml), scores are drawn: good replies lie on the safe side of a trait and bad ones on the other, with an overlap
that leaves some misses and false alarms. Two reviewers have answered a part of the queue, and now and then differ. What the pages show of
it is how they look, and no measurement of anything.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord
from demeanor.conversation import Conversation, Message
from demeanor.measure.cuts import ACTIONS
from demeanor.monitor.fitting import by_hand
from demeanor.monitor.policy import Policy, ResolvedPolicy, default_policy_text, load_policy
from demeanor.review import queue, shadow, versions
from demeanor.review.drawing import Decided, Drawing, Verdict
from demeanor.review.store import Store
from demeanor.review.texts import keep
from demeanor.review.versions import BUILT_IN
from demeanor.vectors import VectorSet

TALKS, DAYS = 320, 12
HOUR = 3600.0
ANSWERED = 0.7  # of the items
REVIEWERS = ("anna", "ben")
DRAWING = Drawing(share=0.3, doubtful=0.5, reviewers=2)


@dataclass
class _Clock:
    now: float

    def __call__(self) -> float:
        return self.now


def fill(store: Store, audit: Path, vectors: VectorSet, seed: int = 7) -> None:
    """Fill an empty store and begin an audit log, with replies of the last days up to now."""
    draw = random.Random(seed)  # noqa: S311  # an example, no secret
    written: dict[str, Any] = yaml.safe_load(files("demeanor.dashboard").joinpath("example.yaml").read_text(encoding="utf-8"))
    policy = load_policy().resolve(vectors)
    clock = _Clock(store.clock())
    end = clock.now
    filled = replace(store, clock=clock)
    truth: dict[int, str] = {}
    with filled.db.transaction(), AuditLog(audit) as log:
        queue.ask(filled, [entry.question(trait) for trait, entry in vectors.traits.items() if entry.reads == "response"])
        clock.now = end - DAYS * 24 * HOUR
        first, digest = load_policy(), vectors.fingerprint()
        versions.promote(filled, "demo", "begin with the default policy", BUILT_IN, digest, first.identity, default_policy_text())
        for at in sorted(end - HOUR / 6 - DAYS * 24 * HOUR * draw.random() ** 2.5 for _ in range(TALKS)):
            _talk(filled, log, clock, at, end, written, policy, digest, draw, truth)
        _label(filled, truth, draw)
        clock.now = end - HOUR
        made = by_hand(first, "low_empathy", -0.4)
        _shadow(filled, made, draw)


def _talk(
    store: Store, log: AuditLog, clock: _Clock, at: float, end: float, written: dict[str, Any], policy: ResolvedPolicy, vectors: str,
    draw: random.Random, truth: dict[int, str],
) -> None:  # fmt: skip
    """One conversation of one to five replies, decided and kept."""
    talk = draw.choice(written["talks"])
    name = f"example-{at:.6f}"
    messages: tuple[Message, ...] = (Message("user", f"{talk['user']} {draw.choice(written['more'])}"),)
    for turn in range(draw.choice((1, 1, 2, 3, 5))):
        bad = draw.choice(talk["bad"]) if talk.get("bad") and draw.random() < 0.22 else None
        text = bad["text"] if bad else f"{draw.choice(talk['good'])} {draw.choice(written['asides'])}"
        messages += (Message("assistant", text),)
        clock.now = min(end, max(clock.now, at + 90.0 * turn))
        made = _decided(f"{name}-{turn}", name, messages, bad["trait"] if bad else None, policy, vectors, draw)
        truth[keep(store, made, DRAWING)] = bad["trait"] if bad else ""
        _log(log, made, clock.now, draw)
        messages += (Message("user", draw.choice(written["more"])),)


def _decided(
    decision: str, name: str, messages: tuple[Message, ...], fails: str | None, policy: ResolvedPolicy, vectors: str, draw: random.Random
) -> Decided:
    unread = draw.random() < 0.01
    scores, verdicts, action = {}, [], "allow"
    for resolved in () if unread else policy.rules:
        rule, cut = resolved.rule, resolved.cut
        up = 1 if cut.unsafe_side == "above" else -1
        if rule.trait not in scores:
            scores[rule.trait] = round(up * draw.gauss(1.4 if rule.trait == fails else -1.6, 0.8), 4)
        beyond = up * (scores[rule.trait] - cut.value)
        caught = beyond >= 0
        verdicts.append(Verdict(rule.name, rule.trait, caught, beyond, scores[rule.trait], cut.unsafe_side, rule.action != "flag"))
        action = max(action, rule.action if caught else "allow", key=ACTIONS.index)
    shown = "Before we go on: are you safe right now? If you might be in danger, call your local emergency number."
    return Decided(
        decision=decision, conversation_id=name, conversation=Conversation(messages), action=action, verdicts=verdicts,
        policy=policy.policy.identity, vectors=vectors, scores=scores, shown=shown if action in ("substitute", "escalate") else None,
        not_scored="the reply is in a language that the vectors were not made for" if unread else None,
    )  # fmt: skip


def _log(log: AuditLog, made: Decided, at: float, draw: random.Random) -> None:
    withheld = made.shown is not None
    log.append(
        AuditRecord(
            conversation_id=made.conversation_id, model="example", vectors=made.vectors, policy=made.policy, recommended=made.action,
            taken=made.action, severity="red" if withheld else None, rules=tuple(v.rule for v in made.verdicts if v.caught),
            scores=made.scores, source="example", situation=None, referral=withheld, not_scored=made.not_scored,
            latency_ms={"total": 40 + 20 * draw.random()},
            time=datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds"),
        )
    )  # fmt: skip


def _label(store: Store, truth: dict[int, str], draw: random.Random) -> None:
    """Answers of two reviewers about a part of the queue, in its order."""
    safe = {trait: question.safe_pole for trait, question in queue.questions(store).items()}
    rows = store.db.rows("SELECT number, reply, trait FROM item ORDER BY place, number")
    for number, reply, trait in rows[: int(ANSWERED * len(rows))]:
        good = truth[int(reply)] != trait
        right = safe[trait] if good else {"high": "low", "low": "high"}[safe[trait]]
        other = {"high": "low", "low": "high"}[right]
        for reviewer in REVIEWERS:
            chance = draw.random()
            value = right if chance < 0.95 else other if chance < 0.98 else "unsure"
            queue.answer(store, int(number), reviewer, value, "" if chance < 0.97 else "Read it twice.")


def _shadow(store: Store, candidate: Policy, draw: random.Random) -> None:
    """What a candidate with a stricter threshold would have done about the last replies."""
    for decision, action in store.db.rows("SELECT decision, action FROM reply ORDER BY number DESC LIMIT 120"):
        would = "flag" if action == "allow" and draw.random() < 0.05 else action
        shadow.note(store, candidate.identity, decision, shadow.Would(action), shadow.Would(would))
