"""`demeanor review users`: who may sign in to the pages."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from demeanor.cli import console
from demeanor.cli.review import STORE, AsJson, StoreOption, Who, as_json, me, opened

app = typer.Typer(help="Accounts for the browser: reviewers, and admins, who also put versions in force.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The account's name.")]
FromInput = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input instead of asking.")]


@app.command("add")
def add(
    name: Name,
    store: StoreOption = STORE,
    role: Annotated[str, typer.Option("--role", help="reviewer or admin.")] = "reviewer",
    from_input: FromInput = False,
    who: Who = None,
) -> None:
    """Add an account; its password is asked for, and needs 12 characters. Begins the store if there is none yet.

    Example: demeanor review users add anna --role admin
    """
    from demeanor.review.accounts import add as added

    with opened(store, begin=True) as found:
        made = added(found, name, role, _password(from_input), me(who))
    console.out.print(f"{made.name} ({made.role}) may sign in")


@app.command("list")
def list_(store: StoreOption = STORE, json_: AsJson = False) -> None:
    """List the accounts."""
    from demeanor.review.accounts import accounts

    with opened(store) as found:
        made = accounts(found)
    if json_:
        as_json([{"name": one.name, "role": one.role, "disabled": one.disabled} for one in made])
        return
    for one in made:
        console.out.print(f"{one.name}: {one.role}{', disabled' if one.disabled else ''}")


@app.command("password")
def password(name: Name, store: StoreOption = STORE, from_input: FromInput = False, who: Who = None) -> None:
    """Set another password; whoever is signed in with the account is signed out."""
    from demeanor.review.accounts import set_password

    with opened(store) as found:
        set_password(found, name, _password(from_input), me(who))
    console.out.print(f"{name} has another password")


@app.command("role")
def role(
    name: Name,
    role: Annotated[str, typer.Argument(help="reviewer or admin.")],
    store: StoreOption = STORE,
    who: Who = None,
) -> None:
    """Make an account a reviewer or an admin."""
    from demeanor.review.accounts import set_role

    with opened(store) as found:
        set_role(found, name, role, me(who))
    console.out.print(f"{name} is {role} now")


@app.command("disable")
def disable(name: Name, store: StoreOption = STORE, who: Who = None) -> None:
    """Let an account sign in no more; its labels stay. `enable` undoes it."""
    from demeanor.review.accounts import disable as disabled

    with opened(store) as found:
        disabled(found, name, me(who))
    console.out.print(f"{name} can sign in no more")


@app.command("enable")
def enable(name: Name, store: StoreOption = STORE, who: Who = None) -> None:
    """Let a disabled account sign in again."""
    from demeanor.review.accounts import enable as enabled

    with opened(store) as found:
        enabled(found, name, me(who))
    console.out.print(f"{name} may sign in again")


def _password(from_input: bool) -> str:
    if from_input:
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
