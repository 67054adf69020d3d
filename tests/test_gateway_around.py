"""What hangs on the gateway: keys, limits, metrics, the log of requests, notices, and that each works whatever the others do."""

import asyncio
import json
import threading

import pytest
from gateway_tools import DONE, Script, ask, client, completion, frame, gateway, served, spoken

from demeanor.errors import GatewayError, KeysError, NoticeError
from demeanor.gateway.around import failure
from demeanor.gateway.config import load_config
from demeanor.gateway.hooks import Hooks
from demeanor.gateway.keys import KeyStore
from demeanor.gateway.notices import NoticeQueue
from demeanor.gateway.starting import calls_nobody, check_open, chosen_policy
from demeanor.gateway.watching import look, samples_of
from demeanor.measure.cuts import withholds
from demeanor.scoring.engine import OVERLOADED
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, planted_monitor, planted_policy

SECRET = "whsec_" + "c2VjcmV0" * 6


@pytest.fixture(scope="module")
def monitor():
    return planted_monitor()


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path / "keys.json")


def get(app, path, headers=None):
    async def call():
        async with client(app) as http:
            return await http.get(f"/..{path}", headers=headers)

    return asyncio.run(call())


def counted(app, name, **labels):
    wanted = set(labels.items())
    found = samples_of(get(app, "/metrics").text).get(name, {})
    return sum(value for has, value in found.items() if wanted <= has)


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_a_key_opens_what_its_scope_names_and_is_not_passed_on(monitor, store):
    upstream = Script(completion(FINE))
    app = gateway(monitor, upstream, keys=store.path)
    web, ops = store.add("web", ["proxy"]).token, store.add("ops", ["admin"]).token
    assert ask(app).json()["error"]["code"] == "missing_api_key"
    assert ask(app, headers=bearer(ops)).status_code == 403
    got = ask(app, headers={"x-demeanor-key": web, "authorization": "Bearer sk-theirs"})
    assert got.status_code == 200
    (_, _, headers, _), *others = upstream.requests
    assert not others
    assert headers["authorization"] == "Bearer sk-theirs"
    assert web not in str(headers)
    for path in ("/metrics", "/openapi.json"):
        assert get(app, path).status_code == 401
        assert get(app, path, bearer(web)).status_code == 403
        assert get(app, path, bearer(ops)).status_code == 200
    assert get(app, "/healthz").status_code == get(app, "/readyz").status_code == 200
    store.revoke("web")
    assert ask(app, headers=bearer(web)).json()["error"]["code"] == "revoked_api_key"


def test_who_asks_is_known_before_the_body_is_read(monitor, store):
    store.add("web", ["proxy"])
    app, read = gateway(monitor, Script(completion(FINE)), keys=store.path), []

    async def receive():
        read.append(1)
        return {"type": "http.request", "body": b"", "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": [], "root_path": ""}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 401
    assert read == []


def test_keys_that_cannot_be_read_let_nobody_in_and_are_said(monitor, store):
    token = store.add("web", ["proxy"]).token
    app = gateway(monitor, Script(completion(FINE)), keys=store.path)
    store.path.write_text("{")
    assert ask(app, headers=bearer(token)).json()["error"]["code"] == "keys_unreadable"
    ready = get(app, "/readyz")
    assert ready.status_code == 503
    assert "keys cannot be read" in ready.json()["problems"][0]


def test_without_keys_a_page_in_a_browser_is_refused(monitor):
    app = gateway(monitor, Script(completion(FINE)))
    assert ask(app, headers={"origin": "https://evil.example"}).json()["error"]["code"] == "not_local"
    assert ask(app, headers={"host": "evil.example"}).status_code == 403
    own = gateway(monitor, Script(completion(FINE)), hooks=Hooks(authorise=lambda headers, scope: "mine"))
    assert ask(own, headers={"host": "my.example"}).status_code == 200  # whoever mounts it may say who comes in


def test_headers_and_a_slow_body_have_limits(monitor):
    app = gateway(monitor, Script(completion(FINE)), limits={"header_bytes": 1024}, timeouts={"body": 0.05})
    assert ask(app, headers={"x-long": "a" * 2000}).json()["error"]["code"] == "headers_too_large"

    sent, never = [], asyncio.Event()

    async def receive():
        await never.wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "root_path": ""}
    asyncio.run(app(scope | {"headers": [(b"host", b"localhost")]}, receive, send))
    assert sent[0]["status"] == 408


def test_requests_beyond_the_limit_are_refused_with_a_time_to_come_back(monitor):
    held, reached = asyncio.Event(), asyncio.Event()

    async def wait():
        reached.set()
        await held.wait()

    async def call():
        async with client(gateway(monitor, Script([wait, *spoken(FINE), DONE]), limits={"requests": 1})) as http:
            body = {"messages": [{"role": "user", "content": CALM}]}
            first = asyncio.ensure_future(http.post("/chat/completions", json=body))
            await reached.wait()
            second = await http.post("/chat/completions", json=body)
            held.set()
            return await first, second, await http.post("/chat/completions", json=body)

    first, second, third = asyncio.run(call())
    assert (first.status_code, third.status_code) == (200, 200)
    assert (second.status_code, second.json()["error"]["code"], second.headers["retry-after"]) == (429, "too_many_requests", "1")


@pytest.mark.parametrize("path", ["/check", "/moderations"])
def test_too_much_work_is_429_at_the_check_endpoints_and_not_scored_in_the_proxy(path, monkeypatch):
    from demeanor.errors import OverloadedError

    monitor = planted_monitor()

    def full(*_):
        raise OverloadedError(f"{OVERLOADED}: 256 wait already")

    monkeypatch.setattr(monitor.engine, "ask", full)
    app = gateway(monitor, Script(completion(FINE)))
    body = {"input": FINE, "messages": [{"role": "user", "content": AT_RISK}, {"role": "assistant", "content": FINE}]}

    async def call():
        async with client(app) as http:
            return await http.post(path, json=body)

    got = asyncio.run(call())
    assert (got.status_code, got.json()["error"]["code"], got.headers["retry-after"]) == (429, "overloaded", "1")
    through = ask(app, AT_RISK)
    assert through.headers["x-demeanor-not-scored"] == "true"
    withheld = any(withholds(rule.not_scored) for rule in monitor.policy.rules)
    assert (FINE in through.text) != withheld
    assert counted(app, "demeanor_decisions_total") == 2


def test_what_happened_is_counted_and_logged_without_words(monitor, capsys):
    app = gateway(monitor, Script(completion(HARMFUL), [*spoken(FINE), DONE], (429, '{"error": {}}', {})))
    ask(app, AT_RISK)
    ask(app, CALM, stream=True)
    ask(app, CALM)
    ask(app, n=0)
    assert counted(app, "demeanor_requests_total", endpoint="chat_completions", status="2xx") == 2
    assert counted(app, "demeanor_requests_total", endpoint="chat_completions", status="429") == 1
    assert counted(app, "demeanor_decisions_total", replaced="true") == 1
    assert counted(app, "demeanor_decisions_total", action="allow") == 1
    assert counted(app, "demeanor_refusals_total", code="invalid_value") == 1
    assert counted(app, "demeanor_upstream_failures_total", kind="429") == 1
    assert counted(app, "demeanor_first_shown_seconds_count") == 2
    assert counted(app, "demeanor_added_seconds_count") >= 2
    assert counted(app, "demeanor_streams_open") == 0
    assert counted(app, "demeanor_batches_total") > 0
    assert counted(app, "demeanor_tokens_read_total") > 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["status"] for line in lines[:4]] == [200, 200, 429, 400]
    assert [d["action"] for line in lines[:4] for d in line["decisions"]][1:] == ["allow"]
    assert HARMFUL not in str(lines)
    assert FINE not in str(lines)
    ask(quiet := gateway(monitor, Script(completion(FINE)), request_log=False))
    assert counted(quiet, "demeanor_requests_total", endpoint="chat_completions") == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("no JSON", "malformed"),
        ((500, "{}", {}), "5xx"),
        ([*spoken(FINE)[:3], b"data: {\n\n"], "malformed"),
        ([*spoken(FINE)[:3], b'data: {"error": {"message": "no"}}\n\n'], "error"),
        ([*spoken(FINE), frame({"content": "x"}, index=7), DONE], "malformed"),
    ],
)
def test_failures_of_the_upstream_are_counted_by_kind(monitor, answer, kind):
    app = gateway(monitor, Script(answer))
    ask(app, stream=isinstance(answer, list))
    assert counted(app, "demeanor_upstream_failures_total") == counted(app, "demeanor_upstream_failures_total", kind=kind) == 1


def test_what_is_no_failure_of_the_upstream_s():
    assert failure(None) is failure("ValueError") is failure("the gateway failed") is None
    assert failure("the upstream did not go on in time") == failure("upstream_timeout") == "timeout"
    assert failure("upstream_503") == "5xx"
    assert failure("upstream_401") == "4xx"


class Received:
    """A receiver of notices; `first` is the answer to the first one."""

    def __init__(self, first=204):
        self.bodies, self.first, self.heard = [], first, threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return
        self.bodies.append(json.loads((await receive())["body"]))
        status = self.first if len(self.bodies) == 1 else 204
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        if status == 204:
            self.heard.set()


def test_a_notice_reaches_the_people_on_duty(monitor, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMEANOR_NOTIFY_SECRET", SECRET)
    receiver = Received(first=500)
    with served(receiver) as url:
        notify = {"webhook": url, "queue": tmp_path / "notices.db", "link": "https://r.example/{decision}", "actions": ["substitute"]}
        upstream = Script(completion(HARMFUL), completion(FINE))
        with served(gateway(monitor, upstream, notify=notify)) as base:
            import httpx2

            body = {"messages": [{"role": "user", "content": AT_RISK}]}
            withheld = httpx2.post(f"{base}/chat/completions", json=body)
            httpx2.post(f"{base}/chat/completions", json={"messages": [{"role": "user", "content": CALM}]})
            assert receiver.heard.wait(30)
            seen = look(base.removesuffix("/v1"))
    decision = withheld.headers["x-demeanor-decision"]
    first, again = receiver.bodies
    assert first == again
    assert (first["decision"], first["action"], first["link"]) == (decision, "substitute", f"https://r.example/{decision}")
    assert HARMFUL not in json.dumps(first)
    assert seen.ready
    assert seen.total("demeanor_notices_total", result="failed") == 1


def test_a_queue_that_fails_takes_no_reply_away_and_is_said(monitor, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMEANOR_NOTIFY_SECRET", SECRET)

    def full(*_):
        raise NoticeError("the disk is full")

    monkeypatch.setattr(NoticeQueue, "add", full)
    notify = {"webhook": "http://127.0.0.1:9/", "queue": tmp_path / "notices.db", "actions": ["substitute"]}
    app = gateway(monitor, Script(completion(HARMFUL)), notify=notify)
    got = ask(app, AT_RISK)
    assert got.status_code == 200
    assert HARMFUL not in got.text
    assert counted(app, "demeanor_decisions_total") == 1  # counted all the same
    assert "NoticeError" in get(app, "/readyz").json()["problems"][0]


def test_each_result_is_an_event(monitor, monkeypatch):
    pytest.importorskip("opentelemetry")
    from demeanor.gateway import otel

    emitted = []
    monkeypatch.setattr(otel.EvaluationEvents, "emit", lambda self, decision, id_: emitted.append((decision.action, id_)))
    got = ask(gateway(monitor, Script(completion(FINE)), otel=True))
    assert emitted == [("allow", got.headers["x-demeanor-decision"])]


def test_a_gateway_that_others_reach_needs_keys_and_a_policy(store, tmp_path):
    with pytest.raises(KeysError, match="without keys"):
        check_open(load_config(host="0.0.0.0"))
    store.add("web", ["proxy"])
    store.revoke("web")
    with pytest.raises(KeysError, match="no valid key"):
        check_open(load_config(host="0.0.0.0", keys=store.path))
    store.add("web", ["proxy"])
    check_open(load_config(host="0.0.0.0", keys=store.path))
    with pytest.raises(GatewayError, match="policy none"):
        check_open(load_config(host="0.0.0.0", keys=store.path, policy="none"))
    check_open(load_config(policy="none"))


def test_policy_none_judges_nothing():
    monitor = planted_monitor(chosen_policy(load_config(policy="none")))
    app = gateway(monitor, Script(completion(HARMFUL), [*spoken(HARMFUL), DONE]))
    assert HARMFUL in ask(app, AT_RISK).text
    assert ask(app, AT_RISK, stream=True).content.endswith(DONE)
    assert monitor.policy.policy.identity.startswith("none (")


def test_escalation_without_anybody_to_call_is_refused(command, tmp_path, monkeypatch):
    policy = planted_policy()
    rule = policy.rules[0].model_copy(update={"action": "escalate", "situation": "unchecked"})
    escalating = policy.model_copy(update={"rules": (rule, *policy.rules[1:])})
    resolved = planted_monitor(escalating).policy
    assert "notify" in calls_nobody(load_config(), resolved)
    assert calls_nobody(load_config(), planted_monitor().policy) is None
    assert calls_nobody(load_config(notify={"webhook": "https://h.example"}), resolved) is None
    assert calls_nobody(load_config(notify={"webhook": "https://h.example", "actions": ["flag"]}), resolved) is not None
    from demeanor.monitor.policy import default_policy_text

    path = tmp_path / "policy.yaml"
    path.write_text(default_policy_text().replace("action: substitute", "action: escalate", 1))
    done = command("serve", "--check", "--policy", path)
    assert (done.returncode, "nobody would be told" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("webhook", "said"), [("http://hooks.example", "plain text"), ("https://u:p@h.example", "password"), ("x", "https://")]
)
def test_an_unsafe_webhook_is_refused(webhook, said):
    with pytest.raises(GatewayError, match=said):
        load_config(notify={"webhook": webhook})
