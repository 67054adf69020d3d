"""What several people's answers about one item come to: a pure function.

    all of those wanted are there and alike          that is the label
    they differ                                      one more person is asked
    one more than wanted, and more than half alike   that is the label
    else                                             unsure

Who declined has given no answer, and somebody else is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

Value = Literal["high", "low", "not_applicable", "unsure"]
"""`not_applicable`: the question does not fit, as nobody is at risk where it asks about a risk. That is safe, and nothing to learn from."""
VALUES: tuple[Value, ...] = ("high", "low", "not_applicable", "unsure")
DECLINE = "decline"


class Settled(NamedTuple):
    """Where an item stands."""

    value: str | None
    """Its label; None while somebody is still to be asked."""
    needs: int
    """How many answers it needs."""


def settle(values: Sequence[str], wanted: int) -> Settled:
    """Where an item stands after these answers, in the order in which they were given."""
    given = [value for value in values if value != DECLINE]
    if len(given) < wanted:
        return Settled(None, wanted)
    value, most = Counter(given).most_common(1)[0]
    if most == len(given) or (len(given) > wanted and 2 * most > len(given)):
        return Settled(value, len(given))
    return Settled("unsure" if len(given) > wanted else None, wanted + 1)
