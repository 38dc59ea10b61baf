"""A stage for the Flower pages: jobs that a test moves through the store, and Flower as a process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from typing import Self

from midwatch import Client
from midwatch.orchestration.client.new_job import new_id
from midwatch.orchestration.keyspace import KEPT_S
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import CallRow, Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.steps import endings
from midwatch.schemas.deadletter import PoisonRecord
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, Text, ToolCall, ToolMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, StepKind, StepRef
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.celery_app.write_message import NUMBERS, numbered_key
from midwatch.workers.settings import Settings
from tests.patience import PATIENCE_S

XSS = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
"""A script that no page may let a browser run."""

BROKEN = Failure(kind=FailureKind.TOOL_ERROR, detail="the payment service said 500")


class Stage:
    """Enqueues jobs and acts as their worker."""

    def __init__(self, redis_url: str, prefix: str) -> None:
        self.client: Client = make_client(Settings(redis_url=redis_url, prefix=prefix))
        self.store = self.client.store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.client.close()

    def begin(self, agent: str = "desk", text: str = "Where is my order?") -> Claim:
        """Enqueue a job and claim its first step."""
        handle = self.client.enqueue(agent, text)
        return self.claim(StepRef(job_id=handle.id, session_id=handle.session_id, step="1"))

    def claim(self, ref: StepRef) -> Claim:
        """Claim a step."""
        claim = self.store.claim(ref, f"stage-{ref.step}-{time.monotonic_ns()}")
        assert isinstance(claim, Claim), f"{ref.step} of {ref.job_id}: {claim}"
        return claim

    def turn(self, claim: Claim, said: str, *tools: str) -> list[Claim]:
        """Commit a model turn that calls `tools`. Return the claims of its calls."""
        calls = [ToolCall(id=f"c{n}", name=name, raw_arguments="{}") for n, name in enumerate(tools)]
        message = AssistantMessage(
            group=claim.group, parts=(Text(text=said), *calls), provider="simulated", model="simulated-1"
        )
        commit = TurnCommit(
            messages=(message,),
            calls=tuple(CallRow(n, call) for n, call in enumerate(calls)),
            usage=Usage(input_tokens=900, output_tokens=60),
            trace=self.trace(claim, "continue", tools=tools),
            tool_calls=len(calls),
        )
        assert self.store.commit_turn(claim, commit) is TurnCommitted.COMMITTED
        return [self.claim(claim.ref.call(n)) for n in range(len(calls))]

    def next_turn(self, call: Claim) -> Claim:
        """Commit the result of a turn's only call. Return the claim of the next turn."""
        assert call.call is not None
        answer = ToolMessage(group=call.group, ordinal=0, call_id=call.call.id, tool=call.call.name, content="done")
        commit = ResultCommit(refs=(call.ref,), messages=(answer,), traces=(self.trace(call, "continue"),))
        assert self.store.commit_results(call, commit)
        return self.claim(call.ref.model_turn(call.ref.turn + 1))

    def complete(self, claim: Claim, output: str) -> str:
        """Complete the job."""
        message = AssistantMessage(
            group=claim.group, parts=(Text(text=output),), provider="simulated", model="simulated-1"
        )
        ending = Ending(
            JobStatus.COMPLETED, output, messages=(message,), usage=Usage(input_tokens=1_000, output_tokens=40)
        )
        assert self.store.finish(claim, ending, self.trace(claim, "complete"))
        return claim.ref.job_id

    def kill(self, claim: Claim, failure: Failure = BROKEN) -> str:
        """End the job as a dead letter."""
        ending = endings.make_ending(claim, failure, dead_ms=claim.now_ms, worker="stage")
        assert self.store.finish(claim, ending, self.trace(claim, "dead_letter", failure=failure))
        return claim.ref.job_id

    def put_back(self, claim: Claim, failure: Failure, after_ms: int = 60_000) -> str:
        """Defer the step, and count an attempt."""
        reason = f"{failure.kind}: {failure.detail}"
        defer = Defer(after_ms=after_ms, reason=reason, counts_as_attempt=True, failure=failure)
        assert self.store.defer(claim, defer, self.trace(claim, "defer", failure=failure))
        return claim.ref.job_id

    def poison(self, body: str) -> None:
        """Push a message that can't become a step."""
        record = PoisonRecord(
            poison_id=new_id("poison"),
            queue="q",
            reason=body,
            body=body,
            size_bytes=len(body),
            seen_ms=0,
            worker="stage",
        )
        key = self.client.operations.keys.poison()
        self.store.client.lpush(key, record.model_dump_json())
        self.store.client.expire(key, KEPT_S)

    def waiting(self, queue: str) -> int:
        """Count the messages in a queue, of all priorities."""
        name = self.client.operations.keys.queue(queue)
        return sum(int(self.store.client.llen(numbered_key(name, number))) for number in NUMBERS)

    def trace(
        self, claim: Claim, outcome: str, *, failure: Failure | None = None, tools: Sequence[str] = ()
    ) -> TraceRecord:
        """Make the record of a step that took 120 ms."""
        is_model = claim.ref.kind is StepKind.MODEL
        return TraceRecord(
            step=claim.ref.step,
            kind=claim.ref.kind,
            attempt=claim.attempt,
            outcome=outcome,
            started_ms=claim.now_ms,
            ended_ms=claim.now_ms + 120,
            worker="stage",
            model="simulated-1" if is_model else None,
            tools=tuple(tools),
            tool=claim.call.name if claim.call else None,
            failure=failure,
        )


@dataclass
class Answer:
    """Flower's response."""

    code: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> dict[str, object]:
        """Return the body, parsed as JSON."""
        body: dict[str, object] = json.loads(self.text)
        return body


class Site:
    """An HTTP client that behaves like a browser: it keeps cookies and follows redirects."""

    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url = url
        self.process = process
        self._jar = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self._jar)
        )

    @property
    def token(self) -> str:
        """Return the form token that Flower gave this client."""
        return next((cookie.value or "" for cookie in self._jar if cookie.name == "_xsrf"), "")

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Get a page."""
        return self._ask(urllib.request.Request(self.url + path, headers=dict(headers or {})))

    def post(self, path: str, headers: Mapping[str, str] | None = None, *, token: str | None = None) -> Answer:
        """Press a button, by default with this client's token."""
        data = f"_xsrf={self.token if token is None else token}".encode()
        return self._ask(urllib.request.Request(self.url + path, data=data, headers=dict(headers or {}), method="POST"))

    def _ask(self, request: urllib.request.Request) -> Answer:
        try:
            with self._opener.open(request, timeout=PATIENCE_S) as reply:
                return Answer(reply.status, reply.read().decode(), dict(reply.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(), dict(error.headers))


RUN = "import sys; from midwatch.workers.flower.launch import run; run(0, sys.argv[1], sys.argv[2:])"


@contextmanager
def flower(env: Mapping[str, str], *options: str, address: str = "127.0.0.1") -> Iterator[Site]:
    """Run Flower on a free port, in a separate process, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, address, *options],
        env=dict(env),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Site(_url_of(process), process)
    finally:
        process.terminate()
        try:
            process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _url_of(process: subprocess.Popen[str]) -> str:
    """Return the address that Flower prints when it listens. If it ends or prints nothing, the test fails."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if '"flower.ready"' in line:
            url: str = json.loads(line)["url"]
            return url.removesuffix("/jobs")
    raise AssertionError(f"Flower ended with {process.wait()} before it listened:\n{''.join(said)}")
