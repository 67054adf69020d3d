"""The vector set that comes with the package: the built-in traits on the embedded model, made by `make vectors`.

It is used wherever no other set is named, so that nothing has to be extracted first. Its manifest names what made it (the
packs' hashes, the recipe, the model's fingerprint), and a test compares these with what is there now.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "smollm2-135m-instruct"
