"""JSON lines in and out: bad lines, damaged files, and results that are whole or not there."""

import errno
import gzip
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from demeanor.conversation import from_record
from demeanor.data.rows import read_rows, to_line, writing
from demeanor.errors import ConversationError, InputFileError, OutputError


@pytest.fixture
def rows_of(tmp_path):
    """The rows of a file with these bytes."""

    def read(content, name="talks.jsonl"):
        path = tmp_path / name
        path.write_bytes(content)
        return list(read_rows(path))

    return read


def test_rows_come_in_order_with_their_line_numbers(rows_of):
    rows = rows_of(b'{"text": "a"}\n\n  \n{"text": "\xc3\xa9"}')
    assert [(r.number, r.record, r.error) for r in rows] == [(1, {"text": "a"}, None), (4, {"text": "é"}, None)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": ', "not JSON"),
        (b"hello", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_a_bad_line_keeps_its_number_and_the_others_go_on(rows_of, line, words):
    before, bad, after = rows_of(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    assert (before.record, after.record, after.number) == ({"a": 1}, {"a": 2}, 3)
    assert bad.number == 2
    assert bad.record == {}
    assert "line 2" in bad.error
    assert words in bad.error


def test_a_byte_order_mark_is_no_part_of_the_first_row(rows_of):
    assert rows_of(b'\xef\xbb\xbf{"a": 1}\n')[0].record == {"a": 1}


def test_gzip_both_ways(tmp_path):
    path = tmp_path / "out" / "talks.jsonl.gz"
    with writing(path) as file:
        file.write(to_line({"text": "é"}))
        file.write(to_line({"text": "b"}))
    assert gzip.decompress(path.read_bytes()).decode().splitlines() == ['{"text": "é"}', '{"text": "b"}']
    assert [r.record["text"] for r in read_rows(path)] == ["é", "b"]


def test_not_utf8_names_the_place(rows_of):
    with pytest.raises(InputFileError, match=r"talks\.jsonl: not UTF-8 .*UTF-8"):
        rows_of('{"text": "é"}\n'.encode("latin-1"))


@pytest.mark.parametrize("damage", ["torn", "garbled", "not gzip"])
def test_a_damaged_gzip_file_is_named(rows_of, damage):
    whole = gzip.compress(json.dumps({"n": [i * i for i in range(5000)]}).encode(), mtime=0)
    content = {"torn": whole[: len(whole) // 2], "garbled": whole[:200] + b"\xff" * 60 + whole[260:], "not gzip": b'{"a": 1}\n'}[damage]
    with pytest.raises(InputFileError, match=r"talks\.jsonl\.gz: not a whole gzip file"):
        rows_of(content, "talks.jsonl.gz")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        list(read_rows(tmp_path / "nowhere.jsonl"))
    with pytest.raises(InputFileError, match=r"is a folder.*name a \.jsonl"):
        list(read_rows(tmp_path))


def test_writing_replaces_the_old_file_only_when_whole(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text("old")
    with writing(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path, error):
    """Begin to write, and fail."""
    with writing(path) as file:
        file.write("half")
        raise error


@pytest.mark.parametrize("name", ["scores.jsonl", "scores.jsonl.gz"])
@pytest.mark.parametrize("error", [ValueError("a bug"), InputFileError("bad input"), KeyboardInterrupt()])
def test_writing_leaves_nothing_when_the_body_raises(tmp_path, name, error):
    with pytest.raises(type(error)):
        write_half(tmp_path / name, error)
    assert list(tmp_path.iterdir()) == []


def test_writing_keeps_the_old_file_when_the_body_raises(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text("old")
    with pytest.raises(ValueError, match="a bug"):
        write_half(path, ValueError("a bug"))
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["scores.jsonl", "scores.jsonl.gz"])
def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with pytest.raises(OutputError, match=r"cannot write .*scores.*: No space left.*nothing of it was kept"):
        write_half(path, OSError(errno.ENOSPC, "No space left on device"))
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


FULL = """
import resource, sys
from pathlib import Path
from demeanor.errors import OutputError
from demeanor.data.rows import writing
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))  # bytes; the buffer fails when it is flushed
try:
    with writing(Path(sys.argv[1])) as file:
        file.write("more than fits")
except OutputError:
    sys.exit(7)
"""


@pytest.mark.parametrize("name", ["scores.jsonl", "scores.jsonl.gz"])
def test_a_write_that_fails_only_at_the_end_leaves_nothing(tmp_path, name):
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / name)], check=False)
    assert done.returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"), writing(tmp_path / "file" / "scores.jsonl"):
        pass
    with pytest.raises(OutputError, match="is a folder; name a file"), writing(tmp_path):
        pass


def test_a_link_goes_on_pointing_to_its_file(tmp_path):
    (tmp_path / "deep").mkdir()
    real, link = tmp_path / "deep" / "scores.jsonl", tmp_path / "scores.jsonl"
    real.write_text("old")
    link.symlink_to(real)
    with writing(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert [p.name for p in real.parent.iterdir()] == ["scores.jsonl"]


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        with writing(pipe) as file:
            file.write("scores")
        assert read.result(60) == "scores"
    assert pipe.is_fifo()


def test_a_line_is_readable_text_and_never_nan():
    assert to_line({"text": "é\n😀"}) == '{"text": "é\\n😀"}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_line({"z": float("nan")})


def test_half_a_surrogate_pair_survives(rows_of):
    row = rows_of(b'{"text": "\\ud83d", "id": 1}\n')[0]
    line = to_line(row.record)
    assert json.loads(line.encode("utf-8")) == row.record


def test_a_name_that_no_file_can_have_is_one_clear_line():
    with pytest.raises(OutputError, match="is not a file name"), writing(Path(".")):
        pass
    with pytest.raises(InputFileError, match="cannot be read"):
        list(read_rows(Path("x" * 300)))


@pytest.mark.parametrize(
    ("value", "read"),
    [(b"NaN", None), (b"Infinity", None), (b"-Infinity", None), (b"1e999", "1e999"), (b"-1e999", "-1e999"), (b"7" * 5000, "7" * 5000)],
)
def test_no_row_is_lost_for_a_number_that_json_or_a_float_cannot_hold(rows_of, value, read):
    for field in (b'"seen": ' + value, b'"seen": [{"deep": ' + value + b"}]"):
        (row,) = rows_of(b'{"prompt": "Hi", "response": "a", ' + field + b"}\n")
        assert row.error is None
        seen = row.record["seen"]
        assert (seen[0]["deep"] if isinstance(seen, list) else seen) == read
        assert json.loads(to_line(row.record)) == row.record


def test_a_field_that_is_read_and_holds_no_text_is_still_named(rows_of):
    (row,) = rows_of(b'{"messages": [{"role": "assistant", "content": NaN}]}\n')
    with pytest.raises(ConversationError, match="content of type NoneType; only text is read"):
        from_record(row.record)
