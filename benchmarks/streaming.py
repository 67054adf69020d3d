"""What a live conversation, a reply that is scored while it is written, and a long file cost. Ratios, side by side in one run.

    python benchmarks/streaming.py [--runs 5]

Prints the time of 16 turns scored one by one as they come, over one pass over the whole, for short and for long turns; the time to
write a reply with its scores taken on the way, over writing it without; and the peak memory of `score_many` over 1,000 and over
10,000 rows from a generator.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

from contenders.interleaved import processor_ratio

from demeanor import Conversation, Message, Scorer, VectorSet, extract_vectors, load_model, traits
from demeanor.model.generation import Sampling, write_reply
from demeanor.model.reader import ActivationReader
from demeanor.scoring import ConversationScorer

USER = "I can't sleep and work is getting worse; my boss shouted at me again today, and nobody seems to care at all."
REPLY = "That sounds exhausting. Being shouted at when you are already worn out would shake anybody. What happened just before it? "


def turns(repeats):
    """16 turns of a conversation whose replies have `repeats` times the same three sentences."""
    found = []
    for i in range(16):
        found += [Message("user", f"Day {i}. {USER}"), Message("assistant", (REPLY * repeats).strip())]
    return found


def seconds(work):
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def live(scorer, messages):
    """16 readings, each of the conversation so far."""
    conversation = ConversationScorer(scorer)
    for end in range(2, len(messages) + 1, 2):
        conversation.read(Conversation(tuple(messages[:end])))


def written_with_scores(scorer, rounds=16):
    """Replies of 64 tokens with scores over without, and the ratio's standard error."""
    prompt = [Message("user", USER)]

    def sampling(turn):
        return Sampling(max_new_tokens=64, seed=turn + 1)

    return processor_ratio(
        lambda turn: write_reply(scorer.reader, prompt, sampling(turn)),
        lambda turn: ConversationScorer(scorer).write(prompt, sampling(turn)),
        rounds,
    )


def show(name, ratios):
    """One line of the table: median and range of ratios."""
    print(f"{name:72}{statistics.median(ratios):6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def memory(folder, rows):
    """Peak memory in MB of a process that scores so many short rows from a generator."""
    code = f"""
import itertools
from demeanor import Scorer, NotScored
scorer = Scorer.load({folder!r})
rows = ({{"prompt": f"Number {{i}}", "response": "I hear you; that sounds hard."}} for i in range({rows}))
print(sum(isinstance(r, NotScored) for r in scorer.score_many(rows)))
with open("/proc/self/status") as file:  # getrusage would count what the parent held when it started this
    print(next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 1024)
"""
    lost, peak = subprocess.check_output([sys.executable, "-c", code], text=True, stderr=subprocess.DEVNULL).split()
    assert lost == "0"
    return int(peak)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    loaded = load_model()
    reader = ActivationReader(*loaded)
    with tempfile.TemporaryDirectory() as folder:
        extract_vectors(reader, traits.load_many(["all"]), layers=range(11, 18)).vectors.save(folder)
        scorer = Scorer(reader, VectorSet.load(folder))
        print(f"{'':72}ratio  (range over {runs} interleaved runs)")
        for repeats in (1, 4, 8):
            messages = turns(repeats)
            whole = Conversation(tuple(messages))
            tokens = len(reader.encoder.encode([whole])[0].ids)
            live(scorer, messages[:4])
            ratios = []
            for _ in range(runs):
                at_once = seconds(lambda whole=whole: scorer.score_turns(whole))
                ratios.append(seconds(lambda messages=messages: live(scorer, messages)) / at_once)
            show(f"16 turns scored live, {tokens // 16} tokens a turn, over one pass over the whole", ratios)
        ratio, error = written_with_scores(scorer)
        print(f"{'a reply written with its scores, over without (processor time)':72}{ratio:6.3f}  (standard error {error:.3f})")
        small, large = memory(folder, 1_000), memory(folder, 10_000)
        print(f"peak memory of score_many: {small} MB over 1,000 rows, {large} MB over 10,000")


if __name__ == "__main__":
    main()
