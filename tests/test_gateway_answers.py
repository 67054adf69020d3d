"""Without an upstream: the loaded model answers under watch; check endpoints, moderations, the guardrail, health."""

import json

import pytest
from gateway_tools import ask, chunks, client, text_in, told_in
from monitor_tools import blocked

from demeanor.gateway.application import build
from demeanor.gateway.config import load_config
from demeanor.gateway.guardrail import PATH
from demeanor.monitor.replies import load_replies
from demeanor.monitor.session import Monitor
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, PLAIN, planted_monitor, planted_policy, planted_scorer

SAFE = load_replies().reply("harmful_plan").text


@pytest.fixture(scope="module")
def app():
    return build(load_config(), planted_monitor())


@pytest.fixture(scope="module")
def harmful():
    return build(load_config(), Monitor(planted_scorer("Z"), planted_policy()))


def post(app, path, body):
    import asyncio

    async def call():
        async with client(app) as http:
            return await http.post("http://localhost" + path, json=body)

    return asyncio.run(call())


def get(app, path):
    import asyncio

    async def call():
        async with client(app) as http:
            return await http.get("http://localhost" + path)

    return asyncio.run(call())


def talk(said, reply):
    return {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": reply}]}


def test_the_loaded_model_answers_whole_and_streamed(app):
    got = ask(app, max_tokens=20, temperature=0, seed=1)
    (choice,) = got.json()["choices"]
    assert choice["message"]["content"].startswith("a a a")
    assert choice["finish_reason"] == "length"
    assert got.json()["usage"]["completion_tokens"] == 20
    assert got.headers["x-demeanor-action"] == "allow"
    body = ask(app, max_tokens=20, temperature=0, stream=True, stream_options={"include_usage": True}).content
    assert text_in(body) == choice["message"]["content"]
    assert chunks(body)[-1]["usage"]["completion_tokens"] == 20
    assert [told["action"] for told in told_in(body)] == ["allow"]


def test_a_harmful_answer_of_the_loaded_model_is_replaced(harmful):
    got = ask(harmful, max_tokens=60, temperature=0)
    assert got.json()["choices"][0]["message"]["content"] == SAFE
    assert got.json()["choices"][0]["finish_reason"] == "stop"
    body = ask(harmful, max_tokens=60, temperature=0, stream=True).content
    assert "Z" not in text_in(body)
    assert text_in(body).endswith(SAFE)


def test_choices_stops_and_log_probabilities(app):
    got = ask(app, max_tokens=8, temperature=0, n=2, logprobs=True, top_logprobs=3).json()
    assert [choice["index"] for choice in got["choices"]] == [0, 1]
    tokens = got["choices"][0]["logprobs"]["content"]
    assert tokens[0]["token"] == "a"
    assert len(tokens[0]["top_logprobs"]) == 3
    assert tokens[0]["logprob"] == max(one["logprob"] for one in tokens[0]["top_logprobs"])
    stopped = ask(app, max_tokens=30, temperature=0, stop=[" a a a"]).json()["choices"][0]
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("a", "stop")
    body = ask(app, max_tokens=30, temperature=0, stop=" a a a", stream=True).content
    assert text_in(body) == "a"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("temperature", 3),
        ("top_p", 0),
        ("max_tokens", 0),
        ("max_tokens", 10**6),
        ("stop", 3),
        ("n", 0),
        ("n", True),
        ("top_logprobs", 2),
        ("stream", "yes"),
        ("presence_penalty", 1),
    ],
)
def test_what_the_model_cannot_do_is_refused_in_one_line(app, field, value):
    got = ask(app, **{field: value})
    assert got.status_code == 400
    error = got.json()["error"]
    assert error["message"].count("\n") == 0
    assert error["type"] == "invalid_request_error"


def test_a_check_decides_on_one_conversation_and_on_several(app):
    got = post(app, "/v1/check", talk(AT_RISK, PLAIN))
    assert got.json()["action"] == "substitute"
    assert got.json()["situation"] == "risk_disclosed"
    assert got.headers["x-demeanor-action"] == "substitute"
    assert got.headers["x-demeanor-decision"] == got.json()["decision"]
    rows = [talk(CALM, FINE), {"messages": [{"role": "user", "content": "hm"}]}, talk(CALM, HARMFUL)]
    results = post(app, "/v1/check", {"conversations": rows}).json()["results"]
    assert [row.get("action") for row in results] == ["allow", None, "substitute"]
    assert "assistant" in results[1]["error"]


def test_a_reply_to_an_image_is_not_scored(app):
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    got = post(app, "/v1/check", talk(image, FINE)).json()
    assert got["not_scored"]
    assert got["action"] == "substitute"


def test_scores(app):
    got = post(app, "/v1/score", talk(CALM, HARMFUL)).json()
    assert got["scores"]["harm"]["z"] > 2
    assert "error" in post(app, "/v1/score", talk(CALM, "")).json()


def test_moderations_have_their_shape(app):
    got = post(app, "/v1/moderations", {"input": [FINE, HARMFUL]}).json()
    assert [r["flagged"] for r in got["results"]] == [False, True] or got["results"][1]["flagged"]
    assert got["results"][1]["categories"]["harmful"] is True
    assert set(got["results"][0]["category_scores"]) == set(got["results"][0]["categories"])
    assert post(app, "/v1/moderations", {"input": []}).status_code == 400


def guard(app, kind, texts, call="1", **more):
    return post(app, PATH, {"input_type": kind, "texts": texts, "litellm_call_id": call, **more})


def test_the_guardrail_remembers_what_the_reply_answers(app):
    said = [{"role": "user", "content": AT_RISK}]
    assert guard(app, "request", [AT_RISK], "risk", structured_messages=said).json() == {"action": "NONE"}
    got = guard(app, "response", [PLAIN], "risk").json()
    assert got["action"] == "GUARDRAIL_INTERVENED"
    assert got["texts"] == [load_replies().reply("risk_disclosed").text]
    assert "missed" in got["blocked_reason"]
    assert guard(app, "request", [CALM], "calm", structured_messages=[{"role": "user", "content": CALM}]).json()["action"] == "NONE"
    assert guard(app, "response", [PLAIN], "calm").json()["action"] == "NONE"
    assert guard(app, "response", [HARMFUL, "", FINE], "calm").json()["texts"] == [SAFE, "", FINE]


def test_the_guardrail_never_answers_without_an_action(app):
    for body in ({}, {"input_type": "other", "texts": []}, {"input_type": "response", "texts": "x", "litellm_call_id": "1"}):
        got = post(app, PATH, body)
        assert got.status_code == 400
    assert guard(app, "response", [HARMFUL], None).status_code == 400
    assert guard(app, "request", None).json() == {"action": "NONE"}
    assert guard(app, "response", []).json()["action"] == "NONE"


def test_what_the_guardrail_remembers_is_bounded():
    from demeanor.gateway.guardrail import AGE, LARGEST, Guardrail

    now = [0.0]
    guardrail = Guardrail(checks=None, clock=lambda: now[0], most=3)
    for call in "abcd":
        guardrail._remember(call, {"texts": ["hello"]})
    assert list(guardrail.heard) == ["b", "c", "d"]
    guardrail._remember("e", {"texts": ["x" * LARGEST, "the last"]})
    assert [m.content for m in guardrail.heard["e"].messages] == ["the last"]
    now[0] = AGE + 1
    guardrail._remember("f", {"texts": ["hello"]})
    assert list(guardrail.heard) == ["f"]


def test_too_many_checks_are_refused_with_a_time_to_come_back():
    import asyncio

    monitor = planted_monitor()
    app = build(load_config(limits={"checks": 1}), monitor)
    assert post(app, "/v1/check", {"conversations": [talk(CALM, FINE)] * 3}).status_code == 400

    async def two(gate):
        async with client(app) as http:
            tasks = [asyncio.ensure_future(http.post("/check", json=talk(CALM, FINE))) for _ in range(2)]
            (refused,), waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            gate.set()
            return await waiting.pop(), await refused

    with blocked(monitor.scorer) as gate:
        first, second = asyncio.run(two(gate))
    assert first.status_code == 200
    assert second.status_code == 429
    assert second.headers["retry-after"] == "1"


def test_health_says_what_is_wrong(app, tmp_path, monkeypatch):
    from demeanor.errors import VectorSetError
    from demeanor.gateway import health

    assert get(app, "/healthz").json() == {"status": "ok"}
    assert get(app, "/readyz").status_code == 200
    assert get(app, "/readyz").json()["ready"] is True
    broken = build(load_config(), Monitor(VectorSetError("the vectors are torn"), planted_policy()))
    got = get(broken, "/readyz")
    assert got.status_code == 503
    assert "the vectors are torn" in got.json()["problems"][0]
    assert ask(broken).status_code == 503
    assert get(broken, "/healthz").status_code == 200
    recorded = build(load_config(), planted_monitor(audit=tmp_path / "audit.db"))
    assert get(recorded, "/readyz").status_code == 200
    monkeypatch.setattr(health, "ROOM", 1 << 62)
    assert "full" in get(recorded, "/readyz").json()["problems"][0]


def test_what_is_served_is_described_and_all_else_refused(app):
    paths = get(app, "/openapi.json").json()["paths"]
    assert "/v1/check" in paths
    assert get(app, "/v1/models").json()["data"][0]["object"] == "model"
    for path in ("/v1/responses", "/v1/completions", "/v1/anything", "/"):
        got = post(app, path, {})
        assert got.status_code == 404
        assert got.json()["error"]["code"] == "endpoint_not_served"


def test_a_body_that_cannot_be_read_is_refused(app):
    import asyncio

    async def call(content):
        async with client(app) as http:
            return await http.post("/check", content=content)

    for content in (b"", b"{", b"[]", b'{"messages": 1, "messages": 2}', json.dumps({"messages": ["x"]}).encode()):
        assert asyncio.run(call(content)).status_code == 400
