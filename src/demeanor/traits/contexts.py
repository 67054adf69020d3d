"""When a trait is called for: traits learnt from a pack's own pairs against everyday talk, without their poles.

A reply alone does not tell small talk from a crossed line; the message that it answers does. So a trait of replies comes with two more:

    NAME-context  read on the user's message: high where it is like those that the pairs answer, low where it is everyday talk
    NAME-topic    read on the reply: high where it is like the pairs' replies, good or bad, low where it is an everyday reply

By them the trait's scores are eased (`AppliesWhen`). A trait that asks for something has no topic: what speaks of something else is just
what it is to find. Families and kinds keep their splits.
"""

from __future__ import annotations

from dataclasses import replace

from demeanor.conversation import Conversation
from demeanor.errors import ConversationError
from demeanor.measure.conditions import AppliesWhen
from demeanor.measure.cuts import ThresholdSpec
from demeanor.traits.definition import SPLITS, Example, Split, TraitDefinition
from demeanor.traits.ordinary import ordinary_conversations

CONTEXT, TOPIC = "-context", "-topic"
ENDINGS = (CONTEXT, TOPIC)
FEWEST = 24  # distinct training contexts under which nothing is learnt
FAMILIES = 6  # kinds of scenario that they must come from
CALLED_FOR = 1.0  # z from which on a message calls for the trait outright; see docs/conditions.md for this and the next
SLOPE = 3.0  # z by which a reply is eased for each z that the message lacks
TOPIC_SLOPE = 2.0  # and for each z that the reply itself lacks


def context_name(trait: str) -> str:
    """The name of the trait that says whether another is called for."""
    return trait[: 64 - len(CONTEXT)] + CONTEXT


def topic_name(trait: str) -> str:
    """The name of the trait that says whether a reply speaks of what another is about."""
    return trait[: 64 - len(TOPIC)] + TOPIC


def condition_traits(trait: TraitDefinition) -> list[TraitDefinition]:
    """The traits that say when a trait of replies is called for; none where its contexts are too few to learn from."""
    return [of for of in (context_trait(trait), topic_trait(trait)) if of is not None]


def context_trait(trait: TraitDefinition) -> TraitDefinition | None:
    """The trait of the user's messages by which a trait of replies is called for; None where its contexts are too few to learn from."""
    if trait.reads == "user" or not trait.pairs or trait.applies_when == "always":
        return None
    found: dict[Conversation, tuple[Split, Example]] = {}
    for pair in trait.pairs:
        said = up_to_user(Conversation(pair.context)) if pair.context else None
        if said is not None:
            found.setdefault(said, (trait.splits[pair.family], Example(said, True, pair.id, pair.family, pair.register)))
    train = [example for split, example in found.values() if split == "train"]
    if len(train) < FEWEST or len({example.family for example in train}) < FAMILIES:
        return None
    everyday = [(o.split, said, o.kind) for o in ordinary_conversations() if (said := up_to_user(o.conversation)) is not None]
    low = [(split, Example(said, False, f"ordinary-{i}", f"ordinary {kind}")) for i, (split, said, kind) in enumerate(everyday)]
    return TraitDefinition(
        context_name(trait.name),
        f"Whether the user's message is of the kind that {trait.title.lower()} is about.",
        unpaired=(*found.values(), *low),
        title=f"Calls for {trait.title.lower()}",
        high_pole=f"The message is like those for which {trait.title.lower()} matters.",
        low_pole="The message is everyday talk.",
        safe_pole="low",
        reads="user",
        language=trait.language,
    )


def topic_trait(trait: TraitDefinition) -> TraitDefinition | None:
    """The trait of replies that speak of what another is about; None for one that asks for something, or has no context trait.

    Its examples are the pairs' replies, split by split as `trait.examples` gives them, and after them everyday talk.
    """
    if trait.judged_whole or context_trait(trait) is None:
        return None
    own = [(split, replace(example, high=True, hard=False)) for split in SPLITS for example in trait.examples(split)]
    talk = list(enumerate(ordinary_conversations()))
    low = [(o.split, Example(o.conversation, False, f"ordinary-{i}", f"ordinary {o.kind}")) for i, o in talk]
    return TraitDefinition(
        topic_name(trait.name),
        f"Whether the reply speaks of what {trait.title.lower()} is about.",
        unpaired=(*own, *low),
        title=f"Speaks of {trait.title.lower()}",
        high_pole=f"The reply is like those in which {trait.title.lower()} matters.",
        low_pole="The reply is everyday talk.",
        safe_pole="low",
        reads="response",
        judged_whole=True,
        applies_when="always",
        language=trait.language,
    )


def own_conditions(trait: TraitDefinition) -> tuple[AppliesWhen, ...]:
    """The conditions that the traits of `condition_traits` make."""
    slopes = {CONTEXT: SLOPE, TOPIC: TOPIC_SLOPE}
    return tuple(
        AppliesWhen(trait=of.name, threshold=ThresholdSpec(z=CALLED_FOR), slope=slopes[of.name[of.name.rindex("-") :]])
        for of in condition_traits(trait)
    )


def up_to_user(conversation: Conversation) -> Conversation | None:
    """The conversation up to the user's last message; None where the user says nothing."""
    try:
        return Conversation(conversation.messages[: conversation.last("user") + 1])
    except ConversationError:
        return None
