"""Which language a text is in, as far as it matters: whether the vectors were made from it, and which reviewed reply its writer can read.

py3langid tells languages apart by the byte sequences that are typical of them (Lui & Baldwin 2012), offline, with its model in the
package. A text in none of the vectors' languages gets a caution, but only if there is little doubt: short texts never get one, nor do
texts that mix in enough of a vectors' language to count as that. `Answer` chooses the language of a reviewed reply with the same care.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

ENGLISH = "en"
LETTERS = 20  # with fewer, nothing is said about a text
FEW = 8  # with fewer, nobody is answered in another language than the usual one, unless the script tells it
DOUBT = 0.05  # from this chance on, a text may be in the language
RULED_OUT = 0.001  # below this chance, a text is not in the language
SURE = 0.5  # from this chance on, the language is named
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
    """A language's name, or its code if it is not one of the common ones."""
    return NAMES.get(code, f"the language {code!r}")


def names_of(codes: Iterable[str]) -> str:
    """Several languages: "English", "English or German"."""
    return " or ".join(name_of(code) for code in sorted(set(codes)))


def caution(text: str, languages: Collection[str]) -> str:
    """The caution for a text that is in none of these languages; "" if it is in one, may be, or is too short to tell."""
    words = _words(text)
    if _letters(words) < LETTERS:
        return ""
    chances = _chances(words)
    if any(chances.get(code, 1.0) >= DOUBT for code in languages):  # a language that py3langid does not know is never doubted
        return ""
    found = max(chances, key=chances.__getitem__)
    seen = f"looks like {name_of(found)}" if chances[found] >= SURE else f"does not look like {names_of(languages)}"
    return f"the text {seen}, but the vectors were made from {names_of(languages)}: its scores are less reliable"


class Answer(NamedTuple):
    """The language to answer somebody in."""

    language: str
    """The code of one of the languages on offer."""
    user: str
    """What the user seems to write in, if that is none of the languages on offer: "Polish", or "another language"; else empty."""

    @classmethod
    def to(cls, said: Sequence[str], usual: str, others: Collection[str] = ()) -> Answer:
        """The language for an answer to these messages of a user, oldest first.

        The newest message decides, together with as many earlier ones as it takes to have enough letters. The usual language
        stays if the messages may be in it, or are too short to tell; another one on offer takes its place if they look like that.
        """
        words = ""
        for text in reversed(said):
            words = f"{_words(text)} {words}"
            if _letters(words) >= LETTERS:
                break
        letters = _letters(words)
        if letters < FEW and words.isascii():
            return cls(usual, "")
        chances = _chances(words)
        if chances.get(usual, 1.0) >= DOUBT:
            return cls(usual, "")
        best = max(others, key=chances.__getitem__, default=usual)
        if chances[best] >= SURE or (chances[best] >= DOUBT and chances[usual] < RULED_OUT):
            return cls(best, "")
        if letters < LETTERS:
            return cls(usual, "")
        found = max(chances, key=chances.__getitem__)
        return cls(usual, name_of(found) if chances[found] >= SURE else "another language")


def known(code: str) -> bool:
    """Whether a language is one that texts can be told to be in."""
    return code in _identifier().labels


def _words(text: str) -> str:
    return _ADDRESS.sub(" ", text[:READ])


def _letters(words: str) -> int:
    return sum(map(str.isalpha, words))


def _chances(words: str) -> dict[str, float]:
    return dict(_identifier().rank(words))


def counted(number: int, of: int, languages: Iterable[str]) -> str:
    """How many replies got a caution, in words."""
    verb, whose = ("is", "its") if number == 1 else ("are", "their")
    return f"{number} of {of} replies {verb} not in {names_of(languages)}: {whose} scores are less reliable"


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
