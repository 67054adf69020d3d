"""HTTP in front of the monitor: it translates requests to sessions and decisions to answers, and judges nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demeanor.gateway.config import GatewayConfig
    from demeanor.gateway.hooks import Hooks
    from demeanor.gateway.refusals import App
    from demeanor.monitor.session import Monitor


def app(config: GatewayConfig | str | Path | None = None, monitor: Monitor | None = None, hooks: Hooks | None = None) -> App:
    """An ASGI app to serve or to mount.

    Args:
        config: What it does: a configuration, or the path of a YAML file; by default the loaded model answers.
        monitor: What judges; by default one is made as the configuration says, and lives as long as the process.
        hooks: Who may come in, and who is told what happens.

    Raises:
        MissingExtraError: the packages of `demeanor[serve]` are not there.
        DemeanorError: something that the configuration names cannot be read, or does not fit.
    """
    from demeanor.errors import MissingExtraError

    try:
        from demeanor.gateway.application import build
    except ImportError as error:
        raise MissingExtraError("the gateway needs starlette and httpx2: pip install 'demeanor[serve]'") from error
    from demeanor.gateway.config import GatewayConfig, load_config
    from demeanor.gateway.starting import promoted, start

    chosen = config if isinstance(config, GatewayConfig) else load_config(Path(config) if config is not None else None)
    if monitor is None:
        chosen, version = promoted(chosen)
        monitor = start(chosen, version=version)
    return build(chosen, monitor, hooks)
