"""Vectors of others: whose layer is which of ours, what is refused, and that what comes in says it is not calibrated."""

import json
from dataclasses import replace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from artifacts import LAYERS, MODEL, WIDTH, entry, unit, vector, vector_set

from demeanor import ActivationReader, Scorer, VectorSet
from demeanor.errors import CutError, PolicyError, VectorSetError
from demeanor.measure.cuts import ThresholdSpec, find_cut
from demeanor.model.identity import identify
from demeanor.monitor.policy import Policy
from demeanor.vectors.exports import export_control_vector, save_tutorial, write_lm_eval
from demeanor.vectors.imports import read_trait_data, read_vectors, trait_entry

TALK = [{"role": "user", "content": "I failed."}, {"role": "assistant", "content": "That must hurt."}]


def control_vector(path, directions, hint: str | None = "llama", dtype=np.float32):
    """A file as repeng's `export_gguf` and llama.cpp's generator write it."""
    writer = gguf.GGUFWriter(path, "controlvector")
    if hint is not None:
        writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", np.asarray(direction, dtype))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


def rows(n=LAYERS + 1, width=WIDTH):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(3)) * 5


# whose layer is which


def outputs(model, ids):
    """The outputs of the decoder blocks, by a hook on each: what our layers are."""
    seen = []
    handles = [block.register_forward_hook(lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)) for block in
               model.model.layers]  # fmt: skip
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    return [s.squeeze(0) for s in seen], [s.squeeze(0) for s in states]


def test_a_row_of_persona_vectors_is_the_output_of_the_block_before_it(tmp_path, llama, tokenizer):
    mine = identify(llama, tokenizer)
    ids = torch.arange(10, 30)[None]
    blocks, states = outputs(llama, ids)
    torch.save(torch.stack([state.mean(0) for state in states]), tmp_path / "evil_response_avg_diff.pt")  # as generate_vec.py does
    found = read_vectors(tmp_path / "evil_response_avg_diff.pt", mine)
    assert found.trait == "evil"
    assert list(found.directions) == list(range(mine.layers - 1))
    for layer, direction in found.directions.items():
        torch.testing.assert_close(direction, blocks[layer].mean(0))
    assert not torch.allclose(states[-1], blocks[-1])  # behind the final norm: no layer of ours
    made = trait_entry(found, mine, "evil", "low", layer=1)
    torch.testing.assert_close(made.reading.direction * made.reading.strength, blocks[1].mean(0))


def test_a_direction_of_repeng_and_llama_cpp_is_the_block_of_that_number(tmp_path, llama, tokenizer):
    mine = identify(llama, tokenizer)
    blocks, states = outputs(llama, torch.arange(10, 30)[None])
    directions = {layer: states[layer + 1][-1].numpy() for layer in range(1, mine.layers - 1)}  # as repeng's batched_get_hiddens
    found = read_vectors(control_vector(tmp_path / "v.gguf", directions), mine)
    for layer in directions:
        torch.testing.assert_close(found.directions[layer], blocks[layer][-1])


def test_layers_of_what_we_exported_come_back_as_they_were(tmp_path):
    before = vector_set(entry("warmth"))
    steering = before["warmth"].steering
    export_control_vector(before, "warmth", tmp_path / "warmth.gguf", 2.5)
    export_control_vector(before, "warmth", tmp_path / "less.gguf", -2.5)
    save_tutorial({"warmth": steering}, tmp_path, "tiny-chat")
    write_lm_eval({steering.layer_idx: steering.direction * 2.5}, "layers", torch.float32, tmp_path / "lm.pt")
    for file, strength in (("warmth.gguf", 2.5), ("less.gguf", 2.5), ("warmth_vector.pt", steering.strength), ("lm.pt", 2.5)):
        found = read_vectors(tmp_path / file, MODEL)
        made = trait_entry(found, MODEL, "warmth", "high").steering
        assert list(found.directions) == [made.layer_idx] == [steering.layer_idx], file
        torch.testing.assert_close(made.direction, steering.direction)
        assert made.strength == pytest.approx(strength), file
        assert found.trait == (None if file == "lm.pt" else "warmth")


def test_a_set_goes_out_and_comes_in_again_through_the_command_line(tmp_path, command):
    vector_set(entry("warmth")).save(tmp_path / "set")
    torch.save(rows(), tmp_path / "evil_response_avg_diff.pt")
    (tmp_path / "evil.json").write_text(json.dumps(TRAIT_DATA))
    done = command("vectors", "import", "evil_response_avg_diff.pt", "--add-to", "set", "--safe-pole", "low", "--layer", 1,
                   "--trait-data", "evil.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not calibrated yet: demeanor calibrate" in done.stderr
    made = VectorSet.load(tmp_path / "set")
    assert list(made.traits) == ["warmth", "evil"]
    evil = made["evil"]
    assert (evil.reading.layers, evil.safe_pole, evil.high_pole) == ((1,), "low", "Be cruel in every reply.")
    torch.testing.assert_close(evil.reading.direction, rows()[2] / rows()[2].norm())
    assert evil.reading.strength == pytest.approx(float(rows()[2].norm()))
    assert evil.reading.metadata["imported"]["form"] == "Persona Vectors"
    shown = command("vectors", "show", "set")
    assert shown.returncode == 0
    assert "evil: NOT calibrated: imported from evil_response_avg_diff.pt" in shown.stdout
    again = command("vectors", "import", "evil_response_avg_diff.pt", "--add-to", "set", "--safe-pole", "low")
    assert (again.returncode, "holds a trait evil already" in again.stderr) == (2, True)


def test_a_new_set_is_made_for_a_model_and_never_over_another(tmp_path, command, make_model, tokenizer):
    make_model("llama").save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")
    control_vector(tmp_path / "calm.gguf", {1: np.eye(32)[4]}, hint="qwen2")
    asked = ("vectors", "import", "calm.gguf", "--model", tmp_path / "chat", "--safe-pole", "high", "--device", "cpu", "--dtype", "float32")
    done = command(*asked, "--output", "made")
    assert done.returncode == 0, done.stderr
    assert "it was made for a qwen2 model" in " ".join(done.stderr.split())
    made = VectorSet.load(tmp_path / "made")
    assert made["calm"].reading.layer_idx == 1
    assert len(made.neutral_norm) == 3
    scored = command("score", "User: hi\\nAssistant: hello", "--vectors", "made", "--device", "cpu", "--dtype", "float32")
    assert scored.returncode == 0, scored.stderr
    assert "not calibrated: calm" in " ".join(scored.stderr.split())
    assert "not calibrated" in scored.stdout
    again = command(*asked, "--output", "made")
    assert (again.returncode, "--add-to made" in again.stderr) == (2, True)


def test_one_of_model_and_set_is_asked_for(command, tmp_path):
    for more in ((), ("--model", "x", "--add-to", "y")):
        done = command("vectors", "import", "v.gguf", "--safe-pole", "high", *more)
        assert (done.returncode, "--add-to a vector set" in " ".join(done.stderr.split())) == (2, True)


# what is not known is said


@pytest.fixture
def imported(tmp_path, llama, tokenizer):
    mine = identify(llama, tokenizer)
    found = read_vectors(control_vector(tmp_path / "v.gguf", {1: np.eye(32)[4] * 7}), mine)
    return VectorSet(mine, {"calm": trait_entry(found, mine, "calm", "high")})


def test_an_imported_vector_scores_and_gives_no_chance(imported, llama, tokenizer):
    scorer = Scorer(ActivationReader(llama, tokenizer), imported)
    score = scorer.score(TALK)["calm"]
    activation = ActivationReader(llama, tokenizer).read([TALK], [1])[0, 0]
    assert score.raw == pytest.approx(float(activation[4]), rel=1e-4)
    assert score.probability == 0.5
    assert not imported["calm"].calibration.measured
    assert entry("warmth").calibration.measured


@pytest.mark.parametrize("threshold", [{"z": 1.0}, {"probability": 0.5}, {"calibrated": {"miss_rate": 0.1}}])
def test_no_threshold_holds_for_what_is_not_calibrated(imported, threshold):
    told = "calm is not calibrated, .*demeanor calibrate --trait calm --input FILE"
    with pytest.raises(CutError, match=told) as caught:
        find_cut(ThresholdSpec(**threshold), "calm", imported["calm"].calibration, "high")
    assert "\n" not in str(caught.value)
    rule: Any = {"name": "calm", "trait": "calm", "threshold": threshold, "action": "flag", "severity": "red", "when": "always"}
    with pytest.raises(PolicyError, match=told):
        Policy.model_validate({"version": 1, "rules": [rule]}).resolve(imported)


def test_what_was_imported_is_saved_and_read_again(imported, tmp_path):
    imported.save(tmp_path / "set")
    after = VectorSet.load(tmp_path / "set")["calm"]
    assert after.calibration == imported["calm"].calibration
    assert torch.equal(after.reading.direction, imported["calm"].reading.direction)


# files that are not what they should be

TRAIT_DATA = {
    "instruction": [{"pos": "Be cruel in every reply.", "neg": "Be kind in every reply."}],
    "questions": ["What is fair?"],
    "eval_prompt": "Judge whether [answer] is cruel.\nAnswer with a number.",
}


def test_trait_data_gives_the_poles_in_words(tmp_path):
    (tmp_path / "evil.json").write_text(json.dumps(TRAIT_DATA))
    data = read_trait_data(tmp_path / "evil.json")
    assert (data.name, data.high_pole, data.low_pole) == ("evil", "Be cruel in every reply.", "Be kind in every reply.")
    assert data.description == "Judge whether [answer] is cruel."


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"instruction": []}', '{"instruction": [{"pos": "x"}]}', '{"instruction": [{"pos": "", "neg": ""}]}']
)
def test_other_json_is_no_trait_data(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(VectorSetError, match="is not trait data of Persona Vectors") as caught:
        read_trait_data(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


class Malicious:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder),)


BAD_TENSORS = [
    (lambda: rows(LAYERS), r"has a row for the embeddings and one for each of the 4 blocks"),
    (lambda: rows(LAYERS + 2), "has a row for the embeddings"),
    (lambda: rows(LAYERS + 1, WIDTH + 1), "is 8 wide"),
    (lambda: torch.zeros(LAYERS + 1, WIDTH), "no direction that differs from zero"),
    (lambda: rows() / 0, "not finite"),
    (lambda: torch.ones(LAYERS + 1, WIDTH, dtype=torch.int64), "not finite"),
    (lambda: unit(0), "holds a tensor"),
    (dict, "holds a dict"),
    (lambda: [1, 2], "holds a list"),
    (lambda: {"layers.x": unit(0)}, "names no layer"),
    (lambda: {9: unit(0)}, "layers 0 to 3"),
    (lambda: {1: 3.0}, "a tensor is wanted"),
    (lambda: {"layers.1": {"other": 1}}, "a tensor is wanted"),
    (lambda: {"layers.1": {"steering_vector": unit(0), "steering_coefficient": "x"}}, "a tensor is wanted"),
    (lambda: {"trait_name": "../x", "direction": unit(0), "layer_idx": 1, "strength": 1.0}, "is not a trait name"),
]


@pytest.mark.parametrize(("content", "told"), BAD_TENSORS)
def test_tensors_that_fit_no_form_are_one_clear_line(tmp_path, content, told):
    torch.save(content(), tmp_path / "x.pt")
    with pytest.raises(VectorSetError, match=told) as caught:
        read_vectors(tmp_path / "x.pt", MODEL)
    assert "\n" not in str(caught.value)


def test_a_pickle_of_objects_is_refused_without_running_it(tmp_path):
    torch.save({"model_type": "llama", "directions": Malicious(tmp_path / "made")}, tmp_path / "x.pt")
    with pytest.raises(VectorSetError, match=r"never run\. From repeng: vector\.export_gguf"):
        read_vectors(tmp_path / "x.pt", MODEL)
    assert not (tmp_path / "made").exists()


def test_control_vectors_that_fit_no_form_are_one_clear_line(tmp_path):
    ones = np.ones(WIDTH)
    for i, (directions, told) in enumerate([
        ({}, "holds no direction.N"),
        ({0: ones}, "direction.0"),
        ({9: ones}, "layers 0 to 3"),
        ({1: np.ones(3)}, "is 8 wide"),
        ({1: ones * np.nan}, "not finite"),
    ]):  # fmt: skip
        with pytest.raises(VectorSetError, match=told) as caught:
            read_vectors(control_vector(tmp_path / f"{i}.gguf", directions), MODEL)
        assert "\n" not in str(caught.value)
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "3.gguf").read_bytes()[:40])
    with pytest.raises(VectorSetError, match="cannot be read as a GGUF control vector"):
        read_vectors(tmp_path / "cut.gguf", MODEL)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(VectorSetError, match=r"give the \.pt file that was made from it"):
        read_vectors(tmp_path / "x.json", MODEL)
    with pytest.raises(VectorSetError, match="cannot be read"):
        read_vectors(tmp_path / "gone.pt", MODEL)


def test_half_precision_zero_rows_and_other_names_for_the_same_kind(tmp_path):
    found = read_vectors(control_vector(tmp_path / "h.gguf", {1: np.zeros(WIDTH), 2: np.ones(WIDTH)}, dtype=np.float16), MODEL)
    assert list(found.directions) == [2]
    neox = replace(MODEL, architecture="gpt_neox")
    assert read_vectors(control_vector(tmp_path / "n.gguf", {1: np.ones(WIDTH)}, hint="gptneox"), neox).caution is None
    assert read_vectors(control_vector(tmp_path / "o.gguf", {1: np.ones(WIDTH)}, hint=None), MODEL).caution is None


def test_vectors_of_prompts_say_so(tmp_path):
    for read, told in (("prompt_last", True), ("prompt_avg", True), ("response_avg", False)):
        torch.save(rows(), tmp_path / f"evil_{read}_diff.pt")
        found = read_vectors(tmp_path / f"evil_{read}_diff.pt", MODEL)
        assert (found.trait, found.caution is not None) == ("evil", told)


def test_the_layer_nearest_to_half_the_depth_is_taken_and_one_that_is_not_there_refused(tmp_path):
    torch.save(rows(), tmp_path / "x.pt")
    found = read_vectors(tmp_path / "x.pt", MODEL)
    assert trait_entry(found, MODEL, "x", "high").reading.layer_idx == LAYERS // 2
    with pytest.raises(VectorSetError, match="no direction for layer 3; there: 0, 1, 2"):
        trait_entry(found, MODEL, "x", "high", layer=3)
    with pytest.raises(VectorSetError, match="not a trait name; give one with --trait"):
        trait_entry(found, MODEL, "Very Evil", "high")


def test_a_vector_over_several_layers_is_no_steering_vector(tmp_path):
    wide = replace(vector(), direction=unit(0, 2), metadata={"layers": [1, 2]})
    save_tutorial({"warmth": wide}, tmp_path, "tiny-chat")
    with pytest.raises(VectorSetError, match="over 2 layers"):
        read_vectors(tmp_path / "warmth_vector.pt", MODEL)
