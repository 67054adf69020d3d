"""What a saved vector set may hold, field by field: everything that is read later is checked here, once, on loading.

A vector set may come from a stranger, and hashes made anew prove nothing. So every number that a score, a decision or a
report rests on has its type and its bounds; what is not known is let by, as a later version may have added it. Calibrations and proofs
are checked by their own types.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from demeanor.errors import DamagedVectorSetError
from demeanor.language import ENGLISH
from demeanor.measure.calibration import Calibration
from demeanor.measure.checked import Checked, Count, Share
from demeanor.measure.conditions import ConditionsField
from demeanor.measure.cuts import Action
from demeanor.measure.poles import Pole, unsafe_side
from demeanor.measure.proof import PairCount, Proof
from demeanor.model.pooling import Pooling
from demeanor.model.templates import LONGEST
from demeanor.traits.definition import NAME, Span

Layer = Annotated[int, Field(ge=0, lt=2**31)]
RowHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .+-]{0,63}$")]


class _AdaptedAuroc(Checked):
    value: Share
    low: Share
    high: Share


class _Adapted(Checked):
    rows: Count
    prompts: Count
    auroc: _AdaptedAuroc
    pack_auroc: Share | None = None


class _JoinedSet(Checked):
    """A public labelled set that a vector has learnt from."""

    rows: Count
    licence: str
    upstream: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Sources(Checked):
    """What public sets brought a trait: those that joined its training."""

    joined: dict[str, _JoinedSet] = Field(default_factory=dict)


class _About(Checked):
    """Metadata of a vector: whatever is plain data, but what is read is what it says it is."""

    method: Word = "unknown"
    layers: Annotated[list[Layer], Field(min_length=1, default_factory=lambda: [0])]
    centre: float = 0.0  # of a tutorial file; a set's vectors take theirs from the calibration
    reads: Span = "response"
    pooling: Pooling = "mean"
    layer_curve: dict[PairCount, Share] = Field(default_factory=dict)
    adapted: _Adapted | None = None
    sources: _Sources | None = None
    tried: _Adapted | None = None
    learnt_from: list[RowHash] = Field(default_factory=list)
    labels_given: list[RowHash] = Field(default_factory=list)
    floor: float = 0.0
    ceiling: float = 0.0
    doses: dict[Pole, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _layers_differ(self) -> _About:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("a layer stands twice")
        return self


class VectorRecord(Checked):
    """A vector less its direction, which is a tensor."""

    layer_idx: Layer
    strength: Annotated[float, Field(ge=0)]
    metadata: _About

    @property
    def layers(self) -> list[int]:
        """The layers that it is read at."""
        return self.metadata.layers if "layers" in self.metadata.model_fields_set else [self.layer_idx]


class OwnRecord(VectorRecord):
    """The pack's vector of a trait that was adapted, with what was measured of it."""

    calibration: Calibration
    metrics: Proof | None = None


class _Trait(Checked):
    title: str
    description: str
    high_pole: str
    low_pole: str
    safe_pole: Pole
    reads: Span
    pack_hash: str
    metrics: Proof | None
    reading: VectorRecord
    steering: VectorRecord
    applies_when: ConditionsField = ()
    not_scored: Action = "flag"
    judged_whole: bool = False
    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")] = ENGLISH
    own: OwnRecord | None = None

    @model_validator(mode="before")
    @classmethod
    def _conditions_or_none(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("applies_when", True):
            raise ValueError("'applies_when' holds nothing; it is left out where the trait always counts")
        return value

    @model_validator(mode="before")
    @classmethod
    def _measured_or_empty(cls, value: Any) -> Any:
        if isinstance(value, dict) and "metrics" in value:
            if value["metrics"] is None:
                raise ValueError("'metrics' holds nothing; it is an object, empty where nothing was measured")
            if value["metrics"] == {}:
                return {**value, "metrics": None}
        return value


class _Model(Checked):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str
    architecture: str
    layers: Annotated[int, Field(ge=1, lt=2**31)]
    hidden_size: Annotated[int, Field(ge=1, lt=2**31)]
    fingerprint: str
    template_hash: str
    dtype: str
    quantization: str
    blocks: str = ""
    adapter: str = ""
    template: Annotated[str, StringConstraints(max_length=LONGEST)] = ""


class SetManifest(Checked):
    """manifest.json, with calibration.json beside it."""

    format_version: Annotated[int, Field(ge=1)]
    created: str
    model: _Model
    pooling: Pooling
    versions: dict[str, str]
    files: dict[str, str]
    order: Annotated[list[str], Field(min_length=1)]
    traits: dict[str, _Trait]
    calibrations: dict[str, Calibration]
    made_from: dict[str, str] = Field(default_factory=dict)
    dtypes: dict[str, dict[str, float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _belongs_together(self) -> SetManifest:
        if len(set(self.order)) != len(self.order) or set(self.order) != set(self.traits):
            raise ValueError("'order' does not name each trait once")
        for name in self.order:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a trait name: use lower-case letters, digits, '_' and '-'")
            if name not in self.calibrations:
                raise ValueError(f"{name} has no calibration")
            side = unsafe_side(self.traits[name].safe_pole)
            for key, threshold in self.calibrations[name].thresholds.items():
                if threshold.unsafe_side != side:
                    raise ValueError(
                        f"{name}: the threshold {key!r} takes {threshold.unsafe_side} for unsafe, and the safe pole is the other"
                    )
        return self


def check_manifest(manifest: Mapping[str, Any], calibrations: Any, where: str) -> SetManifest:
    """The manifest and the calibrations, each field of the type and within the bounds that it has. Raises DamagedVectorSetError."""
    try:
        return SetManifest.model_validate({**manifest, "calibrations": calibrations})
    except ValidationError as error:
        raise DamagedVectorSetError(f"{where}: the vector set is inconsistent ({in_a_line(error)}); extract it again") from error


def in_a_line(error: ValidationError) -> str:
    """The first thing that is wrong, with the place of it."""
    first = error.errors(include_url=False, include_input=True)[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    seen = first["input"]
    shown = "" if isinstance(seen, dict | list) or first["type"] in ("missing", "value_error") else f", not {_short(seen)}"
    return f"{place}: {reason[0].lower()}{reason[1:]}{shown}" if place else reason


def parse_json(text: str) -> Any:
    """JSON as it is defined: no NaN, no number beyond a float, no key twice. Raises ValueError, also where it is nested too deeply."""
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_once)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair has no place in any file
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
