"""A sheet's journey: handed out for people, filled in by several of them in any spreadsheet, and back without a label lost or misread."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import conftest
import numpy as np
import pytest
from artifacts import entry, vector_set
from monitor_tools import CALM, HARMFUL, PLAIN, planted

from demeanor.cli import console
from demeanor.cli.main import main
from demeanor.conversation import as_conversation
from demeanor.data.answers import NO, YES, agreed, read_answers, value_of
from demeanor.data.decisions import read_decisions
from demeanor.data.labelled import read_labelled
from demeanor.data.sheets import is_ours, rows_of
from demeanor.data.to_label import Question, ToLabel, guide_path, shown, write_guide, write_sheet
from demeanor.errors import InputFileError
from demeanor.extraction.sampling import choose_to_label, in_turn, mixed_in
from demeanor.scoring import NotScored, Reading, Score
from demeanor.traits import load, names

WARMTH = Question("warmth", "Warmth", "takes in what is felt.", "passes it by.", "high")
HARM = Question("harm", "Harm", "goes along with it.", "names what needs caution.", "low")
SAYINGS = (
    "I can't sleep — it's “bad”…",
    "Größe, façade, œuvre",
    "мне плохо",
    "死にたい",
    "ok 🙂\nsecond line",
    '"quoted"; and, so\ton',
    "=1+1",
    "-",
)


def talks(n=30):
    """Conversations with what spreadsheets and encodings stumble over."""
    return [
        as_conversation(
            [
                {"role": "user", "content": f"{SAYINGS[i % len(SAYINGS)]} {i}"},
                {"role": "assistant", "content": f"reply {i}\r\n- {SAYINGS[-1 - i % len(SAYINGS)]}"},
            ]
        )
        for i in range(n)
    ]


def handed_out(path, n=30, question=WARMTH, groups=None):
    write_sheet(path, [ToLabel(f"00{i}", talk, groups[i] if groups else "", question) for i, talk in enumerate(talks(n))])
    return path


def cells(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def fill(path, target=None, encoding="utf-8-sig", separator=",", end="\r\n", **columns):
    """Write the sheet anew as a spreadsheet would, with these columns filled in: a list, or a function of the row's number."""
    rows = cells(path)
    for i, row in enumerate(rows):
        row.update({name: values(i) if callable(values) else values[i] for name, values in columns.items()})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys(), delimiter=separator, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    target = target or path
    target.write_bytes(text.getvalue().encode(encoding, "replace"))
    return target


def alternately(i):
    return ("safe", "unsafe")[i % 2]


@pytest.fixture
def sheet(tmp_path):
    return handed_out(tmp_path / "sheet.csv")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run `demeanor ARGS` in an empty folder: its exit code, and both outputs with single spaces."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["demeanor", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *(" ".join(text.split()) for text in capsys.readouterr()))

    return call


# ------------------------------------------------------------------------------------------------------------------ handed out


def test_a_sheet_shows_people_what_they_need_and_keeps_the_machine_s_columns_for_last(sheet):
    assert sheet.read_bytes().startswith(b"\xef\xbb\xbf")  # else Excel takes it for Windows-1252
    first = cells(sheet)[0]
    assert list(first) == ["conversation", "question", "label", "notes", "rater", "id", "trait", "group", "messages", "hash"]
    assert first["conversation"] == "User:\nI can't sleep — it's “bad”… 0\n\n>>> Chatbot, the reply to label:\nreply 0\n- -"
    assert first["question"].splitlines() == [
        "Warmth. Is this reply safe or unsafe?",
        "safe: the reply takes in what is felt.",
        "unsafe: the reply passes it by.",
        "unsure: you cannot decide, or the question does not fit.",
    ]
    assert (first["label"], first["notes"], first["rater"]) == ("", "", "")
    assert first["messages"].isascii()  # whatever encoding the sheet comes back in


@pytest.mark.parametrize("name", names())
def test_the_question_of_every_built_in_trait_reads_as_sentences(name):
    trait = load(name)
    question = Question(name, trait.title, trait.high_pole, trait.low_pole, trait.safe_pole, trait.reads)
    subject = "message" if trait.reads == "user" else "reply"
    for line in (question.safe, question.unsafe):
        assert line.startswith(f"the {subject} ")
        assert not re.search(rf"the {subject} (the|a|it) ", line)
        assert line.endswith(".")
        assert not line.endswith("..")
    assert question.safe[len(f"the {subject} ") :].split()[0] in (trait.high_pole if trait.safe_pole == "high" else trait.low_pole)


def test_poles_without_words_and_a_low_safe_pole_are_asked_about_the_right_way_round():
    assert HARM.safe == "the reply names what needs caution."
    plain = Question("x", "My trait", "high", "low", "low")
    assert (plain.safe, plain.unsafe) == ("the reply is low in my trait.", "the reply is high in my trait.")


def test_what_is_said_after_the_message_is_not_shown_and_a_trait_of_the_user_s_marks_the_user_s():
    talk = as_conversation(
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "I am low."},
            {"role": "assistant", "content": "Oh."},
            {"role": "user", "content": "Thanks."},
        ]
    )
    assert shown(talk) == "Instructions to the chatbot:\nBe kind.\n\nUser:\nI am low.\n\n>>> Chatbot, the reply to label:\nOh."
    assert shown(talk, "user").endswith("Chatbot:\nOh.\n\n>>> User, the message to label:\nThanks.")


def test_no_cell_is_longer_than_a_spreadsheet_holds_and_a_long_conversation_comes_back_whole(tmp_path):
    long = as_conversation([{"role": "user", "content": "🙂é" * 20_000}, {"role": "assistant", "content": "The end."}])
    short = as_conversation("User: Hi\nAssistant: Hello")
    path = tmp_path / "sheet.csv"
    write_sheet(path, [ToLabel("1", long, "", WARMTH), ToLabel("2", short, "", WARMTH)])
    rows = cells(path)
    assert max(len(cell.encode("utf-16-le")) // 2 for row in rows for cell in row.values()) <= 32_767
    assert rows[0]["conversation"].startswith("[The beginning is left out.]")
    assert rows[0]["conversation"].endswith("The end.")
    fill(path, label=alternately)
    assert agreed(read_answers(path), safe_pole="high").conversations == [long, short]


def test_the_guide_says_what_the_words_mean_and_runs_no_script(tmp_path):
    odd = Question("odd", "A <b>trait</b>", "is <script>", "is not.", "high")
    path = guide_path(tmp_path / "to-label.csv")
    write_guide(path, "to-label.csv", [WARMTH, odd])
    page = path.read_text(encoding="utf-8")
    assert path.name == "to-label-guide.html"
    assert "the reply takes in what is felt." in page
    assert "the reply passes it by." in page
    assert "<script" not in page
    assert "http" not in page


# --------------------------------------------------------------------------------------------------------------------- back again


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_every_spreadsheet_s_csv_gives_back_what_was_handed_out(sheet, encoding, separator, end):
    fill(sheet, None, encoding, separator, end, label=alternately, notes=lambda i: f"Ça va; n° {i}, ok" if i % 3 else "")
    found = agreed(read_answers(sheet, "warmth"), "response", "high")
    assert found.conversations == talks()
    assert found.values == [1.0, 0.0] * 15


def test_a_sheet_of_an_old_macintosh_and_one_that_is_named_txt_are_read(tmp_path):
    (tmp_path / "mac.csv").write_bytes(b"prompt;response;label\rHi;one;1\rHi;two;0\r")
    (tmp_path / "sheet.txt").write_bytes("prompt\tresponse\tlabel\r\nHi\tone\t1\r\nHi\ttwo\t0\r\n".encode("utf-16"))
    (tmp_path / "rows.txt").write_text('{"response": "one", "label": 1}\n{"response": "two", "label": 0}\n')
    for name in ("mac.csv", "sheet.txt", "rows.txt"):
        assert read_labelled(tmp_path / name).target.tolist() == [1, 0]


def test_a_mark_that_was_misread_and_saved_as_text_does_not_hide_the_first_column(sheet):
    fill(sheet, label=alternately)
    sheet.write_bytes(sheet.read_bytes().decode("cp1252", "replace").encode("utf-8-sig"))
    assert cells(sheet)[0]["ï»¿conversation"]
    rows = rows_of(sheet)
    assert all(is_ours(row.record) for row in rows)
    assert agreed(read_answers(sheet), safe_pole="high").conversations == talks()


@pytest.mark.parametrize("name", ["sheet.xlsx", "sheet.csv", "sheet.ods"])
def test_a_workbook_is_refused_with_how_to_save_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(range(256)))
    with pytest.raises(InputFileError, match=r"is a workbook, .* in Excel save it as 'CSV UTF-8 \(Comma delimited\)'"):
        read_answers(tmp_path / name)


def test_bytes_that_are_no_text_are_one_clear_line(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"label,response\n1,\x81\xff\x9d\n")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfel\x00a")
    for name in ("a.csv", "b.csv"):
        with pytest.raises(InputFileError, match=r"cannot be read as .* text .*; save it as 'CSV UTF-8'"):
            read_answers(tmp_path / name)


def test_empty_rows_and_stray_cells_beside_the_sheet_are_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,response,label,,\nHi,one,safe,,\n,,,,\n\nHi,two,unsafe,my own sum,\n,,,,\n")
    answers = read_answers(tmp_path / "a.csv")
    assert agreed(answers, safe_pole="high").values == [1.0, 0.0]
    assert answers.unlabelled == 0


@pytest.mark.parametrize("pole", ["high", "low"])
def test_safe_is_the_trait_s_safe_pole(sheet, pole):
    fill(sheet, label=alternately)
    assert agreed(read_answers(sheet), "response", pole).values == [float(pole == "high"), float(pole == "low")] * 15


def test_safe_and_unsafe_mean_nothing_without_a_trait(sheet):
    fill(sheet, label=alternately)
    with pytest.raises(InputFileError, match="'safe' has a meaning only beside a trait"):
        read_labelled(sheet)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("safe", "safe"), (" SAFE ", "safe"), ("Safe.", "safe"), ("'safe", "safe"), ("unsafe", "unsafe"), ("UnSafe\u00a0", "unsafe"),
        ("Unsure", "unsure"), ("?", "unsure"), ("don’t know", "unsure"), ("High", 1.0), ("low", 0.0), (1, 1.0), ("0", 0.0), (True, 1.0),
        (False, 0.0), ("1.0", 1.0), ("0,5", 0.5), ("3", 3.0), ("-1", -1.0), ("TRUE", 1.0), ("WAHR", 1.0), ("FALSCH", 0.0), ("FAUX", 0.0),
        ("VERDADERO", 1.0), ("FALSO", 0.0), ("ИСТИНА", 1.0), ("ЛОЖЬ", 0.0), ("DOĞRU", 1.0), ("EPÄTOSI", 0.0), ("FAŁSZ", 0.0),
        ("ΑΛΗΘΗΣ", 1.0), ("ΨΕΥΔΗΣ", 0.0), ("perhaps", None), ("1,2,3", None), ("nan", None), ("inf", None), ("", None), ("s", None),
    ],
)  # fmt: skip
def test_a_label_is_read_as_it_was_meant_or_not_at_all(written, meant):
    assert value_of(written) == meant


def test_no_word_is_true_in_one_language_and_false_in_another():
    assert {value_of(word) for word in YES} == {1.0}
    assert {value_of(word) for word in NO} == {0.0}


def test_every_row_that_cannot_be_read_is_named_at_once_with_its_row_in_the_spreadsheet(sheet):
    fill(sheet, label=lambda i: {3: "sfae", 7: "perhaps", 8: "maybe"}.get(i, alternately(i)))
    with pytest.raises(InputFileError) as said:
        read_answers(sheet)
    text = str(said.value)
    assert text.startswith("3 rows cannot be read: ")
    assert "row 5: the label 'sfae' is neither a number nor high or low; did you mean safe?" in text
    assert "row 9: the label 'perhaps' is neither a number nor high or low, nor safe, unsafe or unsure" in text
    assert "row 10: the label 'maybe'" in text
    assert "\n" not in text


def test_of_very_many_broken_rows_the_first_dozen_are_named_and_the_rest_counted(sheet):
    fill(sheet, label=lambda i: "perhaps")
    with pytest.raises(InputFileError, match=r"^30 rows cannot be read: .*; and 18 more$"):
        read_answers(sheet)


@pytest.mark.parametrize("column", ["messages", "trait", "group"])
def test_a_changed_cell_of_the_machine_s_is_named_with_its_row(tmp_path, column):
    path = handed_out(tmp_path / "sheet.csv", groups=[f"family {i}" for i in range(30)])
    rows = cells(path)
    changed = rows[4][column].replace("reply", "a better reply") if column == "messages" else rows[4][column] + " too"
    fill(path, **{column: [changed if i == 4 else row[column] for i, row in enumerate(rows)], "label": alternately})
    with pytest.raises(InputFileError, match=f"row 6: '{column}' was changed after the sheet was handed out; copy the row again"):
        read_answers(path)


@pytest.mark.parametrize("column", ["hash", "messages"])
def test_a_cell_of_the_machine_s_that_was_emptied_is_named(sheet, column):
    fill(sheet, label=alternately, **{column: [row[column] if i else "" for i, row in enumerate(cells(sheet))]})
    with pytest.raises(InputFileError, match=f"'{column}' was changed"):
        read_answers(sheet)


def test_one_column_that_was_sorted_alone_is_noticed(sheet):
    talks_sorted = sorted(row["conversation"] for row in cells(sheet))
    fill(sheet, label=alternately, conversation=talks_sorted)
    with pytest.raises(InputFileError, match="'conversation' does not belong to the row's 'messages'; was it edited, or one column sorted"):
        read_answers(sheet)


def test_whole_rows_may_be_sorted_and_deleted_and_columns_moved_and_added(sheet):
    fill(sheet, label=alternately)
    rows = cells(sheet)[:3:-1]
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["mine", *sorted(rows[0])], restval="x")
        writer.writeheader()
        writer.writerows(rows)
    found = agreed(read_answers(sheet), safe_pole="high")
    assert found.conversations == talks()[:3:-1]


@pytest.mark.parametrize("group", ["001", "1-2", "März", "=1+1", "семья 3", "group 3", "true", "4E10"])
def test_a_group_comes_back_as_it_was_whatever_a_spreadsheet_makes_of_numbers(tmp_path, group):
    path = handed_out(tmp_path / "sheet.csv", 2, groups=[group, "other"])
    assert re.match(r"group .*[^\d]|group \d", cells(path)[0]["group"])
    fill(path, encoding="cp1252", label=alternately)
    assert rows_of(path)[0].record["group"] == group


def test_rows_about_other_traits_are_passed_over_and_counted(tmp_path):
    path = tmp_path / "sheet.csv"
    write_sheet(path, [ToLabel(str(i), talk, "", question) for i, talk in enumerate(talks(6)) for question in (WARMTH, HARM)])
    fill(path, label=lambda i: "safe" if i % 4 < 2 else "unsafe")
    found = read_answers(path, "harm")
    assert (len(found.given), found.elsewhere) == (6, 6)
    assert agreed(found, safe_pole="low").values == [0.0, 1.0] * 3
    with pytest.raises(InputFileError, match="no row asks about candour, only about warmth, harm"):
        read_answers(path, "candour")


def test_somebody_s_own_columns_named_trait_and_hash_mean_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("response,label,trait,hash\none,1,other,abc\ntwo,0,other,\n")
    assert len(read_answers(tmp_path / "a.csv", "warmth").given) == 2


def test_unsure_and_unlabelled_rows_are_counted_and_left_out(sheet):
    fill(sheet, label=lambda i: ("safe", "unsafe", "unsure", "", "?")[i % 5])
    found = read_answers(sheet)
    assert (len(found.given), found.unsure, found.unlabelled) == (12, 12, 6)


def test_grades_beside_words_are_refused(sheet):
    fill(sheet, label=lambda i: "4" if i == 2 else alternately(i))
    with pytest.raises(InputFileError, match="row 4: the grade 4 stands beside words such as 'safe'"):
        read_answers(sheet)


# -------------------------------------------------------------------------------------------------------------------- several raters


def three_raters(tmp_path):
    sheet = handed_out(tmp_path / "sheet.csv", 6)
    labels = {
        "a": "safe safe safe safe unsafe unsafe",
        "b": "safe safe safe unsafe unsafe unsure",
        "c": "safe safe unsafe unsure safe safe",
    }
    return [fill(sheet, tmp_path / f"{name}.csv", label=words.split(), rater=lambda _, n=name: n.upper()) for name, words in labels.items()]


def test_several_raters_come_to_a_majority_and_ties_are_left_out(tmp_path):
    found = agreed(read_answers(three_raters(tmp_path)), "response", "high")
    assert found.values == [1.0, 1.0, 1.0, 0.0]
    assert found.conversations == [talks()[i] for i in (0, 1, 2, 4)]
    assert found.tied == 2
    nan = np.nan
    expected = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, nan], [1, 1, 0, nan, 1, 1]], float)
    assert np.array_equal(found.ratings, expected, equal_nan=True)


def test_or_to_the_mean(tmp_path):
    found = agreed(read_answers(three_raters(tmp_path)), "response", "high", "mean")
    assert found.values == pytest.approx([1, 1, 2 / 3, 0.5, 1 / 3, 0.5])
    assert found.tied == 0


def test_raters_in_one_file_by_rows_or_by_columns_are_the_same(tmp_path):
    by_rows, by_columns = tmp_path / "rows.csv", tmp_path / "columns.csv"
    by_rows.write_text(
        "prompt,response,label,rater\nHi,one,1,Anna\nHi,one,0,Ben\nHi,two,0,anna \nHi,two,0,Ben\nHi,three,1,Anna\n", encoding="utf-8"
    )
    by_columns.write_text("prompt,response,label: Anna,label (Ben)\nHi,one,1,0\nHi,two,0,0\nHi,three,1,\n", encoding="utf-8")
    rows, columns = (agreed(read_answers(path)) for path in (by_rows, by_columns))
    assert np.array_equal(rows.ratings, columns.ratings, equal_nan=True)
    assert (rows.values, rows.tied) == (columns.values, columns.tied) == ([0.0, 1.0], 1)


def test_one_rater_keeps_every_row_as_before(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": "Hi", "response": "one", "label": i, "rater": "Anna"}) + "\n" for i in (1, 0, 1)))
    assert read_labelled(path).target.tolist() == [1, 0, 1]


def test_a_name_in_the_first_row_alone_is_the_rater_of_the_whole_file(tmp_path):
    sheet = handed_out(tmp_path / "sheet.csv", 6)
    one, two = (
        fill(sheet, tmp_path / f"{name}.csv", label=alternately, rater=lambda i, n=name: n if i == 0 else "") for name in ("Anna", "Ben")
    )
    assert read_answers(one).raters == ["anna"]
    assert read_answers([one, two]).raters == ["anna", "ben"]
    fill(two, rater=lambda i: "")
    assert read_answers([one, two]).raters == ["anna", str(two)]


def test_one_rater_who_says_two_things_of_one_reply_is_asked_which(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,response,label,rater\nHi,one,1,Anna\nHi,one,0,Anna\nHi,one,0,Ben\n")
    with pytest.raises(InputFileError, match=r"row 3: anna labels the reply of .*a.csv, row 2 again and differently"):
        agreed(read_answers(path))


def test_grades_of_several_raters_are_averaged(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,response,label: A,label: B\nHi,one,5,4\nHi,two,1,2\n")
    found = agreed(read_answers(path))
    assert (found.values, found.by) == ([4.5, 1.5], "mean")


# ---------------------------------------------------------------------------------------------------------------- on the command line


class Scorer:
    """Scores by the number at the reply's end; the user's message reads the same."""

    vectors = vector_set(entry("warmth"), entry("harm", safe_pole="low"), entry("risk", reads="user"))
    reader = None

    def score_many(self, conversations):
        for i, conversation in enumerate(conversations):
            if "unscored" in str(conversation):
                yield NotScored("too long")
                continue
            z = {name: Score(0.0, 0.0, float((i * k) % 17), 0.5) for name, k in (("warmth", 1), ("harm", 5))}
            yield Reading(z, {}, "tiny-chat")


@pytest.fixture
def scorer(monkeypatch, tmp_path):
    monkeypatch.setattr(console, "load_scorer", lambda *options, **named: Scorer())
    Scorer.vectors.save(tmp_path / "vectors")


def words(i, n=8):
    return " ".join(f"w{(i * 31 + k * 7) % 997}" for k in range(n))


def unlabelled(path, n=40):
    path.write_text("".join(json.dumps({"id": f"r{i}", "prompt": words(i), "response": words(i + 500)}) + "\n" for i in range(n)))
    return path


@pytest.mark.usefixtures("scorer")
def test_sample_writes_a_sheet_and_its_guide_and_another_seed_draws_others(run, tmp_path):
    source = unlabelled(tmp_path / "r.jsonl")
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        code, out, _ = run("sample", "-t", "warmth", "-i", source, "--n", 10, "--seed", seed, "-o", f"{name}.csv")
        assert code == 0
        assert f"10 replies to label in {name}.csv, guidance in {name}-guide.html" in out
        drawn.append([row["id"] for row in cells(tmp_path / f"{name}.csv")])
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) != set(drawn[2])
    assert "the reply shows warmth." in (tmp_path / "a-guide.html").read_text()


@pytest.mark.usefixtures("scorer")
def test_one_sheet_asks_about_several_traits(run, tmp_path):
    code, out, _ = run("sample", "-t", "warmth", "-t", "harm", "-i", unlabelled(tmp_path / "r.jsonl"), "--n", 10, "-o", "s.csv")
    assert code == 0
    assert "10 replies to label (20 questions)" in out
    assert "--trait harm --input s.csv --output adapted-harm" in out
    rows = cells(tmp_path / "s.csv")
    assert [row["trait"] for row in rows] == ["warmth", "harm"] * 10
    assert [row["id"] for row in rows[::2]] == [row["id"] for row in rows[1::2]]
    assert "safe: the reply shows no harm." in rows[1]["question"]


@pytest.mark.usefixtures("scorer")
def test_rows_that_are_no_text_do_not_stop_a_sample(run, tmp_path):
    source = unlabelled(tmp_path / "r.jsonl", 4)
    bad = ["not json", '{"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}', '{"x": 1}', '{"response": "unscored"}']
    source.write_text("\n".join([bad[0], source.read_text().strip(), *bad[1:]]))
    code, out, err = run("sample", "-t", "warmth", "-i", source, "-o", "s.csv")
    assert code == 3
    assert "4 replies to label" in out
    assert "4 of 8 rows could not be scored and are not in the sheet, the first: line 1 is not JSON" in err


@pytest.mark.usefixtures("scorer")
def test_a_sample_that_cannot_be_written_is_refused_before_anything_is_scored(run, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "load_scorer", lambda *_, **__: pytest.fail("loaded"))
    source = unlabelled(tmp_path / "r.jsonl")
    (tmp_path / "s-guide.html").write_text("mine")
    assert "s-guide.html already exists" in run("sample", "-t", "warmth", "-i", source, "-o", "s.csv")[2]
    assert "name it .csv" in run("sample", "-t", "warmth", "-i", source, "-o", "s.xlsx")[2]
    assert "give either a file of unlabelled replies, or --from" in run("sample", "-t", "warmth")[2]
    assert "give either a file of unlabelled replies, or --from" in run("sample", "-t", "warmth", "-i", source, "--from", source)[2]
    assert "only work with --from" in run("sample", "-t", "warmth", "-i", source, "--allowed", 0.5)[2]
    assert (tmp_path / "s-guide.html").read_text() == "mine"


def decisions(path, allow=60, flag=20, substitute=10):
    """As `demeanor monitor --output` writes them: each conversation with two replies, the first of them allowed."""
    actions = ["flag"] * flag + ["substitute"] * substitute + ["allow"] * (allow - flag - substitute)
    lines = []
    for i, action in enumerate(actions):
        talk = [
            {"role": role, "content": words(i * 4 + k + 1000)} for k, role in enumerate(("user", "assistant", "user", "assistant", "user"))
        ]
        made = [
            {"message": at, "action": done, "reading": {"scores": {"warmth": {"z": float(i % 9)}, "harm": {"z": None}}}}
            for at, done in ((1, "allow"), (3, action))
        ]
        made[1]["reading"] = None if i == 0 else made[1]["reading"]  # could not be scored, and is flagged for it
        lines.append(json.dumps({"id": f"c{i}", "messages": talk, "demeanor": {"action": action, "decisions": made}}))
    path.write_text("\n".join(lines) + "\n")
    return path


def action_of(name):
    """What was done about the reply that is so named."""
    number, message = re.fullmatch(r"c(\d+) message (\d)", name).groups()
    return "allow" if message == "2" or int(number) >= 30 else "flag" if int(number) < 20 else "substitute"


@pytest.mark.usefixtures("scorer")
@pytest.mark.parametrize("seed", range(3))
def test_a_sheet_from_decisions_has_what_was_flagged_and_a_share_of_what_was_allowed(run, tmp_path, seed):
    source = decisions(tmp_path / "d.jsonl")
    code, _, err = run(
        "sample",
        "-t",
        "warmth",
        "--from",
        source,
        "--action",
        "flag,substitute",
        "--allowed",
        0.2,
        "--n",
        20,
        "--seed",
        seed,
        "-o",
        "s.csv",
    )
    assert code == 0, err
    rows = cells(tmp_path / "s.csv")
    done = [action_of(row["id"]) for row in rows]
    assert (len(done), done.count("allow")) == (20, 4)
    assert "flag" in done
    assert "substitute" in done
    assert done[:16] != sorted(done, key=lambda a: a == "allow")[:16]  # the allowed ones are not all at the end
    assert not any(word in json.dumps(row) for row in rows for word in ("flag", "allow", '"z"'))
    assert "16 replies with flag or substitute and 4 allowed ones, of 120" in err
    for row in rows:  # a reply is shown with what came before it, and ends the conversation
        messages = json.loads(row["messages"])
        assert messages[-1]["role"] == "assistant"
        assert len(messages) == int(row["id"][-1])
        assert row["group"].startswith("group conversation c")


@pytest.mark.usefixtures("scorer")
def test_few_flagged_replies_keep_the_share_of_allowed_ones(run, tmp_path):
    assert run("sample", "-t", "warmth", "--from", decisions(tmp_path / "d.jsonl", flag=8, substitute=0), "-o", "s.csv")[0] == 0
    assert len(cells(tmp_path / "s.csv")) == 10  # eight, and a fifth of ten


def test_shares_of_two_pools():
    assert mixed_in(100, 100, 50, 0.2) == (40, 10)
    assert mixed_in(100, 3, 50, 0.2) == (40, 3)
    assert mixed_in(8, 100, 50, 0.2) == (8, 2)
    assert mixed_in(100, 100, 50, 0.0) == (50, 0)
    assert mixed_in(5, 5, 1, 0.2) == (1, 0)


@pytest.mark.usefixtures("scorer")
def test_an_unscored_reply_that_was_flagged_may_be_on_the_sheet_and_other_actions_are_drawn_alone(run, tmp_path):
    source = decisions(tmp_path / "d.jsonl")
    assert run("sample", "-t", "warmth", "--from", source, "--action", "flag", "--allowed", 0, "-o", "s.csv")[0] == 0
    names_on_sheet = {row["id"] for row in cells(tmp_path / "s.csv")}
    assert {action_of(name) for name in names_on_sheet} == {"flag"}
    assert "c0 message 4" in names_on_sheet


@pytest.mark.usefixtures("scorer")
def test_what_is_wrong_with_decisions_is_said(run, tmp_path):
    source = decisions(tmp_path / "d.jsonl", flag=0, substitute=0)
    assert "no reply was decided on with escalate, of 120" in run("sample", "-t", "warmth", "--from", source, "--action", "escalate")[2]
    assert "unknown action 'flagged'; did you mean flag?" in run("sample", "-t", "warmth", "--from", source, "--action", "flagged")[2]
    plain = unlabelled(tmp_path / "r.jsonl")
    err = run("sample", "-t", "warmth", "--from", plain)[2]
    assert "no row holds a decision (line 1: its 'demeanor' holds no decisions of the monitor); give a file that" in err
    assert "Traceback" not in err


def test_a_row_that_was_not_judged_or_was_changed_since_is_left_out_with_its_line(tmp_path):
    source = decisions(tmp_path / "d.jsonl", allow=3, flag=0, substitute=0)
    good = source.read_text().splitlines()
    rows = [json.loads(line) for line in good]
    rows[1]["messages"] = rows[1]["messages"][:2]
    more = [
        {"x": 1, "demeanor": {"error": "line 9: no text"}}, {"demeanor": 3}, {"demeanor": None}, {"demeanor": {"decisions": [1]}},
        {"response": "a", "demeanor": {"decisions": [{"action": "flag"}]}},
        {"response": "a", "demeanor": {"decisions": [{"message": 0, "action": "flag", "reading": {"scores": {"w": {"z": "high"}}}}]}},
    ]  # fmt: skip
    source.write_text("\n".join(["[]", *(json.dumps(row) for row in [*rows, *more])]))
    found, left, rows_read = read_decisions(source)
    assert rows_read == 10
    assert len(found) == 5
    assert found[-1].z == {}
    assert [text.partition(":")[0] for text in left] == ["line 1 is not a JSON object", *(f"line {n}" for n in (3, 5, 6, 7, 8, 9))]
    assert "which is no reply; the rows were changed since" in left[1]
    assert "not judged: line 9: no text" in left[2]


def test_what_the_monitor_writes_is_what_a_sheet_is_drawn_from(run, tmp_path, monkeypatch, tokenizer):
    scorer = planted(conftest._build, tokenizer)
    monkeypatch.setattr(console, "load_scorer", lambda *options: scorer)
    scorer.vectors.save(tmp_path / "vectors")
    (tmp_path / "policy.yaml").write_text(
        "version: t\nrules:\n- {name: harmful, trait: harm, threshold: {z: 2.0}, severity: red, action: substitute,"
        " situation: harmful_plan}\ndeadline_seconds: 60\n"
    )
    said = [("user", CALM), ("assistant", HARMFUL), ("user", CALM), ("assistant", PLAIN)]
    talk = [{"role": role, "content": content} for role, content in said]
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": "a", "messages": talk}) + "\n" + json.dumps({"id": "b", "x": 1}) + "\n")
    assert run("monitor", "-i", "t.jsonl", "-o", "d.jsonl", "--policy", "policy.yaml")[0] == 3
    code, out, err = run("sample", "-t", "harm", "--from", "d.jsonl", "--allowed", 0.5, "-o", "s.csv")
    assert (code, "2 replies to label" in out) == (3, True), err
    assert "1 of 2 rows hold no decisions and are not in the sheet, the first: line 2: not judged" in err
    rows = {row["id"]: json.loads(row["messages"]) for row in cells(tmp_path / "s.csv")}
    assert rows == {"a message 2": talk[:2], "a message 4": talk}


@pytest.fixture
def learns(monkeypatch, scorer):
    """`adapt` and `calibrate` with what they would have learnt from kept."""
    kept = []

    def keep(reader, vectors, trait, labelled, *_):
        kept.append(labelled)
        raise InputFileError("enough")

    monkeypatch.setattr("demeanor.extraction.adaptation.adapt", keep)
    monkeypatch.setattr("demeanor.extraction.recalibration.recalibrate", keep)
    return kept


@pytest.mark.parametrize("command", ["adapt", "calibrate"])
def test_what_raters_say_is_settled_and_told(run, tmp_path, learns, command):
    files = [word for path in three_raters(tmp_path) for word in ("-i", path)]
    _, _, err = run(command, "-t", "warmth", *files, "-o", "out")
    assert "left out: 2 unsure labels, 2 replies on which the raters are tied" in err
    assert "3 raters agree on 2 of the 6 replies that more than one labelled; they differ at row 4, row 5, row 6, row 7" in err
    assert "Krippendorff's alpha" in err
    assert "caution: below 0.67 the labels are too uncertain" in err
    assert learns[0].target.tolist() == [1, 1, 1, 0]
    run(command, "-t", "warmth", *files, "-o", "out", "--raters", "mean")
    assert len(learns[1].target) == 6


@pytest.mark.parametrize("command", ["adapt", "calibrate"])
def test_safe_follows_the_pole_of_the_trait_that_is_learnt(run, tmp_path, learns, command):
    sheet = fill(handed_out(tmp_path / "s.csv", question=HARM), label=alternately)
    run(command, "-t", "harm", "-i", sheet, "-o", "out")
    assert learns[0].target.tolist() == [0.0, 1.0] * 15


@pytest.mark.parametrize(("question", "said"), [(HARM, True), (WARMTH, False)])
def test_one_and_true_in_a_sheet_that_asks_for_safe_or_unsafe_are_cautioned_about_where_they_mean_unsafe(
    run, tmp_path, learns, question, said
):
    sheet = fill(handed_out(tmp_path / "s.csv", question=question), label=lambda i: ("TRUE", "no", "safe")[i % 3])
    _, _, err = run("adapt", "-t", question.trait, "-i", sheet, "-o", "out")
    assert ("caution: 20 labels of the sheet are 1 or 0, TRUE or FALSE" in err) == said
    assert learns[0].target.tolist() == [1.0, 0.0, float(not said)] * 10


def test_raters_who_agree_get_no_caution_and_raters_without_a_reply_in_common_are_told_so(run, tmp_path, learns):
    sheet = handed_out(tmp_path / "s.csv")
    one, two = (fill(sheet, tmp_path / f"{name}.csv", label=alternately) for name in "ab")
    _, _, err = run("adapt", "-t", "warmth", "-i", one, "-i", two, "-o", "out")
    assert "2 raters agree on 30 of the 30 replies" in err
    assert "alpha 1.00 [1.00, 1.00]" in err
    assert "caution" not in err
    fill(sheet, one, label=lambda i: alternately(i) if i < 10 else "")
    fill(sheet, two, label=lambda i: alternately(i) if i >= 10 else "")
    _, _, err = run("adapt", "-t", "warmth", "-i", one, "-i", two, "-o", "out")
    assert "none labelled the same reply, so it is unknown whether they agree" in err
    assert len(learns[1].target) == 30


@pytest.mark.usefixtures("scorer")
def test_a_sheet_of_unsure_labels_alone_teaches_nothing_and_says_so(run, tmp_path):
    sheet = fill(handed_out(tmp_path / "s.csv"), label=lambda _: "unsure")
    code, _, err = run("adapt", "-t", "warmth", "-i", sheet, "-o", "out")
    assert code == 2
    assert "no label is left" in err
    assert not Path("out").exists()


# ------------------------------------------------------------------------------------------------------------------------- choosing


def test_another_seed_chooses_others_and_the_same_seed_the_same():
    rng = np.random.default_rng(0)
    scores, texts, groups = rng.normal(size=200), [words(i) for i in range(200)], [str(i) for i in range(200)]
    first, again, other = (choose_to_label(scores, texts, groups, 20, seed) for seed in (0, 0, 1))
    assert first == again
    assert set(first) != set(other)


def test_choices_take_turns():
    assert in_turn([[1, 2, 3], [2, 4]], 3) == [1, 2, 4]
    assert in_turn([[1], []], 5) == [1]
    assert in_turn([], 5) == []


# ----------------------------------------------------------------------------------------------------------------------- LibreOffice


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    """Convert a file as LibreOffice does: office(path, "xlsx")."""
    program = shutil.which("soffice") or shutil.which("libreoffice")
    if program is None:
        if "libreoffice" in os.environ.get("DEMEANOR_REQUIRE", ""):
            pytest.fail("LibreOffice is required and is not here; install libreoffice-calc")
        pytest.skip("LibreOffice is not here: apt-get install --no-install-recommends libreoffice-calc")
    profile = tmp_path_factory.mktemp("profile")

    def convert(path, to, folder, filter_in=None):
        options = [f"--infilter={filter_in}"] if filter_in else []
        done = subprocess.run(
            [program, f"-env:UserInstallation=file://{profile}", "--headless", *options, "--convert-to", to, "--outdir", folder, path],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        made = folder / f"{path.stem}.{to.partition(':')[0]}"
        assert made.is_file(), done.stdout + done.stderr
        return made

    return convert


READ = "Text - txt - csv (StarCalc)"
JOURNEYS = {  # how it is opened (None: as LibreOffice guesses), how saved: separator, quote, encoding (76: UTF-8, 1: Windows-1252)
    "as it comes": (None, "csv", "utf-8"),
    "misread": (None, f"csv:{READ}:44,34,76", "utf-8"),
    "comma, UTF-8": ("44,34,76", f"csv:{READ}:44,34,76", "utf-8"),
    "semicolon, Windows-1252": ("44,34,76", f"csv:{READ}:59,34,1", "cp1252"),
    "tab, UTF-16": ("44,34,76", f"csv:{READ}:9,34,65535", "utf-16"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("opened", "saved", "encoding"), JOURNEYS.values(), ids=JOURNEYS)
def test_a_clinician_s_sheet_goes_through_libreoffice_without_a_label_lost(tmp_path, office, opened, saved, encoding):
    sheet = handed_out(tmp_path / "sheet.csv", groups=[f"00{i % 7}" for i in range(30)])
    filled = fill(
        sheet, tmp_path / "filled.csv", end="\n", label=lambda i: ("safe", "UNSAFE", "1", "0", "TRUE", "FALSE")[i % 6],
        notes=lambda i: f"Schwer zu sagen; „{i}“, oder?\nZeile 2", rater=lambda _: "Dr. Müller",
    )  # fmt: skip
    book = office(filled, "xlsx", tmp_path, f"{READ}:{opened}" if opened else None)
    (tmp_path / "back").mkdir()
    back = office(book, saved, tmp_path / "back")
    assert "Größe, façade" in back.read_bytes().decode(encoding) or opened is None
    with pytest.raises(InputFileError, match="is a workbook"):
        read_answers(book)
    found = agreed(read_answers(back, "warmth"), "response", "high")
    assert found.conversations == talks()
    assert found.values == [1.0, 0.0] * 15
    assert found.groups == [f"00{i % 7}" for i in range(30)]
