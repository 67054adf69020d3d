"""Which package indexes the user has configured, read as pip and uv read them.

pip's files count in pip's own order (system, user, environment, PIP_CONFIG_FILE), and its PIP_ variables over them. uv's
index variables are read as well; uv.toml is not. PyPI is asked only if no other default index is configured.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import platformdirs

from demeanor.errors import InputFileError

PYPI = "https://pypi.org/simple"
_SECTIONS = ("global", "install", "download")  # a later section counts over an earlier one
_ON = ("1", "y", "yes", "t", "true", "on")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Where packages come from and how to get there. The URLs may hold credentials: never print them."""

    find_links: tuple[str, ...] = ()
    """Folders and pages that list files, as URLs."""
    indexes: tuple[str, ...] = (PYPI,)
    """Simple indexes in the order in which they are asked, as URLs."""
    certificates: str | None = None
    """A file or folder of authorities to trust instead of the system's."""
    proxy: str | None = None
    """A proxy that counts over the proxy variables."""
    unverified: tuple[str, ...] = ()
    """Hosts, or host:port, whose certificate is not checked."""
    timeout: float = 30.0
    """Seconds to wait for each answer."""


def read_settings(environ: Mapping[str, str] | None = None, files: Iterable[Path] | None = None) -> IndexSettings:
    """The settings that count here.

    Args:
        environ: The environment; by default this process's.
        files: pip's configuration files, the weakest first; by default those of `config_files`.

    Raises:
        InputFileError: a configuration file cannot be parsed.
    """
    environ = os.environ if environ is None else environ
    pip = _pip_options(environ, config_files() if files is None else files)
    uv_default = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL") or ""
    uv_more = f"{environ.get('UV_INDEX', '')} {environ.get('UV_EXTRA_INDEX_URL', '')}"
    default = [*_uv_urls(uv_default, environ), *pip.get("index-url", "").split()] or [PYPI]
    indexes = [*_uv_urls(uv_more, environ), *default, *pip.get("extra-index-url", "").split()]
    if any(value.lower() in _ON for value in (pip.get("no-index", ""), environ.get("UV_NO_INDEX", ""), environ.get("UV_OFFLINE", ""))):
        indexes = []
    return IndexSettings(
        find_links=_unique(pip.get("find-links", "").split()),
        indexes=_unique(indexes),
        certificates=pip.get("cert") or None,
        proxy=pip.get("proxy") or None,
        unverified=tuple(f"{pip.get('trusted-host', '')} {environ.get('UV_INSECURE_HOST', '')}".split()),
        timeout=_seconds(pip.get("timeout") or pip.get("default-timeout") or ""),
    )


def config_files() -> list[Path]:
    """The places of pip's configuration files on this platform, the weakest first."""
    given = os.environ.get("PIP_CONFIG_FILE")
    if given == os.devnull:
        return []
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    site = platformdirs.site_config_dir("pip", appauthor=False, multipath=True).split(os.pathsep)
    user = Path(platformdirs.user_config_dir("pip", appauthor=False, roaming=True))
    if sys.platform == "darwin":
        site = platformdirs.site_data_dir("pip", appauthor=False, multipath=True).split(os.pathsep)
        user = Path(platformdirs.user_data_dir("pip", appauthor=False))
        user = user if user.is_dir() else Path.home() / ".config" / "pip"
    elif sys.platform != "win32":
        site.append("/etc")
    found = [Path(folder) / name for folder in site]
    if not (given and Path(given).exists()):
        found += [Path.home() / ("pip" if sys.platform == "win32" else ".pip") / name, user / name]
    found.append(Path(sys.prefix) / name)
    return [*found, Path(given)] if given else found


def _pip_options(environ: Mapping[str, str], files: Iterable[Path]) -> dict[str, str]:
    sections: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for file in files:
        for section, options in _parsed(file).items():
            if section in sections:
                sections[section] |= options
    found: dict[str, str] = {}
    for options in sections.values():
        found |= {name: value for name, value in options.items() if value}
    variables = {name[4:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("PIP_")}
    return found | {name: value for name, value in variables.items() if value}


def _parsed(file: Path) -> dict[str, dict[str, str]]:
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError:  # pip passes over a file that is not there or cannot be read, too
        return {}
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:  # its own words would show the line, which may hold credentials
        fault = type(error).__name__
        raise InputFileError(f"pip's configuration file {file} cannot be parsed ({fault}); correct it: pip config edit") from None
    return {s: {name.lower().replace("_", "-").removeprefix("--"): value for name, value in parser.items(s)} for s in parser.sections()}


def _uv_urls(text: str, environ: Mapping[str, str]) -> list[str]:
    """URLs as uv lists them, with spaces between; one may be `name=url`, and that name's credentials stand in variables."""
    found = []
    for entry in text.split():
        named = re.fullmatch(r"([A-Za-z0-9._-]+)=(.+)", entry)
        if named is None:
            found.append(entry)
            continue
        name, url = named.groups()
        key = re.sub(r"[^A-Z0-9]", "_", name.upper())
        login = [environ.get(f"UV_INDEX_{key}_{part}", "") for part in ("USERNAME", "PASSWORD")]
        parts = urlsplit(url)
        if any(login) and "@" not in parts.netloc:
            url = urlunsplit(parts._replace(netloc=f"{':'.join(quote(part, safe='') for part in login)}@{parts.netloc}"))
        found.append(url)
    return found


def _unique(places: Iterable[str]) -> tuple[str, ...]:
    """Each place once, a local path as a file URL."""
    urls = (place if "://" in place else Path(place.removeprefix("file:")).expanduser().resolve().as_uri() for place in places)
    return tuple(dict.fromkeys(urls))


def _seconds(text: str) -> float:
    return max(float(text), 1.0) if re.fullmatch(r"\d{1,6}(\.\d+)?", text) else 30.0
