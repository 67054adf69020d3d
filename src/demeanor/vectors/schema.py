"""What a saved vector set may hold, field by field: everything that is read later is checked here, once, on loading.

A vector set may come from a stranger, and hashes made anew prove nothing. So every number that a score, a decision or a
report rests on has its type and its bounds; what is not known is let by, as a later version may have added it. Calibrations are checked by
their shape alone: the scoring room, above this one, gives them their meaning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from demeanor.errors import DamagedVectorSetError
from demeanor.model.pooling import Pooling
from demeanor.traits.definition import NAME, Pole, Span

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Layer = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .+-]{0,63}$")]


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")


class _Measured(_Checked):
    value: Share
    low: Share
    high: Share
    pairs: Count


class _Group(_Checked):
    value: Share | None
    low: Share | None
    high: Share | None
    pairs: Count

    @model_validator(mode="after")
    def _whole(self) -> _Group:
        if len({part is None for part in (self.value, self.low, self.high)}) > 1:
            raise ValueError("value, low and high are there together, or none of them is")
        return self


class _Auroc(_Checked):
    auroc: Share


class _Chance(_Checked):
    mean: Share
    p97_5: Share
    p: Share = 0.0


class _Scores(_Checked):
    high: list[float]
    low: list[float]


class _Flagged(_Checked):
    missed: Share | None
    false_alarms: Share


class _Ordinary(_Checked):
    auroc: Share
    n: Count
    false_alarms: dict[str, Share]


class _Metrics(_Checked):
    """Held-out results, as validation gives them and as cards, tables and reports read them."""

    auroc: _Measured
    paired_accuracy: _Measured
    cohens_d: float
    length: _Auroc
    words: _Auroc
    random: _Chance
    permutation: _Chance
    hard: _Group
    registers: dict[str, _Group]
    families: dict[str, _Group]
    beats_baselines: bool
    verdict: str
    style_shift: dict[str, _Measured] = {}
    learning_curve: dict[Number, Share] = {}
    thresholds: dict[str, _Flagged] = {}
    scores: _Scores = _Scores(high=[], low=[])
    ordinary: _Ordinary | None = None
    ece: Share = 0.0
    brier: Share = 0.0

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_null(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("ordinary", 0) is None:
            raise ValueError("'ordinary' holds nothing")
        return value


class _AdaptedAuroc(_Checked):
    value: Share
    low: Share
    high: Share


class _Adapted(_Checked):
    rows: Count
    prompts: Count
    auroc: _AdaptedAuroc
    pack_auroc: Share | None = None


class _About(_Checked):
    """Metadata of a vector: whatever is plain data, but what is read is what it says it is."""

    method: Word = "unknown"
    layers: Annotated[list[Layer], Field(min_length=1)] = [0]
    centre: float = 0.0
    reads: Span = "response"
    pooling: Pooling = "mean"
    layer_curve: dict[Number, Share] = {}
    adapted: _Adapted | None = None
    learnt_from: list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")]] = []
    floor: float = 0.0
    ceiling: float = 0.0
    doses: dict[Pole, float] = {}

    @model_validator(mode="after")
    def _layers_differ(self) -> _About:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("a layer stands twice")
        return self


class VectorRecord(_Checked):
    """A vector less its direction, which is a tensor."""

    layer_idx: Layer
    strength: Annotated[float, Field(ge=0)]
    metadata: _About

    @property
    def layers(self) -> list[int]:
        """The layers that it is read at."""
        return self.metadata.layers if "layers" in self.metadata.model_fields_set else [self.layer_idx]


class _Trait(_Checked):
    title: str
    description: str
    high_pole: str
    low_pole: str
    safe_pole: Pole
    reads: Span
    pack_hash: str
    metrics: _Metrics | None
    reading: VectorRecord
    steering: VectorRecord

    @model_validator(mode="before")
    @classmethod
    def _measured_or_empty(cls, value: Any) -> Any:
        if isinstance(value, dict) and "metrics" in value:
            if value["metrics"] is None:
                raise ValueError("'metrics' holds nothing; it is an object, empty where nothing was measured")
            if value["metrics"] == {}:
                return {**value, "metrics": None}
        return value


class _Threshold(_Checked):
    z: float
    unsafe_side: Literal["below", "above"]
    kind: Literal["miss", "false_alarm"]
    rate: Annotated[float, Field(gt=0, lt=1)]
    n: Count = 0
    prompts: Count = 0
    observed_miss: Share = 0.0
    observed_false_alarm: Share = 0.0
    guarantee: str = ""


class _Parts(_Checked):
    model_config = ConfigDict(extra="forbid")

    mean: float
    spread: Annotated[float, Field(gt=0)]
    whole_mean: float
    whole_spread: Annotated[float, Field(gt=0)]
    n: Count


class _Calibration(_Checked):
    model_config = ConfigDict(extra="forbid")  # each number of it decides; one that is not known here may change what the others mean

    centre: float
    spread: Annotated[float, Field(gt=0)]
    method: Literal["platt", "isotonic"]
    points: Annotated[list[Annotated[list[float], Field(min_length=2, max_length=2)]], Field(min_length=1)]
    n_high: Count
    n_low: Count
    source: str
    thresholds: dict[str, _Threshold] = {}
    parts: _Parts | None = None

    @model_validator(mode="after")
    def _rises(self) -> _Calibration:
        if self.method == "platt":
            if len(self.points) != 1:
                raise ValueError(f"'platt' has one point, slope and intercept, not {len(self.points)}")
            if self.points[0][0] < 0:
                raise ValueError(f"the probability falls with the score (slope {self.points[0][0]:g})")
            return self
        if not all(0 <= probability <= 1 for _, probability in self.points):
            raise ValueError("a probability of its points lies outside 0 to 1")
        pairs = zip(self.points, self.points[1:], strict=False)
        if any(before[0] > after[0] or before[1] > after[1] for before, after in pairs):
            raise ValueError("its points do not rise")
        return self

    @model_validator(mode="after")
    def _named_for_what_they_keep(self) -> _Calibration:
        for name, threshold in self.thresholds.items():
            if name != f"{threshold.kind} {threshold.rate:g}":
                raise ValueError(f"the threshold {name!r} is one for {threshold.kind} {threshold.rate:g}")
        return self


class _Model(_Checked):
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


class Manifest(_Checked):
    """manifest.json, with calibration.json beside it."""

    format_version: Annotated[int, Field(ge=1)]
    created: str
    model: _Model
    pooling: Pooling
    versions: dict[str, str]
    files: dict[str, str]
    order: Annotated[list[str], Field(min_length=1)]
    traits: dict[str, _Trait]
    calibrations: dict[str, _Calibration]
    made_from: dict[str, str] = {}
    dtypes: dict[str, dict[str, float]] = {}

    @model_validator(mode="after")
    def _belongs_together(self) -> Manifest:
        if len(set(self.order)) != len(self.order) or set(self.order) != set(self.traits):
            raise ValueError("'order' does not name each trait once")
        for name in self.order:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no trait name: lower-case letters, digits, '_' and '-' make one")
            if name not in self.calibrations:
                raise ValueError(f"{name} has no calibration")
            side = "below" if self.traits[name].safe_pole == "high" else "above"
            for key, threshold in self.calibrations[name].thresholds.items():
                if threshold.unsafe_side != side:
                    raise ValueError(
                        f"{name}: the threshold {key!r} takes {threshold.unsafe_side} for unsafe, and the safe pole is the other"
                    )
        return self


def check_manifest(manifest: Mapping[str, Any], calibrations: Any, where: str) -> Manifest:
    """The manifest and the calibrations, each field of the type and within the bounds that it has. Raises DamagedVectorSetError."""
    try:
        return Manifest.model_validate({**manifest, "calibrations": calibrations})
    except ValidationError as error:
        raise DamagedVectorSetError(f"{where}: the vector set does not hold together ({in_a_line(error)}); extract it again") from error


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
