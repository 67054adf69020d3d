"""Where rows come from: every format gives the same rows, in shards that can be read in any order, and columns stay as they were."""

import csv
import gzip
import json
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from screening_tools import talk, write

from demeanor.data.columns import Columns
from demeanor.data.sources import open_source
from demeanor.data.tables import as_table, field_of, from_table, kind_of, merge
from demeanor.errors import ConversationError, InputFileError, MissingExtraError
from demeanor.screening.worker import _jsonl

RECORDS = [{"id": f"00{i}", "prompt": f"Hello, {i}", "response": f"line one\nline two, “{i}”"} for i in range(11)]


def as_jsonl(path):
    return write(path / "rows.jsonl", RECORDS)


def as_gzip(path):
    with gzip.open(path / "rows.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in RECORDS)
    return path / "rows.jsonl.gz"


def as_csv(path):
    with (path / "rows.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(RECORDS[0]))
        writer.writeheader()
        writer.writerows(RECORDS)
    return path / "rows.csv"


def as_parquet(path):
    pq.write_table(pa.Table.from_pylist(RECORDS), path / "rows.parquet", row_group_size=3)
    return path / "rows.parquet"


def as_folder(path):
    (path / "in" / "deep").mkdir(parents=True)
    write(path / "in" / "a.jsonl", RECORDS[:2])
    write(path / "in" / "b.jsonl", [])
    write(path / "in" / "deep" / "c.jsonl", RECORDS[2:])
    return path / "in"


def parquet_bytes(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def as_parquet_folder(path):
    (path / "in").mkdir()
    for name, part in (("a", RECORDS[:5]), ("b", RECORDS[5:])):
        pq.write_table(pa.Table.from_pylist(part), path / "in" / f"{name}.parquet", row_group_size=2)
    return path / "in"


@pytest.mark.parametrize("make", [as_jsonl, as_gzip, as_csv, as_parquet, as_folder, as_parquet_folder])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_every_format_gives_the_same_rows_in_any_order_of_shards(request, tmp_path, make, order):
    source = open_source(str(make(tmp_path)))
    survey = source.survey(4)
    request.addfinalizer(source.close)
    assert (survey.rows, [(c.first, c.rows) for c in survey.cuts]) == (11, [(0, 4), (4, 4), (8, 3)])
    found = {i: source.read(survey.cuts[i], survey.schema) for i in order}
    read = [row.record for i in range(3) for row in found[i].rows]
    assert [(r["prompt"], r["response"]) for r in read] == [(r["prompt"], r["response"]) for r in RECORDS]
    assert pa.concat_tables([found[i].table for i in range(3)]).to_pylist() == RECORDS


def test_a_bad_line_keeps_its_place_with_its_cause(request, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"response": "a"}\n\n{broken\n[1]\n{"response": "\xff"}\n{"response": "b"}')
    source = open_source(str(path))
    survey = source.survey(2)
    request.addfinalizer(source.close)
    rows = [row for cut in survey.cuts for row in source.read(cut, survey.schema).rows]
    assert [row.error and row.error.split(":")[0] for row in rows] == [
        None, "line 3 is not JSON", "line 4 is not a JSON object", "line 5 is not UTF-8 text", None
    ]  # fmt: skip
    assert rows[4].record == {"response": "b"}


def test_a_bad_line_of_a_csv_keeps_its_place_with_its_cause(request, tmp_path):
    (tmp_path / "rows.csv").write_text('prompt,response\n"two\nlines",yes\nonly one\na,b,c\nhello,there\n')
    source = open_source(str(tmp_path / "rows.csv"))
    survey = source.survey(1)
    request.addfinalizer(source.close)
    rows = [row for cut in survey.cuts for row in source.read(cut, survey.schema).rows]
    assert [row.error for row in rows] == [
        None, "line 4 has 1 fields, the header has 2", "line 5 has 3 fields, the header has 2", None
    ]  # fmt: skip
    assert (rows[0].record["prompt"], rows[3].record["response"]) == ("two\nlines", "there")


def test_a_quote_that_nothing_closes_costs_its_own_line_only(request, tmp_path):
    lines = ["prompt,response", "a,b", 'c,"Well tried', *(f"hello {i},there" for i in range(20))]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    source = open_source(str(tmp_path / "rows.csv"))
    survey = source.survey(3)
    request.addfinalizer(source.close)
    rows = [row for cut in reversed(survey.cuts) for row in reversed(source.read(cut, survey.schema).rows)][::-1]
    assert [row.error for row in rows] == [None, "line 3 is not CSV: it opens a quote that nothing closes", *[None] * 20]
    assert rows[-1].record == {"prompt": "hello 19", "response": "there"}


def test_rows_that_a_stray_quote_joins_are_named_with_all_their_lines(request, tmp_path):
    (tmp_path / "rows.csv").write_text('prompt,response\na,"Well tried\nb,c\nd,"e"\nf,g\n')
    source = open_source(str(tmp_path / "rows.csv"))
    survey = source.survey(9)
    request.addfinalizer(source.close)
    (joined, sound) = source.read(survey.cuts[0], survey.schema).rows
    assert joined.error.startswith("lines 2 to 4 are not CSV")
    assert sound.record == {"prompt": "f", "response": "g"}


def test_views_of_text_are_text(request, tmp_path):
    messages = pa.array([talk("yes")], pa.list_(pa.struct({"role": pa.string_view(), "content": pa.string_view()})))
    pq.write_table(pa.table({"messages": messages}), tmp_path / "rows.parquet")
    source = open_source(str(tmp_path / "rows.parquet"))
    survey = source.survey(4)
    request.addfinalizer(source.close)
    block = source.read(survey.cuts[0], survey.schema)
    assert block.rows[0].record == {"messages": talk("yes")}
    assert block.table.take([0]).schema == survey.schema


def test_a_suffix_may_be_written_large(tmp_path):
    as_gzip(tmp_path).rename(tmp_path / "ROWS.JSONL.GZ")
    assert open_source(str(tmp_path / "ROWS.JSONL.GZ")).survey(4).rows == len(RECORDS)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("key.jsonl", b'{"response": "a", "\\ud800": 1}\n', "the key '.ud800'"),
        ("empty.jsonl", b"", "has no rows"),
        ("blank.jsonl", b"\n\n", "has no rows"),
        ("empty.csv", b"prompt,response\n", "has no rows"),
        ("twice.csv", b"a,a\n1,2\n", "the same name"),
        ("broken.jsonl", b"{\n", "no row can be read"),
        ("other.jsonl", b'{"subject": "a", "comment": "b"}\n', "name the columns.*subject, comment"),
        ("torn.jsonl.gz", gzip.compress(b'{"response": "a"}\n' * 999, mtime=0)[:-9], "not a whole gzip"),
        ("twice.parquet", parquet_bytes(pa.table([[1], [2]], names=["response", "response"])), "the same name"),
        ("torn.parquet", b"PAR1 and nothing more", "not a whole Parquet file"),
        ("rows.xlsx", b"", "cannot tell what it holds"),
    ],
)
def test_what_cannot_be_screened_is_refused_in_one_line(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputFileError, match=says) as raised:
        open_source(str(tmp_path / name)).survey(4)
    assert "\n" not in str(raised.value)


def test_places_that_are_not_there_and_mixed_folders_are_refused(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        open_source(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputFileError, match=r"has no \.jsonl"):
        open_source(str(tmp_path))
    as_jsonl(tmp_path)
    as_csv(tmp_path)
    with pytest.raises(InputFileError, match="csv and jsonl files; screen one kind"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("make", [as_jsonl, as_parquet])
def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path, make):
    with pytest.raises(InputFileError, match=r"no column 'respnse'; did you mean response"):
        open_source(str(make(tmp_path)), Columns(prompt="prompt", response="respnse")).survey(4)


def test_conversations_from_every_way_of_naming_columns():
    def said(columns, record):
        return [m.content for m in columns.conversation(record).messages]

    assert said(Columns(), {"messages": talk("yes"), "response": "no"}) == ["I cannot sleep.", "yes"]
    assert said(Columns(), {"messages": None, "prompt": "hi", "response": "no"}) == ["hi", "no"]
    assert said(Columns(), {"messages": json.dumps(talk("yes"))}) == ["I cannot sleep.", "yes"]
    assert said(Columns(prompt="q", response="a"), {"q": talk("x", "y"), "a": "b"}) == ["y", "x", "b"]
    assert said(Columns(), {"messages": "", "prompt": "hi", "response": "no"}) == ["hi", "no"]
    assert said(Columns(), {"prompt": '[{"name": "Ann"}]', "response": "no"}) == ['[{"name": "Ann"}]', "no"]
    assert said(Columns(messages="chat"), {"chat": talk("yes")}) == ["I cannot sleep.", "yes"]
    with pytest.raises(ConversationError, match="no value in the column 'a'"):
        said(Columns(response="a"), {"a": None})
    with pytest.raises(InputFileError, match="either"):
        Columns(messages="m", response="r")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["x", "y"]), VALUES), min_size=1, max_size=6))
def test_json_rows_come_back_from_a_table_as_they_were(records):
    kinds = {}
    for record in records:
        for name, value in record.items():
            kinds[name] = merge(kinds.get(name, "null"), kind_of(value))
    assume(kinds)
    table = as_table(records, pa.schema([field_of(name, kind) for name, kind in kinds.items()]))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    back = from_table(pq.read_table(pa.BufferReader(sink.getvalue())))
    assert back == [{name: record.get(name) for name in kinds} for record in records]


def test_a_hub_data_set_is_read_by_name(monkeypatch):
    asked = []

    class Data:
        _fingerprint = "abc"

        def with_format(self, kind):
            assert kind == "arrow"
            return self

        def __len__(self):
            return len(RECORDS)

        def __getitem__(self, part):
            return pa.Table.from_pylist(RECORDS[part])

    def load_dataset(*args, **options):
        asked.append((args, options))
        return Data()

    fake = types.ModuleType("datasets")
    setattr(fake, "load_dataset", load_dataset)  # noqa: B010
    monkeypatch.setitem(sys.modules, "datasets", fake)
    source = open_source("owner/name@small:test[:50%]")
    survey = source.survey(4)
    assert asked == [(("owner/name", "small"), {"split": "test[:50%]"})]
    assert survey.files == [{"name": "owner/name@small:test[:50%]", "rows": 11, "fingerprint": "abc"}]
    assert source.read(survey.cuts[2], survey.schema).table.to_pylist() == RECORDS[8:]


def test_without_datasets_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'demeanor\[datasets\]'"):
        open_source("owner/name")


NO_TEXT = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(np.array([0, 2, 4], np.int32).tobytes()), pa.py_buffer(b"\xff\xfehi")])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**31 - 1, 0], pa.date32()),
        pa.array([0, 1], pa.timestamp("us", "Mars/Olympus")),
        pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"]),
        NO_TEXT,
    ],
    ids=["a day beyond the calendar", "a zone that is none", "one name twice", "bytes that are no text"],
)
@pytest.mark.parametrize("name", ["response", "beside"])
def test_a_parquet_value_that_python_cannot_hold_costs_its_own_row_at_most(tmp_path, column, name):
    columns = {"response": pa.array(["one", "two"]), "n": pa.array([1, 2])} | {name: column}
    pq.write_table(pa.table(columns), tmp_path / "odd.parquet")
    source = open_source(str(tmp_path / "odd.parquet"))
    survey = source.survey(8)
    block = source.read(survey.cuts[0], survey.schema)
    assert [json.loads(line)["n"] for line in _jsonl(block, [{}, {}]).decode().splitlines()] == [1, 2]
    for row in block.rows:
        if name == "beside" or row.record["response"] == "hi":
            assert Columns().conversation(row.record).response in ("one", "two", "hi")
        else:
            with pytest.raises(ConversationError, match="only text is read"):
                Columns().conversation(row.record)


def test_links_lead_to_files_and_a_loop_of_them_to_nothing(tmp_path):
    folder, elsewhere = tmp_path / "rows", write(tmp_path / "elsewhere.jsonl", [{"response": "b"}])
    folder.mkdir()
    write(folder / "a.jsonl", [{"response": "a"}])
    (folder / "link.jsonl").symlink_to(elsewhere)
    (folder / "broken.jsonl").symlink_to("nowhere.jsonl")
    (folder / "self.jsonl").symlink_to("self.jsonl")
    (folder / "zero.jsonl").symlink_to("/dev/zero")
    (folder / "loop").symlink_to(folder)
    survey = open_source(str(folder)).survey(8)
    assert ([file["name"] for file in survey.files], survey.rows) == (["a.jsonl", "link.jsonl"], 2)
    for name, words in (("broken", "no such file"), ("self", "no such file"), ("zero", "a pipe or a device")):
        with pytest.raises(InputFileError, match=words):
            open_source(str(folder / f"{name}.jsonl"))
