"""ScriptedModel: a model that says what a test tells it to, and fails the test when asked too often or too little."""

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
"""One answer: words; a tool call; words and calls together; a failure of the provider; or a reply, whole as it is."""

Reply = Line | Callable[[ModelRequest], Line]
"""An answer, or a function that makes it of the request (and may assert on it)."""

BYTES_PER_TOKEN = 4


def call(tool: str, /, **arguments: object) -> ToolCall:
    """A tool call as a model would write it. For arguments that are no JSON, make a `ToolCall` yourself."""
    return ToolCall(id="", name=tool, raw_arguments=json.dumps(arguments, ensure_ascii=False))


class ScriptedModel:
    """`ports.Model` from a script. Requests are kept in `requests`.

    Use it as a context manager, or call `assert_done()`: a script that was not played to its end is a failed test.
    (`run_inline` does it by itself, outside such a block.)

        with ScriptedModel([call("look_up", order="A-17"), "It is on its way."]) as model:
            run_inline(agent, "Where is A-17?", model=model)
    """

    name = "scripted"

    def __init__(self, replies: Iterable[Reply], *, model: str = "scripted-1") -> None:
        self.requests: list[ModelRequest] = []
        self.entered = False
        """It is a context manager in use: its end checks the script."""
        self._replies = list(replies)
        self._model = model
        self.error: Exception | None = None
        """What went wrong with the script. The step machine makes a dead letter of it; a test wants to see it."""

    def complete(self, request: ModelRequest) -> ModelReply:
        """The next answer of the script.

        Raises:
            ModelError: the script says so.
            AssertionError: the script is over.

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
        return line if isinstance(line, ModelReply) else self._said(len(self.requests), request, line)

    def count(self, request: ModelRequest) -> int | None:
        """None: it has no counter."""
        return None

    def assert_done(self) -> None:
        """The script was played, all of it and nothing more."""
        if self.error:
            raise self.error
        left = self._replies[len(self.requests) :]
        if left:
            raise AssertionError(
                f"{len(left)} of {len(self._replies)} replies were never asked for; next: {left[0]!r:.200}"
            )

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
            said = f"model call {turn} was not expected: the script has {len(self._replies)} replies"
            raise AssertionError(f"{said}. {_tail(request)}")
        reply = self._replies[turn - 1]
        return reply(request) if callable(reply) else reply

    def _said(self, turn: int, request: ModelRequest, line: str | ToolCall | Sequence[str | ToolCall]) -> ModelReply:
        items = [line] if isinstance(line, (str, ToolCall)) else list(line)
        parts: list[Part] = []
        for place, item in enumerate(items):
            if isinstance(item, str):
                parts.append(Text(text=item))
            else:
                parts.append(item if item.id else item.model_copy(update={"id": f"call_{turn}_{place}"}))
        asks = any(isinstance(part, ToolCall) for part in parts)
        return ModelReply(
            parts=tuple(parts),
            stop=Stop.TOOLS if asks else Stop.END,
            usage=Usage(
                input_tokens=len(request.model_dump_json()) // BYTES_PER_TOKEN + 1,
                output_tokens=sum(len(part.model_dump_json()) for part in parts) // BYTES_PER_TOKEN + 1,
            ),
            model=self._model,
        )


def _tail(request: ModelRequest) -> str:
    last = request.messages[-1] if request.messages else None
    return (
        f"The last message was {canonical_json(last.model_dump(mode='json'))[:300]}" if last else "It had no messages."
    )
