"""Every form that conversations come in: the same conversation, the same token ids, through the library and through every command."""

import json
import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from input_forms import ASKED, FORMS, SAID, A, Form, document, lines, parquet, said, sheet
from monitor_tools import planted
from test_seam import Letters

from demeanor.cli import console
from demeanor.cli.inputs import columns_of
from demeanor.data.columns import Columns
from demeanor.data.inputs import open_input
from demeanor.errors import ConversationError, DemeanorError

OPTIONS = {
    "--messages-column": "messages", "--prompt-column": "prompt", "--response-column": "response", "--messages-path": "path",
    "--conversation-column": "conversation", "--role-column": "role", "--content-column": "content", "--read": "read",
}  # fmt: skip


def columns(options):
    pairs = list(zip(options[::2], options[1::2], strict=True))
    named = {OPTIONS[option]: value for option, value in pairs if option != "--role"}
    return columns_of(**named, roles=[value for option, value in pairs if option == "--role"])


def file_of(form, folder):
    path = folder / form.file
    path.write_bytes(form.content)
    return path


def turns(found):
    return [(m.role, m.content) for m in found.conversation.messages]


@pytest.fixture(params=FORMS, ids=[form.name for form in FORMS])
def form(request):
    return request.param


def test_sixty_forms():
    assert len(FORMS) >= 60
    assert len({form.name for form in FORMS}) == len(FORMS)


def test_every_form_gives_the_conversation_that_is_meant_and_equal_tokens(form, tmp_path):
    source = open_input(file_of(form, tmp_path), columns(form.options))
    looked = source.look()
    found = [f for _, f in source.read()]
    assert [turns(f) for f in found] == form.meant
    assert {f.form for f in found} == {form.read_as}
    assert looked.rows == len(form.meant)
    assert f"read as {form.read_as}, {looked.rows} conversation" in " ".join(looked.summary)
    own = [Columns().find({"messages": [{"role": r, "content": c} for r, c in talk]}).conversation for talk in form.meant]
    reader = Letters()
    ids, expected = ([e.ids for e in reader.encode(talks)] for talks in ([f.conversation for f in found], own))
    assert ids == expected
    for i, f in enumerate(found):
        if i in form.not_scored:
            with pytest.raises(ConversationError):
                f.to_score()
        else:
            assert f.to_score() == f.conversation


def test_every_form_is_read_in_shards_from_any_place(form, tmp_path):
    source: Any = open_input(file_of(form, tmp_path), columns(form.options)).source
    survey = source.survey(1)
    assert survey.rows == len(form.meant)
    read = [row for cut in reversed(survey.cuts) for row in source.read(cut, survey.schema).rows][::-1]
    source.close()
    assert [[(m.role, m.content) for m in source.columns.find(row.record).conversation.messages] for row in read] == form.meant


# what is wrong is found before a model is loaded, and the line names what was seen

WRONG = [
    ("csv.jsonl", sheet([["prompt", "response"], [ASKED, SAID]]), [], "looks like CSV (columns prompt, response); name it .csv"),
    ("json.csv", lines({"messages": said(A)}), [], "looks like JSON; name it .jsonl"),
    ("book.xlsx", b"PK\x03\x04rest", [], "Excel workbook; unpack it, or save the sheet as CSV UTF-8"),
    ("book.csv", b"\xd0\xcf\x11\xe0rest", [], "old Excel workbook"),
    ("talks.jsonl", b"\x1f\x8brest", [], "name it .jsonl.gz"),
    ("talks.jsonl", b"PAR1rest", [], "name it .parquet"),
    ("talks.parquet", parquet([{"prompt": ASKED, "response": SAID}]).replace(b"response", b"re\xffponse"), [], "not a whole Parquet file"),
    ("talks.csv", sheet([["subject", "comment"], ["a", "b"]]), [], "name the columns with --messages-column, or --prompt-column and --response-column (its columns: subject, comment)"),
    ("talks.jsonl", lines({"mesages": said(A)}), [], "'mesages': did you mean messages?"),
    ("talks.csv", sheet([["prompt", "respons"], ["a", "b"]]), [], "'respons': did you mean response or"),
    ("talks.csv", sheet([["prompt", "response"], ["a", "b"]]), ["--response-column", "respones"], "no column 'respones'; did you mean response?"),
    ("talks.jsonl", lines({"chosen": SAID, "rejected": "no", "prompt": ASKED}), [], "say which is read: --read chosen or --read rejected"),
    ("talks.jsonl", lines({"conversation_a": said(A), "conversation_b": said(A)}), [], "--read a or --read b"),
    ("talks.jsonl", lines({"messages": said(A, user="Maria")}), [], "message 1 has the unknown role 'Maria'"),
    ("talks.jsonl", lines({"messages": said(A, user="Maria")}), [], "--role Maria=user"),
    ("talks.jsonl", lines({"messages": said(A, assistant="asistant")}), [], "did you mean assistant?"),
    ("talks.jsonl", lines({"messages": said(A)}), ["--role", "Maria"], "cannot read --role 'Maria'; write NAME=user"),
    ("talks.jsonl", lines({"messages": said(A)}), ["--role", "Maria=usr"], "did you mean user?"),
    ("talks.jsonl", lines({"messages": said(A)}), ["--read", "best"], "--read best is not known; give one of chosen, rejected, a, b"),
    ("talks.jsonl", lines({"request": {"messages": said(A)}}), ["--messages-path", "request.mesages"], "nothing at 'mesages'; did you mean messages?"),
    ("talks.jsonl", lines({"request": {"messages": said(A[:1])}}), [], "a request without a response; there is no reply to score"),
    ("talks.csv", sheet([["speaker", "text"], ["client", ASKED]]), [], "no column says which conversation it belongs to; name it with --conversation-column"),
    ("talks.csv", sheet([["conversation_id", "speaker", "text"], ["", "client", ASKED]]), [], "line 2 has no 'conversation_id'"),
    ("talks.json", b'[{"messages": [', [], "not JSON"),
    ("talks.json", b"[]", [], "has no rows"),
    ("talks.csv", b"prompt,response\ncaf\x81,x\n", [], "neither UTF-8 nor Windows-1252"),
    ("talks.jsonl", b"\xff\xfe{\x00\x00\xd8", [], "UTF-16"),
    ("talks.jsonl", lines({"messages": [{"role": "user", "content": 7}]}), [], "content of type int; only text is read"),
    ("talks.jsonl", lines({"mapping": {"a": {"parent": "b"}, "b": {"parent": "a"}}, "current_node": "a"}), [], "contains a loop"),
]  # fmt: skip


@pytest.mark.parametrize("command_line", ["score", "monitor", "sample --trait warmth", "screen --output out"])
@pytest.mark.parametrize(("file", "content", "options", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_a_mistake_is_one_line_before_a_model_is_loaded(command, monkeypatch, tmp_path, command_line, file, content, options, says):
    monkeypatch.setattr(console, "load_scorer", None)
    monkeypatch.setattr(console, "vector_set", None)
    (tmp_path / file).write_bytes(content)
    name, *more = command_line.split()
    done = command(name, file, *more, *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert says in done.stderr


def test_two_inputs_are_refused(command):
    assert "given twice" in command("monitor", "a.jsonl", "--input", "b.jsonl").stderr


# a handful of forms through each command, with the planted model

VARIED = [
    "CSV with semicolons, as Excel saves it in much of Europe", "messages with parts of text", "messages with tool calls", "ShareGPT",
    "Alpaca", "two replies: chosen", "export of ChatGPT", "export of Open WebUI", "a request with its response", "Unicode text of Excel: UTF-16 and tabs",
    "messages deep in a record", "Parquet of ShareGPT",
]  # fmt: skip
BY_NAME = {form.name: form for form in FORMS}
PLAIN_TALK = Form("plain", "", "plain.jsonl", lines({"messages": said(A)}), [A], "messages")


@pytest.fixture(scope="module")
def planted_scorer(tokenizer, make_model):
    return planted(make_model, tokenizer)


@pytest.fixture
def loaded(planted_scorer, monkeypatch):
    monkeypatch.setattr(console, "load_scorer", lambda *options, **named: planted_scorer)
    monkeypatch.setattr(console, "vector_set", lambda *options, **named: planted_scorer.vectors)
    return planted_scorer


RULES = """
version: t
rules:
  - {name: harmful, trait: harm, threshold: {z: 2.0}, severity: red, action: substitute, situation: harmful_plan}
"""


@pytest.fixture
def rules(tmp_path):
    (tmp_path / "rules.yaml").write_text(RULES)
    return ("--policy", "rules.yaml")


def records(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", VARIED)
def test_score_and_monitor_give_the_same_numbers_whatever_the_form(command, loaded, rules, tmp_path, name):
    form = BY_NAME[name]
    file_of(form, tmp_path)
    file_of(PLAIN_TALK, tmp_path)
    for what in (("score",), ("monitor", *rules)):
        plain, done = command(*what, PLAIN_TALK.file), command(*what, form.file, *form.options)
        assert (plain.returncode, done.returncode) == (0, 0), done.stderr
        (expected,), (found,) = records(plain.stdout), records(done.stdout)
        assert _measured(found["demeanor"]) == _measured(expected["demeanor"])
        assert f"read as {form.read_as}, 1 conversation" in " ".join(done.stderr.split())


def _measured(told):
    for decision in told.get("decisions", ()):
        decision.pop("latency_ms", None)
    return told


@pytest.mark.parametrize("name", VARIED)
def test_screen_gives_the_same_numbers_whatever_the_form(command, loaded, tmp_path, name):
    form = BY_NAME[name]
    found = []
    for f, out in ((form, "found"), (PLAIN_TALK, "expected")):
        file_of(f, tmp_path)
        done = command("screen", f.file, "--output", out, "--format", "jsonl", "--threads", 1, *f.options)
        assert done.returncode == 0, done.stderr
        assert f"read as {f.read_as}" in done.stderr
        (row,) = records((tmp_path / out / "scored" / "part-00000.jsonl").read_text())
        found.append({k: v for k, v in row.items() if k.startswith("demeanor_")})
    assert found[0] == found[1]
    assert found[0]["demeanor_error"] is None


@pytest.mark.parametrize(
    "name",
    ["CSV with semicolons, as Excel saves it in much of Europe", "ShareGPT", "export of ChatGPT", "one utterance a row",
     "speakers that nobody knows", "two replies: chosen", "utterances in Parquet"],
)  # fmt: skip
def test_a_screening_of_any_form_goes_on_to_the_byte(command, loaded, tmp_path, name):
    form = BY_NAME[name]
    file_of(form, tmp_path)
    arguments = ("screen", form.file, "--output", "out", "--shard-rows", 1, "--threads", 1, "--format", "jsonl", *form.options)
    assert command(*arguments).returncode == 0
    parts = sorted((tmp_path / "out" / "scored").glob("part-*"))
    before = [part.read_bytes() for part in parts]
    parts[-1].unlink()
    assert command(*arguments).returncode == 0
    assert [part.read_bytes() for part in parts] == before
    assert "another" in command(*arguments, "--role", "Somebody=user").stderr


@pytest.mark.parametrize("name", ["ShareGPT", "CSV with semicolons, as Excel saves it in much of Europe", "export of ChatGPT"])
def test_a_sheet_to_label_is_drawn_from_any_form(command, loaded, tmp_path, name):
    form = BY_NAME[name]
    file_of(form, tmp_path)
    done = command("sample", form.file, "--trait", next(iter(loaded.vectors.traits)), "--output", "sheet.csv", *form.options)
    assert done.returncode == 0, done.stderr
    assert SAID in (tmp_path / "sheet.csv").read_text()


@pytest.mark.parametrize("name", ["ShareGPT", "CSV with semicolons, as Excel saves it in much of Europe", "two replies: chosen"])
def test_replies_to_compare_and_prompts_come_in_any_form(tmp_path, name):
    from demeanor.data.prompts import prompts_of, read_prompts
    from demeanor.data.replies import read_replies

    form = BY_NAME[name]
    (reply,) = read_replies(file_of(form, tmp_path), columns(form.options))
    assert (reply.asked, reply.text) == (ASKED, SAID)
    (tmp_path / "prompts.csv").write_bytes(sheet([["id", "question"], ["q", ASKED]], ";"))
    (tmp_path / "prompts.json").write_bytes(document([{"id": "q", "prompt": said(A[:1])}]))
    for path in ("prompts.csv", "prompts.json"):
        assert [m.content for m in read_prompts(tmp_path / path)["q"]] == [ASKED]
        assert [[m.content for m in prompt] for prompt in prompts_of(tmp_path / path)] == [[ASKED]]


@pytest.mark.parametrize("what", ["score", "monitor"])
@pytest.mark.parametrize(
    "name", ["JSON lines", "CSV", "a JSON array", "ShareGPT", "Unicode text of Excel: UTF-16 and tabs", "one utterance a row"]
)
def test_rows_on_standard_input(command, loaded, rules, what, name):
    form = BY_NAME[name]
    text = form.content.decode("utf-16") if "UTF-16" in name else form.content.decode()
    done = command(what, "-", *(rules if what == "monitor" else ()), text=text)
    assert done.returncode == 0, done.stderr
    assert len(records(done.stdout)) == len(form.meant)


def test_a_screening_of_standard_input_goes_on(command, loaded, tmp_path):
    text = BY_NAME["a JSON array"].content.decode()
    for _ in range(2):
        done = command("screen", "-", "--output", "out", "--threads", 1, text=text)
        assert done.returncode == 0, done.stderr


def test_a_file_given_as_the_text_of_score_is_read_as_rows(command, loaded, tmp_path):
    file_of(BY_NAME["CSV"], tmp_path)
    assert records(command("score", "talks.csv").stdout)[0]["prompt"] == ASKED
    assert command("score", f"User: {ASKED}\\nAssistant: talks.csv").stdout.count("\n") > 1
    assert "no such file" in command("score", "tlaks.csv").stderr


def test_rows_of_parquet_keep_what_they_hold(command, loaded, tmp_path):
    import datetime

    (tmp_path / "talks.parquet").write_bytes(parquet([{"prompt": ASKED, "response": SAID, "on": datetime.date(2026, 1, 31)}]))
    done = command("score", "talks.parquet")
    assert done.returncode == 0, done.stderr
    assert records(done.stdout)[0]["on"] == "2026-01-31"


# turns without text

IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}


def test_what_hangs_on_a_turn_without_text_is_not_scored_and_all_else_is(command, loaded, rules, tmp_path):
    rows = [
        {"messages": said(A)},
        {"messages": [IMAGE, *said(A[1:])]},
        {"messages": [*said(A), IMAGE, {"role": "assistant", "content": "A picture."}, *said(A)]},
        {"messages": [*said(A), *said(A[:1]), CALLED]},
        {"messages": [*said(A[:1]), CALLED, {"role": "tool", "content": "x"}, *said(A[1:])]},
    ]
    (tmp_path / "talks.jsonl").write_bytes(lines(*rows))
    done = command("score", "talks.jsonl")
    assert done.returncode == 3
    errors = ["error" in row["demeanor"] for row in records(done.stdout)]
    assert errors == [False, True, False, True, False]
    assert "left out 4 turns without text" in done.stderr

    judged = command("monitor", "talks.jsonl", *rules)
    assert judged.returncode == 3
    unscored = [[bool(d.get("not_scored")) for d in row["demeanor"]["decisions"]] for row in records(judged.stdout)]
    assert unscored == [[False], [True], [False, True, False], [False], [False]]

    drawn = command("sample", "talks.jsonl", "--trait", next(iter(loaded.vectors.traits)), "--output", "sheet.csv")
    assert drawn.returncode == 3
    assert "2 of 5 rows could not be scored" in drawn.stderr


def test_a_turn_without_text_changes_nothing_of_what_is_read():
    plain = Columns().find({"messages": said(A)})
    for extra in (CALLED, {"role": "tool", "content": "secret"}, {"role": "function", "name": "f", "content": "{}"}):
        found = Columns().find({"messages": [*said(A[:1]), extra, *said(A[1:])]})
        assert found.conversation == plain.conversation


def test_speakers_are_told():
    found = Columns().find({"messages": said(A, user="Client", assistant="COUNSELLOR")})
    assert dict(found.aliases) == {"Client": "user", "COUNSELLOR": "assistant"}
    assert turns(found) == A


# whatever comes, there is a conversation or one line, and what was meant is what is read

MOST = int(os.environ.get("DEMEANOR_SOAK_INPUTS", "1000"))
SCALAR = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["user", "assistant", "human", "gpt", "tool"])
KEYS = st.sampled_from(
    ["messages", "role", "content", "from", "value", "prompt", "response", "conversations", "chosen", "rejected", "mapping", "parent", "message",
     "choices", "request", "text", "instruction", "output", "input", "history", "chat", "parts", "type", "speaker", "conversation_id", "observations"]
)  # fmt: skip
ANY = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).filter(str.strip)


def one_line(error):
    assert len(str(error).splitlines()) == 1


def read_whole(path, how):
    """The conversations of a file, those of them to score, and how many rows there are; None where it is refused in one line."""
    try:
        rows = list(open_input(path, how).read())
    except DemeanorError as error:
        return one_line(error)
    found = [f for _, f in rows if not isinstance(f, str)]
    for f in found:
        try:
            talk = f.to_score()
            talk.last("assistant")
        except DemeanorError:
            continue
        assert any(m.role == "assistant" and m.content.strip() for m in talk.messages)  # none is scored without a reply
    return found, len(rows)


def mutated(content, draw):
    """Bytes of a real file with something done to them."""
    kind = draw.random()
    at, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    if kind < 0.15:
        return content[:at]
    if kind < 0.35:
        return content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
    if kind < 0.5:
        return content[:at] + content[min(end, at + 8) :]
    if kind < 0.6:
        return content[:at] + content[at:end] * 2 + content[end:]
    words = [
        b"role",
        b"content",
        b"user",
        b"assistant",
        b"messages",
        b"value",
        b'"',
        b",",
        b"null",
        b"[",
        b"}",
        b"\n",
        b"\xff",
        b"\x00",
        b"text",
    ]
    old, new = draw.choice(words), draw.choice(words)
    return content.replace(old, new, draw.randrange(1, 4))


def test_mutated_files_are_read_or_refused_in_one_line(tmp_path):
    draw, parsed = random.Random(20260731), 0
    for i in range(MOST // 2):
        form = draw.choice(FORMS)
        path = tmp_path / form.file
        path.write_bytes(mutated(form.content, draw) if i % 4 else form.content)
        found = read_whole(path, columns(form.options))
        if i % 4 == 0:
            assert found is not None
            assert [turns(f) for f in found[0]] == form.meant
        parsed += found is not None and len(found[0]) > 0
    assert parsed >= MOST // 2 / 3


@settings(max_examples=max(20, MOST // 4), deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(ANY, min_size=1, max_size=3))
def test_no_record_breaks_the_reading(values):
    for value in values:
        for read in (None, "chosen"):
            try:
                found = Columns(read=read).find(value if isinstance(value, dict) else {"messages": value})
            except ConversationError as error:
                one_line(error)
            else:
                assert found.conversation.messages


TALK = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3).map(
    lambda pairs: [t for q, a in pairs for t in (("user", q), ("assistant", a))]
)
WAYS = {
    "messages": lambda talk: {"messages": said(talk)},
    "parts": lambda talk: {"messages": [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in talk]},
    "ShareGPT": lambda talk: {"conversations": said(talk, "from", "value", user="human", assistant="gpt")},
    "request": lambda talk: {"request": {"messages": said(talk[:-1])}, "response": {"choices": [{"message": {"role": "assistant", "content": talk[-1][1]}}]}},
    "prompt as messages": lambda talk: {"prompt": said(talk[:-1]), "completion": talk[-1][1]},
    "dialog": lambda talk: {"dialog": said(talk, "speaker", "text", user="client", assistant="therapist")},
    "Alpaca": lambda talk: {"instruction": talk[-2][1], "output": talk[-1][1], "history": [[talk[i][1], talk[i + 1][1]] for i in range(0, len(talk) - 2, 2)]},
}  # fmt: skip
FILES = {
    "jsonl": ("x.jsonl", lambda rows: lines(*rows)),
    "array": ("x.json", document),
    "object": ("x.json", lambda rows: document({"data": rows})),
    "csv": ("x.csv", lambda rows: sheet([list(rows[0]), *([json.dumps(v) if isinstance(v, list | dict) else v for v in r.values()] for r in rows)])),
    "utf-16": ("x.jsonl", lambda rows: lines(*rows).decode().encode("utf-16")),
}  # fmt: skip


@settings(max_examples=max(20, MOST // 4), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(TALK, min_size=1, max_size=3), st.sampled_from(sorted(WAYS)), st.sampled_from(sorted(FILES)))
def test_what_is_meant_is_what_is_read(tmp_path_factory, talks, way, kind):
    folder = tmp_path_factory.getbasetemp()
    name, written = FILES[kind]
    (folder / name).write_bytes(written([WAYS[way](talk) for talk in talks]))
    found = read_whole(folder / name, Columns())
    assert found is not None
    assert [turns(f) for f in found[0]] == talks


@pytest.mark.parametrize("break_", ["\n", "\r", "\x1e", "\u2028"])
def test_a_line_break_in_a_name_makes_no_second_line(tmp_path, break_):
    (tmp_path / "talks.jsonl").write_bytes(lines({f"con{break_}versation_id": "1", "role": "user", "content": ASKED}))
    with pytest.raises(DemeanorError) as raised:
        open_input(tmp_path / "talks.jsonl").look()
    one_line(raised.value)
