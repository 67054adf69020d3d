"""Encryption at rest: texts are sealed with a key that stands in the environment and never in the store.

Fernet (AES-128-CBC with HMAC-SHA256) of the `cryptography` library. A store is sealed from its beginning or not at all; it holds a check by
which another key is refused before anything is read or written with it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from demeanor.errors import MissingExtraError, ReviewError

VARIABLE = "DEMEANOR_REVIEW_KEY"
CHECK = "demeanor review"


@dataclass(frozen=True)
class Seal:
    """What texts go through on their way into a store and out of it; without a key they stay as they are."""

    fernet: Any = None

    def close(self, text: str | None) -> str | None:
        """A text as it is stored."""
        if text is None:
            return None
        if self.fernet is None:
            return json.dumps(text)  # ASCII, which every database takes, half a surrogate pair and all
        return str(self.fernet.encrypt(text.encode("utf-8", "surrogatepass")).decode("ascii"))

    def open(self, stored: str | None) -> str | None:
        """The text of what was stored. Raises ReviewError where it was not sealed with this key, or was changed."""
        if stored is None:
            return None
        if self.fernet is None:
            return str(json.loads(stored))
        from cryptography.fernet import InvalidToken

        try:
            return str(self.fernet.decrypt(stored.encode("ascii")).decode("utf-8", "surrogatepass"))
        except (InvalidToken, UnicodeError) as error:
            raise ReviewError("a sealed text cannot be opened: it was changed, or sealed with another key") from error


def seal_with(key: str | None) -> Seal:
    """The seal of a key. Raises ReviewError for one that is none, MissingExtraError without the library."""
    if not key:
        return Seal()
    try:
        from cryptography.fernet import Fernet
    except ImportError as error:
        raise MissingExtraError(f"{VARIABLE} is set, and sealing texts needs: pip install 'demeanor[review]'") from error
    try:
        return Seal(Fernet(key.strip()))
    except ValueError as error:
        raise ReviewError(
            f"{VARIABLE} is no key: 32 random bytes in url-safe base64 are expected; `demeanor review key` makes one"
        ) from error


def key_in_environment() -> str | None:
    """The key of DEMEANOR_REVIEW_KEY; None where there is none."""
    return os.environ.get(VARIABLE) or None


def new_key() -> str:
    """A key for DEMEANOR_REVIEW_KEY."""
    import base64
    import secrets

    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")
