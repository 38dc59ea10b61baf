"""Three servers as one cluster: scripts of the coordinator and the step machine run there and pass their contract tests."""

from __future__ import annotations

import inspect
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis as redis_py

from midwatch.orchestration.admission.functions import COORDINATOR
from midwatch.orchestration.admission.replies import decode_admit
from midwatch.orchestration.keyspace import PARTITIONS, Keyspace
from midwatch.orchestration.store.script_calls.script_call import ScriptCall
from midwatch.orchestration.store.scripts import Scripts
from midwatch.schemas.step import StepRef
from midwatch.workers.local.embedded_server import HOST, server_binary
from midwatch.workers.process.die_with_parent import Process, read_last_lines, signal_group, start_process
from tests.contract import test_gate, test_gate_lines, test_store_endings, test_stores
from tests.contract.gate_bench import SHOP, GateBench, limits
from tests.contract.store_bench import Bench, redis_bench

SLOTS = (0, 5_461, 10_923, 16_384)
_CONFIG = """\
bind {host}
port {port}
dir {directory}
cluster-enabled yes
save ""
appendonly no
maxmemory-policy noeviction
"""


class Node:
    """One server of the cluster."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.log = directory / "log"
        self.client, self.process = self._start(directory)

    def _start(self, directory: Path) -> tuple[redis_py.Redis, Process]:
        for _ in range(20):
            port = random.randint(20_000, 22_000)  # the port of the cluster bus is 10,000 above
            (directory / "conf").write_text(_CONFIG.format(host=HOST, port=port, directory=directory))
            process = start_process([str(server_binary()), str(directory / "conf")], log_path=self.log)
            client = redis_py.Redis(host=HOST, port=port, socket_timeout=5)
            while process.poll() is None:
                try:
                    if client.info("server")["process_id"] == process.pid:
                        return client, process
                except redis_py.RedisError:
                    time.sleep(0.01)
            client.close()
        pytest.fail(f"no server came up:\n{read_last_lines(self.log)}")

    @property
    def port(self) -> int:
        return int(self.client.connection_pool.connection_kwargs["port"])

    def knows_all(self) -> bool:
        """Return whether all slots are served and all three nodes are known."""
        said: dict[str, str] = self.client.cluster("INFO")
        return said["cluster_state"] == "ok" and said["cluster_known_nodes"] == "3" and said["cluster_size"] == "3"

    def stop(self) -> None:
        self.client.close()
        signal_group(self.process, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def nodes(server: object, wait_for: Callable[..., object]) -> Iterator[list[Node]]:
    """Three connected nodes. The test is skipped where no embedded server can run."""
    directory = Path(tempfile.mkdtemp(prefix="midwatch-"))
    started: list[Node] = []
    try:
        started += [Node(directory / str(n)) for n in range(3)]
        for n, node in enumerate(started):
            node.client.cluster("ADDSLOTSRANGE", SLOTS[n], SLOTS[n + 1] - 1)
        for node in started[1:]:
            started[0].client.cluster("MEET", HOST, node.port)
        wait_for(lambda: all(node.knows_all() for node in started), "the cluster to form")
        yield started
    finally:
        for node in started:
            node.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(nodes: list[Node]) -> Iterator[Any]:
    """A client of the cluster."""
    with redis_py.RedisCluster(host=HOST, port=nodes[0].port, socket_timeout=5) as client:
        yield client


def contract_tests(*modules: ModuleType) -> list[Any]:
    """Return the tests of a contract suite that need only its bench."""
    return [
        pytest.param(test, id=f"{module.__name__.rpartition('.')[2]}::{name}")
        for module in modules
        for name, test in sorted(vars(module).items())
        if name.startswith("test_") and list(inspect.signature(test).parameters) == ["bench"]
        if not getattr(test, "pytestmark", None)
    ]


@pytest.mark.parametrize("promise", contract_tests(test_gate, test_gate_lines))
def test_the_coordinator_passes_its_contract_on_a_cluster(
    cluster: Any, promise: Callable[[Callable[..., GateBench]], None]
) -> None:
    """Every contract test passes, on whichever node the fleet's prefix is stored."""

    def make(**fields: object) -> GateBench:
        bench = GateBench(cluster, f"t{secrets.token_hex(4)}", {SHOP: limits(**fields)})
        bench.warm()
        return bench

    promise(make)


@pytest.mark.parametrize("promise", contract_tests(test_stores, test_store_endings))
def test_the_step_machine_passes_its_contract_on_a_cluster(cluster: Any, promise: Callable[[Bench], None]) -> None:
    """Every contract test passes. The sixteen partitions of a fleet are spread over all three nodes."""
    promise(redis_bench(cluster, f"t{secrets.token_hex(4)}"))


def test_a_fleets_keys_lie_on_all_nodes(cluster: Any) -> None:
    """Keys that belong together are in one slot, and the slots are spread over the nodes."""
    keys = Keyspace("mw")
    slots = {cluster.keyslot(keys.index(p, "due")) for p in range(PARTITIONS)}
    assert len(slots) == PARTITIONS
    assert len({cluster.get_node_from_key(keys.index(p, "due")).port for p in range(PARTITIONS)}) == 3
    for name in (SHOP, "anthropic:claude-sonnet-4-6"):
        own = {cluster.keyslot(key) for key in (*keys.downstream(name), keys.lineage("root"), keys.gate_index())}
        assert len(own) == 1
    ref = StepRef(job_id="j", session_id="s", step="1")
    session = {cluster.keyslot(keys.session("s")), cluster.keyslot(keys.job("s", ref.job_id))}
    assert len(session) == 1


def test_a_decision_over_two_slots_is_refused_before_it_begins(nodes: list[Node], cluster: Any) -> None:
    """With keys of two fleets in one call, the server refuses the script, and neither fleet's keys change."""
    one, other = Keyspace("one"), Keyspace("two")
    keys = [*one.downstream(SHOP), other.lineage("root")]
    assert cluster.keyslot(keys[0]) != cluster.keyslot(keys[-1])
    for node in nodes:
        with pytest.raises(redis_py.ResponseError, match="same slot"):
            Scripts(node.client, COORDINATOR).run(ScriptCall("admit", keys, ["x"] * 20, decode_admit))
    assert not any(cluster.exists(key) for key in keys)
