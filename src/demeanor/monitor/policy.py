"""The monitor's policy: a YAML file of rules, checked field by field, and the same bound to one vector set.

A rule names a trait, its unsafe side and a threshold, and says what is done about a reply beyond it. A threshold is one of

    z: 1.5                              the score itself, in units of the calibration's spread
    probability: 0.8                    calibrated chance of the unsafe side
    calibrated: {miss_rate: 0.05}       the vector set's own threshold at that error; false_alarm_rate and ordinary_rate likewise

`Policy.resolve` looks the last two up in a vector set's calibration: no threshold is written in the code. outcome.py applies the rules.
The fields, their checks and their binding are one thing: a message about a policy names the field by the name that it has here.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator, model_validator

from demeanor.data.yaml_files import read_yaml
from demeanor.errors import CutError, PolicyError, nearest
from demeanor.measure.calibration import Calibration
from demeanor.measure.conditions import AppliesWhen, Condition, ConditionsField
from demeanor.measure.cuts import Action, CalibratedRate, Cut, Strict, ThresholdSpec, find_cut, renamed, withholds
from demeanor.measure.poles import Side
from demeanor.traits.contexts import topic_name

if TYPE_CHECKING:
    from demeanor.vectors.entry import TraitEntry
    from demeanor.vectors.vector_set import VectorSet

Severity = Literal["yellow", "red"]
Situation = Literal["risk_disclosed", "harmful_plan", "boundary", "unchecked"]
"""Which of the reviewed replies takes a withheld one's place; see replies.py."""

GUARDED, REVIEW_ONLY = "guarded", "review-only"
BUILT_IN = (GUARDED, REVIEW_ONLY)
"""Policies that are known by name: the default, which withholds, and the same rules where they only flag."""
DEFAULT_POLICY = Path(__file__).parent / "default_policy.yaml"


class Rule(Strict):
    """One thing that is watched for, and what is done about it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    trait: str
    threshold: ThresholdSpec
    unsafe: Side | None = None
    """Left out: the side away from the vector set's safe pole."""
    when: Literal["always"] | ConditionsField = ()
    """One condition, or several that must all hold. Left out: where the vector set says that the trait applies. "always": everywhere,
    whatever that says."""
    severity: Severity
    action: Action
    not_scored: Action | None = None
    """What is done where the reply, or the condition, cannot be scored; where only the condition cannot, as no words of the user's
    come before the reply, at most "flag". Left out: what the vector set says of the trait."""
    situation: Situation = "unchecked"
    """Which reviewed reply stands in for a withheld one; needed where `action` withholds."""
    while_writing: Literal["stop", "hold"] = "stop"
    """What a red rule that withholds does to a reply that is still being written: stop it, or hold it back until the whole
    can be judged, where it may yet come to what is missing."""

    @model_validator(mode="after")
    def _has_a_reply(self) -> Rule:
        if withholds(self.action) and "situation" not in self.model_fields_set:
            raise ValueError(f"action '{self.action}' needs a 'situation': risk_disclosed, harmful_plan, boundary or unchecked")
        return self


class Stream(Strict):
    """How a reply is watched while it is being written."""

    hold_back_words: int = Field(default=24, ge=0, le=4096)
    """So many of the newest words are not shown yet, so that a reply can be stopped before its worst ones are read. Older policies
    call it `hold_back_tokens`."""
    window_tokens: int = Field(default=48, ge=1, le=4096)
    """The rules are tried on a rolling window of so many tokens."""

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, value: Any) -> Any:
        return renamed(value, "hold_back_tokens", "hold_back_words")


class Policy(Strict):
    """A whole policy, as the file says it."""

    version: str = Field(min_length=1)
    """The operator's own name for this edition; audit records hold it, see `identity`."""
    rules: tuple[Rule, ...] = Field(min_length=1)
    deadline_seconds: float = Field(default=10.0, gt=0, le=600)
    """A check that outlasts it counts as not scored."""
    audit_failure: Action = "flag"
    """The least that is done about every reply while the audit log cannot be written."""
    stream: Stream = Stream()
    replies: dict[str, str] = Field(default_factory=dict)
    """Files of reviewed replies and help lines for users who write in other languages, e.g. {"es": "replies-es.yaml"}; see replies.py."""
    _folder: Path = PrivateAttr(default=Path())

    @field_validator("replies", mode="before")
    @classmethod
    def _norwegian(cls, value: Any) -> Any:
        if isinstance(value, dict) and False in value:  # as YAML reads an unquoted no
            raise ValueError('an unquoted no is false in YAML; write "no" in quotes for Norwegian')
        return value

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
    def withholds(self) -> bool:
        """Whether anything that it says withholds a reply; what the vector set says of unscored ones is another thing."""
        return any(withholds(action) for rule in self.rules for action in (rule.action, rule.not_scored or "allow"))

    @property
    def reply_files(self) -> dict[str, Path]:
        """The files of `replies`; a relative path starts at the policy's own folder."""
        return {code: self._folder / file for code, file in self.replies.items()}

    @property
    def identity(self) -> str:
        """The version with a short hash of the content, so that an edit that keeps the version shows: "1 (3f2a9c1b)"."""
        content = json.dumps(self.model_dump(mode="json", exclude=None if self.replies else {"replies"}), sort_keys=True)
        return f"{self.version} ({hashlib.sha256(content.encode()).hexdigest()[:8]})"

    def resolve(self, vectors: VectorSet) -> ResolvedPolicy:
        """The policy with every threshold looked up in a vector set.

        Raises:
            PolicyError: a trait that the set does not hold, or is read on the other speaker; a threshold that its calibration
                does not support. The message names the rule and the way out.
        """
        return ResolvedPolicy(self, tuple(_resolve(rule, vectors) for rule in self.rules))


@dataclass(frozen=True)
class ResolvedRule:
    """A rule with its numbers."""

    rule: Rule
    cut: Cut
    conditions: tuple[Condition, ...]
    not_scored: Action
    """What is done about a reply that could not be scored."""
    calibration: Calibration | None = None
    """The trait's, by which a soft condition eases scores; None where there is no vector set."""


@dataclass(frozen=True)
class ResolvedPolicy:
    """A policy bound to a vector set, ready to decide with."""

    policy: Policy
    rules: tuple[ResolvedRule, ...]

    @property
    def opening(self) -> str:
        """What is to be said of it before it judges anything; empty where it withholds replies, as one expects."""
        if any(withholds(action) for r in self.rules for action in (r.rule.action, r.not_scored)):
            return ""
        return (
            f"policy {self.policy.version} withholds nothing: every reply is shown. What it flags, and what could not be scored, is for "
            "people to read"
        )


def unresolved(policy: Policy) -> ResolvedPolicy:
    """The policy without numbers, for when there is no vector set: it can only say what is done about replies that are not scored."""
    cut = Cut("z", math.nan, "above", "no vector set")
    rules = []
    for rule in policy.rules:
        conditions = tuple(Condition(when.trait, cut, when.last_turns, when.slope) for when in rule.when if isinstance(when, AppliesWhen))
        rules.append(ResolvedRule(rule, cut, conditions, rule.not_scored or "substitute"))  # nobody can say how bad it would be
    return ResolvedPolicy(policy, tuple(rules))


PolicyLike: TypeAlias = Policy | str | Path | None
"""What is taken where a policy is wanted: one, the name of a built-in one, the path of a YAML file, or None for "guarded"."""


def default_policy_text() -> str:
    """The default policy, "guarded", as commented YAML."""
    return policy_text(GUARDED)


def policy_text(name: str) -> str:
    """A built-in policy as commented YAML. Raises PolicyError for a name that none has."""
    guarded = DEFAULT_POLICY.read_text(encoding="utf-8")
    if name == GUARDED:
        return guarded
    if name != REVIEW_ONLY:
        raise PolicyError(f"no built-in policy is named {name!r}; {nearest(name, BUILT_IN)}")
    head, rules = guarded.split("\nversion:", 1)
    _, _, explained = head.partition("\n#\n")
    flags = re.sub(r"^(\s+(?:action|not_scored): )(?:substitute|escalate)$", r"\1flag", rules.partition("\n")[2], flags=re.MULTILINE)
    return f'{_REVIEW_ONLY_HEAD}{explained}\nversion: "{REVIEW_ONLY} 1"\n{flags}'


_REVIEW_ONLY_HEAD = """# The policy "review-only": the rules of "guarded", and all that they do is flag. Nothing is withheld, and a reply
# that could not be scored is flagged too. For the first weeks, while people read what it flags; then go on to "guarded".
#
"""


def load_policy(path: str | Path | None = None) -> Policy:
    """A policy from a YAML file or by its name, "guarded" if none is given. Raises PolicyError with the file, the rule and the field.

    A file that is named like a built-in policy is given as a Path, or with its folder (./guarded).
    """
    if path == REVIEW_ONLY:
        return policy_from(policy_text(REVIEW_ONLY), REVIEW_ONLY)
    file = DEFAULT_POLICY if path is None or path == GUARDED else Path(path)
    known = f"; a first one is printed by: demeanor monitor --print-policy; built in by name: {', '.join(BUILT_IN)}"
    policy = _validated(read_yaml(file, PolicyError, known), str(file))
    if policy.replies:
        policy._folder = file.parent
    return policy


def policy_from(text: str, name: str) -> Policy:
    """A policy from its text, such as a version keeps; `name` is what messages call it. Raises PolicyError as `load_policy` does."""
    return _validated(yaml.safe_load(text), name)


def _validated(raw: Any, name: str) -> Policy:
    if not isinstance(raw, dict):
        raise PolicyError(f"{name}: a policy is a mapping with 'version' and 'rules'; see demeanor monitor --print-policy")
    try:
        return Policy.model_validate(raw)
    except ValidationError as error:
        raise PolicyError(f"{name}: {_first_problem(error, raw)}") from None


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
        "when": AppliesWhen,
        "threshold": ThresholdSpec,
        "calibrated": CalibratedRate,
        "stream": Stream,
        "rule": Rule,
        "policy": Policy,
    }
    parent = where[-2] if len(where) > 1 and where[-2] in known else model
    return list(known[parent].model_fields)


def _resolve(rule: Rule, vectors: VectorSet) -> ResolvedRule:
    where = f"rule {rule.name}"
    entry = _entry(vectors, rule.trait, "response", where)
    always = rule.when == "always"
    try:
        cut = find_cut(rule.threshold, rule.trait, entry.calibration, entry.safe_pole, rule.unsafe, always=always)
        where += ", 'when'"
        own = tuple(_condition(rule.trait, when, vectors, where) for when in rule.when if isinstance(when, AppliesWhen))
        conditions = () if always else own or vectors.conditions(rule.trait)
    except CutError as error:
        raise PolicyError(f"{where}: {error}") from error
    return ResolvedRule(rule, cut, conditions, rule.not_scored or entry.not_scored, entry.calibration)


def _condition(trait: str, when: AppliesWhen, vectors: VectorSet, where: str) -> Condition:
    entry = _entry(vectors, when.trait, "response" if when.trait == topic_name(trait) else "user", where)
    cut = find_cut(when.threshold, when.trait, entry.calibration, entry.safe_pole, when.unsafe)
    return Condition(when.trait, cut, when.last_turns, when.slope, entry.reads)


def _entry(vectors: VectorSet, trait: str, reads: str, where: str) -> TraitEntry:
    if trait not in vectors.traits:
        raise PolicyError(f"{where}: the vector set holds no trait {trait!r}; {nearest(trait, vectors.traits)}")
    entry = vectors.traits[trait]
    if entry.reads != reads:
        mine, wanted = ("the user's messages", "replies") if entry.reads == "user" else ("replies", "the user's messages")
        raise PolicyError(f"{where}: trait {trait} is read on {mine}, and here one that is read on {wanted} is needed")
    return entry
