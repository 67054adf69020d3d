"""The tutorial's loop: one text at a time, every layer's hidden states kept, LM head computed, mean over the response."""

import torch
from common import LAYER, load, serve


def measure(state, rows):
    model, tokenizer = state
    found = []
    for row in rows:
        inputs = tokenizer(row["text"], return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            outputs = model(**inputs, output_hidden_states=True)
        start, end = row["span"]
        found.append(outputs.hidden_states[LAYER + 1][0, start:end].float().mean(0))
    return found


serve(load, measure)
