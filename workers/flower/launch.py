"""`midwatch flower`: run Flower on the fleet's Celery app, with Midwatch's pages and with safe defaults."""

from __future__ import annotations

import difflib
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.settings import settings

log = structlog.get_logger("midwatch.flower")

MAX_TASKS = 10_000
"""Rows that Flower keeps in memory. A row takes 5 KB (measured), so Flower's default of 100,000 grows to half a GB."""

EXIT_WAIT_S = 2.0
"""How long Flower waits for its threads when it ends."""


def run(port: int, address: str, extra: Sequence[str] = ()) -> None:
    """Serve until SIGTERM or SIGINT. `extra` are options of Flower (`--basic_auth=...`). They win over the arguments.

    Raises:
        ConfigError: an option is unknown, the port is taken, or the network could see jobs without a login.

    """
    from midwatch.workers import telemetry

    telemetry.configure(settings())
    flower = build(port, address, extra)
    _listen(flower)
    _stop_on_signals(flower)
    flower.start()
    _end_process()


def build(port: int, address: str, extra: Sequence[str] = ()) -> Any:
    """Build Flower without listening. Flower's options are global, so a process can have one Flower only."""
    from flower import command
    from flower.app import Flower
    from flower.options import options
    from flower.urls import settings as web_settings
    from tornado.ioloop import IOLoop

    from midwatch.workers.celery_app.app import app
    from midwatch.workers.flower import guard
    from midwatch.workers.flower.event_filter import FilteredEvents
    from midwatch.workers.flower.install import install

    _read_options(options, [f"--port={port}", f"--address={address}", *extra])
    guard.refuse_open(options)
    install()
    command.extract_settings()
    command.setup_logging()
    loop = IOLoop.current()
    events = FilteredEvents(
        app,
        loop,
        db=options.db,
        persistent=options.persistent,
        enable_events=options.enable_events and settings().events,
        state_save_interval=options.state_save_interval,
        max_workers_in_memory=options.max_workers,
        max_tasks_in_memory=options.max_tasks,
    )
    return Flower(options=options, capp=app, events=events, io_loop=loop, **web_settings)


def _read_options(options: Any, argv: list[str]) -> None:
    """Read options: defaults here, then `FLOWER_*` variables, then `flowerconfig.py`, then the command line."""
    from flower import command
    from tornado.options import Error, define

    from midwatch.workers.flower.event_filter import format_task
    from midwatch.workers.flower.guard import UNPROTECTED

    if UNPROTECTED not in options:
        define(UNPROTECTED, default=False, type=bool, help="run without a login, because a proxy in front requires one")
    options.max_tasks = MAX_TASKS
    options.format_task = format_task
    options.logging = settings().log_level.lower()
    _check_known(options, argv)
    try:
        command.apply_env_options()
        command.apply_options("midwatch flower", argv)
    except (Error, ValueError, KeyError) as error:
        raise ConfigError(f"an option of Flower is wrong: {error}; `midwatch flower -- --help` lists them") from error


def _check_known(options: Any, argv: Sequence[str]) -> None:
    """Refuse unknown options. Flower would ignore them, also a misspelt --basic_auth."""
    known = {name.replace("-", "_") for name in options}
    for given in argv:
        name = given.lstrip("-").partition("=")[0].replace("-", "_")
        if given.startswith("--") and name in known:
            continue
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean --{close[0]}?" if close else "`midwatch flower -- --help` lists them"
        raise ConfigError(f"Flower has no option {given.partition('=')[0]!r}, expected --NAME=VALUE; {hint}")


def _listen(flower: Any) -> None:
    options = flower.options
    try:
        port = flower.start_http_server()
    except OSError as error:
        where = options.unix_socket or f"port {options.port} of {options.address or 'this machine'}"
        raise ConfigError(f"can't listen on {where} ({error.strerror or error}); give another --port") from error
    host = options.address or "127.0.0.1"
    path = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
    origin = f"{'https' if flower.ssl_options else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    log.info("flower.ready", url=f"{origin}{path}/jobs", broker=flower.broker_uri)


def _stop_on_signals(flower: Any) -> None:
    """Stop the event loop on a signal. Flower's own handler would raise an exception inside the running callback."""
    for number in (signal.SIGTERM, signal.SIGINT):
        flower.io_loop.asyncio_loop.add_signal_handler(number, flower.stop)


def _end_process() -> None:
    """End the process even if a thread of Flower still waits for an unavailable broker, which can take minutes."""
    deadline_s = time.monotonic() + EXIT_WAIT_S
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
    for thread in others:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    if left := [thread.name for thread in others if thread.is_alive()]:
        log.warning("flower.threads_left", threads=left)
        logging.shutdown()
        os._exit(0)
