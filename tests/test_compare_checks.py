"""A comparison checks everything that can be checked before a model writes its first reply."""

import json
from typing import Any

import pytest
from artifacts import entry, vector_set

from demeanor.comparison import experiment
from demeanor.comparison.experiment import Experiment, Loading, version
from demeanor.comparison.gate import parse_condition
from demeanor.errors import ChatTemplateError, DemeanorError, InputFileError, ModelError, ModelNotFoundError, OutputError, VectorSetError
from demeanor.model.chat import ChatEncoder
from demeanor.model.talking import encoder_of
from demeanor.testing.tiny import tiny_tokenizer


class Observer:
    warnings = ()
    reader = None

    def __init__(self, *names):
        self.vectors = vector_set(*(entry(name) for name in names))


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def steps(monkeypatch):
    """What was done, in order; writing a reply is not to be among it."""
    done = []
    monkeypatch.setattr(experiment, "answer", lambda *_: pytest.fail(f"replies were written after {done}"))
    return done


@pytest.fixture
def loading(steps):
    def observer(folder):
        steps.append(f"observer {folder}")
        return Observer("warmth")

    def model(name):
        steps.append(f"model {name}")

    def look(name):
        steps.append(f"look {name}")
        if name == "gone/model":
            raise ModelNotFoundError("gone/model is not here")
        return ChatEncoder(tiny_tokenizer("{{ raise_exception('no system') if messages[0].role == 'system' }}hi"))

    return Loading(observer, model, look)


def refused(loading, error, match, *versions, **settings):
    with pytest.raises(error, match=match):
        experiment.run(Experiment([v if not isinstance(v, str) else version(v) for v in versions], **settings), loading)


def test_numbers_and_places_come_first(steps, loading, tmp_path):
    (tmp_path / "file").touch()
    for changed, told in (({"max_tokens": 0}, "0 tokens"), ({"temperature": -1.0}, "temperature -1"), ({"samples": 0}, "0 samples")):
        refused(loading, InputFileError, told, "a/b", "c/d", **changed)
    refused(loading, InputFileError, "above 0", "a/b", "c/d", size=0.0)
    refused(loading, OutputError, "a folder is needed there", "a/b", "c/d", save_replies=tmp_path / "file" / "kept")
    refused(loading, InputFileError, "no such file", "a/b", "c/d", prompts=tmp_path / "none.jsonl")
    assert steps == []


def test_a_file_whose_replies_match_no_prompt_is_refused_before_any_model_is_loaded(steps, loading, tmp_path):
    lines(tmp_path / "other.jsonl", [{"id": "x", "prompt": "Something else", "response": "Yes"}])
    refused(loading, InputFileError, "have no prompt in common", "a/b", str(tmp_path / "other.jsonl"))
    assert steps == []


def test_a_condition_for_a_trait_that_is_not_compared(steps, loading):
    refused(loading, VectorSetError, "did you mean warmth", "a/b", "c/d", conditions=[parse_condition("warmht drops more than 0.2")])
    assert steps == ["observer None"]


def test_an_observer_that_cannot_be_loaded(steps):
    def broken(folder):
        raise DemeanorError("damaged")

    refused(Loading(broken, None), DemeanorError, "damaged", "a/b", "c/d")


def test_the_second_model_is_looked_at_before_the_first_one_answers(steps, loading):
    refused(loading, ModelNotFoundError, "not here", "a/b", "gone/model")
    assert steps == ["observer None", "look a/b", "look gone/model"]


def test_a_system_prompt_or_prompt_that_a_template_refuses(steps, tmp_path):
    def look(name):
        return ChatEncoder(tiny_tokenizer("{{ raise_exception('only users') }}"))

    def observer(folder) -> Any:
        return Observer("warmth")

    refused(Loading(observer, None, look), ChatTemplateError, "only users", "a/b", version("c/d", "Be brief."))


def test_looking_reads_no_weights(tmp_path, make_model, tokenizer, base_tokenizer, monkeypatch):
    make_model("llama").save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    monkeypatch.setattr("demeanor.model.pretrained._pretrained", lambda *_, **__: pytest.fail("weights were read"))
    assert encoder_of(tmp_path / "chat").template == tokenizer.chat_template
    assert encoder_of(tmp_path / "chat", "chatml").template == tokenizer.chat_template  # for a model that has none
    with pytest.raises(ModelNotFoundError, match="no such file"):
        encoder_of("none.gguf")
    (tmp_path / "chat" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks its weights"):
        encoder_of(tmp_path / "chat")


def test_looking_asks_for_a_chat_template(tmp_path, make_model):
    make_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer(None).save_pretrained(tmp_path / "base")
    with pytest.raises(ChatTemplateError, match="has no chat template"):
        encoder_of(tmp_path / "base")
    assert "<|im_start|>" in encoder_of(tmp_path / "base", "chatml").template
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"the tokenizer in .* could not be loaded"):
        encoder_of(tmp_path / "base")


def test_a_report_that_could_not_be_written_is_refused_at_once(command, tmp_path):
    for name in "ab":
        lines(tmp_path / f"{name}.jsonl", [{"prompt": "p", "response": "r"}])
    (tmp_path / "file").touch()
    done = command("compare", "a.jsonl", "b.jsonl", "--report", "file/r.html")
    assert done.returncode == 2
    assert "a folder is needed there" in done.stderr
    assert "loading" not in done.stderr


def test_models_that_are_nowhere_are_told_before_anything_is_written(command, tmp_path, monkeypatch):
    from demeanor.cli import console

    monkeypatch.setattr(console, "load_scorer", lambda *_: Observer("warmth"))
    monkeypatch.setattr(experiment, "answer", lambda *_: pytest.fail("replies were written"))
    monkeypatch.setattr(console, "load_reader", lambda *_: None)
    done = command("compare", str(tmp_path), str(tmp_path / "no.gguf"), "--save-replies", "kept")
    assert done.returncode == 2
    assert "holds no config.json" in done.stderr
    assert not (tmp_path / "kept").exists()
