"""A model without a chat template is refused, or told one; a vector set keeps what was told and reads the same way again."""

import json
from dataclasses import replace

import pytest
import torch
from artifacts import entry

from demeanor import ActivationReader, PersonaVector, Scorer, VectorSet, load_model
from demeanor.conversation import Conversation, Message
from demeanor.errors import ChatTemplateError, DamagedVectorSetError
from demeanor.model.chat import ChatEncoder
from demeanor.model.generation import Sampling, text_of
from demeanor.model.identity import identify
from demeanor.model.pretrained import LoadedModel
from demeanor.model.talking import with_template
from demeanor.model.templates import NAMED, PLAIN_HASH, told
from demeanor.scoring.scorer import open_scorer
from demeanor.testing.tiny import tiny_tokenizer

TALK = Conversation((Message("user", "I failed."), Message("assistant", "That must hurt.")))
OWN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


@pytest.fixture
def folder(tmp_path, make_model):
    """A folder with a tiny base model: its tokenizer has no chat template."""
    make_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer(None).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def load(folder):
    return load_model(folder, device="cpu", dtype="float32")


def set_of(loaded):
    made = entry("warmth")
    vector = PersonaVector("warmth", torch.eye(32)[3], 1, 1.0)
    return VectorSet(identify(*loaded), {"warmth": replace(made, reading=vector, steering=vector)})


def text_read(scorer):
    (encoded,) = scorer.reader.encode([TALK])
    return encoded.text


def test_without_a_template_a_model_is_refused_in_one_line_that_says_what_to_do(folder, tmp_path, command):
    with pytest.raises(ChatTemplateError, match=r"has no chat template .*--template chatml, llama3, plain .* or a file") as caught:
        with_template(load(folder))
    assert "\n" not in str(caught.value)
    done = command("extract", "--model", folder, "--device", "cpu", "-t", "user_risk")
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "has no chat template" in done.stderr.splitlines()[-1]
    with_own = set_of((load(folder).model, tiny_tokenizer()))
    with_own.save(tmp_path / "set")
    done = command("score", "Hello", "--vectors", tmp_path / "set", "--model", folder, "--allow-other-model", "--device", "cpu")
    assert done.returncode == 2
    assert "has no chat template" in done.stderr.splitlines()[-1]
    asked = ("score", "Hello", "--vectors", tmp_path / "set", "--model", folder, "--allow-other-model", "--device", "cpu")
    assert command(*asked, "--template", "plain").returncode == 0


@pytest.mark.parametrize("name", NAMED)
def test_what_was_told_is_recorded_and_used_again_by_itself(folder, tmp_path, name):
    loaded = with_template(load(folder), name)
    made = set_of(loaded)
    assert made.model.template == name
    made.save(tmp_path / "set")
    kept = VectorSet.load(tmp_path / "set")
    assert kept.model == made.model
    scorer = open_scorer(tmp_path / "set", None, "cpu", "float32")
    assert text_read(scorer) == ChatEncoder(loaded.tokenizer).encode([TALK])[0].text
    assert scorer.score(TALK).scores == Scorer(ActivationReader(*loaded), made).score(TALK).scores
    assert not [w for w in scorer.warnings if "template" in w]


def test_a_template_from_a_file_is_kept_whole_so_that_the_file_may_go(folder, tmp_path):
    (tmp_path / "mine.jinja").write_text(OWN)
    made = set_of(with_template(load(folder), str(tmp_path / "mine.jinja")))
    made.save(tmp_path / "set")
    (tmp_path / "mine.jinja").unlink()
    assert made.model.template == OWN
    assert text_read(open_scorer(tmp_path / "set", None, "cpu", "float32")) == "[user] I failed.\n[assistant] That must hurt.\n"


def test_a_template_stands_in_a_tokenizer_s_config_too(folder, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": OWN}))
    assert told(with_template(load(folder), str(tmp_path / "tokenizer_config.json")).tokenizer) == OWN


def test_plain_is_what_a_base_model_was_read_with_before(folder):
    loaded = load(folder)
    before = ChatEncoder(loaded.tokenizer).encode([TALK])[0]
    assert ChatEncoder(with_template(loaded, "plain").tokenizer).encode([TALK])[0] == before
    assert before.text == "User: I failed.\nAssistant: That must hurt.\n"
    assert identify(*loaded).template_hash == PLAIN_HASH


def test_a_set_of_a_base_model_from_before_templates_were_recorded_reads_on(folder, tmp_path):
    loaded = load(folder)
    old = replace(set_of(loaded), model=replace(identify(*loaded), template=""))
    old.save(tmp_path / "set")
    assert "template" not in json.loads((tmp_path / "set" / "manifest.json").read_text())["model"]
    scorer = open_scorer(tmp_path / "set", None, "cpu", "float32")
    assert scorer.warnings == []
    assert scorer.score(TALK).scores == Scorer(ActivationReader(*loaded), old).score(TALK).scores


def test_what_was_told_goes_over_a_template_of_the_model_s_own(folder, tmp_path):
    made = set_of(with_template(load(folder), "chatml"))
    made.save(tmp_path / "set")
    tokenizer = tiny_tokenizer(OWN)
    tokenizer.save_pretrained(folder)  # the model's makers add one later
    assert "<|im_start|>user" in text_read(open_scorer(tmp_path / "set", None, "cpu", "float32"))
    other = open_scorer(made, str(folder), "cpu", allow_other_model=True)
    assert text_read(other).startswith("[user]")
    assert any("template" in warning for warning in other.warnings)


def test_one_that_is_there_is_left_alone(make_model):
    tokenizer = tiny_tokenizer(OWN)
    loaded = LoadedModel(make_model("llama"), tokenizer)
    assert told(with_template(loaded).tokenizer) == ""
    assert with_template(loaded, "chatml", keep_own=True).tokenizer.chat_template == OWN
    assert with_template(loaded, "chatml").tokenizer.chat_template != OWN


@pytest.mark.parametrize(("adds", "begins"), [(True, "<bos><|im_start|>user"), (False, "<|im_start|>user")])
def test_a_named_one_begins_as_the_tokenizer_begins_every_text(folder, adds, begins):
    loaded = load(folder)
    first = loaded.tokenizer("a")["input_ids"][0] == loaded.tokenizer.bos_token_id
    assert first  # the tiny tokenizer begins with its BOS
    if not adds:
        loaded.tokenizer.bos_token = None
    text = ChatEncoder(with_template(loaded, "chatml").tokenizer).encode([TALK])[0].text
    assert text.startswith(begins)


@pytest.mark.parametrize(
    ("name", "content", "told_about"),
    [
        ("chatlm", None, "no chat template 'chatlm'; did you mean chatml"),
        ("gone.jinja", None, "no chat template 'gone.jinja'"),
        ("bad.jinja", "{% for m in messages %}{{ m.content }}", "cannot be used as a chat template"),
        ("drops.jinja", "{{ messages[0]['content'] }}", "cannot be used as a chat template"),
        ("words.txt", "hello", "cannot be read as a chat template: it holds no template"),
        ("long.jinja", "{" * 200_000, "too long"),
        ("config.json", "{}", "it lacks 'chat_template'"),
        ("torn.json", "{", "cannot be read as a chat template"),
    ],
)
def test_what_is_no_template_is_one_clear_line(folder, tmp_path, monkeypatch, name, content, told_about):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ChatTemplateError, match=told_about) as caught:
        with_template(load(folder), name)
    assert "\n" not in str(caught.value)


def test_a_turn_ends_where_the_told_template_ends_it(make_model):
    loaded = with_template(LoadedModel(make_model("llama"), tiny_tokenizer(None)), "llama3")
    reader = ActivationReader(*loaded)
    assert Sampling().config(reader).stop_strings == ["<|eot_id|>"]
    ids = loaded.tokenizer("I hear you.<|eot_id|>user", add_special_tokens=False)["input_ids"]
    assert text_of(reader, ids) == "I hear you."


def test_a_manifest_s_template_has_a_bound(folder, tmp_path):
    made = set_of(with_template(load(folder), "plain"))
    with pytest.raises(DamagedVectorSetError, match="template"):
        replace(made, model=replace(made.model, template="{" * 200_000)).save(tmp_path / "set")
