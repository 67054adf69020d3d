"""`demeanor`: the commands, and the one place where errors become a line and an exit code.

Exit codes: 0 done; 1 a check failed (a vector loses to its baselines, a pack has something to mend); 2 the work could
not be done; 3 done, but some rows could not be scored; 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from demeanor.cli import (
    adapt,
    audit,
    calibrate,
    chat,
    compare,
    demo,
    extract,
    models,
    monitor,
    sample,
    score,
    screen,
    steer,
    traits,
    validate,
)
from demeanor.cli.console import problem
from demeanor.errors import DemeanorError

INTERRUPTED = 130

app = typer.Typer(
    name="demeanor",
    help="Reads how a chatbot is behaving from the activations of a language model: extracts persona vectors, "
    "proves them on held-out data, and scores with them.",
    no_args_is_help=True,
    add_completion=False,
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
app.command("screen")(screen.screen)
app.command("compare")(compare.compare)
app.add_typer(steer.app, name="steer")
app.add_typer(audit.app, name="audit")
app.add_typer(traits.app, name="traits")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line; a known error becomes one line on standard error."""
    try:
        app()
    except DemeanorError as error:
        problem(str(error))
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer makes this of a KeyboardInterrupt, and says nothing
            problem("interrupted; nothing half-written was left behind")
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
