"""`demeanor review shadow | promote | rollback | versions`: what is in force, and a candidate beside it."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer

from demeanor.cli import console
from demeanor.cli.console import Device, Dtype, Vectors
from demeanor.cli.policy import PATIENCE, PolicyOption
from demeanor.cli.review import STORE, AsJson, StoreOption, Who, app, as_json, me, opened
from demeanor.errors import InputFileError

Why = Annotated[str, typer.Option("--why", help="Why; kept with the version.")]


@app.command("shadow")
def shadow(
    store: StoreOption = STORE,
    vectors: Vectors = None,
    policy: PolicyOption = None,
    limit: Annotated[int, typer.Option("-n", "--n", min=1, help="At most so many of the last kept replies.")] = 1000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json_: AsJson = False,
) -> None:
    """Let a vector set and a policy decide about the kept replies too, and list where they would have acted otherwise.

    Nothing is put in force. On live traffic the gateway does the same beside the running monitor.

    Example: demeanor review shadow --vectors adapted --policy policy.yaml
    """
    from demeanor.monitor.policy import load_policy

    chosen = load_policy(policy)
    with opened(store) as found:
        scorer = console.load_scorer(vectors, None, device, dtype, allow_other_model=False)
        from demeanor.conversation import Conversation
        from demeanor.monitor.session import Monitor
        from demeanor.review.shadow import Would, compare, note
        from demeanor.review.texts import find

        with Monitor(scorer, chosen, enforce=False, deadline=PATIENCE) as watch, console.stages() as stage:
            name = f"{chosen.identity}, vectors {watch.vectors}"
            kept = [reply for reply in find(found, limit=limit) if reply.conversation is not None]
            step = stage("deciding", len(kept))
            for reply in kept:
                assert reply.conversation is not None
                session = watch.session(f"shadow {reply.number}", Conversation(reply.conversation.messages[:-1]))
                would = Would.of(session.check(reply.conversation.messages[-1].content))
                acted = Would(reply.action, tuple(v.rule for v in reply.verdicts if v.caught), reply.not_scored is not None)
                note(found, name, reply.decision, acted, would)
                step(1)
        made = compare(found, name) if kept else None
    if made is None:
        raise InputFileError(f"{store} holds no reply with its text, so there is nothing to decide about")
    if json_:
        as_json(made.to_record())
        return
    console.out.print(made.words, markup=False, soft_wrap=True)
    for one in made.differ[:20]:
        rules = ", ".join(one.would.rules or one.acted.rules)
        console.out.print(f"  reply {one.reply}: {one.acted.action}, would be {one.would.action} ({rules})", markup=False, soft_wrap=True)


@app.command("promote")
def promote(
    why: Why, store: StoreOption = STORE, vectors: Vectors = None, policy: PolicyOption = None, who: Who = None, json_: AsJson = False
) -> None:
    """Put a vector set and a policy in force: who, when and why is kept. `rollback` goes one step back at any time.

    Refused where the policy asks for a threshold that the vector set does not have.

    Example: demeanor review promote --vectors adapted --policy policy.yaml --why "fewer misses on labels set aside"
    """
    from demeanor.monitor.fitting import as_yaml
    from demeanor.monitor.policy import load_policy
    from demeanor.review.versions import BUILT_IN
    from demeanor.review.versions import promote as put

    chosen, found = load_policy(policy), console.vector_set(vectors)
    chosen.resolve(found)
    folder = console.given_vectors(vectors)
    with opened(store) as kept:
        made = put(
            kept, me(who), why, BUILT_IN if folder is None else str(folder.resolve()), found.fingerprint(), chosen.identity,
            as_yaml(chosen, [f"Policy {chosen.identity}, as it was promoted."], {}),
        )  # fmt: skip
    if json_:
        as_json(made.to_record())
        return
    console.out.print(f"version {made.number} is in force: {made.name}", markup=False, soft_wrap=True)


@app.command("rollback")
def rollback(why: Why, store: StoreOption = STORE, who: Who = None, json_: AsJson = False) -> None:
    """Put in force again what stood before the present version.

    Example: demeanor review rollback --why "too many false alarms since Monday"
    """
    from demeanor.review.versions import rollback as back

    with opened(store) as kept:
        made = back(kept, me(who), why)
    if json_:
        as_json(made.to_record())
        return
    console.out.print(f"version {made.number} is in force: {made.name}, as before version {made.back_from}", markup=False, soft_wrap=True)


@app.command("versions")
def versions(store: StoreOption = STORE, json_: AsJson = False) -> None:
    """List what was in force, the last first: when, by whom and why."""
    from demeanor.review.versions import versions as listed

    with opened(store) as kept:
        made = listed(kept)
    if json_:
        as_json([one.to_record() for one in made])
        return
    for one in made:
        day = datetime.datetime.fromtimestamp(one.at, datetime.UTC).isoformat(timespec="minutes")
        back = f", back from {one.back_from}" if one.back_from is not None else ""
        console.out.print(f"{one.number}{back}, {day}, {one.who}: {one.name}. {one.why}", markup=False, soft_wrap=True)
