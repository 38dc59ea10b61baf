"""`midwatch bench judged`: run the fleet and naive fleets against the same independent judge, llmock."""

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
    """Run all contestants in turn, or only those in `only`. Each gets a new judge and a new server.

    Returns:
        `rows`, one for each contestant; `missed`, the targets that a Midwatch fleet missed; the machine's load.

    Raises:
        ConfigError: llmock is not installed, or a name in `only` is unknown.

    """
    if unknown := set(only) - {contestant.name for contestant in CONTESTANTS}:
        known = ", ".join(contestant.name for contestant in CONTESTANTS)
        raise ConfigError(f"no contestant {', '.join(sorted(unknown))!r}; there are: {known}")
    rows: list[dict[str, Any]] = []
    missed: list[str] = []
    for contestant in CONTESTANTS:
        if only and contestant.name not in only:
            continue
        trial = Trial(contestant, rpm, seconds)
        say(f"{contestant.name}: {2 * trial.jobs} calls, {rpm} a minute for each vendor")
        judgement, lost = trial.run()
        values = asdict(judgement).items()
        figures = {key: round(value, 3) if isinstance(value, float) else value for key, value in values}
        rows.append({"fleet": contestant.name, "jobs": 2 * trial.jobs, "lost": lost, **figures})
        if not contestant.task:
            missed += [f"{contestant.name}: {what}" for what in find_shortfalls(contestant, judgement, lost)]
    return {"rows": rows, "missed": missed, "llmock": version("llmock"), "load_1m": os.getloadavg()[0]}


def find_shortfalls(contestant: Contestant, judgement: Judgement, lost: int) -> list[str]:
    """Return the missed targets, each with its figure.

    A fleet can use a saved-up minute only if its settings allow it. If they do not, goodput is compared with the rate alone.
    """
    knows_burst = contestant.spent or "burst_s" in (contestant.limits or {})
    goodput = judgement.of_limit if knows_burst else judgement.of_rate
    found = {
        f"{lost} jobs lost": lost > 0,
        f"goodput {goodput:.1%}, expected {LEAST_GOODPUT:.0%}": goodput < LEAST_GOODPUT,
        f"{judgement.throttled_share:.1%} of requests throttled": judgement.throttled_share >= MOST_THROTTLED,
        f"{judgement.most_attempts} attempts at a call": judgement.most_attempts > contestant.most_attempts,
        f"verdict: {judgement.verdict}": judgement.verdict != "passed",
    }
    return [what for what, missed in found.items() if missed]
