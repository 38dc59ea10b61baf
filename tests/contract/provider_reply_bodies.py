"""Response bodies in the three formats: Anthropic Messages, OpenAI Responses and Chat Completions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANTHROPIC_RATE_HEADERS = {
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-tokens-reset": "2026-11-24T10:00:00Z",
    "retry-after": "3",
}
OPENAI_RATE_HEADERS = {
    "x-ratelimit-remaining-requests": "49",
    "x-ratelimit-reset-tokens": "6m0s",
    "retry-after": "3",
}


@dataclass(frozen=True)
class AnthropicReplies:
    """Replies of Anthropic's Messages API."""

    path: str = "/v1/messages"
    rate_headers: Mapping[str, str] = field(default_factory=lambda: ANTHROPIC_RATE_HEADERS)

    def _message(self, content: Any, stop: object, **changes: Any) -> Any:
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "model-2026", "content": content,
            "stop_reason": stop, "stop_sequence": None, "usage": self.usage(314, 21), **changes,
        }  # fmt: skip

    def text(self, text: str) -> Any:
        return self._message([{"type": "text", "text": text}], "end_turn")

    def calls(self, *calls: tuple[str, str, str]) -> Any:
        blocks = [{"type": "tool_use", "id": i, "name": n, "input": json.loads(a or "{}")} for i, n, a in calls]
        return self._message(blocks, "tool_use")

    def cut_at_length(self, text: str, output_tokens: int = 900) -> Any:
        return self._message([{"type": "text", "text": text}], "max_tokens", usage=self.usage(314, output_tokens))

    def stopped(self, answer: Any, word: object) -> Any:
        return set_field(answer, "stop_reason", word)

    def refusal(self) -> Any:
        return self._message([{"type": "text", "text": "No."}], "refusal")

    def with_usage(self, usage: object) -> Any:
        return self._message([{"type": "text", "text": "Hello"}], "end_turn", usage=usage)

    def usage(self, read: object, written: object) -> Any:
        return {"input_tokens": read, "output_tokens": written}

    def error(self, kind: str, message: str) -> Any:
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_7"}

    def bodies_without_an_answer(self) -> list[Any]:
        return [[], {}, self._message(None, "end_turn"), self._message({}, "end_turn")]

    def odd_texts(self) -> list[tuple[Any, str]]:
        return [
            (self._message("hello", "end_turn"), "hello"),
            (self._message([None, "hello"], "end_turn"), "hello"),
            (self._message({"type": "text", "text": "hello"}, "end_turn"), "hello"),
            (self._message([{"type": "text", "text": {"a": 1}}], "end_turn"), '{"a":1}'),
        ]

    def odd_calls(self) -> list[tuple[Any, str, str]]:
        def call(**changes: Any) -> Any:
            return self._message([{"type": "tool_use", "id": "a", "name": "search", **changes}], "tool_use")

        return [
            (call(name=None, input={}), "", "{}"), (call(input=7), "search", "7"),
            (call(input='{"a'), "search", '{"a'), (call(input=None), "search", ""),
        ]  # fmt: skip

    def results(self, body: Any) -> list[tuple[str, str]]:
        blocks = [block for message in body["messages"] for block in message["content"]]
        return [(b["tool_use_id"], b["content"]) for b in blocks if b["type"] == "tool_result"]

    def call_ids(self, body: Any) -> list[str]:
        return [b["id"] for m in body["messages"] for b in m["content"] if b["type"] == "tool_use"]


@dataclass(frozen=True)
class ResponsesReplies:
    """Replies of OpenAI's Responses API."""

    path: str = "/v1/responses"
    rate_headers: Mapping[str, str] = field(default_factory=lambda: OPENAI_RATE_HEADERS)

    def _response(self, output: Any, status: object = "completed", reason: str | None = None, **changes: Any) -> Any:
        return {
            "id": "resp_1", "object": "response", "created_at": 1, "model": "model-2026", "status": status,
            "output": output, "usage": self.usage(314, 21), "error": None,
            "incomplete_details": None if reason is None else {"reason": reason}, **changes,
        }  # fmt: skip

    def _message(self, text: object, kind: str = "output_text", key: str = "text") -> list[Any]:
        return [{"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": kind, key: text}]}]

    def text(self, text: str) -> Any:
        return self._response(self._message(text))

    def calls(self, *calls: tuple[str, str, str]) -> Any:
        return self._response(
            [{"type": "function_call", "id": "fc_1", "call_id": i, "name": n, "arguments": a} for i, n, a in calls]
        )

    def cut_at_length(self, text: str, output_tokens: int = 900) -> Any:
        usage = self.usage(314, output_tokens)
        return self._response(self._message(text), "incomplete", "max_output_tokens", usage=usage)

    def stopped(self, answer: Any, word: object) -> Any:
        return set_field(answer, "status", word)

    def refusal(self) -> Any:
        return self._response(self._message("No.", "refusal", "refusal"))

    def with_usage(self, usage: object) -> Any:
        return self._response(self._message("Hello"), usage=usage)

    def usage(self, read: object, written: object) -> Any:
        return {"input_tokens": read, "output_tokens": written, "input_tokens_details": None}

    def error(self, kind: str, message: str) -> Any:
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": kind}}

    def bodies_without_an_answer(self) -> list[Any]:
        return [[], {}, self._response(None), self._response({})]

    def odd_texts(self) -> list[tuple[Any, str]]:
        return [
            (self._response("hello"), "hello"), (self._response(None, output_text="hello"), "hello"),
            (self._response(self._message("hello")[0]), "hello"), (self._response([None, "hello"]), "hello"),
            (self._response([{"type": "message", "content": "hello"}]), "hello"),
            (self._response(self._message({"a": 1})), '{"a":1}'),
        ]  # fmt: skip

    def odd_calls(self) -> list[tuple[Any, str, str]]:
        def call(**changes: Any) -> Any:
            return self._response([{"type": "function_call", "call_id": "a", "name": "search", **changes}])

        return [
            (call(name=None, arguments="{}"), "", "{}"), (call(arguments=7), "search", "7"),
            (call(arguments={"a": 1}), "search", '{"a":1}'), (call(arguments=None), "search", ""),
        ]  # fmt: skip

    def results(self, body: Any) -> list[tuple[str, str]]:
        return [(i["call_id"], i["output"]) for i in body["input"] if i.get("type") == "function_call_output"]

    def call_ids(self, body: Any) -> list[str]:
        return [item["call_id"] for item in body["input"] if item.get("type") == "function_call"]


@dataclass(frozen=True)
class ChatReplies:
    """Replies of a Chat Completions server."""

    path: str
    rate_headers: Mapping[str, str] = field(default_factory=lambda: OPENAI_RATE_HEADERS)

    def _completion(self, message: Any, finish: object = "stop", **changes: Any) -> Any:
        choice = {"index": 0, "finish_reason": finish, "message": message}
        return {
            "id": "c_1", "object": "chat.completion", "created": 1, "model": "model-2026", "choices": [choice],
            "usage": self.usage(314, 21), **changes,
        }  # fmt: skip

    def _message(self, content: object, **more: Any) -> Any:
        return {"role": "assistant", "content": content, **more}

    def _calls(self, *calls: tuple[Any, Any, Any]) -> list[Any]:
        return [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in calls]

    def text(self, text: str) -> Any:
        return self._completion(self._message(text))

    def calls(self, *calls: tuple[str, str, str]) -> Any:
        return self._completion(self._message(None, tool_calls=self._calls(*calls)), "tool_calls")

    def cut_at_length(self, text: str, output_tokens: int = 900) -> Any:
        return self._completion(self._message(text), "length", usage=self.usage(314, output_tokens))

    def stopped(self, answer: Any, word: object) -> Any:
        return {**answer, "choices": [set_field(answer["choices"][0], "finish_reason", word)]}

    def refusal(self) -> Any:
        return self._completion(self._message(None, refusal="No."))

    def with_usage(self, usage: object) -> Any:
        return self._completion(self._message("Hello"), usage=usage)

    def usage(self, read: object, written: object) -> Any:
        return {"prompt_tokens": read, "completion_tokens": written}

    def error(self, kind: str, message: str) -> Any:
        return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": kind}}

    def bodies_without_an_answer(self) -> list[Any]:
        return [
            [], {}, {"choices": []}, {"choices": None}, {"choices": [None]}, self._completion(None),
        ]  # fmt: skip

    def odd_texts(self) -> list[tuple[Any, str]]:
        return [
            (self._completion(self._message(7)), "7"), (self._completion(self._message({"a": 1})), '{"a":1}'),
            (self._completion(self._message(["he", {"type": "text", "text": "llo"}, None])), "hello"),
            (self._completion(self._message("hello", tool_calls="f")), "hello"),
            ({"choices": [{"text": "hello", "finish_reason": "stop"}]}, "hello"),
            ({"choices": [{"delta": {"content": "hello"}, "finish_reason": "stop"}]}, "hello"),
        ]  # fmt: skip

    def odd_calls(self) -> list[tuple[Any, str, str]]:
        def calls(*calls: Any) -> Any:
            return self._completion(self._message(None, tool_calls=list(calls)), "tool_calls")

        return [
            (calls(None), "", ""), (calls({"id": "a", "type": "function", "function": None}), "", ""),
            (calls(*self._calls(("a", None, "{}"))), "", "{}"), (calls(*self._calls(("a", "search", 7))), "search", "7"),
            (self._completion(self._message(None, function_call={"name": "search", "arguments": "{}"}), "function_call"),
             "search", "{}"),
        ]  # fmt: skip

    def results(self, body: Any) -> list[tuple[str, str]]:
        return [(m["tool_call_id"], m["content"]) for m in body["messages"] if m["role"] == "tool"]

    def call_ids(self, body: Any) -> list[str]:
        return [entry["id"] for message in body["messages"] for entry in message.get("tool_calls", ())]


def set_field(body: Any, name: str, value: object) -> Any:
    """Return a copy of the body with another value. `...` leaves the field out."""
    others = {key: kept for key, kept in body.items() if key != name}
    return others if value is ... else {**others, name: value}
