"""Vectors in the formats of neighbours: the tutorial's files, and llama.cpp's control vectors."""

import json
import os
import pickle
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from artifacts import entry, unit, vector, vector_set

from demeanor import PersonaVector
from demeanor.errors import OutputError, VectorSetError
from demeanor.vectors.exports import export_control_vector, load_tutorial, save_tutorial


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_tutorial_files_come_back_as_they_were(tmp_path):
    vectors = {"warmth": vector("warmth"), "candour": vector("candour", layer=1, seed=3)}
    save_tutorial(vectors, tmp_path / "out", "tiny-chat")
    loaded = load_tutorial(tmp_path / "out")
    assert sorted(loaded) == ["candour", "warmth"]
    for name, before in vectors.items():
        after = loaded[name]
        assert torch.equal(after.direction, before.direction)
        assert (after.trait_name, after.layer_idx, after.strength, after.metadata) == (
            name,
            before.layer_idx,
            before.strength,
            before.metadata,
        )
    assert list(load_tutorial(tmp_path / "out" / "warmth_vector.pt")) == ["warmth"]


def test_tutorial_files_are_what_the_tutorial_reads(tmp_path):
    save_tutorial({"warmth": vector()}, tmp_path, "tiny-chat")
    content = torch.load(tmp_path / "warmth_vector.pt", weights_only=True)
    assert set(content) == {"trait_name", "direction", "layer_idx", "strength", "metadata"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"model": "tiny-chat", "traits": {"warmth": {"layer": 2, "strength": 3.25}}}


def test_a_tutorial_file_in_half_precision_is_read_as_float32(tmp_path):
    torch.save({"trait_name": "x", "direction": unit(0).half(), "layer_idx": 1, "strength": 2}, tmp_path / "x_vector.pt")
    assert load_tutorial(tmp_path)["x"].direction.dtype == torch.float32


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_without_running_it(tmp_path, legacy):
    made, file = tmp_path / "made", tmp_path / "x_vector.pt"
    content = {"trait_name": Malicious(made), "direction": unit(0), "layer_idx": 1, "strength": 2.0}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(VectorSetError, match=r"x_vector\.pt is not a tutorial vector file"):
        load_tutorial(file)
    assert not made.exists()


def test_a_plain_pickle_is_refused_without_running_it(tmp_path):
    made, file = tmp_path / "made", tmp_path / "x_vector.pt"
    file.write_bytes(pickle.dumps(Malicious(made), protocol=2))
    with pytest.raises(VectorSetError, match="not a tutorial vector file"):
        load_tutorial(file)
    assert not made.exists()


GOOD = {"trait_name": "x", "direction": unit(0), "layer_idx": 1, "strength": 2.0, "metadata": {}}


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3, 4),
        [1],
        None,
        {k: v for k, v in GOOD.items() if k != "direction"},
        GOOD | {"direction": torch.full((8,), torch.nan)},
        GOOD | {"direction": torch.zeros(2, 2, 2)},
        GOOD | {"layer_idx": "two"},
    ],
    ids=["tensor", "list", "none", "no direction", "NaN", "3 dimensions", "layer in words"],
)
def test_other_files_are_named(tmp_path, content):
    torch.save(content, tmp_path / "x_vector.pt")
    with pytest.raises(VectorSetError, match=r"x_vector\.pt is not a tutorial vector file: .") as caught:
        load_tutorial(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 torn"])
def test_files_that_are_no_pickle_are_named(tmp_path, content):
    (tmp_path / "x_vector.pt").write_bytes(content)
    with pytest.raises(VectorSetError, match="not a tutorial vector file"):
        load_tutorial(tmp_path)


def test_where_there_is_no_tutorial_file(tmp_path):
    with pytest.raises(VectorSetError, match=r"holds no \*_vector\.pt"):
        load_tutorial(tmp_path)
    with pytest.raises(VectorSetError, match="No such file"):
        load_tutorial(tmp_path / "x_vector.pt")


@pytest.mark.parametrize("name", ["../escaped", "a/b", "..", "/tmp/escaped"])
def test_a_trait_name_cannot_escape_the_folder(tmp_path, name):
    with pytest.raises(VectorSetError, match="is not a trait name"):
        save_tutorial({name: vector(name)}, tmp_path / "out" / "deep", "tiny-chat")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []


def test_tutorial_files_that_cannot_be_written_say_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write the tutorial's files"):
        save_tutorial({"warmth": vector()}, tmp_path / "file", "tiny-chat")


def field(reader, name):
    return reader.fields[name].contents()


@pytest.mark.parametrize("coefficient", [1.0, -2.5])
def test_a_control_vector_as_llama_cpp_reads_it(tmp_path, coefficient):
    path = tmp_path / "warmth.gguf"
    export_control_vector(vector_set(), "warmth", path, coefficient)
    reader = gguf.GGUFReader(path)
    assert field(reader, "general.architecture") == "controlvector"
    assert field(reader, "controlvector.model_hint") == "llama"
    assert field(reader, "controlvector.layer_count") == 3
    assert field(reader, "demeanor.trait") == "warmth"
    assert field(reader, "demeanor.coefficient") == pytest.approx(coefficient)
    (tensor,) = reader.tensors
    assert tensor.name == "direction.2"
    assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
    assert np.allclose(tensor.data, vector("warmth").direction.numpy() * coefficient)


def test_block_0_cannot_be_a_control_vector(tmp_path):
    at_0 = replace(entry(), steering=PersonaVector("warmth", unit(0), 0, 1.0))
    with pytest.raises(VectorSetError, match="block 0; choose another layer"):
        export_control_vector(vector_set(at_0), "warmth", tmp_path / "warmth.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_control_vector_of_an_unknown_trait(tmp_path):
    with pytest.raises(VectorSetError, match="did you mean warmth"):
        export_control_vector(vector_set(), "warmt", tmp_path / "warmt.gguf")


def test_a_control_vector_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*warmth\.gguf: No such file"):
        export_control_vector(vector_set(), "warmth", tmp_path / "nowhere" / "warmth.gguf")
