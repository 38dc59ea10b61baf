"""Prepare a process for its first step: import the providers' SDKs, make their clients, open a connection to the state.

An SDK's import costs up to 1.2 s of CPU. Inside the first call, it would delay this step and all others of its process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from datetime import date

import structlog

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.agents.known_models import find_ends
from midwatch.orchestration.errors import ModelError
from midwatch.workers import providers
from midwatch.workers.process.runtime import Runtime

log = structlog.get_logger("midwatch.worker")


def find_providers(agents: Iterable[Agent], queues: Iterable[str]) -> dict[str, list[str]]:
    """Find the providers that a worker of these queues calls, each with the names of the agents that need it.

    A worker of the tools queue alone calls no model. A compaction calls only the model that writes summaries.
    """
    served = {queue.rpartition(".")[2] for queue in queues}
    found: dict[str, list[str]] = {}
    for agent in agents:
        models = agent.all_models if "model" in served else ()
        if "maintenance" in served and agent.summary_model:
            models = (*models, agent.summary_model)
        for provider in dict.fromkeys(model.provider for model in models):
            found.setdefault(provider, []).append(agent.name)
    return found


def import_sdks(wanted: Iterable[str]) -> None:
    """Import the modules of these providers. Before a fork, this is paid once for all children."""
    for provider in wanted:
        try:
            providers.import_target(provider)
        except Exception as error:
            log.debug("worker.sdk_not_imported", provider=provider, error=f"{type(error).__name__}: {error}"[:300])


def prepare(runtime: Runtime, queues: Iterable[str]) -> None:
    """Make the clients of the providers, and open a connection to the state. A failure is logged and ends nothing."""
    started_s = time.monotonic()
    wanted = find_providers(runtime.agents, queues)
    ready = [provider for provider, agents in wanted.items() if _is_provider_ready(runtime, provider, agents)]
    try:
        runtime.client.store.client.ping()
    except Exception as error:
        log.error("worker.store_not_ready", error=f"{type(error).__name__}: {error}"[:300])
    ms = round(1_000 * (time.monotonic() - started_s))
    log.info("worker.prepared", pid=os.getpid(), providers=ready, ms=ms)


def _is_provider_ready(runtime: Runtime, provider: str, agents: list[str]) -> bool:
    why = find_missing(runtime.runner.services.model, provider)
    if why is None:
        return True
    log.error("worker.provider_not_ready", provider=provider, agents=agents, error=why)
    return False


def find_missing(load: Callable[[str], object], provider: str) -> str | None:
    """Say what a provider's client lacks: a key, or a package. None if the client can be made."""
    try:
        load(provider)
    except ModelError as error:
        return error.failure.detail[:300]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None


def warn_of_model_ends(agents: Iterable[Agent], today: date) -> None:
    """Log the models whose vendor has announced when it will refuse them, or already refuses them."""
    for agent in agents:
        for model, ends in find_ends(agent.all_models):
            log.warning("model.ends", agent=agent.name, model=model, ends=ends.isoformat(), is_over=ends <= today)
