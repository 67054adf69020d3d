"""What every contender of benchmarks/reader.py shares: it serves runs over standard input and output, a line each.

A contender gives `load(folder, dtype)` and gets `measure(rows)` timed, whose result is either activations [rows, hidden] at LAYER or
nothing. Standard library, torch and transformers only: peers run in environments without Demeanor.
"""

import json
import sys
import time

LAYER = 15  # 0-based decoder block


def serve(prepare, measure):
    """Read {"rows": path} and {"run": [indices]} lines; answer with seconds, and with activations where asked."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints must not get between the lines
    rows, state = [], None
    for line in sys.stdin:
        ask = json.loads(line)
        if "rows" in ask:
            with open(ask["rows"]) as file:
                rows = [json.loads(r) for r in file]
            state = prepare(ask["model"], ask["dtype"])
            answer: dict[str, object] = {"ready": True}
        else:
            chosen = [rows[i] for i in ask["run"]]
            started = time.perf_counter()
            found = measure(state, chosen)
            answer = {"seconds": time.perf_counter() - started}
            if ask.get("values"):
                answer["values"] = None if found is None else [[round(float(x), 6) for x in row] for row in found]
            answer["peak_mb"] = peak_mb()
        print(json.dumps(answer), file=out, flush=True)


def peak_mb():
    """Peak memory of the process, its own; what getrusage says begins with the parent's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def load(folder, dtype):
    """A saved model and its tokenizer, on the CPU, with transformers 4 as well as 5."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    old = int(transformers.__version__.split(".")[0]) < 5
    options = {"torch_dtype" if old else "dtype": getattr(torch, dtype)}
    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    if old:  # which knows the base of the rotary positions by another name
        options["rope_theta"] = config["rope_parameters"]["rope_theta"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    tokenizer.pad_token_id = config["pad_token_id"]
    return model, tokenizer


def batches(rows, size):
    """The rows in the order given, `size` at a time, as a library does that does not sort them."""
    return [rows[at : at + size] for at in range(0, len(rows), size)]
