"""Shared fixtures: tokenizers made in memory and tiny random models of many architectures, so that no test needs a download."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from threadpoolctl import threadpool_limits
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from demeanor.testing.tiny import CHATML, LAYERS, SENTENCES, SETTINGS, VOCABULARY, tiny_tokenizer

INST = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
REFUSE_SYSTEM = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% endfor %}"
NO_SYSTEM = REFUSE_SYSTEM + CHATML


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Linear algebra in one thread: on small arrays and a busy machine, several wait for each other a hundred times longer.

    So does torch, where other workers run tests at the same time.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on the real model go to one worker, which loads it once; those that load it in a process of their own may go to another."""
    for item in items:
        if item.get_closest_marker("model"):
            item.add_marker(pytest.mark.xdist_group("notebooks" if "notebook" in item.nodeid else "model"))
    # the long groups begin at once, each in a worker; what is left fills the gaps
    items.sort(key=lambda item: (item.get_closest_marker("model") is None, "notebook" not in item.nodeid))


@pytest.fixture
def smaller_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sixth pair of the built-in packs, for code that shows how to extract and not how well."""
    from dataclasses import replace

    import demeanor
    from demeanor import traits
    from demeanor.traits import packs

    def smaller(trait: Any) -> Any:
        return replace(trait, pairs=trait.pairs[::6], high_trait_prompts=[], low_trait_prompts=[])

    load = packs.load
    monkeypatch.setattr(traits, "load", lambda name: smaller(load(name)))
    monkeypatch.setattr(demeanor, "ALL_TRAITS", [smaller(trait) for trait in demeanor.ALL_TRAITS], raising=False)


@pytest.fixture(scope="session")
def embedded() -> Any:
    """The embedded model and its tokenizer, loaded once; leave them as they are."""
    from demeanor import load_model

    return load_model()


@pytest.fixture(scope="session")
def embedded_scorer(embedded: Any) -> Any:
    """The embedded model with the built-in vectors."""
    from demeanor import Scorer, VectorSet
    from demeanor.model.reader import ActivationReader
    from demeanor.vectors import built_in

    return Scorer(ActivationReader(*embedded), VectorSet.load(built_in.FOLDER))


@pytest.fixture
def loaded_once(embedded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands take the embedded model that is loaded already, where they ask for it as it comes."""
    from demeanor.model import loading
    from demeanor.model.embedded import NAME

    def load(name: Any = NAME, quantization: Any = None, device: str = "auto", dtype: Any = "auto") -> Any:
        own = (name, quantization, device, dtype) == (NAME, None, "auto", "auto")
        return embedded if own else load_model(name, quantization, device, dtype)

    load_model = loading.load_model
    monkeypatch.setattr(loading, "load_model", load)


class Done(NamedTuple):
    """What a command ended with."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Done]:
    """Run `demeanor ARGS` in this process, in `cwd` or an empty folder, with `text` as standard input."""

    def call(*arguments: Any, cwd: Path | None = None, text: str = "") -> Done:
        from demeanor.cli.main import main

        with monkeypatch.context() as patch:
            patch.chdir(cwd or tmp_path)
            patch.setenv("COLUMNS", "100")
            patch.setattr(sys, "argv", ["demeanor", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
            out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code
        return Done(code if isinstance(code, int) else 0 if code is None else 1, *(f.buffer.getvalue().decode() for f in (out, err)))

    return call


@pytest.fixture(scope="session")
def talks() -> list[dict[str, Any]]:
    """The forty conversations of the contracts."""
    from contracts_tools import conversations

    return conversations()


@pytest.fixture(scope="session")
def exact_scorer() -> Any:
    """The embedded model in float32, in which paths that pack or cut differently still agree to about six digits."""
    from contracts_tools import BUILT_IN

    from demeanor import ActivationReader, Scorer, VectorSet, load_model

    return Scorer(ActivationReader(*load_model(dtype="float32")), VectorSet.load(BUILT_IN))


@pytest.fixture(scope="session")
def readings(exact_scorer: Any, talks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each conversation's reading by `Scorer.score`, as plain data, by name."""
    return {talk["name"]: exact_scorer.score({"messages": talk["messages"]}).to_record() for talk in talks}


@cache
def _metaspace() -> str:
    """A tokenizer of sentencepiece's kind as its JSON: "▁" for a space, bytes for characters that it does not know."""
    letters = sorted({c for s in SENTENCES for c in s.replace(" ", "▁")} | {"▁"})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    merges = [("▁", "I"), ("▁", "y"), ("▁y", "o"), ("▁yo", "u"), ("h", "e"), ("▁", "t"), ("e", "r"), ("i", "n")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return str(tokenizer.to_str())


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """The byte-level tokenizer with any template: make_tokenizer(template, padding_side=...)."""
    return tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, ChatML."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def bos_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level; the template itself writes the BOS."""
    return tiny_tokenizer("{{ bos_token }}" + CHATML)


@pytest.fixture(scope="session")
def no_system_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level; the template raises at a system message."""
    return tiny_tokenizer(NO_SYSTEM)


@pytest.fixture(scope="session")
def base_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, without a template: a base model's."""
    return tiny_tokenizer(None)


@pytest.fixture(scope="session")
def inst_tokenizer() -> PreTrainedTokenizerFast:
    """Sentencepiece's kind, with [INST] and roles that must alternate."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_metaspace()), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = INST
    return tokenizer


_GEMMA: dict[str, Any] = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}

# name -> (the model's class, the config's class, what its config has beyond the common)
_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {"sliding_window": 16}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {"head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", _GEMMA),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", _GEMMA),
    "gemma3-multimodal": ("Gemma3ForConditionalGeneration", "Gemma3Config", _GEMMA),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {}),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {}),
    "lfm2": ("Lfm2ForCausalLM", "Lfm2Config", {"layer_types": ["conv", "full_attention", "conv"]}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {"num_local_experts": LAYERS, "num_experts_per_tok": 2}),
}


def _config(name: str, changes: dict[str, Any]) -> Any:
    _, kind, extra = _MODELS[name]
    settings = SETTINGS | extra | changes
    if name == "gpt2":
        renamed = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
        renamed |= {"max_position_embeddings": "n_positions", "intermediate_size": "n_inner"}
        settings = {renamed.get(k, k): v for k, v in settings.items() if k != "num_key_value_heads"}
    if name == "gpt-neox":
        settings.pop("num_key_value_heads")
    if name == "gemma3-multimodal":  # its vision tower has as many layers as its decoder, to tempt the search for blocks
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
        tokens: dict[str, Any] = {"image_token_id": VOCABULARY - 1, "boi_token_id": VOCABULARY - 2, "eoi_token_id": VOCABULARY - 3}
        images: dict[str, Any] = {"vision_config": vision | {"image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4}
        return transformers.Gemma3Config(text_config=settings, **images, **tokens)
    return getattr(transformers, kind)(**settings)


def _build(name: str, **changes: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, name)))
        model = getattr(transformers, _MODELS[name][0])(_config(name, changes))
    return model.eval()


_built = cache(_build)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """A new tiny model: make_model("llama", max_position_embeddings=32)."""
    return _build


@pytest.fixture(params=list(_MODELS))
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny random model of each architecture in turn; shared, so leave it as it is."""
    return _built(request.param)


@pytest.fixture
def llama() -> PreTrainedModel:
    """A tiny Llama of three layers, width 32; shared, so leave it as it is."""
    return _built("llama")


@pytest.fixture
def longrope() -> PreTrainedModel:
    """A tiny Phi-3 with LongRoPE: rotary frequencies are others, for all tokens, from beyond 64 tokens on; shared."""
    return _longrope()


@cache
def _longrope() -> PreTrainedModel:
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 8.0, 32.0]}
    return _build("phi3", original_max_position_embeddings=64, rope_parameters=rope)
