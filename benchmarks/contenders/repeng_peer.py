"""repeng: its `batched_get_hiddens` at one layer, batches of 32; it reads the last token only, so texts end with the response."""

from common import LAYER, load, serve
from repeng.extract import batched_get_hiddens


def measure(state, rows):
    model, tokenizer = state
    tokenizer.padding_side = "right"
    return batched_get_hiddens(model, tokenizer, [r["until_end"] for r in rows], [LAYER], 32)[LAYER]


serve(load, measure)
