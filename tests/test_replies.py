"""The reviewed replies: complete for every situation and country, strict when loaded, unfailing when given."""

from typing import get_args

import pytest
import yaml

from demeanor.errors import PolicyError
from demeanor.monitor.policy import Situation
from demeanor.monitor.replies import REPLIES, RESOURCES, load_replies

BUILT_IN = load_replies()
SITUATIONS = get_args(Situation)
COUNTRIES = {"US": "988", "GB": "116 123", "IE": "116 123", "AU": "13 11 14", "CA": "988", "NZ": "1737", "IN": "14416"}


def edited(tmp_path, source, change):
    raw = yaml.safe_load(source.read_text())
    change(raw)
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.parametrize("nth", range(3))
@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_reply_keeps_the_conversation_open_and_leaves_no_place_unfilled(situation, nth):
    for country in (*COUNTRIES, "none"):
        text = BUILT_IN.reply(situation, country, nth).text
        assert "{" not in text
        last = text.rstrip().split("\n\n")[-1]
        assert "?" in last or "what you write" in last


@pytest.mark.parametrize("nth", range(2))
@pytest.mark.parametrize("situation", ["risk_disclosed", "harmful_plan"])
def test_where_somebody_may_be_in_danger_safety_is_asked_about_and_help_named(situation, nth):
    for country, line in COUNTRIES.items():
        reply = BUILT_IN.reply(situation, country, nth)
        assert line in reply.text
        assert "safe" in reply.text
        assert reply.referral


@pytest.mark.parametrize("country", [*COUNTRIES])
def test_each_country_gets_its_own_emergency_number_and_no_other_s(country):
    text = BUILT_IN.reply("risk_disclosed", country).text
    own = str(yaml.safe_load(RESOURCES.read_text())[country]["emergency"])
    assert f"call {own}" in text
    if country not in ("US", "CA"):
        assert "988" not in text
        assert "911" not in text


@pytest.mark.parametrize("country", ["FR", "", "usa", "../US"])
def test_an_unknown_country_names_no_line_that_would_not_answer_there(country):
    reply = BUILT_IN.reply("risk_disclosed", country)
    assert reply.country == "none"
    assert "findahelpline.com" in reply.text
    assert not any(line in reply.text for line in COUNTRIES.values())


def test_the_united_states_are_the_default_and_case_does_not_matter():
    assert BUILT_IN.reply("risk_disclosed") == BUILT_IN.reply("risk_disclosed", " us ")
    assert "988" in BUILT_IN.reply("unchecked").text


def test_the_same_words_are_not_said_twice_in_a_row():
    for situation in SITUATIONS:
        assert BUILT_IN.reply(situation, shown_before=0).text != BUILT_IN.reply(situation, shown_before=1).text
        assert BUILT_IN.reply(situation, shown_before=2).text == BUILT_IN.reply(situation, shown_before=0).text


def test_somebody_who_was_told_of_a_boundary_is_not_sent_to_a_crisis_line():
    assert not BUILT_IN.reply("boundary").referral


def test_a_country_in_a_setting_is_checked_aloud():
    assert BUILT_IN.check_country("gb") == "GB"
    assert BUILT_IN.check_country("none") == "none"
    with pytest.raises(PolicyError, match=r"'USA'; known: US, GB"):
        BUILT_IN.check_country("USA")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("boundary"), "situation 'boundary' needs a list"),
        (lambda r: r.update(boundary="text"), "situation 'boundary' needs a list"),
        (lambda r: r.update(goodbye=["x"]), "unknown situation 'goodbye'"),
        (lambda r: r.update(boundary=["call {hotline}"]), r"unknown place \{hotline\}"),
        (lambda r: r.update(boundary=["{help.__class__}"]), r"unknown place"),
        (lambda r: r.update(boundary=["a { brace"]), "brace"),
        (lambda r: r.update(boundary=["Call {help: 24h} now"]), r"' 24h' in the braces of \{help\}"),
        (lambda r: r.update(boundary=["Call {help!r}"]), "leave only the name"),
        (lambda r: r.update(risk_disclosed=["There, there."]), "does not hold"),
    ],
)
def test_replies_of_one_s_own_are_checked_before_they_are_needed(tmp_path, change, message):
    path = edited(tmp_path, REPLIES, change)
    with pytest.raises(PolicyError, match=message):
        load_replies(replies=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("none"), "'none' is missing"),
        (lambda r: r["US"].pop("emergency"), "country US needs"),
        (lambda r: r["US"].update(emergency=911), "put numbers in quotes"),
        (lambda r: r.update({False: r["US"]}), "put its code in quotes"),
        (lambda r: r.update(gb=r["US"]), "country GB appears twice"),
    ],
)
def test_resources_of_one_s_own_are_checked_before_they_are_needed(tmp_path, change, message):
    path = edited(tmp_path, RESOURCES, change)
    with pytest.raises(PolicyError, match=message):
        load_replies(resources=path)


def test_a_country_or_situation_that_stands_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(RESOURCES.read_text() + "\nGB: {help: call nobody., emergency: '0'}\n")
    with pytest.raises(PolicyError, match=r"mine\.yaml: line \d+ .*'GB' appears twice"):
        load_replies(resources=path)
    path.write_text(REPLIES.read_text() + "\nboundary: [Oh.]\n")
    with pytest.raises(PolicyError, match=r"mine\.yaml: line \d+ .*'boundary' appears twice"):
        load_replies(replies=path)


def test_a_country_can_be_added(tmp_path):
    path = edited(tmp_path, RESOURCES, lambda r: r.update(FR={"help": "appelez le 3114.", "emergency": "112"}))
    assert "3114" in load_replies(resources=path).reply("risk_disclosed", "fr").text
