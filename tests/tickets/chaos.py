"""Faults on purpose: seeded, logged, and over when the block ends."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import redis

from midwatch.schemas.step import Priority, StepRef
from midwatch.workers.celery_app.dispatch import RedisDispatcher
from midwatch.workers.redis_connection import connect_redis
from tests.tickets.stage import Stage

IDS = re.compile(
    rb'job_id[\\"]+:[\\" ]+([^"\\]+)[\\"]+,[\\" ]+session_id[\\"]+:[\\" ]+([^"\\]+)[\\"]+,[\\" ]+step[\\"]+:[\\" ]+([0-9.]+)'
)


class Chaos:
    """A context manager. Every added fault runs on a separate thread until the block ends."""

    def __init__(self, stage: Stage, seed: int, kills: int = 0) -> None:
        """`kills` is the number of workers to kill. After that many, no worker is killed or frozen. 0 means no limit."""
        self.stage = stage
        self.kills = kills
        self.rng = random.Random(seed)
        self.log: list[str] = []
        self._over = threading.Event()
        self._out = threading.Event()
        self._troubles: list[threading.Thread] = []

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for trouble in self._troubles:
            trouble.join()

    def _every(self, period_s: float, strike: Callable[[], None]) -> Chaos:
        def work() -> None:
            while not self._over.wait(period_s) and not self._out.is_set():
                strike()

        self._troubles.append(threading.Thread(target=work, daemon=True))
        self._troubles[-1].start()
        return self

    def count_kills(self) -> int:
        """How many workers were killed so far."""
        return sum(line.startswith("killed worker") for line in self.log)

    def kill_workers(self, every_s: float) -> Chaos:
        """kill -9 the process group of one worker. The fleet starts it again."""

        def strike() -> None:
            alive = [worker for worker in self.stage.workers if worker.alive]
            worker = self.rng.choice(alive or self.stage.workers)
            if worker.alive:
                worker.kill_group()
                self.log.append(f"killed {worker.name}")
            if self.count_kills() == self.kills:
                self._out.set()

        return self._every(every_s, strike)

    def freeze_worker(self, every_s: float, for_s: float) -> Chaos:
        """SIGSTOP one worker past its leases, then SIGCONT. It goes on as if nothing had happened."""

        def strike() -> None:
            alive = [worker for worker in self.stage.workers if worker.alive]
            if alive:
                worker = self.rng.choice(alive)
                with suppress(ProcessLookupError):
                    worker.freeze()
                    self.log.append(f"froze {worker.name} for {for_s} s")
                    self._over.wait(for_s)
                    worker.thaw()

        return self._every(every_s, strike)

    def kill_server(self, every_s: float) -> Chaos:
        """kill -9 the server, and start it on the same append-only file a second later."""

        def strike() -> None:
            self.stage.server.kill()
            self.log.append("killed the server")
            time.sleep(1.0)
            self.stage.server.restart()

        return self._every(every_s, strike)

    def deliver_thrice(self) -> Chaos:
        """Watch every push to a queue, and push the same step twice more, a little later."""
        keys = self.stage.client().operations.keys
        client = connect_redis(self.stage.server.url)
        dispatcher = RedisDispatcher(client, keys)
        seen: set[tuple[str, str]] = set()

        def work() -> None:
            while not self._over.is_set():
                with suppress(redis.RedisError, OSError):
                    for ref in _pushed(self.stage.server.url, keys.prefix, self._over):
                        if (ref.job_id, ref.step) not in seen:
                            seen.add((ref.job_id, ref.step))
                            dispatcher.publish((ref, ref))
                            self.log.append(f"tripled {ref.job_id} {ref.step}")
                time.sleep(0.1)

        self._troubles.append(threading.Thread(target=work, daemon=True))
        self._troubles[-1].start()
        return self


def _pushed(url: str, prefix: str, over: threading.Event):  # type: ignore[no-untyped-def]
    """Yield steps whose message was pushed, as the server's MONITOR reports them."""
    connection = redis.Redis.from_url(url, socket_timeout=0.5).connection_pool.get_connection()
    connection.send_command("MONITOR")
    connection.read_response()
    queue = f'"{prefix}.'.encode()
    while not over.is_set():
        try:
            line = connection.read_response(disable_decoding=True)
        except redis.TimeoutError:
            continue
        raw = line if isinstance(line, bytes) else str(line).encode()
        if b'"LPUSH"' in raw.upper() and queue in raw and (found := IDS.search(raw)):
            job_id, session_id, step = (group.decode() for group in found.groups())
            yield StepRef(job_id=job_id, session_id=session_id, step=step, priority=Priority.NORMAL)
