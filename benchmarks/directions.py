"""Which method, which layers, which pooling: compared by cross-validation over families inside the train split.

    python benchmarks/directions.py [--traits NAME ...] [--pooling] [--everyday]

Prints, for each trait and method, the cross-validated AUROC at single layers and over adjacent ones, and in brackets the
AUROC on the test split. The defaults are chosen by the first number; the second is for the report. With --pooling the
poolings are compared in the same way, by the default method over the default layers. With --everyday, what weighing everyday
talk as examples of the safe pole gains on everyday talk of other kinds, and what it costs on the pairs.
"""

import argparse
import statistics

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from demeanor import ActivationReader, load_model
from demeanor.extraction.directions import METHODS, Everyday, fit_layers, logistic, neutral_whitened, spread
from demeanor.extraction.examples import ReadExamples, ReadTrait, read_trait, read_traits
from demeanor.extraction.layers import out_of_fold
from demeanor.extraction.pipeline import READING_METHOD
from demeanor.measure.metrics import auroc
from demeanor.model.packing import Job
from demeanor.traits import load_many
from demeanor.traits.definition import Split
from demeanor.traits.ordinary import ordinary_conversations

WEIGHTS = (1e-6, 0.1, 0.3, 1)
BANDS = {
    "9": [9],
    "12": [12],
    "15": [15],
    "18": [18],
    "21": [21],
    "14-16": [14, 15, 16],
    "13-17": [13, 14, 15, 16, 17],
    "15-19": [15, 16, 17, 18, 19],
}


def both(read, fit, layers, neutral=None):
    """Cross-validated AUROC on train, and AUROC on test of the direction that all of train gives."""
    train, test = read["train"], read["test"]
    everyday = Everyday(neutral.at(layers), False, 1.0) if fit is neutral_whitened else None

    def stacked(high, low):
        return fit_layers(high, low, fit, everyday)

    inside = out_of_fold(train, stacked, layers)
    x = train.at(layers)
    outside = np.tensordot(test.at(layers), stacked(x[train.high], x[~train.high]), 2)
    return auroc(inside[train.high], inside[~train.high]), auroc(outside[test.high], outside[~test.high])


def everyday_replies(reader, layers):
    """Everyday replies of the training split, for the covariance of neutral replies."""
    chosen = [o.conversation for o in ordinary_conversations() if o.split == "train"]
    return ReadExamples([None] * len(chosen), reader.read(chosen, layers).numpy(), tuple(layers))


def ends(reader, trait, layers):
    """The trait read by the means of each message's first and last third, side by side as if they were more layers."""
    splits: dict[Split, ReadExamples] = {}
    wanted: tuple[Split, ...] = ("train", "test")
    for split in wanted:
        examples = trait.examples(split)
        jobs = []
        for _, encoded in zip(examples, reader.encoder.encode([e.conversation for e in examples]), strict=True):
            start, end = encoded.spans[-1]
            third = max(1, (end - start) // 3)
            jobs.append(Job(encoded.ids, [(start, start + third), (end - third, end)]))
        found = torch.stack(reader.run(jobs, layers)).flatten(1, 2).numpy()
        splits[split] = ReadExamples(examples, found, tuple(range(found.shape[1])))
    return ReadTrait(trait, splits)


def with_everyday(read, layers):
    """For several weights of everyday talk: AUROC on the test pairs, and of their unsafe replies against other everyday talk."""
    train, test, other = read["train"], read["test"], read.ordinary["test"]
    x, everyday = train.at(layers), read.everyday(layers)
    sign = -1 if read.trait.safe_pole == "high" else 1
    cells = []
    for weight in WEIGHTS:
        rows = []
        for k in range(len(layers)):
            part = Everyday(everyday.activations[:, k], everyday.high, weight)
            row = logistic(x[train.high][:, k], x[~train.high][:, k], everyday=part)
            scores = x[:, k] @ row
            rows.append(row / spread(scores[train.high], scores[~train.high]))
        scores, ordinary = (np.tensordot(some.at(layers), np.stack(rows), 2) for some in (test, other))
        unsafe = scores[test.high] if read.trait.safe_pole == "low" else scores[~test.high]
        cells.append((auroc(scores[test.high], scores[~test.high]), auroc(sign * unsafe, sign * ordinary)))
    return cells


def table(title, rows, columns):
    print(f"\n{title}\n{'':26}" + "".join(f"{c:>13}" for c in columns))
    for name, cells in rows.items():
        print(f"{name:26}" + "".join(f"{a:7.2f} ({b:.2f})" for a, b in cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traits", nargs="+", default=["all"])
    parser.add_argument("--everyday", action="store_true", help="compare weights of everyday talk as well")
    parser.add_argument("--pooling", action="store_true", help="compare poolings as well (reads everything three times)")
    arguments = parser.parse_args()
    reader = ActivationReader(*load_model())
    traits = load_many(arguments.traits)
    layers = sorted({layer for band in BANDS.values() for layer in band})
    methods = {**METHODS, "neutral_whitened": neutral_whitened}
    means = {name: [[] for _ in BANDS] for name in methods}
    everyday = {}
    poolings = {"mean": [], "last": [], "max": [], "first and last third": []}
    with threadpool_limits(2, user_api="blas"):
        neutral = everyday_replies(reader, layers)
        for trait, read in zip(traits, read_traits(reader, traits, layers, "mean", lambda *_: lambda _: None).values(), strict=True):
            rows = {name: [both(read, fit, band, neutral) for band in BANDS.values()] for name, fit in methods.items()}
            if arguments.everyday and read.ordinary:
                everyday[trait.name] = with_everyday(read, BANDS["13-17"])
            table(f"{trait.name}: {len(read['train']) // 2} train and {len(read['test']) // 2} test pairs", rows, BANDS)
            for name, cells in rows.items():
                for i, cell in enumerate(cells):
                    means[name][i].append(cell)
            if arguments.pooling:
                poolings["mean"].append(both(read, METHODS[READING_METHOD], BANDS["13-17"]))
                for pooling in ("last", "max"):
                    again = read_trait(reader, trait, BANDS["13-17"], pooling)
                    poolings[pooling].append(both(again, METHODS[READING_METHOD], BANDS["13-17"]))
                thirds = ends(reader, trait, BANDS["13-17"])
                poolings["first and last third"].append(both(thirds, METHODS[READING_METHOD], list(thirds["train"].layers)))
    average = {
        name: [(statistics.mean(c[0] for c in cells), statistics.mean(c[1] for c in cells)) for cells in bands]
        for name, bands in means.items()
    }
    table(f"mean over {len(traits)} traits", average, BANDS)
    if everyday:
        table("weight of everyday talk: test AUROC (unsafe replies against everyday ones), layers 13-17", everyday, WEIGHTS)
    if arguments.pooling:
        names = [t.name.split("_")[0] for t in traits]
        table(f"pooling, {READING_METHOD} over layers 13-17", poolings, names)


if __name__ == "__main__":
    main()
