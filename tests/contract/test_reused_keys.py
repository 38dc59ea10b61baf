"""An idempotency key names one request. A repetition returns its job. Another request with the same key is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import redis as redis_py
from structlog.testing import capture_logs

from midwatch import Agent
from midwatch.errors import KeyReused
from midwatch.orchestration.client.client import Client
from midwatch.schemas.policy import RunLimits
from midwatch.workers.process import tasks
from tests.contract.store_bench import redis_bench

CLERK = Agent("clerk", "scripted:m-1", "You help.")


@pytest.fixture
def client(redis: redis_py.Redis, prefix: str) -> Client:
    bench = redis_bench(redis, prefix)
    return Client(store=bench.store, operations=bench.operations)  # type: ignore[arg-type]


def test_the_same_request_returns_the_first_job(client: Client) -> None:
    """With and without the session, and with limits that a deployment has changed since."""
    first = client.enqueue(CLERK, "pay 1", session_id="s1", idempotency_key="order-1")
    changed = Agent("clerk", "scripted:m-2", "You help more.", limits=RunLimits(max_steps=7))
    for agent, session_id in ((CLERK, "s1"), (CLERK, None), ("clerk", None), (changed, "s1")):
        again = client.enqueue(agent, "pay 1", session_id=session_id, idempotency_key="order-1", priority="low")
        assert (again.id, again.accepted, again.session_id) == (first.id, False, "s1")


def test_another_input_is_refused(client: Client) -> None:
    """The error names the job, and both inputs by their digests, because an input may be a secret. Nothing changes."""
    first = client.enqueue(CLERK, "pay 1", idempotency_key="order-1")
    with pytest.raises(KeyReused, match="was enqueued with another input") as caught:
        client.enqueue(CLERK, "pay 2", idempotency_key="order-1")
    assert caught.value.job_id == first.id
    assert "pay" not in str(caught.value)
    assert [job.job_id for job in client.jobs.list()] == [first.id]


def test_another_session_is_logged(client: Client) -> None:
    """The first request has decided the session. The handle has its id, and a line of the log names both."""
    client.enqueue(CLERK, "pay 1", session_id="s1", idempotency_key="order-1")
    with capture_logs() as logs:
        again = client.enqueue(CLERK, "pay 1", session_id="s2", idempotency_key="order-1")
    assert (again.accepted, again.session_id) == (False, "s1")
    (entry,) = logs
    assert (entry["event"], entry["session_id"], entry["named"]) == ("enqueue.other_session", "s1", "s2")


def test_another_agent_or_tenant_has_keys_of_its_own(client: Client) -> None:
    """The scope of a key is an agent and a tenant. Two agents may use the number of one order."""
    ids = {
        client.enqueue(agent, "pay 1", idempotency_key="order-1", tenant=tenant).id
        for agent in ("clerk", "shipper")
        for tenant in (None, "acme")
    }
    assert len(ids) == 4


def test_start_message_with_a_reused_key_is_poison(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job id is its key. The worker keeps the second message as poison, with this reason."""

    process = SimpleNamespace(agents=(), client=client, settings=SimpleNamespace(one_server=True))
    monkeypatch.setattr(tasks, "runtime", lambda: process)
    envelope = {"job_id": "order-1", "agent": "clerk", "session_id": "s1", "input": "pay 1"}
    tasks.start({**envelope})
    tasks.start({**envelope})
    assert client.operations.poison() == []
    tasks.start({**envelope, "input": "pay 2"})
    (poison,) = client.operations.poison()
    assert "was enqueued with another input" in poison.reason


def test_a_request_without_its_digest_is_not_compared(client: Client, redis: redis_py.Redis) -> None:
    """Without the digest of the first input, the first job is returned, as before."""
    first = client.enqueue(CLERK, "pay 1", session_id="s1", idempotency_key="order-1")
    redis.hdel(client.operations.keys.job("s1", first.id), "digest")
    assert client.enqueue(CLERK, "pay 2", idempotency_key="order-1").id == first.id
    second = client.enqueue(CLERK, "pay 1", session_id="s2", idempotency_key="order-2")
    assert client.jobs.cancel(second.id)
    client.sessions.forget("s2")
    assert redis.hget(client.operations.keys.job("s2", second.id), "digest") is None
    assert client.enqueue(CLERK, "pay 2", idempotency_key="order-2").id == second.id


def test_a_child_is_counted_once_for_its_parent(client: Client) -> None:
    """A refused repetition does not take the first child away from its parent, and adds none."""
    parent = client.enqueue(CLERK, "lead")
    child = client.enqueue(CLERK, "pay 1", idempotency_key="order-1", parent=parent)
    with pytest.raises(KeyReused):
        client.enqueue(CLERK, "pay 2", idempotency_key="order-1", parent=parent)
    assert client.jobs.show(parent.id).adopted == (child.id,)
    client.enqueue(CLERK, "pay 1", idempotency_key="order-2")
    with pytest.raises(KeyReused):
        client.enqueue(CLERK, "pay 2", idempotency_key="order-2", parent=parent)
    assert client.jobs.show(parent.id).adopted == (child.id,)
