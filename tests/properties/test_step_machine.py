"""The step machine under any order of events: both stores do the same, and nothing is lost or doubled."""

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

from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal, RowState
from midwatch.orchestration.protocol.commits import CallRow, Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.testing.local_state import JobState
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus, SessionPolicy
from midwatch.schemas.message import AssistantMessage, NoteMessage, Text, ToolCall, ToolMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.step import Defer, Park, Priority, StepKind, StepRef
from midwatch.schemas.trace import TraceRecord
from tests.properties.two_stores import HOUR_MS, TwoStores, new_job

FAILURE = Failure(kind=FailureKind.PROVIDER_ERROR, detail="503")
USAGE = Usage(input_tokens=100, cached_tokens=60, output_tokens=7, reasoning_tokens=2)
picks = st.integers(0, 10_000)


class NotNow(Exception):
    """There is nothing here that the event could happen to. (`assume` would throw the whole history away.)"""


def need(condition: object) -> None:
    """Skip the event unless."""
    if not condition:
        raise NotNow


def event(**strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that may find nothing to happen to."""

    def decorate(happen: Callable[..., None]) -> Any:
        @wraps(happen)
        def attempt(self: Any, **drawn: Any) -> None:
            with suppress(NotNow):
                happen(self, **drawn)

        return rule(**strategies)(attempt)

    return decorate


def trace_of(claim: Claim, outcome: str) -> TraceRecord:
    """A record without moments, so that both stores get the same."""
    kind, attempt = claim.ref.kind, claim.attempt
    return TraceRecord(
        step=claim.ref.step, kind=kind, attempt=attempt, outcome=outcome, started_ms=0, ended_ms=1, worker="w"
    )


def turn_commit(claim: Claim, inline: list[bool], refused: int) -> TurnCommit:
    """A turn that asks for tools: some refused before they run, some run inline, some as tasks of their own."""
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
    return TurnCommit(messages=(said, *answers, *note), calls=rows, usage=USAGE, trace=record, **numbers)


def answer(claim: Claim, ordinal: int, tool: str, content: str) -> ToolMessage:
    """One result."""
    return ToolMessage(group=claim.group, ordinal=ordinal, call_id="same", tool=tool, content=content)


def results_commit(claim: Claim, refs: list[StepRef]) -> ResultCommit:
    """Results of some calls."""
    messages = tuple(answer(claim, ref.ordinal or 0, f"tool_{ref.ordinal}", f"result of {ref.step}") for ref in refs)
    traces = tuple(trace_of(claim, "continue").model_copy(update={"step": ref.step}) for ref in refs)
    return ResultCommit(refs=tuple(refs), messages=messages, traces=traces)


def ending_of(claim: Claim, status: JobStatus) -> Ending:
    """An ending as `endings.ending` and `step.Attempt` make them."""
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
    """Two sessions, up to six jobs, any number of claims that are kept and used again after they are stale."""

    client: object
    lend_prefix: object

    def __init__(self) -> None:
        super().__init__()
        self._loan = self.lend_prefix()
        self.stores = TwoStores(self.client, self._loan.__enter__())
        self.state = self.stores.memory.state
        self.claims: list[tuple[Claim, Claim]] = []
        self.inline: dict[int, list[StepRef]] = {}
        self.seen: list[StepRef] = []
        self.cancelled: set[str] = set()
        self.nonces = 0

    def teardown(self) -> None:
        try:
            self.drain()
        except BaseException:
            self._loan.gen.close()  # the leak check would hide what went wrong
            raise
        self._loan.__exit__(None, None, None)

    # --- choosing

    def job(self, pick: int) -> str:
        need(self.state.jobs)
        return list(self.state.jobs)[pick % len(self.state.jobs)]

    def step(self, pick: int) -> StepRef:
        """Mostly a step that is published; now and then one that is long over."""
        open_steps = [job.ref(step) for job in self.state.jobs.values() for step in job.steps()]
        published = sorted({*self.state.owed, *self.state.due}, key=str)
        steps = [*published * 3, *open_steps, *self.seen[-5:]]
        need(steps)
        return steps[pick % len(steps)]

    def claimed(self, pick: int, kind: StepKind | None = None) -> tuple[int, Claim, Claim]:
        """Mostly one that still holds its step; now and then one whose step went on without it."""
        fitting = [pair for pair in self.claims if kind is None or pair[0].ref.kind is kind]
        current = [pair for pair in fitting if self.holds(pair[1]) or self.inline_held(pair)]
        pool = current * 4 + fitting[-4:]
        need(pool and (current or pick % 5 == 0))
        pair = pool[pick % len(pool)]
        return self.claims.index(pair), *pair

    def inline_held(self, pair: tuple[Claim, Claim]) -> list[StepRef]:
        refs = self.inline.get(self.claims.index(pair), [])
        return [ref for ref in refs if self.state.held(pair[1], ref)]

    def holds(self, model: Claim) -> bool:
        return self.state.held(model) is not None

    # --- what happens

    @initialize()
    def two_jobs(self):
        for number in (0, 1):
            job = new_job(f"job-{number}", f"s{number}")
            self.stores.both("enqueue", (job,), (job,))

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
        job = new_job(f"job-{number}", session, agent_version="" if named else "v1", **fields)
        self.stores.both("enqueue", (job,), (job,))

    @event(pick=picks, again=st.booleans(), worker=st.integers(0, 1))
    def claim(self, pick, again, worker):
        self.take(self.step(pick), again, worker)

    @precondition(lambda self: self.state.owed)
    @event(pick=picks, worker=st.integers(0, 1))
    def claim_what_is_owed(self, pick, worker):
        self.take(sorted(self.state.owed, key=str)[pick % len(self.state.owed)], False, worker)

    def take(self, ref, again, worker):
        self.seen.append(ref)
        row = self.state.jobs[ref.job_id].rows.get(ref.step)
        leased = row is not None and row.state is RowState.STARTED and row.until_ms > 1
        same = again and row is not None and row.nonce
        self.nonces += 1
        nonce = row.nonce if same else f"n{self.nonces}"
        real, model = self.stores.both("claim", (ref, nonce), (ref, nonce), worker)
        if isinstance(real, ClaimRefusal):
            return
        assert same or not leased, f"{ref.step} was claimed while somebody holds it"
        assert real.ending == "cancelled" or ref.job_id not in self.cancelled, "a cancelled job started something"
        self.claims.append((real, model))

    @precondition(lambda self: self.claims)
    @event(pick=picks)
    def renew(self, pick):
        _, real, model = self.claimed(pick)
        self.stores.both("renew", (real,), (model,))

    @precondition(lambda self: self.claims)
    @event(pick=picks, inline=st.lists(st.booleans(), max_size=4), refused=st.integers(0, 1))
    def commit_turn(self, pick, inline, refused):
        place, real, model = self.claimed(pick, StepKind.MODEL)
        need(not real.ending)
        held, commit = self.holds(model), turn_commit(real, inline, refused)
        again = self.stores.memory.state.jobs[model.ref.job_id].committed == (model.ref.step, model.fence)
        answers = self.stores.both("commit_turn", (real, commit), (model, commit))
        assert (answers[0] is not TurnCommitted.LOST) == (held or again), (
            "a stale fence committed, or a current one did not"
        )
        if held:
            self.inline[place] = [real.ref.call(row.ordinal) for row in commit.calls if row.started]

    @precondition(lambda self: self.claims)
    @event(pick=picks, part=st.integers(1, 4))
    def commit_results(self, pick, part):
        place, real, model = self.claimed(pick)
        inline = self.inline_held((real, model)) or self.inline.get(place, [])
        refs = inline[:part] if real.ref.kind is StepKind.MODEL else [real.ref]
        need(refs and not real.ending)
        held = [self.state.held(model, ref) is not None for ref in refs]
        commit = results_commit(real, refs)
        answers = self.stores.both("commit_results", (real, commit), (model, commit))
        assert answers[0] == all(held)

    @precondition(lambda self: self.claims)
    @event(pick=picks, counts=st.booleans())
    def defer(self, pick, counts):
        _, real, model = self.claimed(pick)
        held = self.holds(model)
        defer = Defer(after_ms=HOUR_MS, reason='busy: "soon"', counts_as_attempt=counts)
        args = (defer, trace_of(real, "defer"))
        assert self.stores.both("defer", (real, *args), (model, *args))[0] == held

    @precondition(lambda self: self.claims)
    @event(pick=picks)
    def park(self, pick):
        _, real, model = self.claimed(pick)
        need(not real.ending)
        held, args = (
            self.holds(model),
            (Park(question="May it?", reason=ParkReason.TOOL_APPROVAL), trace_of(real, "park")),
        )
        assert self.stores.both("park", (real, *args), (model, *args))[0] == held

    @precondition(lambda self: self.claims)
    @event(pick=picks)
    def wait_for_child(self, pick):
        _, real, model = self.claimed(pick, StepKind.TOOL)
        need(not real.ending)
        assert self.stores.both("wait_for_child", (real, HOUR_MS), (model, HOUR_MS))[0] == self.holds(model)

    @precondition(lambda self: self.claims)
    @event(pick=picks, status=st.sampled_from([JobStatus.COMPLETED, JobStatus.DEAD_LETTERED, JobStatus.DEAD_LETTERED]))
    def finish(self, pick, status):
        _, real, model = self.claimed(pick)
        need(real.ending or pick % 3 == 0)
        forced = {"cancelled": JobStatus.CANCELLED, "timed_out": JobStatus.TIMED_OUT}
        if real.ending:
            status = forced.get(real.ending, JobStatus.DEAD_LETTERED)
        need(status is not JobStatus.COMPLETED or real.ref.kind is StepKind.MODEL)
        held, args = self.holds(model), (ending_of(real, status), trace_of(real, status.value))
        assert self.stores.both("finish", (real, *args), (model, *args))[0] == held

    @precondition(lambda self: self.claims)
    @event(pick=picks)
    def set_limits(self, pick):
        _, real, model = self.claimed(pick)
        limits = {"agent_version": "v2", "max_steps": 4, "timeout_ms": HOUR_MS}
        self.stores.both("set_limits", (real,), (model,), **limits)

    @event(pick=picks)
    def cancel(self, pick):
        need(pick % 4 == 0)
        job_id = self.job(pick)
        if self.stores.both("cancel", (job_id,), (job_id,))[0]:
            self.cancelled.add(job_id)

    @event(pick=picks)
    def replay(self, pick):
        job_id = [*self.state.letters, self.job(pick)][pick % 2 and -1]
        if self.stores.both("replay", (job_id,), (job_id,), max_steps=3)[0]:
            assert self.stores.both("replay", (job_id,), (job_id,), max_steps=3)[0] is False, "a second replay did it"

    @event(pick=picks)
    def discard(self, pick):
        need(pick % 4 == 0)
        job_id = self.job(pick)
        self.stores.both("discard", (job_id,), (job_id,))

    @event(pick=picks, approve=st.booleans())
    def decide(self, pick, approve):
        job_id = self.job(pick)
        need(self.state.jobs[job_id].record.status is JobStatus.PARKED or pick % 4 == 0)
        steps = [*self.state.jobs[job_id].parked(), None]
        step = steps[pick % len(steps)]
        self.stores.both("decide", (job_id, step), (job_id, step), approve=approve, reason="because")

    @event(everything=st.booleans())
    def sweep(self, everything):
        patience_ms = 0 if everything else HOUR_MS
        real, _ = self.stores.both("sweep", (), (), patience_ms=patience_ms, stale_ms=HOUR_MS, idle=(True, True))
        assert real is not None

    @event(pick=picks)
    def time_passes(self, pick):
        steps = [job.ref(step) for job in self.state.jobs.values() for step in job.steps() if job.rows[step].until_ms]
        need(steps)
        self.stores.expire(steps[pick % len(steps)])

    @precondition(lambda self: len(self.claims) > 8)
    @event(pick=picks)
    def deadline_passes(self, pick):
        need(pick % 3 == 0)
        self.stores.outlive(self.job(pick))

    # --- what holds at every moment

    @invariant()
    def no_step_is_lost(self):
        for job in self.state.jobs.values():
            if job.record.status in (JobStatus.RUNNING, JobStatus.PARKED):
                assert job.rows, f"{job.record.job_id} runs and has no step"
                for step, row in job.rows.items():
                    found = job.ref(step) in self.state.due or job.ref(step) in self.state.owed
                    assert found or row.state is RowState.PARKED, f"{step} ({row.state}) of {job.record.job_id} is lost"
            if job.record.status is JobStatus.QUEUED and self.state.session(job).active == job.record.job_id:
                assert job.ref("1") in self.state.owed, f"{job.record.job_id} is active and never begins"

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
        assert set(self.state.letters) == {job_id for job_id in dead if not self.state.jobs[job_id].discarded}

    @invariant()
    def open_counts_the_calls_without_result(self):
        for job in self.state.jobs.values():
            assert job.record.open_calls == sum(row.call is not None for row in job.rows.values())

    @invariant()
    def every_call_has_one_result_and_groups_are_whole(self):
        for session in self.state.sessions.values():
            log = session.conversation()
            groups = [message.group for message in log]
            assert groups == sorted(groups), "a group is torn apart"
            results = Counter((m.group, m.ordinal) for m in log if isinstance(m, ToolMessage))
            assert not results or max(results.values()) == 1, "a call has two results"
            turns = [message for message in log if isinstance(message, AssistantMessage)]
            unfinished = {
                (session.groups, self.ordinal(job, step)) for job in self.jobs_of(session) for step in job.rows
            }
            for turn in turns:
                for ordinal, _ in enumerate(turn.tool_calls):
                    place = (turn.group, ordinal)
                    assert (place in results) != (place in unfinished), f"call {place} has no result, or one too many"

    def jobs_of(self, session):
        return [job for job in self.state.jobs.values() if self.state.session(job) is session]

    @staticmethod
    def ordinal(job: JobState, step: str) -> int:
        ordinal = job.ref(step).ordinal
        return -1 if ordinal is None else ordinal

    @invariant()
    def a_session_runs_one_job_at_a_time(self):
        for session in self.state.sessions.values():
            begun = [
                job.record.job_id
                for job in self.jobs_of(session)
                if job.record.status in (JobStatus.RUNNING, JobStatus.PARKED, JobStatus.DEAD_LETTERED)
                and not job.discarded
            ]
            assert begun in ([], [session.active])
            assert session.active is not None or not session.waiting, "jobs wait for a session that is free"

    @invariant()
    def ceilings_hold(self):
        for job in self.state.jobs.values():
            assert job.record.turn <= job.record.max_steps

    # --- and in the end

    def drain(self):
        """Every job can be brought to an end, whatever was done before: nothing hangs, nothing is stuck."""
        for _ in range(200):
            unfinished = [job for job in self.state.jobs.values() if job.rows or job.record.status is JobStatus.QUEUED]
            if not unfinished:
                break
            for job in unfinished:
                job_id = job.record.job_id
                for step in list(job.rows):
                    if job.rows[step].state is RowState.PARKED:
                        self.stores.both("decide", (job_id, step), (job_id, step), approve=True)
                    elif job.rows[step].until_ms > 1:
                        self.stores.expire(job.ref(step))
                if job.record.status is JobStatus.DEAD_LETTERED:
                    self.stores.both("discard", (job_id,), (job_id,))
            real, _ = self.stores.both("sweep", (), (), patience_ms=0, stale_ms=0, idle=(True, True))
            for ref in dict.fromkeys(real[0]):
                self.finish_step(ref)
        left = {job.record.job_id: job.record.status for job in self.state.jobs.values() if not job.record.status.ended}
        assert not left, f"never ended: {left}"

    def finish_step(self, ref: StepRef):
        self.nonces += 1
        real, model = self.stores.both("claim", (ref, f"n{self.nonces}"), (ref, f"n{self.nonces}"))
        if isinstance(real, ClaimRefusal):
            return
        if ref.kind is StepKind.TOOL and not real.ending:
            commit = results_commit(real, [ref])
            self.stores.both("commit_results", (real, commit), (model, commit))
            return
        status = JobStatus.CANCELLED if real.ending == "cancelled" else JobStatus.COMPLETED
        args = (ending_of(real, status), trace_of(real, status.value))
        self.stores.both("finish", (real, *args), (model, *args))


def test_any_order_of_events_keeps_every_promise(redis, lend_prefix):
    """Claims, commits, retries, parking, cancelling, replays, dead workers and stale ones, in any order.

    Both stores agree after every event, no step is lost or done twice, every call gets one result, and every
    job can still be brought to an end.
    """

    class Machine(StepMachine):
        pass

    Machine.client, Machine.lend_prefix = redis, staticmethod(lend_prefix)
    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=60))
