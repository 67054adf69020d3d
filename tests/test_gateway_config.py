"""The gateway's configuration and its command: mistakes in one line, nothing open to others, a server that ends when it is told."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx2
import pytest
import yaml

from demeanor.audit.counts import report
from demeanor.audit.verification import verify
from demeanor.errors import GatewayError
from demeanor.gateway.access import is_loopback
from demeanor.gateway.config import GatewayConfig, load_config, template


def written(tmp_path, text):
    path = tmp_path / "gateway.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_printed_configuration_holds_every_default():
    raw = yaml.safe_load(template())
    assert GatewayConfig.model_validate(raw) == GatewayConfig()

    def fields(model):
        return {name: fields(f.annotation) if hasattr(f.annotation, "model_fields") else None for name, f in model.model_fields.items()}

    def named(values):
        return {name: named(value) if isinstance(value, dict) else None for name, value in values.items()}

    assert named(raw) == fields(GatewayConfig)


def test_options_come_before_the_file(tmp_path):
    path = written(tmp_path, "upstream: https://one.example/v1\nport: 9000\n")
    assert load_config(path).upstream == "https://one.example/v1"
    assert load_config(path, upstream="https://two.example").upstream == "https://two.example/v1"
    assert load_config(path, port=None).port == 9000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("upsteam: x", "did you mean upstream?"),
        ("limits:\n  body: 3", "'limits.body': unknown field; did you mean body_bytes?"),
        ("port: 99999", "field 'port'"),
        ("upstream: localhost:3000", "no URL"),
        ("upstream: https://key:secret@host/v1", "DEMEANOR_UPSTREAM_KEY"),
        ("- a", "a configuration is a mapping"),
        ("port: 1\nport: 2", "appears twice"),
        ("quantization: 3bit", "field 'quantization'"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path, text, said):
    with pytest.raises(GatewayError) as found:
        load_config(written(tmp_path, text))
    assert said in str(found.value)
    assert "secret" not in str(found.value)
    assert "\n" not in str(found.value)


def test_what_is_this_machine_alone():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(host) for host in ("", "0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"))


def test_the_command_checks_and_refuses(command, tmp_path):
    assert "body_bytes" in command("serve", "--print-config").stdout
    done = command("serve", "--host", "0.0.0.0")
    assert (done.returncode, "would let anybody" in done.stderr) == (2, True)
    done = command("serve", "--config", written(tmp_path, "prot: 1"))
    assert (done.returncode, "did you mean port" in done.stderr) == (2, True)


SERVER = """
import sys, uvicorn
from demeanor.gateway.application import build
from demeanor.gateway.config import load_config
from demeanor.testing import planted_monitor
monitor = planted_monitor(audit=sys.argv[1])
config = uvicorn.Config(build(load_config(), monitor), host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=30)
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)
Server(config).run()
"""


@contextmanager
def serving(log):
    """A server in a process of its own that answers slowly, with its address; it is gone when the block ends."""
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(log)], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        yield server, f"http://127.0.0.1:{int(server.stdout.readline())}/v1/chat/completions"
        server.wait(30)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.mark.slow
def test_a_server_that_is_told_to_end_ends_what_is_in_work_first(tmp_path):
    log = tmp_path / "audit.db"
    with serving(log) as (server, url):
        request = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 200, "temperature": 0, "stream": True}
        with httpx2.stream("POST", url, json=request, timeout=60) as got:
            pieces = got.iter_bytes()
            body = next(pieces)
            server.send_signal(signal.SIGTERM)
            body += b"".join(pieces)
        assert body.endswith(b"data: [DONE]\n\n")
    assert verify(log).whole
    assert report(log)["interrupted"] == 0


@pytest.mark.slow
def test_a_server_that_is_killed_in_mid_stream_leaves_a_whole_log_and_an_interrupted_stream(tmp_path):
    log = tmp_path / "audit.db"
    with serving(log) as (server, url):
        request = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 400, "temperature": 0, "stream": True}
        with httpx2.stream("POST", url, json=request, timeout=60) as got:
            pieces = got.iter_bytes()
            next(piece for piece in pieces if b'"content":"a' in piece)
            server.kill()
            with pytest.raises(httpx2.HTTPError):
                list(pieces)
    assert verify(log).whole
    assert report(log)["interrupted"] == 1
