"""saklas: the hooks by which it captures at one layer, batches of 16 as they come, mean over the response."""

import torch
from common import LAYER, batches, load, serve
from saklas.core.capture import _capture_all_hidden_states
from saklas.core.model import get_layers


def measure(state, rows):
    model, tokenizer = state
    tokenizer.padding_side = "right"
    layers = get_layers(model)
    found = []
    for batch in batches(rows, 16):
        inputs = tokenizer([r["text"] for r in batch], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            hidden = _capture_all_hidden_states(
                model, layers, inputs["input_ids"], attention_mask=inputs["attention_mask"], layer_indices=[LAYER]
            )[LAYER]
        found += [hidden[i, slice(*r["span"])].float().mean(0) for i, r in enumerate(batch)]
    return found


serve(load, measure)
