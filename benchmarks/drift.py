"""The drift monitor by simulation: false alarms, in-control average run length, and delays of detection.

    python benchmarks/drift.py [--conversations N] [--seed N]

Every number comes from baselines that were themselves fitted on simulated ordinary conversations of 30 turns, not from the
true mean and spread. "Share" is the variance that a whole conversation shares, phi the correlation of neighbouring turns
beyond it; t3 has Student's tails with 3 degrees of freedom. A shift begins at turn 11 and stays.
"""

import argparse

import numpy as np

from demeanor.measure.drift import LEVELS, Baseline, Charts, replay

ALARM = LEVELS.index("warning")
TRAITS = 4
BASELINES = 20
SHIFT_AT = 10
SCENARIOS = {
    "independent, normal": {},
    "independent, t3": {"df": 3},
    "share 0.3": {"share": 0.3},
    "phi 0.4": {"phi": 0.4},
    "share 0.3, phi 0.3": {"share": 0.3, "phi": 0.3},
    "share 0.3, phi 0.3, t3": {"share": 0.3, "phi": 0.3, "df": 3},
}


def noise(rng, df, size):
    """Draws with mean 0 and variance 1."""
    return rng.normal(size=size) if df is None else rng.standard_t(df, size=size) / np.sqrt(df / (df - 2))


def simulate(rng, n, turns, share=0.0, phi=0.0, df=None):
    """Scores [n, turns] of ordinary conversations, variance 1, after a mean that settles over the first turns."""
    within = np.sqrt((1 - share) * (1 - phi**2)) * noise(rng, df, (n, turns))
    within[:, 0] /= np.sqrt(1 - phi**2)
    for t in range(1, turns):
        within[:, t] += phi * within[:, t - 1]
    settling = 0.8 * np.exp(-np.arange(turns) / 3)
    return settling + np.sqrt(share) * rng.normal(size=(n, 1)) + within


def in_control(rng, options, size, n):
    """Over several fitted baselines: shares of conversations with an alarm in 30 and in 100 turns, and with a watch in 30."""
    found = []
    for _ in range(BASELINES):
        baseline = Baseline.fit(list(simulate(rng, size, 30, **options)))
        levels = replay(baseline, simulate(rng, n // BASELINES, 100, **options))
        found.append([(levels[:, :30] >= ALARM).any(1).mean(), (levels >= ALARM).any(1).mean(), (levels[:, :30] >= 1).any(1).mean()])
    return np.mean(found, axis=0)


def run_length(rng, options, turns=4000, n=500):
    """In-control average run length: turns watched until a first alarm, over the number of alarms."""
    baseline = Baseline.fit(list(simulate(rng, 2000, 30, **options)))
    scores = simulate(rng, n, turns, **options)
    charts, alive, watched = Charts(baseline, conversations=n), np.ones(n, bool), 0
    for t in range(turns):
        watched += int(alive.sum())
        alive &= charts.step(scores[:, t]) < ALARM
    return watched / max(1, int((~alive).sum()))


def delays(rng, options, shift, n, turns=100):
    """Turns from a shift to its alarm and to a watch, of conversations without an alarm before; infinite where none came."""
    baseline = Baseline.fit(list(simulate(rng, 200, 30, **options)))
    scores = simulate(rng, n, SHIFT_AT + turns, **options)
    scores[:, SHIFT_AT:] += shift
    levels = replay(baseline, scores)
    levels = levels[~(levels[:, :SHIFT_AT] >= ALARM).any(1), SHIFT_AT:]
    reached = (levels >= ALARM, levels >= LEVELS.index("watch"))
    return [np.where(r.any(1), r.argmax(1) + 1.0, np.inf) for r in reached]


def in_turns(value):
    """A delay, or that it was longer than could be seen."""
    return f"{value:.0f}" if np.isfinite(value) else "> 100"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--conversations", type=int, default=40000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    n = given.conversations

    print("| ordinary conversations | baseline from | alarm within 30 turns | of four traits | within 100 turns | watch within 30 |")
    print("|---|---|---|---|---|---|")
    for name, options in SCENARIOS.items():
        for size in (40, 100, 400):
            short, long, watch = in_control(rng, options, size, n)
            any_of = 1 - (1 - short) ** TRAITS
            print(f"| {name} | {size} | {short:.2%} | {any_of:.2%} | {long:.2%} | {watch:.1%} |")

    print("\n| ordinary conversations | in-control average run length, turns |")
    print("|---|---|")
    for name, options in SCENARIOS.items():
        print(f"| {name} | {run_length(rng, options):,.0f} |")

    print("\n| scores | shift | median delay, turns | 9 of 10 within | alarm within 10 turns | within 20 | watch within 20 |")
    print("|---|---|---|---|---|---|---|")
    for name, options in SCENARIOS.items():
        for shift in (0.5, 1.0, 2.0):
            d, watch = delays(rng, options, shift, n // 10)
            median, late = np.sort(d)[[len(d) // 2, int(0.9 * len(d))]]
            found = " | ".join(f"{share:.0%}" for share in ((d <= 10).mean(), (d <= 20).mean(), (watch <= 20).mean()))
            print(f"| {name} | {shift:g} | {in_turns(median)} | {in_turns(late)} | {found} |")


if __name__ == "__main__":
    main()
