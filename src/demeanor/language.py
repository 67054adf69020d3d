"""Which language a text is in, as far as it matters here: whether it is one that the vectors were made from.

py3langid tells languages apart by the byte sequences that are usual in them (Lui & Baldwin 2012), offline, with its model in the package.
A text in none of the vectors' languages gets a caution. It takes much to get one: short texts never do, nor do those that mix in
a language of the vectors' so that it may well be that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

ENGLISH = "en"
LETTERS = 20  # fewer say too little
DOUBT = 0.05  # the chance of a language from which on a text may be in it
SURE = 0.5  # the chance from which on the language is named
READ = 2000  # characters of a text that are looked at
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+")  # in no language
NAMES = {
    "ar": "Arabic", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "th": "Thai", "tl": "Tagalog", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def name_of(code: str) -> str:
    """A language's name, or its code where it is none of the usual ones."""
    return NAMES.get(code, f"the language {code!r}")


def names_of(codes: Iterable[str]) -> str:
    """Several languages: "English", "English or German"."""
    return " or ".join(name_of(code) for code in sorted(set(codes)))


def caution(text: str, languages: Collection[str]) -> str:
    """What is to be said of a text that is in none of these languages; "" where it is in one, may be, or is too short to say."""
    words = _ADDRESS.sub(" ", text[:READ])
    if sum(map(str.isalpha, words)) < LETTERS:
        return ""
    chances = dict(_identifier().rank(words))
    if any(chances.get(code, 1.0) >= DOUBT for code in languages):  # one that is not known to it is never doubted
        return ""
    found = max(chances, key=chances.__getitem__)
    seen = f"looks like {name_of(found)}" if chances[found] >= SURE else f"does not look like {names_of(languages)}"
    return f"the text {seen}, and the vectors were made from {names_of(languages)}: its scores are less sure"


def counted(number: int, of: int, languages: Iterable[str]) -> str:
    """How many replies got a caution, in words."""
    return f"{number} of {of} replies {'is' if number == 1 else 'are'} not in {names_of(languages)}: their scores are less sure"


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
