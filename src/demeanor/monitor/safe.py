"""The tutorial's `is_response_safe`: one reply against one threshold for each trait, as a policy of one rule a trait."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from demeanor.conversation import ConversationLike
from demeanor.errors import DemeanorError, PolicyError
from demeanor.monitor.outcome import decide
from demeanor.monitor.policy import Policy
from demeanor.scoring.reading import NotScored, Reading
from demeanor.scoring.scorer import Scorer, open_scorer


def is_response_safe(response: ConversationLike, thresholds: Mapping[str, float | Mapping[str, Any]], scorer: Scorer | None = None) -> bool:
    r"""Whether a reply is on the safe side of every threshold. One that cannot be scored is not safe, nor one in disguise.

    Args:
        response: A reply, "User: ...\nAssistant: ...", or a conversation; with what the user said it is read better.
        thresholds: For each trait a centred score, as `project_onto_vector` gives it, or a threshold as a policy writes it:
            {"z": 1.5}, {"probability": 0.9}, {"calibrated": {"miss_rate": 0.05}}. The safe side is that of the trait.
        scorer: Default: the vector set in ./vectors with its model, else the built-in one, loaded once.

    Raises:
        PolicyError: an unknown trait, or a threshold that cannot be read or that the calibration does not hold.
    """
    scorer = scorer or _default()
    always = {"when": "always", "severity": "yellow", "action": "flag"}
    rules = [{"name": f"rule-{i}", "trait": trait, "threshold": _threshold(trait, value, scorer), **always}
             for i, (trait, value) in enumerate(thresholds.items())]  # fmt: skip
    try:
        policy = Policy.model_validate({"version": "is_response_safe", "rules": rules})
    except ValidationError as error:
        problem = error.errors()[0]
        raise PolicyError(
            f"thresholds: {problem['msg'].removeprefix('Value error, ')}; give a number for each trait, at least one"
        ) from None
    resolved = policy.resolve(scorer.vectors)
    try:
        found: Reading | NotScored = scorer.score(response)
    except DemeanorError as error:
        found = NotScored(str(error))
    return decide(resolved, found).action == "allow" and not (isinstance(found, Reading) and found.signs)


def _threshold(trait: str, value: float | Mapping[str, Any], scorer: Scorer) -> Mapping[str, Any]:
    """A centred score as the z that it is."""
    if isinstance(value, Mapping) or trait not in scorer.calibrations:
        return value if isinstance(value, Mapping) else {"z": 0.0}  # the unknown trait is named when the policy is bound
    return {"z": float(value) / scorer.calibrations[trait].spread}


@lru_cache(maxsize=1)
def _default() -> Scorer:
    return open_scorer("vectors" if Path("vectors/manifest.json").is_file() else None)
