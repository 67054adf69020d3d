"""The scores themselves: z of the forty conversations by every built-in trait, as they were when the goldens were made."""

import json

import pytest
from contracts_tools import GOLDENS, equals_golden, how_to_renew, renewing

pytestmark = pytest.mark.model
TOLERANCE = 0.01  # of z: other processors round otherwise, even in float32


def test_no_score_of_a_built_in_trait_has_moved(readings):
    found = {name: {trait: round(s["z"], 4) for trait, s in record["scores"].items()} for name, record in readings.items()}
    if renewing():
        equals_golden("scores.json", found)
    stored = json.loads((GOLDENS / "scores.json").read_text())
    assert stored.keys() == found.keys()
    assert all(stored[name].keys() == found[name].keys() for name in stored)
    moved = [
        f"{name}, {trait}: z {z:+.4f} became {found[name][trait]:+.4f}"
        for name, scores in stored.items()
        for trait, z in scores.items()
        if abs(found[name][trait] - z) > TOLERANCE
    ]
    if moved:
        pytest.fail("\n".join([how_to_renew("scores.json"), *moved]), pytrace=False)
