"""Every exception that Demeanor raises on purpose, in one tree.

Each message names the cause and the way out, in one line. The command line prints the message and exits with
`exit_code`; a library user catches `DemeanorError` or one of its branches.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class DemeanorError(Exception):
    """Root of the tree. `exit_code` is what the command line exits with."""

    exit_code = 2

    def __str__(self) -> str:
        """The message in one line, also where it shows a name or a value that holds line breaks."""
        return " ".join(super().__str__().splitlines())


class ConversationError(DemeanorError, ValueError):
    """A conversation cannot be read as given: empty reply, unknown role, no message to score, broken text."""


class InputFileError(DemeanorError, ValueError):
    """An input file is missing, not text, or breaks at a named line."""


class OutputError(DemeanorError, OSError):
    """A result cannot be written: full disk, no permission, the place is taken."""


class TraitError(DemeanorError, ValueError):
    """A trait definition or pack is unknown or not valid; the message names the file, the pair and the field."""


class CutError(DemeanorError, ValueError):
    """A threshold that a calibration does not support."""


class ModelError(DemeanorError, RuntimeError):
    """A model cannot be found, loaded or read."""


class ModelNotFoundError(ModelError):
    """No such model here, and none could be fetched."""


class BlocksNotFoundError(ModelError):
    """The decoder blocks of a model were not found; the message says how to name them."""


class ChatTemplateError(ModelError):
    """The chat template cannot render a conversation, or hides where its messages stand."""


class ActivationError(ModelError):
    """The model's activations are not finite numbers, or the model ran out of memory on a single conversation."""


class OverloadedError(ModelError):
    """More is asked of the model than it can do in time: nothing was read, and the same may be asked again in a moment."""


class SteeringError(ModelError):
    """Steering does not fit the model, was off in a forward pass, or is stronger than the model bears."""


class MissingExtraError(ModelError, ImportError):
    """A feature needs an optional dependency; the message holds the install line."""


class VectorSetError(DemeanorError, ValueError):
    """A vector set cannot be read, or does not fit what is asked of it."""


class DamagedVectorSetError(VectorSetError):
    """The files are torn, edited, or hold NaN or the wrong shapes."""


class WrongModelError(VectorSetError):
    """The vector set was made with another model than the one that is loaded."""


class FormatVersionError(VectorSetError):
    """The vector set was written by a newer Demeanor than this one."""


class ExtractionError(DemeanorError, ValueError):
    """A trait's examples do not support what is asked: too few of them, one pole only, no spread."""


class PolicyError(DemeanorError, ValueError):
    """A monitor's policy cannot be read, or asks for what the vector set does not hold."""


class AuditError(DemeanorError, OSError):
    """An audit log cannot be read, or a record cannot be written to it; what was written before stands."""


class GatewayError(DemeanorError, ValueError):
    """The gateway's configuration cannot be read, or asks for what cannot be served."""


class KeysError(DemeanorError, ValueError):
    """The gateway's keys cannot be read or changed as asked, or it would be open to others without any."""


class UnseenGatewayError(GatewayError):
    """A gateway that is to be watched does not answer, or answers something else."""


class NoticeError(DemeanorError, OSError):
    """Notices cannot be kept or sent as the configuration says; the message names the field, the variable or the file."""


class ReviewError(DemeanorError, OSError):
    """A review store cannot be opened, read or written, or what is asked of it cannot be done; what it held before stands."""


class TooManyAttemptsError(ReviewError):
    """Too many wrong passwords: signing in is closed for a while, in whole seconds `wait`."""

    def __init__(self, wait: int) -> None:
        super().__init__(f"too many wrong passwords; try again in {max(1, -(-wait // 60))} minutes")
        self.wait = wait


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an "unknown name" message: the nearest known names, or all of them where none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}" if names else "none is known"


def sound(result: T | DemeanorError) -> T:
    """A result itself. Raises it where it is the error that stands in a result's place."""
    if isinstance(result, DemeanorError):
        raise result
    return result
