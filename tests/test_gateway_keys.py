"""The gateway's keys: made once, hashed at rest, revoked at once, and nothing served to others without one."""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_tools import Clock

from demeanor.errors import KeysError
from demeanor.gateway.access import LOCAL, Who, authorise, check_bind, is_loopback, without_keys
from demeanor.gateway.keys import KeyStore, default_path, parse_expiry, parse_scopes
from demeanor.gateway.refusals import Refusal

START = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


@pytest.fixture
def clock():
    return Clock(START)


@pytest.fixture
def store(tmp_path, clock):
    return KeyStore(tmp_path / "keys.json", clock)


def bearer(token):
    return [(b"host", b"gateway.example"), (b"authorization", f"Bearer {token}".encode())]


def test_a_key_lets_its_holder_in_and_only_for_its_scopes(store):
    issued = store.add("web-app", ("check", "proxy"))
    assert authorise(store, bearer(issued.token), "proxy") == Who("web-app", issued.key.id, ("proxy", "check"))
    refused = authorise(store, bearer(issued.token), "admin")
    assert (refused.status, refused.code) == (403, "insufficient_scope")
    assert "proxy, check" in refused.message
    assert "admin" in refused.message


def test_no_scope_includes_another(store):
    token = store.add("scraper", ("admin",)).token
    for scope in ("proxy", "check", "review"):
        assert authorise(store, bearer(token), scope).status == 403


@pytest.mark.parametrize("header", [b"x-demeanor-key", b"x-api-key", b"X-Api-Key"])
def test_a_key_comes_in_other_headers_too(store, header):
    token = store.add("guardrail", ("check",)).token
    assert authorise(store, [(header, token.encode())], "check").name == "guardrail"


def test_the_clients_key_for_the_upstream_comes_beside_ours_and_ours_is_not_passed_on(store):
    token = store.add("web-app", ("proxy",)).token
    upstream = (b"authorization", b"Bearer sk-upstream")
    headers = [upstream, (b"x-demeanor-key", token.encode()), (b"content-type", b"application/json")]
    assert isinstance(authorise(store, headers, "proxy"), Who)
    assert without_keys(headers) == [upstream, (b"content-type", b"application/json")]
    for name, value in (
        (b"Authorization", f"bearer  {token}"),
        (b"x-api-key", token),
        (b"X-Demeanor-Key", "anything"),
        (b"cookie", f"k={token}"),
    ):
        assert without_keys([(name, value.encode())]) == []


def test_the_same_key_twice_is_one_and_two_keys_are_refused(store):
    one, other = store.add("one", ("proxy",)).token, store.add("other", ("proxy",)).token
    assert isinstance(authorise(store, [*bearer(one), (b"x-api-key", one.encode())], "proxy"), Who)
    assert authorise(store, [*bearer(one), (b"x-api-key", other.encode())], "proxy").status == 401


def changed(token, at):
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


@pytest.mark.parametrize("damage", [
    lambda token: changed(token, 20),  # the secret
    lambda token: changed(token, len(token) - 2),
    lambda token: token[:4] + "0" * 12 + token[16:],  # the id
    lambda token: token[:-1],
    lambda token: token + "A",
    lambda token: token + "\n" + token,
    lambda token: token.upper(),
    lambda token: "dmn_",
    lambda token: "dmn_\xff\x00",
])  # fmt: skip
def test_what_is_not_the_whole_key_is_nobodys(store, damage):
    token = store.add("web-app", ("proxy",)).token
    refused = authorise(store, [(b"authorization", b"Bearer " + damage(token).encode("latin-1"))], "proxy")
    assert (refused.status, refused.code) == (401, "invalid_api_key")
    assert ("www-authenticate", 'Bearer realm="demeanor"') in refused.headers


@pytest.mark.parametrize("headers", [
    [], [(b"authorization", b"")],
    [(b"authorization", b"Bearer sk-other")], [(b"authorization", b"Basic dmn_x")], [(b"x-demeanor-key", b" ")],
])  # fmt: skip
def test_without_a_key_of_ours_none_was_given(store, headers):
    store.add("web-app", ("proxy",))
    assert authorise(store, headers, "proxy").code == "missing_api_key"


def test_a_refusal_does_not_repeat_what_was_sent(store):
    token = changed(store.add("web-app", ("proxy",)).token, 25)
    assert token[17:] not in authorise(store, bearer(token), "proxy").body.decode()


def test_a_key_runs_out(store, clock):
    token = store.add("trial", ("proxy",), datetime.timedelta(days=90)).token
    clock.at = START + datetime.timedelta(days=90, seconds=-1)
    assert isinstance(authorise(store, bearer(token), "proxy"), Who)
    clock.at = START + datetime.timedelta(days=90)
    assert authorise(store, bearer(token), "proxy").code == "expired_api_key"
    assert store.valid() == ()


def test_a_running_gateway_refuses_a_revoked_key_at_once(store, clock):
    token = store.add("web-app", ("proxy",)).token
    assert isinstance(authorise(store, bearer(token), "proxy"), Who)
    elsewhere = KeyStore(store.path, clock)
    elsewhere.revoke("web-app")
    assert authorise(store, bearer(token), "proxy").code == "revoked_api_key"
    new = elsewhere.add("web-app", ("proxy",)).token  # its name is free again
    assert isinstance(authorise(store, bearer(new), "proxy"), Who)
    assert authorise(store, bearer(token), "proxy").code == "revoked_api_key"


@pytest.mark.parametrize("harm", [
    lambda path: path.unlink(),
    lambda path: path.chmod(0o666),
    lambda path: path.write_text("{"),
    lambda path: path.write_text('{"format": 1, "keys": [{"id": "x"}]}'),
    lambda path: path.write_text('{"format": 2, "keys": []}'),
    lambda path: path.write_text("[" * 100_000),
])  # fmt: skip
def test_keys_that_cannot_be_read_let_nobody_in(store, harm):
    token = store.add("web-app", ("proxy",)).token
    assert isinstance(authorise(store, bearer(token), "proxy"), Who)
    harm(store.path)
    refused = authorise(store, bearer(token), "proxy")
    assert (refused.status, refused.code) == (503, "keys_unreadable")
    with pytest.raises(KeysError, match=r"keys\.json"):
        store.held()


def test_the_file_holds_hashes_and_is_its_owners(store):
    tokens = [store.add(f"app-{i}", ("proxy",)).token for i in range(3)]
    text = store.path.read_text()
    assert not any(part in text for token in tokens for part in (token, token[17:]))
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in store.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]
    assert len({token[17:] for token in tokens}) == 3


def test_a_key_is_in_no_repr(store):
    issued = store.add("web-app", ("proxy",))
    assert issued.token[17:] not in f"{issued!r} {store!r} {store.held()!r}"
    assert issued.key.hash not in f"{issued!r} {store.held()!r}"


def test_a_file_that_cannot_be_written_stays_as_it_was(store, monkeypatch):
    store.add("one", ("proxy",))
    before = store.path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(KeysError, match="No space left"):
        store.add("two", ("proxy",))
    assert store.path.read_bytes() == before
    assert sorted(p.name for p in store.path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


def test_a_link_to_the_file_stays_a_link(store, tmp_path, clock):
    store.add("one", ("proxy",))
    link = tmp_path / "link.json"
    link.symlink_to(store.path)
    KeyStore(link, clock).add("two", ("proxy",))
    assert link.is_symlink()
    assert [key.name for key in store.held()] == ["one", "two"]


@pytest.mark.slow
def test_two_processes_lose_nothing_of_each_others(store):
    code = (
        "import sys, pathlib; from demeanor.gateway.keys import KeyStore\n"
        "store = KeyStore(pathlib.Path(sys.argv[1]))\n"
        "for i in range(10): store.add(f'{sys.argv[2]}-{i}', ('proxy',))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(store.path), name]) for name in ("a", "b")]
    assert [process.wait(60) for process in running] == [0, 0]
    assert {key.name for key in store.held()} == {f"{name}-{i}" for name in "ab" for i in range(10)}


@pytest.mark.parametrize(("name", "scopes", "said"), [
    ("web app", ("proxy",), "cannot name a key"),
    ("", ("proxy",), "cannot name a key"),
    ("x" * 65, ("proxy",), "cannot name a key"),
    ("0123456789ab", ("proxy",), "cannot name a key"),  # reads as an id
    ("web\napp", ("proxy",), "cannot name a key"),
    ("web-app", ("everything",), "known: proxy, check, review, admin"),
    ("web-app", (), "opens nothing"),
])  # fmt: skip
def test_what_no_key_can_be(store, name, scopes, said):
    with pytest.raises(KeysError, match=said):
        store.add(name, scopes)
    assert not store.path.exists()


def test_a_name_belongs_to_one_valid_key(store, clock):
    store.add("web-app", ("proxy",), datetime.timedelta(days=1))
    with pytest.raises(KeysError, match="revoke it first"):
        store.add("web-app", ("check",))
    clock.at += datetime.timedelta(days=1)
    store.add("web-app", ("check",))


def test_a_key_is_revoked_by_its_name_or_its_id_once(store):
    first, second = store.add("first", ("proxy",)).key, store.add("second", ("proxy",)).key
    assert store.revoke(first.id).name == "first"
    assert store.revoke("second").id == second.id
    with pytest.raises(KeysError, match="valid keys: none"):
        store.revoke("second")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST.", "app.localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_no_keys(host):
    check_bind(host, None)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.4", "::ffff:10.0.0.1", "gateway.example", "localhost.example", "127.0.0.1.example"]
)
def test_a_bind_beyond_loopback_needs_a_valid_key(host, store, clock):
    assert not is_loopback(host)
    with pytest.raises(KeysError, match="without keys"):
        check_bind(host, None)
    with pytest.raises(KeysError, match="make a key first"):
        check_bind(host, store)
    store.add("web-app", ("proxy",), datetime.timedelta(days=1))
    check_bind(host, store)
    clock.at += datetime.timedelta(days=2)
    with pytest.raises(KeysError, match="no valid key"):
        check_bind(host, store)


@pytest.mark.parametrize("headers", [
    [(b"host", b"127.0.0.1:8080")], [(b"host", b"localhost")], [(b"host", b"[::1]:8080")], [],
    [(b"host", b"localhost:8080"), (b"origin", b"http://localhost:3000")],
])  # fmt: skip
def test_without_keys_this_machine_is_served(headers):
    assert authorise(None, headers, "proxy") is LOCAL


@pytest.mark.parametrize("headers", [
    [(b"host", b"evil.example")],  # a name that was made to point to 127.0.0.1
    [(b"host", b"127.0.0.1.evil.example:8080")],
    [(b"host", b"localhost:8080"), (b"origin", b"https://evil.example")],
    [(b"host", b"localhost:8080"), (b"origin", b"null")],
    [(b"host", b"localhost@evil.example")],
    [(b"host", b"[::1")],
    [(b"host", b"")],
])  # fmt: skip
def test_without_keys_no_page_of_another_place_is(headers):
    assert authorise(None, headers, "proxy").code == "not_local"


@pytest.mark.parametrize(("text", "length"), [("90d", 90 * 86400), ("12h", 43200), ("30m", 1800), ("4w", 28 * 86400)])
def test_lengths_of_time(text, length):
    assert parse_expiry(text).total_seconds() == length


@pytest.mark.parametrize("text", ["", "90", "0d", "-1d", "1.5h", "d", "90 days", "1y", "999999d"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(KeysError, match="such as 90d"):
        parse_expiry(text)


def test_an_expiry_beyond_the_calendar_is_refused(store):
    with pytest.raises(KeysError, match="9999"):
        store.add("web-app", ("proxy",), datetime.timedelta(weeks=99_999 * 52))
    assert parse_expiry("never") is None
    assert parse_scopes("check, proxy,") == ("proxy", "check")


def test_where_keys_are_kept(monkeypatch):
    monkeypatch.delenv("DEMEANOR_KEYS", raising=False)
    assert default_path().name == "keys.json"
    monkeypatch.setenv("DEMEANOR_KEYS", "/run/secrets/keys")
    assert default_path() == Path("/run/secrets/keys")


def test_a_refusal_has_the_shape_of_openais_errors():
    error = json.loads(Refusal(429, "too much", "overloaded", headers=(("retry-after", "1"),)).body)["error"]
    assert error == {"message": "too much", "type": "rate_limit_error", "param": None, "code": "overloaded"}
    assert Refusal(503, "", "").type == "server_error"
    assert Refusal(413, "", "").type == "invalid_request_error"


def test_the_commands(command, tmp_path):
    file = tmp_path / "keys.json"
    made = command("keys", "add", "web-app", "--scope", "proxy,check", "--expires", "90d", "--file", file)
    token = made.stdout.strip()
    assert made.returncode == 0
    assert isinstance(authorise(KeyStore(file), bearer(token), "check"), Who)
    assert token not in made.stderr
    assert "cannot be shown again" in made.stderr
    listed = command("keys", "list", "--file", file)
    assert "web-app" in listed.stdout
    assert "valid" in listed.stdout
    assert token[17:] not in listed.stdout
    rows = json.loads(command("keys", "list", "--json", "--file", file).stdout)
    assert [(row["name"], row["scopes"], row["state"]) for row in rows] == [("web-app", ["proxy", "check"], "valid")]
    assert "hash" not in rows[0]
    assert command("keys", "revoke", "web-app", "--file", file).returncode == 0
    assert json.loads(command("keys", "list", "--json", "--file", file).stdout)[0]["state"] == "revoked"


@pytest.mark.parametrize(("arguments", "said"), [
    (("list",), "demeanor keys add"),
    (("revoke", "nobody"), "no valid key"),
    (("add", "web-app", "--scope", "all"), "known: proxy, check, review, admin"),
    (("add", "web-app", "--scope", "proxy", "--expires", "soon"), "such as 90d"),
])  # fmt: skip
def test_the_commands_say_in_one_line_what_is_wrong(command, tmp_path, arguments, said):
    done = command("keys", *arguments, "--file", tmp_path / "keys.json")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
