"""run_tool: time limits, threads, the loop, errors as data. Signals are waited for, never time."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from midwatch import ToolContext, ToolError, tool
from midwatch.orchestration.errors import ConfigError, ToolFailed
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.run import is_inside_tool, run_tool
from midwatch.schemas.failure import FailureKind
from midwatch.validators import JSONSchemaValidator

ANYTHING = JSONSchemaValidator({"type": "object"})
SHORT_S = 0.05


def a_tool(function: Callable[..., Any], **policies: Any) -> Tool:
    return tool("probe", "Probes.", ANYTHING, **policies)(function)


def failure(made: Tool, **arguments: Any) -> ToolFailed:
    with pytest.raises(ToolFailed) as caught:
        run_tool(made, arguments)
    return caught.value


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a stuck tool waits for; set at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def test_a_function_runs_and_its_result_is_text() -> None:
    """A str comes back as it is, anything else as JSON."""
    assert run_tool(a_tool(lambda: "plain"), {}).content == "plain"
    assert run_tool(a_tool(lambda **given: given), {"a": [1]}).content == '{"a":[1]}'


def test_a_coroutine_function_runs_on_one_loop() -> None:
    """Every coroutine of the process shares a loop, so that clients may keep their connections in it."""

    async def where() -> int:
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop())

    made = a_tool(where)
    assert run_tool(made, {}).content == run_tool(made, {}).content


def test_inside_tool_is_true_only_inside() -> None:
    """In the tool's thread and in its coroutine, not where it was called from: `agent.run` asks here."""

    async def asks() -> bool:
        return is_inside_tool()

    assert run_tool(a_tool(lambda: is_inside_tool()), {}).content == "true"
    assert run_tool(a_tool(asks), {}).content == "true"
    assert not is_inside_tool()


def test_context_variables_go_with_the_call() -> None:
    """Logging context that was bound outside is there inside; what a tool binds does not come out."""
    request = contextvars.ContextVar("request", default="none")

    def reads() -> str:
        seen = request.get()
        request.set("changed inside")
        return f"{seen} {structlog.contextvars.get_contextvars()['job']}"

    async def reads_too() -> str:
        return reads()

    request.set("r-1")
    with structlog.contextvars.bound_contextvars(job="j-1"):
        for made in (a_tool(reads), a_tool(reads_too)):
            assert run_tool(made, {}).content == "r-1 j-1"
    assert request.get() == "r-1"


@pytest.mark.parametrize(
    "error", [ValueError("no such order"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_whatever_a_tool_raises_is_a_tool_error(error: BaseException) -> None:
    """`sys.exit()` in a tool ends the call, not the worker; type and message are told, without a traceback."""

    def raises() -> None:
        raise error

    async def raises_too() -> None:
        raise error

    for made in (a_tool(raises), a_tool(raises_too)):
        found = failure(made).failure
        assert found.kind is FailureKind.TOOL_ERROR
        assert found.detail.startswith(type(error).__name__)
        assert "Traceback" not in found.detail
    assert run_tool(a_tool(lambda: "next"), {}).content == "next"


def test_the_detail_is_bounded_and_the_cause_is_kept_for_the_log() -> None:
    """500 characters for the model; the exception itself hangs on for whoever logs it."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def long() -> None:
        raise ValueError("x" * 100_000)

    def odd() -> None:
        raise Odd

    found = failure(a_tool(long))
    assert len(found.failure.detail) == 500
    assert isinstance(found.__cause__, ValueError)
    assert failure(a_tool(odd)).failure.detail == "Odd: (its message can't be read)"


def test_an_answer_on_purpose_passes_through() -> None:
    """`ToolError` is how a tool tells the model that its request was wrong: no failure."""

    def declines() -> None:
        raise ToolError("order A1 is closed")

    def rambles() -> None:
        raise ToolError("\ud800" * 100_000)

    with pytest.raises(ToolError, match="A1 is closed"):
        run_tool(a_tool(declines), {})
    with pytest.raises(ToolError) as bounded:
        run_tool(a_tool(rambles), {})
    assert len(str(bounded.value).encode()) <= 4_000


def test_a_function_out_of_time_is_abandoned(release: threading.Event) -> None:
    """The call fails in time, the next one gets another thread, and the old thread ends with its function."""
    threads: list[threading.Thread] = []

    def stuck() -> None:
        threads.append(threading.current_thread())
        release.wait(30)

    found = failure(a_tool(stuck, timeout_s=SHORT_S)).failure
    assert found.kind is FailureKind.TIMEOUT
    assert found.detail == "probe was not done after 0.05 s and may still be running"
    assert run_tool(a_tool(lambda: threading.current_thread().name), {}).content == "midwatch-tool"
    release.set()
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_threads_are_kept_between_calls() -> None:
    """Starting a thread costs ten times as much as handing over to one that waits."""
    made = a_tool(lambda: str(threading.get_ident()))
    assert len({run_tool(made, {}).content for _ in range(20)}) == 1


def test_calls_from_many_threads_do_not_wait_for_each_other() -> None:
    """Eight callers at once have eight tool threads: all meet at a barrier inside their tools."""
    barrier = threading.Barrier(8, timeout=20)
    made = a_tool(lambda: str(barrier.wait() >= 0))
    said: list[str] = []
    callers = [threading.Thread(target=lambda: said.append(run_tool(made, {}).content)) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert said == ["True"] * 8


def test_a_coroutine_out_of_time_is_really_cancelled() -> None:
    """It gets CancelledError and runs its cleanup before the failure is reported."""
    cleaned = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    found = failure(a_tool(slow, timeout_s=SHORT_S)).failure
    assert found.kind is FailureKind.TIMEOUT
    assert "was cancelled" in found.detail
    assert cleaned.is_set()


def test_a_coroutine_that_blocks_the_loop_costs_the_loop_not_the_worker(release: threading.Event) -> None:
    """A blocking call in an `async def` would stop every coroutine tool of the process: the next one has a new loop."""

    async def blocks() -> None:
        release.wait(30)

    async def fine() -> str:
        await asyncio.sleep(0)
        return "fine"

    found = failure(a_tool(blocks, timeout_s=SHORT_S)).failure
    assert found.kind is FailureKind.TIMEOUT
    assert "may still be running" in found.detail
    assert run_tool(a_tool(fine), {}).content == "fine"


def test_a_deadline_nearer_than_the_timeout_holds(release: threading.Event) -> None:
    """A tool has no more time than its context says is left."""
    context = ToolContext(job_id="j", step_id="1.0", session_id="s", idempotency_key="k", timeout_s=SHORT_S)
    with pytest.raises(ToolFailed, match="timeout"):
        run_tool(a_tool(lambda: release.wait(30), timeout_s=60), {}, context)


def test_the_context_is_handed_over_and_needed() -> None:
    """A tool that takes one gets the very one; without it the call is a mistake of the runtime."""

    def key(context: ToolContext, order: str = "") -> str:
        return f"{order} {context.idempotency_key} {context.attempt} {context.cancelled()}"

    context = ToolContext(
        job_id="j", step_id="1.0", session_id="s", idempotency_key="mw-1", attempt=2, is_cancelled=lambda: True
    )
    assert run_tool(a_tool(key), {"order": "A"}, context).content == "A mw-1 2 True"
    with pytest.raises(ConfigError, match="takes a ToolContext"):
        run_tool(a_tool(key), {"order": "A"})


def test_time_left_and_artifacts() -> None:
    """`remaining_s` counts down on the clock that was handed in, to zero; artifacts go where the runtime keeps them."""
    now = [100.0]
    kept: dict[str, bytes] = {}

    def keep(name: str, body: bytes) -> str:
        kept[name] = body
        return f"res-{name}"

    context = ToolContext(
        job_id="j",
        step_id="1.0",
        session_id="s",
        idempotency_key="k",
        timeout_s=5,
        monotonic_s=lambda: now[0],
        keep=keep,
    )
    now[0] = 103.0
    assert context.remaining_s() == pytest.approx(2.0)
    now[0] = 200.0
    assert context.remaining_s() == 0.0
    assert context.artifact("report.txt", "grün") == "res-report.txt"
    assert kept == {"report.txt": "grün".encode()}
    with pytest.raises(ConfigError, match="artifact name"):
        context.artifact("../etc", b"")


@pytest.mark.parametrize(
    ("function", "kind", "says"),
    [
        (lambda: float("nan"), FailureKind.FORMAT_ERROR, "NaN"),
        (lambda: asyncio.sleep(0), FailureKind.TOOL_ERROR, "async def"),
    ],
    ids=["nan", "coroutine"],
)
def test_a_result_that_can_not_be_text_is_a_failure(function: Any, kind: FailureKind, says: str) -> None:
    """Said with what to return instead, and leaving nothing un-awaited behind."""
    found = failure(a_tool(function)).failure
    assert found.kind is kind
    assert says in found.detail


def test_an_argument_that_no_longer_converts_is_a_format_error() -> None:
    """The function's annotation changed since the call was checked: data, not a crash."""

    def count(number: set[int] | None = None) -> str:
        return str(number)

    assert failure(a_tool(count), number="x").failure.kind is FailureKind.FORMAT_ERROR


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_and_loop_work_in_a_forked_child() -> None:
    """Prefork workers inherit the objects but not the threads behind them: they make their own."""

    async def coroutine() -> str:
        await asyncio.sleep(0)
        return "loop"

    threaded, looped = a_tool(lambda: "thread"), a_tool(coroutine)
    expected = ("thread", "loop")
    assert (run_tool(threaded, {}).content, run_tool(looped, {}).content) == expected
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if (run_tool(threaded, {}).content, run_tool(looped, {}).content) == expected else 2
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
