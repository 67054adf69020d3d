"""steering-vectors: its `record_activations` at one layer, batches of 16 as they come, mean over the response."""

import torch
from common import LAYER, batches, load, serve
from steering_vectors import record_activations


def measure(state, rows):
    model, tokenizer = state
    tokenizer.padding_side = "right"
    found = []
    for batch in batches(rows, 16):
        inputs = tokenizer([r["text"] for r in batch], return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad(), record_activations(model, layer_nums=[LAYER]) as recorded:
            model(**inputs)
        hidden = recorded[LAYER][0]
        found += [hidden[i, slice(*r["span"])].float().mean(0) for i, r in enumerate(batch)]
    return found


serve(load, measure)
