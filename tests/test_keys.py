"""Keys: copies of a prompt are one prompt, however they were typed, and different prompts stay different."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demeanor.conversation import Conversation, Message, from_text
from demeanor.keys import folded, prompt_key, row_hash

COPIES = [
    "I cannot sleep. ",
    "\n I  cannot\tsleep.",
    "I CANNOT SLEEP.",
    "I can\u200bnot sleep.",
    "\ufeffI cannot sleep.",
    "I can\u00adnot sleep.\u2060",
    "I cannot\u00a0sleep.",
    "I cannot\u3000sleep.",
    "Ｉ cannot sleep.",
    "I cannot sleep.\ufe0f",
    "I cannot sleep\u3164.",
    "I cannot sleep.\x00",
    "\u202eI cannot sleep.\u202c",
]


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_has_the_key_of_what_it_copies(copy):
    assert folded(copy) == folded("I cannot sleep.") == "i cannot sleep."


@pytest.mark.parametrize(
    ("one", "other"), [("it’s “so” hard – now", 'it\'s "so" hard - now'), ("caf\u00e9", "cafe\u0301"), ("Straße", "STRASSE")]
)
def test_one_text_typed_in_two_ways_has_one_key(one, other):
    assert folded(one) == folded(other)


@pytest.mark.parametrize(("one", "other"), [("I cannot sleep.", "I cannot sleep?"), ("resume", "résumé"), ("ill", "I'll"), ("a b", "ab")])
def test_what_says_something_else_has_another_key(one, other):
    assert folded(one) != folded(other)


@given(st.text())
def test_a_key_is_its_own_key(text):
    assert folded(folded(text)) == folded(text)


def test_a_prompt_is_what_was_said_and_by_whom_whatever_the_chatbot_was_told():
    said = [Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye")]
    assert prompt_key([Message("system", "Be kind."), *said]) == prompt_key(said)
    assert prompt_key(said) != prompt_key([*said[:1], *said[2:]])
    assert prompt_key([Message("user", "a"), Message("user", "b")]) != prompt_key([Message("user", "a b")])


def test_a_row_is_known_again_by_its_hash_which_holds_no_text():
    row = from_text("User: I cannot sleep.\nAssistant: Tell me more.")
    digest = row_hash(row)
    assert len(digest) == 24
    assert int(digest, 16)
    assert row_hash(from_text("User: i cannot  sleep. \nAssistant: Tell me more.\nUser: Thanks")) == digest
    assert row_hash(from_text("User: I cannot sleep.\nAssistant: Tell me less.")) != digest
    assert row_hash(Conversation((*row.messages, Message("user", "Thanks"))), "user") != digest
    assert row_hash(Conversation((Message("assistant", "half a pair \ud83d"),)))
