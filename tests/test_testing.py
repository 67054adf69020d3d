"""The planted model that users test their own code with: what is promised of its texts holds, and it costs next to nothing."""

import re
import socket
import time
from pathlib import Path

import pytest
import torch

from demeanor import testing
from demeanor.errors import PolicyError
from demeanor.monitor.policy import Policy, load_policy
from demeanor.testing import AT_RISK, CALM, DOUBTFUL, FINE, HARMFUL, LETTERS, PLAIN, planted_monitor, planted_policy, planted_scorer

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")


def talk(reply, said=CALM):
    return [{"role": "user", "content": said}, {"role": "assistant", "content": reply}]


@pytest.fixture(scope="module")
def monitor():
    return planted_monitor()


@pytest.mark.parametrize("source", [PAGE, testing.planted.__doc__], ids=["page", "docstring"])
def test_the_table_of_texts_holds(monitor, source):
    rows = re.findall(r"^(?:\| `|    )(FINE|PLAIN|DOUBTFUL|HARMFUL)[`\s|]+(\w+)[\s|]+(\w+)(?: \|)?$", source, re.MULTILINE)
    assert [name for name, *_ in rows] == ["FINE", "PLAIN", "DOUBTFUL", "HARMFUL"]
    for name, *actions in rows:
        for said, action in zip((CALM, AT_RISK), actions, strict=True):
            session = monitor.session("table")
            session.user(said)
            decision = session.check(getattr(testing, name))
            assert (decision.action, decision.not_scored) == (action, None), (name, said)
            assert (decision.text == getattr(testing, name)) == (action in ("allow", "flag"))


def test_the_page_s_example_runs():
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = {}
    exec(compile(snippet, "api.md", "exec"), found)
    found["test_a_reply_is_shown_or_replaced"]()


@pytest.mark.parametrize("trait", LETTERS)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_z_is_ten_times_the_share_of_the_letter(trait, count):
    scorer = planted_scorer()
    text = LETTERS[trait] * count + " I hear you."
    share = count / len(scorer.reader.tokenizer(text, add_special_tokens=False)["input_ids"])
    found = scorer.score(talk("I see.", text) if trait == "risk" else talk(text))
    assert found[trait].z == pytest.approx(10 * share, abs=1e-4)
    assert [name for name in LETTERS if abs(found[name].z) > 1e-6] == ([trait] if count else [])


def test_it_is_made_in_milliseconds_without_a_network_and_is_the_same_each_time(monkeypatch):
    def refused(*_args, **_options):
        raise AssertionError("the planted model asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    first = planted_scorer()
    begun = time.perf_counter()
    again = planted_scorer()
    assert time.perf_counter() - begun < 2  # about 0.01 s; a busy machine is given a margin
    assert first.vectors.model == again.vectors.model
    assert first.vectors.fingerprint() == again.vectors.fingerprint()
    assert first.score(talk(FINE)).scores == again.score(talk(FINE)).scores


def test_making_one_leaves_the_random_numbers_of_a_test_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    planted_scorer()
    assert torch.equal(torch.rand(3), expected)


def test_it_writes_its_letter():
    session = planted_monitor().session("written")
    session.user(CALM)
    shown = "".join(session.write())
    assert set(shown.split()) == {"a"}


def test_a_trial_run_shows_every_reply_and_an_audit_log_is_written(tmp_path):
    with planted_monitor(enforce=False, audit=tmp_path / "audit.jsonl") as monitor:
        session = monitor.session("trial")
        session.user(CALM)
        decision = session.check(HARMFUL)
    assert (decision.text, decision.action) == (HARMFUL, "substitute")
    assert '"substitute"' in (tmp_path / "audit.jsonl").read_text() or '"flag"' in (tmp_path / "audit.jsonl").read_text()


def test_a_policy_of_one_s_own_is_taken_and_one_on_other_traits_refused():
    strict = planted_policy().model_dump(mode="json", exclude_none=True)
    strict["rules"] = [{**strict["rules"][2], "action": "substitute", "situation": "unchecked"}]
    session = planted_monitor(Policy.model_validate(strict)).session("own")
    session.user(CALM)
    assert session.check(DOUBTFUL).action == "substitute"
    assert session.check(PLAIN).action == "allow"
    with pytest.raises(PolicyError, match="known: care, harm, risk"):
        planted_monitor(load_policy())
