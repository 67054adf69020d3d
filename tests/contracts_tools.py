"""What the contracts in tests/contracts need of Demeanor beyond its top-level names: every import that a rebuild may move stands here."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
import yaml

from demeanor.audit.log import AuditLog
from demeanor.audit.records import AuditRecord
from demeanor.cli.main import app
from demeanor.errors import PolicyError
from demeanor.measure.cuts import ACTIONS
from demeanor.measure.parts import Parts
from demeanor.monitor.outcome import decide as decide_outcome
from demeanor.monitor.policy import Policy, load_policy
from demeanor.scoring import NotScored, Reading, Score
from demeanor.screening import LocalEngine, Options, screen
from demeanor.screening.shards import Manifest
from demeanor.vectors import built_in

__all__ = [
    "ACTIONS",
    "BUILT_IN",
    "GOLDENS",
    "AuditLog",
    "AuditRecord",
    "LocalEngine",
    "Options",
    "Outcome",
    "Parts",
    "PolicyError",
    "commands",
    "conversations",
    "decide",
    "equals_golden",
    "how_to_renew",
    "load_policy",
    "manifest_of",
    "masked",
    "numbers_of",
    "renewing",
    "screen",
    "without_colour",
]

BUILT_IN = built_in.FOLDER
HERE = Path(__file__).parent / "contracts"
GOLDENS = HERE / "goldens"
RENEW = "DEMEANOR_RENEW_GOLDENS"
SEVERITIES = (None, "yellow", "red")
WORST = "worst "


class Outcome(NamedTuple):
    """What a policy says, in plain data: its order is that from the mildest to the strongest."""

    action: int
    severity: int
    fired: tuple[str, ...] = ()
    not_scored: bool = False

    @property
    def strength(self) -> tuple[int, int]:
        """How strong it is, and how bad it calls the reply."""
        return self.action, self.severity


Scores = Mapping[str, tuple[float, float] | None] | None
"""z and probability by trait ("worst TRAIT": of its worst part), None for what is no number; None altogether: not scored."""


def _reading(scores: Scores) -> Reading | NotScored:
    if scores is None:
        return NotScored("planted")
    nan = float("nan")
    found = {name: Score(nan, nan, nan, nan) if s is None else Score(s[0], s[0], *s) for name, s in scores.items()}
    worst = {name.removeprefix(WORST): found.pop(name) for name in scores if name.startswith(WORST)}
    return Reading(found, dict.fromkeys(found, (1,)), "planted", worst=worst)


def decide(
    policy: Policy | Mapping[str, Any] | Path | None, vectors: Any, reply: Scores, user: Sequence[Scores | Sequence[Scores]] = ()
) -> Outcome:
    """What a policy (its YAML as plain data, a file of it, or the default) says about a reply, in plain data.

    `user` holds a reading for each turn of the user's, or several where they said several things in a row.
    """
    chosen = policy if isinstance(policy, Policy) else Policy.model_validate(policy) if isinstance(policy, Mapping) else load_policy(policy)
    turns = [[_reading(s) for s in said] if isinstance(said, list) else _reading(said) for said in user]  # type: ignore[arg-type]
    found = decide_outcome(chosen.resolve(vectors), _reading(reply), turns)
    return Outcome(ACTIONS.index(found.action), SEVERITIES.index(found.severity), found.fired, found.not_scored is not None)


def numbers_of(vectors: Any) -> dict[str, Any]:
    """By trait, how a vector set is read, and what it makes of activations that are 1, 2, 3 ... in every layer."""
    found = {}
    for trait, stored in vectors.traits.items():
        calibration = stored.calibration
        activations = torch.arange(1.0, stored.reading.rows.shape[1] + 1)
        raw = [round(float(row @ activations), 4) for row in stored.reading.rows]
        at = (-4.0, -0.5, 0.0, 0.5, 1.0, sum(raw), 8.0)
        found[trait] = {
            "reads": stored.reads,
            "safe_pole": stored.safe_pole,
            "layers": list(stored.reading.layers),
            "raw": raw,
            "z": [round(float(calibration.z(value)), 4) for value in at],
            "probability": [round(float(calibration.probability(value)), 4) for value in at],
            "thresholds": {name: (cut.z, cut.unsafe_side) for name, cut in calibration.thresholds.items()},
            "parts": calibration.parts.to_record() if calibration.parts else None,
            "learnt_from": stored.reading.metadata.get("learnt_from", []),
        }
    return found


def manifest_of(folder: Path) -> dict[str, Any]:
    """What is read of a screening's manifest."""
    found = Manifest.load(folder)
    assert found is not None
    return {"pins": found.pins, "rows": found.rows, "schema": found.schema.to_string(), "shards": len(found.cuts)}


def commands() -> Iterator[str]:
    """Every command by its name, the groups of commands too: "", "score", "steer", "steer calibrate", ..."""

    def walk(command: Any, name: str) -> Iterator[str]:
        yield name
        for inner, found in sorted(getattr(command, "commands", {}).items()):
            yield from walk(found, f"{name} {inner}".strip())

    return walk(typer.main.get_command(app), "")


def without_colour(text: str) -> str:
    """Text without the codes of a terminal, and without blanks at the ends of its lines."""
    return "".join(line.rstrip() + "\n" for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())


def _long(said: str | Mapping[str, Any]) -> str:
    """A long message: its sentences over and over, numbered, up to so many words."""
    if isinstance(said, str):
        return said
    found: list[str] = []
    for n, sentence in enumerate(itertools.cycle(said["sentences"]), 1):
        if len(found) >= said["words"]:
            return " ".join(found)
        found += sentence.format(n=n).split()
    raise AssertionError("the sentences do not end")


def conversations() -> list[dict[str, Any]]:
    """The forty conversations: `name`, `messages`, and `commands` where they go through the commands, too."""
    found = []
    for talk in yaml.safe_load((HERE / "conversations.yaml").read_text(encoding="utf-8")):
        said = [{"role": ("user", "assistant")[i % 2], "content": _long(s)} for i, s in enumerate(talk["said"])]
        first = [{"role": "system", "content": talk["system"]}] if "system" in talk else []
        found.append({"name": talk["name"], "messages": first + said, "commands": talk.get("commands", False)})
    return found


def masked(value: Any, *names: str) -> Any:
    """The same data with the values of these fields hidden, for what differs from run to run or machine to machine."""
    if isinstance(value, dict):
        return {k: "*" if k in names else masked(v, *names) for k, v in value.items()}
    return [masked(v, *names) for v in value] if isinstance(value, list) else round(value, 4) if isinstance(value, float) else value


def equals_golden(name: str, found: str | bytes | dict[str, Any] | list[Any]) -> None:
    """Compare with a stored file, byte for byte; with DEMEANOR_RENEW_GOLDENS=1 store it anew instead. Plain data is kept as JSON."""
    path = GOLDENS / name
    new = found if isinstance(found, bytes) else (found if isinstance(found, str) else to_json(found)).encode()
    if renewing():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(new)
        return
    old = path.read_bytes() if path.is_file() else b""
    if old == new:
        return
    try:
        before, after = (text.decode().splitlines() for text in (old, new))
        changes = [line for line in difflib.unified_diff(before, after, "golden", "now", lineterm="", n=0) if not line.startswith("@@")]
    except UnicodeDecodeError:
        changes = [f"{len(old)} bytes became {len(new)}, or others"]
    pytest.fail("\n".join([how_to_renew(name), *changes[:40]]), pytrace=False)


def how_to_renew(name: str) -> str:
    """The line that tells what changed, and the way out."""
    return f"goldens/{name} is no longer what the code gives; if that is meant: {RENEW}=1 python -m pytest tests/contracts, then git diff"


def renewing() -> bool:
    """Whether the goldens are to be written anew."""
    return os.environ.get(RENEW) == "1"


def to_json(found: Any) -> str:
    """Plain data as a file that shows a change in few lines."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"
