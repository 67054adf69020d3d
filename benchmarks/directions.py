"""Which method, which layers, which pooling: compared by cross-validation over families inside the train split.

    python benchmarks/directions.py [--traits NAME ...] [--pooling]

Prints, for each trait and method, the cross-validated AUROC at single layers and over adjacent ones, and in brackets the
AUROC on the test split. The defaults are chosen by the first number; the second is for the report. With --pooling the
poolings are compared in the same way, by the default method over the default layers.
"""

import argparse
import statistics

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from demeanor import ActivationReader, load_model
from demeanor.extraction.directions import METHODS, fit_layers
from demeanor.extraction.examples import ReadExamples, ReadTrait, read_trait
from demeanor.extraction.layers import out_of_fold
from demeanor.extraction.pipeline import READING_METHOD
from demeanor.model.packing import Job
from demeanor.scoring.metrics import auroc
from demeanor.traits import load_many

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


def both(read, fit, layers):
    """Cross-validated AUROC on train, and AUROC on test of the direction that all of train gives."""
    train, test = read["train"], read["test"]

    def stacked(high, low):
        return fit_layers(high, low, fit)

    inside = out_of_fold(train, stacked, layers)
    x = train.at(layers)
    outside = np.tensordot(test.at(layers), stacked(x[train.high], x[~train.high]), 2)
    return auroc(inside[train.high], inside[~train.high]), auroc(outside[test.high], outside[~test.high])


def ends(reader, trait, layers):
    """The trait read by the means of each message's first and last third, side by side as if they were more layers."""
    splits = {}
    for split in ("train", "test"):
        examples = trait.examples(split)
        jobs = []
        for _, encoded in zip(examples, reader.encoder.encode([e.conversation for e in examples]), strict=True):
            start, end = encoded.spans[-1]
            third = max(1, (end - start) // 3)
            jobs.append(Job(encoded.ids, [(start, start + third), (end - third, end)]))
        found = torch.stack(reader.run(jobs, layers)).flatten(1, 2).numpy()
        splits[split] = ReadExamples(examples, found, tuple(range(found.shape[1])))
    return ReadTrait(trait, splits)


def table(title, rows, columns):
    print(f"\n{title}\n{'':26}" + "".join(f"{c:>13}" for c in columns))
    for name, cells in rows.items():
        print(f"{name:26}" + "".join(f"{a:7.2f} ({b:.2f})" for a, b in cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traits", nargs="+", default=["all"])
    parser.add_argument("--pooling", action="store_true", help="compare poolings as well (reads everything three times)")
    arguments = parser.parse_args()
    reader = ActivationReader(*load_model())
    traits = load_many(arguments.traits)
    layers = sorted({layer for band in BANDS.values() for layer in band})
    means = {name: [[] for _ in BANDS] for name in METHODS}
    poolings = {"mean": [], "last": [], "max": [], "first and last third": []}
    with threadpool_limits(2, user_api="blas"):
        for trait in traits:
            read = read_trait(reader, trait, layers)
            rows = {name: [both(read, fit, band) for band in BANDS.values()] for name, fit in METHODS.items()}
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
    if arguments.pooling:
        names = [t.name.split("_")[0] for t in traits]
        table(f"pooling, {READING_METHOD} over layers 13-17", poolings, names)


if __name__ == "__main__":
    main()
