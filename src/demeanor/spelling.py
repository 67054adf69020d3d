"""The copy of a text that is read: spelt as the eye sees it.

A model reads characters, a person sees shapes. A zero-width character inside a word, a Cyrillic letter that looks like a Latin one, or a
space after every letter makes other tokens of the same words, and so hides them from the model. In the copy

    what has no shape is left out               zero-width characters, joiners, selectors, direction marks, control characters
    a letter in a fancy shape is that letter    NFKC of mathematical, full-width, circled and raised letters, of ligatures
    a look-alike is the letter it looks like    by Unicode's table of confusables (lookalikes.txt)
    letters that stand apart are a word         "t a k e", "t.a.k.e"

NFKC is not applied to the whole: it would also rewrite ordinary typography ("…", "²", "½", "™", no-break spaces, full-width punctuation,
Hangul letters), and give other tokens for texts that hide nothing. For the same reason emoji keep the characters that join them,
and Persian and the scripts of India those that are spelling there. A text in Cyrillic or Greek is no disguise: a letter is folded only in
a word that mixes scripts, or in a word of look-alikes in a text that is otherwise Latin. Capitals with dots that stand alone
(U.N.E.S.C.O.) are an abbreviation. What is left out, folded and joined is one thing: each rule has its exceptions in the others.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

MANY, LARGE_SHARE = 3, 0.25
SPELT_OUT = 4  # letters that stand apart, from so many on, are a word


class Spelling(NamedTuple):
    """A text as it is read, and how many of its words were in disguise."""

    text: str
    disguised: int
    words: int

    @property
    def changed_much(self) -> bool:
        """Whether more words were in disguise than is likely by accident."""
        return self.disguised >= MANY or (self.disguised > 0 and self.disguised >= LARGE_SHARE * self.words)


def as_seen(text: str) -> Spelling:
    """The copy of a text that is read. An ordinary text comes back as it was."""
    disguised = 0
    if not text.isascii() or _CONTROL.search(text):
        text, disguised = _turned(text)
        east_asian = bool(_EAST_ASIAN.search(text))
        parts = [_shaped(part, east_asian) for part in _SPACE.split(text)]
        text, disguised = "".join(part for part, _ in parts), disguised + sum(hid for _, hid in parts)
    text, joined = _joined(text)
    folded = 0
    if not text.isascii():
        text, folded = _folded(text)
    return Spelling(text, disguised + joined + folded, len(text.split()))


def is_blank(text: str) -> bool:
    """Whether there is nothing to see in a text."""
    return not text.strip() or (not _PLAIN.search(text) and not as_seen(text).text.replace(_BLANK, " ").strip())


_PLAIN = re.compile("[!-~]")
_SPACE = re.compile(r"(\s+)")
_BLANK = "\u2800"  # a Braille cell without dots
_UNSEEN = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
_CONTROL = re.compile(f"[{_UNSEEN}]")
_SHAPELESS = re.compile(
    f"[{_UNSEEN}\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_SPELLING = re.compile(  # in the scripts of _JOINING: zero-width space and joiners, Mongolian selectors, Khmer vowels, direction marks
    "[\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\ufe00]{1,2}"
)
_JOINING = re.compile("[\u0590-\u08ff\u0900-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\uabff\ufb1d-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff]")
_SYLLABLE = re.compile(r"[^\W\d_]{2}")
_BACKWARD = re.compile("\u202e([^\u202a-\u202e\n]+)\u202c?")  # shown from right to left
_OVERLAID = re.compile("(?<=[A-Za-z])[\u0332-\u0338\u20d2\u20d3\u20d8-\u20da\u20e5-\u20eb]+|[\u0300-\u036f]{4,}")


def _turned(text: str) -> tuple[str, int]:
    """Text that is written backward and shown forward, as it is shown; and its number of words."""
    words = sum(len(m.group(1).split()) for m in _BACKWARD.finditer(text))
    return (_BACKWARD.sub(lambda m: m.group(1)[::-1], text), words) if words else (text, 0)


def _shaped(word: str, east_asian: bool) -> tuple[str, bool]:
    """What stands between two spaces without what has no shape and with plain letters for fancy ones; whether it was in disguise.

    Full-width letters are no disguise in a text that is `east_asian`, and ligatures in none.
    """
    if word.isascii() and not _CONTROL.search(word):
        return word, False
    hid = False

    def shapeless(match: re.Match[str]) -> str:
        nonlocal hid
        before, after = word[max(0, match.start() - 2) : match.start()], word[match.end() : match.end() + 2]
        if kept := _spelt(match.group(), before, after):
            return kept
        # soft hyphens part syllables; where they part letters, they are there to hide
        syllables = match.group() == "\u00ad" and _SYLLABLE.fullmatch(before) and _SYLLABLE.fullmatch(after)
        hid |= before[-1:].isalpha() and after[:1].isalpha() and not syllables
        return ""

    made = _SHAPELESS.sub(shapeless, word)
    bare = _OVERLAID.sub("", made)
    usual = (_USUAL if east_asian else _LIGATURE).sub(_nfkc, bare)
    plain = _FANCY.sub(_nfkc, usual)
    return plain, bool(hid) or bare != made or plain != usual


def _nfkc(match: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match.group().translate(_NEGATIVE))


def _spelt(found: str, before: str, after: str) -> str:
    """Those of the shapeless characters between two parts of a word that are spelling there."""
    last, following = before[-1:], after[:1]
    if _JOINING.match(last) or (_JOINING.match(following) and set(found) <= {"\u061c", "\u200e", "\u200f"}):
        spelling = _SPELLING.match(found)
        return spelling.group() if spelling else ""
    if not last:
        return ""
    kind = unicodedata.category(last)
    picture = kind in ("So", "Sk", "Sm", "Po", "Pd") or last in "0123456789\u2139"
    if picture and found[0] in "\ufe0e\ufe0f":
        return found[: 2 if found[1:2] == "\u200d" and _is_picture(following) else 1]
    if found[0] == "\u200d" and _is_picture(last) and _is_picture(following):
        return found[0]
    if last == "\U0001f3f4" and "\U000e007f" in found:  # the flags of England, Scotland and Wales
        return found[: found.index("\U000e007f") + 1][:8]
    if kind == "Lo" and last >= "\u2e80" and ("\ufe00" <= found[0] <= "\ufe02" or "\U000e0100" <= found[0] <= "\U000e01ef"):
        return found[0]  # the form of a Han character
    return ""


def _is_picture(character: str) -> bool:
    return bool(character) and unicodedata.category(character) in ("So", "Sk", "Sm")


_FANCY = re.compile(
    "[\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff]+"  # full-width, mathematical
    "|[\u24b6-\u24e9\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189]{2,}"  # circled and squared; one alone is a sign
    "|[\u02b0-\u02b8\u02e0-\u02e4\u1d2c-\u1d6a\u1d78\u1d9b-\u1dbf\u2071\u207f\u2090-\u209c\u2c7c\u2c7d]{3,}"  # raised; "1ˢᵗ", "Mᵐᵉ" stay
    r"|(?<=[^\W\d_])[\u2102\u210a-\u2113\u2115\u2119-\u211d\u2124\u212a\u212c\u212d\u212f-\u2134\u2139\u2170-\u217f]+"  # letterlike, in a word  # noqa: E501
    r"|[\u2102\u210a-\u2113\u2115\u2119-\u211d\u2124\u212a\u212c\u212d\u212f-\u2134\u2170-\u217f]+(?=[A-Za-z])"
)
_NEGATIVE = {0x1F150 + i: 0x41 + i for i in range(26)} | {0x1F170 + i: 0x41 + i for i in range(26)}
_LIGATURE = re.compile("[\ufb00-\ufb06]")
_USUAL = re.compile("[\ufb00-\ufb06\uff21-\uff3a\uff41-\uff5a]")
_EAST_ASIAN = re.compile("[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3]")


# letters that stand apart

_APART = re.compile(rf"(?<!\S)\S(?:[\s{_BLANK}]+\S(?![^\s{_BLANK}])){{3,}}")
_EVERY_OTHER = re.compile(r"(?<![^\W_])[^\W\d_]([^\w\s]|_)(?:.\1){7,}.?")
_GAP = re.compile(rf"([\s{_BLANK}]+)")
_RUN = re.compile(r"(?<![^\W_])[^\W\d_](?:([^\w\s'\u2019\u200b-\u200f\ufe0f])[^\W\d_](?:\1[^\W\d_])*|(_)[^\W\d_](?:_[^\W\d_])*)(?![^\W_])")


def _joined(text: str) -> tuple[str, int]:
    """With letters that stand apart as words; and how many such words there are."""
    count = 0

    def spaced(match: re.Match[str]) -> str:
        nonlocal count
        found = _closed_up(match.group())
        count += len(found.split()) if found != match.group() else 0
        return found

    def parted(match: re.Match[str]) -> str:
        nonlocal count
        found = match.group()[::2]
        if not any(_is_spelt_out(letters) for letters in re.findall(r"[^\W\d_]+", found)):
            return match.group()
        count += len(found.split())
        return found

    text = _EVERY_OTHER.sub(parted, _APART.sub(spaced, text))
    runs = list(_RUN.finditer(text))
    if all(len(m.group()) < 2 * SPELT_OUT - 1 for m in runs):
        return text, count
    out, at = [], 0
    for group in _neighbours(text, runs):
        spelt = [m.group()[::2] for m in group]
        dotted_words = len(group) > 1 and sum(map(len, spelt)) >= 2 * SPELT_OUT
        if any(_is_spelt_out(word) and (dotted_words or not word.isupper()) for word in spelt):
            out += [text[at : group[0].start()], " ".join(spelt)]
            at = group[-1].end()
            count += len(group)
    return "".join([*out, text[at:]]), count


def _closed_up(text: str) -> str:
    """Single characters with gaps between them, closed up where they spell words: the narrowest gap parts letters, a wider one words."""
    pieces = _GAP.split(text)
    characters, gaps = pieces[::2], pieces[1::2]
    if len(set(characters[1::2])) == 1 and not characters[1].isalnum():  # "t - a - k - e"
        characters, gaps = characters[::2], gaps[1::2]
    narrow = min(map(len, gaps))
    words, breaks = [characters[0]], [""]
    for gap, character in zip(gaps, characters[1:], strict=False):
        if len(gap) == narrow:
            words[-1] += character
        else:
            words.append(character)
            breaks.append("\n" if "\n" in gap else " ")
    if not any(_is_spelt_out(letters) for word in words for letters in re.findall(r"[^\W\d_]+", word)):
        return text
    return "".join(itertools.chain.from_iterable(zip(breaks, words, strict=True)))


def _neighbours(text: str, runs: Sequence[re.Match[str]]) -> list[list[re.Match[str]]]:
    """Runs of letters with only spaces and their own separator between them, together."""
    groups: list[list[re.Match[str]]] = []
    for run in runs:
        separator = run.group(1) or run.group(2)
        if groups and not (between := text[groups[-1][-1].end() : run.start()]).strip(f" \t{separator}") and len(between) <= 4:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _is_spelt_out(letters: str) -> bool:
    """Whether letters that stood apart are a word, and no list of letters: "a b c d", "x o x o". Scripts without case are written so."""
    cased = all(c.lower() != c.upper() for c in letters)
    low = letters.lower()
    return len(letters) >= SPELT_OUT and cased and len(set(low)) > 2 and list(low) != sorted(low)


# letters of other scripts

_LETTERS = re.compile(r"(?:[^\W\d_]|[\u0300-\u036f])+")
_NEAR = dict(zip("ктмнвκτηωεμ", "ktmhbktnweu", strict=True))  # alike only beside Latin letters; Unicode has them as small capitals, or not


@cache
def _lookalikes() -> dict[str, str]:
    """Each look-alike and the basic Latin letter that it looks like."""
    lines = Path(__file__).with_name("lookalikes.txt").read_text(encoding="utf-8").splitlines()
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    return {chr(int(code, 16)): letter for letter, *codes in rows for code in codes}


@cache
def _cyrillic() -> dict[str, str]:
    """Basic Latin letters and the Russian or Ukrainian ones that look like them."""
    alike = {latin: c for c, latin in _lookalikes().items() if "\u0400" <= c <= "\u045f"}
    return alike | {latin: c for c, latin in _NEAR.items() if c >= "\u0400"} | {"r": "\u0433"}


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0]


def _folded(text: str) -> tuple[str, int]:
    """With look-alikes as the letters they look like; and in how many words there were some."""
    words: list[str] = _LETTERS.findall(text)
    made = {word: _unmixed(word) for word in set(words) if not word.isascii()}
    latin = sum(word.isascii() or made[word] is not None for word in words)
    alike = [w for w in words if not w.isascii() and made[w] is None and all(c in _lookalikes() for c in w)]
    if alike and latin > len(alike):
        other = [_script(w[0]) for w in words if not w.isascii() and made[w] is None and w not in alike]
        for word in set(alike):
            script = _script(word[0])
            if other.count(script) * 10 <= latin and (len(word) > 1 or script == "CYRILLIC" or word.isupper()):
                made[word] = "".join(_lookalikes()[c] for c in word)
    count = sum(made.get(word) is not None for word in words)
    if not count:
        return text, 0
    return _LETTERS.sub(lambda m: made.get(m.group()) or m.group(), text), count


def _unmixed(word: str) -> str | None:
    """A word that mixes scripts, in the one that it is read in; None where it does not, or is written so."""
    alike = _lookalikes()
    basic = [c for c in word if c.isascii()]
    others = [c for c in word if not c.isascii() and not unicodedata.combining(c)]
    strange = [c for c in others if _script(c) != "LATIN"]
    if not strange:  # small capitals and phonetic letters
        phonetic = any(c not in alike for c in others)
        return None if phonetic or len(word) < 2 or not others else "".join(alike.get(c, c) for c in word)
    if not basic or _is_term(word, basic, strange):
        return None
    if all(c in alike or c in _NEAR or _script(c) == "LATIN" for c in others):
        return "".join(alike.get(c) or _NEAR.get(c, c) for c in word)
    if all(_script(c) == "CYRILLIC" for c in strange) and all(c in _cyrillic() for c in basic):
        return "".join(_cyrillic().get(c, c) for c in word)
    return None


def _is_term(word: str, basic: Sequence[str], strange: Sequence[str]) -> bool:
    """Whether a word is one that is written in two scripts: TNFα, μg; a Latin abbreviation with a Russian ending."""
    capitals = "".join(basic).isupper()
    if {_script(c) for c in strange} == {"GREEK"}:
        return len(strange) == 1 and (word[0] in strange or word[-1] in strange) and (capitals or len(word) == 2)
    return capitals and len(basic) > 1 and word.startswith("".join(basic)) and "".join(strange).islower()
