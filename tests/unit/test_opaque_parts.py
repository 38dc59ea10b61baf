"""Opaque parts of earlier turns go back only to the model and server that made them, and not to one that refuses them."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch import Agent, tool
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.drift.opaque_refusals import KEPT_MS
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import AssistantMessage, Opaque, Part, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelRequest
from midwatch.schemas.step import Defer
from midwatch.testing import InlineFleet
from midwatch.workers.providers.chat_completions.chat_format import ChatFormat
from midwatch.workers.providers.history.opaque_parts import leave_out_foreign_parts, name_server
from midwatch.workers.providers.responses.request import write_responses_request
from tests.unit.strict_vendor import StrictVendor, chat_call, chat_text

THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}


@tool
def look_up(order: str) -> str:
    """Look up an order."""
    return f"{order} is on its way"


def agent(model: str = "openai-compatible:m-1") -> Agent:
    return Agent("clerk", model, "You help.", tools=[look_up])


def turn(*parts: Part, **fields: Any) -> AssistantMessage:
    made_by = {"provider": "openai", "model": "gpt-5-2025-08-07", "requested": "gpt-5", "server": "a.test/v1"}
    return AssistantMessage(group=2, parts=parts, **{**made_by, **fields})


def kept(message: AssistantMessage, model: str = "gpt-5", server: str = "a.test/v1", **fields: Any) -> tuple[Part, ...]:
    request = ModelRequest(model=model, system="", messages=(message,), **fields)
    (found,) = leave_out_foreign_parts(request, "openai", server).messages
    assert isinstance(found, AssistantMessage)
    return found.parts


def test_opaque_parts_go_back_to_their_maker_only() -> None:
    """Another model, server or provider gets the text alone. A server that refused the parts does not get them again."""
    said, thought = Text(text="hi"), Opaque(provider="openai", raw=THOUGHT)
    assert kept(turn(thought, said)) == (thought, said)
    assert kept(turn(thought, said), model="gpt-5.1") == (said,)
    assert kept(turn(thought, said), server="b.test/v1") == (said,)
    assert kept(turn(thought, said, provider="azure")) == (said,)
    assert kept(turn(thought, said), opaque_refused_by=frozenset({"a.test/v1"})) == (said,)
    assert kept(turn(thought, said), opaque_refused_by=frozenset({"b.test/v1"})) == (thought, said)


def test_signatures_of_calls_go_back_to_their_maker_only() -> None:
    """What a vendor attached to a call is left out like an opaque part. The call itself stays."""
    call = ToolCall(id="c", name="f", raw_arguments="{}", vendor_extra={"extra_content": {"google": {}}})
    assert kept(turn(call)) == (call,)
    assert kept(turn(call), model="gpt-5.1") == (call.model_copy(update={"vendor_extra": None}),)


def test_a_turn_of_an_earlier_release_is_matched_by_name() -> None:
    """It has only the model that the response named, often with a date after the requested name, or without its vendor."""
    thought = Opaque(provider="openai", raw=THOUGHT)
    old = turn(thought, requested=None, server=None)
    assert kept(old) == (thought,)
    assert kept(old, model="o3") == ()
    assert kept(turn(thought, requested=None, model="gpt-5"), model="openai/gpt-5") == (thought,)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://api.openai.com/v1", "api.openai.com/v1"),
        ("http://user:secret@Local.test:8000/v1/?key=x", "local.test:8000/v1"),
        ("", ""),
    ],
)
def test_a_server_is_named_without_secrets(url: str, server: str) -> None:
    """The name of a server is stored in sessions. It holds no user, password or query."""
    assert name_server(url) == server


def items(*parts: Part) -> list[Any]:
    results = tuple(
        ToolMessage(group=2, ordinal=n, call_id="x", tool="f", content="r")
        for n in range(sum(isinstance(part, ToolCall) for part in parts))
    )
    request = ModelRequest(model="gpt-5", system="", messages=(UserMessage(group=1, text="x"), turn(*parts), *results))
    return [item for item in write_responses_request(request, "openai")["input"] if item.get("role") != "user"]


def test_a_reasoning_item_needs_the_item_after_it() -> None:
    """OpenAI refuses a reasoning item that is followed by nothing of its turn, and one that it can only look up by its id."""
    thought, call = Opaque(provider="openai", raw=THOUGHT), ToolCall(id="c", name="f", raw_arguments="{}")
    by_id = Opaque(provider="openai", raw={"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": None})
    assert [item.get("type") for item in items(thought, call)][:2] == ["reasoning", "function_call"]
    assert "reasoning" not in [item.get("type") for item in items(Text(text="a"), thought)]
    assert "reasoning" not in [item.get("type") for item in items(by_id, call)]
    assert "reasoning" not in [item.get("type") for item in items(thought, Text(text=""))]


def refuse_reasoning(body: dict[str, Any], status: int = 400) -> tuple[int, Any]:
    """Refuse reasoning in the history, without a word about it. Otherwise call the tool after each user message, then answer."""
    if any("reasoning_content" in message for message in body["messages"]):
        return status, {"error": {"message": "Bad request"}}
    if body["messages"][-1]["role"] == "user":
        return 200, chat_call("look_up", '{"order":"A"}', reasoning_content="hm")
    return 200, chat_text("On its way.", reasoning_content="so")


def test_a_refusal_in_a_200_is_a_refusal_of_opaque_parts() -> None:
    """A gateway sends the server's 400 with status 200."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        status, reply = refuse_reasoning(body)
        return 200, {"error": {"message": "Bad request", "code": status}} if status == 400 else reply

    fleet = InlineFleet(model=StrictVendor("openai-compatible", answer).model)
    assert fleet.run(fleet.enqueue(agent(), "Where is A?")).output == "On its way."


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refused_call_is_made_again_without_opaque_parts(status: int) -> None:
    """The second call is made in the same step. Later turns and jobs at this server pay for no refused call."""
    vendor = StrictVendor("openai-compatible", lambda body: refuse_reasoning(body, status))
    fleet, clerk = InlineFleet(model=vendor.model), agent()
    first = fleet.enqueue(clerk, "Where is A?", session_id="s-1")
    assert fleet.run(first).output == "On its way."
    assert vendor.statuses == [200, status, 200]
    assert [record.asked for record in fleet.trace(first)] == ["", "", "without opaque parts"]
    traces = []
    for session in ("s-1", "s-2"):
        job_id = fleet.enqueue(clerk, "And now?", session_id=session)
        assert fleet.run(job_id).status is JobStatus.COMPLETED
        traces.append([record.asked for record in fleet.trace(job_id)])
    assert vendor.statuses.count(status) == 1
    # Each turn shows it, as soon as there is an earlier turn with such parts.
    assert traces == [["without opaque parts", "", "without opaque parts"], ["", "", "without opaque parts"]]


def test_other_workers_learn_of_the_refusal_and_forget_it() -> None:
    """The commit tells the fleet. After two hours the parts are tried again."""
    vendor = StrictVendor("openai-compatible", refuse_reasoning)
    fleet, clerk = InlineFleet(model=vendor.model), agent()
    fleet.run(fleet.enqueue(clerk, "Where is A?", session_id="s-1"))
    services = fleet.runner.services
    assert services.store.drift_counters(1)
    services.__post_init__()  # the memory of another process: empty
    fleet.run(fleet.enqueue(clerk, "And now?", session_id="s-1"))
    assert vendor.statuses.count(400) == 1
    fleet.clock.advance(2 * KEPT_MS + 1)
    fleet.run(fleet.enqueue(clerk, "And now?", session_id="s-1"))
    assert vendor.statuses.count(400) == 2


def test_a_call_that_fails_either_way_ends_the_job_once() -> None:
    """If the call is refused without opaque parts, too, they are not to blame. The letter names both errors."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if body["messages"][-1]["role"] == "user":
            return 200, chat_call("look_up", '{"order":"A"}', reasoning_content="hm")
        has = any("reasoning_content" in message for message in body["messages"])
        return 400, {"error": {"message": "reasoning is wrong" if has else "reasoning is missing"}}

    vendor = StrictVendor("openai-compatible", answer)
    fleet = InlineFleet(model=vendor.model)
    result = fleet.run(fleet.enqueue(agent(), "Where is A?"))
    assert result.failure is not None
    assert result.failure.kind is FailureKind.FORMAT_ERROR
    assert "reasoning is wrong" in result.failure.detail
    assert "reasoning is missing" in result.failure.detail
    assert vendor.statuses == [200, 400, 400]
    assert not fleet.runner.services.opaque.servers("openai-compatible:m-1", "s-1")


@pytest.mark.parametrize(
    "error",
    [
        (400, {"error": {"code": "context_length_exceeded", "message": "prompt is too long"}}),
        (400, {"error": {"message": "You have reached your specified API usage limits"}}),
        (401, {"error": {"message": "no"}}),
    ],
)
def test_a_refusal_with_another_reason_is_no_suspicion(error: tuple[int, Any]) -> None:
    """A full window, a spend cap or a key that was refused has nothing to do with opaque parts."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if body["messages"][-1]["role"] == "user":
            return 200, chat_call("look_up", '{"order":"A"}', reasoning_content="hm")
        return error

    vendor = StrictVendor("openai-compatible", answer)
    fleet = InlineFleet(model=vendor.model)
    fleet.run(fleet.enqueue(agent(), "Where is A?"))
    with_parts = [any("reasoning_content" in message for message in body["messages"]) for body in vendor.bodies[1:]]
    assert all(with_parts)


def test_server_errors_end_by_leaving_the_parts_out() -> None:
    """Some local servers answer 500 because their chat template fails. After two of them the parts are left out."""
    vendor = StrictVendor("openai-compatible", lambda body: refuse_reasoning(body, 500))
    fleet = InlineFleet(model=vendor.model)
    assert fleet.run(fleet.enqueue(agent(), "Where is A?")).output == "On its way."
    assert vendor.statuses == [200, 500, 500, 200]


def test_a_dead_letter_of_a_refused_history_can_be_replayed() -> None:
    """A replay of a job that ended at a refused history goes on, because the replayed call is made again without the parts."""
    strict = False

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if strict:
            return 400, {"error": {"message": "Bad request"}}
        return refuse_reasoning(body)

    vendor = StrictVendor("openai-compatible", answer)
    fleet = InlineFleet(model=vendor.model)
    strict = True
    job_id = fleet.enqueue(agent(), "Where is A?")
    assert fleet.run(job_id).status is JobStatus.DEAD_LETTERED
    strict = False
    fleet.operations.replay(job_id)
    assert fleet.run(job_id).output == "On its way."


def test_another_agent_of_the_session_gets_no_foreign_reasoning() -> None:
    """A second agent with another model takes over a session. It gets the first one's words, and none of its reasoning."""
    vendor = StrictVendor("openai-compatible", lambda body: (200, chat_text("ok", reasoning_content="hm")))
    fleet = InlineFleet(model=vendor.model)
    fleet.run(fleet.enqueue(agent(), "a", session_id="s-1"))
    fleet.run(fleet.enqueue(Agent("other", "openai-compatible:m-2", "You help."), "b", session_id="s-1"))
    fleet.run(fleet.enqueue(agent(), "c", session_id="s-1"))
    reasoning = [
        ["reasoning_content" in m for m in body["messages"] if m["role"] == "assistant"] for body in vendor.bodies
    ]
    assert reasoning == [[], [False], [True, False]]


@pytest.mark.parametrize(("host", "filled"), [("api.deepseek.com", True), ("api.moonshot.ai", True), ("x.test", False)])
def test_a_server_that_wants_reasoning_gets_it_for_every_turn(host: str, filled: bool) -> None:
    """DeepSeek and Kimi refuse a model message without reasoning. Turns of other models get a blank one there."""
    chat = ChatFormat("openai-compatible", gemini=False, server=f"{host}/v1")
    own = turn(Opaque(provider="openai-compatible", raw={"reasoning_content": "hm"}), Text(text="hi"))
    own = own.model_copy(update={"provider": "openai-compatible"})
    history = (turn(Text(text="hi"), provider="anthropic"), UserMessage(group=3, text="x"), own)
    request = ModelRequest(model="m", system="", messages=history)
    sent = [message for message in chat.write_request(request)["messages"] if message["role"] == "assistant"]
    assert [message.get("reasoning_content") for message in sent] == [" " if filled else None, "hm"]
    refused = request.model_copy(update={"opaque_refused_by": frozenset({f"{host}/v1"})})
    sent = [message for message in chat.write_request(refused)["messages"] if message["role"] == "assistant"]
    assert sent[0].get("reasoning_content") is None


class CountingGate(OpenGate):
    """A gate that counts what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.admitted = 0
        self.reported: list[Report] = []

    def admit(self, call: Call) -> Defer | Failure | None:
        self.admitted += 1
        return super().admit(call)

    def settle(self, call: Call, report: Report) -> Settlement:
        self.reported.append(report)
        return super().settle(call, report)


def test_the_second_call_is_admitted_and_settled_like_any_other() -> None:
    """The gate sees the refused call and the one after it. Each is settled once."""
    vendor, gate = StrictVendor("openai-compatible", refuse_reasoning), CountingGate()
    fleet = InlineFleet(model=vendor.model, gate=gate)
    result = fleet.run(fleet.enqueue(agent(), "Where is A?"))
    assert (gate.admitted, len(gate.reported)) == (3, 3)
    assert [report.failure is not None for report in gate.reported] == [False, True, False]
    assert result.usage.output_tokens == 40


def test_reasoning_of_a_key_that_was_rotated_costs_one_call() -> None:
    """OpenAI can't decrypt the reasoning of another organization. The session goes on without it."""

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        if any(item.get("encrypted_content") == "old" for item in body["input"]):
            return 400, {
                "error": {"code": "invalid_encrypted_content", "type": "invalid_request_error", "message": "no"}
            }
        thought = {**THOUGHT, "encrypted_content": key}
        text = {"type": "message", "content": [{"type": "output_text", "text": "ok"}]}
        return 200, {"status": "completed", "output": [thought, text], "model": "gpt-5-2025-08-07"}

    vendor, key = StrictVendor("openai", answer), "old"
    fleet, clerk = InlineFleet(model=vendor.model), agent("openai:gpt-5-2025-08-07")
    fleet.run(fleet.enqueue(clerk, "a", session_id="s-1"))
    key = "new"
    for _ in range(2):
        assert fleet.run(fleet.enqueue(clerk, "b", session_id="s-1")).output == "ok"
    assert vendor.statuses == [200, 400, 200, 200]


class DeferringGate(OpenGate):
    """A gate that defers one call."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    def admit(self, call: Call) -> Defer | Failure | None:
        self._left -= 1
        return Defer(after_ms=10, reason="slow", counts_as_attempt=False) if self._left == 0 else super().admit(call)


def test_a_second_call_that_is_deferred_comes_back_without_the_parts() -> None:
    """If the gate defers the second call, the next attempt does not send the refused parts again."""
    vendor = StrictVendor("openai-compatible", refuse_reasoning)
    fleet = InlineFleet(model=vendor.model, gate=DeferringGate(3))
    assert fleet.run(fleet.enqueue(agent(), "Where is A?")).output == "On its way."
    assert vendor.statuses == [200, 400, 200]
