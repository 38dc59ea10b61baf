"""Negative controls: with a guarantee switched off, the checker that passes elsewhere must find what it is there to find."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from midwatch.schemas.step import StepKind
from midwatch.workers.local.process import Member
from tests.tickets.chaos import Chaos
from tests.tickets.record import tickets
from tests.tickets.stage import Report, Stage

SOME = slice(0, 50, 8)
WORKERS = [("model,maintenance", "threads", 8), ("tools", "threads", 8), ("tools", "threads", 8)]
SLOW_TOOLS = {"TICKETS_TOOL_MS": "200"}


def tripled(folder: Path, **without: str) -> Report:
    """Every message three times, a downstream that is given no stable key."""
    with Stage(folder, prefix="control", env={**SLOW_TOOLS, "TICKETS_KEYLESS": "1", **without}) as stage:
        stage.start_workers(WORKERS)
        with Chaos(stage, seed=1) as chaos:
            chaos.deliver_thrice()
            stage.play(tickets()[SOME], wires=("openai",))
            stage.wait(60)
        return stage.check()


def test_without_the_lease_a_message_delivered_thrice_acts_more_than_once(tmp_path: Path, data_dir: Path) -> None:
    """The lease alone keeps keyless effects single under triple delivery; without it they are doubled, and it is seen."""
    assert tripled(tmp_path / "with").clean
    assert tripled(tmp_path / "without", TICKETS_WITHOUT="lease").duplicated_effects


def test_without_stable_keys_a_killed_worker_doubles_effects(tmp_path: Path, data_dir: Path) -> None:
    """Killed between effect and commit, a step runs again: only its key keeps the effect single."""
    assert crashed(tmp_path / "with").clean
    assert crashed(tmp_path / "without", TICKETS_KEYLESS="1").duplicated_effects


def crashed(folder: Path, **without: str) -> Report:
    """One worker dies just after the first effect."""
    with Stage(folder, prefix="control", env={"TICKETS_CRASH_FILE": str(folder / "crashed"), **without}) as stage:
        stage.start_workers(WORKERS)
        stage.fleet.watch()
        stage.play(tickets()[0:1], wires=("openai",))
        stage.wait(60)
        return stage.check()


def test_without_the_steward_what_a_dead_worker_held_is_lost(tmp_path: Path, data_dir: Path) -> None:
    """Nobody publishes a dead worker's steps again."""
    with Stage(tmp_path, prefix="control", env={**SLOW_TOOLS, "TICKETS_WITHOUT": "steward"}) as stage:
        stage.start_workers(WORKERS)
        stage.fleet.watch()
        stage.play(tickets()[SOME], wires=("openai",))
        _await_tool_under_way(stage)
        for worker in stage.workers:
            os.killpg(worker.pid, signal.SIGKILL)
        stage.wait(15)
        report = stage.check()
    assert report.lost


def test_without_persistence_a_killed_server_loses_everything(tmp_path: Path, data_dir: Path) -> None:
    """What the append-only file is for."""
    with Stage(tmp_path, prefix="control", env=SLOW_TOOLS, append_only=None) as stage:
        stage.start_workers(WORKERS)
        stage.play(tickets()[SOME], wires=("openai",))
        _await_tool_under_way(stage)
        stage.server.kill()
        stage.server.restart()
        stage.wait(5)
        report = stage.check()
    assert report.lost


def test_without_the_fence_a_thawed_worker_commits_a_second_time(tmp_path: Path, data_dir: Path) -> None:
    """Frozen in a tool, overtaken, thawed: its commit must be refused; without the fence the result stands there twice."""
    assert frozen(tmp_path / "with").clean
    assert frozen(tmp_path / "without", TICKETS_WITHOUT="fence").transcripts_differ


def frozen(folder: Path, **without: str) -> Report:
    """Freeze the one tools worker in mid-call, let another take over, thaw it."""
    with Stage(folder, prefix="control", env={"TICKETS_TOOL_MS": "1500", **without}) as stage:
        stage.start_workers([("model,maintenance", "threads", 8), ("tools", "threads", 8)])
        stage.play(tickets()[0:1], wires=("openai",))
        sleeper = stage.workers[1]
        held = _frozen_in_a_tool(stage, sleeper)
        stage.start_workers([("tools", "threads", 8)])
        stage.await_new_claim(held)
        sleeper.thaw()
        stage.wait(60, or_letter=True)  # without the fence the conversation does not go together: a dead letter
        return stage.check()


def _frozen_in_a_tool(stage: Stage, sleeper: Member) -> dict[str, bytes]:
    """Freeze it in a call for certain: a call may end between the look and the signal. What it held."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        _await_tool_under_way(stage)
        sleeper.freeze()
        if held := stage.under_way(StepKind.TOOL):
            return held
        sleeper.thaw()
    raise AssertionError("the worker was never frozen in a tool call within 60 s")


def _await_tool_under_way(stage: Stage) -> None:
    give_up = time.monotonic() + 30
    while not stage.under_way(StepKind.TOOL):
        assert time.monotonic() < give_up, "no tool call began within 30 s"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _bounded(request: pytest.FixtureRequest) -> None:
    """A control that hangs is a failure, not a verdict."""
    request.node.add_marker(pytest.mark.timeout(170))
