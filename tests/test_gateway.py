"""The proxy: what is allowed passes byte for byte, of what is withheld nothing passes in any field."""

import pytest
from gateway_tools import DONE, Script, ask, completion, gateway, spoken, text_in, told_in

from demeanor.monitor.replies import load_replies
from demeanor.testing import FINE, HARMFUL, planted_monitor


@pytest.fixture(scope="module")
def monitor():
    return planted_monitor()


def test_a_whole_reply_that_is_allowed_passes_byte_for_byte(monitor):
    body = completion(FINE).replace(", ", " ,   ")
    upstream = Script(body)
    got = ask(gateway(monitor, upstream))
    assert got.status_code == 200
    assert got.content == body.encode()
    assert got.headers["x-demeanor-action"] == "allow"


def test_a_whole_reply_that_is_withheld_is_replaced(monitor):
    got = ask(gateway(monitor, Script(completion(HARMFUL, refusal=None, reasoning_content="ZZZZ hidden"))))
    (choice,) = got.json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == load_replies().reply("harmful_plan").text
    assert "Z" not in got.text
    assert got.headers["x-demeanor-action"] == "substitute"
    assert got.headers["x-demeanor-rules"] == "harmful,odd"


def without_told(body):
    return b"".join(f + b"\n\n" for f in body.split(b"\n\n") if f and b'"demeanor"' not in f)


def test_a_stream_that_is_allowed_passes_frame_for_frame(monitor):
    frames = [*spoken(FINE + " word" * 60), DONE]
    got = ask(gateway(monitor, Script(frames)), stream=True)
    assert without_told(got.content) == b"".join(frames)
    assert [t["action"] for t in told_in(got.content)] == ["allow"]


def test_a_stream_that_is_withheld_ends_with_the_reviewed_reply(monitor):
    frames = [*spoken(FINE + " word" * 60 + " " + HARMFUL * 8), DONE]
    got = ask(gateway(monitor, Script(frames)), stream=True)
    text = text_in(got.content)
    assert text.startswith(FINE)
    assert text.endswith("\n\n" + load_replies().reply("harmful_plan").text)
    assert "Z" not in text
    assert got.content.endswith(DONE)
    assert [t["action"] for t in told_in(got.content)] == ["substitute"]
