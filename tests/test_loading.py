"""Loading: on the device and in the dtype asked for, or one clear line."""

import importlib.util
import json
import sys

import huggingface_hub
import huggingface_hub.errors
import pytest
import safetensors.torch
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError

from demeanor.cli.models import path
from demeanor.errors import ModelError, ModelNotFoundError
from demeanor.model import loading, pretrained
from demeanor.model.identity import identify
from demeanor.model.loading import load_model, locate
from demeanor.model.pretrained import LoadedModel


@pytest.fixture
def gguf(tmp_path, make_model, tokenizer, monkeypatch):
    """A file whose name is a GGUF file's, read as a tiny model."""
    model = make_model("llama")
    monkeypatch.setattr(pretrained, "load_gguf", lambda path: LoadedModel(model, tokenizer))
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
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(transformers, "BitsAndBytesConfig", dict)
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


@pytest.fixture
def saved(tmp_path, make_model, tokenizer):
    """A folder with a tiny model, its weights in one file."""
    make_model("llama").save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def drop_a_layer(folder):
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".layers.1." not in name}
    safetensors.torch.save_file(kept, folder / "model.safetensors", {"format": "pt"})


def truncate(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (drop_a_layer, r"lack weights of LlamaForCausalLM \(model\.layers\.1\..* and 8 more\)"),
        (truncate, "not fully covered"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "header too small"),
        (lambda folder: (folder / "config.json").write_text("[]"), "mapping"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "could not be loaded"),
    ],
)
def test_a_damaged_folder_is_one_clear_line(saved, damage, told):
    damage(saved)
    with pytest.raises(ModelError, match=told) as caught:
        load_model(str(saved), device="cpu")
    assert str(caught.value).startswith(f"the model in {saved} could not be loaded: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_folder_loads_by_its_path_with_the_weights_that_were_saved(tmp_path, make_model, tokenizer, tied):
    made = make_model("llama", tie_word_embeddings=tied)
    made.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, _ = load_model(tmp_path, device="cpu", dtype="float32")
    torch.testing.assert_close(dict(model.named_parameters()), dict(made.named_parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_model_that_is_named_from_where_one_stands_keeps_its_whole_path(tmp_path, make_model, tokenizer, monkeypatch, gguf, kind):
    make_model("llama").save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    monkeypatch.chdir(tmp_path)
    name = "chat" if kind == "folder" else gguf.name
    loaded = load_model(name, device="cpu", dtype="float32")
    assert identify(*loaded).name == str(tmp_path / name)


def test_a_gguf_file_cut_in_its_header_is_one_clear_line(tmp_path):
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") * 2 + b"\0\0")
    with pytest.raises(ModelError, match=r"cut\.gguf could not be read as a GGUF model: ") as caught:
        load_model(tmp_path / "cut.gguf", device="cpu")
    assert "\n" not in str(caught.value)


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}})
WHOLE = [
    {"config.json": "{}", "model.safetensors": ""},
    {"config.json": "{}", "model.safetensors.index.json": INDEX, "model-1.safetensors": "", "model-2.safetensors": ""},
]
PARTLY = [WHOLE[0] | {"model.safetensors": None}, WHOLE[0] | {"config.json": None}, WHOLE[1] | {"model-2.safetensors": None}]
PARTLY += [WHOLE[1] | {"model.safetensors.index.json": "{"}]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """hub(files): a hub cache that holds these files of owner/name; those that are None lie on the hub only."""

    def make(files, online=True):
        folder = tmp_path / "models--owner--name" / "snapshots" / "abc"
        (tmp_path / "models--owner--name" / "refs").mkdir(parents=True)
        (tmp_path / "models--owner--name" / "refs" / "main").write_text("abc")
        folder.mkdir(parents=True)
        for name, text in files.items():
            if text is not None:
                (folder / name).write_text(text)
        cached_only = huggingface_hub.snapshot_download

        def snapshot_download(name, local_files_only=False, **options):
            if local_files_only:
                return cached_only(name, local_files_only=True, **options)
            for file, text in WHOLE["model-1.safetensors" in files].items():
                (folder / file).write_text(text)
            return str(folder)

        def model_info(_self, name, **_options):
            if not online:
                raise OSError("no route to host")

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
        return folder

    return make


@pytest.mark.parametrize("files", PARTLY)
def test_an_interrupted_download_is_completed(hub, files):
    folder = hub(files)
    with pytest.raises(ModelNotFoundError, match="owner/name is not on this machine; fetch it: demeanor models pull owner/name"):
        path("owner/name")
    assert locate("owner/name") == folder
    assert loading.whole(folder)


@pytest.mark.parametrize("files", PARTLY)
def test_an_interrupted_download_without_a_network_says_how_to_complete_it(hub, files):
    hub(files, online=False)
    told = r"owner/name is only partly in the local hub cache .* go online and run `demeanor models pull owner/name`"
    with pytest.raises(ModelNotFoundError, match=told):
        load_model("owner/name", device="cpu")


@pytest.mark.parametrize("files", WHOLE)
def test_a_cached_model_needs_no_network(hub, files, capsys):
    folder = hub(files, online=False)
    assert locate("owner/name") == folder
    path("owner/name")
    assert capsys.readouterr().out.strip() == str(folder)


def test_a_model_without_weights_on_the_hub_is_not_taken_for_whole(hub, monkeypatch):
    folder = hub({"config.json": "{}"})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_args, **_options: str(folder))
    with pytest.raises(ModelNotFoundError, match="owner/name is not a complete model on the hub"):
        locate("owner/name")


@pytest.mark.parametrize("name", ["a b/c", "owner/a--b"])
def test_the_path_of_what_is_no_hub_id_is_one_clear_line(name):
    with pytest.raises(ModelNotFoundError, match=f"'{name}' is not a Hugging Face id"):
        path(name)


def test_a_gguf_file_is_parsed_once_and_read_as_ever(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_token_list(["a", "bc", "d"])
    writer.add_tensor("output.weight", torch.arange(6.0).reshape(2, 3).numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    plain, path = gguf.GGUFReader, str(tmp_path / "tiny.gguf")
    with pretrained._read_once():
        read = gguf.GGUFReader(path)
        assert gguf.GGUFReader(path) is read
        assert gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2) is gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    assert gguf.GGUFReader is plain
    expected = plain(path)
    assert {n: f.contents() for n, f in read.fields.items()} == {n: f.contents() for n, f in expected.fields.items()}
    assert read.tensors[0].data.tolist() == expected.tensors[0].data.tolist() == [[0, 1, 2], [3, 4, 5]]
