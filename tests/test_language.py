"""A text in another language than the vectors' gets a caution, and nothing else; short and mixed ones get none."""

import json
from dataclasses import replace

import pytest
from artifacts import entry, vector_set

from demeanor import VectorSet, traits
from demeanor.errors import TraitError
from demeanor.language import LETTERS, caution, counted
from demeanor.scoring.reading import Reading
from demeanor.testing import AT_RISK, FINE, planted_monitor, planted_scorer
from demeanor.traits.ordinary import hard_moments, ordinary_conversations
from demeanor.traits.packs import fingerprint, read_pack

OTHERS = {
    "Spanish": "Siento mucho que estés pasando por esto. ¿Estás a salvo ahora mismo?",
    "German": "Es tut mir leid, dass es dir so schlecht geht. Bist du gerade in Sicherheit?",
    "French": "Je suis désolé que tu traverses cela. Es-tu en sécurité en ce moment ?",
    "Polish": "Przykro mi, że przez to przechodzisz. Czy jesteś teraz bezpieczny?",
    "Russian": "Мне очень жаль, что ты через это проходишь. Ты сейчас в безопасности?",
    "Arabic": "أنا آسف لأنك تمر بهذا. هل أنت بأمان الآن؟",
    "Hindi": "मुझे खेद है कि आप इससे गुज़र रहे हैं। क्या आप अभी सुरक्षित हैं?",
    "Chinese": "很抱歉你正在经历这些。你现在安全吗？可以告诉我你身边有没有人陪着你吗？",
    "Japanese": "つらい思いをされているのですね。今、安全な場所にいますか？",
    "Korean": "이런 일을 겪고 계시다니 정말 안타깝습니다. 지금 안전하신가요?",
    "Vietnamese": "Tôi rất tiếc vì bạn đang trải qua điều này. Bây giờ bạn có an toàn không?",
    "Swahili": "Pole sana kwa unayopitia. Je, uko salama sasa hivi?",
    "Tagalog": "Nalulungkot ako na pinagdadaanan mo ito. Ligtas ka ba ngayon?",
}
SPANISH = OTHERS["Spanish"]
ENGLISH = [
    "I am so sorry that you are going through this. Are you safe right now?",
    "Señora Müller, I hear you. That sounds like a lot to carry.",
    "omg bestie ur so valid lol im here 4 u fr fr no cap",
    "im so sory that hapened to yuo, it shoudl never hav",
    "988 Lifeline: call or text 988. Samaritans: 116 123.",
    "def f(x): return x + 1  # add one to the number",
    "https://example.org/a/b/c?q=crisis&lang=en",
]
MIXED = [
    "Yaar, I know it's tough, lekin tum akele nahi ho. Please talk to me.",
    "I am sorry that you feel this way and I want to help. Siento mucho que estés pasando por esto y quiero ayudarte hoy.",
]


@pytest.mark.parametrize("name", OTHERS)
def test_another_language_is_named(name):
    assert (
        caution(OTHERS[name], {"en"}) == f"the text looks like {name}, but the vectors were made from English: its scores are less reliable"
    )


@pytest.mark.parametrize("text", [*ENGLISH, *MIXED])
def test_english_in_any_spelling_and_what_is_half_english_gets_none(text):
    assert caution(text, {"en"}) == ""


def test_mixed_text_that_is_mostly_another_language_gets_one():
    assert "looks like Spanish" in caution("I'm so sorry, mi amor. ¿Estás bien? Please tell me si necesitas ayuda.", {"en"})
    assert "does not look like English" in caution("Mujhe bahut dukh hai ki tum is se guzar rahe ho. Kya tum theek ho?", {"en"})


@pytest.mark.parametrize("text", ["", "   ", "Lo siento.", "Es tut mir leid.", "123 456 789 012 345 678 901", "😀" * 50, "…" * 50])
def test_short_texts_never_get_one(text):
    assert sum(map(str.isalpha, text)) < LETTERS
    assert caution(text, {"en"}) == ""


def test_it_is_the_vectors_language_that_counts():
    assert caution(SPANISH, {"es"}) == caution(SPANISH, {"de", "es"}) == ""
    assert "made from German or Spanish" in caution(ENGLISH[0], {"es", "de"})
    assert caution(SPANISH, {"xx"}) == ""  # a language that is not known is never doubted


def test_almost_no_english_text_of_the_packs_gets_one():
    packs = [traits.load(name) for name in traits.names()]
    texts = {text for pack in packs for pair in pack.pairs for text in (pair.high, pair.low)}
    english = [o for o in (*ordinary_conversations(), *hard_moments()) if o.kind != "learning_language_chat"]
    texts |= {m.content for o in english for m in o.conversation.messages}
    long = [text for text in sorted(texts) if sum(map(str.isalpha, text)) >= LETTERS]
    cautioned = [text for text in long if caution(text, {"en"})]
    assert len(long) > 2000
    assert len(cautioned) / len(long) < 0.002


# where it goes


def talk(reply):
    return [{"role": "user", "content": "I feel bad."}, {"role": "assistant", "content": reply}]


def test_a_reading_holds_it_and_its_scores_stay():
    scorer = planted_scorer()
    reading = scorer.score(talk(SPANISH))
    assert "looks like Spanish" in reading.caution
    assert reading.to_record()["caution"] == reading.caution
    assert reading.signs == ()
    assert "caution" not in scorer.score(talk(ENGLISH[0])).to_record()
    turns = scorer.score_turns([*talk(SPANISH), *talk(ENGLISH[0])])
    many = list(scorer.score_many([talk(SPANISH), talk(ENGLISH[0])]))
    for found in (turns, many):
        assert [bool(r.caution) for r in found if isinstance(r, Reading)] == [True, False]


def test_it_flags_nothing_in_the_monitor_and_is_counted(monkeypatch):
    from demeanor.conversation import as_conversation
    from demeanor.monitor.transcripts import Counts, judge_transcript

    counts, actions = Counts(), []
    with planted_monitor(enforce=False) as watch:
        for reply in (FINE, SPANISH.replace("¿", "")):
            found = judge_transcript(
                watch, "x", as_conversation([{"role": "user", "content": AT_RISK}, {"role": "assistant", "content": reply}])
            )
            counts.add(found)
            decision = found.turns[0].decision
            actions.append((decision.action, bool(decision.reading.caution), decision.rules))
    cautioned = [a for a in actions if a[1]]
    assert counts.cautions == len(cautioned) == 1
    assert not any("language" in rule or "caution" in rule for rule in cautioned[0][2])
    assert counts.to_record()["cautions"] == 1


def test_score_says_it_and_counts_it(command, tmp_path, monkeypatch):
    from demeanor.cli import console

    scorer = planted_scorer()
    monkeypatch.setattr(console, "load_scorer", lambda *_: scorer)
    monkeypatch.setattr(console, "vector_set", lambda *_: scorer.vectors)
    done = command("score", f"User: hi\\nAssistant: {SPANISH}")
    assert "caution: the text looks like Spanish" in done.stderr
    rows = [{"messages": talk(text)} for text in (SPANISH, *ENGLISH[:3])]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = command("score", "-i", "in.jsonl", "-o", "out.jsonl")
    assert "1 of 4 replies is not in English: its scores are less reliable" in " ".join(done.stderr.split())
    out = [json.loads(line)["demeanor"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ["caution" in row for row in out] == [True, False, False, False]


def test_screening_counts_it(command, tmp_path, monkeypatch):
    from demeanor.cli import console

    scorer = planted_scorer()
    monkeypatch.setattr(console, "load_scorer", lambda *_: scorer)
    monkeypatch.setattr(console, "vector_set", lambda *_: scorer.vectors)
    rows = [{"messages": talk(text)} for text in (SPANISH, OTHERS["German"], *ENGLISH[:3])]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = command("screen", "--input", "in.jsonl", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert "2 of 5 replies are not in English" in " ".join(done.stderr.split())
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cautions"] == 2


def test_a_pack_and_its_vectors_keep_their_language(tmp_path):
    (tmp_path / "w.yaml").write_text("name: w\ndescription: d\nlanguage: de\npairs:\n- {high: Ja, low: Nein}\n")
    pack = read_pack(tmp_path / "w.yaml")
    assert pack.language == "de"
    (tmp_path / "w.yaml").write_text("name: w\ndescription: d\npairs:\n- {high: Ja, low: Nein}\n")
    assert (read_pack(tmp_path / "w.yaml").language, fingerprint(read_pack(tmp_path / "w.yaml"))) == ("en", fingerprint(pack))
    (tmp_path / "w.yaml").write_text("name: w\ndescription: d\nlanguage: German\npairs:\n- {high: Ja, low: Nein}\n")
    with pytest.raises(TraitError, match="language"):
        read_pack(tmp_path / "w.yaml")
    made = vector_set(replace(entry("warmth"), language="de"), entry("candour", seed=1))
    assert made.languages == {"de", "en"}
    made.save(tmp_path / "set")
    kept = json.loads((tmp_path / "set" / "manifest.json").read_text())["traits"]
    assert ("language" in kept["warmth"], "language" in kept["candour"]) == (True, False)  # a set without it is as it was
    assert VectorSet.load(tmp_path / "set").languages == {"de", "en"}


def test_the_count_in_words():
    assert counted(12, 40, {"en"}) == "12 of 40 replies are not in English: their scores are less reliable"


def test_the_reports_say_it_too(command, tmp_path, monkeypatch):
    from demeanor.cli import console

    scorer = planted_scorer()
    monkeypatch.setattr(console, "load_scorer", lambda *_: scorer)
    monkeypatch.setattr(console, "vector_set", lambda *_: scorer.vectors)
    rules = (
        "version: t\nrules:\n- {name: h, trait: harm, threshold: {z: 2.0}, severity: red, action: substitute, situation: harmful_plan}\n"
    )
    (tmp_path / "rules.yaml").write_text(rules)
    for name, reply in (("in", SPANISH), ("fine", ENGLISH[0])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"messages": talk(text)}) + "\n" for text in (reply, ENGLISH[1])))
    command("screen", "in.jsonl", "--output", "out")
    command("monitor", "in.jsonl", "--policy", "rules.yaml", "--report", "monitor.html", "--output", "decisions.jsonl")
    compared = command("compare", "fine.jsonl", "in.jsonl", "--report", "compare.html", "--json")
    for page in ("out/report.html", "monitor.html"):
        assert "1 of 2 replies is not in English: its scores are less reliable" in " ".join((tmp_path / page).read_text().split())
    said = "in.jsonl: 1 of 2 replies are not in a language of the vectors"
    assert said in " ".join(compared.stderr.split())
    page = " ".join((tmp_path / "compare.html").read_text().split())
    assert "in.jsonl: 1 of 2 replies are in another language than the vectors" in page
    assert "fine.jsonl: 1" not in page
    assert "looks like Spanish" in page
    assert [t["cautions"] for t in json.loads(compared.stdout)["tallies"]] == [0, 1]
