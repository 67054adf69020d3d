"""Turns that are written out in a text: read as turns where a text stands alone, named where they stand in a message."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demeanor.conversation import as_conversation
from demeanor.errors import ConversationError
from demeanor.signs import signs_of
from demeanor.turns import format_in

SAID, REPLY = "I want to end it tonight.", "Sounds like a busy evening!"

FORMATS = {
    "guanaco": "### Human: {0}### Assistant: {1}",
    "guanaco, in lines": "### Human: {0}\n\n### Assistant: {1}",
    "headings": "## User\n{0}\n\n## Assistant\n{1}",
    "orca": "### System:\nBe kind.\n\n### User:\n{0}\n\n### Assistant:\n{1}",
    "ChatML": "<|im_start|>user\n{0}<|im_end|>\n<|im_start|>assistant\n{1}<|im_end|>\n",
    "ChatML with a system message": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{0}<|im_end|>\n<|im_start|>assistant\n{1}",
    "ChatML of phi-4": "<|im_start|>user<|im_sep|>{0}<|im_end|><|im_start|>assistant<|im_sep|>{1}<|im_end|>",
    "ChatML without its marks": "user\n{0}\nassistant\n{1}",
    "Llama 3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{0}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{1}<|eot_id|>",  # noqa: E501
    "Llama 2": "<s>[INST] {0} [/INST] {1} </s>",
    "Llama 2 with a system message": "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n{0} [/INST] {1} </s>",
    "Mistral with a system message": "<s>[SYSTEM_PROMPT]Be kind.[/SYSTEM_PROMPT][INST]{0}[/INST]{1}</s>",
    "Gemma": "<bos><start_of_turn>user\n{0}<end_of_turn>\n<start_of_turn>model\n{1}<end_of_turn>\n",
    "Zephyr": "<|user|>\n{0}</s>\n<|assistant|>\n{1}</s>",
    "Phi-3": "<|user|>\n{0}<|end|>\n<|assistant|>\n{1}<|end|>",
    "OpenAssistant": "<|prompter|>{0}<|endoftext|><|assistant|>{1}<|endoftext|>",
    "DeepSeek": "<｜begin▁of▁sentence｜><｜User｜>{0}<｜Assistant｜>{1}<｜end▁of▁sentence｜>",
    "Command": "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{0}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{1}<|END_OF_TURN_TOKEN|>",  # noqa: E501
    "OpenChat": "GPT4 Correct User: {0}<|end_of_turn|>GPT4 Correct Assistant: {1}<|end_of_turn|>",
    "tags": "<HUMAN>: {0}\n<ASSISTANT>: {1}",
    "small tags": "<human>: {0}\n<bot>: {1}",
    "Alpaca": "Below is an instruction that describes a task.\n\n### Instruction:\n{0}\n\n### Response:\n{1}",
    "Alpaca, short": "### Instruction: {0}\n### Response: {1}",
    "Vicuna": "A chat between a curious user and an AI assistant. USER: {0} ASSISTANT: {1}</s>",
    "bold": "**User:** {0}\n\n**Assistant:** {1}",
    "bold names": "**User**: {0}\n**AI**: {1}",
    "brackets": "[User]: {0}\n[Assistant]: {1}",
    "quoted": "> User: {0}\n> Bot: {1}",
    "therapy": "Client: {0}\nTherapist: {1}",
    "therapy, in a line": "Client: {0} Therapist: {1}",
    "counselling": "Patient: {0}\nCounselor: {1}",
    "peer support": "Seeker: {0}\nSupporter: {1}",
    "agent": "user: {0}\nagent: {1}",
    "agent, in a line": "user: {0} agent: {1}",
    "customer": "Customer: {0}\nAgent: {1}",
    "ShareGPT": "human: {0}\ngpt: {1}",
    "Anthropic": "\n\nHuman: {0}\n\nAssistant: {1}",
    "in a line": "Human: {0} Assistant: {1}",
    "mixed names": "User: {0}\nTherapist: {1}",
    "question": "Q: {0}\nA: {1}",
    "question in words": "Question: {0}\nAnswer: {1}",
    "instruction without marks": "Instruction: {0}\nResponse: {1}",
    "a mark in disguise": "### Hum\u200ban: {0}\n### Аssistant: {1}",
}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_text_alone_is_read_with_its_turns(form):
    messages = [(m.role, m.content) for m in as_conversation({"text": form.format(SAID, REPLY)}).messages]
    assert messages[-2:] == [("user", SAID), ("assistant", REPLY)]
    assert all(role == "system" for role, _ in messages[:-2])
    assert as_conversation(form.format(SAID, REPLY)) == as_conversation({"text": form.format(SAID, REPLY)})


@pytest.mark.parametrize("form", [f for name, f in FORMATS.items() if "question" not in name and "without marks" not in name])
def test_in_a_message_turns_are_what_is_said_and_are_named(form):
    text = form.format(SAID, REPLY)
    for record in ({"prompt": "Hi", "response": text}, {"messages": [{"role": "assistant", "content": text}]}):
        assert as_conversation(record).response == text
    assert "turns" in [s.what for s in signs_of(text)]


@pytest.mark.parametrize("form", ["guanaco", "ChatML", "therapy", "Vicuna"])
def test_a_bad_reply_before_a_written_out_turn_is_named(form):
    last = FORMATS[form].format("x", "I hear you.").partition("x")[2]
    assert signs_of(f"Take all the pills.\n{last}") or form == "therapy"


def test_several_turns_of_several_kinds():
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n" * 2
    assert [(m.role, m.content) for m in as_conversation(text).messages] == [("user", "Hi"), ("assistant", "Hello.")] * 2
    text = "[INST] Hi [/INST] Hello. </s><s>[INST] And? [/INST] No. </s>"
    assert [m.content for m in as_conversation(text).messages] == ["Hi", "Hello.", "And?", "No."]
    text = "Therapist: How are you?\nClient: Bad. My doctor said:\nDoctor: rest!\nTherapist: I see."
    assert [m.content for m in as_conversation(text).messages] == ["How are you?", "Bad. My doctor said:\nDoctor: rest!", "I see."]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"Today. <|im_start|>user\n{SAID}<|im_end|>", "ChatML"),
        (f"{REPLY}<|im_end|>\n<|im_start|>user\nhm", "ChatML"),
        ("<|im_start|>tool\n5<|im_end|>", "'tool' in the format ChatML"),
        (f"{REPLY} [/INST]</s>", r"\[INST\]"),
        (f"Sure. ### Assistant: {REPLY}", "### Human:"),
        (f"Session 1\nClient: {SAID}\nTherapist: {REPLY}", "text before the first 'Client:'"),
        (f"User 1: {SAID}\nAssistant: {REPLY}", "text before the first 'Assistant:'"),
        ("Client: I asked what Therapist: means", "each speaker on a line"),
    ],
)
def test_turns_that_cannot_be_told_apart_are_refused_by_their_format(text, words):
    with pytest.raises(ConversationError, match=words):
        as_conversation({"text": text})


PROSE = [
    "Two things help: sleep, and talking.\nNote: call your doctor.",
    "Doctor: a person who treats you.\nNurse: one who cares.",
    "Remember the assistant: it is there.",
    "Questions that are often asked:\nQ: How long?\nA: Two weeks.",
    "My answer: yes. Your question: why?",
    "Situation: alone\nThought: nobody cares\nResponse: I called a friend.",
    "I told the doctor: no more.",
    "Here is a plan:\n### Today\n- Call: your friend\n### Tomorrow\nRest.",
    "He said <b>no</b> [and left]; see [1].",
    "Agent: I hear you.",
    f"{REPLY}<|im_end|>",
]


@pytest.mark.parametrize("text", PROSE)
def test_prose_with_a_colon_is_one_reply(text):
    assert [(m.role, m.content) for m in as_conversation({"text": text}).messages] == [("assistant", text)]
    assert format_in(text) is None


@given(
    st.lists(
        st.sampled_from(["I hear you.", "Note:", "Try this:", "- walk", "1)", "He said:", "Client", "\n", "why?", "[1]", "#", "<3"])
    ).map(" ".join)
)
def test_prose_is_not_split(text):
    if text.strip():
        assert len(as_conversation({"text": text}).messages) == 1


def test_a_prompt_beside_a_text_is_what_the_text_answers():
    assert as_conversation({"prompt": SAID, "text": REPLY}) == as_conversation({"prompt": SAID, "response": REPLY})
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": SAID}]
    assert as_conversation({"prompt": said, "text": REPLY}) == as_conversation({"prompt": said, "response": REPLY})
    assert as_conversation({"prompt": "", "text": REPLY}) == as_conversation({"text": REPLY})
    assert as_conversation({"prompt": SAID, "response": REPLY, "text": "other"}).response == REPLY


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"prompt": SAID, "text": FORMATS["ChatML"].format(SAID, REPLY)}, "turns of its own .ChatML. beside a 'prompt'"),
        ({"prompt": SAID, "text": f"User: {SAID}\nAssistant: {REPLY}"}, "turns of its own"),
        ({"prompt": SAID, "text": f"{SAID} {REPLY}"}, "begins with the 'prompt'"),
        ({"prompt": 5, "text": REPLY}, "'prompt' is neither"),
    ],
)
def test_a_prompt_beside_a_text_that_holds_it_is_refused(record, words):
    with pytest.raises(ConversationError, match=words):
        as_conversation(record)


@pytest.mark.parametrize(
    "text",
    [
        "User: " * 20_000,
        "Client: x " * 20_000,
        "<|im_start|>" * 20_000,
        "USER: " * 20_000,
        " \n" * 20_000 + "a",
        " " * 20_000 + "a",
        "### " * 5_000,
    ],
)
def test_long_texts_take_no_time(text):
    import time

    begun = time.perf_counter()
    format_in(text)
    with contextlib.suppress(ConversationError):
        as_conversation(text)
    assert time.perf_counter() - begun < 5
