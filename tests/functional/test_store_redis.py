"""RedisStore on a real server: racing threads, a server that loses data, a server without memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis as redis_py

from midwatch.orchestration.errors import StoreUnavailable
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.store.conversation.log_cache import COMPRESS_ABOVE_BYTES
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolMessage
from midwatch.schemas.step import Priority, StepRef
from midwatch.workers.celery_app.write_message import queue_key
from midwatch.workers.local.embedded_server import EmbeddedServer
from tests.contract.store_bench import ending_of, redis_bench, results_of, trace_of, turn_of
from tests.patience import PATIENCE_S
from tests.properties.two_servers import Recorder, new_job


@pytest.fixture
def bench(redis, prefix):
    return redis_bench(redis, prefix)


def at_once(count, work):
    """Let `count` threads call a function at the same moment. Return their results."""
    start = threading.Barrier(count)

    def run(number):
        start.wait(PATIENCE_S)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_only_one_of_many_workers_gets_the_step(bench):
    """Eight claims at one moment give one claim and seven times busy. This is repeated ten times."""
    for number in range(10):
        ref = new_job(f"job-{number}", f"s-{number}").ref
        bench.store.enqueue(new_job(f"job-{number}", f"s-{number}"))
        answers = at_once(8, lambda n, ref=ref: bench.store.claim(ref, f"w{n}"))
        assert sum(isinstance(answer, Claim) for answer in answers) == 1
        assert answers.count(ClaimRefusal.BUSY) == 7


def test_concurrent_results_publish_the_next_turn_once(bench):
    """Six calls of one turn finish together, and one of them publishes the model turn."""
    _, calls = bench.to_calls(6)
    claims = [bench.claim(ref) for ref in calls]
    bench.published()
    assert all(at_once(6, lambda n: bench.store.commit_results(claims[n], results_of(claims[n]))))
    assert bench.published() == ["job-1/2"]


def test_concurrent_enqueues_with_one_key_make_one_job(bench):
    """Six producers use one idempotency key and six sessions. One is accepted."""
    answers = at_once(6, lambda n: bench.store.enqueue(new_job("job-1", f"s-{n}")))
    assert sorted(answers) == [False] * 5 + [True]
    session_id = bench.store.job("job-1").session_id
    assert isinstance(bench.take(new_job("job-1", session_id).ref), Claim)


def test_scripts_are_loaded_again_when_the_server_forgot_them(bench, redis):
    """A restart or a SCRIPT FLUSH costs one more round trip, also for a pipeline of scripts."""
    claim = bench.begin()
    redis.script_flush()
    assert bench.store.commit_turn(claim, turn_of(claim)) is TurnCommitted.COMMITTED
    redis.script_flush()
    assert bench.sweep() == []


def test_a_worker_fetches_only_new_messages_of_a_conversation(bench, redis):
    """The second claim of a worker fetches only new messages. Another worker gets the whole conversation."""
    claim = bench.begin()
    for turn in range(2, 6):
        bench.store.commit_turn(claim, turn_of(claim))
        before = redis.info("stats")["total_net_output_bytes"]
        claim = bench.claim(claim.ref.model_turn(turn))
        fetched_bytes = redis.info("stats")["total_net_output_bytes"] - before
        assert len(claim.log) == turn
    assert fetched_bytes < 4_500
    other = RedisStore(redis, bench.store.keys, Recorder())
    assert other.claim(claim.ref, claim.nonce).log == claim.log


def test_a_cached_conversation_that_the_server_lost_is_not_used(bench, redis):
    """A server that crashed may have lost its last writes. Then its data counts, and not the worker's copy."""
    claim = bench.begin()
    bench.store.commit_turn(claim, turn_of(claim))
    claim = bench.claim(claim.ref.model_turn(2))
    log_key = bench.store.keys.log("s1")
    redis.rpop(log_key)
    redis.hset(bench.store.keys.session("s1"), "entries", 1)
    assert len(bench.store.claim(claim.ref, claim.nonce).log) == 1
    redis.rpush(log_key, '{"role":"note","group":2,"text":"another history"}')
    assert bench.store.claim(claim.ref, claim.nonce).log[1].text == "another history"


def test_a_conversation_that_is_evicted_during_a_claim_is_complete(bench):
    """The cache may drop a session at any moment. The claim that began with it still gets every message."""
    claim = bench.begin()
    bench.store.commit_turn(claim, turn_of(claim))
    run, bench.store.scripts.run = bench.store.scripts.run, None

    def run_and_evict(*args, **options):
        bench.store._cache.forget("s1")
        return run(*args, **options)

    bench.store.scripts.run = run_and_evict
    assert len(bench.claim(claim.ref.model_turn(2)).log) == 2


def test_the_copy_of_a_session_whose_job_ended_is_dropped(bench):
    """It is kept only while another job of the session waits, because that job is claimed next."""
    first, second = new_job("job-1", "s1"), new_job("job-2", "s1")
    bench.store.enqueue(first)
    bench.store.enqueue(second)
    for ref, kept in ((first.ref, True), (second.ref, False)):
        claim = bench.claim(ref)
        assert bench.store.finish(claim, ending_of(claim, JobStatus.COMPLETED), trace_of(claim, "completed"))
        assert (bench.store._cache.mark("s1").length > 0) is kept


def test_long_messages_are_compressed_and_read_back_unchanged(bench, redis):
    """A long transcript is compressed. The model still reads each tool's result byte for byte."""
    _, (call,) = bench.to_calls(1)
    claim = bench.claim(call)
    said = "row \u2028 é 🙂\n" * 5_000
    commit = results_of(claim)
    message = commit.messages[0].model_copy(update={"content": said})
    bench.store.commit_results(claim, type(commit)(commit.refs, (message,), commit.traces))
    assert len(redis.lindex(bench.store.keys.log("s1"), -1)) < COMPRESS_ABOVE_BYTES
    log = bench.claim(call.model_turn(2)).log
    assert [message.content for message in log if isinstance(message, ToolMessage)] == [said]


class HandOff(Recorder):
    """A dispatcher whose queues are on the store's server."""

    def __init__(self, prefix):
        super().__init__()
        self.prefix = prefix

    def hand_off(self, priority: Priority):
        return f"{self.prefix}.model", f"{self.prefix}.tools"

    def first_queue(self, priority: Priority):
        return queue_key(f"{self.prefix}.model", priority, first=True)

    def message(self, ref: StepRef, *, begun: bool = False):
        return f"{ref.job_id}/{ref.step}".encode()


def test_a_commit_publishes_the_next_message_in_its_own_script(redis, prefix):
    """Commit and message are one script, so no worker can die between them."""
    keys, dispatcher = Keyspace(prefix), HandOff(prefix)
    store = RedisStore(redis, keys, dispatcher)
    operations = Operations(redis, keys, dispatcher)
    store.enqueue(new_job("job-1", "s1"))
    claim = store.claim(new_job("job-1", "s1").ref, "w1")
    store.commit_turn(claim, turn_of(claim, 3, inline=1))
    assert redis.lrange(f"{prefix}.tools", 0, -1) == [b"job-1/1.2", b"job-1/1.1"]
    for number in (1, 2):
        call = store.claim(claim.ref.call(number), f"w{number}")
        store.commit_results(call, results_of(call))
    store.commit_results(claim, results_of(claim, claim.ref.call(0)))
    assert redis.lrange(f"{prefix}.model", 0, -1) == [b"job-1/2"]
    assert redis.lrange(dispatcher.first_queue(Priority.NORMAL), 0, -1) == [b"job-1/1"]
    assert dispatcher.refs == []
    last = store.claim(claim.ref.model_turn(2), "w3")
    store.enqueue(new_job("job-2", "s1"))
    store.finish(last, ending_of(last, JobStatus.COMPLETED), trace_of(last))
    assert [f"{ref.job_id}/{ref.step}" for ref in dispatcher.refs] == ["job-2/1"]
    assert operations.jobs(status=JobStatus.QUEUED)[0].job_id == "job-2"


def test_listings_and_counters_cover_all_partitions(bench):
    """The newest job is first, with filters by status and by agent. Counters are summed over the fleet."""
    for number in range(20):
        bench.store.enqueue(new_job(f"job-{number}", f"s-{number}", agent="clerk" if number % 2 else "judge"))
    bench.to_dead_letter("job-x", session_id="s-x")
    jobs = bench.operations.jobs(limit=100)
    assert {job.job_id for job in jobs} == {f"job-{number}" for number in range(20)} | {"job-x"}
    assert [job.created_ms for job in jobs] == sorted((job.created_ms for job in jobs), reverse=True)
    assert len(bench.operations.jobs(limit=3)) == 3
    assert len(bench.operations.jobs(agent="judge")) == 10
    assert [job.job_id for job in bench.operations.jobs(status=JobStatus.DEAD_LETTERED)] == ["job-x"]
    assert bench.operations.counters() == {"jobs.enqueued": 21, "jobs.dead_lettered": 1}


def test_a_claim_can_be_committed_after_the_server_was_away(tmp_path):
    """No job is stored while the server is down. A commit that meets a restart waits for it and succeeds."""
    with EmbeddedServer(tmp_path) as server:
        client = redis_py.Redis.from_url(server.url, socket_timeout=2, socket_connect_timeout=1)
        bench = redis_bench(client, "mw")
        claim = bench.begin()
        server.kill()
        with pytest.raises(StoreUnavailable, match="nothing was recorded"):
            bench.store.claim(claim.ref, "w9")
        back = threading.Thread(target=server.restart)
        back.start()
        assert bench.store.commit_turn(claim, turn_of(claim)) is TurnCommitted.COMMITTED
        back.join()
        client.close()


def test_a_server_out_of_memory_stores_nothing_partially(tmp_path):
    """The script is refused as a whole, before its first write. When there is memory again, the same commit succeeds."""
    with EmbeddedServer(tmp_path, append_only=None) as server:
        client = redis_py.Redis.from_url(server.url, socket_timeout=2)
        bench = redis_bench(client, "mw")
        claim = bench.begin()
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="memory"):
            bench.store.claim(claim.ref, "w9")
        client.config_set("maxmemory", 0)
        assert bench.store.commit_turn(claim, turn_of(claim)) is TurnCommitted.COMMITTED
        assert len(bench.operations.messages("s1")) == 2
        client.close()
