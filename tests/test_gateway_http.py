"""The proxy over real connections: the official client, an upstream that fails, clients that leave, what is recorded and remembered."""

import asyncio
import json
import threading

import httpx2
import openai
import pytest
from gateway_tools import DONE, Script, ask, completion, frame, gateway, served, spoken, text_in

from demeanor.audit.counts import report
from demeanor.audit.verification import checked, verify
from demeanor.gateway.application import build
from demeanor.gateway.config import load_config
from demeanor.gateway.hooks import Hooks
from demeanor.monitor.replies import load_replies
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, PLAIN, planted_monitor

BAD = load_replies().reply("harmful_plan").text
BROKEN = load_replies().reply("unchecked").text
LONG = FINE + " word" * 60
CALL = [{"index": 0, "id": "t1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": 1}'}}]


@pytest.fixture(scope="module")
def monitor():
    return planted_monitor()


@pytest.fixture
def behind(monitor):
    """A gateway and its scripted upstream, both served on loopback; gives what makes one."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def make(*answers, hooks=None, **config):
            upstream = Script(*answers)
            url = stack.enter_context(served(upstream.app))
            chosen = load_config(None, upstream=url, **config)
            return stack.enter_context(served(build(chosen, monitor, hooks))), upstream

        yield make


def question(said=CALM):
    return {"model": "m", "messages": [{"role": "user", "content": said}]}


def test_the_official_client(behind):
    called = json.loads(completion(None, tool_calls=CALL))
    url, upstream = behind(
        completion(FINE),
        completion(HARMFUL),
        [*spoken(LONG), DONE],
        [*spoken(HARMFUL * 9), DONE],
        json.dumps(called),
        [frame({"role": "assistant", "tool_calls": CALL}), frame({}, "tool_calls"), DONE],
    )
    client = openai.OpenAI(base_url=url, api_key="sk-mine", max_retries=0)
    ask_for = client.chat.completions.create
    assert ask_for(**question()).choices[0].message.content == FINE
    replaced = ask_for(**question()).choices[0]
    assert (replaced.message.content, replaced.finish_reason) == (BAD, "stop")

    def said(stream):
        found = list(stream)
        assert found[-1].choices[0].finish_reason == "stop"
        return "".join(chunk.choices[0].delta.content or "" for chunk in found)

    assert said(ask_for(stream=True, **question())) == LONG
    assert said(ask_for(stream=True, **question())) == BAD
    tools = ask_for(tools=[{"type": "function", "function": {"name": "look_up"}}], **question()).choices[0]
    assert tools.message.tool_calls[0].function.arguments == '{"a": 1}'
    streamed = list(ask_for(stream=True, **question()))
    assert streamed[0].choices[0].delta.tool_calls[0].function.name == "look_up"
    assert {headers["authorization"] for _, _, headers, _ in upstream.requests} == {"Bearer sk-mine"}


def test_the_official_client_asynchronously(behind):
    url, _ = behind(completion(FINE), [*spoken(LONG), DONE])

    async def both():
        async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
            whole = await client.chat.completions.create(**question())
            stream = await client.chat.completions.create(stream=True, **question())
            return whole.choices[0].message.content, "".join([c.choices[0].delta.content or "" async for c in stream])

    assert asyncio.run(both()) == (FINE, LONG)


def test_the_request_goes_on_as_it_came_and_the_key_from_the_environment(monkeypatch, monitor):
    monkeypatch.setenv("DEMEANOR_UPSTREAM_KEY", "sk-ours")
    upstream = Script(completion(FINE))
    sent = {"authorization": "Bearer sk-theirs", "x-demeanor-conversation": "c1", "x-other": "kept", "accept-encoding": "gzip"}
    ask(gateway(monitor, upstream), headers=sent, odd={"z": [1.50]})
    ((method, path, headers, body),) = upstream.requests
    assert (method, path) == ("POST", "/v1/chat/completions")
    assert json.loads(body)["odd"] == {"z": [1.50]}
    assert headers["authorization"] == "Bearer sk-ours"
    assert headers["x-other"] == "kept"
    assert headers["accept-encoding"] == "identity"
    assert not [name for name in headers if name.startswith("x-demeanor")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_the_upstream_s_refusals_come_back_as_they_are(monitor, status, stream):
    body = '{"error": {"message": "no",  "code": null}}'
    got = ask(gateway(monitor, Script((status, body, {"retry-after": "7", "x-request-id": "r"}))), stream=stream)
    assert got.status_code == status
    assert got.text == body
    assert got.headers["retry-after"] == "7"
    assert got.headers["x-request-id"] == "r"


@pytest.mark.parametrize(
    "body", ["", "no json", "{}", '{"choices": []}', '{"error": {}}', '{"choices": [{"index": 0}]}', '{"a": 1, "a": 2}']
)
def test_an_answer_that_cannot_be_read_is_refused(monitor, body):
    got = ask(gateway(monitor, Script(body)))
    assert got.status_code == 502
    assert got.json()["error"]["code"] == "upstream_unreadable"


def test_an_upstream_that_is_not_there(monitor):
    app = build(load_config(None, upstream="http://127.0.0.1:9/v1"), monitor)
    for stream in (False, True):
        got = ask(app, stream=stream)
        assert got.status_code == 502
        assert got.json()["error"]["code"] == "upstream_unreachable"


def test_an_upstream_that_stalls(behind):
    async def stall():
        await asyncio.sleep(30)

    url, upstream = behind([*spoken(LONG)[:40], stall], timeouts={"read": 0.3})
    got = httpx2.post(url + "/chat/completions", json=question() | {"stream": True}, timeout=60)
    assert text_in(got.content).endswith(BROKEN)
    assert got.content.endswith(DONE)
    assert upstream.cancelled == 1


def test_an_upstream_that_breaks_off(behind):
    url, _ = behind([*spoken(LONG)[:40], RuntimeError("gone")])
    got = httpx2.post(url + "/chat/completions", json=question() | {"stream": True}, timeout=60)
    assert text_in(got.content).endswith(BROKEN)
    assert got.content.endswith(DONE)


def test_a_client_that_leaves_cancels_the_upstream(behind):
    left, seen = threading.Event(), threading.Event()

    async def wait():
        await asyncio.to_thread(left.wait, 30)
        await asyncio.sleep(30)

    found = []

    def told(served):
        found.append(served)
        seen.set()

    url, upstream = behind([*spoken(LONG)[:60], wait], hooks=Hooks(served=told))
    with httpx2.stream("POST", url + "/chat/completions", json=question() | {"stream": True}, timeout=60) as got:
        next(got.iter_bytes())
    left.set()
    assert seen.wait(30)
    assert found[0].gone
    assert len(found[0].decisions) == 1  # what was written of it was decided on
    for _ in range(3000):
        if upstream.cancelled:
            break
        threading.Event().wait(0.01)
    assert upstream.cancelled == 1


def test_only_what_carries_no_reply_passes(monitor):
    upstream = Script('{"data": []}')
    app = gateway(monitor, upstream)
    assert ask(app, path="/embeddings").status_code == 200
    for path in ("/responses", "/completions", "/batches", "/files", "/images/generations", "/models/../completions"):
        got = ask(app, path=path)
        assert got.status_code == 404, path
        assert "\n" not in got.json()["error"]["message"]
    assert [path for _, path, _, _ in upstream.requests] == ["/v1/embeddings"]


def test_the_conversation_decides_with_what_was_said_before(monitor):
    app = gateway(monitor, Script(completion(PLAIN)))
    assert ask(app, CALM).headers["x-demeanor-action"] == "allow"
    assert ask(app, AT_RISK).headers["x-demeanor-action"] == "substitute"
    talk = [{"role": "user", "content": AT_RISK}, {"role": "assistant", "content": FINE}, {"role": "user", "content": CALM}]
    assert ask(app, talk).headers["x-demeanor-action"] == "substitute"  # within the last two turns
    tools = [*talk[:1], {"role": "assistant", "content": None, "tool_calls": CALL}, {"role": "tool", "content": "x", "tool_call_id": "t1"}]
    assert ask(app, tools).headers["x-demeanor-action"] == "substitute"


def test_a_reply_to_an_image_is_not_scored_streamed_or_not(monitor):
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    app = gateway(monitor, Script(completion(FINE), [*spoken(LONG), DONE]))
    assert ask(app, image).headers["x-demeanor-not-scored"] == "true"
    got = ask(app, image, stream=True).content
    assert FINE.encode() not in got
    assert text_in(got) == BROKEN


def test_every_decision_is_recorded_and_its_id_leads_there(tmp_path):
    monitor = planted_monitor(audit=tmp_path / "audit.db")
    app = gateway(monitor, Script(completion(FINE), [*spoken(LONG), DONE], [*spoken(HARMFUL * 9), DONE]))
    whole, *streams = ask(app), ask(app, stream=True), ask(app, stream=True)
    records = [record for _, record in checked(tmp_path / "audit.db") if record is not None]
    assert verify(tmp_path / "audit.db").whole
    ids = [whole.headers["x-demeanor-decision"], *(s.headers["x-demeanor-decision"] for s in streams)]
    assert [r["decision"] for r in records if "decision" in r] == ids
    order = ["opened" if "opened" in r else "decided" for r in records]
    assert order == ["decided", "opened", "decided", "opened", "decided"]
    assert report(tmp_path / "audit.db")["interrupted"] == 0


def test_a_stream_that_a_crash_cut_off_reads_as_interrupted(tmp_path):
    from demeanor.audit.log import AuditLog
    from demeanor.audit.records import OpenedRecord

    with AuditLog(tmp_path / "audit.jsonl") as log:
        log.append(OpenedRecord("c", "d1"))
    assert report(tmp_path / "audit.jsonl")["interrupted"] == 1
    assert verify(tmp_path / "audit.jsonl").whole


def test_a_stream_that_cannot_be_recorded_is_not_shown_where_the_policy_says_so(tmp_path):
    from demeanor.testing import planted_policy

    strict = planted_policy().model_copy(update={"audit_failure": "substitute"})
    monitor = planted_monitor(strict, audit=tmp_path / "audit.db")

    def broken(*_):
        raise OSError(28, "No space left on device")

    monitor.audit.append = broken
    got = ask(gateway(monitor, Script([*spoken(LONG), DONE], completion(FINE))), stream=True).content
    assert FINE.encode() not in got
    assert text_in(got) == BROKEN


def test_no_key_and_no_word_is_logged(monitor, caplog, capsys, monkeypatch):
    from demeanor.gateway.desk import Desk

    def broken(*_):
        raise RuntimeError("secret words")

    monkeypatch.setattr(Desk, "judge", broken)
    with caplog.at_level(0):
        assert ask(gateway(monitor, Script(completion(FINE))), "secret words", headers={"authorization": "sk-secret"}).status_code == 500
    shown = caplog.text + "".join(capsys.readouterr())
    assert "secret" not in shown
    assert "RuntimeError" in shown


def test_a_request_that_is_too_large_or_too_much_is_refused(monitor):
    app = gateway(monitor, Script(completion(FINE)), limits={"body_bytes": 2000, "messages": 2, "choices": 2})
    assert ask(app, "x" * 3000).status_code == 413
    assert ask(app, [{"role": "user", "content": "x"}] * 3).json()["error"]["code"] == "too_many_messages"
    assert ask(app, n=3).status_code == 400


def raw_get(app, path):
    """A request whose path is not tidied up by a client; gives the status."""
    sent = []

    async def call():
        first = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive():
            if first:
                return first.pop()
            await asyncio.sleep(30)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
            "root_path": "",
        }
        await app(scope, receive, send)

    asyncio.run(call())
    return sent[0]["status"]


def test_no_path_walks_past_the_list(monitor):
    upstream = Script('{"data": []}')
    app = gateway(monitor, upstream)
    assert raw_get(app, "/v1/models/meta/some-model") == 200
    for name in ("../chat/completions/1", "./../responses/1", "..", "a?b", "a#b", "a\\..\\b", "", "a//b"):
        path = f"/v1/models/{name}"
        assert raw_get(app, path) == 404, path
    assert [path for _, path, _, _ in upstream.requests] == ["/v1/models/meta/some-model"]


def test_the_app_is_made_from_a_configuration_s_path(monitor, tmp_path):
    import demeanor.gateway

    path = tmp_path / "gateway.yaml"
    path.write_text("limits: {choices: 2}\n")
    assert ask(demeanor.gateway.app(path, monitor), n=3).json()["error"]["param"] == "n"
    with pytest.raises(demeanor.errors.GatewayError, match="cannot be read"):
        demeanor.gateway.app(tmp_path / "other.yaml", monitor)


def test_the_app_can_be_mounted(monitor):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    upstream = Script(completion(FINE))
    outer = Starlette(routes=[Mount("/guard", app=gateway(monitor, upstream))])
    assert ask(outer, path="/../guard/v1/chat/completions").status_code == 200
    assert ask(outer, path="/../guard/v1/embeddings").status_code == 200
    assert [path for _, path, _, _ in upstream.requests] == ["/v1/chat/completions", "/v1/embeddings"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_hook_that_fails_takes_no_reply_away(monitor, caplog, stream):
    def broken(*_):
        raise RuntimeError("secret words")

    upstream = Script([*spoken(HARMFUL * 9), DONE] if stream else completion(HARMFUL))
    app = gateway(monitor, upstream, hooks=Hooks(decided=broken, served=broken))
    got = ask(app, "secret words", stream=stream)
    assert got.status_code == 200
    assert BAD in (text_in(got.content) if stream else got.json()["choices"][0]["message"]["content"])
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_a_gateway_that_fails_in_mid_stream_leaves_the_user_with_the_reviewed_reply(monitor, monkeypatch):
    from demeanor.gateway import streamed, words

    words_of_choice, seen = words.words_of_choice, []

    def broken(choice):
        seen.append(choice)
        if len(seen) == 20:
            raise RuntimeError("a fault of ours")
        return words_of_choice(choice)

    monkeypatch.setattr(streamed, "words_of_choice", broken)
    got = ask(gateway(monitor, Script([*spoken(LONG), DONE])), stream=True).content
    assert text_in(got).endswith(BROKEN)
    assert got.endswith(DONE)
