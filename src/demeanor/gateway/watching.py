"""A running gateway seen from outside: its /metrics and /readyz read, and what has happened between two looks.

    rate       (total now - total before) / seconds between the looks
    quantile   within a histogram's bucket on a straight line, as Prometheus does

/readyz answers 200 if the gateway is ready and else 503, each with {"ready": ..., "problems": ["...", ...]}. A counter that has fallen says
that the gateway began anew; what happened is then counted from its beginning.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from demeanor.errors import MissingExtraError, UnseenGatewayError

try:
    import httpx2
    from prometheus_client.parser import text_string_to_metric_families
except ImportError as error:
    raise MissingExtraError("watching a gateway needs httpx2 and prometheus-client: pip install 'demeanor[serve]'") from error

PATIENCE = 5.0  # seconds for an answer
LARGEST = 4 * 2**20  # bytes of an answer
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Seen:
    """One look at a gateway."""

    ready: bool
    problems: tuple[str, ...]
    samples: Mapping[str, Mapping[Labels, float]]
    """By a sample's name, its values by their labels."""
    at: float = field(default=0.0)
    """When, in seconds of a clock that only goes forward."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels; 0 where there is none."""
        wanted = set(labels.items())
        return sum(value for has, value in self.samples.get(name, {}).items() if wanted <= has)

    def by(self, name: str, label: str) -> dict[str, float]:
        """Totals by a label's values, the largest first."""
        found: dict[str, float] = {}
        for has, value in self.samples.get(name, {}).items():
            key = dict(has).get(label, "")
            found[key] = found.get(key, 0.0) + value
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def buckets(self, name: str) -> dict[float, float]:
        """How many of a histogram's values are at most so large, by upper bound."""
        return {float(bound): count for bound, count in self.by(f"{name}_bucket", "le").items()}


class Quantile(NamedTuple):
    """A quantile's value, and whether it is only known to lie above it."""

    seconds: float
    above: bool = False


def look(url: str, key: str | None = None) -> Seen:
    """One look. Raises UnseenGatewayError where there is no gateway, or it lets nobody look."""
    base = url.rstrip("/")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    status, text = _get(f"{base}/metrics", headers)
    if status in (401, 403):
        raise UnseenGatewayError(f"{base} asks for a key with the scope admin ({status}); put one into the variable DEMEANOR_KEY")
    if status != 200:
        raise UnseenGatewayError(f"{base}/metrics answered {status}; is this a gateway of Demeanor's?")
    ready, said = _get(f"{base}/readyz", headers)
    return Seen(ready == 200, _problems(said), samples_of(text, base), time.monotonic())


def samples_of(text: str, source: str = "the text") -> dict[str, dict[Labels, float]]:
    """The samples of a /metrics page. Raises UnseenGatewayError where it is none of a gateway's."""
    found: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    except (ValueError, KeyError, IndexError) as error:
        raise UnseenGatewayError(
            f"{source}: its metrics cannot be read ({type(error).__name__}); is this a gateway of Demeanor's?"
        ) from error
    if "demeanor_build_info" not in found:
        raise UnseenGatewayError(f"{source}: there is no demeanor_build_info in its metrics; is this a gateway of Demeanor's?")
    return found


def since(now: Seen, before: Seen | None, name: str, **labels: str) -> float:
    """How much a counter has grown between two looks; from its beginning where there is no earlier one, or it began anew."""
    total = now.total(name, **labels)
    earlier = before.total(name, **labels) if before is not None else 0.0
    return total - earlier if total >= earlier else total


def rate(now: Seen, before: Seen | None, name: str, **labels: str) -> float | None:
    """How much a counter grows a second; None before the second look."""
    if before is None or now.at <= before.at:
        return None
    return since(now, before, name, **labels) / (now.at - before.at)


def quantile(now: Seen, before: Seen | None, name: str, share: float) -> Quantile | None:
    """A histogram's quantile between two looks, or of all its values where nothing came between them; None where it has none."""
    counts = now.buckets(name)
    if before is not None:
        earlier = before.buckets(name)
        grown = {bound: count - earlier.get(bound, 0.0) for bound, count in counts.items()}
        if all(count >= 0 for count in grown.values()) and max(grown.values(), default=0.0) > 0:
            counts = grown
    total = counts.get(math.inf, 0.0)
    if total <= 0:
        return None
    low, below = 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= share * total:
            if math.isinf(bound):
                return Quantile(low, above=True)
            return Quantile(low + (bound - low) * (share * total - below) / (count - below) if count > below else bound)
        low, below = bound, count
    return None


def _get(url: str, headers: Mapping[str, str]) -> tuple[int, str]:
    try:
        with httpx2.stream("GET", url, headers=dict(headers), timeout=PATIENCE, follow_redirects=False) as answer:
            body = b""
            for part in answer.iter_bytes():
                body += part
                if len(body) > LARGEST:
                    raise UnseenGatewayError(f"{url} answered more than {LARGEST} bytes; is this a gateway of Demeanor's?")
            return int(answer.status_code), body.decode("utf-8", "replace")
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        why = type(error).__name__
        raise UnseenGatewayError(f"{url} does not answer ({why}); start a gateway with demeanor serve, or name its URL") from error


def _problems(text: str) -> tuple[str, ...]:
    """What /readyz says is wrong."""
    try:
        said = json.loads(text)
    except ValueError:
        return ()
    problems = said.get("problems") if isinstance(said, dict) else None
    return tuple(str(problem)[:200] for problem in problems) if isinstance(problems, list) else ()
