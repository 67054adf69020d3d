"""Doses as they are written on the command line and in a chat: TRAIT=DOSE, and several for one trait."""

from __future__ import annotations

import math

from demeanor.errors import SteeringError


def parse_doses(traits: list[str], dose: float | None, needed: bool = True) -> dict[str, float]:
    """--trait NAME=DOSE, or --trait NAME with --dose. Raises SteeringError."""
    if not traits:
        raise SteeringError("no trait to steer; name one: --trait empathetic_responsiveness --dose 0.1")
    found: dict[str, float] = {}
    for text in traits:
        name, _, own = text.partition("=")
        if name in found:
            raise SteeringError(f"--trait {name} is given twice; give it once, with one dose")
        if own:
            found[name] = numbers(own, f"the dose of {name}")[0]
        elif dose is not None:
            found[name] = dose
        elif needed:
            raise SteeringError(f"no dose for {name}; give --dose 0.1 or --trait {name}=0.1")
        else:
            found[name] = 0.0
    if bad := [name for name, value in found.items() if not math.isfinite(value)]:
        raise SteeringError(f"the dose of {bad[0]} is not a finite number")
    return found


def parse_sweep(sweep: str | None, doses: dict[str, float]) -> list[dict[str, float]]:
    """The doses of each column."""
    if sweep is None:
        return [doses]
    if len(doses) != 1:
        raise SteeringError("--sweep takes one --trait")
    return [dict.fromkeys(doses, dose) for dose in numbers(sweep, "--sweep")]


def numbers(text: str, what: str) -> list[float]:
    """Finite numbers with commas between them. Raises SteeringError, naming `what` holds them."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise SteeringError(f"cannot read {what} {text!r}; write numbers such as 0.1,0.2") from error
    if not all(map(math.isfinite, found)):
        raise SteeringError(f"{what} holds a number that is not finite")
    return found
