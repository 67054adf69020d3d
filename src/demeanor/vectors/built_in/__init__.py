"""The vector set that comes with the package: the built-in traits on the embedded model, made by `make vectors`.

It is used wherever no other set is named, so that nothing has to be extracted first. Its manifest names what made it (the
packs' hashes, the recipe, the model's fingerprint), and a test compares these with what is there now. Beside it lie replies to see it
at work on.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from demeanor.data.yaml_files import read_yaml
from demeanor.errors import VectorSetError
from demeanor.vectors.vector_set import VectorSet

FOLDER = Path(__file__).parent / "smollm2-135m-instruct"


def load() -> VectorSet:
    """The built-in set."""
    return VectorSet.load(FOLDER)


class Example(NamedTuple):
    """A reply at one pole of a trait. `kind` says in a word or two what it is like."""

    trait: str
    prompt: str
    kind: str
    reply: str
    high: bool

    def to_record(self) -> dict[str, str]:
        """As a row that can be scored."""
        return {"prompt": self.prompt, "response": self.reply}


def examples() -> list[Example]:
    """Two replies to one prompt for some of the traits, the one at the high pole first."""
    written = read_yaml(Path(__file__).parent / "examples.yaml", VectorSetError)
    return [
        Example(trait, example["prompt"], kind, reply, high=place == 0)
        for trait, example in written.items()
        for place, (kind, reply) in enumerate(example["replies"].items())
    ]
