"""ScriptedModel: a model with fixed replies. It fails the test if it is called too often or too rarely."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.contract import canonical_json
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.message import Part, Text, ToolCall
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage

Line = str | ToolCall | Sequence[str | ToolCall] | FailureKind | Failure | ModelReply
"""One reply: text, a tool call, a list of both, a failure of the provider, or a complete `ModelReply`."""

Reply = Line | Callable[[ModelRequest], Line]
"""A reply, or a function that makes the reply from the request (and may check the request)."""

BYTES_PER_TOKEN = 4


def call(tool: str, /, **arguments: object) -> ToolCall:
    """A tool call as a model would write it. For arguments that are not valid JSON, make a `ToolCall` yourself."""
    return ToolCall(id="", name=tool, raw_arguments=json.dumps(arguments, ensure_ascii=False))


class ScriptedModel:
    """`ports.Model` that returns the replies of a script in order. `requests` holds the requests it got.

    Use it as a context manager, or call `assert_done()`: both fail the test if replies are left. `run_inline` calls
    `assert_done()` itself, except inside such a block.

        with ScriptedModel([call("look_up", order="A-17"), "It is on its way."]) as model:
            run_inline(agent, "Where is A-17?", model=model)
    """

    name = "scripted"

    def __init__(self, replies: Iterable[Reply], *, model: str = "scripted-1") -> None:
        self.requests: list[ModelRequest] = []
        self.entered = False
        """True inside the `with` block, which checks the script at its end."""
        self._replies = list(replies)
        self._model = model
        self.error: Exception | None = None
        """An error in the script. For a worker it is a dead letter like any other, so it is kept here for the test."""

    def complete(self, request: ModelRequest) -> ModelReply:
        """Return the next reply of the script.

        Raises:
            ModelError: the next reply is a failure.
            AssertionError: the script has no replies left.

        """
        self.requests.append(request)
        try:
            line = self._next(request)
        except Exception as error:
            self.error = error
            raise
        if isinstance(line, FailureKind):
            line = Failure(kind=line, detail="as scripted")
        if isinstance(line, Failure):
            raise ModelError(line)
        return line if isinstance(line, ModelReply) else self._make_reply(len(self.requests), request, line)

    def count(self, request: ModelRequest) -> int | None:
        """Return None: this model has no counter."""
        return None

    def assert_done(self) -> None:
        """Check that the run used every reply and needed no more."""
        if self.error:
            raise self.error
        left = self._replies[len(self.requests) :]
        if left:
            raise AssertionError(f"{len(left)} of {len(self._replies)} replies were not used; next: {left[0]!r:.200}")

    def __enter__(self) -> Self:
        self.entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.entered = False
        if kind is None:
            self.assert_done()

    def _next(self, request: ModelRequest) -> Line:
        turn = len(self.requests)
        if turn > len(self._replies):
            problem = f"model call {turn} was not expected: the script has {len(self._replies)} replies"
            raise AssertionError(f"{problem}. {_describe_last_message(request)}")
        reply = self._replies[turn - 1]
        return reply(request) if callable(reply) else reply

    def _make_reply(
        self, turn: int, request: ModelRequest, line: str | ToolCall | Sequence[str | ToolCall]
    ) -> ModelReply:
        items = [line] if isinstance(line, (str, ToolCall)) else list(line)
        parts: list[Part] = []
        for place, item in enumerate(items):
            if isinstance(item, str):
                parts.append(Text(text=item))
            else:
                parts.append(item if item.id else item.model_copy(update={"id": f"call_{turn}_{place}"}))
        has_calls = any(isinstance(part, ToolCall) for part in parts)
        return ModelReply(
            parts=tuple(parts),
            stop=Stop.TOOLS if has_calls else Stop.END,
            usage=Usage(
                input_tokens=len(request.model_dump_json()) // BYTES_PER_TOKEN + 1,
                output_tokens=sum(len(part.model_dump_json()) for part in parts) // BYTES_PER_TOKEN + 1,
            ),
            model=self._model,
        )


def _describe_last_message(request: ModelRequest) -> str:
    last = request.messages[-1] if request.messages else None
    return (
        f"The last message was {canonical_json(last.model_dump(mode='json'))[:300]}" if last else "It had no messages."
    )
