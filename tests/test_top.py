"""`demeanor top` on recorded pages of a gateway: what it says, and what it says where there is none."""

import json
import math
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

pytest.importorskip("prometheus_client")
pytest.importorskip("httpx2")

from demeanor.errors import UnseenGatewayError
from demeanor.gateway.watching import Seen, look, quantile, rate, samples_of, since

RECORDED = """\
# HELP demeanor_requests_total Requests that were answered.
# TYPE demeanor_requests_total counter
demeanor_requests_total{endpoint="chat_completions",status="2xx"} 120.0
demeanor_requests_total{endpoint="check",status="429"} 3.0
# HELP demeanor_refusals_total Requests that were refused, by the error's code.
# TYPE demeanor_refusals_total counter
demeanor_refusals_total{code="invalid_api_key"} 2.0
# HELP demeanor_decisions_total Decisions about replies.
# TYPE demeanor_decisions_total counter
demeanor_decisions_total{action="allow",replaced="false"} 110.0
demeanor_decisions_total{action="substitute",replaced="true"} 9.0
demeanor_decisions_total{action="substitute",replaced="false"} 1.0
# HELP demeanor_rules_fired_total Rules that fired.
# TYPE demeanor_rules_fired_total counter
demeanor_rules_fired_total{rule="crisis"} 8.0
# HELP demeanor_not_scored_total Replies that could not be scored, by kind of reason.
# TYPE demeanor_not_scored_total counter
demeanor_not_scored_total{reason="no_user_message"} 4.0
# HELP demeanor_added_seconds How long words of the upstream's were held back before they were sent.
# TYPE demeanor_added_seconds histogram
demeanor_added_seconds_bucket{le="0.1"} 50.0
demeanor_added_seconds_bucket{le="0.5"} 90.0
demeanor_added_seconds_bucket{le="1.0"} 98.0
demeanor_added_seconds_bucket{le="+Inf"} 100.0
demeanor_added_seconds_count 100.0
demeanor_added_seconds_sum 20.0
# HELP demeanor_queue_depth Replies that wait to be read.
# TYPE demeanor_queue_depth gauge
demeanor_queue_depth 5.0
# HELP demeanor_notices_undelivered Notices that wait to be delivered.
# TYPE demeanor_notices_undelivered gauge
demeanor_notices_undelivered NaN
# HELP demeanor_build_info Versions of what runs.
# TYPE demeanor_build_info gauge
demeanor_build_info{version="0.9",policy="guarded"} 1.0
"""
READY = json.dumps({"ready": True, "problems": []})


def seen(text=RECORDED, at=0.0):
    return Seen(True, (), samples_of(text), at)


class Gateway(HTTPServer):
    """Answers with recorded pages on loopback."""

    def __init__(self, metrics=(200, RECORDED), ready=(200, READY)):
        self.pages, self.asked = {"/metrics": metrics, "/readyz": ready}, []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __exit__(self, *exc):
        self.shutdown()
        super().__exit__(*exc)


class Handler(BaseHTTPRequestHandler):
    """One request to Gateway."""

    server: Any

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("authorization")))
        status, body = self.server.pages[self.path]
        self.send_response(status)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        """Nothing to standard error."""


def rows(text):
    """The lines of a table by their words before the last columns."""
    return {line[:34].strip(): line[34:].split() for line in text.splitlines()}


def test_once_prints_what_the_gateway_says(command, monkeypatch):
    monkeypatch.setenv("DEMEANOR_KEY", "dmn_x")
    with Gateway() as gateway:
        done = command("top", f"{gateway.url}/", "--once")
    assert done.returncode == 0
    assert gateway.asked == [("/metrics", "Bearer dmn_x"), ("/readyz", "Bearer dmn_x")]
    lines = [line.split() for line in done.stdout.splitlines()]
    for line in (["ready", "policy", "guarded", "version", "0.9"], ["requests", "123"],
                 ["refused:", "invalid_api_key", "2"], ["decisions", "120"],
                 ["substitute", "10"], ["replaced", "by", "the", "reviewed", "reply", "9"], ["rule", "crisis", "8"], ["not", "scored", "4"],
                 ["no", "user", "message", "4"], ["added", "to", "the", "upstream's", "words", "0.1", "0.812", ">", "1"],
                 ["replies", "that", "wait", "5"], ["notices", "undelivered", "not", "known"]):  # fmt: skip
        assert line in lines, line


def test_a_gateway_that_is_not_ready_says_why_and_the_exit_code_too(command):
    with Gateway(ready=(503, json.dumps({"ready": False, "problems": ["the disk of the audit log is full [bold]\x1b[2J"]}))) as gateway:
        done = command("top", gateway.url, "--once")
    assert done.returncode == 1
    assert "NOT READY" in done.stdout
    assert "the disk of the audit log is full [bold]" in done.stdout
    assert "\x1b[2J" not in done.stdout


@pytest.mark.parametrize(("page", "said"), [
    ((401, "{}"), "DEMEANOR_KEY"),
    ((403, "{}"), "scope admin"),
    ((404, ""), "answered 404"),
    ((200, "<html>hello</html>"), "is this a gateway"),
    ((200, "up 1\n"), "demeanor_build_info"),
    ((302, ""), "answered 302"),
    ((200, "x" * (5 * 2**20)), "more than"),
])  # fmt: skip
def test_what_is_no_gateway_is_said_in_one_line(command, page, said):
    with Gateway(metrics=page) as gateway:
        done = command("top", gateway.url, "--once")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "gateway", "http://[::1", "ftp://127.0.0.1/"])
def test_nothing_there_is_said_in_one_line(command, url):
    done = command("top", url, "--once")
    assert done.returncode == 2
    assert "demeanor serve" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"problems": 3}', '{"problems": null}'])
def test_a_readyz_of_another_form_still_says_whether_it_is_ready(text):
    with Gateway(ready=(503, text)) as gateway:
        found = look(gateway.url)
    assert (found.ready, found.problems) == (False, ())


def test_rates_are_of_the_time_between_two_looks():
    before, now = seen(at=10.0), seen(RECORDED.replace("} 120.0", "} 150.0"), at=20.0)
    assert rate(now, before, "demeanor_requests_total") == 3.0
    assert rate(now, None, "demeanor_requests_total") is None
    assert rate(now, now, "demeanor_requests_total") is None
    assert since(before, now, "demeanor_requests_total") == 123  # it began anew
    assert since(now, before, "demeanor_requests_total", status="429") == 0


def test_quantiles_lie_within_their_bucket():
    assert quantile(seen(), None, "demeanor_added_seconds", 0.5) == (0.1, False)
    assert quantile(seen(), None, "demeanor_added_seconds", 0.7).seconds == pytest.approx(0.3)
    assert quantile(seen(), None, "demeanor_added_seconds", 0.99) == (1.0, True)
    assert quantile(seen(), None, "demeanor_audit_seconds", 0.5) is None


def test_quantiles_are_of_what_came_between_two_looks():
    later = RECORDED.replace('le="+Inf"} 100.0', 'le="+Inf"} 110.0').replace('le="1.0"} 98.0', 'le="1.0"} 108.0')
    assert quantile(seen(later), seen(), "demeanor_added_seconds", 0.5).seconds == pytest.approx(0.75)
    assert quantile(seen(), seen(), "demeanor_added_seconds", 0.5).seconds == 0.1  # nothing came: of all
    assert quantile(seen(), seen(later), "demeanor_added_seconds", 0.5).seconds == 0.1  # it began anew


def test_they_are_those_of_the_metrics_themselves():
    from demeanor.gateway.metrics import Metrics

    metrics = Metrics({"version": "1"})
    for _ in range(100):
        metrics.words_shown(added=0.03)
    found = seen(metrics.exposition().decode())
    value = quantile(found, None, "demeanor_added_seconds", 0.5)
    assert 0.025 < value.seconds < 0.05
    assert found.buckets("demeanor_added_seconds")[math.inf] == 100


def test_the_live_view_waits_for_a_gateway_that_is_gone_and_ends_with_ctrl_c(command, monkeypatch):
    from demeanor.gateway import watching

    looks = [
        seen(at=0.0),
        UnseenGatewayError("it does not answer"),
        seen(RECORDED.replace("} 120.0", "} 130.0"), at=2.0),
        KeyboardInterrupt(),
    ]

    def next_look(*_):
        found = looks.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(watching, "look", next_look)
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = command("top")
    assert done.returncode == 130
    assert not looks
