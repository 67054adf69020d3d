"""Loading: on the device and in the dtype asked for, or one clear line."""

import sys

import huggingface_hub
import huggingface_hub.errors
import pytest
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError

from demeanor.errors import ModelError, ModelNotFoundError
from demeanor.model import loading
from demeanor.model.loading import LoadedModel, load_model


@pytest.fixture
def gguf(tmp_path, make_model, tokenizer, monkeypatch):
    """A file whose name is a GGUF file's, read as a tiny model."""
    model = make_model("llama")
    monkeypatch.setattr(loading, "load_gguf", lambda path: LoadedModel(model, tokenizer))
    (tmp_path / "tiny.gguf").touch()
    return tmp_path / "tiny.gguf"


def test_a_gguf_file_in_half_precision_keeps_the_rotary_frequencies_whole(gguf, make_model):
    model, _ = load_model(str(gguf), device="cpu", dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.model.rotary_emb.inv_freq, make_model("llama").model.rotary_emb.inv_freq)


def test_a_gguf_file_is_put_on_the_gpu(gguf, monkeypatch):
    moved = []
    monkeypatch.setattr(loading, "_device", torch.device)
    monkeypatch.setattr(transformers.PreTrainedModel, "to", lambda self, target: moved.append(target) or self)
    load_model(str(gguf), device="cuda", dtype="float32")
    assert moved == [torch.device("cuda")]


@pytest.mark.parametrize("device", ["mps", "xpu", "cuda:99", "meta", "hpu", "gpu", "cpu:x"])
def test_a_device_that_is_not_here_is_one_clear_line(device):
    with pytest.raises(ModelError, match=r"use (--device )?auto") as caught:
        load_model(device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("device", "expected"), [("cuda", "auto"), ("cuda:1", {"": torch.device("cuda:1")})])
def test_a_quantised_model_goes_to_the_gpu_that_was_named(monkeypatch, device, expected):
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(loading.transformers, "BitsAndBytesConfig", dict)
    assert loading._quantization("8bit", torch.device(device))["device_map"] == expected


def test_without_a_network_it_says_so_whichever_http_client_the_hub_stands_on(monkeypatch):
    error = huggingface_hub.errors.HfHubHTTPError.__mro__[1]

    def not_cached(*_args, **_options):
        raise LocalEntryNotFoundError("not here")

    def offline(*_args, **_options):
        raise error("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_cached)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    for client in ("httpx", "httpx2"):
        monkeypatch.setitem(sys.modules, client, None)  # not installed, or another than the hub's
    with pytest.raises(ModelNotFoundError, match=r"the hub cannot be reached \(no route to host\); go online"):
        load_model("nobody/nothing", device="cpu")
