"""How often a comparison rejects a true null where prompts come in families, such as paraphrases of one question.

    python benchmarks/related_prompts.py [--runs 400]

In each run the versions do not differ in truth: on each family one of them happens to do better (`shared`, the spread of what a
family's differences have in common), on each prompt by chance (spread 1). p and the 95 % interval are taken with the families given
as groups, and without. No model is loaded; 400 runs take some five minutes on one core.
"""

import argparse

import numpy as np

from demeanor.measure.statistics import bootstrap_interval, permutation_p

SHAPES = ((20, 5, 1.0), (20, 5, 0.0), (8, 5, 1.0), (100, 1, 1.0))


def rejected(runs, families, each, shared, seed=0):
    """Share of runs in which the null is rejected at 5 %, and in which the interval leaves out 0: with groups, then without."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(families), each)
    counts = np.zeros((2, 2))
    for run in range(runs):
        d = (rng.normal(0, shared, (families, 1)) + rng.normal(0, 1, (families, each))).ravel()
        for at, given in enumerate((groups, None)):
            interval = bootstrap_interval(d, run, given)
            counts[:, at] += permutation_p(d, run, given) < 0.05, not interval.low <= 0 <= interval.high
    return counts / runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulated comparisons of each kind")
    runs = parser.parse_args().runs
    print("| families | prompts each | shared | null rejected, by group | by prompt | interval misses 0, by group | by prompt |")
    print("|---|---|---|---|---|---|---|")
    for families, each, shared in SHAPES:
        cells = [f"{share:.1%}" for share in rejected(runs, families, each, shared).ravel()]
        print(f"| {families} | {each} | {shared:g} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
