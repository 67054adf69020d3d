"""Labelled files: what belongs together, and that no label is misread."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from artifacts import CALIBRATION, entry, unit, vector_set

from demeanor.conversation import as_conversation
from demeanor.data.labelled import read_labelled
from demeanor.data.to_label import ToLabel, write_sheet
from demeanor.errors import InputFileError
from demeanor.extraction.adaptation import adapt_activations
from demeanor.vectors import PersonaVector


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
        ("label,response,response\n1,a,b\n", "the same name"),
        ('label,messages\n1,"[{""role"": ""user"", ""cont"\n', "row 2: 'messages' is not the JSON .* was it cut in an editor"),
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
    with pytest.raises(InputFileError, match="the folder has no"):
        read_labelled(tmp_path / "d.csv")


def spaced(i):
    """A prompt that is typed anew for each of its replies."""
    return ("I cannot sleep.", "I cannot sleep. ", "I  cannot sleep.", "i cannot sleep.", "I can\u200bnot sleep.")[i % 5]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_prompt_that_differs_by_white_space_case_or_what_nobody_sees_is_one_prompt(tmp_path, suffix):
    rows = [{"prompt": spaced(i), "response": f"reply {i}", "label": i % 2} for i in range(10)]
    file = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        write(file, rows)
    else:
        file.write_text("prompt,response,label\n" + "".join(f'"{r["prompt"]}",{r["response"]},{r["label"]}\n' for r in rows))
    assert read_labelled(file).prompts == 1


@pytest.mark.parametrize("column", ["group", "pair_id", "Group"])
def test_a_group_is_one_however_it_is_typed(tmp_path, column):
    rows = [talk(f"question {i}", "reply", label=i % 2, **{column: ("family 1", "Family 1 ", "family\u00a01")[i % 3]}) for i in range(6)]
    assert read_labelled(write(tmp_path / "a.jsonl", rows)).prompts == 1


def noise(tmp_path, folds, seed=0, prompts=24):
    """AUROC that `adapt` reports where replies hold nothing of their label, and much of their prompt, which decides the label."""
    rng = np.random.default_rng(seed)
    rows, x = [], []
    for prompt in range(prompts):
        own = rng.normal(0, 1, 8)
        for i in range(5):
            text = f"question {prompt}"
            text = (text, text + " ", text.upper(), f" {text}", f"{text}\u200b")[i] if folds == "typed anew" else text
            rows.append(talk(text, f"reply {i}", label=prompt % 2))
            x.append(own + rng.normal(0, 0.1, 8))
    labelled = read_labelled(write(tmp_path / "noise.jsonl", rows))
    wide = np.array(x, np.float32)[:, None, :].astype(float)
    calibration = {**CALIBRATION, "centre": 0.0, "spread": 1.0}
    kept = entry("warmth", reading=PersonaVector("warmth", unit(3), 1, 1.0), calibration=calibration)
    return adapt_activations(vector_set(kept), "warmth", wide, labelled).auroc


def test_pure_noise_is_not_learnt_from_copies_of_a_prompt_that_were_typed_anew(tmp_path):
    found = [noise(tmp_path, "typed anew", seed) for seed in range(3)]
    assert found == [noise(tmp_path, "alike", seed) for seed in range(3)]
    assert max(found) < 0.75


@pytest.mark.parametrize("column", ["Label", "LABEL", " label ", "label\u200b"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_label_is_found_whatever_the_case_of_its_column(tmp_path, column, suffix):
    file = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        write(file, [talk("Hi", f"reply {i}", **{column: i % 2}) for i in range(4)])
    else:
        file.write_text(f"prompt,response,{column}\n" + "".join(f"Hi,reply {i},{i % 2}\n" for i in range(4)))
    assert read_labelled(file).high.tolist() == [False, True, False, True]


@pytest.mark.parametrize("column", ["level", "labels", "lable", "Score"])
def test_a_label_under_another_name_is_an_error_that_names_the_columns(tmp_path, column):
    rows = [{"prompt": "Hi", "response": f"reply {i}", column: i % 2} for i in range(4)]
    with pytest.raises(InputFileError, match=rf"no column 'label', only 'prompt', 'response', '{column}'; if '{column}' is it, rename it"):
        read_labelled(write(tmp_path / "a.jsonl", rows))


def test_a_few_labels_under_another_name_are_not_passed_over(tmp_path):
    rows = [*(talk("Hi", f"reply {i}", label=i % 2) for i in range(4)), talk("Hi", "last", lable=1)]
    with pytest.raises(InputFileError, match="line 5 has no 'label', and 'lable' is not read as one"):
        read_labelled(write(tmp_path / "a.jsonl", rows))
    rows[-1]["lable"] = "perhaps"  # a note, no label
    assert len(read_labelled(write(tmp_path / "a.jsonl", rows)).target) == 4


def test_two_columns_that_disagree_are_an_error(tmp_path):
    rows = [talk("Hi", "one", label=1, Label=0), talk("Hi", "two", label=0)]
    with pytest.raises(InputFileError, match="line 1 has both 'label' and 'Label'; keep one of them"):
        read_labelled(write(tmp_path / "a.jsonl", rows))
    rows[0]["Label"] = ""
    assert len(read_labelled(write(tmp_path / "a.jsonl", rows)).target) == 2


def test_a_sheet_without_a_single_label_filled_in_says_so(tmp_path):
    with pytest.raises(InputFileError, match="has no labelled row"):
        read_labelled(write(tmp_path / "a.jsonl", [talk("Hi", "one", label=""), talk("Hi", "two", label=" ")]))


def test_a_sheet_that_is_handed_out_is_read_back_with_its_labels(tmp_path):
    path = tmp_path / "sheet.csv"
    talks = [as_conversation(talk(f"prompt {i}", "=half a \ud800 pair" if i else "a reply")) for i in range(3)]
    write_sheet(path, [ToLabel(f"row {i}", conversation, f"prompt {i}") for i, conversation in enumerate(talks)])
    with pytest.raises(InputFileError, match="has no labelled row"):
        read_labelled(path)
    assert "=half a ? pair" in path.read_text()
    path.write_text(path.read_text().replace('",,,,,row 0,', '",,high,,,row 0,').replace('",,,,,row 2,', '",,low,,,row 2,'))
    found = read_labelled(path)
    assert found.target.tolist() == [1, 0]
    assert found.group.tolist() == ["prompt 0", "prompt 2"]
    assert found.conversations == [talks[0], talks[2]]  # half a pair too


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("damage", ["cut", "scrambled", "plain"])
def test_a_damaged_compressed_sheet_is_named(tmp_path, kind, damage):
    rows = ["label,response"] if kind == "csv" else []
    rows += [f"{i % 2},reply {i}" if kind == "csv" else json.dumps({"label": i % 2, "response": f"reply {i}"}) for i in range(3000)]
    text = "\n".join(rows).encode()
    whole = gzip.compress(text)
    damaged = {"cut": whole[:-100], "scrambled": whole[:12] + b"\xff" * 40 + whole[52:], "plain": text}
    path = tmp_path / f"sheet.{kind}.gz"
    path.write_bytes(damaged[damage])
    with pytest.raises(InputFileError, match=r"sheet\.\w+\.gz: not a whole gzip file"):
        read_labelled(path)


SHAREGPT = [
    {
        "conversations": [{"from": "human", "value": f"I am low {i}"}, {"from": "gpt", "value": f"reply {i}"}],
        "label": i % 2,
    }
    for i in range(6)
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_labelled_rows_come_in_the_forms_that_conversations_have(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(SHAREGPT), path)
    else:
        path.write_text(json.dumps(SHAREGPT) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in SHAREGPT))
    found = read_labelled(path)
    assert [c.messages[-1].content for c in found.conversations] == [f"reply {i}" for i in range(6)]
    assert len(set(found.target.tolist())) == 2


def test_a_labelled_row_in_no_form_is_still_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"label": 1, "words": "x"}) + "\n")
    with pytest.raises(InputFileError, match="neither 'messages'"):
        read_labelled(path)
