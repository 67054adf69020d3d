"""A request's line says what was decided and holds nothing that anybody has said or sent."""

import datetime
import io
import json

import pytest
from monitor_tools import AT_RISK, FINE, HARMFUL, planted, policy

from demeanor import Monitor
from demeanor.gateway.access import authorise
from demeanor.gateway.keys import KeyStore
from demeanor.gateway.logs import RequestLog, request_line
from demeanor.monitor.decision import Decision

AT = datetime.datetime(2026, 11, 29, 7, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
SECRET = "my sister's name is Aurelia"


@pytest.fixture(scope="module")
def scorer(tokenizer, make_model):
    return planted(make_model, tokenizer)


def test_a_line_holds_the_decision_and_no_more():
    decision = Decision("substitute", "red", ("crisis",), None, SECRET, "observed", unrecorded=f"{SECRET}: full", not_scored=SECRET,
                        instead=SECRET, pushes={"harm": ((SECRET, 1.0),)})  # fmt: skip
    line = request_line("chat", "web-app", 200, 0.41234, [("d1", decision)], AT)
    assert json.loads(line) == {
        "time": "2026-11-29T05:00:00.000Z", "endpoint": "chat", "who": "web-app", "status": 200, "ms": 412.3,
        "decisions": [{"id": "d1", "action": "substitute", "severity": "red", "rules": ["crisis"], "not_scored": "other",
                       "recorded": False}],
    }  # fmt: skip
    assert "Aurelia" not in line


@pytest.mark.parametrize("reply", [FINE, HARMFUL, f"{HARMFUL} {SECRET}", " "])
def test_planted_texts_and_keys_are_not_in_it(scorer, tmp_path, reply):
    keys = KeyStore(tmp_path / "keys.json")
    token = keys.add("web-app", ("proxy",)).token
    who = authorise(keys, [(b"authorization", f"Bearer {token}".encode())], "proxy")
    with Monitor(scorer, policy()) as monitor:
        session = monitor.session(f"conversation of {SECRET}")
        session.user(f"{AT_RISK} {SECRET}")
        decision = session.check(reply)
    line = request_line(f"/v1/chat/completions?key={token}&said={SECRET}", who.name, 200, 0.1, [("d1", decision)], AT)
    for said in (SECRET, AT_RISK, HARMFUL, FINE, decision.text, token, token[17:], "said", "dmn_"):
        assert said not in line
    assert json.loads(line)["endpoint"] == "other"
    assert json.loads(line)["decisions"][0]["action"] == decision.action


def test_it_is_one_line_whatever_a_name_holds():
    odd = Decision("flag", "yellow", ("a\nb\u2028c\x1b[31m",), None, "", "observed")
    line = request_line("check", "x\ry", 200, 0.0, [("d1", odd)], AT, gone=True)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert json.loads(line)["client_left"] is True


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_stream_that_cannot_be_written_costs_lines_and_no_answer():
    log = RequestLog(Full())
    log.write("{}")
    closed = io.StringIO()
    closed.close()
    RequestLog(closed).write("{}")
    assert log.lost == 1
    stream = io.StringIO()
    whole = RequestLog(stream)
    whole.write('{"a": 1}')
    whole.write('{"a": 2}')
    assert [json.loads(line)["a"] for line in stream.getvalue().splitlines()] == [1, 2]
    assert whole.lost == 0
