"""The options of `celery worker` on `midwatch worker`. Each is accepted, or refused with the reason and an alternative."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

REFUSED: dict[tuple[str, ...], tuple[bool, str]] = {
    ("-B", "--beat"): (True, "run `celery beat` as its own process; it sends midwatch.start"),
    ("-s", "--schedule", "--schedule-filename"): (False, "it belongs to `celery beat`, which is its own process"),
    ("--scheduler",): (False, "it belongs to `celery beat`, which is its own process"),
    ("-D", "--detach"): (True, "let systemd, Docker or Kubernetes start the worker; they restart it, too"),
    ("--uid",): (False, "let the service manager choose the user"),
    ("--gid",): (False, "let the service manager choose the group"),
    ("--umask",): (False, "let the service manager set it"),
    ("-S", "--statedb"): (False, "it holds revoked tasks; use `midwatch jobs cancel`, which the whole fleet knows"),
    ("--purge", "--discard"): (True, "a step whose message is purged is published again; use `midwatch jobs cancel`"),
    ("-X", "--exclude-queues"): (False, "name the queues to serve with -Q"),
    ("-I", "--include"): (False, "MIDWATCH_AGENTS names the modules to import"),
    ("--time-limit",): (False, "each tool has its own timeout_s, and the limit of the pool follows from them"),
    ("--soft-time-limit",): (False, "each tool has its own timeout_s"),
    ("--prefetch-multiplier",): (False, "a worker takes a message only when a slot is free"),
    ("--pool-start-method",): (False, "children are forked, so that agents are imported once"),
    ("--heartbeat-interval",): (False, "Flower expects Celery's own interval"),
}
"""Celery's option -> is it a flag, and why it is refused."""

IGNORED = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--disable-prefetch")
"""Flags that ask for what every worker does anyway. Heartbeats are events, so events switch them on and off."""

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "FATAL")


@dataclass(frozen=True)
class CeleryOptions:
    """The options that Celery's worker gets as they are."""

    autoscale: str | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    pidfile: str | None = None

    def arguments(self, pool: str) -> tuple[str, ...]:
        """Return Celery's arguments.

        Raises:
            click.UsageError: an option needs a prefork pool.

        """
        children = {
            "--autoscale": self.autoscale,
            "--max-tasks-per-child": self.max_tasks_per_child,
            "--max-memory-per-child": self.max_memory_per_child,
        }
        given = {name: str(value) for name, value in children.items() if value is not None}
        if given and pool != "prefork":
            raise click.UsageError(
                f"{', '.join(given)}: only the children of a prefork pool can be added and replaced, and this worker has "
                f"the {pool} pool; add --pool prefork, or serve tools in a worker with --queues tools"
            )
        if self.pidfile:
            given["--pidfile"] = self.pidfile
        return tuple(f"{name}={value}" for name, value in given.items())


def make_node(name: str | None) -> str:
    """Return Celery's name of the worker: `w1` on this host, or `w1@%h` as it is."""
    return name if name and "@" in name else f"{name or 'celery'}@%h"


def read_autoscale(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """Check `MAX,MIN`."""
    if text is None:
        return None
    numbers = text.split(",")
    if len(numbers) != 2 or not all(number.strip().isdecimal() for number in numbers):
        raise click.BadParameter(f"{text!r}: expected MAX,MIN, such as 8,2")
    most, least = sorted((int(number) for number in numbers), reverse=True)
    if least < 1:
        raise click.BadParameter(f"{text!r}: expected at least 1 child")
    return f"{most},{least}"


def read_concurrency(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Check a number. `auto` and 0 mean the default, as in Celery."""
    if text in (None, "auto", "0"):
        return None
    if not str(text).isdecimal() or not 1 <= int(str(text)) <= 1_000:
        raise click.BadParameter(f"{text!r}: expected a number from 1 to 1000, or auto")
    return int(str(text))


def read_pool(_context: click.Context, _parameter: click.Parameter, name: str | None) -> str | None:
    """Check the pool. `processes` is Celery's other name of prefork."""
    if name in ("gevent", "eventlet"):
        raise click.BadParameter(
            f"{name!r}: expected threads, prefork or solo. At a stop greenlets lose running steps, and they hold fewer calls "
            "than threads"
        )
    if name not in (None, "threads", "prefork", "processes", "solo"):
        raise click.BadParameter(f"{name!r}: expected threads, prefork or solo")
    return "prefork" if name == "processes" else name


def set_level(_context: click.Context, _parameter: click.Parameter, level: str | None) -> None:
    """Set MIDWATCH_LOG_LEVEL for this process and its children, before the settings are read."""
    if level:
        os.environ["MIDWATCH_LOG_LEVEL"] = "CRITICAL" if level == "FATAL" else level


def set_events(_context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Set MIDWATCH_EVENTS, in the same way."""
    if wanted:
        os.environ["MIDWATCH_EVENTS"] = "true"


def append_to_file(path: str, node: str) -> None:
    """Append all output of this process and its children to a file. `%n` and `%h` are the worker's name and host."""
    from celery.utils.nodenames import node_format

    descriptor = os.open(node_format(path, node), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def refuse_others(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add Celery's other options, hidden. Each is refused with its reason, or asks for what every worker does anyway."""
    for names, (is_flag, reason) in REFUSED.items():
        command = click.option(
            *names, is_flag=is_flag, hidden=True, expose_value=False, callback=_refuse(names[-1], reason), help=reason
        )(command)
    for name in IGNORED:
        command = click.option(name, is_flag=True, hidden=True, expose_value=False, help="So is every worker.")(command)
    return command


def _refuse(name: str, reason: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def refuse(_context: click.Context, _parameter: click.Parameter, value: object) -> None:
        if value:
            raise click.UsageError(f"{name} is an option of `celery worker` that a fleet does not take: {reason}")

    return refuse
