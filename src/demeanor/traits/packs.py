"""Reading trait packs: YAML files, the built-in ones and a user's own.

A pack is one YAML file for one trait; a folder of them is several. Files are read with YAML's safe loader and checked
field by field; an error names the file, the pair and the field. The format stands in docs/writing-a-trait.md.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from demeanor.conversation import ROLES, Message
from demeanor.data.yaml_files import read_yaml
from demeanor.errors import TraitError, nearest
from demeanor.language import ENGLISH
from demeanor.measure.conditions import ConditionsField
from demeanor.measure.cuts import Action
from demeanor.measure.poles import Pole
from demeanor.traits.definition import NAME, ContrastPair, Span, Split, TraitDefinition

BUILT_IN = Path(__file__).parent / "packs"
EXAMPLES = Path(__file__).parent / "examples"
TUTORIAL_TRAITS = (
    "empathetic_responsiveness",
    "crisis_recognition",
    "sycophancy_harmful_validation",
    "boundary_maintenance",
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class _Pair(_Strict):
    id: str = ""
    family: str = ""
    register_: str = Field("", alias="register")
    failure: str = ""
    hard: bool = False
    context: list[dict[str, str]] = Field(default_factory=list)
    high: str = Field(min_length=1)
    low: str = Field(min_length=1)

    @field_validator("context", mode="before")
    @classmethod
    def _one_message_may_be_plain(cls, value: Any) -> Any:
        return [{"user": value}] if isinstance(value, str) else value

    @field_validator("context")
    @classmethod
    def _known_roles(cls, value: list[dict[str, str]]) -> list[dict[str, str]]:
        for message in value:
            if len(message) != 1 or next(iter(message)) not in ROLES:
                raise ValueError("each message is one 'user: ...', 'assistant: ...' or 'system: ...'")
        return value


class _Pack(_Strict):
    name: str
    description: str = Field(min_length=1)
    title: str = ""
    high_pole: str = "high"
    low_pole: str = "low"
    safe_pole: Pole = "high"
    reads: Span = "response"
    ordinary_weight: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    hard_moments_weight: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    applies_when: Literal["always"] | ConditionsField = ()
    not_scored: Action = "flag"
    judged_whole: bool = False
    language: str = Field(ENGLISH, pattern=r"^[a-z]{2,3}$")
    families: dict[str, Split] = Field(default_factory=dict)
    pairs: list[_Pair] = Field(default_factory=list)
    high_trait_prompts: list[str] = Field(default_factory=list)
    low_trait_prompts: list[str] = Field(default_factory=list)


def names() -> list[str]:
    """The names of the built-in traits."""
    return sorted(p.stem for p in BUILT_IN.glob("*.yaml"))


def load(name_or_path: str | Path) -> TraitDefinition:
    """A built-in trait by its name, or a YAML file by its path. Raises TraitError."""
    text = str(name_or_path)
    if NAME.fullmatch(text) and (built_in := BUILT_IN / f"{text}.yaml").is_file():
        return read_pack(built_in)
    path = Path(name_or_path)
    if os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long for a path
        return read_pack(path)
    if os.path.isdir(path):
        raise TraitError(f"{path} is a folder; name one of its YAML files, or use load_many")
    raise TraitError(f"unknown trait {text!r}; {nearest(text, names())} (or give the path of a YAML file)")


def load_many(names_or_paths: Iterable[str | Path]) -> list[TraitDefinition]:
    """Several traits: names, files and folders, and "all" for every built-in one. No name may come twice."""
    found: list[TraitDefinition] = []
    for item in names_or_paths:
        if str(item) == "all":
            found += [load(name) for name in (*TUTORIAL_TRAITS, *(n for n in names() if n not in TUTORIAL_TRAITS))]
        elif os.path.isdir(item):
            files = sorted([*Path(item).glob("*.yaml"), *Path(item).glob("*.yml")])
            if not files:
                raise TraitError(f"{item}: the folder has no .yaml file")
            found += [read_pack(f) for f in files]
        else:
            found.append(load(item))
    for name, count in Counter(t.name for t in found).items():
        if count > 1:
            raise TraitError(f"trait {name} is given {count} times; rename one of them")
    return found


def read_pack(path: Path) -> TraitDefinition:
    """One YAML file as a TraitDefinition, checked."""
    raw = read_yaml(path, TraitError)
    if not isinstance(raw, dict):
        raise TraitError(f"{path}: a pack is a mapping with 'name', 'description' and 'pairs'; see docs/writing-a-trait.md")
    try:
        pack = _Pack.model_validate(raw)
    except ValidationError as error:
        raise TraitError(f"{path}: {_first_problem(error, raw)}") from None
    if not pack.pairs and not (pack.high_trait_prompts or pack.low_trait_prompts):
        raise TraitError(f"{path}: both poles are empty; write some 'pairs', each with 'high' and 'low'")
    try:
        return _definition(pack)
    except TraitError as error:
        raise TraitError(f"{path}: {error}") from None


def _definition(pack: _Pack) -> TraitDefinition:
    pairs = []
    for i, p in enumerate(pack.pairs):
        pair_id = p.id or f"pair-{i + 1}"
        if p.high == p.low:
            raise TraitError(f"pair {pair_id}: 'high' and 'low' are the same text; they must differ in the trait")
        context = tuple(Message(role, text) for m in p.context for role, text in m.items())  # type: ignore[arg-type]
        pairs.append(ContrastPair(pair_id, context, p.high, p.low, p.family or pair_id, p.register_, p.failure, p.hard))
    _refuse_duplicates(pairs)
    if pack.families:
        for pair in pairs:
            if pair.family not in pack.families:
                raise TraitError(f"pair {pair.id}: family {pair.family!r} has no split; {nearest(pair.family, pack.families)}")
        if not any(pack.families[p.family] == "train" for p in pairs):
            raise TraitError("no pair is in the train split; give at least one family to it")
    return TraitDefinition(
        name=pack.name,
        description=pack.description,
        high_trait_prompts=pack.high_trait_prompts,
        low_trait_prompts=pack.low_trait_prompts,
        pairs=tuple(pairs),
        splits=pack.families,
        title=pack.title,
        high_pole=pack.high_pole,
        low_pole=pack.low_pole,
        safe_pole=pack.safe_pole,
        reads=pack.reads,
        ordinary_weight=pack.ordinary_weight,
        hard_moments_weight=pack.hard_moments_weight,
        applies_when=pack.applies_when,
        not_scored=pack.not_scored,
        judged_whole=pack.judged_whole,
        language=pack.language,
    )


def _refuse_duplicates(pairs: list[ContrastPair]) -> None:
    seen_ids: set[str] = set()
    seen_texts: dict[tuple[tuple[Message, ...], str, str], str] = {}
    for pair in pairs:
        if pair.id in seen_ids:
            raise TraitError(f"pair {pair.id}: the id appears twice; give each pair its own")
        seen_ids.add(pair.id)
        first = seen_texts.setdefault((pair.context, pair.high, pair.low), pair.id)
        if first != pair.id:
            raise TraitError(f"pair {pair.id} repeats pair {first}; remove or rewrite one of them")


def _first_problem(error: ValidationError, raw: dict[str, Any]) -> str:
    """The first validation error as "pair ID, field F: what is wrong"."""
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    if len(where) >= 2 and where[0] == "pairs" and where[1].isdigit():
        pair = raw["pairs"][int(where[1])]
        pair_id = pair.get("id") if isinstance(pair, dict) else None
        prefix = f"pair {pair_id or int(where[1]) + 1}"
        where = where[2:]
    else:
        prefix = "the pack"
    named = f", field {'.'.join(where)!r}" if where else ""
    message = problem["msg"].removeprefix("Value error, ")
    return f"{prefix}{named}: {message[0].lower()}{message[1:]}"


def fingerprint(trait: TraitDefinition) -> str:
    """A hash over everything in a trait that a vector depends on; equal for equal content."""
    content = [
        [trait.name, trait.reads, trait.safe_pole, trait.ordinary_weight, trait.hard_moments_weight],
        sorted(trait.splits.items()),
        [[e.conversation.to_record(), e.high, e.pair_id, e.family] for e in trait.examples()],
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
