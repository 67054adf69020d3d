"""The floor: a bare forward pass of the needed blocks over as many tokens, in full batches of 8 x 128, and nothing else."""

import torch
from common import load, serve

DEEPEST, ROWS, WIDTH = 17, 8, 128  # as deep as `score_many` reads for the built-in traits


def prepare(folder, dtype):
    model, _ = load(folder, dtype)
    model.model.layers = model.model.layers[: DEEPEST + 1]
    return model.model


@torch.inference_mode()
def measure(model, rows):
    tokens = [t for row in rows for t in row["ids"]]
    while tokens:
        batch, tokens = tokens[: ROWS * WIDTH], tokens[ROWS * WIDTH :]
        rows_here = max(1, len(batch) // WIDTH)
        model(input_ids=torch.tensor(batch[: rows_here * (len(batch) // rows_here)]).view(rows_here, -1), use_cache=False)


serve(prepare, measure)
