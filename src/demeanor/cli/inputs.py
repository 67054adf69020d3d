"""The way in that the commands share: what names an input, how its rows are read, and what is said of it before a model is loaded."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from demeanor.cli import console
from demeanor.errors import InputFileError

if TYPE_CHECKING:
    from demeanor.data.columns import Columns
    from demeanor.data.inputs import Input, Looked

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "standard input"
ROWS = (
    "A .jsonl, .json, .csv, .tsv (each also .gz) or .parquet file, a folder of them, a hub data set (owner/name, owner/name:split, "
    "owner/name@config:split), or - for standard input."
)
PROMPTS_IN = "Rows with 'prompt', or conversations, which are asked up to their last reply: a file, folder, hub data set, or -."
Given = Annotated[str | None, typer.Argument(help=f"{ROWS} See docs/inputs.md.", metavar="INPUT")]
InputOption = Annotated[str | None, typer.Option("--input", "-i", help="The same as the argument.")]
MessagesColumn = Annotated[str | None, typer.Option("--messages-column", help="Column that holds the conversation, if not 'messages'.")]
PromptColumn = Annotated[str | None, typer.Option("--prompt-column", help="Column that holds the prompt, if not 'prompt'.")]
ResponseColumn = Annotated[str | None, typer.Option("--response-column", help="Column that holds the reply, if not 'response'.")]
MessagesPath = Annotated[str | None, typer.Option("--messages-path", help="Path to the messages in nested records, e.g. request.messages.")]
ConversationColumn = Annotated[
    str | None,
    typer.Option("--conversation-column", help="If each row is one message: the column that says which conversation it belongs to."),
]
RoleColumn = Annotated[str | None, typer.Option("--role-column", help="If each row is one message: the column that says who speaks.")]
ContentColumn = Annotated[str | None, typer.Option("--content-column", help="If each row is one message: the column with its text.")]
Read = Annotated[str | None, typer.Option("--read", help="If rows hold two replies: which to read, chosen or rejected, a or b.")]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="What a speaker's name means: NAME=user, NAME=assistant, NAME=system or NAME=tool. May be repeated."),
]


def columns_of(
    messages: str | None = None,
    prompt: str | None = None,
    response: str | None = None,
    path: str | None = None,
    conversation: str | None = None,
    role: str | None = None,
    content: str | None = None,
    read: str | None = None,
    roles: Sequence[str] | None = None,
) -> Columns:
    """What the options say of how rows are read. Raises InputFileError."""
    from demeanor.data.columns import Columns
    from demeanor.data.inputs import parse_roles

    return Columns(prompt, response, messages, path, conversation, role, content, read, parse_roles(roles or ()))


ColumnOptions: TypeAlias = "Callable[[], Columns]"
"""What a command is given in place of the options: what they say, once it is wanted."""
_OPTIONS = {
    "messages_column": MessagesColumn,
    "prompt_column": PromptColumn,
    "response_column": ResponseColumn,
    "messages_path": MessagesPath,
    "conversation_column": ConversationColumn,
    "role_column": RoleColumn,
    "content_column": ContentColumn,
    "read": Read,
    "role": Roles,
}  # in the order in which columns_of takes them


def takes_columns(command: Callable[..., None]) -> Callable[..., None]:
    """A command with a parameter `columns: ColumnOptions`, in the place of which its users have the options."""
    own = inspect.signature(command, eval_str=True)
    options = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=of) for name, of in _OPTIONS.items()]
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        parameters += options if parameter.name == "columns" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

    @wraps(command)
    def called(**given: Any) -> None:
        named = [given.pop(name) for name in _OPTIONS]
        command(**given, columns=lambda: columns_of(*named))

    called.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def one_of(argument: str | None, option: str | None) -> str | None:
    """The input, as an argument or with --input. Raises InputFileError for both."""
    if argument is not None and option is not None:
        raise InputFileError("the input is given twice, as an argument and with --input; give it once")
    return argument if argument is not None else option


def open_rows(spec: str, columns: Columns, written: Path | None = None) -> Input:
    """An input; refuses what cannot work before a model is loaded for it. Raises InputFileError."""
    from demeanor.data.inputs import open_input

    if spec == STANDARD_INPUT:
        return open_input(standard_input(), columns)
    if written is not None and Path(spec).resolve() == written.resolve():
        raise InputFileError(f"{written} is the input; name another file with --output")
    return open_input(spec, columns)


def standard_input() -> Path:
    """What comes on standard input, as a file."""
    from demeanor.data.inputs import spooled

    if sys.stdin.isatty():
        console.note("reading rows from the terminal; end with Ctrl-D")
    path = spooled()
    console.CALLED[str(path)] = STANDARD_INPUT_NAME
    return path


def place_of(spec: str) -> Path:
    """Where an input's rows are: the file of standard input, or what was given."""
    return standard_input() if spec == STANDARD_INPUT else Path(spec)


def refuse_twice(specs: Sequence[str]) -> None:
    """Raise InputFileError for what is given twice: its rows would count twice, and standard input comes once."""
    if again := next((spec for i, spec in enumerate(specs) if spec in specs[:i]), None):
        raise InputFileError(f"{STANDARD_INPUT_NAME if again == STANDARD_INPUT else again} is given twice; give it once")


def look(given: Input) -> Looked:
    """What an input holds; says how it is read. Raises InputFileError where no row can be read."""
    looked = given.look()
    note(looked)
    return looked


def note(looked: Looked) -> None:
    """Lines that say how an input is read."""
    for line in looked.summary:
        console.note(line)


@contextmanager
def rows_to(target: Path | None) -> Iterator[IO[str]]:
    """Where rows are written: a file that takes its name once it is whole, or standard output."""
    from demeanor.data.rows import writing

    if target is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with writing(target) as file:
        yield file
