"""`midwatch dev`: run the whole system on this machine with the user's own agents, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.demo.screen import Screen
from midwatch.workers.demo.stage import Stage
from midwatch.workers.dev_address import AddressFile, DevRuns, dev_folder, lock_address

HOST = "127.0.0.1"
REDIS_PORT = 6389
MODEL_PORT = 6390
FLOWER_PORT = 5555
"""Fixed, so that an address that was exported or bookmarked stays valid after a restart."""

STAND_IN = "midwatch.workers.demo.stand_in:answer"


@dataclass(frozen=True)
class DevPlan:
    """The decisions that are made before anything starts."""

    agents: str
    """The value of MIDWATCH_AGENTS."""
    prefix: str
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Each variable that is not set and holds a vendor's key -> the agents that need it."""
    providers: tuple[str, ...] = ()
    """The providers that are simulated."""
    rules: tuple[str, ...] = ()
    """Options of `midwatch simulate` that say how the simulated model answers."""
    redis_port: int = REDIS_PORT
    model_port: int = MODEL_PORT
    flower_port: int = FLOWER_PORT
    concurrency: int = 16


def run_dev(plan: DevPlan) -> int:
    """Run the whole system until Ctrl-C. Returns the exit code.

    Raises:
        ConfigError: a port is taken, or another `midwatch dev` runs in this folder.

    """
    screen = Screen()
    folder = _make_folder()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as with Ctrl-C, and remove the file
    try:
        with lock_address() as file:
            _check_ports(plan)
            _serve(plan, folder, file, screen)
    except DevRuns as error:
        raise ConfigError(f"a `midwatch dev` runs in this folder already ({error} is locked): end it first") from error
    return 0


def _serve(plan: DevPlan, folder: Path, file: AddressFile, screen: Screen) -> None:
    model = [*(plan.rules or ("--rules", STAND_IN)), "--port", str(plan.model_port)] if plan.providers else None
    env = {"MIDWATCH_AGENTS": plan.agents}
    with Stage(folder, env, model, providers=plan.providers, redis_port=plan.redis_port) as stage:
        file.write({"redis_url": stage.server.url, "prefix": plan.prefix, "pid": os.getpid()})
        stage.start_worker("model-1", "model,maintenance", "threads", plan.concurrency)
        stage.start_worker("tools-1", "tools", "prefork", 2)
        stage.start_flower(plan.flower_port)
        stage.await_workers()
        stage.fleet.watch()
        screen.print_dev(stage, _describe_models(plan), str(file.path))
        wait_for_interrupt()


def wait_for_interrupt() -> None:
    """Wait until Ctrl-C."""
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _describe_models(plan: DevPlan) -> str:
    if not plan.providers:
        return "the vendors are called: their keys are set"
    names = ", ".join(plan.providers)
    if plan.rules:
        return f"simulated ({names}), by {plan.rules[1]}"
    return f"simulated ({names}): {', '.join(plan.missing)} not set. Answers say that they are simulated"


def _make_folder() -> Path:
    """Make the folder of the data and the logs. Git ignores it."""
    folder = dev_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", "utf-8")
    return folder


def _check_ports(plan: DevPlan) -> None:
    _check_port(plan.flower_port, "--port", "Flower")
    if plan.providers:
        _check_port(plan.model_port, "--model-port", "the simulated model")
    _check_port(plan.redis_port, "--redis-port", "the server")


def _check_port(port: int, option: str, what: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {HOST} is taken, so {what} can't listen there: end the program that uses it "
                f"(another `midwatch dev`?), or choose another port with {option}"
            ) from error
