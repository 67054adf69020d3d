"""`demeanor serve`: the monitor in front of a chatbot, as an OpenAI-compatible server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demeanor.cli import console
from demeanor.cli.policy import say_opening
from demeanor.errors import GatewayError, MissingExtraError

if TYPE_CHECKING:
    from demeanor.gateway.config import GatewayConfig
    from demeanor.monitor.session import Monitor
    from demeanor.review.versions import Version

DRAIN = 30  # seconds for what is in work when the server is told to end


def serve(
    upstream: Annotated[
        str | None,
        typer.Option("--upstream", help="The chatbot's base URL, e.g. https://api.openai.com/v1. Default: the loaded model answers."),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A YAML file; options given here come before it.")] = None,
    host: Annotated[str | None, typer.Option("--host", help="Where to listen. Default: 127.0.0.1, this machine only.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Default: 8080; 0 takes any that is free.")] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="guarded (withholds), review-only (flags), none (judges nothing; 127.0.0.1 only), or a YAML file."),
    ] = None,
    country: Annotated[
        str | None, typer.Option("--country", help="Whose crisis resources are named: US, GB, ..., or none. Default: US.")
    ] = None,
    audit: Annotated[Path | None, typer.Option("--audit", help="Record every decision in this audit log, e.g. audit.db.")] = None,
    vectors: Annotated[Path | None, typer.Option("--vectors", help="Folder of a vector set. Default: ./vectors, else built in.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Default: the model that the vectors were made with.")] = None,
    quantization: Annotated[str | None, typer.Option("--quantization", help="8bit or 4bit (bitsandbytes, CUDA only).")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, mps. Default: auto.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="auto, bfloat16, float16, float32. Default: auto.")] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="The file of keys (see demeanor keys add). Needed to listen beyond this machine.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and the policy, and serve nothing.")] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print a configuration with every default and comments.")] = False,
) -> None:
    """Serve an OpenAI-compatible endpoint in which every reply is judged before it is shown, streamed ones too.

    Point your client's base URL at http://127.0.0.1:8080/v1. The upstream's key is taken from DEMEANOR_UPSTREAM_KEY, else the
    client's own is passed on.

    Example: demeanor serve --upstream https://api.openai.com/v1 --audit audit.db
    """
    from demeanor.gateway.config import load_config, template
    from demeanor.gateway.starting import check_open, promoted

    if print_config:
        typer.echo(template(), nl=False)
        return
    given = {"upstream": upstream, "host": host, "port": port, "policy": policy, "country": country, "audit": audit, "model": model}
    given |= {"vectors": vectors, "quantization": quantization, "device": device, "dtype": dtype, "keys": keys}
    chosen = load_config(config, **given)
    check_open(chosen)
    chosen, version = promoted(chosen)
    if version is None and chosen.vectors is None:
        chosen = chosen.model_copy(update={"vectors": console.given_vectors(None)})
    if check:
        _check(chosen, version)
        return
    _serve(chosen, version)


def _check(config: GatewayConfig, version: Version | None) -> None:
    """Resolve the policy against the vector set, without a model. Raises DemeanorError."""
    from demeanor.gateway.notify import secret_from
    from demeanor.gateway.starting import calls_nobody, policy_of
    from demeanor.monitor.replies import load_replies

    load_replies().check_country(config.country)
    policy = policy_of(config, version).resolve(console.vector_set(config.vectors, config.model))
    if (problem := calls_nobody(config, policy)) is not None:
        raise GatewayError(problem)
    if config.notify is not None:
        secret_from()
    console.out.print(f"sound: policy {policy.policy.identity}, {len(policy.rules)} rules; nothing was served", soft_wrap=True)


def _serve(config: GatewayConfig, version: Version | None) -> None:
    try:
        import uvicorn

        from demeanor.gateway.application import build
    except ImportError as error:
        raise MissingExtraError("demeanor serve needs starlette, uvicorn and httpx2: pip install 'demeanor[serve]'") from error
    from demeanor.gateway.starting import start

    class Server(uvicorn.Server):
        """Says where it listens, once it does: port 0 is any that is free."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and self.servers:
                port = self.servers[0].sockets[0].getsockname()[1]
                host = f"[{config.host}]" if ":" in config.host else config.host
                console.out.print(f"serving http://{host}:{port}/v1 (Ctrl-C ends it)", soft_wrap=True, markup=False)

    vectors = console.vector_set(config.vectors, config.model)
    with console.loading_model(config.model or vectors.model.name):
        monitor = start(config, version=version)
    with monitor:
        app = build(config, monitor)
        _say(config, monitor, version)
        Server(
            uvicorn.Config(
                app,
                host=config.host,
                port=config.port,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=DRAIN,
            )
        ).run()


def _say(config: GatewayConfig, monitor: Monitor, version: Version | None) -> None:
    """What the operator should know before the first request."""
    from demeanor.gateway.starting import calls_nobody

    if monitor.problem is not None:
        console.problem(f"nothing can be scored, and the policy's not_scored action is taken for every reply: {monitor.problem}")
    if (problem := calls_nobody(config, monitor.policy)) is not None:
        console.problem(problem)
    if not monitor.policy.rules:
        console.problem("policy none: no reply is judged, and every reply is shown")
    else:
        say_opening(monitor)
    if config.audit is None:
        console.note("no audit log: decisions are not recorded; --audit audit.db records them")
    if version is not None:
        console.note(f"version {version.number} is in force, promoted by {version.who}; another one is taken up when you start again")
    if config.review is not None:
        console.note("replies are kept for people to review, with their text; see /dashboard/")
    behind = config.upstream or f"{monitor.model}, which answers itself"
    console.out.print(f"in front of {behind}; policy {monitor.policy.policy.identity}", soft_wrap=True, markup=False)
