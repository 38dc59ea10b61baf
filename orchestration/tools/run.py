"""Run one tool: convert its arguments, limit its time, and turn anything that it raises into a failure.

A function runs in a pooled thread (see `threads`; if it overruns, its thread is abandoned, not stopped). A coroutine function
runs in the process's event loop (see `coroutines`; if it overruns, it is cancelled). Both get the caller's context variables,
with structlog's among them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from midwatch.orchestration.errors import ConfigError, ToolError, ToolFailed
from midwatch.orchestration.protocol.passwords import hide_passwords
from midwatch.orchestration.tools.context import ToolContext
from midwatch.orchestration.tools.coroutines import run_on_loop
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.failures import tool_failure
from midwatch.orchestration.tools.inside import INSIDE
from midwatch.orchestration.tools.results import render
from midwatch.orchestration.tools.threads import Overrun, RunningCall, run_in_thread
from midwatch.orchestration.validation.problems import explain
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import Failure, FailureKind

MAX_DETAIL_CHARS = 500
MAX_ANSWER_CHARS = 4_000
"""Longest message of a `ToolError`. It is an answer to the model, so it may be longer than a failure's detail."""


@dataclass(frozen=True)
class ToolOutcome:
    """The value that a tool returned, as text. Its length is not limited yet: see `results.bound`."""

    content: str


def run_tool(tool: Tool, arguments: JsonObject, context: ToolContext | None = None) -> ToolOutcome:
    """Run a tool with arguments that passed `Toolbox.check`.

    Args:
        tool: What to run.
        arguments: The model's arguments, validated.
        context: Passed to a tool that takes one. Its deadline applies if it is earlier than the tool's own.

    Raises:
        ToolError: the tool raised it on purpose; its message is returned to the model.
        ToolFailed: the tool raised something else (its kind by `failures`, or by its own `ToolFailed`), ran out of time,
            or has a result or an argument of the wrong form (format_error).

    """
    values = _convert_arguments(tool, arguments, context)
    timeout_s = min(tool.timeout_s, context.remaining_s()) if context else tool.timeout_s
    inside = copy_context()
    inside.run(INSIDE.set, True)
    try:
        call = _call(tool, values, inside, timeout_s)
    except Overrun as overrun:
        detail = f"{tool.name} was not done after {timeout_s:.3g} s and {overrun}"
        raise ToolFailed(Failure(kind=FailureKind.TIMEOUT, detail=detail)) from None
    error, call.error = (
        call.error,
        None,
    )  # the error's frames hold the call: break the cycle, so that the arguments are freed
    if isinstance(error, ToolError):
        raise ToolError(_clean(str(error), MAX_ANSWER_CHARS)) from error
    if isinstance(error, ToolFailed):
        raise error
    if error is not None:
        raise ToolFailed(tool_failure(error, hide_passwords(_detail(error)))) from error
    return ToolOutcome(call.value or "")


def _call(tool: Tool, values: JsonObject, inside: Context, timeout_s: float) -> RunningCall[str]:
    if not tool.is_coroutine:
        return run_in_thread(partial(_call_and_render, tool.function, values), inside, timeout_s)
    returned = run_on_loop(partial(tool.function, **values), inside, timeout_s)
    if returned.error is not None:
        return returned
    return run_in_thread(partial(render, returned.value), inside, timeout_s)  # not in the loop, which other tools need


def _convert_arguments(tool: Tool, arguments: JsonObject, context: ToolContext | None) -> JsonObject:
    values, problems = tool.signature.convert(arguments)
    if problems:
        detail = explain(problems, tool.validator.schema)[:MAX_DETAIL_CHARS]
        raise ToolFailed(Failure(kind=FailureKind.FORMAT_ERROR, detail=detail))
    if tool.takes_context is not None:
        if context is None:
            raise ConfigError(f"tool {tool.name} takes a ToolContext; give run_tool one")
        values[tool.takes_context] = context
    return values


def _call_and_render(function: Callable[..., Any], values: JsonObject) -> str:
    """Call the function and render its result. Both run in the tool's thread, so that the time limit covers both."""
    value = function(**values)
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("a coroutine was returned, not a result: declare the tool with `async def`")
    return render(value)


def _detail(error: BaseException) -> str:
    """Type and message of an error. A traceback would not help the model."""
    try:
        message = str(error)
    except Exception:
        message = "(its message can't be read)"
    return _clean(f"{type(error).__name__}: {message}", MAX_DETAIL_CHARS)


def _clean(text: str, most_chars: int) -> str:
    return text[:most_chars].encode(errors="replace").decode()
