"""The cost of doing something more, as a ratio that a busy machine disturbs little."""

import math
import statistics
import time


def processor_ratio(without, beside, rounds=16):
    """Processor time of `beside(round)` over that of `without(round)`: the exponential of the mean log ratio, and its standard error.

    The two take turns at going first. Round -1 warms up and is not counted.
    """
    ratios = []
    for turn in range(-1, rounds):
        taken = {}
        for work in (without, beside) if turn % 2 else (beside, without):
            start = time.process_time()
            work(turn)
            taken[work] = time.process_time() - start
        ratios.append(math.log(taken[beside] / taken[without]))
    return math.exp(statistics.mean(ratios[1:])), statistics.stdev(ratios[1:]) / math.sqrt(rounds)
