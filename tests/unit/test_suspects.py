"""Which step is a suspect after a loss, when it becomes a dead letter, and what its separate process changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from midwatch import Agent, RetryConfig, tool
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.isolation import AloneEnd, AloneRun
from midwatch.orchestration.steps.losses.suspects import MODEL_LOSSES, PROVEN_LOSSES, find_proven_failure, is_suspect
from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.orchestration.testing.scripted_model import ScriptedModel, call
from midwatch.schemas.decision import HumanDecision, Verdict
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.loss import Loss, LossKind
from tests.unit.claims import claim_of, tool_call

LEASE = Loss(at_ms=1, worker="host.1", kind=LossKind.LEASE_ENDED, kept_ms=2_300)
TOGETHER = Loss(at_ms=2, worker="host.2", kind=LossKind.DIED_TOGETHER)
PROOF = Loss(
    at_ms=3, worker="host.3", kind=LossKind.DIED_ALONE, detail="was killed by SIGSEGV (a crash in native code)"
)


@tool(idempotent=True)
def look(word: str) -> str:
    """Look something up."""
    return f"saw {word}"


@tool
def pay(word: str) -> str:
    """Pay something."""
    return f"paid {word}"


def agent_with(**retry: Any) -> Agent:
    return Agent("clerk", "anthropic:claude-sonnet-4-6", "You look.", [look, pay], retry_config=RetryConfig(**retry))


def tool_claim(*losses: Loss, name: str = "look", **fields: Any) -> Claim:
    """A claim of a tool step with these losses."""
    return claim_of("1.0", losses=len(losses), loss_records=losses, call=tool_call(name), **fields)


def model_claim(*losses: Loss) -> Claim:
    """A claim of a model turn with these losses."""
    return claim_of("1", losses=len(losses), loss_records=losses)


def test_a_tool_is_a_suspect_after_its_first_loss():
    """It runs the user's code. Before any loss it runs in its worker, like every step."""
    assert not is_suspect(tool_claim(), agent_with())
    assert is_suspect(tool_claim(LEASE), agent_with())


def test_a_model_turn_is_a_suspect_after_more_losses():
    """A turn that waits for its provider is hardly ever the killer."""
    assert not is_suspect(model_claim(*[LEASE] * (MODEL_LOSSES - 1)), agent_with())
    assert is_suspect(model_claim(*[LEASE] * MODEL_LOSSES), agent_with())
    assert is_suspect(model_claim(PROOF), agent_with())


def test_a_call_that_will_not_run_is_no_suspect():
    """A call that must not be repeated, one that a human rejected, and an unknown tool run no code."""
    interrupted = replace(tool_claim(LEASE, name="pay"), interrupted=True)
    assert not is_suspect(interrupted, agent_with())
    assert is_suspect(replace(interrupted, interrupted=False), agent_with()), "a human approved its repetition"
    rejected = HumanDecision(verdict=Verdict.REJECT)
    assert not is_suspect(tool_claim(LEASE, decision=rejected), agent_with())
    assert not is_suspect(tool_claim(LEASE, name="unknown"), agent_with())


def test_losses_without_proof_sentence_no_step():
    """Without proof a step may be innocent, however many workers it has lost."""
    assert find_proven_failure(tool_claim(*[LEASE] * 40), agent_with()) is None
    assert find_proven_failure(tool_claim(*[TOGETHER] * 9), agent_with()) is None


def test_two_proofs_sentence_a_step_and_the_failure_says_what_is_known():
    """Together with the run that made it a suspect, the step has then run three times."""
    assert find_proven_failure(tool_claim(LEASE, PROOF), agent_with()) is None
    failure = find_proven_failure(tool_claim(LEASE, *[PROOF] * PROVEN_LOSSES), agent_with())
    assert failure.kind is FailureKind.WORKER_LOST
    assert failure.detail == (
        "this step lost its worker 3 times (host.1, host.3): once its lease, renewed for 2.3 s, ended; its worker was killed, "
        "hung, was suspended or was cut off; 2 times it ran alone in a process, which was killed by SIGSEGV (a crash in native "
        "code)"
    )


def test_a_lease_that_was_never_renewed_is_not_said_to_be():
    """A tool that kills its worker at once leaves a lease of no length."""
    loss = Loss(worker="host.1", at_ms=1, kept_ms=20, kind=LossKind.LEASE_ENDED)
    assert loss.explanation.startswith("its lease ended; its worker was killed")


def test_losses_before_the_last_failed_attempt_do_not_count():
    """The row's number of losses says how many of the records count."""
    claim = replace(tool_claim(PROOF, PROOF, LEASE), losses=1)
    assert find_proven_failure(claim, agent_with()) is None


def test_worker_lost_in_fail_hard_on_ends_with_the_first_loss():
    """A tool ends the job with any loss. A model turn runs alone after its first loss, and ends with the first proven one."""
    hard = agent_with(fail_hard_on=["worker_lost"])
    assert find_proven_failure(tool_claim(LEASE), hard)
    assert find_proven_failure(tool_claim(LEASE, name="pay"), hard)
    assert find_proven_failure(model_claim(LEASE), hard) is None
    assert is_suspect(model_claim(LEASE), hard)
    assert find_proven_failure(model_claim(LEASE, PROOF), hard)


def test_worker_lost_in_retry_on_allows_max_retries_proofs():
    """Losses without proof still do not count."""
    lenient = agent_with(retry_on=["worker_lost"], max_retries=3)
    assert find_proven_failure(tool_claim(*[LEASE] * 5, *[PROOF] * 3), lenient) is None
    assert find_proven_failure(tool_claim(LEASE, *[PROOF] * 4), lenient)


def test_the_policy_of_the_tool_comes_first():
    """`@tool(retry=…)` decides for its own steps."""

    @tool(idempotent=True, retry=RetryConfig(fail_hard_on=["worker_lost"]))
    def strict(word: str) -> str:
        """Do something."""
        return word

    agent = Agent("clerk", "anthropic:claude-sonnet-4-6", "You look.", [strict, look])
    assert find_proven_failure(tool_claim(LEASE, name="strict"), agent)
    assert find_proven_failure(tool_claim(LEASE), agent) is None


class Separate:
    """Takes the place of the separate processes: each run ends as the test says."""

    def __init__(self, fleet: InlineFleet, *ends: AloneEnd) -> None:
        self.fleet, self.ends, self.limits_ms = fleet, list(ends), []
        fleet.runner.services.isolate = self

    def __call__(self, claim: Claim, limit_ms: int) -> AloneRun:
        """Continue the claim in this process, or fail."""
        self.limits_ms.append(limit_ms)
        end = self.ends.pop(0)
        if end is AloneEnd.DONE:
            self.fleet.runner.services.isolate = None
            self.fleet.runner.run(claim.ref, claim.nonce)
        return AloneRun(end, "host.9", "was killed by SIGKILL")


def fleet_with_a_loss(*ends: AloneEnd) -> tuple[InlineFleet, str, Separate]:
    """A fleet whose first worker vanished in the first tool call of a job."""
    agent = agent_with(base_s=0.01)
    fleet = InlineFleet(agent, model=ScriptedModel([call("look", word="A-17"), "Seen."]))
    job_id = fleet.enqueue(agent, "Look.")
    fleet.runner.run(fleet.published.popleft())
    ref = fleet.published.popleft()
    fleet.store.claim(ref, "host.1.abcd.1")
    fleet.clock.advance(60_000)
    return fleet, job_id, Separate(fleet, *ends)


def test_a_suspect_that_ends_alone_is_innocent():
    """Its process continues the claim and commits the result. No try of it is recorded as a loss."""
    fleet, job_id, separate = fleet_with_a_loss(AloneEnd.DONE)
    assert fleet.run(job_id).output == "Seen."
    assert separate.limits_ms == [35_000]


@pytest.mark.parametrize("kind", [AloneEnd.DIED, AloneEnd.NOT_STARTED])
def test_a_process_that_dies_alone_is_recorded(kind):
    """The letter has the dead worker, then both processes, with what is known of each."""
    fleet, job_id, separate = fleet_with_a_loss(*[kind] * 10)
    result = fleet.run(job_id)
    assert (result.status, result.failure.kind) == (JobStatus.DEAD_LETTERED, FailureKind.WORKER_LOST)
    assert len(separate.ends) == (8 if kind is AloneEnd.DIED else 0)
    letter = fleet.operations.dead_letter(job_id)
    assert [one.worker for one in letter.tries] == ["host.1", *["host.9"] * (10 - len(separate.ends))]
    assert {one.failure.detail for one in letter.tries[1:]} == {
        "it ran alone in a process, which was killed by SIGKILL"
        if kind is AloneEnd.DIED
        else "its separate process did not start: was killed by SIGKILL"
    }


def test_a_suspect_without_room_is_put_back():
    """It keeps its losses, and no attempt counts."""
    fleet, job_id, separate = fleet_with_a_loss(AloneEnd.NO_ROOM, AloneEnd.NO_ROOM, AloneEnd.DONE)
    assert fleet.run(job_id).output == "Seen."
    assert not separate.ends
    assert fleet.store.job(job_id).retries == 0
