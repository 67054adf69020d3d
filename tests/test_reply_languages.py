"""Reviewed replies and help lines in the user's language, where the operator supplies them; else a decision that says what is lacking."""

import json
from typing import Any

import pytest
import yaml
from monitor_tools import policy
from test_replies import edited

from demeanor.errors import PolicyError
from demeanor.language import Answer
from demeanor.monitor.fitting import as_yaml
from demeanor.monitor.policy import Policy, load_policy
from demeanor.monitor.replies import REPLIES, RESOURCES, load_replies
from demeanor.testing import AT_RISK, HARMFUL, RULES, planted_monitor
from demeanor.traits.ordinary import hard_moments, ordinary_conversations

SPANISH: dict[str, Any] = {
    "risk_disclosed": ["Gracias por decírmelo. ¿Estás a salvo? Puedes {help} En peligro, llama al {emergency}.", "Dos: {help} {emergency}"],
    "harmful_plan": ["Te escucho. ¿Podemos hablarlo antes?"],
    "boundary": ["Soy un programa."],
    "unchecked": ["No he podido comprobar mi respuesta. {help}"],
    "resources": {
        "US": {"help": "llamar al 988 y pulsar 2.", "emergency": "911"},
        "none": {"help": "buscar la línea de tu país en findahelpline.com.", "emergency": "tu número de emergencias"},
    },
}  # fmt: skip
SAD = {
    "es": "Hola, estoy muy mal hoy y no puedo más con todo esto.",
    "de": "Ich fühle mich heute sehr schlecht und kann nicht mehr.",
    "pl": "Czuję się dziś bardzo źle i nie mam już siły.",
    "en": "I feel very bad today and cannot go on like this.",
}


@pytest.fixture
def spanish(tmp_path):
    path = tmp_path / "replies-es.yaml"
    path.write_text(yaml.safe_dump(SPANISH, allow_unicode=True))
    return path


def changed(tmp_path, change):
    made = json.loads(json.dumps(SPANISH))
    change(made)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(made, allow_unicode=True))
    return path


# which language


@pytest.mark.parametrize(
    ("said", "language"),
    [
        (SAD["es"], "es"),
        ("no quiero vivir", "es"),
        ("sí", "en"),  # too short to tell
        ("", "en"),
        ("🙂", "en"),
        ("ok 👍", "en"),
        (SAD["en"], "en"),
        ("I feel sad. ¿Qué puedo hacer? no sé nada de esto", "es"),
        ("I feel so sad and I do not know what to do now, mi amor", "en"),
        ("我想死", "zh"),
        ("死にたい", "ja"),
        ("плохо", "ru"),
    ],
)
def test_the_language_that_the_user_writes_in_is_chosen_where_it_is_on_offer(said, language):
    assert Answer.to([said], "en", ["es", "zh", "ja", "ru"]) == (language, "")


def test_the_newest_messages_decide_and_short_ones_go_with_those_before():
    assert Answer.to([SAD["en"], SAD["es"]], "en", ["es"]).language == "es"
    assert Answer.to([SAD["es"], SAD["en"]], "en", ["es"]).language == "en"
    assert Answer.to([SAD["es"], "ok", "sí"], "en", ["es"]).language == "es"


def test_a_language_that_is_not_on_offer_is_named():
    assert Answer.to([SAD["pl"]], "en", ["es"]) == ("en", "Polish")
    assert Answer.to([SAD["en"]], "de", []) == ("de", "English")
    assert Answer.to(["chce umrzeć"], "en", ["es"]) == ("en", "")  # too short to say so


def test_nobody_who_writes_english_is_answered_in_another_language():
    english = [o for o in (*ordinary_conversations(), *hard_moments()) if o.kind != "learning_language_chat"]
    texts = sorted({m.content for o in english for m in o.conversation.messages if m.role == "user"})
    others = ["es", "de", "fr", "pt", "pl", "hi", "zh", "ja", "ru"]
    starts = {" ".join(text.split()[:words]) for text in texts for words in (2, 4, 100)}
    assert len(starts) > 2000
    assert [text for text in starts if Answer.to([text], "en", others).language != "en"] == []


# the replies


def test_a_reply_and_its_help_line_are_in_the_user_s_language(spanish):
    replies = load_replies(languages={"es": spanish})
    found = replies.answer("risk_disclosed", [SAD["es"]], "US")
    assert (found.language, found.country, found.referral, found.note) == ("es", "US", True, "")
    assert "llamar al 988" in found.text
    assert replies.answer("risk_disclosed", [SAD["es"]], "US", 1).text.startswith("Dos:")
    assert replies.answer("boundary", [SAD["en"]]).text == replies.reply("boundary").text


def test_a_reply_in_another_language_than_the_user_s_says_so(spanish):
    alone, two = load_replies(), load_replies(languages={"es": spanish})
    for replies in (alone, two):
        found = replies.answer("boundary", [SAD["pl"]])
        assert found.language == "en"
        assert found.note == "the user seems to write in Polish, but the reviewed reply is in English"
    assert "in Spanish, but" in alone.answer("boundary", [SAD["es"]]).note


def test_a_country_without_a_line_in_that_language_gets_none_and_the_note_says_so(spanish):
    found = load_replies(languages={"es": spanish}).answer("risk_disclosed", [SAD["es"]], "GB")
    assert "findahelpline.com" in found.text
    assert found.note == "the reviewed replies in Spanish hold no help line for GB, so none is named"
    assert load_replies(languages={"es": spanish}).answer("boundary", [SAD["es"]], "GB").note == ""  # names no line anyway


def test_every_language_counts_as_a_reviewed_reply_in_a_history(spanish):
    replies = load_replies(languages={"es": spanish})
    assert replies.ends_with_one("Hasta aquí.\n\nSoy un programa.")
    assert not load_replies().ends_with_one("Soy un programa.")


def test_a_file_for_the_usual_language_takes_the_place_of_the_built_in_replies(tmp_path, spanish):
    english = edited(tmp_path, REPLIES, lambda r: r.update(boundary=["I am a program."]))
    replies = load_replies(languages={"es": spanish, "en": english})
    assert replies.answer("boundary", [SAD["en"]]).text == "I am a program."
    assert replies.answer("boundary", [SAD["es"]]).text == "Soy un programa."
    assert "988" in replies.answer("unchecked", [SAD["en"]]).text  # its help lines stay


def test_a_deployer_s_usual_language_may_be_another_one(tmp_path):
    german = load_replies(REPLIES, RESOURCES, language="de")
    assert german.answer("boundary", [SAD["de"]]).note == ""
    assert german.answer("boundary", [SAD["en"]]).note == "the user seems to write in English, but the reviewed reply is in German"


# at the start


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("boundary"), "situation 'boundary' needs a list"),
        (lambda r: r.update(adios=["x"]), "unknown situation 'adios'"),
        (lambda r: r.pop("resources"), "'resources' is missing; add the help lines in Spanish"),
        (lambda r: r.update(resources=["988"]), "'resources' is not a mapping"),
        (lambda r: r["resources"].pop("none"), "'none' is missing"),
        (lambda r: r["resources"]["US"].pop("help"), "country US needs"),
        (lambda r: r.update(risk_disclosed=["Hola."]), "does not hold"),
    ],
)
def test_a_file_is_checked_before_it_is_needed(tmp_path, change, message):
    with pytest.raises(PolicyError, match=rf"changed\.yaml: .*{message}"):
        load_replies(languages={"es": changed(tmp_path, change)})


def test_a_code_that_no_text_is_recognised_as_is_refused(spanish):
    with pytest.raises(PolicyError, match="'es-mx' cannot be recognised; give a code of ISO 639"):
        load_replies(languages={"es-mx": spanish})


def test_the_country_in_use_needs_its_line_in_every_language(spanish):
    replies = load_replies(languages={"es": spanish})
    assert replies.check_usual_country("us") == "US"
    with pytest.raises(PolicyError, match="in Spanish hold no help line for GB, the country in use; add GB"):
        replies.check_usual_country("GB")
    assert replies.check_country("GB") == "GB"


# the policy


def with_replies(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"version": "1", "rules": list(RULES)}) + text)
    return path


def test_a_policy_s_files_lie_beside_it_also_after_it_is_written_elsewhere(tmp_path, spanish):
    chosen = load_policy(with_replies(tmp_path, "replies: {es: replies-es.yaml}\n"))
    assert chosen.reply_files == {"es": spanish}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "p.yaml").write_text(as_yaml(chosen.model_copy(update={"version": "2"}), [], {}))
    assert load_replies(languages=load_policy(tmp_path / "sub" / "p.yaml").reply_files).others.keys() == {"es"}


def test_a_policy_without_replies_is_the_same_as_before_and_one_with_them_is_another():
    plain = policy()
    assert policy(replies={}).identity == plain.identity
    assert policy(replies={"es": "a.yaml"}).identity != plain.identity


def test_the_unquoted_code_of_norwegian_is_named(tmp_path):
    with pytest.raises(PolicyError, match=r'field .replies.: an unquoted no is false in YAML; write "no" in quotes'):
        load_policy(with_replies(tmp_path, "replies: {no: a.yaml}\n"))


def test_a_monitor_does_not_start_on_replies_that_cannot_be_used(tmp_path):
    with pytest.raises(PolicyError, match=r"gone\.yaml: cannot be read"):
        planted_monitor(policy=policy(replies={"es": str(tmp_path / "gone.yaml")}))


def test_a_conversation_is_answered_in_its_own_language_and_the_decision_says_when_it_cannot_be(spanish):
    with planted_monitor(policy=policy(replies={"es": str(spanish)})) as monitor:
        decisions = {}
        for code in SAD:
            session = monitor.session(code)
            session.user(f"{AT_RISK}" if code == "en" else SAD[code])
            decisions[code] = session.check(HARMFUL)
            assert not decisions[code].shown
            assert session.messages[-1].content == decisions[code].text
    assert decisions["es"].text in SPANISH["harmful_plan"]
    assert decisions["es"].note == decisions["en"].note == ""
    assert "note" not in decisions["es"].to_record()
    assert (
        decisions["pl"].note
        == decisions["pl"].to_record()["note"]
        == "the user seems to write in Polish, but the reviewed reply is in English"
    )
    assert decisions["pl"].why[-1] == "The user seems to write in Polish, but the reviewed reply is in English."


def test_a_language_changes_with_the_user_and_holds_while_a_reply_streams(spanish):
    with planted_monitor(policy=policy(replies={"es": str(spanish)})) as monitor:
        session = monitor.session("x")
        session.user(SAD["en"])
        assert "Spanish" not in session.check(HARMFUL).note
        session.user(SAD["es"])
        stream = session.stream([f"{word} " for word in HARMFUL.split()])
        shown = "".join(stream)
    assert shown.endswith(SPANISH["harmful_plan"][0])


def test_the_command_checks_the_files_before_it_loads_anything_and_counts_replies_in_another_language(
    command, tmp_path, spanish, monkeypatch
):
    from demeanor.cli import console
    from demeanor.testing import planted_scorer

    rules = with_replies(tmp_path, "replies: {es: replies-es.yaml}\n")
    talks = [
        {"messages": [{"role": "user", "content": SAD[code]}, {"role": "assistant", "content": HARMFUL}]} for code in ("es", "pl", "pl")
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks))
    refused = command("monitor", "in.jsonl", "--policy", str(rules), "--country", "GB", "--output", "out.jsonl")
    assert refused.returncode == 2
    assert "hold no help line for GB" in " ".join(refused.stderr.split())
    scorer = planted_scorer()
    monkeypatch.setattr(console, "load_scorer", lambda *_: scorer)
    done = command("monitor", "in.jsonl", "--policy", str(rules), "--output", "out.jsonl")
    assert "2 of the reviewed replies: the user seems to write in Polish" in " ".join(done.stderr.split())
    rows = [json.loads(line)["demeanor"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert "Te escucho" in json.dumps(rows[0], ensure_ascii=False)
    assert "Polish" in json.dumps(rows[1])


def test_a_policy_made_in_python_takes_paths_from_the_working_folder(spanish, monkeypatch):
    monkeypatch.chdir(spanish.parent)
    made = Policy.model_validate({"version": "1", "rules": list(RULES), "replies": {"es": "replies-es.yaml"}})
    assert load_replies(languages=made.reply_files).others.keys() == {"es"}
