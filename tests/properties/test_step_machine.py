"""The step machine under any order of events. Both servers behave the same, and no step is lost or done twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.commits import CallRow, Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.isolation import alone
from midwatch.orchestration.protocol.store_replies import ChildWait, TurnCommitted
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus, SessionPolicy
from midwatch.schemas.lineage import Bounds
from midwatch.schemas.loss import Loss, LossKind
from midwatch.schemas.message import AssistantMessage, NoteMessage, Text, ToolCall, ToolMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, Park, Priority, StepKind, StepRef, WaitOwner
from midwatch.schemas.trace import TraceRecord
from tests.properties.contents import HOUR_MS, JobState, SessionState, State
from tests.properties.two_servers import Claims, TwoServers, new_job

FAILURE = Failure(kind=FailureKind.PROVIDER_ERROR, detail="503")
LOSS = Loss(at_ms=1, worker="w", kind=LossKind.DIED_ALONE, detail="was killed by SIGKILL")
USAGE = Usage(input_tokens=100, cached_tokens=60, output_tokens=7, reasoning_tokens=2)
picks = st.integers(0, 10_000)


class NotNow(Exception):
    """Raised when an event is not possible now. (`assume` would discard the whole run.)"""


def need(condition: object) -> None:
    """Skip the event unless the condition holds."""
    if not condition:
        raise NotNow


def event(**strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """Make a rule that is skipped when its event is not possible."""

    def decorate(happen: Callable[..., None]) -> Any:
        @wraps(happen)
        def attempt(self: Any, **drawn: Any) -> None:
            with suppress(NotNow):
                happen(self, **drawn)

        return rule(**strategies)(attempt)

    return decorate


def trace_of(claim: Claim, outcome: str) -> TraceRecord:
    """Make a trace record without real times, so that both servers get the same record."""
    kind, attempt = claim.ref.kind, claim.attempt
    return TraceRecord(
        step=claim.ref.step, kind=kind, attempt=attempt, outcome=outcome, started_ms=0, ended_ms=1, worker="w"
    )


def turn_commit(claim: Claim, inline: list[bool], refused: int) -> TurnCommit:
    """Make a turn with tool calls: some are refused, some run inline, some run as separate tasks."""
    total = refused + len(inline)
    calls = [ToolCall(id="same", name=f"tool_{n}", raw_arguments=f'{{"n":{n}}}') for n in range(total)]
    said = AssistantMessage(group=claim.group, parts=(Text(text="é" * 3), *calls), provider="scripted", model="m-1")
    answers = [answer(claim, n, calls[n].name, "refused") for n in range(refused)]
    note = () if total else (NoteMessage(group=claim.group, text="again, please"),)
    rows = tuple(
        CallRow(ordinal=refused + n, call=calls[refused + n], started=started) for n, started in enumerate(inline)
    )
    record = trace_of(claim, "continue")
    numbers = {"tool_calls": len(rows), "invalid_calls": refused, "children": len(rows) % 2}
    drift = ("calls|m-1|tool_0|10k-50k|",) * len(rows)
    return TurnCommit(messages=(said, *answers, *note), calls=rows, usage=USAGE, trace=record, drift=drift, **numbers)


def answer(claim: Claim, ordinal: int, tool: str, content: str) -> ToolMessage:
    """Make the result of a call."""
    return ToolMessage(group=claim.group, ordinal=ordinal, call_id="same", tool=tool, content=content)


def results_commit(claim: Claim, refs: list[StepRef]) -> ResultCommit:
    """Make the results of some calls."""
    messages = tuple(answer(claim, ref.ordinal or 0, f"tool_{ref.ordinal}", f"result of {ref.step}") for ref in refs)
    traces = tuple(trace_of(claim, "continue").model_copy(update={"step": ref.step}) for ref in refs)
    return ResultCommit(refs=tuple(refs), messages=messages, traces=traces)


def ending_of(claim: Claim, status: JobStatus) -> Ending:
    """Make a job's ending as the steps do."""
    if status is JobStatus.COMPLETED:
        said = AssistantMessage(group=claim.group, parts=(Text(text="done"),), provider="scripted", model="m-1")
        return Ending(status=status, output='say "done"', messages=(said,), usage=USAGE, repair="the job ended")
    letter = DeadLetterRecord(
        job_id=claim.ref.job_id,
        session_id=claim.ref.session_id,
        agent="clerk",
        step=claim.ref.step,
        kind=claim.ref.kind,
        failure=FAILURE,
        dead_ms=1,
    )
    return Ending(
        status=status,
        failure=FAILURE,
        repair="the job ended",
        letter=letter if status is JobStatus.DEAD_LETTERED else None,
    )


class StepMachine(RuleBasedStateMachine):
    """Two sessions, up to six jobs, and any number of claims. Claims are kept, and used again after they are stale."""

    client: object
    lend_prefix: object

    def __init__(self) -> None:
        super().__init__()
        self._loan = self.lend_prefix()
        self.servers = TwoServers(self.client, self._loan.__enter__())
        self.both = self.servers.both
        self.claims: list[Claims] = []
        self.inline: dict[int, list[StepRef]] = {}
        self.seen: list[StepRef] = []
        self.cancelled: set[str] = set()
        self.rewritten: set[str] = set()
        self.nonces = 0

    def teardown(self) -> None:
        try:
            self.drain()
        except BaseException:
            self._loan.gen.close()  # a leak report would hide the error
            raise
        self._loan.__exit__(None, None, None)

    @property
    def state(self) -> State:
        """The state of both servers, with the fences of the server in this process."""
        return self.servers.state

    # --- choosing

    def job(self, pick: int) -> str:
        need(self.state.jobs)
        return list(self.state.jobs)[pick % len(self.state.jobs)]

    def step(self, pick: int) -> StepRef:
        """Choose a step: mostly a published one, sometimes one that ended long ago."""
        published = sorted({*self.state.owed, *self.state.due}, key=str)
        steps = [*published * 3, *(ref for ref, _ in self.state.open_steps()), *self.seen[-5:]]
        need(steps)
        return steps[pick % len(steps)]

    def claimed(self, pick: int, kind: StepKind | None = None) -> tuple[int, Claims]:
        """Choose a claim: mostly one that still holds its step, sometimes a stale one."""
        fitting = [place for place, pair in enumerate(self.claims) if kind is None or pair.local.ref.kind is kind]
        current = [place for place in fitting if self.holds(self.claims[place]) or self.inline_held(place)]
        pool = current * 4 + fitting[-4:]
        need(pool and (current or pick % 5 == 0))
        place = pool[pick % len(pool)]
        return place, self.claims[place]

    def inline_held(self, place: int) -> list[StepRef]:
        return [ref for ref in self.inline.get(place, []) if self.state.held(self.claims[place].local, ref)]

    def holds(self, claims: Claims) -> bool:
        return self.state.held(claims.local)

    # --- what happens

    @initialize()
    def two_jobs(self):
        for number in (0, 1):
            self.both("enqueue", new_job(f"job-{number}", f"s{number}"))

    @event(
        session=st.sampled_from(["s0", "s1"]),
        number=st.integers(0, 5),
        policy=st.sampled_from(SessionPolicy),
        priority=st.sampled_from(Priority),
        max_steps=st.integers(1, 4),
        named=st.booleans(),
    )
    def enqueue(self, session, number, policy, priority, max_steps, named):
        fields = {"on_busy": policy, "priority": priority, "max_steps": max_steps}
        self.both("enqueue", new_job(f"job-{number}", session, agent_version="" if named else "v1", **fields))

    @event(pick=picks, again=st.booleans(), worker=st.integers(0, 1))
    def claim(self, pick, again, worker):
        self.take(self.step(pick), again, worker)

    @precondition(lambda self: self.state.owed)
    @event(pick=picks, worker=st.integers(0, 1))
    def claim_what_is_owed(self, pick, worker):
        self.take(sorted(self.state.owed, key=str)[pick % len(self.state.owed)], False, worker)

    def take(self, ref, again=False, worker=0):
        self.seen.append(ref)
        row = self.state.jobs[ref.job_id].rows.get(ref.step)
        leased = row is not None and row.state == "started" and row.until_ms > 1
        same = again and row is not None and row.nonce
        self.nonces += 1
        claims = self.servers.take(ref, row.nonce if same else f"n{self.nonces}", worker)
        if isinstance(claims, ClaimRefusal):
            return None
        assert same or not leased, f"{ref.step} was claimed while another claim holds it"
        assert claims.local.ending == "cancelled" or ref.job_id not in self.cancelled, (
            "a cancelled job started something"
        )
        self.claims.append(claims)
        return claims

    @precondition(lambda self: self.claims)
    @event(pick=picks)
    def renew(self, pick):
        _, claims = self.claimed(pick)
        self.both("renew", claims)

    @precondition(lambda self: self.claims)
    @event(pick=picks, inline=st.lists(st.booleans(), max_size=4), refused=st.integers(0, 1))
    def commit_turn(self, pick, inline, refused):
        place, claims = self.claimed(pick, StepKind.MODEL)
        need(not claims.local.ending)
        held, commit, claim = self.holds(claims), turn_commit(claims.local, inline, refused), claims.local
        again = self.state.jobs[claim.ref.job_id].committed == f"{claim.ref.step}|{claim.fence}"
        answer = self.both("commit_turn", claims, commit)
        assert (answer is not TurnCommitted.LOST) == (held or again), (
            "a stale fence committed, or a current one did not"
        )
        if held:
            self.inline[place] = [claim.ref.call(row.ordinal) for row in commit.calls if row.started]

    @precondition(lambda self: self.claims)
    @event(pick=picks, part=st.integers(1, 4))
    def commit_results(self, pick, part):
        place, claims = self.claimed(pick)
        inline, claim = self.inline_held(place) or self.inline.get(place, []), claims.local
        refs = inline[:part] if claim.ref.kind is StepKind.MODEL else [claim.ref]
        need(refs and not claim.ending)
        held = [self.state.held(claim, ref) for ref in refs]
        assert self.both("commit_results", claims, results_commit(claim, refs)) == all(held)

    @precondition(lambda self: self.claims)
    @event(pick=picks, counts=st.booleans(), owner=st.sampled_from(WaitOwner))
    def defer(self, pick, counts, owner):
        _, claims = self.claimed(pick)
        held = self.holds(claims)
        defer = Defer(
            after_ms=HOUR_MS, reason='busy: "soon"', counts_as_attempt=counts, owner=owner, downstream='a "shop"'
        )
        assert self.both("defer", claims, defer, trace_of(claims.local, "defer")) == held

    @event(pick=picks)
    def a_separate_process_continues_a_claim(self, pick):
        """Let a suspect run alone: the process gets the claim of its worker."""
        steps = [(ref, row) for ref, row in self.state.open_steps() if row.state == "started" and row.nonce]
        need(steps)
        ref, row = steps[pick % len(steps)]
        claims = self.servers.take(ref, alone(row.nonce.removesuffix("+")))
        need(not isinstance(claims, ClaimRefusal))
        assert claims.local.fence == row.fence, "it has a claim of its own"
        self.claims.append(claims)

    @precondition(lambda self: self.claims)
    @event(pick=picks)
    def a_separate_process_dies(self, pick):
        """Record its loss. Nothing changes if the step is done, or if another worker has it."""
        _, claims = self.claimed(pick)
        row = self.state.jobs[claims.local.ref.job_id].rows.get(claims.local.ref.step)
        held = self.holds(claims) and row is not None and row.state == "started"
        assert self.both("record_loss", claims, LOSS, HOUR_MS) == held

    @precondition(lambda self: self.claims)
    @event(pick=picks, on_expiry=st.sampled_from([None, "reject", "approve", "dead_letter"]))
    def park(self, pick, on_expiry):
        _, claims = self.claimed(pick)
        need(not claims.local.ending)
        self.put_aside(claims, on_expiry=on_expiry)

    def put_aside(self, claims, reason=ParkReason.TOOL_APPROVAL, on_expiry=None):
        expiry = {"expires_ms": HOUR_MS, "on_expiry": on_expiry} if on_expiry else {}
        held, park = self.holds(claims), Park(question="May it?", reason=reason, **expiry)
        assert self.both("park", claims, park, trace_of(claims.local, "park")) == held

    @event(pick=picks)
    def every_call_of_a_turn_is_parked(self, pick):
        """Park all calls of a turn, so that several questions are open at once."""
        job = self.state.jobs[self.job(pick)]
        calls = [
            step for step, row in job.rows.items() if row.has_call and row.state == "pending" and row.until_ms <= 1
        ]
        need(len(calls) > 1 and not job.cancelled)
        for step in calls:
            claims = self.take(job.ref(step))
            if claims and not claims.local.ending:
                self.put_aside(claims)

    @event(pick=picks, asks=st.booleans())
    def a_worker_vanishes_in_a_tool(self, pick, asks):
        """Let the worker of a call die. The next worker knows that an effect may have happened. It asks a human, or goes on."""
        steps = [ref for ref, row in self.state.open_steps() if row.has_call and row.state == "started"]
        need(steps)
        ref = steps[pick % len(steps)]
        self.servers.expire(ref)
        claims = self.take(ref)
        need(claims)
        assert claims.local.interrupted, "an effect may have happened, and the next worker does not know"
        if asks and not claims.local.ending:
            self.put_aside(claims, ParkReason.UNKNOWN_EFFECT)

    @precondition(lambda self: self.claims)
    @event(pick=picks, worked_ms=st.integers(0, HOUR_MS))
    def wait_for_child(self, pick, worked_ms):
        _, claims = self.claimed(pick, StepKind.TOOL)
        need(not claims.local.ending)
        held = self.holds(claims)
        answer = self.both("wait_for_child", claims, HOUR_MS, child_id="job-9", worked_ms=worked_ms)
        assert (answer is ChildWait.LOST) == (not held)

    @precondition(lambda self: self.claims)
    @event(pick=picks, status=st.sampled_from([JobStatus.COMPLETED, JobStatus.DEAD_LETTERED, JobStatus.DEAD_LETTERED]))
    def finish(self, pick, status):
        _, claims = self.claimed(pick)
        claim = claims.local
        need(claim.ending or pick % 3 == 0)
        if claim.ending:
            status = JobStatus.CANCELLED if claim.ending == "cancelled" else JobStatus.DEAD_LETTERED
        need(status is not JobStatus.COMPLETED or claim.ref.kind is StepKind.MODEL)
        held = self.holds(claims)
        assert self.both("finish", claims, ending_of(claim, status), trace_of(claim, status.value)) == held

    @precondition(lambda self: self.claims)
    @event(pick=picks)
    def set_limits(self, pick):
        _, claims = self.claimed(pick)
        self.both("set_limits", claims, agent_version="v2", max_steps=4, timeout_ms=HOUR_MS, bounds=Bounds())

    @event(pick=picks)
    def cancel(self, pick):
        need(pick % 4 == 0)
        job_id = self.job(pick)
        if self.both("cancel", job_id):
            self.cancelled.add(job_id)

    @event(pick=picks, time_ms=st.sampled_from([None, HOUR_MS]), wait_ms=st.sampled_from([None, HOUR_MS]))
    def replay(self, pick, time_ms, wait_ms):
        job_id = [*sorted(self.state.letters), self.job(pick)][pick % 2 and -1]
        if self.both("replay", job_id, max_steps=3, time_ms=time_ms, wait_ms=wait_ms):
            assert self.both("replay", job_id, max_steps=3) is False, "a second replay had an effect"

    @event(pick=picks)
    def discard(self, pick):
        need(pick % 4 == 0)
        self.both("discard", self.job(pick))

    @event(pick=picks, approve=st.booleans())
    def decide(self, pick, approve):
        parked = [job_id for job_id, job in self.state.jobs.items() if job.parked()]
        job_id = parked[pick % len(parked)] if parked else self.job(pick)
        need(parked or pick % 4 == 0)
        steps = [*self.state.jobs[job_id].parked(), None]
        self.both("decide", job_id, steps[pick % len(steps)], approve=approve, reason="because | of it")

    @event(everything=st.booleans())
    def sweep(self, everything):
        self.both("sweep", patience_ms=0 if everything else HOUR_MS, stale_ms=HOUR_MS, idle=(True, True))

    @event(pick=picks)
    def time_passes(self, pick):
        steps = [ref for ref, row in self.state.open_steps() if row.until_ms]
        need(steps)
        self.servers.expire(steps[pick % len(steps)])

    @precondition(lambda self: len(self.claims) > 8)
    @event(pick=picks, limit=st.sampled_from(["deadline_ms", "ends_by_ms", "held_ms"]))
    def a_limit_of_its_time_is_reached(self, pick, limit):
        need(pick % 3 == 0)
        job_id = self.job(pick)
        need(self.state.jobs[job_id].record.deadline_ms is not None)
        self.servers.outlive(job_id, limit)

    @event(pick=picks)
    def a_later_release_writes(self, pick):
        """Add fields that this release does not know. They are kept and change nothing."""
        job_id = self.job(pick)
        need(job_id not in self.rewritten)
        self.rewritten.add(job_id)
        self.servers.add_fields(job_id)

    # --- what holds at every moment

    @invariant()
    def no_step_is_lost(self):
        for job_id, job in self.state.jobs.items():
            status, session = job.record.status, self.state.sessions[job.record.session_id]
            if status in (JobStatus.RUNNING, JobStatus.PARKED):
                assert job.rows, f"{job_id} runs and has no step"
                for step, row in job.rows.items():
                    found = job.ref(step) in self.state.due or job.ref(step) in self.state.owed
                    assert found or row.state == "parked", f"{step} ({row.state}) of {job_id} is lost"
            if status is JobStatus.QUEUED and session.active == job_id:
                assert job.ref("1") in self.state.owed, f"{job_id} is active and never begins"

    @invariant()
    def what_is_over_owes_nothing(self):
        indexed = {ref.job_id for ref in (*self.state.due, *self.state.owed)}
        for job_id, job in self.state.jobs.items():
            status = job.record.status
            if status.ended and (status is not JobStatus.DEAD_LETTERED or job.discarded):
                assert not job.rows, f"{job_id} is {status} and has steps"
                assert job_id not in indexed, f"{job_id} is {status} and is still published"

    @invariant()
    def every_dead_job_has_its_letter(self):
        dead = {job_id for job_id, job in self.state.jobs.items() if job.record.status is JobStatus.DEAD_LETTERED}
        assert self.state.letters == {job_id for job_id in dead if not self.state.jobs[job_id].discarded}

    @invariant()
    def open_counts_the_calls_without_result(self):
        for job in self.state.jobs.values():
            assert job.record.open_calls == sum(row.has_call for row in job.rows.values())

    @invariant()
    def every_call_has_one_result_and_groups_are_whole(self):
        for session_id, session in self.state.sessions.items():
            groups = [message.group for message in session.log]
            assert groups == sorted(groups), "a group is torn apart"
            results = Counter((m.group, m.ordinal) for m in session.log if isinstance(m, ToolMessage))
            assert not results or max(results.values()) == 1, "a call has two results"
            turns = [message for message in session.log if isinstance(message, AssistantMessage)]
            unfinished = self.unfinished(session_id, session)
            for turn in turns:
                for ordinal, _ in enumerate(turn.tool_calls):
                    place = (turn.group, ordinal)
                    assert (place in results) != (place in unfinished), f"call {place} has no result, or one too many"

    def unfinished(self, session_id: str, session: SessionState) -> set[tuple[int, int | None]]:
        """Return the calls without a result, by group and ordinal."""
        return {(session.groups, job.ref(step).ordinal) for job in self.jobs_of(session_id) for step in job.rows}

    def jobs_of(self, session_id: str) -> list[JobState]:
        return [job for job in self.state.jobs.values() if job.record.session_id == session_id]

    @invariant()
    def a_session_runs_one_job_at_a_time(self):
        for session_id, session in self.state.sessions.items():
            begun = [
                job.record.job_id
                for job in self.jobs_of(session_id)
                if job.record.status in (JobStatus.RUNNING, JobStatus.PARKED, JobStatus.DEAD_LETTERED)
                and not job.discarded
            ]
            assert begun in ([], [session.active])
            assert session.active is not None or not session.waiting, "jobs wait for a session that is free"

    @invariant()
    def ceilings_hold(self):
        for job in self.state.jobs.values():
            assert job.record.turn <= job.record.max_steps

    @invariant()
    def only_claimed_steps_work(self):
        """A job's clock runs only while a worker has one of its steps."""
        for job_id, job in self.state.jobs.items():
            if not job.record.status.ended:
                claimed = sum(row.state == "started" for row in job.rows.values())
                assert 0 <= job.record.working <= claimed, f"{job_id}: {claimed} steps are claimed"

    # --- at the end

    def drain(self):
        """Assert that every job can be brought to an end after any events."""
        for _ in range(200):
            unfinished = [
                job_id for job_id, job in self.state.jobs.items() if job.rows or job.record.status is JobStatus.QUEUED
            ]
            if not unfinished:
                break
            for job_id in unfinished:
                self.let_go_on(job_id)
            refs, _ = self.both("sweep", patience_ms=0, stale_ms=0, idle=(True, True))
            for ref in dict.fromkeys(refs):
                self.finish_step(ref)
        left = {job_id: job.record.status for job_id, job in self.state.jobs.items() if not job.record.status.ended}
        assert not left, f"never ended: {left}"

    def let_go_on(self, job_id: str) -> None:
        """Remove what holds a job: approve parked steps, end leases, discard its dead letter."""
        job = self.state.jobs[job_id]
        for step, row in job.rows.items():
            if row.state == "parked":
                self.both("decide", job_id, step, approve=True)
            elif row.until_ms > 1:
                self.servers.expire(job.ref(step))
        if job.record.status is JobStatus.DEAD_LETTERED:
            self.both("discard", job_id)

    def finish_step(self, ref: StepRef):
        self.nonces += 1
        claims = self.servers.take(ref, f"n{self.nonces}")
        if isinstance(claims, ClaimRefusal):
            return
        claim = claims.local
        if ref.kind is StepKind.TOOL and not claim.ending:
            self.both("commit_results", claims, results_commit(claim, [ref]))
            return
        status = JobStatus.CANCELLED if claim.ending == "cancelled" else JobStatus.COMPLETED
        self.both("finish", claims, ending_of(claim, status), trace_of(claim, status.value))


def test_any_order_of_events_keeps_every_promise(redis, lend_prefix):
    """Claims, commits, retries, parking, decisions, cancelling, replays, dead workers and stale ones come in any order.

    After every event the Redis in this process and the server agree in their answers and in every key. No step is lost or
    done twice, every call gets one result, and every job can still be brought to an end.
    """

    class Machine(StepMachine):
        pass

    Machine.client, Machine.lend_prefix = redis, staticmethod(lend_prefix)
    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=60))
