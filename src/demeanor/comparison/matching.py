"""Which replies of several versions answer the same prompt, and which prompts are related.

Prompts that differ by white space, case or what nobody sees are one prompt (see keys.py). Without a `group`, each prompt
stands for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from demeanor.data.prompts import Prompt
from demeanor.data.replies import Reply
from demeanor.errors import InputFileError
from demeanor.keys import folded

Match = Literal["auto", "id", "prompt"]


def matched(versions: Mapping[str, Sequence[Reply]], how: Match = "auto") -> dict[str, list[Reply]]:
    """The same replies with their keys: by id where every row has one and the versions share some, else by prompt.

    Raises:
        InputFileError: nothing to match by, nothing in common, one id with two prompts, or one prompt in two groups.
    """
    sound = {name: [r for r in replies if r.error is None] for name, replies in versions.items()}
    if how == "auto":
        first, *others = ({r.id for r in replies} for replies in sound.values())
        by_id = None not in first.union(*others) and all(first & ids for ids in others)
        how = "id" if by_id else "prompt"
    for name, replies in sound.items():
        if lacking := sum((r.id is None) if how == "id" else not r.prompt for r in replies):
            other = "'prompt' or 'messages'" if how == "prompt" else "an 'id'"
            raise InputFileError(f"{name}: {lacking} of {len(replies)} rows lack {other} to match them by; give each row one")
    prompts = _prompts_by_key(sound, how)
    keyed = {
        name: [replace(r, key=_key(r, how), prompt=prompts.get(_key(r, how), r.prompt)) for r in replies]
        for name, replies in versions.items()
    }
    keyed = _grouped(keyed)
    first_name, *rest = keyed
    for name in rest:
        if not {r.key for r in keyed[first_name] if not r.error} & {r.key for r in keyed[name] if not r.error}:
            raise InputFileError(
                f"{first_name} and {name} have no {how} in common; they must hold replies to the same prompts (same 'id' or same 'prompt')"
            )
    return keyed


def _key(reply: Reply, how: Match) -> str:
    if how == "id":
        return reply.id or ""
    return "\x1e".join(f"{m.role}\x1f{folded(m.content)}" for m in reply.prompt)


def _prompts_by_key(versions: Mapping[str, Sequence[Reply]], how: Match) -> dict[str, Prompt]:
    """The prompt of each key, from whichever row has it first, so that all its replies are read after the same words.

    Raises InputFileError where one id has two prompts.
    """
    seen: dict[str, tuple[str, Reply]] = {}
    for name, replies in versions.items():
        for reply in replies:
            if not reply.prompt:
                continue
            where, known = seen.setdefault(_key(reply, how), (name, reply))
            if _key(known, "prompt") != _key(reply, "prompt"):
                places = name if where == name else f"{where} and {name}"
                raise InputFileError(
                    f"id {reply.id!r} stands for different prompts in {places}; correct the ids, or match by text: --match prompt"
                )
    return {key: known.prompt for key, (_, known) in seen.items()}


def _grouped(versions: Mapping[str, Sequence[Reply]]) -> dict[str, list[Reply]]:
    """The replies with their groups: the one that a row of their prompt names, in whichever version, else the prompt itself.

    Raises InputFileError where one prompt is in two groups.
    """
    named: dict[str, tuple[str, str]] = {}
    for name, replies in versions.items():
        for reply in replies:
            if reply.group is None or reply.error is not None:
                continue
            where, group = named.setdefault(reply.key, (name, reply.group))
            if group != reply.group:
                places = name if where == name else f"{where} and {name}"
                what = repr(reply.id) if reply.id is not None else f"{reply.asked[:60]!r}"
                raise InputFileError(f"the prompt {what} is in the groups {group!r} and {reply.group!r} in {places}; give it one 'group'")

    def of(reply: Reply) -> str:
        if reply.key in named:
            return f"group {named[reply.key][1]}"
        return f"prompt {_key(reply, 'prompt') or reply.key}"

    return {name: [replace(r, group=of(r)) for r in replies] for name, replies in versions.items()}
