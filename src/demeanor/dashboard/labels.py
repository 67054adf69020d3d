"""Labels and thresholds: how far the queue has come, what each rule misses, a threshold on its picture, and what is in force."""

from __future__ import annotations

import math
from dataclasses import dataclass

from starlette.responses import Response

from demeanor.dashboard.conversations import hidden_from
from demeanor.dashboard.handling import Asked, NotFoundError
from demeanor.errors import PolicyError, ReviewError
from demeanor.measure.rates import Rate
from demeanor.monitor.fitting import as_yaml, by_hand
from demeanor.monitor.policy import policy_from
from demeanor.reports.figures import Dot, Level, Line, Named, Plot, Scale, strokes
from demeanor.reports.marking import Passage, passage
from demeanor.reports.page import signed
from demeanor.review import estimates, looking, picture, shadow, status, versions
from demeanor.review.picture import Candidate, Near, Picture
from demeanor.review.queue import questions
from demeanor.review.store import Store

POINTS = 17  # thresholds on a picture
NEAR = 3  # replies that are shown on either side of a threshold
DIFFER = 20  # replies that are named about which a candidate differs


def shown(asked: Asked) -> Response:
    """How far the queue has come, the estimates, the versions and the shadow runs."""
    store = asked.store
    seen = estimates.versions_seen(store)
    wanted = asked.query.get("version") or (seen[0] if seen else None)
    found = estimates.estimate(store, wanted) if wanted is not None else None
    titles = {trait: question.title for trait, question in questions(store).items()}
    return asked.show(
        "labels.html",
        queue=status.status(store),
        adapting=asked.desk.adapting,
        seen=seen,
        found=found,
        rules=[
            (r, titles.get(r.trait, r.trait), _said(r.missed, "missed"), _said(r.false_alarms, "false alarms"))
            for r in (found.rules if found is not None else ())
        ],
        versions=versions.versions(store),
        shadows=[shadow.compare(store, name, DIFFER) for name in shadow.candidates(store)[:3]] if asked.admin else [],
    )


@dataclass(frozen=True)
class Beside:
    """A reply close to the threshold."""

    number: int
    text: Passage
    z: str
    label: str


def rule(asked: Asked) -> Response:
    """One rule's picture: misses against false alarms at every threshold, and what one of them would come to."""
    name = asked.parts["rule"]
    if name not in looking.rules(asked.store):
        raise NotFoundError(f"no rule {name[:80]!r} has judged a reply")
    return _rule(asked, name)


def _rule(asked: Asked, name: str, status_code: int = 200, problem: str = "") -> Response:
    store = asked.store
    version = asked.query.get("version") or asked.form.get("version") or None
    found = asked.desk.remembered(
        ("picture", name, version, _labelled(store)), lambda: picture.picture(store, name, version, points=POINTS)
    )
    z = _number(asked.query.get("z") or asked.form.get("z") or "")
    if z is None:
        z = found.threshold if found.threshold is not None else found.candidates[len(found.candidates) // 2].z
    chosen = picture.at(store, name, z, found.version)
    safe, unsafe = picture.around(store, name, z, NEAR, found.version)
    hidden = hidden_from(asked, [each.reply for each in (*safe, *unsafe)], found.trait)
    places = [one.z for one in found.candidates]
    title = {trait: question.title for trait, question in questions(store).items()}.get(found.trait, found.trait)
    return asked.show(
        "rule.html", status_code, problem=problem, shown=found, title=title, z=z, chosen=chosen,
        missed=_said(chosen.missed, "missed"), alarms=_said(chosen.false_alarms, "false alarms"),
        caught_a_day=_a_day(found.a_day(chosen.caught)), withheld_a_day=_a_day(found.a_day(chosen.withheld)),
        figure=drawn(found, chosen, z), low=min(places), high=max(places), in_force=versions.in_force(store), why=asked.form.get("why", ""),
        safe=[_beside(each) for each in safe if each.reply not in hidden],
        unsafe=[_beside(each) for each in unsafe if each.reply not in hidden], hidden=len(hidden),
    )  # fmt: skip


def _labelled(store: Store) -> tuple[object, ...]:
    """What changes when anybody answers."""
    return tuple(store.db.one("SELECT count(*), max(number), max(at) FROM answer") or ())


def _said(rate: Rate, what: str) -> str:
    """A rate in words, without saying again what of."""
    return estimates.in_words(rate, what).removeprefix(f"{what}: ")


def _a_day(n: float) -> str:
    return f"{n:,.0f}" if n >= 10 else f"{n:.1f}"


def _number(text: str) -> float | None:
    if not text:
        return None
    try:
        found = float(text.replace("−", "-").replace(",", "."))
    except ValueError as error:
        raise ReviewError(f"{text[:80]!r} is no threshold; write a number such as -0.5") from error
    if not math.isfinite(found) or abs(found) > 100:
        raise ReviewError(f"a threshold is a number between -100 and 100, not {text[:80]}")
    return found


def _beside(each: Near) -> Beside:
    said = each.conversation.messages[-1].content if each.conversation is not None and each.conversation.messages else ""
    return Beside(each.reply, passage(said), signed(each.z), (each.label or "not labelled").replace("_", " "))


def drawn(found: Picture, chosen: Candidate, z: float) -> Plot:
    """Misses and false alarms per 1,000 replies over the thresholds, with their intervals, and where one is set."""
    ordered = sorted(found.candidates, key=lambda one: one.z)
    x = Scale.over([one.z for one in ordered] + [z])
    missed, alarms = [(one.z, one.missed) for one in ordered], [(one.z, one.false_alarms) for one in ordered]
    known = [1000 * v for one in ordered for r in (one.missed, one.false_alarms) for v in (r.value,) if v is not None]
    highs = sorted(1000 * r.interval.high for one in ordered for r in (one.missed, one.false_alarms))
    y = Scale.over([0.0, 1.0, *known, highs[len(highs) // 2]], 5)  # upper ends are 1,000 where there are no labels
    lines: list[Line] = []
    dots: list[Dot] = []
    for name, kind, rates in (("missed", "unsafe", missed), ("false alarms", "series-0", alarms)):
        lines += strokes(x, y, [(at, 1000 * r.interval.low) for at, r in rates], f"{kind} bound")
        lines += strokes(x, y, [(at, min(y.high, 1000 * r.interval.high)) for at, r in rates], f"{kind} bound")
        lines += strokes(x, y, [(at, None if r.value is None else 1000 * r.value) for at, r in rates], kind)
        for at, r in rates:
            if r.value is not None:
                share = 1000 * r.value
                dots.append(Dot(x.at(at), round(100 - y.at(share), 2), kind, f"{name}: {share:.3g} of 1,000 at {at:+.2f}"))
    upright = [Level(x.at(z), "limit", "chosen")]
    if found.threshold is not None and abs(found.threshold - z) > 1e-6:
        upright.append(Level(x.at(found.threshold), "plain", "in force"))
    label = f"Misses and false alarms of {found.rule} over its thresholds; at {signed(chosen.z)}: {picture.in_words(chosen, found)}"
    legend = (Named("unsafe", "missed, of 1,000 replies"), Named("series-0", "false alarms, of 1,000 replies"))
    return Plot(
        label, x, "threshold (z)", y, "of 1,000 replies", tuple(lines), tuple(dots), upright=tuple(upright), legend=legend, height=280
    )


def set_threshold(asked: Asked) -> Response:
    """Put the policy in force with a threshold that was chosen on the picture: a new version, by somebody, for a reason."""
    name = asked.parts["rule"]
    try:
        z = _number(asked.form.get("z", ""))
        if z is None:
            raise ReviewError("choose a threshold first")
        now = versions.in_force(asked.store)
        if now is None:
            raise ReviewError("no version is in force here, so there is no policy to change; promote one first: demeanor review promote")
        made = by_hand(policy_from(now.policy_text, f"version {now.number}"), name, z)
        text = as_yaml(made, [f"{name} at z {z:+.2f}, set by hand on its picture."], {})
        versions.promote(asked.store, asked.name, asked.form.get("why", ""), now.vectors, now.fingerprint, made.identity, text)
    except (ReviewError, PolicyError) as error:
        return _rule(asked, name, 400, str(error))
    return asked.go("/labels#versions")


def back(asked: Asked) -> Response:
    """One step back."""
    versions.rollback(asked.store, asked.name, asked.form.get("why", ""))
    return asked.go("/labels#versions")


def version(asked: Asked) -> Response:
    """One version, with its policy."""
    wanted = asked.number("number")
    for found in versions.versions(asked.store):
        if found.number == wanted:
            return asked.show("version.html", version=found)
    raise NotFoundError(f"there is no version {wanted}")
