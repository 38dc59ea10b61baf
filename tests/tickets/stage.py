"""The whole system as processes on this machine: server, model server, workers, and a producer that plays the tickets."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from midwatch import Client, JobHandle
from midwatch.orchestration.errors import NotFound, StoreUnavailable
from midwatch.schemas.contract import canonical_json
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import StepKind
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.local.process import Member
from midwatch.workers.settings import Settings
from tests.patience import PATIENCE_S, wait_for
from tests.tickets.ledger import Ledger
from tests.tickets.record import Ticket, as_record, expected, tickets

WIRES = ("anthropic", "openai")


@dataclass
class Report:
    """The checker's findings, with the words of Jepsen's total-queue checker."""

    attempted: int = 0
    acknowledged: int = 0
    completed: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated_effects: list[str] = field(default_factory=list)
    missing_effects: list[str] = field(default_factory=list)
    transcripts_differ: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Return whether nothing is lost, doubled, missing or different."""
        return not (self.lost or self.duplicated_effects or self.missing_effects or self.transcripts_differ)


class Stage:
    """Use as a context manager. All its processes die with this process."""

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str,
        env: dict[str, str] | None = None,
        latency_ms: int = 0,
        append_only: Literal["everysec"] | None = "everysec",
    ) -> None:
        self.folder = folder
        self.ledgers = folder / "ledger"
        self.server = EmbeddedServer(folder / "server", append_only=append_only)
        transcript = folder / "transcript.jsonl"
        transcript.write_text("".join(json.dumps(ticket.for_server) + "\n" for ticket in tickets()))
        root = Path(__file__).parents[2]
        self.env = {
            "PYTHONPATH": str(root),
            "MIDWATCH_PREFIX": prefix,
            "MIDWATCH_REDIS_URL": self.server.url,
            "MIDWATCH_AGENTS": "tests.tickets.agents",
            "MIDWATCH_EVENTS": "false",
            "TICKETS_LEDGER": str(self.ledgers),
            "ANTHROPIC_API_KEY": "test",
            "OPENAI_API_KEY": "test",
            **(env or {}),
        }
        self.fleet = Fleet(self.env, folder / "logs")
        python = [sys.executable, "-m", "midwatch.workers.simulator"]
        model = self.fleet.start(
            "model-server",
            [*python, "--port", "0", "--transcript", str(transcript), "--latency-ms", str(latency_ms)],
        )
        wait_ready(model, '"url"')
        url = json.loads(
            next(line for line in (folder / "logs" / "model-server.log").read_text().splitlines() if '"url"' in line)
        )["url"]
        self.env |= {"ANTHROPIC_BASE_URL": url, "OPENAI_BASE_URL": f"{url}/v1"}
        self.workers: list[Member] = []
        self._handles: dict[str, list[JobHandle]] = {}

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.stop()
        self.server.stop()

    def client(self) -> Client:
        """Return a producer's client of this stage."""
        return make_client(Settings(redis_url=self.server.url, prefix=self.env["MIDWATCH_PREFIX"]))

    def start_workers(self, kinds: Sequence[tuple[str, str, int]], env: dict[str, str] | None = None) -> None:
        """Start one worker for each (queues, pool, concurrency), and wait until they consume."""
        for queues, pool, concurrency in kinds:
            name = f"worker-{len(self.workers)}"
            self.workers.append(
                self.fleet.start(name, worker_argv(queues, pool, concurrency, name), {**self.env, **(env or {})})
            )
        for worker in self.workers:
            wait_ready(worker, "ready", timeout_s=PATIENCE_S)

    def play(self, chosen: Sequence[Ticket], wires: Sequence[str] = WIRES) -> None:
        """Enqueue every user turn of every ticket at once. A session runs its jobs in order."""
        client = self.client()
        for wire in wires:
            for ticket in chosen:
                session = f"{wire}-{ticket.number}"
                self._handles[session] = [
                    client.enqueue(f"tickets-{wire}", text, session_id=session, idempotency_key=f"{session}.{n}")
                    for n, text in enumerate(ticket.user_turns)
                ]

    def ended(self) -> int:
        """Return how many jobs have ended, by the fleet's own counters."""
        try:
            counters = self.client().operations.counters()
        except StoreUnavailable:
            return 0
        endings = sum(counters.get(f"jobs.{status.value}", 0) for status in JobStatus if status.ended)
        return endings - counters.get("letters.replayed", 0)

    @property
    def wanted(self) -> int:
        """How many jobs were enqueued."""
        return sum(len(handles) for handles in self._handles.values())

    def wait(self, *, or_letter: bool = False) -> None:
        """Wait until every job has ended.

        With `or_letter` the wait also ends at the first dead letter, because its session waits for a replay.
        """

        def all_ended() -> bool:
            return self.ended() >= self.wanted or (or_letter and self.has_letter())

        wait_for(all_ended, f"{self.wanted} jobs to end", every_s=0.2)

    def has_letter(self) -> bool:
        """Is there a dead letter? False while the server is down."""
        with suppress(StoreUnavailable):
            return bool(self.client().dead_letters.list())
        return False

    def under_way(self, kind: StepKind) -> dict[str, bytes]:
        """Return the rows of steps that a worker holds now, by job and step."""
        client = self.client()
        store, found = client.store, {}
        for job in client.jobs.list(limit=1_000, status="running"):
            rows = store.client.hgetall(store.keys.steps(job.session_id, job.job_id))
            for step, row in rows.items():
                is_tool = b"." in step
                if row.startswith(b"started|") and is_tool is (kind is StepKind.TOOL):
                    found[f"{job.job_id}/{step.decode()}"] = row
        return found

    def under_way_any(self) -> bool:
        """Return whether any step is held, or waits for its retry."""
        running = self.client().jobs.list(limit=1_000, status="running")
        return bool(running)

    def await_new_claim(self, held: dict[str, bytes]) -> None:
        """Wait until the separate process of another worker holds (or has finished) a call that was held. See `under_way`."""

        def taken_over() -> bool:
            now = {step: row.split(b"|") for step, row in self.under_way(StepKind.TOOL).items()}
            taken = [step for step, row in held.items() if step in now and now[step][1] != row.split(b"|")[1]]
            return any(step not in now for step in held) or any(now[step][5].endswith(b"+") for step in taken)

        wait_for(taken_over, "the frozen worker's step to be taken over", every_s=0.05)

    def check(self) -> Report:
        """Compare jobs, effects and transcripts with the record."""
        client, report = self.client(), Report()
        for session, handles in self._handles.items():
            wire, _, number = session.rpartition("-")
            ticket, exact = tickets()[int(number)], wire != "anthropic"
            for handle in handles:
                report.attempted += 1
                try:
                    job = client.jobs.show(handle.id)
                except NotFound:
                    report.lost.append(f"{session}: the job itself")
                    continue
                report.acknowledged += 1
                if job.status is JobStatus.COMPLETED:
                    report.completed += 1
                else:
                    report.lost.append(f"{session}: {job.status} {job.failure}")
            said = as_record(client.operations.messages(session), exact_arguments=exact)
            if said != expected(ticket, exact_arguments=exact):
                report.transcripts_differ.append(session)
            self._check_effects(session, ticket, report)
        return report

    def _check_effects(self, session: str, ticket: Ticket, report: Report) -> None:
        wanted: dict[tuple[str, str], int] = {}
        for message in ticket.spoken:
            for call in message.get("tool_calls") or ():
                key = (call["function"]["name"], canonical_json(json.loads(call["function"]["arguments"])))
                wanted[key] = wanted.get(key, 0) + 1
        effects = Ledger(self.ledgers, session).effects()
        report.duplicated_effects += [f"{session}: {key[0]}" for key, n in effects.items() if n > wanted.get(key, 0)]
        report.missing_effects += [f"{session}: {key[0]}" for key, n in wanted.items() if effects[key] < n]
