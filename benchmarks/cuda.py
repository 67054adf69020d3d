"""Reading with a 7B-shaped model on a CUDA device: tokens per second against the floor, and as a share of the matrix rate.

    python benchmarks/cuda.py [--quantization 8bit] [--runs 5]
    python benchmarks/cuda.py --device cpu --layers 4 --width 256 --rows 40      # a rehearsal, to see that it runs

A Mistral with random weights in bfloat16 (or in 8-bit by bitsandbytes); the embedded model's tokenizer; conversations of the packs.
The floor is a bare pass of the needed blocks over as many tokens in full batches of 64 x 512. The matrix rate is measured on products
of the model's own width. During reading, torch is told to raise an error on any operation that waits for the device, which it
does only where results are taken from it.
"""

import argparse
import statistics
import time

import torch
from transformers import BitsAndBytesConfig, MistralConfig, MistralForCausalLM

from demeanor import ActivationReader, load_model, traits
from demeanor.model import batches as batches_module
from demeanor.model.hooks import capture
from demeanor.model.packing import Job


def random_mistral(layers, width, vocabulary, device, quantization):
    """The shape of Mistral-7B by default, weights drawn at random."""
    config = MistralConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=width * 7 // 2, num_hidden_layers=layers,
        num_attention_heads=max(4, width // 128), num_key_value_heads=max(4, width // 512), sliding_window=None, dtype=torch.bfloat16,
    )  # fmt: skip
    with torch.device(device):
        model = MistralForCausalLM(config).bfloat16()
    if quantization == "8bit":
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            del model
            model = MistralForCausalLM.from_pretrained(
                folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map={"": device}
            )
    return model.eval().requires_grad_(False)


def synchronised(device):
    """Wait for the device, so that a time is that of the work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(work, device):
    """Seconds of a call, the device's work included."""
    synchronised(device)
    started = time.perf_counter()
    work()
    synchronised(device)
    return time.perf_counter() - started


def matrix_rate(width, device):
    """Measured multiply-adds, as floating-point operations a second, of bfloat16 products [8192, width] x [width, 4 width]."""
    a, b = torch.randn(8192, width, device=device, dtype=torch.bfloat16), torch.randn(width, 4 * width, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ b
    times = [timed(lambda: [a @ b for _ in range(10)], device) for _ in range(5)]
    return 10 * 2 * 8192 * width * 4 * width / statistics.median(times)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quantization", choices=["8bit"])
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    tokenizer = load_model(device="cpu").tokenizer
    model = random_mistral(arguments.layers, arguments.width, len(tokenizer), device, arguments.quantization)
    reader = ActivationReader(model, tokenizer)
    reads = list(range(arguments.layers // 2, arguments.layers // 2 + min(5, arguments.layers // 2)))
    conversations = [e.conversation for t in traits.load_many(["all"]) if t.reads == "response" for e in t.examples()][: arguments.rows]
    jobs = [Job(e.ids, [e.place(c, "response")]) for e, c in zip(reader.encoder.encode(conversations), conversations, strict=True)]
    tokens = sum(len(job.ids) for job in jobs)
    directions = torch.randn(len(reads) * reader.hidden_size, 5, device=device)
    shape = (64, 512) if device.type == "cuda" else (8, 128)
    full = torch.randint(len(tokenizer), shape, device=device)
    batches = max(1, tokens // full.numel())

    def floor():
        with torch.inference_mode():
            for _ in range(batches):
                with capture(reader.blocks, [reads[-1]], lambda _layer, _hidden: None):
                    model(input_ids=full, use_cache=False)

    def read():
        reader.run(jobs, reads, project=lambda pooled: pooled.flatten(1) @ directions)

    floor(), read()  # warm
    if device.type == "cuda":
        collected = batches_module._collected

        def allowed(*results):  # the one place that waits: a batch's few numbers, once the next batch is under way
            torch.cuda.set_sync_debug_mode("default")
            try:
                return collected(*results)
            finally:
                torch.cuda.set_sync_debug_mode("error")

        batches_module._collected = allowed
        torch.cuda.set_sync_debug_mode("error")
        read()
        torch.cuda.set_sync_debug_mode("default")
        batches_module._collected = collected
        print("no wait for the device inside the loop")
    ratios, rates = [], []
    for _ in range(arguments.runs):
        bare = timed(floor, device) / (batches * full.numel())
        ours = timed(read, device) / tokens
        ratios.append(bare / ours)
        rates.append(1 / ours)
    parameters = sum(p.numel() for block in list(reader.blocks)[: reads[-1] + 1] for p in block.parameters())
    share = 2 * parameters * statistics.median(rates) / matrix_rate(arguments.width, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {arguments.quantization or 'bfloat16'}, {len(jobs)} conversations, {tokens} tokens")
    print(f"{statistics.median(rates):.0f} tokens/s, {statistics.median(ratios):.2f} of the floor ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"{share:.2f} of the measured bfloat16 matrix rate (linear layers' arithmetic only, tokens as read one by one)")


if __name__ == "__main__":
    main()
