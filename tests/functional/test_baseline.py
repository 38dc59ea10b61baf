"""The baseline and its measurements, with a real worker on a real server. Runs are small and figures are checked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from midwatch.orchestration.errors import ConfigError
from midwatch.workers.bench.measure import cpu_s, kept_bytes, redis_commands
from midwatch.workers.bench.steps.baseline import BaselineRun
from midwatch.workers.local.embedded_server import EmbeddedServer

linux = pytest.mark.skipif(sys.platform != "linux", reason="CPU figures are read from Linux's /proc")

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"


@linux
@pytest.mark.parametrize("read_history", [False, True])
def test_a_run_of_the_bare_loop_ends_all_jobs_and_leaves_no_keys(read_history, connect_redis):
    """Every figure exists and is plausible. Afterwards the server has no new keys except kombu's bindings."""
    with EmbeddedServer(append_only=None) as server:
        result = BaselineRun(server, jobs=6, steps_per_job=4, read_history=read_history).run()
        names = connect_redis(server.url).keys()
    assert (result.jobs, result.steps_per_job, result.read_history) == (6, 4, read_history)
    assert result.steps_per_s > 1
    assert 0 < result.p50_ms <= result.p99_ms
    assert result.cpu_ms_per_step >= 0
    assert 14 <= result.redis_commands_per_step <= 20, "ten by Celery, five by us, and those of connections"
    assert 0.8 <= result.kb_per_step <= 1.6, "three of four steps keep a result of 1 KB"
    assert [name for name in names if not name.startswith(b"_kombu.")] == []


def test_a_run_without_two_steps_is_refused():
    """The time of a step is measured between two steps."""
    with pytest.raises(ConfigError, match="at least one job of two steps, got jobs=3, steps_per_job=1"):
        BaselineRun(server=None, jobs=3, steps_per_job=1)


@linux
def test_cpu_counts_a_whole_process_tree_with_ended_children():
    """The sum contains the work of a process, of a living child and of an ended child."""
    program = (
        f"import subprocess, sys\nburn = {BURN!r}\n"
        "subprocess.run([sys.executable, '-c', burn])\n"
        "living = subprocess.Popen([sys.executable, '-c', burn + 'print(flush=True); time.sleep(60)'], stdout=-1)\n"
        "living.stdout.readline()\n"
        "exec(burn)\nprint('done', flush=True)\nsys.stdin.read()\nliving.kill()\nliving.wait()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        used_s = cpu_s(parent.pid)
        parent.stdin.close()
    assert 0.85 <= used_s <= 2.0
    with pytest.raises(ProcessLookupError, match="can be read only while a process runs"):
        cpu_s(parent.pid)


def test_commands_are_counted_one_by_one(redis, prefix):
    """Commands inside transactions and scripts count too. The measurement's own commands don't."""
    measuring = ("info", "ping")
    before = redis_commands(redis, but=measuring)
    with redis.pipeline() as pipe:
        pipe.get(prefix).get(prefix).execute()
    redis.eval("return {redis.call('GET', KEYS[1]), redis.call('GET', KEYS[1])}", 1, prefix)
    redis.ping()
    assert redis_commands(redis, but=measuring) - before == 4 + 3


def test_kept_bytes_are_those_of_the_matching_keys(redis, prefix):
    """The sum is what a job leaves behind, without the server's other keys."""
    redis.set(f"{prefix}:job:big", "x" * 10_000, ex=60)
    redis.set(f"{prefix}:job:small", "x", ex=60)
    assert 10_000 <= kept_bytes(redis, f"{prefix}:job:big") <= 14_000
    assert kept_bytes(redis, f"{prefix}:job:*") > kept_bytes(redis, f"{prefix}:job:big")
    assert kept_bytes(redis, f"{prefix}:none:*") == 0
