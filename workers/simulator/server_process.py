"""The model server as a process: `midwatch simulate`, or `python -m midwatch.workers.simulator`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import Field

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.contract import Contract
from midwatch.workers.simulator.brains.brain import Brain
from midwatch.workers.simulator.brains.rules import RuleBrain
from midwatch.workers.simulator.brains.script import ScriptBrain
from midwatch.workers.simulator.brains.transcript import TranscriptBrain
from midwatch.workers.simulator.faults.faults import Faults
from midwatch.workers.simulator.server import ModelServer


class Options(Contract):
    """The options of the command line. At most one of script, transcript and rules is set.

    If none is set, each offered tool is called once.
    """

    host: str = "127.0.0.1"
    """The address to listen on. At an address other than loopback, for example in a container, any client that reaches
    the server can change its faults."""
    port: int = Field(default=0, ge=0, le=65_535)
    """0 picks a free port. The printed line contains it."""
    script: Path | None = None
    transcript: Path | None = None
    rules: str | None = None
    """`module:attr`, importable from the working directory."""
    chaos: str = ""
    """A text for `Faults.parse`."""
    seed: int | None = None
    """Replaces the seed in `chaos`."""
    latency_ms: int | str = 0
    """`300`, or a range like `200-800`. In a range, the seed decides the latency of each call."""
    journal: Path | None = None
    exit_with_stdin: bool = False
    """Stop when stdin closes. So the model server stops when its parent process dies."""


def serve(options: Options) -> None:
    """Print one line with `{"url": ...}` when ready, then serve until SIGTERM, SIGINT, or the end of stdin if enabled.

    Raises ConfigError for contradicting or invalid options, and OSError if the port is taken.
    """
    faults = Faults.parse(options.chaos)
    if options.seed is not None:
        faults = faults.model_copy(update={"seed": options.seed})
    over = threading.Event()
    server = ModelServer(
        choose_brain(options),
        faults=faults,
        latency_ms=_latency_ms(options.latency_ms),
        journal=options.journal,
        host=options.host,
        port=options.port,
    )
    kept = _end_on_signals(over)
    try:
        with server:
            if options.exit_with_stdin:
                threading.Thread(target=_end_with_stdin, args=(over,), name="stdin", daemon=True).start()
            print(json.dumps({"url": server.url, "openai_url": server.openai_url, "pid": os.getpid()}), flush=True)
            over.wait()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def choose_brain(options: Options) -> Brain:
    """Make the brain that the options name. Raises ConfigError if they name two."""
    named = {"script": options.script, "transcript": options.transcript, "rules": options.rules}
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"simulate: expected one of --script, --transcript, --rules, got {' and '.join(given)}")
    if options.script:
        return ScriptBrain.read(options.script)
    if options.transcript:
        return TranscriptBrain.read(options.transcript)
    if options.rules:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return RuleBrain.from_name(options.rules)
    return RuleBrain()


def _latency_ms(text: int | str) -> tuple[int, int]:
    low, _, high = str(text).partition("-")
    if not (low.isdecimal() and (high or low).isdecimal()):
        raise ConfigError(f"simulate: --latency-ms: expected a number like 300 or a range like 200-800, got {text!r}")
    return int(low), int(high or low)


def _end_on_signals(over: threading.Event) -> dict[signal.Signals, Any]:
    """Let SIGTERM and SIGINT end the wait, and return the earlier handlers. Only the main thread can set handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}

    def end(_number: int, _frame: FrameType | None) -> None:
        over.set()

    return {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}


def _end_with_stdin(over: threading.Event) -> None:
    sys.stdin.buffer.read()
    over.set()
