"""The reviewed replies that are shown in place of a withheld one, with the crisis resources of the user's country.

Both are read from YAML beside this module, or from a deployer's own files in the same form; nothing here is generated. Replies in
other languages come from files of their own, which hold the help lines in that language too:

    risk_disclosed: [...]      and every other situation, as in replies.yaml
    resources: {US: {help: ..., emergency: ...}, none: {...}}      as in resources.yaml

Loading is strict. Giving a reply never fails: an unknown country gets the text that names no country's lines, and a user in whose
language there are no replies gets those in the usual one, with a note that says so.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from demeanor.data.yaml_files import read_yaml
from demeanor.errors import PolicyError, nearest
from demeanor.language import ENGLISH, Answer, known, name_of
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
    language: str = ENGLISH
    """What it is written in, as ISO 639 has it."""
    note: str = ""
    """Why it may not help this user as it should, in a sentence: it is in another language, or names no line of the country."""


@dataclass(frozen=True)
class Replies:
    """The reviewed texts by situation, and the resources by country, in one language; and the same in others."""

    texts: Mapping[Situation, tuple[str, ...]]
    resources: Mapping[str, Mapping[str, str]]
    language: str = ENGLISH
    """The usual one: it is used unless the user writes in one of `others`."""
    others: Mapping[str, Replies] = field(default_factory=dict)
    """Replies in other languages, by language."""

    @property
    def countries(self) -> tuple[str, ...]:
        """The codes of the countries whose resources are known."""
        return tuple(code for code in self.resources if code != NO_COUNTRY)

    def answer(self, situation: Situation, said: Sequence[str], country: str = DEFAULT_COUNTRY, shown_before: int = 0) -> SafeReply:
        """The reply for a situation in the language that the user writes in, if there are replies in it, else in the usual one.

        Args:
            situation: Why a reply is withheld.
            said: The user's messages, oldest first.
            country: As for `reply`.
            shown_before: As for `reply`.
        """
        found = Answer.to(said, self.language, self.others)
        reply = self.others.get(found.language, self).reply(situation, country, shown_before)
        if found.user:
            return replace(reply, note=f"the user seems to write in {found.user}, but the reviewed reply is in {name_of(reply.language)}")
        asked = country.strip().upper()
        if reply.referral and reply.country != asked and asked in self.resources:
            return replace(reply, note=f"the reviewed replies in {name_of(reply.language)} hold no help line for {asked}, so none is named")
        return reply

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
        return SafeReply(template.format(**places), situation, code, "{help}" in template, self.language)

    def ends_with_one(self, text: str) -> bool:
        """Whether a reviewed reply stands in a text as it was shown, alone or after the beginning of another reply, for any country."""
        return text.rstrip().endswith(self._shown)

    @cached_property
    def _shown(self) -> tuple[str, ...]:
        """Every reviewed reply as any country's users are shown it, in every language."""
        situations: tuple[Situation, ...] = get_args(Situation)
        return tuple(
            {
                one.reply(name, code, n).text.rstrip()
                for one in (self, *self.others.values())
                for name in situations
                for code in one.resources
                for n in range(len(one.texts[name]))
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

    def check_usual_country(self, country: str) -> str:
        """The same for the country that a service is set to, whose help lines every language has to hold."""
        code = self.check_country(country)
        for one in self.others.values():
            if code not in one.resources:
                raise PolicyError(
                    f"the reviewed replies in {name_of(one.language)} hold no help line for {code}, the country in use; add {code} to the "
                    f"'resources' of their file"
                )
        return code

    def also(self, files: Mapping[str, str | Path]) -> Replies:
        """With replies in more languages, from a file for each; one for the usual language takes the place of what was there.

        Raises:
            PolicyError: with the file and what is wrong in it, or a language that no text can be recognised as.
        """
        made = self
        for code, file in files.items():
            path = Path(file)
            if not known(code):
                raise PolicyError(f"{path}: the language {code!r} cannot be recognised; give a code of ISO 639, such as es for Spanish")
            raw = _mapping(path)
            lines = raw.pop("resources", None)
            texts = _texts(path, raw)
            if lines is None and code != self.language:
                raise PolicyError(f"{path}: 'resources' is missing; add the help lines in {name_of(code)}, by country, and 'none'")
            resources = made.resources if lines is None else _resources(path, _checked(path, lines, "'resources'"))
            one = Replies(texts, resources, code)
            made = replace(one, others=made.others) if code == self.language else replace(made, others={**made.others, code: one})
        return made


def load_replies(
    replies: str | Path | None = None,
    resources: str | Path | None = None,
    languages: Mapping[str, str | Path] | None = None,
    language: str = ENGLISH,
) -> Replies:
    """The built-in replies and resources, or a deployer's own.

    Args:
        replies: A file of texts by situation. Default: the built-in ones, in English.
        resources: A file of help lines by country. Default: the built-in ones, in English.
        languages: Files of replies in other languages by code, such as {"es": "replies-es.yaml"}, each with its own `resources`.
        language: What `replies` and `resources` are written in.

    Raises:
        PolicyError: with the file and what is wrong in it.
    """
    path, lines = Path(replies) if replies else REPLIES, Path(resources) if resources else RESOURCES
    return Replies(_texts(path, _mapping(path)), _resources(lines, _mapping(lines)), language).also(languages or {})


def _texts(path: Path, raw: Mapping[Any, Any]) -> dict[Situation, tuple[str, ...]]:
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


def _resources(path: Path, raw: Mapping[Any, Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for code, entry in raw.items():
        # unquoted, YAML reads NO (Norway) as false, and 000 as the number 0
        if not isinstance(code, str):
            raise PolicyError(f"{path}: the country {code!r} is read as {type(code).__name__}; put its code in quotes")
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) and entry[k].strip() for k in PLACES):
            raise PolicyError(f"{path}: country {code} needs 'help' and 'emergency' as texts; put numbers in quotes")
        name = code if code == NO_COUNTRY else code.upper()
        if name in found:
            raise PolicyError(f"{path}: the country {name} appears twice; remove one of them")
        found[name] = {k: str(v).strip() for k, v in entry.items()}
    if NO_COUNTRY not in found:
        raise PolicyError(f"{path}: the entry 'none' is missing; it is shown where the country is not known")
    return found


def _mapping(path: Path) -> dict[Any, Any]:
    return _checked(path, read_yaml(path, PolicyError))


def _checked(path: Path, raw: Any, what: str = "the file") -> dict[Any, Any]:
    if not isinstance(raw, dict) or not raw:
        raise PolicyError(f"{path}: {what} is not a mapping; write NAME: VALUE on each line")
    return raw
