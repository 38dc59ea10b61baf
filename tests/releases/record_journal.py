"""Record a journal: jobs in the middle of their work, as the code of an earlier release stores them.

    PYTHONPATH=CHECKOUT python tests/releases/record_journal.py REDIS_URL > tests/releases/COMMIT.json

CHECKOUT is a work tree of the earlier commit, whose packages are named `orchestration` and `schemas`. The journal holds
every key with its type and value. Nothing in it was written by hand.
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import redis

sys.path.insert(0, str(Path(__file__).parent))
from release_agents import REPLIES, RUN_BEFORE, make_agents

PREFIX = "journal"


class Clock:
    """The real clock."""

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def sleep_ms(self, ms: int) -> None:
        time.sleep(ms / 1000)


class Steps:
    """A dispatcher that keeps the published steps."""

    def __init__(self) -> None:
        self.refs: list[Any] = []

    def publish(self, refs: Any, *, begun: bool = False) -> None:
        self.refs += refs

    def first_queue(self, priority: Any) -> None:
        return None

    def hand_off(self, priority: Any) -> None:
        return None

    def message(self, ref: Any, *, begun: bool = False) -> bytes:
        return b""


def main(url: str) -> None:
    """Record all scenarios."""
    named = importlib.import_module
    api, schemas_step = named("orchestration"), named("schemas.step")
    store_module, jobs = named("orchestration.store"), named("orchestration.jobs")
    runner_module, registry = named("orchestration.step"), named("orchestration.registry")
    scripted, failure = named("orchestration.scripted_model"), named("schemas.failure")
    keys = named("orchestration.keyspace").Keyspace(PREFIX)
    gate = named("orchestration.admission.open_gate").OpenGate()
    leases = named("orchestration.leases").LeaseKeeper
    client = redis.Redis.from_url(url)
    agents = make_agents(api)
    steps = Steps()
    store = store_module.RedisStore(client, keys, steps, lease_ms=200)
    operations = store_module.Operations(client, keys, steps)
    journal: dict[str, Any] = {"jobs": {}, "keys": {}}
    for name, replies in REPLIES.items():
        if name == "child":  # its parent enqueues it
            continue
        made = [
            failure.FailureKind.OVERLOADED
            if reply is None
            else reply
            if isinstance(reply, str)
            else scripted.call(reply[0], **reply[1])
            for reply in replies
        ]
        model = scripted.ScriptedModel(made)
        clock = Clock()
        runner = runner_module.StepRunner(
            store, registry.Registry(agents.values()), lambda provider, model=model: model, gate,
            leases(store.renew, clock, 200), clock, "recorder",
        )  # fmt: skip
        agent = agents["chief" if name == "parent" else "clerk"]
        session = "s-queued" if name == "behind" else f"s-{name}"
        job = jobs.new_job(agent, f"Scenario {name}.", job_id=f"job-{name}", session_id=session)
        steps.refs.clear()
        store.enqueue(job)
        done = 0
        while done < RUN_BEFORE[name]:
            if not steps.refs:
                time.sleep(0.01)
                due, _ = operations.sweep(patience_ms=0, stale_ms=0, idle=(True, True))
                steps.refs += due
                continue
            runner.run(steps.refs.pop(0))
            done += 1
        if name in ("lost", "effect"):  # a worker takes the call and vanishes
            store.claim(schemas_step.StepRef(job_id=job.job_id, session_id=session, step="1.0"), "a worker that dies")
        if name == "rejected":
            operations.decide(job.job_id, approve=False, reason="over | the limit")
        journal["jobs"][name] = {"job_id": job.job_id, "turns_taken": len(model.requests)}
    time.sleep(0.3)  # leases expire
    for key in sorted(client.scan_iter(f"{PREFIX}:*")):
        journal["keys"][key.decode()] = dump(client, key)
    json.dump(journal, sys.stdout, indent=1)
    print()


def dump(client: redis.Redis, key: bytes) -> Any:
    """Return a key's type and value, as text where possible."""
    kind = client.type(key).decode()
    match kind:
        case "string":
            value: Any = text(client.get(key))
        case "hash":
            value = {text(name): text(one) for name, one in sorted(client.hgetall(key).items())}
        case "list":
            value = [text(one) for one in client.lrange(key, 0, -1)]
        case "zset":
            value = [[text(member), score] for member, score in client.zrange(key, 0, -1, withscores=True)]
        case _:
            raise ValueError(f"{key!r}: a {kind} is not expected")
    return {"type": kind, "expires": client.ttl(key) > 0, "value": value}


def text(raw: bytes) -> str:
    """Return bytes as UTF-8 text, or as `base64:` and base64."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()


if __name__ == "__main__":
    main(sys.argv[1])
