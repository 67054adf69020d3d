"""The help of the commands, from their docstrings: each paragraph is wrapped to the terminal, each example keeps its line."""

from __future__ import annotations

import inspect

import typer

KEEPS_ITS_LINE = ("Example", "demeanor ", "  ")


def write_manual(app: typer.Typer) -> None:
    """Give every command of an app, and of the apps below it, its docstring as help, in paragraphs."""
    for command in (*app.registered_commands, app.registered_callback):
        if command is not None and command.help is None and command.callback is not None:
            command.help = paragraphs(inspect.getdoc(command.callback) or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            write_manual(group.typer_instance)


def paragraphs(text: str) -> str:
    """A text with the line breaks within its paragraphs taken out, but for those before an example."""
    made = []
    for paragraph in text.split("\n\n"):
        lines: list[str] = []
        for line in paragraph.splitlines():
            if lines and not line.startswith(KEEPS_ITS_LINE):
                lines[-1] += f" {line.strip()}"
            else:
                lines.append(line)
        made.append("\n".join(lines))
    return "\n\n".join(made)
