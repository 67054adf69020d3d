"""Which model it is: told by the weights, whatever the dtype that they are loaded in."""

import torch

from demeanor.model.identity import fingerprint
from demeanor.model.pretrained import cast


def test_a_bfloat16_checkpoint_has_one_fingerprint_in_every_dtype(make_model):
    model = make_model("llama")
    with torch.no_grad():
        model.lm_head.weight *= 1e-6  # among numbers that float16 holds only roughly
    found = [fingerprint(cast(model, dtype)) for dtype in (torch.bfloat16, torch.float32, torch.float16)]
    assert found[0] == found[1] == found[2]


def test_other_weights_have_another_fingerprint(make_model):
    model = make_model("llama")
    before = fingerprint(model)
    with torch.no_grad():
        model.lm_head.weight += 0.01
    assert fingerprint(model) != before
