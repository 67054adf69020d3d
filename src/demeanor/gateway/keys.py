"""Bearer keys: who may ask the gateway for what.

    dmn_<id>_<secret>      id: 12 hexadecimal digits, public; secret: 256 random bits

A key is shown once, when it is made. The file holds SHA-256 of the whole key and nothing that leads back to it. A slow, salted hash
(bcrypt, argon2) protects passwords because people choose guessable ones; 256 random bits cannot be guessed at any speed, so that one
SHA-256 is enough and costs a request microseconds. The hash is found by the id and compared in constant time; for an id that
does not exist a hash is compared all the same.

The file takes its name only when it is whole, is readable by its owner only, and is changed under a lock, so that two processes lose
nothing of each other's. It is read again whenever it has changed, so that a revoked key is refused at the next request. A
file that cannot be read lets nobody in.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from demeanor.errors import KeysError

Scope = Literal["proxy", "check", "review", "admin"]
"""proxy: chat completions and what else is passed on. check: /v1/check, /v1/score, moderations, the guardrail. review: nothing
yet, as the dashboard has accounts of its own. admin: /metrics, the pages about the API. No scope includes another."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
FORMAT = 1
PATIENCE = 5.0  # seconds that a change waits for another process to finish its own
_KEY = re.compile(rb"dmn_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_ID = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"[\w.@+-]{1,64}")
_LENGTH = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NOBODY = "0" * 64
Clock = Callable[[], datetime.datetime]


def now() -> datetime.datetime:
    """The time in UTC."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Key:
    """One key as it is kept: everything but the key."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    hash: str = field(repr=False)
    """SHA-256 of the whole key, in hexadecimal digits."""
    created: datetime.datetime
    expires: datetime.datetime | None = None
    """None: it does not run out."""
    revoked: datetime.datetime | None = None

    def state(self, at: datetime.datetime) -> Literal["valid", "expired", "revoked"]:
        """Whether it opens anything at a time."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and at >= self.expires else "valid"


@dataclass(frozen=True)
class Issued:
    """A new key, and the only time that it is seen."""

    key: Key
    token: str = field(repr=False)


class KeyStore:
    """The keys in a file, as they are in it now."""

    def __init__(self, path: Path, clock: Clock = now) -> None:
        """Name the file; it need not be there yet."""
        self.path, self.clock = path, clock
        self._seen: tuple[int, ...] | None = None
        self._keys: tuple[Key, ...] = ()

    def held(self) -> tuple[Key, ...]:
        """Every key that was ever made, oldest first. Raises KeysError where the file cannot be read, or others may write to it."""
        signature = self._signature()
        if signature is None or signature != self._seen:
            self._keys = _read(self.path)
            self._seen = signature
        return self._keys

    def valid(self) -> tuple[Key, ...]:
        """The keys that open something now. Raises KeysError."""
        at = self.clock()
        return tuple(key for key in self.held() if key.state(at) == "valid")

    def find(self, token: bytes) -> Key | None:
        """The key whose holder presents `token`, valid or not; None where it is nobody's. Raises KeysError."""
        form = _KEY.fullmatch(token)
        wanted = form[1].decode() if form else ""
        key = next((key for key in self.held() if key.id == wanted), None)
        same = hmac.compare_digest(_hash(token), key.hash if key else _NOBODY)
        return key if same else None

    def add(self, name: str, scopes: Sequence[Scope], expires: datetime.timedelta | None = None) -> Issued:
        """Make a key and keep its hash. Raises KeysError for a name that a valid key has, and where the file cannot be written."""
        if not _NAME.fullmatch(name) or _ID.fullmatch(name):
            raise KeysError(f"{name!r} cannot name a key; use up to 64 letters, digits, dots, dashes, underscores, @ or +, such as web-app")
        if unknown := [scope for scope in scopes if scope not in SCOPES]:
            raise KeysError(f"unknown scope {unknown[0]!r}; known: {', '.join(SCOPES)}")
        if not scopes:
            raise KeysError(f"a key without a scope opens nothing; give one or more of {', '.join(SCOPES)}")
        created = self.clock()
        try:
            end = None if expires is None else created + expires
        except OverflowError as error:
            raise KeysError("that expiry lies beyond the year 9999; use 'never' for a key that does not run out") from error
        with self._changing() as keys:
            if any(key.name == name and key.state(created) == "valid" for key in keys):
                raise KeysError(f"a valid key is called {name!r}; revoke it first (demeanor keys revoke {name}), or take another name")
            taken = {key.id for key in keys}
            made = next(i for i in iter(lambda: secrets.token_hex(6), None) if i not in taken)
            token = f"dmn_{made}_{secrets.token_urlsafe(32)}"
            key = Key(made, name, tuple(s for s in SCOPES if s in scopes), _hash(token.encode()), created, end)
            keys.append(key)
        return Issued(key, token)

    def revoke(self, name: str) -> Key:
        """Revoke a key by its name or its id, for good. Raises KeysError where no valid key is called so."""
        at = self.clock()
        with self._changing() as keys:
            found = [i for i, key in enumerate(keys) if name in (key.name, key.id) and key.state(at) == "valid"]
            if not found:
                known = ", ".join(key.name for key in keys if key.state(at) == "valid") or "none"
                raise KeysError(f"{self.path} holds no valid key {name!r}; valid keys: {known}")
            keys[found[0]] = replace(keys[found[0]], revoked=at)
            return keys[found[0]]

    def _signature(self) -> tuple[int, ...] | None:
        with contextlib.suppress(OSError):
            found = os.stat(self.path)
            return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
        return None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys as a list to change; it is written when the block ends, and no other process writes meanwhile."""
        target = self.path.resolve()
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(f"{target}.lock", timeout=PATIENCE, mode=0o600):
                keys = list(_read(target)) if target.exists() else []
                yield keys
                _write(target, keys)
        except Timeout as error:
            raise KeysError(f"{target}: another process has held the lock for {PATIENCE:g} s; is one stuck?") from error
        except OSError as error:
            raise KeysError(f"cannot change {target}: {error.strerror or error}; the keys in it stay as they were") from error


def default_path() -> Path:
    """Where keys are kept unless a file is named: DEMEANOR_KEYS, else a file in the user's configuration folder."""
    import platformdirs

    named = os.environ.get("DEMEANOR_KEYS")
    return Path(named) if named else Path(platformdirs.user_config_dir("demeanor")) / "keys.json"


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """The scopes that are named with commas between, such as "proxy,check". Raises KeysError with the known ones."""
    named = [part.strip() for part in text.split(",") if part.strip()]
    for scope in named:
        if scope not in SCOPES:
            raise KeysError(f"unknown scope {scope!r}; known: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in named)


def parse_expiry(text: str) -> datetime.timedelta | None:
    """A length of time, such as "90d", "12h", "30m" or "4w"; None for "never". Raises KeysError."""
    if text == "never":
        return None
    form = _LENGTH.fullmatch(text)
    if form is None or int(form[1]) == 0:
        raise KeysError(f"cannot read the expiry {text!r}; write a number with m, h, d or w, such as 90d, or never")
    return datetime.timedelta(**{_UNITS[form[2]]: int(form[1])})


def _hash(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def _read(path: Path) -> tuple[Key, ...]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o022:
                raise KeysError(f"{path} can be written by others (mode {mode:04o}), who could add keys of their own: chmod 600 {path}")
            held = json.loads(file.read())
        if held["format"] != FORMAT:
            raise KeysError(f"{path}: format {held['format']!r}; this version reads format {FORMAT}")
        return tuple(_key(record) for record in held["keys"])
    except FileNotFoundError as error:
        raise KeysError(f"{path}: no such file; make a key first: demeanor keys add NAME --scope proxy --file {path}") from error
    except OSError as error:
        if isinstance(error, KeysError):
            raise
        raise KeysError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, KeysError):
            raise
        raise KeysError(f"{path} is no file of keys, or damaged ({type(error).__name__}); restore it, or make a new one") from error


def _key(record: Mapping[str, Any]) -> Key:
    times = {name: _time(record.get(name)) for name in ("created", "expires", "revoked")}
    created, digest, scopes = times["created"], record["hash"], tuple(record["scopes"])
    if created is None or not re.fullmatch("[0-9a-f]{64}", digest) or not _ID.fullmatch(record["id"]) or not set(scopes) <= set(SCOPES):
        raise ValueError("a key that was not written by this program")
    return Key(record["id"], str(record["name"]), scopes, digest, created, times["expires"], times["revoked"])


def _time(text: str | None) -> datetime.datetime | None:
    if text is None:
        return None
    found = datetime.datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without its zone")
    return found


def _write(path: Path, keys: Sequence[Key]) -> None:
    records = [{name: v.isoformat() if isinstance(v, datetime.datetime) else v for name, v in asdict(key).items()} for key in keys]
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # with mode 0600
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "keys": records}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


def _sync_folder(folder: Path) -> None:
    """A revocation is to outlast a power cut too: the new name goes to the disk."""
    with contextlib.suppress(OSError):  # Windows opens no folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
