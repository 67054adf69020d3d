"""Accounts and sessions of a review store: what signs somebody in, what does not, and what ends it."""

import pytest
from review_tools import clock_fixture, server_fixture, store_fixture, where_fixture  # noqa: F401

from demeanor.errors import ReviewError, TooManyAttemptsError
from demeanor.review import accounts
from demeanor.review.store import open_store

GOOD = "correct horse battery"


def test_an_account_signs_in_with_its_password_and_with_no_other(store):
    made = accounts.add(store, "Anna", "reviewer", GOOD, who="root")
    assert (made.name, made.role, made.disabled) == ("anna", "reviewer", False)
    found = accounts.sign_in(store, "anna ", GOOD)
    assert found is not None
    assert accounts.session(store, found.token) == found
    for name, password in (("anna", GOOD + "x"), ("ben", GOOD), ("anna", ""), ("'; DROP TABLE reviewer; --", GOOD), ("a\x00", "x" * 5000)):
        assert accounts.sign_in(store, name, password) is None
    assert accounts.session(store, "") is None
    assert accounts.session(store, found.token + "x") is None


def test_neither_password_nor_token_is_in_the_store(store):
    accounts.add(store, "anna", "admin", GOOD)
    token = accounts.sign_in(store, "anna", GOOD).token
    raw = repr([store.db.rows(f"SELECT * FROM {table}") for table in store.db.tables()])
    assert GOOD not in raw
    assert token not in raw
    (first,) = store.db.one("SELECT secret FROM reviewer")
    accounts.add(store, "ben", "admin", GOOD)
    assert store.db.one("SELECT secret FROM reviewer WHERE name = 'ben'")[0] != first, "each has a salt of its own"


def test_a_session_ends_by_time_by_lying_idle_and_by_signing_out(store, clock):
    accounts.add(store, "anna", "reviewer", GOOD)
    one, other = (accounts.sign_in(store, "anna", GOOD) for _ in range(2))
    assert one.csrf != other.csrf
    for _ in range(26):  # half an hour at a time
        clock.now += 1700
        if clock.now < one.until:
            assert accounts.session(store, one.token).csrf == one.csrf
    assert accounts.session(store, one.token) is None, "half a day is over"
    assert accounts.session(store, other.token) is None, "nobody used it"
    third = accounts.sign_in(store, "anna", GOOD)
    accounts.sign_out(store, third.token)
    assert accounts.session(store, third.token) is None
    assert store.db.one("SELECT count(*) FROM session")[0] == 0, "those that are over are cleared away"


def test_a_new_password_and_disabling_sign_out(store):
    accounts.add(store, "root", "admin", GOOD)
    accounts.add(store, "anna", "reviewer", GOOD)
    first = accounts.sign_in(store, "anna", GOOD)
    accounts.set_password(store, "anna", "another password", who="root")
    assert accounts.session(store, first.token) is None
    assert accounts.sign_in(store, "anna", GOOD) is None
    second = accounts.sign_in(store, "anna", "another password")
    accounts.disable(store, "anna", who="root")
    assert accounts.session(store, second.token) is None
    assert accounts.sign_in(store, "anna", "another password") is None
    accounts.enable(store, "anna", who="root")
    assert accounts.sign_in(store, "anna", "another password") is not None
    done = [what for (what,) in store.db.rows("SELECT what FROM event WHERE who = 'root' ORDER BY number")]
    assert done == ["password set", "account disabled", "account enabled"]


def test_a_role_holds_from_the_next_request_on_and_the_last_admin_stays(store):
    accounts.add(store, "root", "admin", GOOD)
    accounts.add(store, "anna", "reviewer", GOOD)
    signed = accounts.sign_in(store, "anna", GOOD)
    for attempt in (lambda: accounts.set_role(store, "root", "reviewer"), lambda: accounts.disable(store, "root")):
        with pytest.raises(ReviewError, match="the only admin"):
            attempt()
    accounts.set_role(store, "anna", "admin")
    assert accounts.session(store, signed.token).account.role == "admin"
    accounts.disable(store, "root")
    assert [(a.name, a.disabled) for a in accounts.accounts(store)] == [("anna", False), ("root", True)]


def test_wrong_passwords_close_signing_in_for_a_while_at_that_address_first(store, clock):
    accounts.add(store, "anna", "reviewer", GOOD)
    for _ in range(accounts.MOST_HERE):
        assert accounts.sign_in(store, "anna", "wrong", "10.0.0.1") is None
    with pytest.raises(TooManyAttemptsError, match="try again in 15 minutes") as refused:
        accounts.sign_in(store, "anna", GOOD, "10.0.0.1")
    assert refused.value.wait == 900
    assert accounts.sign_in(store, "anna", GOOD, "10.0.0.2") is not None, "from elsewhere she may"
    clock.now += 901
    assert accounts.sign_in(store, "anna", GOOD, "10.0.0.1") is not None
    for i in range(accounts.MOST_AT_ADDRESS):
        accounts.sign_in(store, f"name{i}", "wrong", "10.0.0.3")
    with pytest.raises(TooManyAttemptsError):
        accounts.sign_in(store, "anna", GOOD, "10.0.0.3")


@pytest.mark.parametrize("name", ["", " ", "a b", "<script>", "-x", "x" * 65, "a\nb", "ann\u202ea"])
def test_a_name_that_is_none_is_refused(name, tmp_path):
    with open_store(tmp_path / "review.db") as store, pytest.raises(ReviewError, match="cannot be an account's name"):
        accounts.add(store, name, "reviewer", GOOD)


def test_what_cannot_be_an_account_is_refused_with_the_way_out(tmp_path):
    with open_store(tmp_path / "review.db") as store:
        accounts.add(store, "anna", "reviewer", GOOD)
        with pytest.raises(ReviewError, match="an account anna already"):
            accounts.add(store, "ANNA", "reviewer", GOOD)
        with pytest.raises(ReviewError, match="at least 12 characters"):
            accounts.add(store, "ben", "reviewer", "short")
        with pytest.raises(ReviewError, match="did you mean admin"):
            accounts.add(store, "ben", "admn", GOOD)
        with pytest.raises(ReviewError, match="no account ana; did you mean anna"):
            accounts.set_password(store, "ana", GOOD)
