"""Make the vector set that comes with the package: the built-in packs on the embedded model. `make vectors` runs it.

    python scripts/make_vectors.py [--output FOLDER]

The vectors are extracted in float32, which every processor has. Then held-out replies (the packs' test pairs, and everyday talk
that nothing was fitted to) are judged in float32 and in bfloat16, and the card records how far scores move and how many of the
monitor's decisions change. Takes some 15 minutes on two cores, several times that where bfloat16 is not native.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from demeanor import Monitor, Scorer, load_model
from demeanor.cli import console
from demeanor.conversation import Conversation, Message
from demeanor.extraction.built_in import extract_built_in
from demeanor.model.reader import ActivationReader
from demeanor.traits import load_many
from demeanor.vectors import built_in

EVERYDAY = Path(__file__).parent.parent / "benchmarks" / "everyday.yaml"


def held_out(traits):
    """Replies with what was said before them: the packs' test pairs, and every reply of the everyday conversations."""
    found = [e.conversation for trait in traits if trait.reads == "response" for e in trait.examples("test")]
    for talk in yaml.safe_load(EVERYDAY.read_text(encoding="utf-8"))["conversations"]:
        messages = [Message(role, text.strip()) for said in talk["messages"] for role, text in said.items()]
        found += [Conversation(tuple(messages[: i + 1])) for i, m in enumerate(messages) if m.role == "assistant"]
    return found


def judged(vectors, dtype, replies):
    """Each reply's z on all traits, NaN where the user's side is empty [replies, traits], and the default policy's action."""
    model, tokenizer = load_model(dtype=dtype)
    scores, actions = [], []
    with console.stages() as stage, Monitor(Scorer(ActivationReader(model, tokenizer), vectors), enforce=False) as monitor:
        step = stage(f"judging in {dtype}", len(replies))
        for number, reply in enumerate(replies):
            decision = monitor.session(str(number), Conversation(reply.messages[:-1])).check(reply.messages[-1].content)
            held = decision.reading.scores if decision.reading else {}
            scores.append([held[name].z if name in held else np.nan for name in vectors.traits])
            actions.append(decision.action)
            step(1)
    return np.array(scores), np.array(actions)


def main():
    """Extract, compare the dtypes, save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--output", type=Path, default=built_in.FOLDER)
    output = arguments.parse_args().output
    traits = load_many(["all"])
    reader = ActivationReader(*load_model(dtype="float32"))
    with console.stages() as stage:
        vectors = extract_built_in(reader, stage).vectors
    del reader
    replies = held_out(traits)
    (own, decided), (other, decided_other) = (judged(vectors, dtype, replies) for dtype in ("float32", "bfloat16"))
    moved = np.abs(own - other)[~np.isnan(own)]
    found = {
        "replies": len(replies),
        "largest_z": round(float(moved.max()), 3),
        "median_z": round(float(np.median(moved)), 4),
        "decisions": int((decided != decided_other).sum()),
    }
    counts = {str(action): int(n) for action, n in zip(*np.unique(decided, return_counts=True), strict=True)}
    print(f"{len(replies)} replies; in float32: {counts}; in bfloat16: {found}")
    print(f"saved in {replace(vectors, dtypes={'bfloat16': found}).save(output)}")


if __name__ == "__main__":
    main()
