"""Negative controls: each test switches one guarantee off. The checker, which passes elsewhere, must then find the fault."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import StepKind
from midwatch.workers.local.process import Member
from tests.patience import PATIENCE_S, wait_for
from tests.tickets.chaos import Chaos
from tests.tickets.record import tickets
from tests.tickets.stage import Report, Stage

SOME = slice(0, 50, 8)
SHORT = slice(34, 35)
"""One ticket with four calls, the shortest with more than one."""
WORKERS = [("model,maintenance", "threads", 8), ("tools", "threads", 8), ("tools", "threads", 8)]
SLOW_TOOLS = {"TICKETS_TOOL_MS": "200"}


def deliver_thrice(folder: Path, **without: str) -> Report:
    """Run the ticket with every message three times and no stable key for the downstream."""
    with Stage(folder, prefix="control", env={**SLOW_TOOLS, "TICKETS_KEYLESS": "1", **without}) as stage:
        stage.start_workers(WORKERS)
        with Chaos(stage, seed=1) as chaos:
            chaos.deliver_thrice()
            stage.play(tickets()[SOME], wires=("openai",))
            stage.wait()
        return stage.check()


def test_without_the_lease_a_message_delivered_thrice_acts_more_than_once(tmp_path: Path, data_dir: Path) -> None:
    """Without keys, only the lease keeps an effect from happening twice. Without the lease, the checker finds duplicates."""
    assert deliver_thrice(tmp_path / "with").clean
    assert deliver_thrice(tmp_path / "without", TICKETS_WITHOUT="lease").duplicated_effects


def test_without_stable_keys_a_killed_worker_doubles_effects(tmp_path: Path, data_dir: Path) -> None:
    """A step that is killed between effect and commit runs again. Only its key prevents a second effect."""
    assert crash_once(tmp_path / "with").clean
    assert crash_once(tmp_path / "without", TICKETS_KEYLESS="1").duplicated_effects


def crash_once(folder: Path, **without: str) -> Report:
    """Run the ticket while one worker dies just after the first effect."""
    with Stage(folder, prefix="control", env={"TICKETS_CRASH_FILE": str(folder / "crashed"), **without}) as stage:
        stage.start_workers(WORKERS)
        stage.fleet.watch()
        stage.play(tickets()[SHORT], wires=("openai",))
        stage.wait()
        return stage.check()


def test_without_the_steward_the_steps_of_a_dead_worker_are_lost(tmp_path: Path, data_dir: Path) -> None:
    """No steward publishes a dead worker's steps again. Later jobs complete, and those steps are still held."""
    with Stage(tmp_path, prefix="control", env={**SLOW_TOOLS, "TICKETS_WITHOUT": "steward"}) as stage:
        stage.start_workers(WORKERS)
        stage.fleet.watch()
        stage.play(tickets()[SOME], wires=("openai",))
        held = _freeze_in_a_tool(stage, *stage.workers)
        dead = {worker.name: worker.pid for worker in stage.workers}
        for worker in stage.workers:
            os.killpg(worker.pid, signal.SIGKILL)
        for worker in stage.workers:  # until then, a message may go to the dead worker's connection
            wait_for(lambda w=worker: w.pid != dead[w.name] and w.has_logged("ready"), "the worker to be back")  # type: ignore[misc]
        later = stage.client().enqueue("tickets-openai", tickets()[1].user_turns[0], session_id="later-1")
        assert later.result(PATIENCE_S).status is JobStatus.COMPLETED
        assert held.items() <= stage.under_way(StepKind.TOOL).items()
        report = stage.check()
    assert report.lost


def test_without_persistence_a_killed_server_loses_everything(tmp_path: Path, data_dir: Path) -> None:
    """The append-only file exists to prevent this."""
    with Stage(tmp_path, prefix="control", env=SLOW_TOOLS, append_only=None) as stage:
        stage.start_workers(WORKERS)
        stage.play(tickets()[SOME], wires=("openai",))
        _await_tool_under_way(stage)
        stage.server.kill()
        stage.server.restart()
        report = stage.check()
    assert len(report.lost) == report.attempted


def test_without_the_fence_a_thawed_worker_commits_a_second_time(tmp_path: Path, data_dir: Path) -> None:
    """A worker is frozen in a tool, overtaken and thawed.

    Its commit must be refused. Without the fence the result is stored twice.
    """
    assert freeze_and_take_over(tmp_path / "with").clean
    assert freeze_and_take_over(tmp_path / "without", TICKETS_WITHOUT="fence").transcripts_differ


def freeze_and_take_over(folder: Path, **without: str) -> Report:
    """Freeze the only tools worker during a call, let another worker take over, and thaw it."""
    with Stage(folder, prefix="control", env={"TICKETS_TOOL_MS": "1500", **without}) as stage:
        stage.start_workers([("model,maintenance", "threads", 8), ("tools", "threads", 8)])
        stage.play(tickets()[SHORT], wires=("openai",))
        sleeper = stage.workers[1]
        held = _freeze_in_a_tool(stage, sleeper)
        stage.start_workers([("tools", "threads", 8)])
        stage.await_new_claim(held)
        sleeper.thaw()
        stage.wait(or_letter=True)  # without the fence the conversation is inconsistent, which makes a dead letter
        return stage.check()


def _freeze_in_a_tool(stage: Stage, *sleepers: Member) -> dict[str, bytes]:
    """Freeze the workers during a call, and return the steps that they held.

    It tries again if the call ended before the signal.
    """

    def frozen_in_one() -> dict[str, bytes]:
        _await_tool_under_way(stage)
        for sleeper in sleepers:
            sleeper.freeze()
        if held := stage.under_way(StepKind.TOOL):
            return held
        for sleeper in sleepers:
            sleeper.thaw()
        return {}

    return wait_for(frozen_in_one, "the worker to be frozen in a tool call")


def _await_tool_under_way(stage: Stage) -> None:
    wait_for(lambda: stage.under_way(StepKind.TOOL), "a tool call to begin")
