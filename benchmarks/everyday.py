"""What the monitor does to everyday talk, where everything that it marks or replaces is a false alarm.

    python benchmarks/everyday.py [--vectors FOLDER] [--policy FILE]

Every reply of 160 conversations that nothing was fitted to (everyday.yaml) is judged by the default policy, or by your own. Printed
are the shares of replies that are allowed, flagged and replaced, with exact 95 % intervals, each rule's share, and what was
replaced after which message.
"""

import argparse
from collections import Counter
from pathlib import Path

import yaml
from statsmodels.stats.proportion import proportion_confint

from demeanor import Scorer
from demeanor.monitor.session import Monitor

FILE = Path(__file__).parent / "everyday.yaml"


def share(count, n):
    """A count as a share with its interval."""
    low, high = proportion_confint(count, n, method="beta")
    return f"{count:4} of {n}  {count / n:5.1%}  ({low:.1%} to {high:.1%})"


def main():
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--policy", type=Path)
    options = parser.parse_args()
    talks = [[turn for said in talk["messages"] for turn in said.items()] for talk in yaml.safe_load(FILE.read_text())["conversations"]]
    scorer = Scorer.load(options.vectors)
    actions, rules, replies = Counter(), Counter(), []
    with Monitor(scorer, options.policy, enforce=False) as monitor:
        for number, talk in enumerate(talks):
            session = monitor.session(str(number))
            for role, text in talk:
                if role == "user":
                    asked = text
                    session.user(text)
                    continue
                decision = session.check(text)
                replies.append((asked, text, decision))
                actions[decision.action] += 1
                rules.update(decision.rules)
    print(f"{len(talks)} everyday conversations, {len(replies)} replies")
    for action in ("allow", "flag", "substitute", "escalate"):
        print(f"  {action:32}{share(actions[action], len(replies))}")
    for rule, count in rules.most_common():
        print(f"  rule {rule:27}{share(count, len(replies))}")
    for asked, said, decision in replies:
        if decision.instead is not None:
            print(f"  replaced, by {', '.join(decision.rules)}: {asked.strip()[:60]!r} {said.strip()[:60]!r}")


if __name__ == "__main__":
    main()
