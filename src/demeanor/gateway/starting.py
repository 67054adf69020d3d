"""From a configuration to a monitor that is ready to judge."""

from __future__ import annotations

from demeanor.errors import DemeanorError, GatewayError
from demeanor.gateway.config import GatewayConfig
from demeanor.monitor.policy import load_policy
from demeanor.monitor.session import Monitor
from demeanor.scoring.scorer import Scorer, open_scorer


def start(config: GatewayConfig, scorer: Scorer | None = None) -> Monitor:
    """The monitor of a gateway; `scorer` where one is loaded. Raises DemeanorError for what cannot be read or does not fit."""
    if config.audit is not None and not config.audit.absolute().parent.is_dir():
        raise GatewayError(f"audit: the folder {config.audit.parent} does not exist; make it first")
    chosen = load_policy(config.policy)
    loaded: Scorer | DemeanorError
    if scorer is not None:
        loaded = scorer
    else:
        try:
            loaded = open_scorer(config.vectors, config.model, config.device, config.dtype, config.quantization)  # type: ignore[arg-type]
        except DemeanorError as error:  # the gateway answers all the same: nothing is scored, and /readyz says why
            loaded = error
    monitor = Monitor(loaded, chosen, config.country, config.audit)
    if config.baseline is not None:
        from demeanor.monitor.baselines import load_baselines

        monitor.watch_drift(load_baselines(config.baseline, monitor.vectors))
    return monitor
