"""Labelled files: what belongs together, and that no label is misread."""

import gzip
import json

import pytest

from demeanor.cli.labelled import read_labelled
from demeanor.errors import InputFileError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def talk(prompt, reply, **more):
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}], **more}


def test_replies_to_one_prompt_belong_together_whatever_was_said_after_them(tmp_path):
    rows = [talk("Hi", f"reply {i}", label=i % 2) for i in range(4)]
    for row in rows[2:]:
        row["messages"].append({"role": "user", "content": "Thanks"})
    assert read_labelled(write(tmp_path / "a.jsonl", rows)).prompts == 1


def test_an_empty_group_is_no_group(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("prompt,response,label,group\n" + "".join(f"question {i},reply,{i % 2},\n" for i in range(4)))
    assert read_labelled(file).prompts == 4


@pytest.mark.parametrize("label", ["nan", "inf", "perhaps"])
def test_a_label_that_is_no_number_is_refused_with_its_line(tmp_path, label):
    rows = [talk("Hi", "one", label=1), talk("Hi", "two", label=label)]
    with pytest.raises(InputFileError, match=f"line 2: the label '{label}' is neither a number"):
        read_labelled(write(tmp_path / "a.jsonl", rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label,prompt,response\n1,Hi,Well, try harder\n", "line 2 has 4 fields, the header has 3"),
        ('label,prompt,response\n1,Hi,a\n0,Hi,"Well try\n1,Hi,b\n', "line 3 is not CSV: it opens a quote that nothing closes"),
        ("label,response,response\n1,a,b\n", "one name"),
        ('label,messages\n1,"[{""role"": ""user"", ""cont"\n', "line 2: 'messages' is not the JSON .* was it cut in an editor"),
    ],
)
def test_a_broken_sheet_is_refused_with_its_line_and_no_reply_is_cut_or_joined(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputFileError, match=message):
        read_labelled(tmp_path / "a.csv")


def test_a_sheet_may_be_zipped_and_hold_long_replies(tmp_path):
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(f"label,prompt,response\n1,Hi,{'long ' * 50_000}\n0,Hi,short\n")
    assert len(read_labelled(tmp_path / "a.csv.gz").conversations[0].response) == 250_000


@pytest.mark.parametrize(
    ("reads", "message"), [("response", "line 2: the assistant message to score is empty"), ("user", "line 3: no user")]
)
def test_a_row_without_what_the_trait_is_read_on_is_refused_with_its_line(tmp_path, reads, message):
    rows = [talk("Hi", "one", label=1), talk("Hi", " ", label=0), {"response": "two", "label": 0}]
    with pytest.raises(InputFileError, match=message):
        read_labelled(write(tmp_path / "a.jsonl", rows), reads)


def test_a_folder_is_one_clear_line(tmp_path):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputFileError, match="cannot be read"):
        read_labelled(tmp_path / "d.csv")
