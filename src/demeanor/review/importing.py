"""A store filled from what is there already: an audit log, which holds decisions without text, and the conversations it was written of.

A log names a conversation by a hash of its id, so the ids have to be those of then. Its n-th record of a conversation is about the n-th
reply. Where the numbers differ nothing of that conversation is taken, as nobody could say which reply is which; and a reply that was
replaced is not taken either, as the transcript holds what was shown in its place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demeanor.audit.log import AuditLog
from demeanor.audit.verification import checked
from demeanor.conversation import Conversation
from demeanor.errors import AuditError, ReviewError
from demeanor.measure.cuts import withholds
from demeanor.review.drawing import Decided, Drawing
from demeanor.review.recording import Watched, from_log, known_by
from demeanor.review.store import Store
from demeanor.review.texts import keep


@dataclass
class Imported:
    """What was taken, and what was left and why."""

    replies: int = 0
    left: Counter[str] = field(default_factory=Counter)

    @property
    def words(self) -> str:
        """All of it, in a sentence."""
        rest = "; ".join(f"{n} left out: {why}" for why, n in self.left.items())
        return f"{self.replies} replies are in the store" + (f"; {rest}" if rest else "")


def import_log(
    store: Store,
    log: Path,
    conversations: Iterable[tuple[str, Conversation]],
    rules: Sequence[Watched],
    policy: str,
    drawing: Drawing | None = None,
    salt: bytes | None = None,
) -> Imported:
    """Keep the replies of conversations with the decisions of an audit log.

    Args:
        store: The review store.
        log: The audit log.
        conversations: Each with the id that it had when the log was written.
        rules: Of the policy that decided (`recording.watched`).
        policy: Its identity; records of another policy are left out.
        drawing: How replies are drawn and how long they are kept, from now on.
        salt: Of the log, where it was begun with one of its own.

    Raises:
        AuditError: the log cannot be read, or not with this salt.
        ReviewError: no conversation is one of the log's.
    """
    by_conversation: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for body in _bodies(log):
        by_conversation[str(body["conversation"])].append(body)
    found, known = Imported(), 0
    with AuditLog(log, salt=salt) as opened:
        for name, conversation in conversations:
            records = by_conversation.get(opened.hashed(name), [])
            places = [i for i, message in enumerate(conversation.messages) if message.role == "assistant"]
            known += bool(records)
            if not records:
                found.left["not in the log under this id"] += len(places)
            elif len(records) != len(places):
                found.left["the log holds another number of decisions about the conversation"] += len(places)
            else:
                for place, body in zip(places, records, strict=True):
                    upto = Conversation(conversation.messages[: place + 1])
                    _take(store, name, upto, body, rules, policy, drawing or Drawing(), found)
    if not known:
        raise ReviewError(f"{log} holds none of these conversations; give them with the ids ('id') that they had when it was written")
    return found


def _take(
    store: Store, name: str, conversation: Conversation, body: dict[str, Any], rules: Sequence[Watched], policy: str, drawing: Drawing,
    found: Imported,
) -> None:  # fmt: skip
    if body["policy"] != policy:
        found.left[f"decided by policy {body['policy']}, not {policy}"] += 1
    elif withholds(body["taken"]) and not body.get("trial"):
        found.left["replaced when it was decided about, so that the transcript does not hold it"] += 1
    else:
        keep(
            store,
            Decided(
                decision=known_by(store, conversation, name),
                conversation_id=name,
                conversation=conversation,
                action=body["recommended"],
                verdicts=from_log(body, rules),
                policy=policy,
                vectors=body["vectors"],
                scores={trait: z for trait, z in body["scores"].items() if z is not None},
                not_scored=body["not_scored"],
            ),
            drawing,
        )
        found.replies += 1


def _bodies(log: Path) -> list[dict[str, Any]]:
    """The decisions of a log whose chain holds."""
    found = []
    for state, body in checked(log):
        if not state.whole:
            raise AuditError(f"{log}: record {state.broken} does not hold ({state.problem}); see demeanor audit verify")
        found += [body] if body is not None and "event" not in body else []
    return found
