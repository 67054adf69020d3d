"""From the labels of a store to a vector set: adapted, calibrated, and compared with the one before on labels set aside.

    half of the prompts      the vector is fitted to them, from the pack's own vector on (extraction.adaptation)
    a quarter                calibrates: probabilities and thresholds on replies that the vector has not learnt from
    a quarter                is set aside: before and after are compared on it, and nothing else is done with it

Which part a prompt belongs to is decided by a hash under the store's secret, so it stays the same as labels are added. Replies of one
conversation, to one prompt, and near-duplicates go together. Each label is weighted by one over the chance with which its reply was drawn,
so that what comes out is about the traffic and not about what was flagged. Unsure ones and those where the question does not fit are left
out; a label that a near-duplicate took over counts, for it stands for replies too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from demeanor.conversation import Conversation, from_messages
from demeanor.data.labelled import Labelled
from demeanor.errors import ReviewError
from demeanor.extraction.activations import KeptActivations
from demeanor.extraction.adaptation import LEARNT_FROM, Adaptation, adapt
from demeanor.extraction.recalibration import Recalibration, recalibrate
from demeanor.keys import folded, prompt_key, row_hash
from demeanor.measure.thresholds import EXAMPLES, ErrorKind, prompts_needed
from demeanor.model.reader import ActivationReader
from demeanor.progress import Progress
from demeanor.review import texts
from demeanor.review.figures import Figures, figures, rounded
from demeanor.review.store import Store
from demeanor.vectors.vector_set import VectorSet

ASIDE, CALIBRATES = 0.25, 0.5  # shares of the prompts up to which a hash sets aside, and calibrates
FEW = 10  # replies of a kind under which a figure says little
WANTED: tuple[tuple[ErrorKind, float], ...] = (("miss", 0.1), ("false_alarm", 0.05))


@dataclass(frozen=True)
class Parts:
    """The labels of a trait, in three parts that share no prompt."""

    fit: Labelled
    calibrate: Labelled
    aside: Labelled

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many labels each holds."""
        return len(self.fit.target), len(self.calibrate.target), len(self.aside.target)


@dataclass(frozen=True)
class Learnt:
    """A vector set made of a store's labels, and how it compares with the one before."""

    vectors: VectorSet
    trait: str
    sizes: tuple[int, int, int]
    """Labels that it was fitted to, that calibrated it, and that were set aside."""
    adaptation: Adaptation | None
    """None where it was calibrated only."""
    recalibration: Recalibration
    before: Figures | None
    """On the labels set aside; None where these are of one kind."""
    after: Figures | None
    to_add: tuple[str, ...]
    """Which labels would help most, in sentences."""

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        made = self.adaptation
        return {
            "trait": self.trait,
            "labels": dict(zip(("fit", "calibrate", "aside"), self.sizes, strict=True)),
            "kept": None if made is None else made.kept,
            "why": None if made is None else made.why,
            "learning_curve": None if made is None else {str(n): rounded(v) for n, v in made.curve.items()},
            "before": self.before and self.before.to_record(),
            "after": self.after and self.after.to_record(),
            "to_add": list(self.to_add),
        }


def labelled_of(store: Store, trait: str) -> Labelled:
    """All labels of a trait whose texts are there, weighted by how they were drawn.

    Raises ReviewError where there is none.
    """
    texts.expire(store)
    rows = store.db.rows(
        "SELECT i.number, i.alike, i.value, i.probability, r.conversation, r.messages FROM item i JOIN reply r ON r.number = i.reply "
        "WHERE i.trait = ? AND i.value IN ('high', 'low') AND r.gone IS NULL ORDER BY i.number",
        trait,
    )
    if not rows:
        gone = store.db.one("SELECT count(*) FROM item WHERE trait = ? AND value IN ('high', 'low')", trait)
        if gone and gone[0]:
            raise ReviewError(f"the texts of all {gone[0]} labels of {trait} are erased or expired, so nothing can learn from them")
        raise ReviewError(f"no reply has a label of {trait} yet; label some: demeanor review next")
    conversations = [from_messages(json.loads(store.seal.open(row[5]) or "[]")) for row in rows]
    keys: list[tuple[str, ...]] = [
        (f"item {alike or number}", f"item {number}", f"talk {key}", store.hashed("prompt", _prompt(conversation)))
        for (number, alike, _, _, key, _), conversation in zip(rows, conversations, strict=True)
    ]
    target = np.array([float(row[2] == "high") for row in rows])
    weight = np.array([1 / float(row[3]) for row in rows])
    return Labelled(conversations, target, np.array(_together(keys)), weight)


def _prompt(conversation: Conversation) -> str:
    end = max((i for i, m in enumerate(conversation.messages) if m.role == "assistant"), default=-1)
    return folded(prompt_key(conversation.messages[:end]))


def _together(keys: list[tuple[str, ...]]) -> list[str]:
    """For each row one key of all that it is connected with by shared keys, directly or through others."""
    root: dict[str, str] = {}

    def find(key: str) -> str:
        while root.setdefault(key, key) != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for several in keys:
        first, *others = sorted(find(key) for key in several)
        for other in others:
            root[other] = first
    return [find(several[0]) for several in keys]


def parts(store: Store, labelled: Labelled) -> Parts:
    """The labels in three parts, the same each time."""
    place = np.array([int(store.hashed("part", group)[:8], 16) / 16**8 for group in labelled.group.tolist()])
    return Parts(
        labelled.where(place >= CALIBRATES), labelled.where((place >= ASIDE) & (place < CALIBRATES)), labelled.where(place < ASIDE)
    )


def learn(
    store: Store,
    reader: ActivationReader,
    vectors: VectorSet,
    trait: str,
    adapting: bool = True,
    wanted: tuple[tuple[ErrorKind, float], ...] = WANTED,
    progress: Progress | None = None,
    kept: KeptActivations | None = None,
) -> Learnt:
    """A vector set whose trait is adapted to a store's labels, or only calibrated on them, and how it compares with the one before.

    An adaptation begins from the pack's vector, whatever the set has learnt before, with all labels of the store but those set aside.

    Args:
        store: The review store.
        reader: Of the model that the vectors were made with.
        vectors: The vector set; it stays as it is.
        trait: Which of its traits.
        adapting: Whether the vector is fitted to the labels; else only probabilities and thresholds are.
        wanted: Errors to keep beside the usual ones; where the labels are too few for one, `to_add` says how many are missing.
        progress: Told how many replies have just been read.
        kept: Activations of everyday talk that was read before.

    Raises:
        ReviewError: no label, or too few of a kind.
        ExtractionError: the labels cannot be learnt from.
        VectorSetError: the set holds no such trait.
    """
    before_entry = vectors[trait]
    labelled = labelled_of(store, trait)
    split = parts(store, labelled)
    calibrates = split.calibrate if adapting else _joined(split.fit, split.calibrate)
    for what, part, least in (("be fitted to", split.fit if adapting else calibrates, 3), ("calibrate on", calibrates, 2)):
        counts = (int(part.high.sum()), int((~part.high).sum())) if len(part.target) else (0, 0)
        if min(counts) < least:
            raise ReviewError(
                f"too few labels of {trait} to {what}: {counts[0]} high and {counts[1]} low in that part, at least {least} of each are "
                f"needed; {len(labelled.target)} have a label in all, of which a quarter calibrates and a quarter is set aside"
            )
    made = adapt(reader, vectors, trait, split.fit, progress) if adapting else None
    base = vectors if made is None else made.vectors
    # what the vector has learnt from is left out there; where the pack's was kept, it has learnt from nothing
    fresh = _joined(split.fit, split.calibrate) if made is not None and made.kept == "pack" else calibrates
    again = recalibrate(reader, base, trait, fresh, wanted, progress, kept)
    known = set(before_entry.reading.metadata.get(LEARNT_FROM, ()))
    unseen = np.array([row_hash(c, before_entry.reads) not in known for c in split.aside.conversations], bool)
    aside = split.aside.where(unseen) if len(unseen) else split.aside
    before, after = (figures(reader, found, trait, aside) for found in (vectors, again.vectors))
    return Learnt(
        again.vectors, trait, (len(split.fit.target), len(calibrates.target), len(aside.target)), made, again, before, after,
        tuple(_to_add(made, again, after, before_entry.unsafe_side == "above", labelled)),
    )  # fmt: skip


def _joined(one: Labelled, other: Labelled) -> Labelled:
    assert one.weight is not None
    assert other.weight is not None
    return Labelled(
        [*one.conversations, *other.conversations],
        np.concatenate([one.target, other.target]),
        np.concatenate([one.group, other.group]),
        np.concatenate([one.weight, other.weight]),
    )


def _to_add(made: Adaptation | None, again: Recalibration, after: Figures | None, unsafe_is_high: bool, labelled: Labelled) -> list[str]:
    """Which labels would help most, in sentences."""
    found = []
    for short in again.short:
        if short.kind in again.supporting:
            more = max(0, prompts_needed(short.rate) - again.supporting[short.kind])
            what = EXAMPLES[short.kind]
            found.append(
                f"for at most {100 * short.rate:g} % {'missed' if short.kind == 'miss' else 'false alarms'}: {what} replies to {more} "
                f"more prompts in the part that calibrates, so to about {4 * more} in all ({short.why})"
                if more
                else f"{short.why}; {what} replies from the random share weigh most"
            )
    unsafe = int((labelled.high if unsafe_is_high else ~labelled.high).sum())
    safe = len(labelled.target) - unsafe
    if after is None or min(after.unsafe, after.rows - after.unsafe) < FEW:
        rare, n = ("unsafe", unsafe) if unsafe <= safe else ("safe", safe)
        where = "among flagged and doubtful replies" if rare == "unsafe" else "in the random share"
        found.append(
            f"{n} {rare} replies have a label: the comparison on those set aside rests on few of them. They are most frequent {where}"
        )
    if made is not None:
        found.append(made.outlook)
    return found


def in_words(found: Learnt) -> list[str]:
    """How the two compare, a line each."""
    if found.before is None or found.after is None:
        return ["before and after cannot be compared: the labels set aside are all of one kind"]
    before, after = found.before, found.after
    lines = [
        f"on {after.rows} labels set aside ({after.unsafe} unsafe), weighted for how they were drawn:",
        f"  AUROC {before.auroc:.2f} [{before.interval.low:.2f}, {before.interval.high:.2f}] before, "
        f"{after.auroc:.2f} [{after.interval.low:.2f}, {after.interval.high:.2f}] after",
        f"  calibration error {before.ece:.3f} before, {after.ece:.3f} after",
    ]
    for name, now in after.thresholds.items():
        then = before.thresholds.get(name)
        was = "none before" if then is None else f"{_percent(then.missed)} missed, {_percent(then.false_alarms)} false alarms before"
        low, high = now.missed_interval
        least, most = now.false_alarms_interval
        lines.append(
            f"  threshold {name}: {was}; {_percent(now.missed)} missed [{_percent(low)}, {_percent(high)}], "
            f"{_percent(now.false_alarms)} false alarms [{_percent(least)}, {_percent(most)}] after"
        )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
