"""Conversations from records and from text, and the errors that say what is wrong with one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demeanor.conversation import Conversation, Message, as_conversation, from_record, from_text
from demeanor.errors import ConversationError
from demeanor.traits.definition import as_text

TALK = Conversation((Message("user", "I failed."), Message("assistant", "That hurts.")))


def turns(conversation):
    return [(m.role, m.content) for m in conversation.messages]


@pytest.mark.parametrize(
    "given",
    [
        "User: I failed.\nAssistant: That hurts.",
        {"messages": [{"role": "user", "content": "I failed."}, {"role": "assistant", "content": "That hurts."}]},
        {"prompt": "I failed.", "response": "That hurts."},
        {"prompt": [{"role": "user", "content": "I failed."}], "response": "That hurts."},
        {"text": "User: I failed.\nAssistant: That hurts."},
        [{"role": "user", "content": "I failed."}, {"role": "assistant", "content": "That hurts."}],
        [Message("user", "I failed."), {"role": "assistant", "content": "That hurts."}],
        TALK,
    ],
)
def test_every_format_gives_the_same_conversation(given):
    assert as_conversation(given) == TALK


def test_a_record_without_prompt_is_a_reply_on_its_own():
    assert turns(as_conversation({"response": "That hurts."})) == [("assistant", "That hurts.")]


def test_messages_go_before_prompt_and_text():
    record = {"text": "Assistant: other", "response": "other", "messages": TALK.to_record()}
    assert as_conversation(record) == TALK


def test_content_of_records_is_kept_as_given():
    assert as_conversation({"response": "  two\n\nlines \n"}).response == "  two\n\nlines \n"


def test_text_over_several_lines_and_turns():
    text = "System: Be kind.\nUser: I failed.\n\nTwice: on Monday.\nAssistant: Oh.\nUser: Well?\nAssistant: Tell me\nmore.\n"
    assert turns(from_text(text)) == [
        ("system", "Be kind."),
        ("user", "I failed.\n\nTwice: on Monday."),
        ("assistant", "Oh."),
        ("user", "Well?"),
        ("assistant", "Tell me\nmore."),
    ]


@pytest.mark.parametrize(
    "text",
    ["USER: hi\nASSISTANT: yo", "\n  user :hi\n\tassistant:\tyo", "Human: hi\nAI: yo", "human: hi\nBot: yo", "User:hi\r\nAssistant: yo"],
)
def test_case_spacing_and_other_names_of_markers(text):
    assert turns(from_text(text)) == [("user", "hi"), ("assistant", "yo")]


def test_a_marker_counts_only_at_the_beginning_of_a_line():
    assert turns(from_text("User: I said user: no\nAssistant: The assistant: yes")) == [
        ("user", "I said user: no"),
        ("assistant", "The assistant: yes"),
    ]


def test_letters_that_only_fold_to_a_marker_are_text():
    assert turns(from_text("User: hi\naſſistant: hm")) == [("user", "hi\naſſistant: hm")]


def test_plain_text_is_a_reply_on_its_own():
    assert turns(from_text("  I hear you.\nTell me more. ")) == [("assistant", "I hear you.\nTell me more.")]


def test_the_response_is_the_last_assistant_message():
    text = "Assistant: first\nUser: and?\nAssistant: second\nUser: thanks"
    assert from_text(text).response == "second"
    assert from_text(text).last("user") == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("Hello there.\nUser: hi", "before the first"),
        ([], "no messages"),
        ({"messages": []}, "no messages"),
        ({"messages": "hi"}, "not a list"),
        ({"messages": [{"role": "user"}]}, "message 1 .*'role' and 'content'"),
        ({"messages": [{"role": "user", "content": "a"}, "b"]}, "message 2 .*'role' and 'content'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "message 1 .*type list.*text"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "unknown role"),
        ({"prompt": "a", "response": None}, "message 2 .*NoneType"),
        ({"prompt": 5, "response": "a"}, "'prompt'"),
        ({"prompt": "a"}, "neither 'messages'"),
        ({"text": 3}, "'text' is not a string"),
        (b"User: hi", "'role' and 'content'"),
        (3, "int"),
    ],
)
def test_what_cannot_be_read_says_why(given, words):
    with pytest.raises(ConversationError, match=words):
        as_conversation(given)


def test_an_unknown_role_names_its_message_and_the_nearest_role():
    with pytest.raises(ConversationError, match=r"message 2 has the unknown role 'asistant'; did you mean assistant\?"):
        as_conversation([{"role": "user", "content": "a"}, {"role": "asistant", "content": "b"}])


@pytest.mark.parametrize("reply", ["", " \n\t"])
def test_an_empty_reply_is_refused(reply):
    with pytest.raises(ConversationError, match="assistant message to score is empty"):
        _ = as_conversation({"prompt": "hi", "response": reply}).response


def test_an_empty_last_reply_does_not_fall_back_to_an_earlier_one():
    with pytest.raises(ConversationError, match="empty"):
        from_text("Assistant: first\nUser: and?\nAssistant:").last("assistant")


def test_without_a_reply_there_is_nothing_to_score():
    with pytest.raises(ConversationError, match=r"no assistant message.*add one"):
        from_text("User: hello?").last("assistant")


CONTENT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)
MESSAGE = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), CONTENT)


def without_markers(messages):
    markers = ("system", "user", "human", "assistant", "bot", "ai")
    return not any(line.strip(" \t").lower().startswith(markers) for m in messages for line in m.content.split("\n"))


@given(st.lists(MESSAGE, min_size=1, max_size=4).filter(without_markers))
def test_text_form_comes_back_as_it_was(messages):
    conversation = Conversation(tuple(messages))
    assert from_text(as_text(conversation)) == conversation


def test_an_empty_column_counts_as_absent():
    assert from_record({"messages": None, "prompt": "Hi", "response": "Hello"}).messages[-1].content == "Hello"
    assert from_record({"messages": None, "response": None, "text": "Hello"}).messages[-1].content == "Hello"
    with pytest.raises(ConversationError, match="neither 'messages'"):
        from_record({"messages": None})
