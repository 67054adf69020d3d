"""The reports' contents: what comes first, what each card says, nothing that is cut for good, and that the page lets nothing of it run."""

import base64
import hashlib
import html as html_text
import json
import re

import numpy as np
import pytest
from artifacts import entry
from monitor_tools import planted, policy

from demeanor.data.dates import date_of
from demeanor.measure.cuts import Cut
from demeanor.monitor.session import Monitor
from demeanor.monitor.transcripts import Counts, judge_transcript
from demeanor.reports.decided import cards_of
from demeanor.reports.figures import Scale, distribution, strokes
from demeanor.reports.marking import LONGEST, marked, passage, pushing_words
from demeanor.reports.monitor import write_report
from demeanor.reports.page import visible
from demeanor.reports.sentences import of_trait
from demeanor.scoring import TokenScores
from demeanor.testing import AT_RISK, CALM, FINE, HARMFUL, PLAIN

HOSTILE = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\"> {{ 7*7 }} \x1b[31m \u202egnp"


@pytest.fixture
def monitor(make_model, tokenizer):
    with Monitor(planted(make_model, tokenizer), policy(), enforce=False) as made:
        yield made


def judged(monitor, *talks):
    from demeanor.conversation import Conversation, Message

    made = []
    for i, texts in enumerate(talks):
        messages = tuple(Message("user" if j % 2 == 0 else "assistant", text) for j, text in enumerate(texts))
        made.append(judge_transcript(monitor, f"talk {i}", Conversation(messages), date="2026-01-31" if i else ""))
    return made


def page_of(tmp_path, monitor, transcripts):
    counts = Counts()
    for transcript in transcripts:
        counts.add(transcript)
    write_report(transcripts, counts, monitor, tmp_path / "r.html")
    return (tmp_path / "r.html").read_text(encoding="utf-8")


def test_cards_come_before_counts_and_rules_and_the_allowed_have_none(tmp_path, monitor):
    page = page_of(tmp_path, monitor, judged(monitor, (CALM, FINE), (CALM, HARMFUL)))
    places = [page.index(f'<h2 id="{part}">') for part in ("read", "counts", "rules", "limits")]
    assert places == sorted(places)
    assert page.count("<article class=") == 1
    assert 'id="c2-m2"' in page
    assert 'data-date="2026-01-31"' in page


def test_what_is_withheld_comes_before_what_is_flagged_whatever_the_order_of_the_file(monitor):
    transcripts = judged(monitor, (CALM, FINE), (AT_RISK, PLAIN), (CALM, HARMFUL))
    cards = cards_of(transcripts, monitor)
    ranks = [("allow", "flag", "substitute", "escalate").index(card.keys["action"]) for card in cards]
    assert ranks == sorted(ranks, reverse=True)
    assert "talk 0" not in [card.where[1] for card in cards]


def test_a_card_holds_the_whole_conversation_and_what_would_have_been_shown(monitor):
    (transcript,) = judged(monitor, (CALM, FINE, CALM, HARMFUL))
    (card,) = cards_of([transcript], monitor)
    assert [said.role for said in card.said] == ["user", "assistant"] * 2
    assert [said.here for said in card.said] == [False, False, False, True]
    assert card.instead
    assert card.done == "would have been withheld"
    assert card.words


def test_timelines_are_drawn_from_three_replies_up(tmp_path, monitor):
    two, three = (CALM, FINE) * 2, (CALM, FINE) * 3
    assert 'id="timelines"' not in page_of(tmp_path, monitor, judged(monitor, two))
    assert page_of(tmp_path, monitor, judged(monitor, two, three)).count('<article class="timeline">') == 1


def test_every_flagged_reply_and_every_timeline_is_on_the_page(tmp_path, monitor):
    page = page_of(tmp_path, monitor, judged(monitor, *[(CALM, FINE, CALM, FINE, CALM, HARMFUL)] * 45))
    assert page.count('<article class="card') == 45
    assert page.count('<article class="timeline">') == 45


def test_the_policy_of_the_page_allows_its_own_style_and_script_and_nothing_else(tmp_path, monitor):
    page = page_of(tmp_path, monitor, judged(monitor, (CALM, HARMFUL)))
    allowed = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    for kind in ("style", "script"):
        (text,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in html_text.unescape(allowed)
    assert "default-src 'none'" in allowed
    assert "unsafe-inline" not in allowed
    assert " style=" not in page.split("</style>")[1]
    assert not re.search(r"<[^>]+\son[a-z]+=", page.split("</style>")[1].split("<script>")[0])


def test_hostile_texts_stay_texts(tmp_path, monitor):
    page = page_of(tmp_path, monitor, judged(monitor, (HOSTILE, HOSTILE + HARMFUL), (CALM + " y" * 2000, HARMFUL)))
    body = page.split("</style>")[1].rsplit("<script>", 1)[0]
    assert "<img" not in body
    assert body.count("<script") == 1  # the data of the sheet
    assert "\x1b" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}", body)
    assert "Show the other" in body


def test_the_sheet_on_the_page_is_read_back_with_its_seals_whole(tmp_path, monitor):
    import csv

    from demeanor.data.answers import read_answers

    page = page_of(tmp_path, monitor, judged(monitor, (CALM, HARMFUL), (CALM, HARMFUL + ' "quoted", and\nmore')))
    sheet = json.loads(re.search(r'id="sheet">(.*?)</script>', page, re.DOTALL)[1])
    at = sheet["columns"].index("label")
    with (tmp_path / "sheet.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(sheet["columns"])
        for i, (_, _, cells) in enumerate(sheet["rows"]):
            writer.writerow([*cells[:at], ("safe", "unsafe")[i % 2], *cells[at + 1 :]])
    assert len(sheet["rows"]) >= 2
    assert read_answers(tmp_path / "sheet.csv")


@pytest.mark.parametrize(("beyond", "words"), [(0.1, "just past the limit"), (1.0, "(past the limit"), (2.5, "far past the limit")])
def test_a_sentence_says_what_happened_and_how_far(beyond, words):
    said = of_trait("crisis_recognition", Cut("z", 0.0, "below", ""), entry(), beyond, at_risk=True)
    assert said.startswith("The user may be at risk; the reply does not attend to it (")
    assert words in said


def test_a_trait_of_ones_own_is_told_by_its_pole():
    assert of_trait("warmth", Cut("z", 0.0, "below", ""), entry(), None) == "The reply shows no warmth."
    assert of_trait("warmth", Cut("z", 0.0, "above", ""), entry(), None) == "The reply shows warmth."
    assert of_trait("crisis_recognition", Cut("z", 0.0, "above", ""), entry(), None, at_risk=True) == "The reply shows warmth."


def test_marks_go_by_the_unsafe_side_and_words_are_whole():
    tokens = TokenScores(["Keep", " it", " sec", "ret", "."], {"t": np.array([0.0, -3.0, 1.0, 4.0, 9.0])})
    assert [(run.text, run.mark) for run in marked(tokens, "t", "above").shown if run.mark] == [
        ("it", "safe-3"),
        ("sec", "unsafe-1"),
        ("ret.", "unsafe-4"),
    ]
    assert pushing_words(tokens, "t", "above") == ["secret"]
    assert pushing_words(tokens, "t", "below") == ["it"]


def test_a_long_text_is_folded_and_not_cut():
    text = "word " * 20_000
    found = passage(text)
    assert sum(len(run.text) for run in found.shown) == LONGEST
    assert "".join(run.text for run in (*found.shown, *found.folded)) == text
    assert passage("short").folded == ()


def test_control_characters_are_shown_as_pictures():
    assert visible("a\x1b[0m\x00\x7f\n\t") == "a␛[0m␀␡\n\t"


@pytest.mark.parametrize(
    ("record", "day"),
    [
        ({"date": "2026-01-31"}, "2026-01-31"),
        ({"Created At": "2026-1-3T10:00:00Z"}, "2026-01-03"),
        ({"create_time": 1769817600}, "2026-01-31"),
        ({"timestamp": "1769817600000"}, "2026-01-31"),
        ({"time": "soon", "created": 1769817600.5}, "2026-01-31"),
        ({"date": "2026-13-45"}, ""),
        ({"date": True, "time": None, "day": float("inf")}, ""),
        ({}, ""),
    ],
)
def test_the_day_of_a_row(record, day):
    assert date_of(record) == day


def test_scales_have_round_ends_and_hold_what_they_are_given():
    scale = Scale.over([-1.3, 4.2, float("nan")])
    assert (scale.low, scale.high) == (-2.0, 5.0)
    assert [scale.at(v) for v in (-2.0, 1.5, 5.0, 99.0)] == [0.0, 50.0, 100.0, 100.0]
    assert Scale.over([]).ticks
    assert Scale.over([3.0, 3.0]).low < 3 < Scale.over([3.0, 3.0]).high


def test_a_line_breaks_where_a_value_is_unknown():
    unit = Scale.over([0.0, 1.0])
    assert len(strokes(unit, unit, [(0, 0), (0.2, 0.5), (0.4, None), (0.6, 1), (1, 0)], "plain")) == 2


def test_a_distribution_counts_everything():
    boxes = distribution([0.1] * 3 + [5.0, float("nan")], Scale(0.0, 1.0, ()), "plain")
    assert [box.title.split()[0] for box in boxes] == ["3", "1"]
