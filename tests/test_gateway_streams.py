"""Streams through the gateway's state machine: what is sent, byte for byte, whatever the upstream does and however it is cut."""

import json

import pytest
from gateway_tools import DONE, ID, chunks, frame, spoken, text_in, told_in

from demeanor.gateway.streamed import StreamedAnswer
from demeanor.measure.cuts import Action
from demeanor.monitor.replies import load_replies
from demeanor.testing import FINE, HARMFUL, planted_monitor

BAD = load_replies().reply("harmful_plan").text
BROKEN = load_replies().reply("unchecked").text
LONG = FINE + " word" * 60
TURNS_BAD = LONG + " " + HARMFUL * 8 + " and more" * 20


@pytest.fixture(scope="module")
def monitor():
    return planted_monitor()


class Answer:
    """A stream of n choices through planted sessions."""

    def __init__(self, monitor, n=1, enforce=True):
        self.sessions = {}

        def watch(index):
            session = self.sessions[index] = monitor.session(f"c{index}", "User: I cannot sleep.")
            return session.stream(), False

        self.answer = StreamedAnswer(watch, n, enforce)

    def run(self, *pieces, error=None):
        out = [self.answer.take(piece) for piece in pieces]
        self.pieces = [*out, self.answer.end(error)]
        return b"".join(self.pieces)


def run(monitor, *pieces, n=1, error=None):
    return Answer(monitor, n).run(*pieces, error=error)


def without_told(body):
    return b"".join(f + b"\n\n" for f in body.split(b"\n\n") if f and b'"demeanor"' not in f)


def actions(body):
    return [told["action"] for told in told_in(body)]


def finishes(body, index=0):
    return [c["finish_reason"] for chunk in chunks(body) for c in chunk["choices"] or [] if c["index"] == index and c["finish_reason"]]


def test_allowed_frames_are_sent_while_the_reply_goes_on(monitor):
    answer = Answer(monitor)
    answer.run(*spoken(LONG), DONE)
    sent = [i for i, piece in enumerate(answer.pieces) if piece]
    assert sent[0] == 0  # the role, at once
    assert sent[1] < len(answer.pieces) // 2
    assert len(sent) > 5


def test_nothing_of_a_withheld_reply_is_sent_in_any_field(monitor):
    secret = "SECRET"
    hidden = {
        "logprobs": {"content": [{"token": secret, "logprob": -1.0}]},
        "tool_calls": [{"index": 0, "function": {"name": "f", "arguments": secret}}],
        "audio": {"id": "a", "data": secret, "transcript": "Z " * 40},
        "reasoning_content": f"ZZ {secret}",
        "refusal": "Z " * 20,
        "annotations": [{"url": secret}],
        "something_new": {"deep": [secret]},
    }
    for field, value in hidden.items():
        delta = {"role": "assistant", "content": "Z" * 12, **({field: value} if field != "logprobs" else {})}
        one = frame(delta)
        if field == "logprobs":
            one = one.replace(b'"logprobs": null', b'"logprobs": ' + json.dumps(value).encode())
        body = run(monitor, one, frame({}, "stop"), DONE)
        assert secret.encode() not in body, field
        assert text_in(body) == BAD, field
        assert b"Z" not in body, field
        assert finishes(body) == ["stop"]


def test_words_in_every_field_are_judged(monitor):
    for delta in (
        {"refusal": HARMFUL},
        {"content": [{"type": "text", "text": HARMFUL}]},
        {"content": [{"type": "refusal", "refusal": HARMFUL}]},
        {"audio": {"transcript": HARMFUL}},
        {"content": FINE, "reasoning_content": HARMFUL},
        {"content": FINE, "reasoning": HARMFUL},
        {"reasoning_content": HARMFUL},
        {"reasoning_content": HARMFUL, "tool_calls": [{"index": 0}]},
        {"content": HARMFUL, "tool_calls": [{"index": 0}]},
    ):
        body = run(monitor, frame({"role": "assistant"} | delta), frame({}, "stop"), DONE)
        assert actions(body) == ["substitute"], delta
        assert text_in(body) == BAD


def test_reasoning_streams_and_is_sent_with_the_reply(monitor):
    frames = [
        frame({"role": "assistant"}),
        *(frame({"reasoning_content": "some thought "}) for _ in range(20)),
        *spoken(LONG)[1:],
    ]
    answer = Answer(monitor)
    assert without_told(answer.run(*frames, DONE)) == b"".join([*frames, DONE])
    assert any(b"reasoning" in piece for piece in answer.pieces[:-2])


def test_calls_of_tools_without_words_pass_unjudged(monitor):
    frames = [
        frame({"role": "assistant", "content": None, "tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]}),
        frame({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        frame({"content": "\n\n"}),
        frame({}, "tool_calls"),
        DONE,
    ]
    body = run(monitor, *frames)
    assert without_told(body) == b"".join(frames)
    assert told_in(body) == [{"action": "not-judged", "rules": [], "decision": None}]


def test_calls_of_tools_wait_for_the_words_beside_them(monitor):
    call = frame({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}]})
    fine = [*spoken(LONG)[:-1], call, frame({}, "tool_calls"), DONE]
    answer = Answer(monitor)
    assert without_told(answer.run(*fine)) == b"".join(fine)
    assert not any(b"tool_calls" in piece for piece in answer.pieces[:-3])
    body = run(monitor, call, *spoken(HARMFUL * 3)[:-1], frame({}, "tool_calls"), DONE)
    assert b"arguments" not in body
    assert finishes(body) == ["stop"]


def test_usage_comments_and_unknown_fields_pass(monitor):
    usage = b'data: {"id":"chatcmpl-1","choices":[],"usage":{"total_tokens":7}}\n\n'
    none = b'data: {"id":"chatcmpl-1","choices":null,"usage":{"total_tokens":7}}\r\n\r\n'
    frames = [b": ping\n\n", *spoken(LONG, usage=None, obfuscation="x", vendor={"a": 1}), usage, none, DONE]
    assert without_told(run(monitor, *frames)) == b"".join(frames)


def test_a_comment_is_sent_at_once(monitor):
    answer = Answer(monitor).answer
    answer.take(b"".join(spoken("word " * 12)[:-1]))
    assert answer.take(b": ping\n\n") == b": ping\n\n"


def test_choices_are_judged_each_for_itself(monitor):
    frames = []
    for one, other in zip(spoken(LONG), spoken(HARMFUL * 30, index=1), strict=False):
        frames += [one, other]
    frames = [f.replace(b'"index": 0', b'"index": 1', 1) if i % 2 else f for i, f in enumerate(frames)]
    left = [
        *spoken(LONG)[len(frames) // 2 :],
        *(f.replace(b'"index": 0', b'"index": 1', 1) for f in spoken(HARMFUL * 30)[len(frames) // 2 :]),
    ]
    body = run(monitor, *frames, *left, DONE, n=2)
    assert text_in(body) == LONG
    assert finishes(body) == ["stop"]
    assert text_in(body, 1) == BAD
    assert finishes(body, 1) == ["stop"]


def test_choices_in_one_frame_are_taken_apart(monitor):
    def both(*texts, finish=None):
        choices = [{"index": i, "delta": {"content": text} if text else {}, "finish_reason": finish} for i, text in enumerate(texts)]
        return f"data: {json.dumps(ID | {'choices': choices})}\n\n".encode()

    fine = [both(FINE, FINE), both("", "", finish="stop"), DONE]
    assert without_told(run(monitor, *fine, n=2)) == b"".join(fine)
    body = run(monitor, both(FINE, HARMFUL), both("", "", finish="stop"), DONE, n=2)
    assert text_in(body) == FINE
    assert text_in(body, 1) == BAD
    assert b"ZZ" not in body
    assert (finishes(body), finishes(body, 1)) == (["stop"], ["stop"])


def test_what_was_shown_stays_and_the_session_goes_on_from_it(monitor):
    answer = Answer(monitor)
    body = answer.run(*spoken(TURNS_BAD), DONE)
    assert text_in(body).startswith(FINE)
    assert text_in(body).endswith("\n\n" + BAD)
    assert answer.sessions[0].messages[-1].content == text_in(body)
    assert answer.answer.over


RECORDED = b"".join(spoken(LONG[:90] + " … 😀 é" + HARMFUL * 3, 9)).replace(b"\n\n", b"\r\n\r\n", 3) + DONE


def test_a_stream_cut_anywhere_shows_the_same_and_decides_the_same(monitor):
    whole = run(monitor, RECORDED)
    assert text_in(whole).endswith(BAD)
    for cut in range(1, len(RECORDED), 41):
        body = run(monitor, RECORDED[:cut], RECORDED[cut:])
        assert text_in(body) == text_in(whole), cut
        assert actions(body) == actions(whole), cut


class Fixed:
    """Shows all but the last 10 characters, and withholds what holds a Z: as a session's stream, without a model."""

    def __init__(self):
        self.id, self.text, self.shown, self.decision, self.stopped = "d", "", "", None, None

    def begin(self):
        pass

    def feed(self, chunk):
        if self.stopped is None:
            self.text += chunk
            if "Z" in self.text:
                self.stopped = True
                self.text = self.text[: self.text.index("Z")]
            self.shown = self.text[: max(0, len(self.text) - 10)]
        return ""

    def finish(self):
        from demeanor.monitor.decision import Decision

        if self.decision is None:
            action: Action = "allow" if self.stopped is None else "substitute"
            self.decision = Decision(action, None, (), None, self.text if self.stopped is None else "REVIEWED", "observed", id="d")
            self.shown = self.text if self.stopped is None else self.shown + ("\n\n" if self.shown else "") + "REVIEWED"
        return ""

    def fail(self, error):
        self.stopped = self.stopped or error

    def abandon(self):
        self.finish()


@pytest.mark.parametrize("text", [LONG[:120] + " … 😀 é end", LONG[:90] + " … 😀 é Z more"])
def test_a_stream_cut_at_every_byte_is_the_same_to_the_byte(text):
    recorded = (b": ping\r\n\r\n" + b"".join(spoken(text, 7)) + DONE).replace(b"}\n\n", b"}\r\n\r\n", 2).replace(b"}\n\n", b"}\r\r", 1)

    def sent(*pieces):
        answer = StreamedAnswer(lambda _: (Fixed(), False), 1, True)
        return b"".join([*(answer.take(piece) for piece in pieces), answer.end()])

    whole = sent(recorded)
    assert text_in(whole.replace(b"\r\r", b"\n\n")) == (text if "Z" not in text else text[: text.index("Z") - 10] + "\n\nREVIEWED")
    assert sent(*(recorded[i : i + 1] for i in range(len(recorded)))) == whole
    for cut in range(1, len(recorded)):
        assert sent(recorded[:cut], recorded[cut:]) == whole


@pytest.mark.parametrize(
    "after",
    [
        [b"data: {not json\n\n"],
        [b'data: {"choices": [{"index": 0, "delta": 3}]}\n\n'],
        [b'data: {"choices": [{"index": 7, "delta": {}}]}\n\n'],
        [b'data: {"choices": [{"index": 0, "delta": {"content": "a", "content": "b"}}]}\n\n'],
        [b"data: \xff\xfe\n\n"],
        [b'data: {"error": {"message": "overloaded"}}\n\n'],
        [b'event: error\ndata: {"error": {"message": "overloaded"}}\n\n'],
        [],
    ],
)
@pytest.mark.parametrize("said", [0, 40])
def test_an_upstream_that_fails_is_replaced_by_the_reviewed_reply(monitor, after, said):
    body = run(monitor, *spoken(LONG)[:said], *after, error=None if after else "it broke off")
    assert text_in(body).endswith(BROKEN)
    assert LONG.startswith(text_in(body).removesuffix(BROKEN).rstrip())
    assert finishes(body) == ["stop"]
    assert body.endswith(DONE)
    assert b"error" not in body


def test_an_end_without_done_or_without_a_finish(monitor):
    frames = spoken(LONG)
    assert without_told(run(monitor, *frames)) == b"".join(frames)  # some servers send no [DONE]
    frames = [*spoken(LONG)[:-1], DONE]  # others no finish_reason
    assert without_told(run(monitor, *frames)) == b"".join(frames)
    frames = [*spoken(LONG), DONE.strip()]  # the last line break is missing
    assert without_told(run(monitor, *frames)).rstrip() == b"".join(frames)
    body = run(monitor, *spoken(HARMFUL * 4))
    assert text_in(body) == BAD
    assert body.endswith(DONE)


def test_two_finish_reasons(monitor):
    frames = [*spoken(LONG), frame({}, "length"), DONE]
    assert without_told(run(monitor, *frames)) == b"".join(frames)
    late = [*spoken(LONG), frame({"content": HARMFUL}, "length"), DONE]
    assert text_in(run(monitor, *late)) == LONG  # what comes after the end was not judged
    body = run(monitor, *spoken(HARMFUL), frame({}, "length"), DONE)
    assert finishes(body) == ["stop"]


def test_an_empty_reply_is_replaced(monitor):
    for frames in ([DONE], [], [frame({"role": "assistant", "content": ""}), frame({}, "stop"), DONE]):
        body = run(monitor, *frames)
        assert text_in(body) == BROKEN
        assert finishes(body) == ["stop"]


def test_a_trial_run_shows_everything_as_it_comes():
    answer = Answer(planted_monitor(enforce=False), enforce=False)
    frames = [*spoken(HARMFUL * 3), DONE]
    assert without_told(answer.run(*frames)) == b"".join(frames)
    assert actions(b"".join(answer.pieces)) == ["substitute"]
    assert told_in(b"".join(answer.pieces))[0]["trial"] is True
    error = b'data: {"error": {"message": "overloaded"}}\n\n'
    assert error in Answer(planted_monitor(enforce=False), enforce=False).run(*spoken(LONG)[:9], error)


@pytest.mark.parametrize("text", [FINE, HARMFUL])
def test_a_stream_that_breaks_off_within_a_frame_leaves_the_reviewed_reply_whole(monitor, text):
    frames = spoken(text)
    for cut in range(len(frames[1]) + 1):  # "d", "dat", "data: {" must not stand before a frame of ours
        body = run(monitor, frames[0], frames[1][:cut], error="the upstream broke off")
        assert text_in(body) in (BROKEN, BAD), (cut, body)
        assert all(line.startswith((b"data: ", b": ")) or not line for line in body.split(b"\n")), (cut, body)


def test_a_last_frame_without_a_blank_line_does_not_swallow_what_follows(monitor):
    body = run(monitor, *spoken(FINE)[:-1], frame({}, "stop").rstrip(b"\n"))
    assert text_in(body) == FINE
    assert text_in(run(monitor, *spoken(HARMFUL)[:-1], frame({}, "stop").rstrip(b"\n"))) == BAD
    assert body.endswith(b"\n\n")
