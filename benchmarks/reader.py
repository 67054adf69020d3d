"""How fast is reading, against the machine's floor, the tutorial's loop and other libraries? Side by side, in one run.

    python benchmarks/reader.py [--runs 5] [--peers steering-vectors repeng saklas] [--environments DIR]

400 conversations of 20 to 400 tokens. Each contender is a process of its own (benchmarks/contenders/) that waits while another
runs; a run is a fifth of the corpus, taken by all contenders in turn, and a ratio is taken within a run. Peers are
installed each into an environment of its own, the first time (some minutes, some gigabytes). Before anything is timed, the
activations of each contender are compared with Demeanor's.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from contenders import score_many
from contenders.common import LAYER

from demeanor import ActivationReader, extract_vectors, load_model, traits
from demeanor.model import embedded

HERE = Path(__file__).parent
PEERS = {"steering-vectors": "steering_vectors_peer.py", "repeng": "repeng_peer.py", "saklas": "saklas_peer.py"}
ROWS = 400


class Contender:
    """A waiting process; `run` has it work on some rows and gives what it answers."""

    def __init__(self, python, script, rows, model, dtype):
        self.script = HERE / "contenders" / script
        self.process = subprocess.Popen(
            [python, str(self.script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.ask({"rows": str(rows), "model": str(model), "dtype": dtype})

    def ask(self, question):
        """Its answer to a question, one line of JSON each."""
        print(json.dumps(question), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.script} ended: run it by hand to see why")
        return json.loads(line)

    def run(self, rows, values=False):
        """Have it take these rows: how long that took, its peak memory, and the activations where asked."""
        return self.ask({"run": rows, "values": values})


def corpus(reader):
    """Conversations of the packs, one pole of each pair, some joined to a longer one; 20 to 400 tokens each."""
    rng = random.Random(0)
    single = [e.conversation.to_record() for t in traits.load_many(["all"]) if t.reads == "response" for e in t.examples()[::2]]
    rng.shuffle(single)
    joined = [[*single[i], *single[i + 1]] for i in range(0, len(single) // 3, 2)]
    mixed = single[len(single) // 3 :] + joined
    rng.shuffle(mixed)
    rows = []
    for messages in mixed:
        (encoded,), _ = reader._encode([messages])
        start, end = encoded.spans[-1]
        if 20 <= len(encoded.ids) <= 400:
            before = encoded.text.rindex(messages[-1]["content"].strip()) + len(messages[-1]["content"].strip())
            rows.append(
                {"messages": messages, "text": encoded.text, "until_end": encoded.text[:before], "ids": encoded.ids, "span": [start, end]}
            )
    return rows[:ROWS]


def environment(name, folder):
    """The Python of a peer's environment, made where it is not there yet."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        print(f"installing {name} into {folder / name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"torch=={torch.__version__.split('+')[0]}", name], check=True)
    return str(python)


def version(python, name):
    return subprocess.check_output([python, "-c", f"from importlib.metadata import version; print(version('{name}'))"], text=True).strip()


def agreement(contender, state, rows, pooling):
    """The lowest cosine between a contender's activations and Demeanor's, over 20 conversations."""
    theirs = np.array(contender.run(list(range(20)), values=True)["values"])
    ours = np.array(score_many.values(state, rows[:20], pooling))
    return float(((theirs * ours).sum(1) / np.linalg.norm(theirs, axis=1) / np.linalg.norm(ours, axis=1)).min())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--environments", type=Path, default=HERE / ".environments")
    arguments = parser.parse_args()
    loaded = load_model()
    reader = ActivationReader(*loaded)
    rows = corpus(reader)
    lengths = sorted(len(r["ids"]) for r in rows)
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as scratch:
        file, vectors = Path(scratch, "rows.jsonl"), Path(scratch, "vectors")
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))
        made = extract_vectors(reader, traits.load_many(["all"]), layers=range(11, 18)).vectors
        made.save(vectors)
        state = score_many.prepare(vectors, dtype)
        model = embedded.ensure()
        contenders = {
            f"floor ({dtype})": Contender(sys.executable, "floor.py", file, model, dtype),
            f"demeanor score_many ({dtype})": Contender(sys.executable, "score_many.py", file, vectors, dtype),
            f"tutorial's loop ({dtype})": Contender(sys.executable, "tutorial.py", file, model, dtype),
            "tutorial's loop (float32)": Contender(sys.executable, "tutorial.py", file, model, "float32"),
        }
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        for name in arguments.peers:
            python = environment(name, arguments.environments)
            versions[name] = f"{version(python, name)} on transformers {version(python, 'transformers')}"
            contenders[f"{name} ({dtype})"] = Contender(python, PEERS[name], file, model, dtype)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; {versions}")
        middle = lengths[len(lengths) // 2]
        print(f"{len(rows)} conversations, {sum(lengths)} tokens, {lengths[0]} to {lengths[-1]}, median {middle}; layer {LAYER}")
        for name, contender in contenders.items():
            if "floor" in name or "demeanor" in name:
                contender.run(list(range(40)))
                continue
            print(f"agreement of {name}: cosine {agreement(contender, state, rows, 'last' if 'repeng' in name else 'mean'):.5f}")
        taken, peak = {name: [] for name in contenders}, {}
        for run in range(arguments.runs):
            chosen = list(range(run % 5, len(rows), 5))
            order = list(contenders)
            random.Random(run).shuffle(order)
            for name in order:
                answer = contenders[name].run(chosen)
                taken[name].append(answer["seconds"] / sum(len(rows[i]["ids"]) for i in chosen))
                peak[name] = answer["peak_mb"]
    floor, ours = (next(v for k, v in taken.items() if word in k) for word in ("floor", "score_many"))
    print(f"\n{'':34}{'tokens/s':>10}{'of the floor':>14}{'range':>16}{'score_many is':>15}{'peak MB':>9}")
    for name, seconds in taken.items():
        of_floor = [f / s for f, s in zip(floor, seconds, strict=True)]
        times = statistics.median(s / o for s, o in zip(seconds, ours, strict=True))
        print(
            f"{name:34}{1 / statistics.median(seconds):10.0f}{statistics.median(of_floor):14.2f}"
            f"{f'{min(of_floor):.2f} to {max(of_floor):.2f}':>16}{f'{times:.1f} times':>15}{peak[name]:9.0f}"
        )


if __name__ == "__main__":
    main()
