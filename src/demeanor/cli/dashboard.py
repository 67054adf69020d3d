"""`demeanor dashboard`: the web pages on a review store and an audit log."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console

if TYPE_CHECKING:
    from demeanor.dashboard.adapting import Learner
    from demeanor.review.learning import Learnt
    from demeanor.review.store import Store

PORT = 8090
HOST = "127.0.0.1"
ADAPTED = "adapted"  # folder in which adapted vector sets are saved
EXAMPLE = ("dashboard.db", "dashboard-audit.db")


def dashboard(
    store: Annotated[str, typer.Option("--store", help="The review store: a file such as review.db, or a postgresql:// URL.")],
    audit: Annotated[Path | None, typer.Option("--audit", help="An audit log whose monthly counts are shown, e.g. audit.db.")] = None,
    reports: Annotated[Path | None, typer.Option("--reports", help="A folder whose HTML reports are listed, e.g. reports.")] = None,
    vectors: Annotated[
        Path | None, typer.Option("--vectors", help="Folder of the vector set that labels adapt. Default: ./vectors, else built in.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="On this machine; 0 takes any that is free.")] = PORT,
) -> None:
    """Open the dashboard in a browser: what is decided now, conversations, the queue, labels and thresholds, reports.

    It listens on this machine only. For others, put a server with HTTPS in front of it. Accounts are added with
    `demeanor review users add`, and then on the dashboard's own page. Vector sets that are adapted there go into the folder adapted.

    Example: demeanor dashboard --store review.db --audit audit.db
    """
    from demeanor.errors import AuditError
    from demeanor.review.accounts import accounts
    from demeanor.review.store import open_store

    if audit is not None and not audit.is_file():
        raise AuditError(f"{audit}: no such file; an audit log is begun by the monitor")
    _check_installed()
    with open_store(store) as opened:
        if not accounts(opened):
            console.note("there is no account yet; add one: demeanor review users add NAME --role admin")
        serve(opened, audit, reports, port, "", vectors)


def serve_example(folder: Path) -> None:
    """Serve a store with an example, in files of a folder; one that is there already is served as it is."""
    from demeanor.dashboard import example
    from demeanor.review import accounts
    from demeanor.review.store import open_store
    from demeanor.vectors import built_in

    _check_installed()
    folder.mkdir(parents=True, exist_ok=True)
    store, audit = (folder / name for name in EXAMPLE)
    if not store.exists():
        audit.unlink(missing_ok=True)  # of a run that was ended early
    password = secrets.token_urlsafe(9)
    with open_store(store) as opened:
        if opened.db.one("SELECT 1 FROM reply LIMIT 1") is None:
            with console.loading("the example"):
                example.fill(opened, audit, built_in.load())
        if "demo" in [account.name for account in accounts.accounts(opened)]:
            accounts.set_password(opened, "demo", password)
        else:
            accounts.add(opened, "demo", "admin", password)
        serve(opened, audit, folder, None, f"; sign in as demo with the password {password}")


def serve(store: Store, audit: Path | None, reports: Path | None, port: int | None, how: str, vectors: Path | None = None) -> None:
    """Serve until it is interrupted, and say where, and `how` to get in; without a port on the usual one, or any that is free."""
    import socket

    import uvicorn

    from demeanor.dashboard.adapting import Adapting
    from demeanor.dashboard.application import app
    from demeanor.errors import ReviewError

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, PORT if port is None else port))
        except OSError as error:
            if port is not None:
                raise ReviewError(f"cannot listen on port {port} ({error.strerror}); take another --port, or 0 for any") from error
            listening.bind((HOST, 0))
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        listening.listen()
        console.out.print(f"serving the dashboard at {address}{how} (Ctrl-C ends it)", soft_wrap=True, markup=False, highlight=False)
        pages = app(store, audit, reports, Adapting(_learner(vectors), Path(ADAPTED)))
        config = uvicorn.Config(pages, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listening])


def _learner(vectors: Path | None) -> Learner:
    """What learns from labels; the model is loaded when it is first wanted."""

    def learn_trait(store: Store, trait: str, progress: Callable[[int], None]) -> Learnt:
        from demeanor.extraction.activations import kept_activations
        from demeanor.review.learning import learn

        scorer = console.load_scorer(vectors, None, "auto", "auto", allow_other_model=False)
        return learn(store, scorer.reader, scorer.vectors, trait, progress=progress, kept=kept_activations())

    return learn_trait


def _check_installed() -> None:
    """Raise MissingExtraError where what serves pages is not installed."""
    import importlib.util

    from demeanor.errors import MissingExtraError

    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise MissingExtraError("the dashboard needs starlette and uvicorn: pip install 'demeanor[serve]'")
