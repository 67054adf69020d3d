"""`demeanor keys`: the bearer keys of a gateway, made, listed and revoked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demeanor.cli import console

if TYPE_CHECKING:
    from demeanor.gateway.keys import Key, KeyStore

app = typer.Typer(help="Make, list and revoke the keys of a gateway (demeanor serve).", no_args_is_help=True)

File = Annotated[
    Path | None,
    typer.Option("--file", help="The file of keys. Default: the variable DEMEANOR_KEYS, else keys.json in your configuration folder."),
]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What the key is for, such as web-app; shown in the list and in logs.")],
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            help="What it opens, with commas between: proxy (chat completions), check (/v1/check, /v1/score, moderations, the guardrail), "
            "review (nothing yet: the dashboard has accounts), admin (/metrics and the API's pages). No scope includes another.",
        ),
    ],
    expires: Annotated[str, typer.Option("--expires", help="When it runs out: a number with m, h, d or w, e.g. 90d; or never.")] = "never",
    file: File = None,
) -> None:
    """Make a key and print it, this once: only its hash is kept.

    The key is the only line on standard output. A running gateway knows it at the next request.

    Example: demeanor keys add web-app --scope proxy,check --expires 90d
    """
    from demeanor.gateway.keys import parse_expiry, parse_scopes

    issued = _store(file).add(name, parse_scopes(scope), parse_expiry(expires))
    typer.echo(issued.token)
    key = issued.key
    until = f"until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else "until it is revoked"
    console.note(f"{key.name} ({key.id}): {', '.join(key.scopes)}, {until}. Store the key now; it cannot be shown again.")


@app.command("list")
def list_keys(file: File = None, as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the keys that were made: names, scopes, dates, and whether they are valid. The keys themselves are not kept.

    Example: demeanor keys list
    """
    from demeanor.gateway.keys import now

    at = now()
    rows = [_row(key, key.state(at)) for key in _store(file).held()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "id", "scopes", "made", "runs out", "state"):
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for row in rows:
        day = {name: (row[name] or "never")[:10] for name in ("created", "expires")}
        table.add_row(row["name"], row["id"], ", ".join(row["scopes"]), day["created"], day["expires"], row["state"])
    console.out.print(table)


@app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="The key's name or its id (see list).")], file: File = None) -> None:
    """Revoke a key for good. A running gateway refuses it from the next request on; streams that are open go on to their end.

    Example: demeanor keys revoke web-app
    """
    key = _store(file).revoke(name)
    console.out.print(f"revoked: {key.name} ({key.id})", markup=False)


def _store(file: Path | None) -> KeyStore:
    from demeanor.gateway.keys import KeyStore, default_path

    return KeyStore(file or default_path())


def _row(key: Key, state: str) -> dict[str, Any]:
    return {
        "name": key.name,
        "id": key.id,
        "scopes": list(key.scopes),
        "created": key.created.isoformat(timespec="seconds"),
        "expires": key.expires.isoformat(timespec="seconds") if key.expires else None,
        "revoked": key.revoked.isoformat(timespec="seconds") if key.revoked else None,
        "state": state,
    }
