"""Who gets in: nobody without a session, in another's role, with a forged or replayed request, or by guessing."""

import pytest
from dashboard_tools import PASSWORD, clock_fixture, csrf, store_fixture, visit_fixture  # noqa: F401

from demeanor.dashboard.handling import COOKIE
from demeanor.dashboard.sign_in import _within
from demeanor.review import accounts

CLOSED = ["/", "/queue", "/conversations", "/labels", "/reports", "/accounts", "/nothing"]


@pytest.mark.parametrize("path", CLOSED)
def test_without_a_session_every_page_leads_to_the_sign_in_and_back(visit, path):
    answer = visit().get(path, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/sign-in")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_signing_in_leads_to_the_page_that_was_asked_for(visit):
    client = visit()
    page = client.get("/conversations?action=flag")
    assert 'value="/conversations?action=flag"' in page.text
    done = client.post(
        "/sign-in", data={"name": "anna", "password": PASSWORD, "next": "/conversations?action=flag"}, follow_redirects=False
    )
    assert done.headers["location"] == "/conversations?action=flag"
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie


def test_over_https_the_cookie_is_sent_over_https_only(store):
    from starlette.testclient import TestClient

    from demeanor.dashboard.application import app

    with TestClient(app(store), base_url="https://review.example") as client:
        done = client.post("/sign-in", data={"name": "anna", "password": PASSWORD}, follow_redirects=False)
    assert "Secure" in done.headers["set-cookie"]


@pytest.mark.parametrize(
    "wanted", ["//evil.example/", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/sign-out", "/a\nb", "/a\\b", ""]
)
def test_signing_in_leads_nowhere_else(wanted):
    assert _within(wanted) == "/"


def test_a_wrong_password_is_refused_and_many_close_the_door(visit):
    client = visit()
    for _ in range(5):
        assert client.post("/sign-in", data={"name": "anna", "password": "wrong"}).status_code == 403
    closed = client.post("/sign-in", data={"name": "anna", "password": PASSWORD})
    assert closed.status_code == 429
    assert int(closed.headers["retry-after"]) > 60
    assert COOKIE not in client.cookies


def test_another_s_role_is_refused(visit):
    assert visit("anna").get("/accounts").status_code == 403


def test_a_form_without_the_session_s_token_or_from_elsewhere_does_nothing(visit, store):
    client = visit("cora")
    token = csrf(client.get("/accounts"))
    new = {"name": "dan", "role": "reviewer", "password": PASSWORD}
    assert client.post("/accounts", data=new).status_code == 403
    assert client.post("/accounts", data={**new, "csrf": "0" * 32}).status_code == 403
    assert client.post("/accounts", data={**new, "csrf": token}, headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post("/accounts", data={**new, "csrf": token}, headers={"Origin": "null"}).status_code == 403
    assert client.post("/accounts", data={**new, "csrf": token}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/accounts", json={**new, "csrf": token}).status_code == 403
    other = csrf(visit("ben").get("/queue"))
    assert client.post("/accounts", data={**new, "csrf": other}).status_code == 403
    assert [one.name for one in accounts.accounts(store)] == ["anna", "ben", "cora"]
    assert client.post("/accounts", data={**new, "csrf": token}, headers={"Origin": "http://testserver"}).status_code == 200
    assert accounts.account(store, "dan").role == "reviewer"


def test_a_request_that_is_replayed_after_signing_out_is_refused(visit):
    client = visit("anna")
    token, cookie = csrf(client.get("/queue")), client.cookies[COOKIE]
    assert client.post("/sign-out", data={"csrf": token}).status_code == 200
    client.cookies.set(COOKIE, cookie)
    assert client.get("/queue", follow_redirects=False).status_code == 303
    assert client.post("/queue/release", data={"csrf": token}).status_code == 403


def test_a_forged_cookie_and_one_whose_time_is_over_sign_nobody_in(visit, clock):
    client = visit("anna")
    clock.now += 3601
    assert client.get("/queue", follow_redirects=False).status_code == 303
    client.cookies.set(COOKIE, "guessed")
    assert client.get("/queue", follow_redirects=False).status_code == 303


def test_a_form_that_is_too_long_is_refused_before_it_is_read_whole(visit):
    client = visit("cora")
    answer = client.post("/accounts", data={"csrf": csrf(client.get("/accounts")), "name": "x" * 1_100_000})
    assert answer.status_code == 413


def test_files_are_kept_for_good_and_pages_never(visit):
    import re

    client = visit("anna")
    page = client.get("/queue")
    assert page.headers["cache-control"] == "no-store"
    for address in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        file = client.get(address)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
    assert client.get("/static/x/../../application.py").status_code == 404


def test_mounted_below_a_path_every_address_lies_below_it(store):
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    from demeanor.dashboard.application import app

    with TestClient(Starlette(routes=[Mount("/dashboard", app(store))])) as client:
        page = client.get("/dashboard/queue")
        assert 'action="/dashboard/sign-in"' in page.text
        assert 'name="next" value="/queue"' in page.text
        page = client.post("/dashboard/sign-in", data={"name": "anna", "password": PASSWORD, "next": "/queue"})
        assert page.status_code == 200
        assert page.url.path == "/dashboard/queue"
        assert 'href="/dashboard/conversations"' in page.text
