"""From a configuration to a monitor that is ready to judge."""

from __future__ import annotations

from pathlib import Path

from demeanor.errors import DemeanorError, GatewayError
from demeanor.gateway.access import check_bind, is_loopback
from demeanor.gateway.around import key_store
from demeanor.gateway.config import GatewayConfig
from demeanor.monitor.policy import Policy, ResolvedPolicy, Stream, load_policy, policy_from
from demeanor.monitor.session import Monitor
from demeanor.review.store import open_store
from demeanor.review.versions import BUILT_IN, Version, in_force
from demeanor.scoring.scorer import Scorer, open_scorer
from demeanor.vectors import VectorSet, built_in

NO_POLICY = "none"
"""The name of the policy that judges nothing, for a plain endpoint to try things with."""


def check_open(config: GatewayConfig) -> None:
    """Raise KeysError or GatewayError where the gateway would be open to others without a key, or show them replies that nobody judged."""
    if config.policy == NO_POLICY and not is_loopback(config.host):
        raise GatewayError(f"policy none judges nothing, and is served on this machine only; listen on 127.0.0.1 instead of {config.host}")
    check_bind(config.host, key_store(config))


def chosen_policy(config: GatewayConfig) -> Policy:
    """The policy that the configuration names. Raises PolicyError."""
    if config.policy == NO_POLICY:  # no file can say this: a policy that is read has a rule
        return Policy.model_construct(version=NO_POLICY, rules=(), audit_failure="allow", stream=Stream(hold_back_words=0))
    return load_policy(config.policy)


def calls_nobody(config: GatewayConfig, policy: ResolvedPolicy) -> str | None:
    """Why nobody would come where a decision calls a person in; None where somebody would, or no rule does."""
    actions = {action for r in policy.rules for action in (r.rule.action, r.not_scored)} | {policy.policy.audit_failure}
    if "escalate" not in actions or (config.notify is not None and "escalate" in config.notify.actions):
        return None
    return (
        "the policy escalates, which calls a person in, and nobody would be told: give notify in the configuration "
        "(see demeanor serve --print-config), or use substitute"
    )


def promoted(config: GatewayConfig) -> tuple[GatewayConfig, Version | None]:
    """The configuration with the vector set that was promoted last in its review store, where it names neither vectors nor a policy.

    Raises:
        ReviewError: the store cannot be read.
        GatewayError: the folder holds another vector set than the one that was promoted.
    """
    if config.review is None or config.policy is not None or config.vectors is not None:
        return config, None
    with open_store(config.review.store) as store:
        version = in_force(store)
    if version is None:
        return config, None
    vectors = built_in.load() if version.vectors == BUILT_IN else VectorSet.load(version.vectors)
    if vectors.fingerprint() != version.fingerprint:
        raise GatewayError(
            f"version {version.number} in {config.review.store} was promoted with another vector set than the one in {version.vectors}; "
            "promote it again, or name vectors and policy"
        )
    return (config if version.vectors == BUILT_IN else config.model_copy(update={"vectors": Path(version.vectors)})), version


def policy_of(config: GatewayConfig, version: Version | None) -> Policy:
    """The policy that was promoted, else the one that the configuration names. Raises PolicyError."""
    return chosen_policy(config) if version is None else policy_from(version.policy_text, f"version {version.number}")


def start(config: GatewayConfig, scorer: Scorer | None = None, version: Version | None = None) -> Monitor:
    """The monitor of a gateway. Raises DemeanorError for what cannot be read or does not fit.

    Args:
        config: As `promoted` gives it.
        scorer: Where one is loaded.
        version: What was promoted.
    """
    if config.audit is not None and not config.audit.absolute().parent.is_dir():
        raise GatewayError(f"audit: the folder {config.audit.parent} does not exist; make it first")
    chosen = policy_of(config, version)
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
