"""Notices reach their receiver at least once, are signed, hold no text, and are seen for as long as they are not delivered."""

import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from gateway_tools import Clock

from demeanor.errors import NoticeError
from demeanor.gateway.notices import LIFE, LONGEST_WAIT, RESERVED, Notice, NoticeQueue
from demeanor.gateway.notify import SECRET, Courier, check_url, deliver_due, secret_from

KEY = b"k" * 32
URL = "https://hooks.example.org/secret-path"


def notice(decision="d1"):
    return Notice(decision, "escalate", "red", ("crisis",), f"https://review.example.org/{decision}")


@pytest.fixture
def clock():
    return Clock(1_800_000_000.0)


@pytest.fixture
def queue(tmp_path, clock):
    made = NoticeQueue(tmp_path / "notices.db", clock)
    yield made
    made.close()


class Receiver:
    """Answers with what is on its list, then with 204; keeps what it was sent."""

    def __init__(self, *answers):
        self.answers, self.got = list(answers), []

    def __call__(self, url, body, headers):
        self.got.append((body, dict(headers)))
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_notice_is_delivered_signed_and_gone(queue, clock):
    made = queue.add(notice())
    receiver = Receiver()
    told = []
    assert deliver_due(queue, URL, KEY, receiver, told.append) == 1
    assert told == ["delivered"]
    assert queue.counts() == (0, 0, 0.0)
    ((body, headers),) = receiver.got
    said = json.loads(body)
    assert said == {"id": made, "type": "demeanor.decision", "time": "2027-01-15T08:00:00Z", "decision": "d1", "action": "escalate",
                    "severity": "red", "rules": ["crisis"], "link": "https://review.example.org/d1"}  # fmt: skip
    assert headers["webhook-id"] == made
    content = b".".join((made.encode(), headers["webhook-timestamp"].encode(), body))
    assert headers["webhook-signature"] == "v1," + base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-timestamp"] == str(int(clock.at))


def test_the_signature_is_that_of_the_standards_own_example():
    from demeanor.gateway.notices import Waiting
    from demeanor.gateway.notify import signed

    secret = secret_from({SECRET: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
    found = signed(Waiting("msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', 0, 0.0), 1614265330.0, secret)
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("answer", [500, 404, 410, 301, 302, 199, OSError("refused"), TimeoutError()])
def test_what_is_not_received_is_tried_again_later_and_longer_each_time(queue, clock, answer):
    queue.add(notice())
    receiver = Receiver(*[answer] * 4)
    waits = []
    for _ in range(4):
        assert deliver_due(queue, URL, KEY, receiver) == 1
        assert deliver_due(queue, URL, KEY, receiver) == 0  # not at once
        waits.append(queue.until_due())
        clock.at += waits[-1]
    assert waits == [1, 2, 4, 8]
    assert queue.counts() == (1, 0, 15.0)
    deliver_due(queue, URL, KEY, receiver)
    assert queue.counts().waiting == 0
    assert len({body for body, _ in receiver.got}) == 1
    assert [int(headers["webhook-timestamp"]) - 1_800_000_000 for _, headers in receiver.got] == [0, 1, 3, 7, 15]


def test_one_that_is_not_delivered_in_a_day_is_dead_and_stays_seen(queue, clock, tmp_path):
    queue.add(notice())
    receiver, told, tries = Receiver(*[500] * 1000), [], 0
    while queue.counts().waiting:
        deliver_due(queue, URL, KEY, receiver, told.append)
        wait = queue.until_due()
        assert wait is None or wait <= LONGEST_WAIT
        clock.at += wait or 0
        tries += 1
    assert told == ["failed"] * (tries - 1) + ["dead"]
    assert 90 < tries < 120
    assert clock.at - 1_800_000_000 == pytest.approx(LIFE, abs=LONGEST_WAIT)
    queue.close()
    again = NoticeQueue(tmp_path / "notices.db", clock)
    assert again.counts()[:2] == (0, 1)
    assert again.take() is None
    (dead,) = again.dead()
    assert dead.problem == "hooks.example.org: it answered 500"  # and not the path, which may be secret
    assert again.revive() == 1
    assert deliver_due(again, URL, KEY, Receiver()) == 1
    assert again.counts() == (0, 0, 0.0)
    again.close()


def test_dead_ones_are_forgotten_by_their_id_and_only_dead_ones(queue, clock):
    waiting = queue.add(notice("d1"))
    gone = queue.add(notice("d2"))
    clock.at += LIFE
    receiver = Receiver(200, 500)
    queue.add(notice("d3"))
    for _ in range(3):
        deliver_due(queue, URL, KEY, receiver)
    assert queue.forget([waiting, "unknown"]) == 0
    assert queue.counts().dead == 1
    assert queue.forget([gone]) == 1
    assert queue.counts().dead == 0


def test_a_restart_goes_on_where_it_was(queue, clock, tmp_path):
    queue.add(notice("d1"))
    queue.add(notice("d2"))
    queue.take()  # and the process ends before the answer: whether it was received nobody knows
    queue.close()
    again = NoticeQueue(tmp_path / "notices.db", clock)
    receiver = Receiver()
    deliver_due(again, URL, KEY, receiver)
    assert [json.loads(body)["decision"] for body, _ in receiver.got] == ["d2"]
    clock.at += RESERVED
    deliver_due(again, URL, KEY, receiver)  # at least once
    assert [json.loads(body)["decision"] for body, _ in receiver.got] == ["d2", "d1"]
    again.close()


def test_two_processes_do_not_try_one_notice_at_once(queue, clock, tmp_path):
    for i in range(10):
        queue.add(notice(f"d{i}"))
    other = NoticeQueue(tmp_path / "notices.db", clock)
    taken = [each.take().id for _ in range(5) for each in (queue, other)]
    assert len(set(taken)) == 10
    assert other.take() is None
    other.close()


def test_a_decision_has_one_notice(queue):
    first = queue.add(notice("d1"))
    assert queue.add(notice("d1")) == first
    assert queue.counts().waiting == 1


def test_no_field_holds_a_text():
    assert set(Notice.__dataclass_fields__) == {"decision", "action", "severity", "rules", "link"}


def test_the_queue_is_its_owners_and_refuses_other_databases(queue, tmp_path):
    import sqlite3

    assert queue.path.stat().st_mode & 0o777 == 0o600
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    text = tmp_path / "text.db"
    text.write_text("no database " * 200)
    for path, said in ((other, "something else"), (text, "not a database"), (tmp_path / "nowhere" / "n.db", "cannot be opened")):
        with pytest.raises(NoticeError, match=said):
            NoticeQueue(path)


def test_a_full_disk_is_said(queue, monkeypatch):
    import sqlite3

    class Full:
        def execute(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(queue, "_db", Full())
    with pytest.raises(NoticeError, match="is the disk full"):
        queue.add(notice())
    monkeypatch.undo()


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:9000/hook", "http://localhost/hook", "http://[::1]:9000/"])
def test_addresses_that_notices_may_go_to(url):
    assert check_url(url) == url


@pytest.mark.parametrize("url", [
    "http://hooks.example.org/", "http://10.0.0.8/hook", "http://169.254.169.254/latest", "ftp://localhost/", "file:///etc/passwd",
    "hooks.example.org", "https://", "https://user:pass3@hooks.example.org/", "http://127.0.0.1@hooks.example.org/",
    "https://hooks.example.org:port/", "https://[::1",
    "http://127.0.0.1.example.org/", "",
])  # fmt: skip
def test_addresses_that_they_may_not(url):
    with pytest.raises(NoticeError, match=r"https") as refused:
        check_url(url)
    assert "pass3" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "said"), [(None, "no secret"), ("", "no secret"), ("short", "shorter"), ("whsec_c2hvcnQ=", "shorter"), ("whsec_!", "base64")]
)
def test_a_secret_that_is_none_is_refused(value, said):
    with pytest.raises(NoticeError, match=said):
        secret_from({} if value is None else {SECRET: value})


def test_a_secret_is_base64_or_a_text():
    assert secret_from({SECRET: "whsec_" + base64.b64encode(KEY).decode()}) == KEY
    assert secret_from({SECRET: "k" * 32}) == KEY


class Scripted(HTTPServer):
    """A receiver on loopback that answers with the statuses of its list, then with 200."""

    def __init__(self, *answers):
        self.answers, self.got, self.received = list(answers), [], threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class Handler(BaseHTTPRequestHandler):
    """One request to Scripted."""

    server: Any

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, body, dict(self.headers)))
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()
        if status == 200:
            self.server.received.set()

    def do_GET(self):
        """Where a redirect leads."""
        self.server.got.append((self.path, b"", dict(self.headers)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Nothing to standard error."""


def test_a_courier_delivers_over_the_network_and_follows_no_redirect(tmp_path, monkeypatch):
    pytest.importorskip("httpx2")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # which would be asked, and is not there
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    receiver, told, failed, delivered = Scripted(302), [], threading.Event(), threading.Event()

    def tell(result):
        told.append(result)
        (delivered if result == "delivered" else failed).set()

    clock = Clock(1_800_000_000.0)
    queue = NoticeQueue(tmp_path / "notices.db", clock)
    try:
        queue.add(notice("d1"))
        with Courier(queue, receiver.url, KEY, tell) as courier:
            assert failed.wait(30)
            clock.at += 1.0
            courier.wake()
            assert delivered.wait(30)
        assert told == ["failed", "delivered"]
        assert [path for path, *_ in receiver.got] == ["/hook", "/hook"]
        assert queue.counts().waiting == 0
    finally:
        receiver.shutdown()
        receiver.server_close()
        queue.close()


def test_a_courier_says_what_is_wrong_with_its_queue_and_ends(queue, monkeypatch):
    failing = threading.Event()

    def take():
        failing.set()
        raise NoticeError("the disk is full")

    monkeypatch.setattr(queue, "take", take)
    courier = Courier(queue, URL, KEY, post=Receiver())
    assert failing.wait(30)
    courier.close()
    assert courier.problem == "the disk is full"


def test_a_receiver_that_is_not_there_is_a_failure_and_not_a_crash(queue):
    pytest.importorskip("httpx2")
    from demeanor.gateway.notify import _post

    queue.add(notice())
    told = []
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
    deliver_due(queue, f"http://127.0.0.1:{port}/secret-path", KEY, _post, told.append)
    assert told == ["failed"]
    with queue._reading() as db:
        assert db.execute("SELECT problem FROM notice").fetchone()[0] == "127.0.0.1: ConnectError"
