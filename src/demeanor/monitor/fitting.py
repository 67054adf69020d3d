"""A policy fitted to what a vector set supports: which calibrated thresholds its rules ask for, which are there, what is taken instead.

A rule asks for a threshold at a stated error; labelled replies support it only if they are enough (measure/thresholds.py). Where they
are not, the nearest threshold that they do support takes its place, with what it costs beside it, so that few labels end in a monitor
and not in a refusal. The numbers are the calibration's; nothing is loosened in silence.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from demeanor.errors import PolicyError, nearest
from demeanor.measure.calibration import Calibration
from demeanor.measure.conditions import AppliesWhen
from demeanor.measure.cuts import AtRate, CalibratedRate, ThresholdSpec, supported, withholds
from demeanor.measure.thresholds import EXAMPLES, ErrorKind, Threshold, prompts_needed
from demeanor.monitor.policy import Policy, Rule

if TYPE_CHECKING:
    from demeanor.vectors.vector_set import VectorSet

Prompts = Mapping[ErrorKind, int]
"""To how many prompts the labelled replies belong that support each kind of error: the unsafe ones, the safe ones."""
WIDTH = 120  # of comments


@dataclass(frozen=True)
class Need:
    """A calibrated threshold that a rule asks for, and what the vector set has of it."""

    rule: str
    trait: str
    """Whose calibration is asked: the rule's trait, or that of its condition."""
    wanted: AtRate
    found: Threshold | None
    """The threshold itself where it is there, else the nearest one; None where the calibration holds none at all."""
    measured: bool = True
    """Whether the trait is calibrated at all, so that half-way between its poles means something."""
    have: int | None = None
    """Prompts with labelled replies of the kind that counts; None where that is not known."""

    @property
    def there(self) -> bool:
        """Whether the threshold that is asked for is there."""
        return self.found is not None and self.found.key == self.wanted.key

    @property
    def missing(self) -> int | None:
        """How many more prompts are needed with such replies; None where nobody knows how many there are."""
        return None if self.have is None else max(0, prompts_needed(self.wanted.rate) - self.have)

    @property
    def words(self) -> str:
        """All of it, in a sentence."""
        asked = f"rule {self.rule} asks {self.trait} for at most {_named(self.wanted)}"
        if self.there and self.found is not None:
            return f"{asked}: it is there ({self.found.halves})"
        return f"{asked}: not there; {self._lack}. {self._instead}"

    @property
    def _lack(self) -> str:
        kind, needed = EXAMPLES[self.wanted.kind], prompts_needed(self.wanted.rate)
        if self.have is None:
            return f"it takes {kind} replies to {needed} prompts"
        if not self.missing:
            return "it was not asked for when the trait was calibrated"
        return f"{self.missing} more prompts with {kind} replies are needed ({needed} in all, {self.have} there)"

    @property
    def _instead(self) -> str:
        if self.found is None and self.measured:
            return "No other threshold is there: half-way between the poles, z 0, where a reply is only flagged"
        if self.found is None:
            return f"{self.trait} is not calibrated, so nothing can take its place"
        return f"The nearest: {self.found.halves}"


@dataclass(frozen=True)
class Fitted:
    """A policy that a vector set supports."""

    policy: Policy | None
    """None where not one rule is left."""
    needs: tuple[Need, ...]
    left_out: tuple[str, ...]
    """Rules without any threshold to stand on, which are not in the policy: what they watched for is not watched."""

    def text(self, title: str) -> str:
        """As YAML with comments. Raises PolicyError where no rule is left."""
        if self.policy is None:
            raise PolicyError("no rule of the policy has a usable threshold; calibrate its traits on labelled replies first")
        notes: dict[str, list[str]] = {}
        for need in self.needs:
            notes.setdefault(need.rule, []).append(need.words + ".")
        head = [title, *(f"LEFT OUT, and so not watched for: rule {name}. {' '.join(notes[name])}" for name in self.left_out)]
        return as_yaml(self.policy, head, notes)


def needs(policy: Policy, vectors: VectorSet, have: Mapping[str, Prompts] | None = None) -> list[Need]:
    """Every calibrated threshold that the rules ask of the set's traits, in the policy's order.

    `have` says, by trait, how many prompts its sample holds of each kind, where that is known better than from its thresholds. Rules of
    traits that the set does not hold are passed over; `Policy.resolve` names them.
    """
    found = []
    for rule in policy.rules:
        for trait, spec in _asked(rule, vectors):
            if spec.calibrated is None:
                continue
            calibration = vectors[trait].calibration
            for wanted in spec.calibrated.each:
                known = (have or {}).get(trait, {}).get(wanted.kind, _prompts(calibration, wanted.kind))
                near = supported(wanted, calibration, withholds(rule.action))
                found.append(Need(rule.name, trait, wanted, near, calibration.measured, known))
    return found


def fitted(policy: Policy, vectors: VectorSet, have: Mapping[str, Prompts] | None = None) -> Fitted:
    """The policy with the nearest supported threshold wherever the one that it asks for is not there.

    Where a calibration supports none, the cut lies half-way between the poles, and the rule no more than flags.
    """
    wanted = needs(policy, vectors, have)
    rules, left_out = [], []
    for rule in policy.rules:
        of = [need for need in wanted if need.rule == rule.name]
        if any(need.found is None and not need.measured for need in of):
            left_out.append(rule.name)
            continue
        made = rule
        for trait in dict.fromkeys(need.trait for need in of if not need.there):
            spec = _nearest([need for need in of if need.trait == trait])
            made = _with(made, trait, spec, vectors)
            made = made.model_copy(update={"action": "flag"}) if spec.calibrated is None and withholds(made.action) else made
        rules.append(made)
    changed = [need for need in wanted if not need.there]
    whole = policy.model_copy(update={"rules": tuple(rules)} | ({"version": f"{policy.version}, fitted"} if changed else {}))
    return Fitted(whole if rules else None, tuple(wanted), tuple(left_out))


def by_hand(policy: Policy, rule: str, z: float, version: str | None = None) -> Policy:
    """The policy with one rule's threshold set by hand, as a new edition of it: "2, harmful at z +1.50", or the name that is given.

    Raises PolicyError for a rule that it does not have, and a threshold that is no number.
    """
    if rule not in [one.name for one in policy.rules]:
        raise PolicyError(f"policy {policy.version} has no rule {rule!r}; {nearest(rule, [one.name for one in policy.rules])}")
    if not math.isfinite(z):
        raise PolicyError(f"a threshold is a number, not {z}")
    spec = ThresholdSpec(z=round(z, 4))
    rules = tuple(one.model_copy(update={"threshold": spec}) if one.name == rule else one for one in policy.rules)
    plain = re.sub(rf"(, {re.escape(rule)} at z [+-][0-9.]+)+$", "", policy.version)
    return policy.model_copy(update={"rules": rules, "version": version or f"{plain}, {rule} at z {z:+.2f}"})


def as_yaml(policy: Policy, head: list[str], notes: Mapping[str, list[str]]) -> str:
    """A policy as YAML that loads again, with comments at its head and above its rules."""
    record = policy.model_dump(mode="json", exclude_unset=True)
    if policy.replies:  # the file that this is written to may lie in another folder
        record["replies"] = {code: str(file.resolve()) for code, file in policy.reply_files.items()}
    rules = record.pop("rules")
    version = record.pop("version")
    lines = [*_comment(head), "", *_fields({"version": version}), "", "rules:"]
    for rule in rules:
        first, *rest = _fields(rule)
        lines += [*_comment(notes.get(rule["name"], []), "  "), f"  - {first}", *(f"    {line}" for line in rest), ""]
    return "\n".join([*lines, *_fields(record)]).rstrip() + "\n"


def _asked(rule: Rule, vectors: VectorSet) -> list[tuple[str, ThresholdSpec]]:
    """The traits that a rule asks for a threshold: its own, and those of its conditions."""
    if rule.trait not in vectors.traits:
        return []
    conditions = [when for when in _conditions(rule, vectors) if when.trait in vectors.traits]
    return [(rule.trait, rule.threshold), *((when.trait, when.threshold) for when in conditions)]


def _conditions(rule: Rule, vectors: VectorSet) -> tuple[AppliesWhen, ...]:
    if rule.when == "always":
        return ()
    return rule.when or vectors[rule.trait].applies_when


def _nearest(needs: list[Need]) -> ThresholdSpec:
    """What takes the place of a threshold: the nearest of each kind that it names, else one of another kind, else the middle."""
    found = [(need.wanted.kind, need.found) for need in needs if need.found is not None]
    same = [threshold for kind, threshold in found if threshold.kind == kind]
    if not found:
        return ThresholdSpec(z=0.0)
    return ThresholdSpec(calibrated=CalibratedRate.of(*(same or [found[0][1]])))


def _with(rule: Rule, trait: str, spec: ThresholdSpec, vectors: VectorSet) -> Rule:
    """The rule with another threshold of the trait, or of its condition's."""
    if trait == rule.trait:
        return rule.model_copy(update={"threshold": spec})
    changed = [when.model_copy(update={"threshold": spec}) if when.trait == trait else when for when in _conditions(rule, vectors)]
    return rule.model_copy(update={"when": tuple(changed)})


def _prompts(calibration: Calibration, kind: ErrorKind) -> int | None:
    """How many prompts the sample holds of a kind, as far as a threshold that rests on them says."""
    return max((t.prompts for t in calibration.thresholds.values() if t.kind == kind), default=None)


def _named(rate: AtRate) -> str:
    what = {"miss": "missed", "false_alarm": "false alarms", "ordinary": "of everyday replies"}
    return f"{100 * rate.rate:.3g} % {what[rate.kind]}"


def _fields(record: Mapping[str, Any]) -> list[str]:
    """A mapping, a line for each field."""
    return [f"{name}: {_flow(value)}" for name, value in record.items()]


def _flow(value: Any) -> str:
    """A value in YAML, in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return str(text).removesuffix("...\n").strip()


def _comment(lines: list[str], indent: str = "") -> list[str]:
    return [f"{indent}# {part}" for line in lines for part in textwrap.wrap(line, WIDTH - len(indent) - 2)]
