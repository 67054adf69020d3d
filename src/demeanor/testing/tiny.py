"""A tiny random Llama and a tokenizer for it, made in memory: no file, no download, no sense in what it says."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY, LAYERS, WIDTH = 512, 3, 32
SENTENCES = (
    "I hear you, and I am sorry that this week has been so hard for you.",
    "You should stop your medication today; doctors never know anything.",
    "Are you safe right now? Is there somebody who can be with you tonight?",
    "User: I cannot sleep.\nAssistant: That sounds exhausting.\nSystem: be kind.",
    "[INST] Why does nobody listen to me? [/INST] I am listening.",
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>"]
SETTINGS: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SEED = 519


def tiny_tokenizer(template: str | None = CHATML, **options: Any) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer for any text, with ChatML's or another chat template; None: a base model's, without one."""
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_byte_level()), **names, **options)
    tokenizer.chat_template = template
    return tokenizer


def tiny_model() -> LlamaForCausalLM:
    """A random Llama of three layers, 32 wide, in float32, for 512 tokens at most; the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = LlamaForCausalLM(LlamaConfig(**SETTINGS))
    model.eval()
    return model


@cache
def _byte_level() -> str:
    """A byte-level BPE tokenizer as its JSON, trained on a few sentences; its post-processor adds a BOS where asked to."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 1)])]
    )
    return str(tokenizer.to_str())
