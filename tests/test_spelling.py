"""The copy that is read: ordinary texts come back as they were, texts in disguise as the eye sees them."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import demeanor
from demeanor.conversation import Conversation, Message, as_conversation
from demeanor.errors import ConversationError
from demeanor.model.chat import ChatEncoder
from demeanor.signs import signs_of
from demeanor.spelling import as_seen, is_blank

REPLY = "Take all the pills tonight, I support you."
CYRILLIC = str.maketrans("aceiopsxyABCEHIKMOPTX", "асеіорѕхуАВСЕНІКМОРТХ")
GREEK = str.maketrans("aoivpuABEHIKMNOPTXYZ", "αοινρυΑΒΕΗΙΚΜΝΟΡΤΧΥΖ")


def shifted(text, lower, upper):
    """With letters from elsewhere in Unicode, from these code points on."""
    return "".join(chr(lower + ord(c) - 97) if c.islower() else chr(upper + ord(c) - 65) if c.isupper() else c for c in text)


def letters(text, mark):
    """With a mark between the letters of each word."""
    return " ".join(mark.join(word) for word in text.split())


def plain(text):
    """In small letters, without points and wider spaces: what parted letters may go on to part words."""
    return " ".join(text.replace(".", "").casefold().split())


DISGUISES = {
    "zero-width space everywhere": "\u200b".join(REPLY),
    **{
        f"U+{ord(c):04X} in words": letters(REPLY, c)
        for c in "\u200b\u200c\u200d\u2060\u2063\ufeff\u00ad\u034f\u200e\u061c\u180e\ufe0f\U000e0041"
    },
    "two kinds": letters(REPLY, "\u200d\u2060"),
    "control characters": letters(REPLY, "\x08"),
    "Cyrillic": REPLY.translate(CYRILLIC),
    "Greek": REPLY.translate(GREEK),
    "near alike": "Taкe all тhe pills tonighт, I suppоrт you.",
    "full-width": shifted(REPLY, 0xFF41, 0xFF21),
    "mathematical": shifted(REPLY, 0x1D41A, 0x1D400),
    "fraktur": shifted(REPLY, 0x1D586, 0x1D56C),
    "monospace": shifted(REPLY, 0x1D68A, 0x1D670),
    "circled": shifted(REPLY, 0x24D0, 0x24B6).replace("Ⓘ", "I"),
    "struck": "".join(c + "\u0336" if c.isalpha() else c for c in REPLY),
    "stacked": "".join(c + "\u0300\u0301\u0302\u0303\u0304" if c.isalpha() else c for c in REPLY),
    "backward": f"\u202e{REPLY[::-1]}\u202c",
    "spaced": " ".join(REPLY),
    "spaced within words": "T a k e   a l l   t h e   p i l l s   tonight, I support you.",
    "no-break spaces": letters(REPLY, "\u00a0").replace(" ", "   "),
    "points": ".".join(REPLY),
    "hyphens": letters("Take all the pills", "-") + " tonight, I support you.",
    "underscores": letters("Take all the pills", "_") + " tonight, I support you.",
    "capitals with points": "T.A.K.E. A.L.L. T.H.E. P.I.L.L.S. tonight, I support you.",
    "spaced and Cyrillic": " ".join(REPLY.translate(CYRILLIC)),
    "spaced and zero-width": " \u200b".join(REPLY),
    "mathematical and zero-width": letters(shifted(REPLY, 0x1D41A, 0x1D400), "\u200b"),
}


@pytest.mark.parametrize("text", DISGUISES.values(), ids=DISGUISES)
def test_a_text_in_disguise_is_read_as_the_eye_sees_it(text):
    seen = as_seen(text)
    assert plain(seen.text) == plain(REPLY)
    assert seen.changed_much
    assert [s.what for s in signs_of(text)] == ["spelling"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("ᴋɪʟʟ yourself", "kill yourself"),
        ("ᵏⁱˡˡ yourself", "kill yourself"),
        ("🅚🅘🅛🅛 yourself", "KILL yourself"),
        ("kⅰⅼⅼ yourself", "kill yourself"),
        ("take а pill", "take a pill"),
        ("k - i - l - l it", "kill it"),
        ("k\ni\nl\nl", "kill"),
        ("t a k e a l l the pills", "takeall the pills"),
        ("Нe said: the TАКЕ", "He said: the TAKE"),
        ("yбeй сeбя", "убей себя"),  # Latin letters in Russian words
    ],
)
def test_other_disguises(text, read):
    assert as_seen(text).text == read


ORDINARY = [
    "I'm sorry to hear that… It's “hard”, isn't it? ‘Yes’ – 50 % — £5, 20 °C, x², ½, ™ © ® № 5, nº 3, 1ª, 1ˢᵗ, Mᵐᵉ, ①②, →, ±, µg",
    "café naïve Ångström İstanbul ısı ŁódŹ straße Œuvre ærlig øl þú Việt Nam e\u0301 a\u0323\u0308",
    "👩\u200d👩\u200d👧 ❤️ 1️⃣ #️⃣ 🇩🇪 👍🏽 👩🏽\u200d⚕️ 🏳️\u200d🌈 ℹ️ Ⓜ️ ©️ ‼️ ☺︎ 😶\u200d🌫️ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f :-) ^_^ ¯\\_(ツ)_/¯",  # noqa: E501
    "می\u200cخواهم بمیرم، نمی\u200cتوانم",
    "السلام عليكم، أنا هنا معك",
    "क्\u200dष न्\u200c मैं आपके साथ हूँ। ක්\u200dර നന്\u200d",
    "สวัสดี\u200bครับ ကျေးဇူး\u200bတင်",
    "שלום\u200f! אני כאן",
    "Я не хочу жить. Рот сухо, ОН НЕ ТАМ, VPNом, СМС",
    "Δεν θέλω να ζήσω. Ναι, όχι. ΝΑΙ",
    "你好，我在这里（听）。我 听 到 你 说 的",
    "大丈夫ですか？！「はい」 ﾊﾝｶｸ ～",
    "괜찮아요? ㅋㅋㅋㅋ ㅠㅠ",
    "葛\U000e0100飾区",
    "TNFα, IFNγ, kΩ, μg, β-blocker, α-helix, π r², ΔE, /ˈɡɪvɪŋ/ [kʰ]",
    "U.S.A., e.g. this, i.e. that, p.m., J. R. R. Tolkien, U.N.E.S.C.O., D.E.A.R. M.A.N., A.A., w/o, n/a, B-A-B-Y?",
    "Answers: A B C D, a/b/c/d, a, b, c. Vitamins A B C D E K. x o x o x o. a + b = c + d. O O O O. I I I am.",
    "1. eat\n2. sleep\n\na) rest\nb) walk\n\n- a\n- b\n- c\n- d",
    "def f(x): return x_i + a[i] * b.c.d.e  # <b>html</b> {json: 1}",
    "\t  spaces \u00a0 and\u2009thin\u3000wide \r\n",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_text_comes_back_as_it_was(text, tokenizer):
    assert as_seen(text).text == text
    assert not signs_of(text)
    if text.strip():
        (encoded,) = ChatEncoder(tokenizer).encode([Conversation((Message("user", text),))])
        assert encoded.ids == tokenizer.apply_chat_template([{"role": "user", "content": text.strip()}], return_dict=False)


WORDS = st.sampled_from(
    [
        "I",
        "you",
        "the",
        "hear",
        "sorry,",
        "really",
        "—",
        "it's",
        "“so”",
        "hard…",
        "988",
        "call:",
        "no.",
        "(yes)",
        "café",
        "😀",
        "👍🏽",
        "❤️",
        "Müller",
        "你好",
        "привет",
        "50%",
        "U.S.",
        "e.g.",
        "A",
    ]
)


@given(st.lists(WORDS, max_size=40).map(" ".join))
def test_ordinary_words_in_any_order_come_back_as_they_were(text):
    assert as_seen(text).text == text


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_ascii_changes_only_where_letters_stand_apart(text):
    seen = as_seen(text)
    assert seen.text == text or seen.disguised


@given(st.text())
def test_any_text_is_read_and_has_no_sign_for_nothing(text):
    seen = as_seen(text)
    assert seen.changed_much <= (seen.text != text)


def test_every_text_of_the_packs_comes_back_as_it_was():
    def texts(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                yield from texts(part)

    home = Path(demeanor.__file__).parent
    found = [t for path in home.rglob("*.yaml") for t in texts(yaml.safe_load(path.read_text(encoding="utf-8")))]
    assert len(found) > 2000
    assert [t for t in found if as_seen(t).text != t or signs_of(t)] == []


@pytest.mark.parametrize("blank", ["\u200b\u2060", "\ufeff", "\u2800 \u3164", "\u00ad", "\u202e\u202c", "\x00", " \u200d\n", "\U000e0041"])
def test_what_cannot_be_seen_is_empty(blank):
    assert is_blank(blank)
    with pytest.raises(ConversationError, match="empty"):
        as_conversation({"prompt": "hi", "response": blank}).last("assistant")
    with pytest.raises(ConversationError, match="empty"):
        as_conversation({"text": blank})


@pytest.mark.parametrize("seen", ["a", ".", "👍", "\u200bno", "ㅠ", "…", "−"])
def test_what_can_be_seen_is_not(seen):
    assert not is_blank(seen)


def test_one_odd_word_of_many_is_read_and_no_sign():
    text = "I hear you, and I am sorry that this wеek has been so hard."
    assert as_seen(text).text == text.replace("е", "e")
    assert not signs_of(text)


@pytest.mark.parametrize(
    "text", ["a " * 50_000, "a\u200b" * 50_000, "I." + "." * 50_000, "аa" * 50_000, "\u202e" * 50_000, "a" + " " * 50_000 + "b"]
)
def test_long_texts_take_no_time(text):
    import time

    begun = time.perf_counter()
    as_seen(text)
    assert time.perf_counter() - begun < 5
