"""The gateway's configuration: one YAML file, checked field by field, and what the command line says instead of it.

Secrets are not in it: the upstream's key, and what notices are signed with, come from the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator

from demeanor.data.yaml_files import read_yaml
from demeanor.errors import GatewayError, NoticeError, nearest
from demeanor.gateway.limits import RequestLimits
from demeanor.gateway.notify import check_url
from demeanor.measure.cuts import Strict
from demeanor.review.drawing import Drawing

UPSTREAM_KEY = "DEMEANOR_UPSTREAM_KEY"
"""The environment variable that holds the key for the upstream."""
MARGIN = 60.0  # seconds beyond the upstream's, in which a whole answer is judged
TEMPLATE = Path(__file__).parent / "gateway.yaml"


class Limits(Strict):
    """What is refused, so that one client cannot take everything."""

    body_bytes: int = Field(default=20 << 20, ge=1024)
    """Of a request; images in base64 are large."""
    answer_bytes: int = Field(default=64 << 20, ge=1024)
    """Of an upstream's whole answer."""
    header_bytes: int = Field(default=32 << 10, ge=1024)
    """Of a request's headers and address."""
    messages: int = Field(default=2000, ge=1)
    """In one request."""
    message_characters: int = Field(default=200_000, ge=1)
    """Of one message's text."""
    choices: int = Field(default=16, ge=1, le=128)
    """That a request may ask for with `n`."""
    requests: int = Field(default=256, ge=1, le=4096)
    """For replies, in work at the same time, streams among them; beyond it: 429."""
    checks: int = Field(default=64, ge=1, le=4096)
    """That wait at the same time at the check endpoints; beyond it: 429."""


class Timeouts(Strict):
    """Seconds."""

    body: float = Field(default=30.0, gt=0)
    """For a request's body to come."""
    connect: float = Field(default=10.0, gt=0)
    """To reach the upstream."""
    read: float = Field(default=120.0, gt=0)
    """For the next bytes of the upstream."""
    total: float = Field(default=600.0, gt=0)
    """For a whole answer of the upstream."""


class SessionLimits(Strict):
    """What is remembered of conversations between two requests. Requests carry the whole conversation; this only saves work."""

    max: int = Field(default=10_000, ge=1)
    ttl: float = Field(default=3600.0, gt=0)


class Notify(Strict):
    """Who is told of decisions that call a person in, and of other red ones."""

    webhook: str
    """The address that notices are sent to: https, or http on this machine."""
    queue: Path = Path("notices.db")
    """Where they wait until they are delivered."""
    link: str | None = None
    """Where to look; {decision} in it stands for the decision's id."""
    actions: tuple[Literal["flag", "substitute", "escalate"], ...] = ("escalate",)
    """Which decisions a notice is sent about."""

    @field_validator("webhook")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        try:
            return check_url(value)
        except NoticeError as error:
            raise ValueError(str(error).removeprefix("notify: ")) from None


class Review(Strict):
    """What is kept for people to look at, texts among it. See `demeanor.review.drawing.Drawing`."""

    store: str
    """The review store: a file, or a postgresql:// URL. It is begun where it is not."""
    share: float = Field(default=Drawing.share, gt=0, le=1)
    doubtful: float = Field(default=Drawing.doubtful, gt=0, le=1)
    flagged: float = Field(default=Drawing.flagged, gt=0, le=1)
    reviewers: int = Field(default=Drawing.reviewers, ge=1)
    days: float = Field(default=Drawing.days, gt=0)
    labelled_days: float = Field(default=Drawing.labelled_days, gt=0)


class GatewayConfig(Strict):
    """All of it."""

    upstream: str | None = None
    """The chatbot's base URL, as OpenAI's clients take it. None: the loaded model answers."""
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    vectors: Path | None = None
    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantization: str | None = Field(default=None, pattern="^(4bit|8bit)$")
    policy: str | None = None
    country: str = "US"
    audit: Path | None = None
    baseline: Path | None = None
    keys: Path | None = None
    """The file of keys (see `demeanor keys`). None: nobody needs one, and only this machine is served."""
    notify: Notify | None = None
    review: Review | None = None
    """Where replies are kept for people, which switches on that texts are kept; the dashboard is then at /dashboard."""
    request_log: bool = True
    """Whether each request is a line of JSON on standard error."""
    otel: bool = False
    """Whether each rule's result is an event of OpenTelemetry's, in the provider that the process has set up."""
    conversation_field: str | None = Field(default=None, min_length=1)
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    sessions: SessionLimits = SessionLimits()

    @property
    def request_limits(self) -> RequestLimits:
        """What one request may cost before anybody has looked at it."""
        return RequestLimits(
            body_bytes=self.limits.body_bytes,
            header_bytes=self.limits.header_bytes,
            messages=self.limits.messages,
            message_characters=self.limits.message_characters,
            body_seconds=self.timeouts.body,
            answer_seconds=self.timeouts.connect + self.timeouts.total + MARGIN,
        )

    @field_validator("upstream")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is no URL; write https://HOST/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(f"a base URL only, without a key or a query; the key goes into {UPSTREAM_KEY}")
        bare = value.rstrip("/")
        return bare if parts.path.strip("/") else f"{bare}/v1"


def load_config(path: Path | None = None, **given: Any) -> GatewayConfig:
    """The configuration of a file, if one is given, with what the command line says in its place. Raises GatewayError."""
    raw = read_yaml(path, GatewayError, "; a first one is printed by: demeanor serve --print-config") if path is not None else {}
    if not isinstance(raw, dict | None):
        raise GatewayError(f"{path}: a configuration is a mapping, such as 'upstream: https://...'; see demeanor serve --print-config")
    merged = {**(raw or {}), **{name: value for name, value in given.items() if value is not None}}
    try:
        return GatewayConfig.model_validate(merged)
    except ValidationError as error:
        raise GatewayError(f"{path or 'the options'}: {_first_problem(error)}") from None


def upstream_key() -> str | None:
    """The key for the upstream, from the environment; None: the client's own is passed on."""
    return os.environ.get(UPSTREAM_KEY, "").strip() or None


def template() -> str:
    """A configuration with comments, in which every value is the default."""
    return TEMPLATE.read_text(encoding="utf-8")


_PARTS: dict[str, type[Strict]] = {"limits": Limits, "timeouts": Timeouts, "sessions": SessionLimits, "notify": Notify, "review": Review}


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        known = _PARTS.get(where[0], GatewayConfig) if len(where) > 1 else GatewayConfig
        return f"field {'.'.join(where)!r}: unknown field; {nearest(where[-1], known.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"field {'.'.join(where)!r}: {message[0].lower()}{message[1:]}"
