"""Decoder blocks are found in every architecture, and layer k's output is `hidden_states[k + 1]` of transformers."""

import pytest
import torch
from torch import nn

from demeanor.errors import BlocksNotFoundError
from demeanor.model.blocks import decoder_blocks


def block_outputs(model, blocks, ids):
    """Each block's output, by plain hooks."""
    outputs, handles = {}, []
    for i, block in enumerate(blocks):
        take = lambda _m, _a, out, i=i: outputs.__setitem__(i, out[0] if isinstance(out, tuple) else out)  # noqa: E731
        handles.append(block.register_forward_hook(take))
    with torch.no_grad():
        result = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    for handle in handles:
        handle.remove()
    return [outputs[i] for i in range(len(blocks))], result.hidden_states


def test_the_blocks_are_those_whose_outputs_are_the_hidden_states(any_model):
    blocks = decoder_blocks(any_model)
    outputs, hidden = block_outputs(any_model, blocks, torch.arange(3, 23)[None])
    assert len(outputs) == len(hidden) - 1 == any_model.config.get_text_config().num_hidden_layers
    for layer, output in enumerate(outputs[:-1]):
        torch.testing.assert_close(output, hidden[layer + 1], rtol=0, atol=0)


def test_blocks_can_be_named_by_their_path(llama):
    assert decoder_blocks(llama, "model.layers") is llama.model.layers


@pytest.mark.parametrize("path", ["model.blocks", "model.embed_tokens", "nowhere"])
def test_a_path_that_leads_to_no_list_is_refused_with_the_choices(llama, path):
    with pytest.raises(BlocksNotFoundError, match=r"model\.layers \(3\)") as error:
        decoder_blocks(llama, path)
    assert path in str(error.value)


def test_blocks_that_cannot_be_found_are_asked_for_by_name(make_model):
    model = make_model("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(BlocksNotFoundError, match=r"7 decoder blocks .*blocks=.*model\.layers \(3\)"):
        decoder_blocks(model)
    assert decoder_blocks(model, "model.layers") is model.model.layers


def test_a_list_of_the_same_length_outside_the_decoder_is_not_taken(make_model):
    model = make_model("llama")
    model.heads = nn.ModuleList(nn.Linear(4, 4) for _ in model.model.layers)
    assert decoder_blocks(model) is model.model.layers


def test_lists_inside_a_block_are_neither_taken_nor_offered(make_model):
    model = make_model("llama")
    for block in model.model.layers:
        block.experts = nn.ModuleList(nn.Linear(4, 4) for _ in model.model.layers)
    assert decoder_blocks(model) is model.model.layers
    with pytest.raises(BlocksNotFoundError, match=r"lists in this model: model\.layers \(3\)$"):
        decoder_blocks(model, "nowhere")
