"""The conditions on dead letters that `dlq list` and `dlq replay --all` take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli.commands.gate import seconds
from midwatch.workers.views.durations import UNITS_S

if TYPE_CHECKING:
    from midwatch.orchestration.protocol.letter_filter import LetterFilter

NAMES = ("kind", "agent", "model", "tool", "downstream", "older")

HELP = {
    "kind": "A kind of failure, or the limit that ended the job. May be repeated.",
    "agent": "Name of the agent, or a pattern such as `support-*`. May be repeated.",
    "model": "Model, or a pattern such as `claude-*`. May be repeated.",
    "tool": "Tool whose call failed, or a pattern. May be repeated.",
    "downstream": "Downstream whose call failed, or that held the job, or a pattern. May be repeated.",
}


def conditions(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option for each condition to a command."""
    older = click.option(
        "--older", "older_s", metavar="TIME", callback=optional_seconds, help="Least age of the letter: 90m, 2h or 7d."
    )
    command = older(command)
    for name, text in reversed(HELP.items()):
        metavar = "KIND" if name == "kind" else "PATTERN"
        command = click.option(f"--{name}", name, metavar=metavar, multiple=True, help=text)(command)
    return command


def make_filter(**given: Any) -> LetterFilter:
    """Return the filter for the options. Raises ConfigError for an unknown kind."""
    from midwatch.orchestration.protocol.letter_filter import LetterFilter

    return LetterFilter.make(**given)


def read_where(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> dict[str, Any]:
    """Read `kind=timeout agent=support-*` into the arguments of `make_filter`. Raises BadParameter."""
    given: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in NAMES or not equals or not value:
            raise click.BadParameter(f"{word!r}: expected NAME=VALUE with one of these names: {', '.join(NAMES)}")
        if name == "older":
            given["older_s"] = seconds(context, parameter, value)
        else:
            given[name] = (*given.get(name, ()), value)
    return given


def read_rate(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Read `5/s`, `100/m` or `5` into a number for each second. Raises BadParameter."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/([smh]))?", text.strip())
    rate_per_s = float(found[1]) / UNITS_S[found[2] or "s"] if found else 0.0
    if rate_per_s <= 0:
        raise click.BadParameter(f"{text!r}: expected a rate such as 5/s or 100/m")
    return rate_per_s


def optional_seconds(context: click.Context, parameter: click.Parameter, text: str | None) -> float:
    """Read a duration such as `90m` into seconds. 0 if it is not given."""
    return seconds(context, parameter, text) if text is not None else 0.0
