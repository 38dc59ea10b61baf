"""`midwatch bench judged`: the fleet before a judge that somebody else wrote, and naive fleets before the same one."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.bench.judged.llmock_run import Judgement
from midwatch.workers.bench.judged.trial import Contestant, Trial

CONTESTANTS = (
    Contestant("limits set", {}),
    Contestant("limits and burst set", {"burst_s": 60, "headroom": 0.05}),
    Contestant("nothing set"),
    Contestant("limits set, minute spent", {}, spent=True),
    Contestant("nothing set, minute spent", spent=True),
    Contestant("naive: SDK retries", task="naive.sdk", most_attempts=3),
    Contestant("naive: Celery autoretry", task="naive.autoretry", most_attempts=12),
)

LEAST_GOODPUT = 0.95
MOST_THROTTLED = 0.05


def run(
    *, seconds: int = 120, rpm: int = 120, only: Collection[str] = (), say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Every contestant in turn (or those named), each with a new judge and a new server.

    Returns:
        `rows`, one for each contestant; `missed`, what a fleet of our own fell short of; the load noted.

    Raises:
        ConfigError: llmock is not installed, or nobody is called by a name in `only`.

    """
    if strangers := set(only) - {contestant.name for contestant in CONTESTANTS}:
        known = ", ".join(contestant.name for contestant in CONTESTANTS)
        raise ConfigError(f"no contestant {', '.join(sorted(strangers))!r}; there are: {known}")
    rows: list[dict[str, Any]] = []
    missed: list[str] = []
    for contestant in CONTESTANTS:
        if only and contestant.name not in only:
            continue
        trial = Trial(contestant, rpm, seconds)
        say(f"{contestant.name}: {2 * trial.jobs} calls, {rpm} a minute for each vendor")
        judged, lost = trial.run()
        figures = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(judged).items()}
        rows.append({"fleet": contestant.name, "jobs": 2 * trial.jobs, "lost": lost, **figures})
        if not contestant.task:
            missed += [f"{contestant.name}: {what}" for what in shortfalls(contestant, judged, lost)]
    return {"rows": rows, "missed": missed, "llmock": version("llmock"), "load_1m": os.getloadavg()[0]}


def shortfalls(contestant: Contestant, judged: Judgement, lost: int) -> list[str]:
    """What of the targets was not reached, with the figure.

    Goodput is asked of the rate alone where the fleet was not told that a whole minute may be saved up.
    """
    told = contestant.spent or "burst_s" in (contestant.limits or {})
    goodput = judged.of_limit if told else judged.of_rate
    found = {
        f"{lost} jobs lost": lost > 0,
        f"goodput {goodput:.1%}, expected {LEAST_GOODPUT:.0%}": goodput < LEAST_GOODPUT,
        f"{judged.throttled_share:.1%} of requests throttled": judged.throttled_share >= MOST_THROTTLED,
        f"{judged.most_attempts} attempts at a call": judged.most_attempts > contestant.most_attempts,
        f"verdict: {judged.verdict}": judged.verdict != "passed",
    }
    return [what for what, missed in found.items() if missed]
