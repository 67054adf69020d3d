"""Would another engine than torch read faster on this processor? The same blocks in each, side by side, in one process.

    python benchmarks/engines.py [--rounds 7] [--replies 100] [--only "torch int8" ...]

Needs, besides Demeanor, whatever is to be compared: openvino, nncf, onnxruntime with onnx. What is not installed is named and left out.
Everything runs in float32 and one thread, and what is measured is the processor's time, which other work on the machine disturbs less
than the clock's. In a round every contender takes each shape once, in an order of its own, and a ratio is taken within a round. First
comes agreement with torch: of activations (cosine), and of calibrated scores (z, AUROC) over replies of the test split.

The first lines say which instructions there are, and how fast torch multiplies at best: what the floor already has of that, no engine can
add in float32. An environment variable that keeps oneDNN or MKL to AVX2 does not keep OpenVINO's or ONNX Runtime's other kernels to it, so
that they look faster than on a processor without AVX-512; the last lines name the kernels that OpenVINO took.
"""

import argparse
import collections
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from demeanor import ActivationReader, Scorer, VectorSet, load_model, traits
from demeanor.measure.metrics import auroc
from demeanor.vectors import built_in

SHAPES = {
    "8x128": (8, 128, 0),
    "4x256": (4, 256, 0),
    "1x128": (1, 128, 0),
    "1x64": (1, 64, 0),
    "1x32": (1, 32, 0),
    "16 after 200": (1, 16, 200),
}
FLOOR = "torch"


class Blocks:
    """What every contender is given: the model, what is read of it, and inputs."""

    def __init__(self):
        self.loaded = load_model(dtype="float32")
        self.scorer = Scorer(ActivationReader(*self.loaded), VectorSet.load(built_in.FOLDER))
        self.model, self.layers = self.loaded.model, list(self.scorer.gauge.directions.layers)
        self.directions = self.scorer.gauge.directions.matrix.numpy()
        self.all = np.eye(self.directions.shape[1], dtype=np.float32)  # as directions: the activations themselves
        config = self.model.config
        self.deepest = max(self.layers)
        self.past_shape = (2 * (self.deepest + 1), 1, config.num_key_value_heads, 0, config.head_dim)

    def inputs(self, ids, past):
        """Arrays for a graph: tokens after `past` others, whose keys and values are drawn."""
        rows, width = ids.shape
        mask = np.triu(np.full((width, past + width), np.finfo(np.float32).min, dtype=np.float32), past + 1)
        shape = (self.past_shape[0], rows, self.past_shape[2], past, self.past_shape[4])
        position = np.broadcast_to(np.arange(past, past + width), ids.shape).copy()
        before = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        return [ids, position, np.broadcast_to(mask, (rows, 1, *mask.shape)).copy(), before]


class InTorch:
    """Runs the blocks of a transformers model as the reader does."""

    def __init__(self, blocks, model):
        from demeanor import ActivationReader

        self.blocks, self.reader = blocks, ActivationReader(model, blocks.loaded.tokenizer)

    def __call__(self, arrays, directions):
        """Each token's raw scores [rows, tokens, directions]."""
        from transformers import DynamicCache

        ids, position, _, past = (torch.from_numpy(a) for a in arrays)
        options = {"use_cache": False}
        if past.shape[3]:
            kept = [(past[2 * i], past[2 * i + 1]) for i in range(len(past) // 2)]
            options = {"use_cache": True, "position_ids": position, "past_key_values": DynamicCache(kept)}
        found = {}
        with torch.inference_mode(), self.reader.stack.passes(self.blocks.layers, found.__setitem__):
            self.reader.model(input_ids=ids, **options)
        hidden = torch.cat([found[layer] for layer in self.blocks.layers], -1).numpy()
        return hidden if directions is self.blocks.all else hidden @ directions.T


def truncated(blocks):
    """A copy of the model with no more blocks than are read."""
    import copy

    model = copy.copy(blocks.model)
    model._modules = dict(model._modules)
    model.model = copy.copy(blocks.model.model)
    model.model._modules = dict(model.model._modules)
    model.model.layers = copy.deepcopy(blocks.model.model.layers[: blocks.deepest + 1])
    model.config = copy.deepcopy(blocks.model.config)
    model.config.num_hidden_layers = blocks.deepest + 1
    return model


def in_torch(blocks, folder):
    return InTorch(blocks, blocks.model)


def torch_laid_out(blocks, folder):
    """Weights in oneDNN's own layout once: a private operator."""

    class Linear(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.data, 64)

        def forward(self, x):
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")

    model = truncated(blocks)
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, linear in list(part.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    setattr(part, name, Linear(linear))
    return InTorch(blocks, model)


def torch_int8(blocks, folder):
    model = truncated(blocks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, block in enumerate(model.model.layers):
            model.model.layers[i] = torch.ao.quantization.quantize_dynamic(block, {torch.nn.Linear}, torch.qint8)
    return InTorch(blocks, model)


class InOpenVino:
    """A graph with counters."""

    def __init__(self, graph, **options):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERF_COUNT": True} | options
        self.request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def __call__(self, arrays, directions):
        """Each token's raw scores [rows, tokens, directions]."""
        return self.request.infer([*arrays, directions])[0]

    def kernels(self):
        """Which kernels the last pass took, by time."""
        counted = collections.Counter()
        for entry in self.request.profiling_info:
            counted[entry.exec_type] += entry.real_time.total_seconds()
        whole = sum(counted.values())
        return ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in counted.most_common(6) if seconds > whole / 100)


def traced(blocks):
    from contenders.openvino_engine import _Graph, _keys_and_values_shape

    return _Graph(blocks.model, blocks.layers, _keys_and_values_shape(blocks.model, blocks.deepest))


def openvino_graph(blocks, folder):
    """Converted once, kept as a file, with the times and sizes that this took."""
    import openvino
    from contenders.openvino_engine import convert

    path = folder / "graph.xml"
    if not path.exists():
        started = time.perf_counter()
        graph = convert(traced(blocks))
        made = time.perf_counter()
        openvino.save_model(graph, path, compress_to_fp16=False)
        kept = time.perf_counter()
        InOpenVino(openvino.Core().read_model(path))
        size = sum(p.stat().st_size for p in folder.glob("graph.*")) / 1e6
        print(
            f"OpenVINO: converting {made - started:.1f} s, saving {kept - made:.1f} s ({size:.0f} MB), "
            f"loading and compiling {time.perf_counter() - kept:.1f} s"
        )
    return openvino.Core().read_model(path)


def in_openvino(blocks, folder):
    return InOpenVino(openvino_graph(blocks, folder))


def openvino_int8_weights(blocks, folder):
    import nncf

    return InOpenVino(nncf.compress_weights(openvino_graph(blocks, folder), mode=nncf.CompressWeightsMode.INT8_SYM))


def openvino_int8(blocks, folder):
    """Weights and activations in int8, whose ranges are taken from replies of the train split."""
    import nncf

    jobs = [
        job
        for trait in traits.load_many(["all"])
        for job in blocks.scorer.reader.jobs([e.conversation for e in trait.examples("train")[:12]])
    ]
    data = nncf.Dataset(jobs, lambda job: [*blocks.inputs(np.array([job.ids]), 0), blocks.directions])
    options = {"model_type": nncf.ModelType.TRANSFORMER, "preset": nncf.QuantizationPreset.MIXED, "subset_size": len(jobs)}
    return InOpenVino(nncf.quantize(openvino_graph(blocks, folder), data, **options))


class InOnnx:
    """A session on a file."""

    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [i.name for i in self.session.get_inputs()]

    def __call__(self, arrays, directions):
        """Each token's raw scores [rows, tokens, directions]."""
        return self.session.run(None, dict(zip(self.names, [*arrays, directions], strict=True)))[0]


def onnx_file(blocks, folder):
    path = folder / "graph.onnx"
    if not path.exists():
        names = {
            "ids": {0: "r", 1: "t"},
            "position": {0: "r", 1: "t"},
            "mask": {0: "r", 2: "t", 3: "all"},
            "past": {1: "r", 3: "p"},
            "directions": {0: "k"},
        }
        arrays = [torch.from_numpy(a) for a in (*blocks.inputs(np.arange(14).reshape(2, 7) + 3, 5), blocks.directions)]
        with torch.no_grad():
            torch.onnx.export(
                traced(blocks).eval(),
                tuple(arrays),
                path,
                input_names=list(names),
                output_names=["raw", "new"],
                dynamic_axes=names,
                dynamo=False,
            )
    return path


def in_onnx(blocks, folder):
    return InOnnx(onnx_file(blocks, folder))


def onnx_int8(blocks, folder):
    from onnxruntime.quantization import quantize_dynamic

    path = folder / "int8.onnx"
    if not path.exists():
        quantize_dynamic(onnx_file(blocks, folder), path, per_channel=True, reduce_range=True)
    return InOnnx(path)


CONTENDERS = {
    FLOOR: in_torch,
    "torch, weights laid out": torch_laid_out,
    "torch int8": torch_int8,
    "openvino": in_openvino,
    "openvino int8 weights": openvino_int8_weights,
    "openvino int8": openvino_int8,
    "onnxruntime": in_onnx,
    "onnxruntime int8": onnx_int8,
}


def best_of_torch():
    """The rate at which torch multiplies matrices of the model's own shape, in GFLOP a second: its best of many."""
    x, w = torch.randn(1024, 576), torch.randn(1536, 576)
    taken = []
    for _ in range(300):
        started = time.process_time()
        torch.nn.functional.linear(x, w)
        taken.append(time.process_time() - started)
    return 2 * 1024 * 576 * 1536 / min(taken) / 1e9


def agreement(blocks, contenders, count):
    """Against torch: activations, z and AUROC over `count` replies of the test split, evenly by trait."""
    scorer = blocks.scorer
    packs = [t for t in traits.load_many(list(scorer.traits)) if t.reads == "response"]
    each = [(t, e) for t in packs for e in t.examples("test")[: 2 * (count // len(packs) // 2)]]
    jobs = scorer.reader.jobs([e.conversation for _, e in each])
    print(
        f"\n{len(jobs)} replies of the test split\n{'':26}{'cosine, lowest':>16}{'z moves, most':>15}{'median':>9}{'AUROC, each trait':>34}"
    )
    torchs = {}
    for name, contender in contenders.items():
        z, hidden = [], []
        for number, job in enumerate(jobs):
            ((start, end),) = job.spans
            whole = number % 10 == 0
            found = contender(blocks.inputs(np.array([job.ids]), 0), blocks.all if whole else blocks.directions)[0, start:end].mean(0)
            if whole:
                hidden.append(found)
                found = blocks.directions @ found
            z.append([float(scorer.calibrations[t].z(found[i])) for i, t in enumerate(scorer.traits)])
        z, hidden = np.array(z), np.array(hidden)
        z0, h0 = torchs.setdefault(FLOOR, (z, hidden))
        cosine = ((hidden * h0).sum(1) / np.linalg.norm(hidden, axis=1) / np.linalg.norm(h0, axis=1)).min()
        moved = np.abs(z - z0)
        own = []
        for trait in packs:
            column = scorer.traits.index(trait.name)
            poles = [
                np.array([row[column] for row, (t, e) in zip(z, each, strict=True) if t is trait and e.high is high])
                for high in (True, False)
            ]
            own.append(f"{auroc(*poles):.3f}")
        print(f"{name:26}{cosine:16.7f}{moved.max():15.4f}{np.median(moved):9.4f}{' '.join(own):>34}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--replies", type=int, default=100, help="for the agreement; 0 leaves it out")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, help="where converted models are kept from one run to the next; by default they are not")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    blocks = Blocks()
    peak = best_of_torch()
    parameters = sum(p.numel() for block in blocks.model.model.layers[: blocks.deepest + 1] for p in block.parameters())
    print(f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, one thread, matrices at up to {peak:.0f} GFLOP a second")
    print(f"{blocks.deepest + 1} blocks, {parameters / 1e6:.0f} million parameters, float32")
    contenders = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in [FLOOR, *(n for n in arguments.only if n != FLOOR)]:
            started = time.perf_counter()
            try:
                contenders[name] = CONTENDERS[name](blocks, arguments.folder or Path(scratch))
            except ImportError as error:
                print(f"{name} is left out: {error.name} is not installed")
                continue
            print(f"{name} is ready after {time.perf_counter() - started:.1f} s")
    if arguments.replies:
        agreement(blocks, contenders, arguments.replies)
    if not arguments.rounds:
        return
    taken = {shape: {name: [] for name in contenders} for shape in SHAPES}
    rng = np.random.default_rng(0)
    for run in range(arguments.rounds + 1):
        for shape, (rows, width, past) in SHAPES.items():
            arrays = blocks.inputs(rng.integers(3, 40_000, (rows, width)), past)
            order = list(contenders)
            random.Random(run).shuffle(order)
            for name in order:
                started = time.process_time()
                contenders[name](arrays, blocks.directions)
                if run:  # the first warms up
                    taken[shape][name].append(time.process_time() - started)
    print(f"\nTimes as fast as torch, medians of {arguments.rounds} rounds (range); in brackets, milliseconds of the processor")
    print(f"{'':26}" + "".join(f"{shape:>26}" for shape in SHAPES))
    for name in contenders:
        cells = []
        for shape in SHAPES:
            ratios = [f / s for f, s in zip(taken[shape][FLOOR], taken[shape][name], strict=True)]
            middle = statistics.median(taken[shape][name]) * 1000
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) [{middle:.0f}]")
        print(f"{name:26}" + "".join(f"{cell:>26}" for cell in cells))
    flops = 2 * parameters * 1024 / statistics.median(taken["8x128"][FLOOR]) / 1e9
    print(f"\nAt 8x128 torch's linear layers alone come to {flops:.0f} GFLOP a second, {flops / peak:.0%} of its best")
    for name, contender in contenders.items():
        if isinstance(contender, InOpenVino):
            print(f"{name}'s kernels, by time: {contender.kernels()}")


if __name__ == "__main__":
    main()
