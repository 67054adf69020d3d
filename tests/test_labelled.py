"""Labelled files: what belongs together, and that no label is misread."""

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


def test_a_folder_is_one_clear_line(tmp_path):
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputFileError, match="cannot be read"):
        read_labelled(tmp_path / "d.csv")
