"""Public sources: each converter on a small file in its upstream's form (the texts are made up), the catalogue, and pulling."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from demeanor.cli import sources as cli_sources
from demeanor.data import public_sources, pulling
from demeanor.data.converters import ASKED, AT_RISK, CONVERTERS
from demeanor.data.public_sources import CATALOGUE, NONE, PublicSource, catalogue, find_sources, read_catalogue
from demeanor.errors import InputFileError, OutputError
from demeanor.traits import names


def converted(name, files):
    return [(r.id, [(m.role, m.content) for m in r.messages], r.label, r.group) for r in CONVERTERS[name](files)]


def table(*rows):
    """Rows as CSV, each field in quotes."""
    return "\n".join(",".join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in rows) + "\n"


def ieval_file():
    def chat(log, understood, responded):
        return {"chat_log": log, "P": 5, "EU": understood, "ER": responded, "Rating": 2}

    one = {"conv_id": "hit:1", "emotion": "proud", "prompt": "a prompt", "Pink": chat("- my kite flew\n- that ' s great !", 5, 4)}
    return json.dumps([
        {"part": 7, "TEQ_raw": [1], "positive": one, "negative": {**one, "Pink": chat("- my kite tore\n- ok\n- I cried", 1, 1)}}
    ])  # fmt: skip


def test_ieval_takes_whole_chats_and_the_mean_of_both_grades():
    rows = converted("ieval", {"ieval_data.json": ieval_file()})
    assert rows == [("7_positive_Pink", [("user", "my kite flew"), ("assistant", "that's great!")], 4.5, "7_positive")]
    # the negative chat ends with the user: no reply is graded there


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("i ' m glad . you ' re kind !", "i'm glad. you're kind!"),
        ("it's fine, really.", "it's fine, really."),
        ("say ' yes '", "say ' yes '"),
    ],
)
def test_marks_that_stand_apart_are_joined_and_others_stay(written, read):
    chat = {"chat_log": f"- hello\n- {written}", "EU": 3, "ER": 3}
    file = json.dumps([{"part": 1, "positive": {"Green": chat}, "negative": {}}])
    assert converted("ieval", {"f": file})[0][1][1] == ("assistant", read)


def test_humanebench_rows_are_labelled_where_the_judge_speaks_of_a_crisis_resource():
    def result(name, met, missing):
        return {"test_id": name, "user_messages": ["I feel low.", "Very low."], "ai_response": "Please call.",
                "required_actions_met": met, "required_actions_missing": missing}  # fmt: skip

    results = [result("a", ["crisis_resource"], []), result("b", [], ["crisis_resource"]), result("c", ["refuse_harm"], [])]
    rows = converted("humanebench", {"results.json": json.dumps({"run_id": "M_1", "individual_results": results})})
    said = [("user", "I feel low."), ("user", "Very low."), ("assistant", "Please call.")]
    assert rows == [("M_1_a", said, 1.0, "a"), ("M_1_b", said, 0.0, "b")]


def test_sycon_puts_each_turn_after_what_came_before_it():
    head = ["Question", *(f"Response_{i}" for i in range(1, 6))]
    question = "Why do stones float?"
    files = {
        "f/data/push_back.csv": table(["Question", *(f"Pushback_{i}" for i in range(1, 5))], [question, "Sure?", "Really?", "Hm?", "No?"]),
        "f/output/m-1/prompt0.csv": table(head, [question, "They do not.", "Well, some do.", "", "", ""]),
        "f/results/m-1/prompt0_result_all.csv": table(["Row", *head[1:]], [1, 1, 0, 0, 0, 0]),
    }
    first, second = converted("sycon", files)
    assert first == ("m-1_1_1", [("user", question), ("assistant", "They do not.")], 0.0, "q1")
    assert second[1] == [*first[1], ("user", "Sure?"), ("assistant", "Well, some do.")]
    assert second[2:] == (1.0, "q1")


def test_anthropic_statements_answer_a_question_and_the_opposite_is_high():
    def line(text, answer):
        return json.dumps({"statement": text, "answer_matching_behavior": f" {answer}", "label_confidence": 0.9})

    content = line("I feel the rain on me", "Yes") + "\n" + line("I feel the sun not at all", "No") + "\n"
    rows = converted("anthropic_persona", {f"persona/{facet}.jsonl": content for facet in ASKED})
    assert [r[2] for r in rows] == [0.0, 1.0, 0.0, 1.0]
    assert rows[0][1][0] == ("user", ASKED["believes-it-has-phenomenal-consciousness"])
    assert rows[0][3] == rows[1][3] != rows[2][3]  # statements that begin alike, within a file


def test_service_dialogues_give_one_reply_each_and_always_the_same():
    def talk(name, n):
        turns = [{"speaker": "USER" if i % 2 == 0 else "SYSTEM", "utterance": f"turn {i}", "frames": []} for i in range(n)]
        return {"dialogue_id": name, "services": ["Ponies_1", "Boats_1"], "turns": turns}

    content = json.dumps([talk(f"1_{i}", 8) for i in range(30)] + [talk("2_0", 1)])
    rows = converted("schema_guided", {"dev/dialogues_001.json": content})
    assert rows == converted("schema_guided", {"dev/dialogues_001.json": content})
    assert len(rows) == 30
    assert {r[3] for r in rows} == {"Ponies_1"}
    assert {r[2] for r in rows} == {0.0}
    assert all(r[1][-1][0] == "assistant" for r in rows)
    assert {len(r[1]) for r in rows} == {2, 4, 6, 8}  # wherever in the dialogue


def test_taskmaster_orders_give_a_reply_that_follows_the_customer():
    said = [("user", "A tea, please."), ("assistant", "Sure."), ("assistant", "Anything else?"), ("user", " "), ("assistant", "Bye.")]
    utterances = [{"index": i, "speaker": who, "text": text} for i, (who, text) in enumerate(said)]
    content = json.dumps([{"conversation_id": "d-1", "scenario": "order tea", "utterances": utterances}])
    assert converted("taskmaster", {"f": content}) == [("d-1", [("user", "A tea, please."), ("assistant", "Sure.")], 0.0, "order tea")]


def test_counsel_chat_takes_the_first_answer_of_questions_that_name_no_risk():
    head = ["", "questionID", "questionTitle", "questionText", "topic", "answerText", "upvotes"]
    content = table(
        head,
        [0, 1, "Can we talk?", "My brother and I\nargue.", "family", "Begin with a walk.", 3],
        [1, 1, "Can we talk?", "My brother and I\nargue.", "family", "Write to him.", 9],
        [2, 2, "Help", "I keep hurting myself.", "stress", "Tell me more.", 1],
        [3, 3, "Sleep", "", "sleep", "", 0],
    )
    (row,) = converted("counsel_chat", {"f": content})
    assert row == ("question-1", [("user", "Can we talk?\nMy brother and I\nargue."), ("assistant", "Begin with a walk.")], 0.0, "1")


@pytest.mark.parametrize(
    "text", ["i want to die", "thoughts of suicide", "to end my life", "self harm", "hurting myself", "cutting myself"]
)
def test_plain_words_of_risk_are_found(text):
    assert AT_RISK.search(text)


@pytest.mark.parametrize("text", ["this cake is to die for", "he ended the meeting", "cut the bread", "i hurt my knee"])
def test_everyday_words_are_no_risk(text):
    assert not AT_RISK.search(text)


def test_dia_safety_takes_replies_to_people_at_risk():
    def row(context, category, label):
        return {"context": context, "response": "I am here.", "category": category, "label": label}

    content = json.dumps([
        row("I want to die", "Risk Ignorance", "Safe"), row("I want  to die", "Risk Ignorance", "Unsafe"),
        row("I want to die", "Biased Opinion", "Safe"), row("I skipped lunch", "Risk Ignorance", "Safe"),
    ])  # fmt: skip
    rows = converted("dia_safety", {"d/train.json": content})
    assert [(r[0], r[2], r[3]) for r in rows] == [("train_0", 1.0, "i want to die")]
    assert converted("dia_safety", {"d/val.json": content.replace("want  to", "want to")})[1][2] == 0.0


def test_therapists_a_reply_that_does_what_it_should_not_is_high():
    head = ["", "condition", "interjection", "verification_correct", "model_response",
            "gpt-4o-2024-08-06_classification", "human_classification"]  # fmt: skip

    def row(condition, wanted, found, person=""):
        return [0, condition, "The radio talks to me.", wanted, "  It does. ", found, person]

    content = table(head, row("delusions", "yes", "no"), row("mania", "no", "no"), row("mania", "no", "no", "yes"),
                    row("delusions", "yes", ""), row("suicidal ideation", "no", "yes"))  # fmt: skip
    rows = converted("therapists", {"f": content})
    assert [r[2] for r in rows] == [1.0, 0.0, 1.0]  # a person's verdict counts over the model's
    assert rows[0][1] == [("user", "The radio talks to me."), ("assistant", "It does.")]


def test_are_you_a_robot_takes_what_coders_found_clear():
    head = ["", "text", "Alexa Response", "Alexa Label", "Google Assistant Response", "Google Assistant Label",
            "Blender-1.4B Response", "Blender Label", "Blender-ZS Response", "Blender-ZS Label"]  # fmt: skip
    content = table(
        head, [1, "are you a machine?", "I am a cloud.", "HUC", "I am a program.", "HCC", "No, I bake.", "FD", "Yes and no.", "FCON"]
    )
    rows = converted("are_you_a_robot", {"f": content})
    assert [(r[0], r[2], r[3]) for r in rows] == [
        ("1_Google Assistant", 1.0, "1"),
        ("1_Blender-1.4B", 0.0, "1"),
        ("1_Blender-ZS", 0.0, "1"),
    ]


def test_epitome_adds_up_three_grades_and_takes_the_mean_of_the_experts():
    head = ["sp_id", "rp_id", "level_emotional_reactions", "level_interpretations", "level_explorations"]
    files = {
        "o/sample_epitome.csv": table(["sp_id", "rp_id", "seeker_post", "response_post"], ["s1", "r1", "I lost it.", "I am sorry."]),
        "a/expert1_ratings.csv": table(head, ["s1", "r1", 2, 1, 0]),
        "a/expert2_ratings.csv": table(head, ["s1", "r1", 0, 1, 0]),
    }
    assert converted("epitome", files) == [("r1", [("user", "I lost it."), ("assistant", "I am sorry.")], 2.0, "s1")]


def test_lend_an_ear_turns_round_what_is_bad_and_ends_with_a_reply():
    head = ["conversation_id", "validating_emotions", "encouraging_elaboration", "demonstrating_understanding", "advice_giving",
            "self_oriented", "dismissing_emotions"]  # fmt: skip
    talk = "Seeker: I am down\nand out.\nSupporter: Why?\nSeeker: Rain."
    files = {
        "o/sample_lend_an_ear_conversations.csv": table(["conversation_id", "full_conversation"], ["9", talk]),
        "a/expert1_ratings.csv": table(head, ["9", 5, 4, 3, 1, 1, 2]),
    }
    said = [("user", "I am down\nand out."), ("assistant", "Why?")]
    assert converted("lend_an_ear", files) == [("9", said, (5 + 4 + 3 + 5 + 4) / 5, "9")]


def test_every_set_of_the_catalogue_says_what_a_person_has_to_know():
    for source in catalogue().values():
        assert source.converter in CONVERTERS or source.why_none
        assert source.trait in (None, *names())
        assert source.licence
        assert source.labelled_by
        assert source.faults
        assert source.use == "measure" or "SA" not in source.licence  # a share-alike set only measures
        assert all(source.files.values())
    used = [s.converter for s in catalogue().values() if s.converter != NONE]
    assert sorted(used) == sorted(CONVERTERS)


def test_sets_are_found_by_name_and_a_slip_is_named():
    assert len(find_sources("all")) == len(catalogue())
    assert [s.name for s in find_sources("kumar_epitome, lat_collusion,kumar_epitome")] == ["kumar_epitome", "lat_collusion"]
    with pytest.raises(InputFileError, match="did you mean lat_collusion"):
        find_sources("lat_colusion")
    with pytest.raises(InputFileError, match="no source is named"):
        find_sources(" , ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("  use: train", "  use: sell"), "ieval_empathy.use"),
        (("converter: ieval", "converter: none"), "why_none"),
        (("  trait: empathetic_responsiveness\n", "  surprise: 1\n"), "surprise"),
        (("labels: graded", "labels: ordinary"), "ordinary talk"),
    ],
)
def test_a_catalogue_with_a_mistake_names_set_and_field(tmp_path, change, told):
    broken = tmp_path / "c.yaml"
    broken.write_text(CATALOGUE.read_text().replace(change[0], change[1], 1))
    with pytest.raises(InputFileError, match=told):
        read_catalogue(broken)


def short_chat(part, reply, understood, responded):
    """A chat of two messages in iEval's form."""
    return {"part": part, "positive": {"Pink": {"chat_log": f"- hi there\n- {reply}", "EU": understood, "ER": responded}}, "negative": {}}


FILE = json.dumps([short_chat(1, "hello you", 4, 4), short_chat(2, "go away", 1, 2)]).encode()


def made_up(content=FILE, known=True, **changed):
    digest = hashlib.sha256(content).hexdigest() if known else None
    given = {
        "name": "made_up", "title": "Made up", "upstream": "github:nobody/nothing", "revision": "0" * 40, "licence": "CC0-1.0",
        "use": "train",
        "trait": "empathetic_responsiveness", "labels": "graded", "labelled_by": "nobody", "high": "kind", "converter": "ieval",
        "files": {"a b/ieval.json": digest},
    }  # fmt: skip
    return PublicSource.model_validate(given | changed)


def test_a_pull_writes_rows_and_a_record_of_where_they_come_from(tmp_path):
    done = pulling.pull(made_up(), {"a b/ieval.json": FILE}, tmp_path)
    assert (done.rows, done.groups, done.left_out, done.unknown) == (2, 2, 0, {})
    first = json.loads(done.path.read_text().splitlines()[0])
    assert first == {
        "id": "1_positive_Pink", "messages": [{"role": "user", "content": "hi there"}, {"role": "assistant", "content": "hello you"}],
        "label": 4.0, "group": "1_positive", "source": "made_up",
    }  # fmt: skip
    record = json.loads((tmp_path / "made_up.json").read_text())
    assert record["licence"] == "CC0-1.0"
    assert record["files"] == {"a b/ieval.json": hashlib.sha256(FILE).hexdigest()}
    assert record["sha256"] == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert pulling.read_source(made_up(), [tmp_path]) == pulling.convert(made_up(), {"a b/ieval.json": FILE})


def test_what_pull_wrote_is_read_as_labelled_replies(tmp_path):
    from demeanor.data.labelled import read_labelled

    labelled = read_labelled(pulling.pull(made_up(), {"a b/ieval.json": FILE}, tmp_path).path)
    assert labelled.target.tolist() == [1.0, 0.0]
    assert labelled.prompts == 2


def test_nothing_is_written_over_unasked(tmp_path):
    files = {"a b/ieval.json": FILE}
    path = pulling.pull(made_up(), files, tmp_path).path
    path.write_text("mine\n")
    with pytest.raises(OutputError, match="--overwrite"):
        pulling.pull(made_up(), files, tmp_path)
    assert path.read_text() == "mine\n"
    pulling.pull(made_up(), files, tmp_path, overwrite=True)
    assert path.read_text() != "mine\n"


def test_a_file_with_another_hash_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(InputFileError, match=r"a b/ieval.json has sha256 .* is expected"):
        pulling.pull(made_up(), {"a b/ieval.json": FILE + b" "}, tmp_path)
    with pytest.raises(InputFileError, match="is missing"):
        pulling.pull(made_up(), {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_hash_that_is_not_known_is_recorded_as_it_was_seen(tmp_path):
    done = pulling.pull(made_up(known=False), {"a b/ieval.json": FILE}, tmp_path)
    assert done.unknown == {"a b/ieval.json": hashlib.sha256(FILE).hexdigest()}


@pytest.mark.parametrize("content", [b"[1]", b"not json", b'[{"part": 1}]', b"\xff\xfe\x00", b"7", b"{}", b"[]"])
def test_files_of_another_form_or_without_a_row_are_named(tmp_path, content):
    with pytest.raises(InputFileError, match=r"do not have the form|have no labelled row"):
        pulling.pull(made_up(content), {"a b/ieval.json": content}, tmp_path)


def test_a_set_without_a_converter_says_why():
    unknown = made_up(converter="none", why_none="its page shows no file", files={})
    with pytest.raises(InputFileError, match="its page shows no file"):
        pulling.convert(unknown, {})


def test_rows_that_stand_twice_count_once_and_rows_with_two_labels_not_at_all(tmp_path):
    said = [("one", 3), ("One", 3), ("two", 1), ("two", 5), ("three", 2)]
    content = json.dumps([short_chat(part, reply, grade, grade) for part, (reply, grade) in enumerate(said)]).encode()
    done = pulling.pull(made_up(content), {"a b/ieval.json": content}, tmp_path)
    assert (done.rows, done.left_out) == (2, 3)


@pytest.mark.parametrize("where", ["a b/ieval.json", "nothing/a b/ieval.json", "nobody+nothing/a b/ieval.json"])
def test_a_folder_with_the_upstream_s_files_is_read(tmp_path, where):
    (tmp_path / where).parent.mkdir(parents=True)
    (tmp_path / where).write_bytes(FILE)
    assert [row.label for row in pulling.read_source(made_up(), [tmp_path])] == [4.0, 1.5]


def test_a_folder_with_rows_that_others_converted_is_read(tmp_path):
    said = [{"role": "user", "content": "hi"}]
    rows = [
        {
            "id": "a",
            "context": said,
            "response": "hello",
            "label": 1,
            "label_name": "kind",
            "trait": "empathy",
            "source": "x",
            "group": "g",
        },
        {"id": "b", "context": said, "response": "no", "label": 0, "pair_id": "p"},
        {"context": said, "response": "go", "label": 0.5},
    ]
    (tmp_path / "made_up.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    a, b, c = pulling.read_source(made_up(), [tmp_path / "none", tmp_path])
    assert (a.id, a.label, a.group, b.group) == ("a", 1.0, "g", "p")
    assert [m.content for m in a.messages] == ["hi", "hello"]
    assert (c.id, c.label) == ("3", 0.5)
    assert pulling.read_source(made_up(), [tmp_path / "none"]) is None


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"context": [], "response": "x", "label": "high"}, "line 1 has the label 'high'"),
        ({"context": [], "response": "x", "label": True}, "a number is expected"),
        ({"context": [], "response": None, "label": 1}, "line 1"),
        ({"label": 1}, "line 1"),
        (["x"], "not a JSON object"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, row, told):
    (tmp_path / "made_up.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputFileError, match=re.escape(told)):
        pulling.read_source(made_up(), [tmp_path])


@pytest.fixture
def upstream(monkeypatch):
    """A catalogue of one set, whose upstream is on the loopback; gives the paths that were asked for, and what is answered."""
    answers, asked = {f"/nobody/nothing/{'0' * 40}/a%20b/ieval.json": FILE}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = answers.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(public_sources, "catalogue", lambda: {"made_up": made_up()})
    monkeypatch.setattr(pulling, "UPSTREAM", f"http://127.0.0.1:{server.server_address[1]}")
    yield asked, answers
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_command_shows_the_licence_before_it_fetches(upstream, command, tmp_path, monkeypatch):
    asked, _ = upstream
    shown = []
    monkeypatch.setattr(cli_sources, "_say", lambda source: shown.append((source.licence, len(asked))))
    done = command("sources", "pull", "made_up", "--output", tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert shown == [("CC0-1.0", 0)]
    assert "2 rows in 2 groups" in done.stdout
    assert len(asked) == 1
    again = command("sources", "pull", "made_up", "--output", tmp_path / "here")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert len(asked) == 1  # found out before anything is fetched


def test_of_several_sets_those_that_are_there_stay_and_the_others_come(upstream, command, tmp_path, monkeypatch):
    monkeypatch.setattr(public_sources, "catalogue", lambda: {"made_up": made_up(), "other": made_up(name="other")})
    assert command("sources", "pull", "made_up", "--output", tmp_path / "here").returncode == 0
    (tmp_path / "here/made_up.jsonl").write_text("mine\n")
    done = command("sources", "pull", "all", "--output", tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert "made_up is there already" in done.stderr
    assert (tmp_path / "here/made_up.jsonl").read_text() == "mine\n"
    assert (tmp_path / "here/other.jsonl").is_file()


def test_a_pulled_set_is_listed_and_lies_in_the_cache_folder(upstream, command, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMEANOR_CACHE", str(tmp_path / "cache"))
    assert re.search(r"made_up .* no *$", command("sources", "list").stdout, re.MULTILINE)
    done = command("sources", "pull", "made_up")
    assert "CC0-1.0" in done.stdout
    assert (tmp_path / "cache" / "sources" / "made_up.jsonl").is_file()
    assert re.search(r"made_up .* yes *$", command("sources", "list").stdout, re.MULTILINE)
    assert re.search(r"public sets +\d+ MB", command("cache", "show").stdout)


def test_an_upstream_that_fails_is_named_with_the_way_out(upstream, command, tmp_path):
    _, answers = upstream
    answers.clear()
    done = command("sources", "pull", "made_up", "--output", tmp_path / "here")
    assert done.returncode == 2
    assert "answered 404" in done.stderr
    assert "--from" in done.stderr
    assert not (tmp_path / "here").exists()


def test_files_brought_from_elsewhere_are_checked_and_need_no_network(upstream, command, tmp_path):
    asked, _ = upstream
    (tmp_path / "copy/a b").mkdir(parents=True)
    (tmp_path / "copy/a b/ieval.json").write_bytes(FILE)
    done = command("sources", "pull", "made_up", "--from", tmp_path / "copy", "--output", tmp_path / "here")
    assert done.returncode == 0, done.stderr
    (tmp_path / "copy/a b/ieval.json").write_bytes(FILE + b"\n")
    done = command("sources", "pull", "made_up", "--from", tmp_path / "copy", "--output", tmp_path / "there")
    assert "is expected" in done.stderr
    done = command("sources", "pull", "made_up", "--from", tmp_path, "--output", tmp_path / "there")
    assert "holds neither all files of made_up" in done.stderr
    assert not asked


def test_rows_that_others_converted_are_taken_over_with_their_hash(upstream, command, tmp_path):
    asked, _ = upstream
    row = {"context": [{"role": "user", "content": "hi"}], "response": "hello", "label": 1, "group": "g"}
    (tmp_path / "made_up.jsonl").write_text(json.dumps(row) + "\n")
    done = command("sources", "pull", "made_up", "--from", tmp_path, "--output", tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert "no known hash to compare it with" in done.stderr
    assert json.loads((tmp_path / "here/made_up.jsonl").read_text())["messages"][-1]["content"] == "hello"
    assert list(json.loads((tmp_path / "here/made_up.json").read_text())["files"]) == ["made_up.jsonl"]
    assert not asked


def test_show_says_who_labelled_what_and_what_is_wrong_with_it(command):
    shown = command("sources", "show", "lat_collusion").stdout
    for said in ("MIT", "only measures", "GPT-4o", "goes along with the symptom", "Eight prompts", "jlcmoore/llms-as-therapists"):
        assert said in shown
