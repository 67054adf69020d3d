"""The reviewed replies that stand in for a withheld one, with the crisis resources of the user's country.

Both are read from YAML beside this module, or from a deployer's own files in the same form; nothing here is generated.
Loading is strict. Giving a reply never fails: an unknown country gets the text that names none.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from demeanor.data.yaml_files import read_yaml
from demeanor.errors import PolicyError, nearest
from demeanor.monitor.policy import Situation

REPLIES = Path(__file__).parent / "replies.yaml"
RESOURCES = Path(__file__).parent / "resources.yaml"
DEFAULT_COUNTRY = "US"
NO_COUNTRY = "none"
PLACES = {"help", "emergency"}


@dataclass(frozen=True, slots=True)
class SafeReply:
    """A reviewed reply as it is shown."""

    text: str
    situation: Situation
    country: str
    """Whose resources it names; "none" where the country was not known."""
    referral: bool
    """Whether it points to crisis services."""


@dataclass(frozen=True)
class Replies:
    """The reviewed texts by situation, and the resources by country."""

    texts: Mapping[Situation, tuple[str, ...]]
    resources: Mapping[str, Mapping[str, str]]

    @property
    def countries(self) -> tuple[str, ...]:
        """The codes of the countries whose resources are known."""
        return tuple(code for code in self.resources if code != NO_COUNTRY)

    def reply(self, situation: Situation, country: str = DEFAULT_COUNTRY, shown_before: int = 0) -> SafeReply:
        """The reply for a situation.

        Args:
            situation: Why a reply is withheld.
            country: ISO 3166 code; one that is not known gets the text that names no country's lines.
            shown_before: How often this conversation has been shown a reply for this situation; the next text is taken in turn.
        """
        code = country.strip().upper() if country.strip().upper() in self.resources else NO_COUNTRY
        texts = self.texts[situation]
        template = texts[shown_before % len(texts)]
        places = {place: self.resources[code][place] for place in PLACES}
        return SafeReply(template.format(**places), situation, code, "{help}" in template)

    def ends_with_one(self, text: str) -> bool:
        """Whether a reviewed reply stands in a text as it was shown, alone or after the beginning of another reply, for any country."""
        return text.rstrip().endswith(self._shown)

    @cached_property
    def _shown(self) -> tuple[str, ...]:
        """Every reviewed reply as any country's users are shown it."""
        situations: tuple[Situation, ...] = get_args(Situation)
        return tuple(
            {
                self.reply(name, code, n).text.rstrip()
                for name in situations
                for code in self.resources
                for n in range(len(self.texts[name]))
            }
        )

    def check_country(self, country: str) -> str:
        """The code of a country whose resources are known, or "none". Raises PolicyError for any other."""
        code = NO_COUNTRY if country.strip().lower() == NO_COUNTRY else country.strip().upper()
        if code not in self.resources:
            raise PolicyError(
                f"no crisis resources for the country {country!r}; known: {', '.join(self.countries)}, and 'none' for a text that "
                f"names no line"
            )
        return code


def load_replies(replies: str | Path | None = None, resources: str | Path | None = None) -> Replies:
    """The built-in replies and resources, or a deployer's own. Raises PolicyError with the file and what is wrong in it."""
    texts = _texts(Path(replies) if replies else REPLIES)
    return Replies(texts, _resources(Path(resources) if resources else RESOURCES))


def _texts(path: Path) -> dict[Situation, tuple[str, ...]]:
    raw = _mapping(path)
    situations: tuple[Situation, ...] = get_args(Situation)
    for name in raw:
        if name not in situations:
            raise PolicyError(f"{path}: unknown situation {name!r}; {nearest(str(name), situations)}")
    found: dict[Situation, tuple[str, ...]] = {}
    for situation in situations:
        texts = raw.get(situation)
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            raise PolicyError(f"{path}: situation {situation!r} needs a list of at least one text")
        for text in texts:
            _check_places(path, situation, text)
        found[situation] = tuple(t.strip() for t in texts)
    for text in found["risk_disclosed"]:
        if not all(f"{{{place}}}" in text for place in PLACES):
            raise PolicyError(f"{path}: a text of 'risk_disclosed' does not hold {{help}} and {{emergency}}; add them")
    return found


def _check_places(path: Path, situation: str, text: str) -> None:
    try:
        places = [(name, form or conversion) for _, name, form, conversion in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise PolicyError(f"{path}: a text of {situation!r} has a brace that opens or closes nothing; double it to show it") from error
    for name, more in places:
        if name not in PLACES:
            raise PolicyError(
                f"{path}: a text of {situation!r} holds the unknown place {{{name}}}; only {{help}} and {{emergency}} are filled"
            )
        if more:
            raise PolicyError(f"{path}: a text of {situation!r} has {more!r} in the braces of {{{name}}}; leave only the name in them")


def _resources(path: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for code, entry in _mapping(path).items():
        # unquoted, YAML reads NO (Norway) as false, and 000 as the number 0
        if not isinstance(code, str):
            raise PolicyError(f"{path}: the country {code!r} is read as {type(code).__name__}; put its code in quotes")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) and entry[k].strip() for k in PLACES):
            raise PolicyError(f"{path}: country {code} needs 'help' and 'emergency' as texts; put numbers in quotes")
        name = code if code == NO_COUNTRY else code.upper()
        if name in found:
            raise PolicyError(f"{path}: the country {name} stands twice; remove one of them")
        found[name] = {k: str(v).strip() for k, v in entry.items()}
    if NO_COUNTRY not in found:
        raise PolicyError(f"{path}: the entry 'none' is missing; it is shown where the country is not known")
    return found


def _mapping(path: Path) -> dict[Any, Any]:
    raw = read_yaml(path, PolicyError)
    if not isinstance(raw, dict) or not raw:
        raise PolicyError(f"{path}: is not a mapping")
    return raw
