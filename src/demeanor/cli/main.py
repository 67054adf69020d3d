"""`demeanor`: the commands, and the one place where errors become a line and an exit code.

Exit codes: 0 done; 1 a check failed (a vector loses to its baselines, a pack has something to mend); 2 the work could
not be done; 3 done, but some rows could not be scored; 130 interrupted; 141 nobody read the output to its end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from typing import Annotated, TextIO

import typer

from demeanor import __version__
from demeanor.cli import (
    adapt,
    audit,
    cache,
    calibrate,
    chat,
    compare,
    dashboard,
    demo,
    extract,
    keys,
    models,
    monitor,
    policy,
    review,
    review_labels,  # noqa: F401
    review_users,
    review_versions,  # noqa: F401
    sample,
    score,
    screen,
    serve,
    sources,
    steer,
    top,
    traits,
    validate,
    vectors,
)
from demeanor.cli.console import note, problem
from demeanor.cli.manual import write_manual
from demeanor.errors import DemeanorError

INTERRUPTED = 130
CLOSED = 141  # as a shell names what a closed pipe ends
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

app = typer.Typer(
    name="demeanor",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("extract")(extract.extract)
app.command("validate")(validate.validate)
app.command("adapt")(adapt.adapt)
app.command("sample")(sample.sample)
app.command("calibrate")(calibrate.calibrate)
app.command("score")(score.score)
app.command("monitor")(monitor.monitor)
app.command("chat")(chat.chat)
app.command("dashboard")(dashboard.dashboard)
app.command("screen")(screen.screen)
app.command("serve")(serve.serve)
app.command("compare")(compare.compare)
app.command("top")(top.top)
app.add_typer(steer.app, name="steer")
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
app.add_typer(traits.app, name="traits")
app.add_typer(vectors.app, name="vectors")
app.add_typer(models.app, name="models")
app.add_typer(sources.app, name="sources")
review.app.add_typer(review_users.app, name="users")
app.add_typer(review.app, name="review")
app.command("erase")(review.erase)
app.add_typer(cache.app, name="cache")
app.add_typer(keys.app, name="keys")
write_manual(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"demeanor {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)] = False,
) -> None:
    """Scores a chatbot's replies from the activations of a language model.

    A persona vector is a direction in those activations along which one behaviour (a trait) grows. Demeanor extracts such vectors,
    tests them on data they have not seen, and uses them to score and monitor replies. New here? Start with `demeanor demo`.
    """


def main() -> None:
    """Run the command line; a known error becomes one line on standard error."""
    try:
        _run()
    except SystemExit as stop:
        if not isinstance(stop.__context__, BrokenPipeError):  # of which rich and typer make an exit with 1
            raise
        _drop(sys.stdout, sys.stderr)
        sys.exit(CLOSED)
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is not None:
            raise
        _drop(sys.stdout)
        with contextlib.suppress(OSError):  # standard error may be what is full
            problem(f"cannot write the output: {error.strerror}")
        _drop(sys.stderr)
        sys.exit(2)


def _run() -> None:
    warnings.showwarning = lambda message, *_: note(f"warning: {message}")
    try:
        app()
    except DemeanorError as error:
        problem(str(error))
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer makes this of a KeyboardInterrupt, and says nothing
            problem("interrupted; nothing half-written was left behind")
        raise


def _drop(*streams: TextIO) -> None:
    """Let what is still to be written go nowhere: Python writes it at its end, and would make a failure of the exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())


if __name__ == "__main__":
    main()
