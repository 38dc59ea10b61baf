"""`midwatch findings`: show findings that a person should look at, with their evidence."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands.gate import seconds
from midwatch.workers.cli.environment import connect
from midwatch.workers.cli.tables import Column, print_table
from midwatch.workers.views.output import print_json, printable


@click.command("findings")
@click.option(
    "--since",
    "since_s",
    metavar="TIME",
    default="24h",
    show_default=True,
    callback=seconds,
    help="How far back: 90m, 24h or 7d.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    default=0.03,
    show_default=True,
    help="Share of invalid calls at which a row becomes a finding.",
)
@click.option(
    "--agent",
    metavar="PATTERN",
    help="Only findings of this agent, or of a pattern such as `support-*`. Invalid calls are left out: they are counted by "
    "model, without an agent.",
)
@click.option("--model", metavar="PATTERN", help="Only findings of this model, or of a pattern such as `claude-*`.")
@click.option("--all", "everything", is_flag=True, help="Show rows below the threshold as well.")
@options.as_json
def findings(
    since_s: float, threshold: float, agent: str | None, model: str | None, everything: bool, as_json: bool
) -> None:
    """Show findings that a person should look at.

    A finding is a model whose tool calls fail validation too often, by tool and fill of the window; or an agent whose prompts
    had to be cut, because they do not fit into its context budget. Exits with 1 if there is a finding.
    """
    hours = max(1, math.ceil(since_s / 3_600))
    client = connect()
    found = [] if agent else client.findings.drift(hours=hours, threshold=threshold)
    found = [one for one in found if _fits(one.drift.model, model)]
    cut = [
        one
        for one in client.findings.cut_prompts(hours=hours)
        if _fits(one.model, model) and (agent is None or fnmatchcase(one.agent, agent))
    ]
    shown = [one for one in found if everything or one.over]
    if as_json:
        print_json(
            {
                "since_hours": hours,
                "threshold": threshold,
                "rows": [
                    {
                        "finding": "invalid_calls", "model": one.drift.model, "tool": one.drift.tool,
                        "context": one.drift.band, "calls": one.drift.calls, "invalid": one.drift.invalid,
                        "rate": round(one.drift.rate, 4), "kinds": one.drift.kinds, "over": one.over,
                    }
                    for one in (found if everything else shown)
                ]
                + [
                    {
                        "finding": "prompt_cut", "model": one.model, "agent": one.agent, "context": one.band,
                        "calls": one.calls,
                    }
                    for one in cut
                ],
            }
        )  # fmt: skip
    if not as_json and (shown or not cut):
        print_table(
            [
                Column("MODEL"), Column("TOOL"), Column("CONTEXT"), Column("CALLS", "right"), Column("INVALID", "right"),
                Column("RATE", "right"), Column("KINDS"),
            ],
            [
                [
                    printable(one.drift.model), printable(one.drift.tool), one.drift.band, str(one.drift.calls),
                    str(one.drift.invalid), f"{one.drift.rate:.1%}",
                    ", ".join(f"{kind} {count}" for kind, count in sorted(one.drift.kinds.items())),
                ]
                for one in shown
            ],
            empty=_describe_none(agent, model),
        )  # fmt: skip
    if not as_json and cut:
        print_table(
            [Column("AGENT"), Column("MODEL"), Column("CONTEXT"), Column("CALLS WITH A CUT PROMPT", "right")],
            [[printable(one.agent), printable(one.model), one.band, str(one.calls)] for one in cut],
            empty="",
        )
    if cut or any(one.over for one in found):
        raise SystemExit(1)


def _fits(model: str, pattern: str | None) -> bool:
    """Does `provider:model`, or the model's name alone, fit the pattern?"""
    return pattern is None or any(fnmatchcase(name, pattern) for name in (model, model.partition(":")[2]))


def _describe_none(agent: str | None, model: str | None) -> str:
    given = [f"{name} {value}" for name, value in (("agent", agent), ("model", model)) if value]
    return f"no finding fits {' and '.join(given)}" if given else "no findings"
