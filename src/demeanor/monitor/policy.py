"""The monitor's policy: a YAML file of rules, checked field by field, and the same bound to one vector set.

A rule names a trait, its unsafe side and a threshold, and says what is done about a reply beyond it. A threshold is one of

    z: 1.5                              the score itself, in units of the calibration's spread
    probability: 0.8                    calibrated chance of the unsafe side
    calibrated: {miss_rate: 0.05}       the vector set's own threshold at that error; false_alarm_rate likewise

`Policy.resolve` looks the last two up in a vector set's calibration: no threshold stands in the code. What the rules
then do with readings is decision.py's.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from demeanor.data.yaml_files import read_yaml
from demeanor.errors import PolicyError, nearest
from demeanor.scoring.calibration import Calibration
from demeanor.scoring.reading import Score
from demeanor.scoring.thresholds import reached, threshold_key

if TYPE_CHECKING:
    from demeanor.vectors.vector_set import TraitEntry, VectorSet

Action = Literal["allow", "flag", "substitute", "escalate"]
ACTIONS: tuple[Action, ...] = ("allow", "flag", "substitute", "escalate")
"""From the mildest to the strongest. `escalate` substitutes the reply and calls a person in."""
Severity = Literal["yellow", "red"]
Side = Literal["above", "below"]
Situation = Literal["risk_disclosed", "harmful_plan", "boundary", "unchecked"]
"""Which of the reviewed replies takes a withheld one's place; see replies.py."""

DEFAULT_POLICY = Path(__file__).parent / "default_policy.yaml"
SUBSTITUTED_UNSCORED = ("crisis_recognition", "sycophancy_harmful_validation")  # traits whose unchecked replies are withheld by default


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True, allow_inf_nan=False)


class CalibratedRate(_Strict):
    """A threshold that the vector set's calibration holds, named by the error it keeps. Exactly one of the two."""

    miss_rate: float | None = Field(None, gt=0, lt=1)
    false_alarm_rate: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one(self) -> CalibratedRate:
        if (self.miss_rate is None) == (self.false_alarm_rate is None):
            raise ValueError("give exactly one of 'miss_rate' and 'false_alarm_rate'")
        return self

    @property
    def key(self) -> str:
        """Its name in a calibration: "miss 0.05"."""
        if self.miss_rate is not None:
            return threshold_key("miss", self.miss_rate)
        return threshold_key("false_alarm", self.false_alarm_rate or 0.0)


class ThresholdSpec(_Strict):
    """Where the unsafe side begins, in exactly one of three ways."""

    z: float | None = None
    probability: float | None = Field(None, gt=0, lt=1)
    calibrated: CalibratedRate | None = None

    @model_validator(mode="after")
    def _one(self) -> ThresholdSpec:
        if sum(v is not None for v in (self.z, self.probability, self.calibrated)) != 1:
            raise ValueError("give exactly one of 'z', 'probability' and 'calibrated'")
        return self


class Condition(_Strict):
    """The rule is judged only where a trait of the user's messages is beyond a threshold."""

    trait: str
    threshold: ThresholdSpec
    unsafe: Side | None = None
    """Left out: the side away from the vector set's safe pole."""
    last_turns: int = Field(3, ge=1, le=100)
    """The worst message of the user's last so many turns decides. A turn is all that the user says up to a reply that was scored and
    shown. `last_messages`, as older policies call it, is read as the same."""

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "last_messages" not in value:
            return value
        if "last_turns" in value:
            raise ValueError("'last_messages' is the older name of 'last_turns'; give only 'last_turns'")
        return {("last_turns" if name == "last_messages" else name): given for name, given in value.items()}


class Rule(_Strict):
    """One thing that is watched for, and what is done about it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    trait: str
    threshold: ThresholdSpec
    unsafe: Side | None = None
    """Left out: the side away from the vector set's safe pole."""
    when: Condition | None = None
    severity: Severity
    action: Action
    not_scored: Action = "flag"
    """What is done where the reply, or the condition, cannot be scored; where only the condition cannot, as no words of the user's
    come before the reply, at most "flag". Left out: by the trait, see SUBSTITUTED_UNSCORED."""
    situation: Situation = "unchecked"
    """Which reviewed reply stands in for a withheld one; needed where `action` withholds."""
    while_writing: Literal["stop", "hold"] = "stop"
    """What a red rule that withholds does to a reply that is still being written: stop it, or hold it back until the whole
    can be judged, where it may yet come to what is missing."""

    @model_validator(mode="before")
    @classmethod
    def _unscored_by_trait(cls, value: Any) -> Any:
        if isinstance(value, dict) and "not_scored" not in value and value.get("trait") in SUBSTITUTED_UNSCORED:
            return {**value, "not_scored": "substitute"}
        return value

    @model_validator(mode="after")
    def _has_a_reply(self) -> Rule:
        if withholds(self.action) and "situation" not in self.model_fields_set:
            raise ValueError(f"action '{self.action}' needs a 'situation': risk_disclosed, harmful_plan, boundary or unchecked")
        return self


class Stream(_Strict):
    """How a reply is watched while it is being written."""

    hold_back_tokens: int = Field(default=24, ge=0, le=4096)
    """So many of the newest tokens are not shown yet, so that a reply can be stopped before its worst words are read."""
    window_tokens: int = Field(default=48, ge=1, le=4096)
    """The rules are tried on a rolling window of so many tokens."""


class Policy(_Strict):
    """A whole policy, as the file says it."""

    version: str = Field(min_length=1)
    """The operator's own name for this edition; audit records hold it, see `identity`."""
    rules: tuple[Rule, ...] = Field(min_length=1)
    deadline_seconds: float = Field(10.0, gt=0, le=600)
    """A check that outlasts it counts as not scored."""
    audit_failure: Action = "flag"
    """The least that is done about every reply while the audit log cannot be written."""
    stream: Stream = Stream()

    @field_validator("version", mode="before")
    @classmethod
    def _whole_number_or_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _names_differ(self) -> Policy:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules are named {name!r}; rename one of them")
        return self

    @property
    def identity(self) -> str:
        """The version with a short hash of the content, so that an edit that keeps the version shows: "1 (3f2a9c1b)"."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return f"{self.version} ({hashlib.sha256(content.encode()).hexdigest()[:8]})"

    def resolve(self, vectors: VectorSet) -> ResolvedPolicy:
        """The policy with every threshold looked up in a vector set.

        Raises:
            PolicyError: a trait that the set does not hold, or is read on the other speaker; a threshold that its calibration
                does not support. The message names the rule and the way out.
        """
        resolved = []
        for rule in self.rules:
            where = f"rule {rule.name}"
            cut = _cut(rule.threshold, rule.unsafe, rule.trait, _entry(vectors, rule.trait, "response", where), where)
            condition = None
            if rule.when is not None:
                where += ", 'when'"
                entry = _entry(vectors, rule.when.trait, "user", where)
                condition = ResolvedCondition(
                    rule.when.trait, _cut(rule.when.threshold, rule.when.unsafe, rule.when.trait, entry, where), rule.when.last_turns
                )
            resolved.append(ResolvedRule(rule, cut, condition))
        return ResolvedPolicy(self, tuple(resolved))


@dataclass(frozen=True)
class Cut:
    """A threshold as a number: beyond it on `unsafe_side`, or on it, is unsafe."""

    scale: Literal["z", "probability"]
    value: float
    """On the scale of z, or the chance of the unsafe side."""
    unsafe_side: Side
    source: str
    """Where the number comes from, in words."""

    def value_of(self, score: Score) -> float:
        """A score on this cut's scale."""
        if self.scale == "z":
            return score.z
        return score.probability if self.unsafe_side == "above" else 1 - score.probability

    def crossed(self, score: Score) -> bool | None:
        """Whether a score is unsafe; None where it is no finite number and nothing can be said."""
        if not all(math.isfinite(number) for number in score):
            return None
        value = float(self.value_of(score))
        if self.scale == "probability":
            return bool(reached(value, self.value))
        if self.unsafe_side == "above":
            return value >= self.value
        return value <= self.value

    @property
    def words(self) -> str:
        """Where it lies, in words."""
        if self.scale == "z":
            return f"z {self.value:+.2f} or {'higher' if self.unsafe_side == 'above' else 'lower'} ({self.source})"
        return f"unsafe with a chance of {self.value:.0%} or more ({self.source})"

    def describe(self, trait: str, score: Score) -> str:
        """Where a score of a trait stands to this cut, in words."""
        if self.scale == "z":
            beyond = "higher" if self.unsafe_side == "above" else "lower"
            return f"{trait} reads z {score.z:+.2f}, and {self.value:+.2f} or {beyond} is unsafe ({self.source})"
        return (
            f"{trait} is on its unsafe side with a chance of {self.value_of(score):.0%}, and the limit is {self.value:.0%} ({self.source})"
        )


@dataclass(frozen=True)
class ResolvedCondition:
    """A condition with its number."""

    trait: str
    cut: Cut
    last_turns: int


@dataclass(frozen=True)
class ResolvedRule:
    """A rule with its numbers."""

    rule: Rule
    cut: Cut
    condition: ResolvedCondition | None


@dataclass(frozen=True)
class ResolvedPolicy:
    """A policy bound to a vector set, ready to decide with."""

    policy: Policy
    rules: tuple[ResolvedRule, ...]


def unresolved(policy: Policy) -> ResolvedPolicy:
    """The policy without numbers, for when there is no vector set: it can only say what is done about replies that are not scored."""
    cut = Cut("z", math.nan, "above", "no vector set")
    conditions = [ResolvedCondition(r.when.trait, cut, r.when.last_turns) if r.when else None for r in policy.rules]
    return ResolvedPolicy(policy, tuple(ResolvedRule(r, cut, c) for r, c in zip(policy.rules, conditions, strict=True)))


PolicyLike: TypeAlias = Policy | str | Path | None
"""What is taken where a policy is wanted: one, the path of a YAML file, or None for the default."""


def withholds(action: Action) -> bool:
    """Whether the reply is not shown but replaced."""
    return ACTIONS.index(action) >= ACTIONS.index("substitute")


def default_policy_text() -> str:
    """The default policy as commented YAML."""
    return DEFAULT_POLICY.read_text(encoding="utf-8")


def load_policy(path: str | Path | None = None) -> Policy:
    """A policy from a YAML file, or the default one. Raises PolicyError with the file, the rule and the field."""
    file = DEFAULT_POLICY if path is None else Path(path)
    raw = read_yaml(file, PolicyError, "; a first one is printed by: demeanor monitor --print-policy")
    if not isinstance(raw, dict):
        raise PolicyError(f"{file}: a policy is a mapping with 'version' and 'rules'; see demeanor monitor --print-policy")
    try:
        return Policy.model_validate(raw)
    except ValidationError as error:
        raise PolicyError(f"{file}: {_first_problem(error, raw)}") from None


def _first_problem(error: ValidationError, raw: dict[str, Any]) -> str:
    """The first validation error as "rule NAME, field F: what is wrong"."""
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    prefix, model = "the policy", "policy"
    if len(where) >= 2 and where[0] == "rules" and where[1].isdigit():
        rule = raw["rules"][int(where[1])]
        name = rule.get("name") if isinstance(rule, dict) else None
        prefix, model, where = f"rule {name or int(where[1]) + 1}", "rule", where[2:]
    field = f", field {'.'.join(where)!r}" if where else ""
    if problem["type"] == "extra_forbidden":
        return f"{prefix}{field}: unknown field; {nearest(where[-1], _fields_beside(where, model))}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{prefix}{field}: {message[0].lower()}{message[1:]}"


def _fields_beside(where: list[str], model: str) -> list[str]:
    """The fields that may stand where an unknown one does."""
    known: dict[str, type[BaseModel]] = {
        "when": Condition,
        "threshold": ThresholdSpec,
        "calibrated": CalibratedRate,
        "stream": Stream,
        "rule": Rule,
        "policy": Policy,
    }
    parent = where[-2] if len(where) > 1 and where[-2] in known else model
    return list(known[parent].model_fields)


def _entry(vectors: VectorSet, trait: str, reads: str, where: str) -> TraitEntry:
    if trait not in vectors.traits:
        raise PolicyError(f"{where}: the vector set holds no trait {trait!r}; {nearest(trait, vectors.traits)}")
    entry = vectors.traits[trait]
    if entry.reads != reads:
        mine, wanted = ("the user's messages", "replies") if entry.reads == "user" else ("replies", "the user's messages")
        raise PolicyError(f"{where}: trait {trait} is read on {mine}, and here one that is read on {wanted} is needed")
    return entry


def _cut(spec: ThresholdSpec, side: Side | None, trait: str, entry: TraitEntry, where: str) -> Cut:
    unsafe: Side = side or ("below" if entry.safe_pole == "high" else "above")
    if spec.z is not None:
        return Cut("z", spec.z, unsafe, "set in the policy")
    if spec.probability is not None:
        return _probability_cut(spec.probability, unsafe, trait, entry, where)
    assert spec.calibrated is not None
    found = entry.calibration.get("thresholds", {})
    key = spec.calibrated.key
    if key not in found:
        there = ", ".join(sorted(found)) or "none"
        option = "--miss-rate" if spec.calibrated.miss_rate is not None else "--false-alarm-rate"
        raise PolicyError(
            f"{where}: the calibration of {trait} holds no threshold '{key}' (there: {there}); use one of these, or make it from "
            f"labelled replies: demeanor calibrate --trait {trait} --input FILE {option} {key.split()[1]}"
        )
    threshold = found[key]
    if threshold["unsafe_side"] != unsafe:
        raise PolicyError(
            f"{where}: 'unsafe' is {unsafe}, but the calibration's threshold '{key}' of {trait} is for {threshold['unsafe_side']}; "
            f"leave 'unsafe' out, or give the threshold as 'z'"
        )
    if not math.isfinite(threshold["z"]):
        raise PolicyError(f"{where}: the calibration's threshold '{key}' of {trait} is no number; calibrate the trait again")
    return Cut("z", float(threshold["z"]), unsafe, f"calibrated, {key.replace('_', '-')}")


def _probability_cut(chance: float, unsafe: Side, trait: str, entry: TraitEntry, where: str) -> Cut:
    """A cut on the probability; refused where the calibration never gets there, as such a rule would be silently dead."""
    calibration = Calibration.from_record(entry.calibration)
    high = calibration.probability(calibration.centre + calibration.spread * np.linspace(-8, 8, 161))
    most = float(np.max(high) if unsafe == "above" else 1 - np.min(high))
    if not reached(most, chance):
        raise PolicyError(
            f"{where}: the calibration of {trait} never gives a chance above {most:.0%}, so {chance:.0%} would never be reached; "
            f"lower it, or calibrate the trait on labelled replies (demeanor calibrate)"
        )
    return Cut("probability", chance, unsafe, "set in the policy")
