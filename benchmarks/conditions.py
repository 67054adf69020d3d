"""What it gains to judge a reply where the user's messages call for it: reply alone, hard conditions and soft ones, side by side.

    python benchmarks/conditions.py [--vectors FOLDER] [--from FOLDER] [--everyday]

For each trait of replies with a condition on its own contexts: the share of ordinary replies, by kind of traffic, and of the pack's
held-out safe replies that lie beyond a cut which finds 60 % (75 %) of the pack's held-out unsafe replies. Ordinary traffic is the
built-in everyday talk and hard moments of kinds that nothing was fitted to, and public sets (--from, as `demeanor sources pull --from`
takes it). Then the default policy as a whole: joint miss rates on held-out pairs, and replies withheld and flagged by kind of traffic with
Wilson intervals. --everyday adds benchmarks/everyday.yaml, which chooses nothing and is looked at for the record only.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from statsmodels.stats.proportion import proportion_confint

from demeanor import Scorer
from demeanor.conversation import Conversation, Message
from demeanor.measure.conditions import Condition, total_easing
from demeanor.measure.cuts import Cut, withholds
from demeanor.monitor.outcome import decide
from demeanor.monitor.policy import load_policy
from demeanor.scoring.reading import Reading, looked_at
from demeanor.traits import load_many
from demeanor.traits.ordinary import hard_moments, ordinary_conversations

EVERYDAY = Path(__file__).parent / "everyday.yaml"
TOPIC = "and the reply's topic"
FORMS = {
    "reply alone": None,
    "hard at 0.5": (0.5, None),
    "hard at 1": (1.0, None),
    "slope 1 below 0": (0.0, 1.0),
    "slope 2 below 1": (1.0, 2.0),
    "slope 3 below 1": (1.0, 3.0),
    TOPIC: (1.0, 3.0),
}
FOUND = (0.6, 0.75)


def ordinary(options):
    """Ordinary replies that nothing was fitted to, by kind of traffic."""
    found = {
        "everyday": [o.conversation for o in ordinary_conversations() if o.split == "test"],
        "hard moments": [o.conversation for o in hard_moments() if o.split == "test"],
    }
    if options.folder:
        from demeanor.cli.sources import read_sources

        for source, rows in read_sources("all", [options.folder]):
            if source.trait is None:
                found[source.name.removeprefix("ordinary_")] = [Conversation(tuple(row.messages)) for row in rows]
    if options.everyday:
        talks = yaml.safe_load(EVERYDAY.read_text())["conversations"]
        whole = [[Message(role, text.strip()) for turn in talk["messages"] for role, text in turn.items()] for talk in talks]
        found["everyday.yaml"] = [Conversation(tuple(t[: i + 1])) for t in whole for i, m in enumerate(t) if m.role == "assistant"]
    return found


def read(scorer, conversations):
    """Readings; a reply that cannot be scored is left out."""
    return [reading for reading in scorer.score_many(conversations) if isinstance(reading, Reading)]


def danger(readings, name, entry, conditions):
    """How far each reading lies on the unsafe side, eased, in z."""
    up = 1 if entry.unsafe_side == "above" else -1
    easing = [total_easing(conditions, partial(looked_at, reply=r, turns=r.users)) or 0.0 for r in readings]
    return np.array([up * r[name].z for r in readings]) - np.array(easing)


def wilson(marked):
    """A share with its interval."""
    low, high = proportion_confint(int(marked.sum()), len(marked), method="wilson")
    return f"{marked.mean():6.1%} ({low:.1%} to {high:.1%})"


def main():
    """Read everything once, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--from", dest="folder", type=Path)
    parser.add_argument("--everyday", action="store_true")
    options = parser.parse_args()
    scorer = Scorer.load(options.vectors)
    traffic = {name: read(scorer, talk) for name, talk in ordinary(options).items()}
    policy = load_policy().resolve(scorer.vectors)
    for trait in load_many(["all"]):
        entry = scorer.vectors.traits.get(trait.name)
        if entry is None or not entry.applies_when:
            continue
        examples = [e for e in trait.examples("test") if any(m.role == "user" for m in e.conversation.messages)]
        readings = read(scorer, [e.conversation for e in examples])
        unsafe = np.array([e.high == (entry.unsafe_side == "above") for e in examples])
        own, *others = scorer.vectors.conditions(trait.name)
        topics = [c for c in others if c.reads == "response"]
        others = [c for c in others if c.reads == "user"]
        print(f"\n{trait.name}, {unsafe.sum()} held-out unsafe replies; beyond a cut that finds {FOUND[0]:.0%} ({FOUND[1]:.0%}) of them:")
        print(f"  {'':22}{'safe replies':>16}" + "".join(f"{name:>18}" for name in traffic))
        for form, at in FORMS.items():
            conditions = [] if at is None else [Condition(own.trait, Cut("z", at[0], "above", form), own.last_turns, at[1]), *others]
            if form == TOPIC:
                conditions += topics
                if not topics:
                    continue
            d = danger(readings, trait.name, entry, conditions)
            cuts = [np.quantile(d[unsafe], 1 - share) for share in FOUND]
            cells = [d[~unsafe], *(danger(t, trait.name, entry, conditions) for t in traffic.values())]
            shown = [[f"{(x >= cut).mean():.1%}" if np.isfinite(cut) else "-" for cut in cuts] for x in cells]
            print(f"  {form:22}" + "".join(f"{f'{a} ({b})':>{16 if i == 0 else 18}}" for i, (a, b) in enumerate(shown)))
        for rule in (r for r in policy.rules if r.rule.trait == trait.name):
            fired = np.array([decide(policy, r, r.users).results[policy.rules.index(rule)].state == "fired" for r in readings])
            print(f"  rule {rule.rule.name}: missed {wilson(~fired[unsafe])}, safe replies {wilson(fired[~unsafe])}")
    print("\nthe default policy, by kind of traffic: withheld; withheld or flagged")
    for name, readings in traffic.items():
        actions = [decide(policy, r, r.users).action for r in readings]
        held, marked = np.array([withholds(a) for a in actions]), np.array([a != "allow" for a in actions])
        print(f"  {name:18}{len(readings):5} replies  {wilson(held)}   {wilson(marked)}")


if __name__ == "__main__":
    main()
