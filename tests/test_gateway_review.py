"""From the gateway to people and back: replies are kept for review where that is switched on, and what was promoted decides."""

import asyncio

import pytest
import yaml
from gateway_tools import DONE, Script, ask, client, completion, gateway, spoken

from demeanor.errors import GatewayError
from demeanor.gateway.config import GatewayConfig
from demeanor.gateway.starting import policy_of, promoted
from demeanor.monitor.policy import load_policy, policy_text
from demeanor.review import accounts
from demeanor.review.store import open_store
from demeanor.review.texts import conversation_of
from demeanor.review.versions import BUILT_IN, promote
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, planted_monitor
from demeanor.vectors import built_in


@pytest.fixture(scope="module")
def monitor():
    return planted_monitor()


@pytest.fixture
def kept(tmp_path):
    return {"store": str(tmp_path / "review.db"), "share": 1.0, "doubtful": 1.0}


def rows(kept):
    with open_store(kept["store"]) as store:
        keys = [key for (key,) in store.db.rows("SELECT conversation FROM reply ORDER BY number")]
        found = [conversation_of(store, key)[-1] for key in keys]
        return [(one.action, one.conversation.response if one.conversation else None) for one in found]


@pytest.mark.parametrize("streamed", [False, True])
def test_replies_are_kept_for_people_as_they_were_before_anything_took_their_place(monitor, kept, streamed):
    for said, reply in ((CALM, FINE), (AT_RISK, HARMFUL)):
        answer = [*spoken(reply), DONE] if streamed else completion(reply)
        got = ask(gateway(monitor, Script(answer), review=kept), said, stream=streamed)
        assert got.status_code == 200
    assert rows(kept) == [("allow", FINE), ("substitute", HARMFUL)]


def test_nothing_is_kept_unless_it_is_switched_on(monitor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ask(gateway(monitor, Script(completion(FINE)))).status_code == 200
    assert not [*tmp_path.iterdir()]


def test_a_retry_is_kept_beside_the_first_and_a_store_that_fails_takes_no_reply_away(monitor, kept, monkeypatch):
    app = gateway(monitor, Script(completion(FINE)), review=kept)
    assert ask(app, CALM).status_code == 200
    monkeypatch.setattr("demeanor.gateway.around.record", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    got = ask(app, CALM)
    assert got.status_code == 200
    assert FINE in got.text

    async def ready():
        async with client(app) as http:
            return await http.get("/../readyz")

    assert "OSError" in asyncio.run(ready()).json()["problems"][0]


def test_the_dashboard_is_served_beside_the_proxy_and_asks_who_is_there(monitor, kept):
    app = gateway(monitor, Script(completion(FINE)), review=kept)
    with open_store(kept["store"]) as store:
        accounts.add(store, "anna", "admin", "a long password")

    async def look():
        async with client(app) as http:
            closed = await http.get("/../dashboard/queue")
            form = await http.get("/../dashboard/sign-in")
        return closed, form

    closed, form = asyncio.run(look())
    assert closed.status_code in (302, 303)
    assert closed.headers["location"].startswith("/dashboard/sign-in")
    assert form.status_code == 200
    assert "password" in form.text


def version_in(kept, **more):
    policy = yaml.safe_load(policy_text("review-only")) | {"version": "promoted"}
    with open_store(kept["store"]) as store:
        about = {"vectors": BUILT_IN, "fingerprint": built_in.load().fingerprint(), "policy": "promoted", **more}
        promote(store, "anna", "fewer false alarms", policy_text=yaml.safe_dump(policy), **about)


def test_what_was_promoted_is_in_force_unless_the_configuration_names_another(kept):
    config = GatewayConfig.model_validate({"review": kept})
    assert promoted(config) == (config, None)
    assert policy_of(config, None).version == load_policy().version
    version_in(kept)
    same, version = promoted(config)
    assert same.vectors is None
    assert policy_of(same, version).version == "promoted"
    named = GatewayConfig.model_validate({"review": kept, "policy": "guarded"})
    assert promoted(named) == (named, None)


def test_another_vector_set_than_the_promoted_one_is_refused(kept):
    version_in(kept, fingerprint="0" * 24)
    with pytest.raises(GatewayError, match="another vector set"):
        promoted(GatewayConfig.model_validate({"review": kept}))
