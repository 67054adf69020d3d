"""A PEFT adapter as a model: merged into its base, told apart from it and from other adapters, or refused in one line."""

import importlib.util
import json
from dataclasses import replace

import peft
import pytest
import safetensors.torch
import torch
from artifacts import vector_set

from demeanor.errors import MissingExtraError, ModelError, ModelNotFoundError, WrongModelError
from demeanor.model import adapters, loading
from demeanor.model.identity import identify
from demeanor.model.loading import full_name, load_model, locate, whole
from demeanor.vectors import VectorSet

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft, where an adapter is made


def adapt(model, folder, size=0.02):
    """A LoRA whose weights are drawn, saved to a folder; gives the model with it, unmerged."""
    made = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"]))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * size)
    made.save_pretrained(folder)
    return made


@pytest.fixture
def base(tmp_path, make_model, tokenizer):
    make_model("llama").save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path, base, make_model):
    """A folder with an adapter whose config names the base's folder."""
    adapt(make_model("llama"), tmp_path / "adapter")
    name_base(tmp_path / "adapter", str(base))
    return tmp_path / "adapter"


def name_base(folder, base):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))


def load(name):
    return load_model(name, device="cpu", dtype="float32")


def test_an_adapter_is_merged_into_the_base_that_its_config_names(base, adapter, make_model, tmp_path):
    model, tokenizer = load(adapter)
    unmerged = adapt(make_model("llama"), tmp_path / "again").eval()
    ids = torch.arange(20)[None]
    torch.testing.assert_close(model(ids).logits, unmerged(ids).logits)
    assert not torch.allclose(model(ids).logits, load(base).model(ids).logits)
    assert not any("lora" in name for name, _ in model.named_modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert tokenizer.chat_template == load(base).tokenizer.chat_template


def test_both_are_named_and_the_name_loads_the_same_again(base, adapter):
    first = identify(*load(adapter))
    assert first.name == f"{base} + {adapter}" == full_name(adapter)
    assert identify(*load(first.name)) == first


def test_another_copy_of_the_base_may_be_named(tmp_path, base, adapter):
    name_base(adapter, "nobody/nothing-here")
    with pytest.raises(ModelNotFoundError, match=r"the base model of the adapter .* is missing: .*name both: --model 'BASE \+ ") as caught:
        load(adapter)
    assert "\n" not in str(caught.value)
    assert identify(*load(f"{base} + {adapter}")).name == f"{base} + {adapter}"


def test_a_small_adapter_moves_the_fingerprint(tmp_path, base, make_model):
    plain = identify(*load(base))
    assert plain.adapter == ""
    for size in (0.02, 0.004):  # a product of 0.004 * 0.004 is a thousandth of a weight's usual size
        folder = tmp_path / f"adapter-{size}"
        adapt(make_model("llama"), folder, size=size)
        name_base(folder, str(base))
        assert identify(*load(folder)).fingerprint != plain.fingerprint, size


def test_what_slips_through_the_sample_of_weights_is_told_by_the_adapter_s_own_hash(tmp_path, base, make_model):
    adapt(make_model("llama"), tmp_path / "tiny", size=1e-6)
    name_base(tmp_path / "tiny", str(base))
    mine, bare = identify(*load(tmp_path / "tiny")), identify(*load(base))
    assert mine.fingerprint == bare.fingerprint
    made = replace(vector_set(), model=mine)
    assert made.check_model(mine) == []
    with pytest.raises(WrongModelError, match=f"another adapter: {mine.adapter[:8]} then, none now"):
        made.check_model(bare)
    with pytest.raises(WrongModelError, match="another adapter: none then"):
        replace(vector_set(), model=bare).check_model(mine)


def test_the_hash_is_of_the_adapter_not_of_where_it_lies(tmp_path, base, adapter, make_model):
    before = adapters.fingerprint(adapter)
    name_base(adapter, "somewhere/else")
    assert adapters.fingerprint(adapter) == before
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 8}))
    assert adapters.fingerprint(adapter) != before


def test_a_vector_set_keeps_the_adapter_and_one_without_has_no_such_field(tmp_path, base, adapter):
    mine = identify(*load(adapter))
    replace(vector_set(), model=replace(vector_set().model, adapter=mine.adapter)).save(tmp_path / "set")
    assert VectorSet.load(tmp_path / "set").model.adapter == mine.adapter
    assert "adapter" not in json.loads((vector_set().save(tmp_path / "plain") / "manifest.json").read_text())["model"]


def pickled(folder):
    torch.save({}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def emptied(folder):
    safetensors.torch.save_file({}, folder / "adapter_model.safetensors")


def misfit(folder):
    weights = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    safetensors.torch.save_file({name: w[:1].contiguous() for name, w in weights.items()}, folder / "adapter_model.safetensors")


def baseless(folder):
    name_base(folder, None)


def no_config(folder):
    (folder / "adapter_config.json").write_text("[]")


def unknown_kind(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "NONESUCH"}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (pickled, "holds adapter_model.bin, a pickle; save it again with safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "holds no weights; save it again"),
        (emptied, "could not be merged into .*lacks weights"),
        (misfit, "could not be merged into"),
        (unknown_kind, "could not be merged into"),
        (baseless, r"names no base model .*name it yourself: --model 'BASE \+ "),
        (no_config, "names no base model"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_one_clear_line(adapter, damage, told):
    damage(adapter)
    with pytest.raises(ModelError, match=told) as caught:
        load(adapter)
    assert "\n" not in str(caught.value)


def test_prompts_that_were_tuned_are_no_weights_to_merge(tmp_path, base, make_model):
    made = peft.get_peft_model(make_model("llama"), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    made.save_pretrained(tmp_path / "prompt")
    name_base(tmp_path / "prompt", str(base))
    with pytest.raises(ModelError, match="a PROMPT_TUNING adapter has no weights that could be merged"):
        load(tmp_path / "prompt")


def test_without_peft_the_line_says_how_to_install_it(adapter, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find_spec(name, *rest))
    monkeypatch.setattr(loading, "from_folder", lambda *_: pytest.fail("the base was loaded first"))
    with pytest.raises(MissingExtraError, match=r"pip install 'demeanor\[lora\]'"):
        load(adapter)


def test_an_adapter_on_quantised_weights_and_one_that_is_none_are_refused(base, adapter):
    with pytest.raises(ModelError, match="leave --quantization out"):
        load_model(adapter, "8bit", device="cpu")
    with pytest.raises(ModelError, match="is not an adapter"):
        load(f"{base} + {base}")
    with pytest.raises(ModelError, match="is an adapter itself"):
        load(f"{adapter} + {adapter}")


def test_the_tokenizer_that_an_adapter_brings_is_its_own(adapter, bos_tokenizer):
    bos_tokenizer.save_pretrained(adapter)
    assert load(adapter).tokenizer.chat_template == bos_tokenizer.chat_template


def test_an_adapter_counts_as_whole_and_is_located(adapter):
    assert whole(adapter)
    assert locate(str(adapter)) == adapter
    (adapter / "adapter_model.safetensors").unlink()
    assert not whole(adapter)
