"""Run one tool: its arguments converted, its time limited, whatever it raises turned into a failure that is data.

A function runs in a kept thread (see `toolthreads`: one that overruns is abandoned, not stopped), a coroutine function
on the process's one loop (see `toolloop`: it is cancelled). Context variables, structlog's among them, go with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from midwatch.orchestration.errors import ConfigError, ToolError, ToolFailed
from midwatch.orchestration.tools.context import ToolContext
from midwatch.orchestration.tools.coroutines import run_on_loop
from midwatch.orchestration.tools.declaration import Tool
from midwatch.orchestration.tools.failures import tool_failure
from midwatch.orchestration.tools.results import render
from midwatch.orchestration.tools.threads import Call, Overrun, run_in_thread
from midwatch.orchestration.validation.problems import explain
from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import Failure, FailureKind

MAX_DETAIL_CHARS = 500
MAX_ANSWER_CHARS = 4_000
"""Of a `ToolError`: it is an answer, so it may be longer than the detail of a failure."""

_inside: ContextVar[bool] = ContextVar("midwatch_inside_tool", default=False)


@dataclass(frozen=True)
class ToolOutcome:
    """What a tool returned, as text. Not bounded yet: see `results.bound`."""

    content: str


def is_inside_tool() -> bool:
    """True in a tool's thread and in its coroutine: there, nobody may wait for the fleet."""
    return _inside.get()


def run_tool(tool: Tool, arguments: JsonObject, context: ToolContext | None = None) -> ToolOutcome:
    """Run a tool with arguments that passed `Toolbox.check`.

    Args:
        tool: What to run.
        arguments: As the model said them, validated.
        context: Handed to a tool that takes one; its deadline holds when it is nearer than the tool's own.

    Raises:
        ToolError: raised by the tool, on purpose: the model is told.
        ToolFailed: it raised (a kind by `toolfailures`, or as its own `ToolFailed` says), ran out of time, or has a
            result or an argument of the wrong form (format_error).

    """
    values = _values(tool, arguments, context)
    timeout_s = min(tool.timeout_s, context.remaining_s()) if context else tool.timeout_s
    inside = copy_context()
    inside.run(_inside.set, True)
    try:
        call = _called(tool, values, inside, timeout_s)
    except Overrun as overrun:
        detail = f"{tool.name} was not done after {timeout_s:.3g} s and {overrun}"
        raise ToolFailed(Failure(kind=FailureKind.TIMEOUT, detail=detail)) from None
    error, call.error = call.error, None  # an error holds the frame that holds the call: don't keep the arguments alive
    if isinstance(error, ToolError):
        raise ToolError(_clean(str(error), MAX_ANSWER_CHARS)) from error
    if isinstance(error, ToolFailed):
        raise error
    if error is not None:
        raise ToolFailed(tool_failure(error, _detail(error))) from error
    return ToolOutcome(call.value or "")


def _called(tool: Tool, values: JsonObject, inside: Context, timeout_s: float) -> Call[str]:
    if not tool.is_coroutine:
        return run_in_thread(partial(_returned, tool.function, values), inside, timeout_s)
    returned = run_on_loop(partial(tool.function, **values), inside, timeout_s)
    if returned.error is not None:
        return returned
    return run_in_thread(partial(render, returned.value), inside, timeout_s)  # not on the loop: others wait for it


def _values(tool: Tool, arguments: JsonObject, context: ToolContext | None) -> JsonObject:
    values, problems = tool.signature.convert(arguments)
    if problems:
        detail = explain(problems, tool.validator.schema)[:MAX_DETAIL_CHARS]
        raise ToolFailed(Failure(kind=FailureKind.FORMAT_ERROR, detail=detail))
    if tool.takes_context is not None:
        if context is None:
            raise ConfigError(f"tool {tool.name} takes a ToolContext; give run_tool one")
        values[tool.takes_context] = context
    return values


def _returned(function: Callable[..., Any], values: JsonObject) -> str:
    """In the tool's thread, so that rendering (its own `__repr__`, ten million rows) is under the limit, too."""
    value = function(**values)
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("a coroutine was returned, not a result: declare the tool with `async def`")
    return render(value)


def _detail(error: BaseException) -> str:
    """Type and message, no traceback: the model has no use for our line numbers."""
    try:
        said = str(error)
    except Exception:
        said = "(its message can't be read)"
    return _clean(f"{type(error).__name__}: {said}", MAX_DETAIL_CHARS)


def _clean(text: str, most_chars: int) -> str:
    return text[:most_chars].encode(errors="replace").decode()
