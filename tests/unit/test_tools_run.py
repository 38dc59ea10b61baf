"""run_tool: time limits, threads, the event loop, errors as data. The tests wait for signals and never sleep."""

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
from midwatch.orchestration.tools.inside import is_inside_tool
from midwatch.orchestration.tools.run import run_tool
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
    """A stuck tool waits for this event. It is set at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


def test_a_function_runs_and_its_result_is_text() -> None:
    """A str is returned unchanged, any other value as JSON."""
    assert run_tool(a_tool(lambda: "plain"), {}).content == "plain"
    assert run_tool(a_tool(lambda **given: given), {"a": [1]}).content == '{"a":[1]}'


def test_a_coroutine_function_runs_on_one_loop() -> None:
    """All coroutines of the process share one loop, so that clients can keep their connections in it."""

    async def where() -> int:
        await asyncio.sleep(0)
        return id(asyncio.get_running_loop())

    made = a_tool(where)
    assert run_tool(made, {}).content == run_tool(made, {}).content


def test_inside_tool_is_true_only_inside() -> None:
    """It is true in the tool's thread and coroutine, but not in the caller. `agent.run` uses it."""

    async def asks() -> bool:
        return is_inside_tool()

    assert run_tool(a_tool(lambda: is_inside_tool()), {}).content == "true"
    assert run_tool(a_tool(asks), {}).content == "true"
    assert not is_inside_tool()


def test_a_tool_sees_the_callers_context_variables() -> None:
    """The tool sees the caller's logging context. What the tool binds is not visible outside."""
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
def test_any_exception_of_a_tool_is_a_tool_error(error: BaseException) -> None:
    """`sys.exit()` in a tool ends the call, not the worker. The detail has type and message, but no traceback."""

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
    """The model gets 500 characters. The exception itself is kept as the cause, for logs."""

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


def test_a_tool_error_keeps_its_message() -> None:
    """With `ToolError` a tool tells the model that its request was wrong. That is not a failure."""

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
    """The call fails at its time limit. The next call gets another thread. The old thread ends with its function."""
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


def test_threads_are_reused_between_calls() -> None:
    """Starting a thread costs ten times as much as using an idle one."""
    made = a_tool(lambda: str(threading.get_ident()))
    assert len({run_tool(made, {}).content for _ in range(20)}) == 1


def test_calls_from_many_threads_do_not_wait_for_each_other() -> None:
    """Eight concurrent callers have eight tool threads: their tools all meet at a barrier."""
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
    """The coroutine gets CancelledError and runs its cleanup before the failure is reported."""
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


def test_a_coroutine_that_blocks_the_loop_gets_the_loop_replaced(release: threading.Event) -> None:
    """A blocking call in an `async def` would stop all coroutine tools of the process, so the next one gets a new loop."""

    async def blocks() -> None:
        release.wait(30)

    async def fine() -> str:
        await asyncio.sleep(0)
        return "fine"

    found = failure(a_tool(blocks, timeout_s=SHORT_S)).failure
    assert found.kind is FailureKind.TIMEOUT
    assert "may still be running" in found.detail
    assert run_tool(a_tool(fine), {}).content == "fine"


def test_a_context_deadline_before_the_timeout_applies(release: threading.Event) -> None:
    """A tool has no more time than its context has left."""
    context = ToolContext(job_id="j", step_id="1.0", session_id="s", idempotency_key="k", timeout_s=SHORT_S)
    with pytest.raises(ToolFailed, match="timeout"):
        run_tool(a_tool(lambda: release.wait(30), timeout_s=60), {}, context)


def test_a_tool_that_takes_a_context_gets_it() -> None:
    """The tool gets the same object. To call it without a context is an error."""

    def key(context: ToolContext, order: str = "") -> str:
        return f"{order} {context.idempotency_key} {context.attempt} {context.cancelled()}"

    context = ToolContext(
        job_id="j", step_id="1.0", session_id="s", idempotency_key="mw-1", attempt=2, is_cancelled=lambda: True
    )
    assert run_tool(a_tool(key), {"order": "A"}, context).content == "A mw-1 2 True"
    with pytest.raises(ConfigError, match="takes a ToolContext"):
        run_tool(a_tool(key), {"order": "A"})


def test_time_left_and_artifacts() -> None:
    """`remaining_s` counts down to zero on the given clock. Artifacts are passed to the runtime's `keep`."""
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
def test_a_result_that_has_no_text_form_is_a_failure(function: Any, kind: FailureKind, says: str) -> None:
    """The detail says what to return instead. No coroutine is left un-awaited."""
    found = failure(a_tool(function)).failure
    assert found.kind is kind
    assert says in found.detail


def test_an_argument_that_no_longer_converts_is_a_format_error() -> None:
    """The annotation may change after the call was checked. Then the call fails as data and does not crash."""

    def count(number: set[int] | None = None) -> str:
        return str(number)

    assert failure(a_tool(count), number="x").failure.kind is FailureKind.FORMAT_ERROR


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.process
def test_threads_and_loop_work_in_a_forked_child() -> None:
    """Prefork workers inherit the objects but not their threads, so they start new threads."""

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
