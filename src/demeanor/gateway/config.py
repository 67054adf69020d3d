"""The gateway's configuration: one YAML file, checked field by field, and what the command line says instead of it.

Secrets are not in it: the upstream's key comes from the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator

from demeanor.data.yaml_files import read_yaml
from demeanor.errors import GatewayError, nearest
from demeanor.measure.cuts import Strict

UPSTREAM_KEY = "DEMEANOR_UPSTREAM_KEY"
"""The environment variable that holds the key for the upstream."""
TEMPLATE = Path(__file__).parent / "gateway.yaml"


class Limits(Strict):
    """What is refused, so that one client cannot take everything."""

    body_bytes: int = Field(default=20 << 20, ge=1024)
    """Of a request; images in base64 are large."""
    answer_bytes: int = Field(default=64 << 20, ge=1024)
    """Of an upstream's whole answer."""
    messages: int = Field(default=2000, ge=1)
    """In one request."""
    choices: int = Field(default=16, ge=1, le=128)
    """That a request may ask for with `n`."""
    requests: int = Field(default=256, ge=1, le=4096)
    """At the same time, streams among them."""
    checks: int = Field(default=64, ge=1, le=4096)
    """That wait at the same time at the check endpoints; beyond it: 429."""


class Timeouts(Strict):
    """Seconds."""

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
    conversation_field: str | None = Field(default=None, min_length=1)
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    sessions: SessionLimits = SessionLimits()

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


_PARTS: dict[str, type[Strict]] = {"limits": Limits, "timeouts": Timeouts, "sessions": SessionLimits}


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        known = _PARTS.get(where[0], GatewayConfig) if len(where) > 1 else GatewayConfig
        return f"field {'.'.join(where)!r}: unknown field; {nearest(where[-1], known.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"field {'.'.join(where)!r}: {message[0].lower()}{message[1:]}"
