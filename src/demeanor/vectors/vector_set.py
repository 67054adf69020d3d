"""The vector set: the directions of a model's traits, their calibration, and where they came from.

For each trait there are two vectors. The *reading* vector is what scores are made with; the *steering* vector is the
mean difference at one layer, the tutorial's. They may differ in layer and method; both are named in their metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from demeanor.errors import CutError, VectorSetError, WrongModelError, nearest
from demeanor.measure.conditions import Condition
from demeanor.measure.cuts import find_cut
from demeanor.model.identity import ModelIdentity
from demeanor.model.pooling import Pooling
from demeanor.notebook import Marked, table
from demeanor.traits.contexts import context_name, topic_name
from demeanor.vectors import storage
from demeanor.vectors.entry import TraitEntry
from demeanor.vectors.persona_vector import layer_words

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SHOWN = 12  # traits that a repr names


@dataclass
class VectorSet:
    """The traits of one model, ready to score with."""

    model: ModelIdentity
    traits: dict[str, TraitEntry]
    pooling: Pooling = "mean"
    neutral_norm: Tensor = field(default_factory=lambda: torch.zeros(0))
    """Median norm of the activations of everyday replies' tokens at each layer [layers]; relative steering doses refer to it."""
    neutral_scale: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """Spread of each dimension within a pole over all packs' training examples [layers, hidden]; adaptation scales by it."""
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    """What made it beside packs and model: "recipe", the extraction's settings, and "ordinary", the hash of the everyday talk."""
    dtypes: dict[str, dict[str, float]] = field(default_factory=dict)
    """Other dtypes in which it was compared with its own: "replies", "largest_z" and "median_z" (moves of a z), "decisions" (changed)."""

    def __getitem__(self, trait: str) -> TraitEntry:
        if trait not in self.traits:
            raise VectorSetError(f"the vector set holds no trait {trait!r}; {nearest(trait, self.traits)}")
        return self.traits[trait]

    @property
    def languages(self) -> frozenset[str]:
        """The languages that its traits were made from."""
        return frozenset(entry.language for entry in self.traits.values())

    @property
    def layers(self) -> list[int]:
        """All layers that its reading vectors need, ascending."""
        return sorted({layer for entry in self.traits.values() for layer in entry.reading.layers})

    def plot_layers(self) -> go.Figure:
        """The layer curves of all traits as one Plotly figure, which names those without. Raises VectorSetError if none has one."""
        vectors = {name: entry.reading for name, entry in self.traits.items()}
        if not any(vector.curve() for vector in vectors.values()):
            raise VectorSetError("no trait of this vector set has a layer curve; extract from pairs of at least three families")
        from demeanor.vectors.curves import layer_figure

        return layer_figure(vectors)

    def to_frame(self) -> pd.DataFrame:
        """One row a trait: where it is read and steered, how well it is told apart (NaN: not measured), its safe pole."""
        import pandas as pd

        rows = {
            name: {
                "layers": layer_words(entry.reading.layers).split(" ", 1)[1],
                "method": entry.reading.metadata.get("method", "unknown"),
                "auroc": entry.measured.auroc,
                "auroc_low": entry.measured.low,
                "auroc_high": entry.measured.high,
                "measured_on": entry.measured.on,
                "safe_pole": entry.safe_pole,
                "reads": entry.reads,
                "steered_at": entry.steering.layer_idx,
                "strength": entry.steering.strength,
            }
            for name, entry in self.traits.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trait")

    def __repr__(self) -> str:
        m = self.model
        width, count = max(map(len, self.traits), default=0), len(self.traits)
        lines = [f"  {name:<{width}}  {entry._words}" for name, entry in list(self.traits.items())[:SHOWN]]
        if count > SHOWN:
            lines.append(f"  and {count - SHOWN} more")
        made = f", made {self.created}" if self.created else ""
        return "\n".join(
            [f"VectorSet of {m.name} ({m.dtype}), {count} trait{'' if count == 1 else 's'}, pooling {self.pooling}{made}", *lines]
        )

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        shown = list(self.traits.items())[:SHOWN]
        rows = [
            (name, layer_words(entry.reading.layers), str(entry.measured), Marked(entry.safe_pole, safe=True), entry.reads)
            for name, entry in shown
        ]
        note = f"and {len(self.traits) - SHOWN} more" if len(self.traits) > SHOWN else ""
        return table(repr(self).split("\n", 1)[0], rows, ("trait", "read at", "held-out results", "safe pole", "reads"), note)

    def only(self, names: Iterable[str]) -> VectorSet:
        """The same set with these traits only."""
        return replace(self, traits={n: self[n] for n in names})

    def fingerprint(self, thresholds: bool = True) -> str:
        """A hash over all that scores depend on, and, with `thresholds`, decisions too: 24 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.model.fingerprint} {self.pooling}".encode())
        for name, entry in self.traits.items():
            calibration = {k: v for k, v in entry.calibration.to_record().items() if thresholds or k != "thresholds"}
            facts: list[Any] = [name, entry.reads, entry.safe_pole, list(entry.reading.layers), calibration]
            facts += [when.model_dump(exclude_none=True) for when in entry.applies_when]
            digest.update(json.dumps(facts, sort_keys=True).encode())
            digest.update(entry.reading.direction.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:24]

    @property
    def contexts(self) -> dict[str, str]:
        """Traits that only say when another counts, learnt from its contexts and replies: by name, which other."""
        own = {name: (context_name(name), topic_name(name)) for name in self.traits}
        return {when.trait: name for name, entry in self.traits.items() for when in entry.applies_when if when.trait in own[name]}

    @property
    def judged(self) -> list[str]:
        """The traits of replies that are judged for themselves: not those that only say when another counts."""
        contexts = self.contexts
        return [name for name, entry in self.traits.items() if entry.reads == "response" and name not in contexts]

    def conditions(self, trait: str) -> tuple[Condition, ...]:
        """When a trait counts, with numbers; none: always, or the set does not hold the traits that would say.

        Raises:
            CutError: another trait is not read on the user's messages, or its calibration holds no such threshold.
        """
        found = []
        for when in self[trait].applies_when:
            if when.trait not in self.traits:
                continue
            entry = self[when.trait]
            if entry.reads != "user" and when.trait != topic_name(trait):
                raise CutError(
                    f"{trait} applies by {when.trait}, which is read on replies; one that is read on the user's messages is needed"
                )
            cut = find_cut(when.threshold, when.trait, entry.calibration, entry.safe_pole, when.unsafe, f"set for {trait}")
            found.append(Condition(when.trait, cut, when.last_turns, when.slope, entry.reads))
        return tuple(found)

    def check_model(self, model: ModelIdentity, allow_other: bool = False) -> list[str]:
        """Refuse a model that these vectors were not made with.

        Returns warnings: for another dtype, unless the set was compared in it, and, where the user has allowed it aloud, for
        another model or template.

        Raises:
            WrongModelError: another model or chat template, and `allow_other` is not set.
        """
        mine, problems, warnings = self.model, [], []
        if model.fingerprint != mine.fingerprint:
            problems.append(
                f"another model: they were made with {mine.name} ({mine.fingerprint[:8]}), loaded is {model.name} ({model.fingerprint[:8]})"
            )
        elif model.adapter != mine.adapter:
            problems.append(f"another adapter: {mine.adapter[:8] or 'none'} then, {model.adapter[:8] or 'none'} now")
        if model.quantization != mine.quantization:
            problems.append(f"another quantisation: {mine.quantization} then, {model.quantization} now")
        if model.template_hash != mine.template_hash:
            problems.append("another chat template")
        if problems and not allow_other:
            raise WrongModelError(
                f"the vectors belong to {'; '.join(problems)}. Extract vectors for this model, or allow it (--allow-other-model)"
            )
        if (model.hidden_size, model.layers) != (mine.hidden_size, mine.layers):
            raise WrongModelError(
                f"the vectors are for {mine.layers} layers of width {mine.hidden_size}, the model has {model.layers} of "
                f"{model.hidden_size}; the vectors of one do not fit the other"
            )
        warnings += problems
        if model.dtype != mine.dtype and model.dtype not in self.dtypes:
            warnings.append(f"made in {mine.dtype}, read in {model.dtype}: scores may move a little")
        return warnings

    def save(self, folder: str | Path) -> Path:
        """Write the set to a folder; see storage.save."""
        return storage.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> VectorSet:
        """Read a set from a folder, checked; see storage.load."""
        return cls(**storage.load(Path(folder)))
